"""Naming: which number each voice of a new partition bears, given the numbers published before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from schemas.conversation import VoiceChange
from vps_bridge.labelling.link import LocalSpeaker

RESERVED_NUMBER = 99  # Omi's own speech (omi-facts.md, section 1)


@dataclass(frozen=True)
class Voice:
    """A published number and the local speakers it stands for."""

    speaker_id: int
    members: tuple[LocalSpeaker, ...]
    segments: tuple[str, ...] = ()
    """Segments that bore it: how it is known again when every job was diarized anew."""


@dataclass(frozen=True)
class VoiceBook:
    """The numbers a conversation has published; `to_json` and `from_json` keep it anywhere."""

    voices: tuple[Voice, ...] = ()
    retired: tuple[int, ...] = ()
    """Merged into another or gone: never given again."""

    def to_json(self) -> str:
        """Return it as text."""
        voices = [
            [voice.speaker_id, [[member.job_id, member.speaker] for member in voice.members], voice.segments]
            for voice in self.voices
        ]
        return json.dumps({"voices": voices, "retired": self.retired})

    @classmethod
    def from_json(cls, text: str) -> VoiceBook:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        voices = tuple(
            Voice(number, tuple(LocalSpeaker(job, speaker) for job, speaker in members), tuple(segments))
            for number, members, segments in fields["voices"]
        )
        return cls(voices, tuple(fields["retired"]))


@dataclass(frozen=True)
class FoundVoice:
    """One voice of the new partition and what speaks for its name."""

    members: tuple[LocalSpeaker, ...]
    member_seconds: Mapping[LocalSpeaker, float]
    """Labelled seconds: speech of each member inside transcript segments."""
    segment_seconds: Mapping[str, float]
    """The same seconds by segment."""
    is_matched: bool
    """Whether any segment is this voice's; without one (television) a voice gets no new number."""
    standing: Mapping[int, float]
    """Seconds of untouched segments bearing a number that this voice dominates."""


@dataclass(frozen=True)
class Naming:
    """The number of each found voice (None: no number), what to keep, and what to tell."""

    numbers: tuple[int | None, ...]
    book: VoiceBook
    changes: tuple[VoiceChange, ...]


def name_voices(found: Sequence[FoundVoice], book: VoiceBook, standing: frozenset[int]) -> Naming:
    """Give every voice its number.

    A voice keeps its first published number. Merge: the number with more labelled seconds survives, the other
    is retired and never given again. Split: the larger part keeps it. A new voice takes the number that stands on
    untouched segments it dominates, else the smallest that is free: never published, not standing on an
    untouched segment, not 99.

    Args:
        found: the voices in order of first speech.
        book: what was published before.
        standing: numbers on segments that will not be touched.
    """
    seconds = [[_shared_seconds(old, new) for new in found] for old in book.voices]
    kept = _match(seconds, book)
    numbers: list[int | None] = [None] * len(found)
    for old_place, new_place in kept.items():
        numbers[new_place] = book.voices[old_place].speaker_id
    changes = _gone(book, seconds, kept, numbers)
    published = {voice.speaker_id for voice in book.voices} | set(book.retired)
    taken = published | {RESERVED_NUMBER}
    for place, voice in enumerate(found):
        if numbers[place] is not None or not voice.is_matched:
            continue
        number = _new_number(voice, taken, standing)
        numbers[place] = number
        taken.add(number)
        changes.append(_appeared(number, place, book, seconds, kept))
    gone = {change.speaker_id for change in changes if change.change in ("merged", "retired")}
    voices = tuple(
        Voice(number, tuple(sorted(voice.members)), tuple(sorted(voice.segment_seconds)))
        for number, voice in zip(numbers, found, strict=True)
        if number is not None
    )
    kept_book = VoiceBook(
        tuple(sorted(voices, key=lambda voice: voice.speaker_id)), tuple(sorted({*book.retired, *gone}))
    )
    return Naming(tuple(numbers), kept_book, tuple(changes))


def _shared_seconds(old: Voice, new: FoundVoice) -> tuple[float, float]:
    """How much of the old voice the new one holds: (labelled seconds, a tie-breaking count of members).

    By members; where a new diarization left none of them anywhere, by the segments that bore the number.
    """
    members = [member for member in old.members if member in new.member_seconds]
    labelled_s = sum(new.member_seconds[member] for member in members)
    if not members:
        return sum(new.segment_seconds.get(segment, 0.0) for segment in old.segments), 0.0
    return labelled_s, float(len(members))


def _match(seconds: Sequence[Sequence[tuple[float, float]]], book: VoiceBook) -> dict[int, int]:
    """Old place -> new place, one to one, most shared seconds first."""
    with_members = [any(members for _, members in row) for row in seconds]
    pairs = sorted(
        (
            (-shared_s, -members, book.voices[old].speaker_id, new, old)
            for old, row in enumerate(seconds)
            for new, (shared_s, members) in enumerate(row)
            if members or (shared_s > 0 and not with_members[old])
        ),
    )
    kept: dict[int, int] = {}
    for *_, new, old in pairs:
        if old not in kept and new not in kept.values():
            kept[old] = new
    return kept


def _gone(
    book: VoiceBook,
    seconds: Sequence[Sequence[tuple[float, float]]],
    kept: Mapping[int, int],
    numbers: Sequence[int | None],
) -> list[VoiceChange]:
    changes = []
    for place, voice in enumerate(book.voices):
        if place in kept:
            continue
        best = max(range(len(numbers)), key=lambda new: seconds[place][new], default=None)
        into = None if best is None or seconds[place][best] <= (0.0, 0.0) else numbers[best]
        if into is None:
            changes.append(VoiceChange(change="retired", speaker_id=voice.speaker_id))
        else:
            changes.append(VoiceChange(change="merged", speaker_id=voice.speaker_id, into=into))
    return changes


def _appeared(
    number: int,
    place: int,
    book: VoiceBook,
    seconds: Sequence[Sequence[tuple[float, float]]],
    kept: Mapping[int, int],
) -> VoiceChange:
    parents = [(seconds[old][place], book.voices[old].speaker_id) for old in kept if seconds[old][place] > (0.0, 0.0)]
    if not parents:
        return VoiceChange(change="new", speaker_id=number)
    return VoiceChange(change="split", speaker_id=max(parents)[1], into=number)


def _new_number(voice: FoundVoice, taken: set[int], standing: frozenset[int]) -> int:
    own = [(-seconds, number) for number, seconds in voice.standing.items() if number not in taken]
    if own:
        return min(own)[1]
    return next(number for number in count() if number not in taken and number not in standing)
