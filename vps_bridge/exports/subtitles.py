"""SRT and WebVTT: the transcript as subtitles that players show beside the sound, with who speaks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vps_bridge.exports.records import ExportedConversation, ExportedLine, ExportedSpeaker

WORDLESS = "(speech)"
"""What a subtitle says where somebody speaks and no words are known."""
LEAST_S = 1.0
"""How long a line without length is shown: players leave out one that ends when it begins."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True)
class Cue:
    """One subtitle."""

    start_ms: int
    end_ms: int
    speaker: str
    """On one line."""
    text: str
    """On one line or more, none of them empty: an empty one would end the subtitle."""


def render_vtt(conversation: ExportedConversation) -> str:
    """Return WebVTT, who speaks as its voice tag: `<v Anna>`."""
    blocks = ["WEBVTT\n"]
    for cue in _make_cues(conversation):
        voice, text = cue.speaker.translate(_ESCAPES), cue.text.translate(_ESCAPES)
        blocks.append(f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n<v {voice}>{text}</v>\n")
    return "\n".join(blocks)


def render_srt(conversation: ExportedConversation) -> str:
    """Return SRT, who speaks before the words: `Anna: good morning`. It has no way to escape: an arrow is replaced."""
    blocks = []
    for number, cue in enumerate(_make_cues(conversation), 1):
        words = f"{cue.speaker}: {cue.text}".replace("-->", "→")
        blocks.append(f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{words}\n")
    return "\n".join(blocks)


def _make_cues(conversation: ExportedConversation) -> list[Cue]:
    """Return the lines, or where no transcript came the turns, by time; neither format has times before zero."""
    return sorted(_each_cue(conversation), key=lambda cue: (cue.start_ms, cue.end_ms))


def _each_cue(conversation: ExportedConversation) -> Iterator[Cue]:
    for spoken in conversation.lines or conversation.turns:
        start_ms, end_ms = (max(0, round(moment_s * 1000)) for moment_s in (spoken.start_s, spoken.end_s))
        if end_ms <= start_ms:
            end_ms = start_ms + round(LEAST_S * 1000)
        text = spoken.text if isinstance(spoken, ExportedLine) else ""
        yield Cue(start_ms, end_ms, _name(spoken.speaker), _clean_lines(text) or WORDLESS)


def _name(speaker: ExportedSpeaker) -> str:
    return " ".join(_CONTROL.sub(" ", speaker.shown_name).split()) or "unknown"


def _clean_lines(text: str) -> str:
    lines = (" ".join(line.split()) for line in _CONTROL.sub("", text).splitlines())
    return "\n".join(line for line in lines if line)


def _clock(moment_ms: int, point: str) -> str:
    seconds, milliseconds = divmod(moment_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{milliseconds:03d}"
