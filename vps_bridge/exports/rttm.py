"""RTTM, the format of speaker turns that tools for diarization read: one turn a line, no words."""

from __future__ import annotations

import re

from vps_bridge.exports.records import ExportedConversation, ExportedLine, ExportedSpeaker, ExportedTurn

_NO_FIELD = re.compile(r"[\s\x00-\x1f\x7f]+")
"""A field ends at white space, and there is no way to quote it."""


def render_rttm(conversation: ExportedConversation) -> str:
    """Return the turns, overlap kept, with one name for each speaker; where none are kept, the transcript's lines.

    The format has no time before zero and no turn without length: what lies there is cut or left out.
    """
    names = _SpeakerNames()
    spoken: tuple[ExportedTurn | ExportedLine, ...] = conversation.turns or conversation.lines
    lines = []
    for turn in spoken:
        start_s = max(0.0, turn.start_s)
        duration_s = round(turn.end_s - start_s, 3)
        if duration_s > 0:
            place = f"{conversation.conversation_id} 1 {start_s:.3f} {duration_s:.3f}"
            lines.append(f"SPEAKER {place} <NA> <NA> {names.name(turn.speaker)} <NA> <NA>\n")
    return "".join(lines)


class _SpeakerNames:
    """Names without white space, one for each speaker: two people who would share one get a number behind it."""

    def __init__(self) -> None:
        self._by_speaker: dict[tuple[object, ...], str] = {}

    def name(self, speaker: ExportedSpeaker) -> str:
        """Return the name of a speaker in this file."""
        known = self._by_speaker.get(speaker.who)
        if known is not None:
            return known
        plain = _NO_FIELD.sub("_", speaker.name).strip("_") or "unknown"
        taken, name, number = set(self._by_speaker.values()), plain, 2
        while name in taken:
            name, number = f"{plain}_{number}", number + 1
        self._by_speaker[speaker.who] = name
        return name
