"""Numbering: which number each voice of a new partition gets, given the numbers published before.

An untouched segment is one that no clear vote decides, so that it is expected to keep the number it has
(`vps_bridge.labelling.decide.untouched_numbers`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from schemas.conversation import VoiceChange
from vps_bridge.labelling.kept_line import KeptLine, LineSearch, LinesNow, lines_from_json, lines_to_json
from vps_bridge.labelling.local_speaker import LocalSpeaker

RESERVED_NUMBER = 99  # Omi reserves it for its own speech (shared/design/omi-facts.md, section 1)


@dataclass(frozen=True)
class Voice:
    """A voice: one speaker of a conversation across all of its jobs. This one has a published number."""

    speaker_id: int
    members: tuple[LocalSpeaker, ...]
    """The local speakers that are this voice."""
    segments: tuple[str, ...] = ()
    """Ids of segments that had its number: they identify it again after every job was diarized anew."""
    person_id: str | None = None
    """Who people say it is."""
    matched_person: str | None = None
    """Who its voiceprint says it is."""
    not_members: frozenset[LocalSpeaker] = field(default=frozenset(), compare=False)
    """The local speakers that were other voices, as far as that is known."""


@dataclass(frozen=True)
class VoiceBook:
    """The numbers that a conversation has published. `to_json` and `from_json` turn it into text and back."""

    voices: tuple[Voice, ...] = ()
    retired: tuple[int, ...] = ()
    """Numbers of voices that were merged into another or have disappeared; they are never given again."""
    restored: Mapping[str, int] = field(default_factory=dict)
    """Segments that have another number since something was taken back: the one that each is labelled with still."""
    lines: Mapping[str, KeptLine] = field(default_factory=dict, compare=False)
    """Which lines the segments of the voices are, as far as that is known."""

    def to_json(self) -> str:
        """Return it as text."""
        voices = [
            [
                voice.speaker_id,
                [[member.job_id, member.speaker] for member in voice.members],
                voice.segments,
                *_persons(voice),
            ]
            for voice in self.voices
        ]
        restored = {"restored": self.restored} if self.restored else {}
        lines = {"lines": lines_to_json(self.lines)} if self.lines else {}
        return json.dumps({"voices": voices, "retired": self.retired, **restored, **lines})

    @classmethod
    def from_json(cls, text: str) -> VoiceBook:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        voices = tuple(
            Voice(number, tuple(LocalSpeaker(job, speaker) for job, speaker in members), tuple(segments), *person)
            for number, members, segments, *person in fields["voices"]
        )
        lines = lines_from_json(fields.get("lines", {}))
        return cls(voices, tuple(fields["retired"]), fields.get("restored", {}), lines)

    @property
    def numbers(self) -> dict[str, int]:
        """The numbers that this pipeline wrote, by segment id."""
        return {segment_id: voice.speaker_id for voice in self.voices for segment_id in voice.segments}

    def with_numbers(self, numbers: Mapping[str, int]) -> VoiceBook:
        """Return this book with other numbers, by segment id."""
        segments: dict[int, list[str]] = {}
        for segment_id, number in sorted(numbers.items()):
            segments.setdefault(number, []).append(segment_id)
        voices = (replace(voice, segments=tuple(segments.get(voice.speaker_id, ()))) for voice in self.voices)
        return replace(self, voices=tuple(voices))

    def with_lines(self, now: LinesNow) -> VoiceBook:
        """Return this book with which lines its segments are now."""
        numbers = self.numbers
        return replace(self, lines={name: line for name, line in now.lines.items() if name in numbers})

    def without_other_lines(self, now: LinesNow) -> VoiceBook:
        """Return this book without the segments whose ids a new transcription gave to other lines."""
        gone = LineSearch(self.lines, now).other_lines()
        if not gone:
            return self
        restored = {name: number for name, number in self.restored.items() if name not in gone}
        numbers = {name: number for name, number in self.numbers.items() if name not in gone}
        return replace(self, restored=restored).with_numbers(numbers)

    def as_lines_are_now(self, now: LinesNow) -> VoiceBook:
        """Return this book with the ids that its lines have now.

        A line that is found no more keeps its id where no other line has it.
        """
        search = LineSearch(self.lines, now)
        numbers, ids = self.numbers, dict[str, tuple[str, ...]]()
        for name in numbers:
            ids[name] = search.find((name,)) if name in self.lines else (name,)
            if not ids[name] and name not in now.lines:
                ids[name] = (name,)
        kept = {one: now.lines.get(one, self.lines[name]) for name in self.lines for one in ids.get(name, ())}
        moved = {one: number for name, number in numbers.items() for one in ids[name]}
        return replace(self, lines=kept).with_numbers(moved)

    def revive(self, earlier: VoiceBook, about: VoiceBook) -> VoiceBook:
        """Return this book with the voices of an earlier one that it has no more, under their old numbers.

        For what was merged and is taken apart again, or the other way round: the same voice gets the same number back,
        and a segment that the correction gave another number has the one it had, or none of ours.

        Args:
            earlier: the book before the correction.
            about: the voices that the correction is about.
        """
        kept, now, then = {voice.speaker_id for voice in self.voices}, self.numbers, earlier.numbers
        back = [voice for voice in earlier.voices if voice.speaker_id not in kept]
        named, concerned = about.numbers, {voice.speaker_id for voice in (*about.voices, *back)}
        changed = {
            segment_id: now[segment_id]
            for segment_id, number in then.items()
            if now.get(segment_id, number) != number
            and (segment_id in named or not concerned.isdisjoint((number, now[segment_id])))
        }
        own = {member for voice in earlier.voices if voice.speaker_id in concerned for member in voice.members}
        joined = concerned | {voice.speaker_id for voice in self.voices if not own.isdisjoint(voice.members)}
        gained = {name: number for name, number in now.items() if name not in then and number in joined}
        written = {name: number for name, number in now.items() if name not in gained}
        written |= {one: number for one, number in then.items() if one in changed or number not in kept}
        here = {member: voice.speaker_id for voice in self.voices for member in voice.members}
        here |= {
            member: voice.speaker_id
            for voice in earlier.voices
            for member in voice.members
            if voice.speaker_id in concerned and (member in here or voice.speaker_id not in kept)
        }
        voices = tuple(
            replace(voice, members=tuple(sorted(one for one, number in here.items() if number == voice.speaker_id)))
            for voice in sorted([*self.voices, *back], key=lambda voice: voice.speaker_id)
        )
        retired = set(self.retired) - {voice.speaker_id for voice in back}
        restored = {**changed, **gained, **self.restored}
        book = VoiceBook(voices, tuple(sorted(retired)), restored, {**earlier.lines, **self.lines})
        return book.with_numbers(written)


def _persons(voice: Voice) -> list[str | None]:
    """Return who a voice is, as the text of a book holds it; books without people are as they always were."""
    if voice.matched_person:
        return [voice.person_id, voice.matched_person]
    return [voice.person_id] if voice.person_id else []


@dataclass(frozen=True)
class FoundVoice:
    """A voice of the new partition, without a number yet, and the evidence that decides its number."""

    members: tuple[LocalSpeaker, ...]
    member_seconds: Mapping[LocalSpeaker, float]
    """Labelled seconds: how long each member speaks inside transcript segments."""
    segment_seconds: Mapping[str, float]
    """The same seconds by segment id."""
    is_matched: bool
    """Whether any segment is this voice's. One without a segment, such as a television, gets no new number."""
    untouched_seconds: Mapping[int, float]
    """By number on untouched segments in which this voice speaks more than any other: how long it speaks there."""
    said_numbers: Mapping[int, int] = field(default_factory=dict)
    """How many of its segments people gave to each number."""


@dataclass(frozen=True)
class Naming:
    """The outcome of numbering."""

    numbers: tuple[int | None, ...]
    """By index of the partition: the voice's number, or None where it gets none."""
    book: VoiceBook
    """What is published now; the next numbering starts from it."""
    changes: tuple[VoiceChange, ...]
    """What the backend is to know."""


@dataclass(frozen=True)
class _Match:
    """How much of a published voice is in a voice of the new partition."""

    labelled_s: float
    members: int
    """How many local speakers they have in common; decides between equally many seconds."""

    @property
    def rank(self) -> tuple[float, int]:
        """What to compare two matches by."""
        return self.labelled_s, self.members

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the published voice is in the new one."""
        return self.rank <= (0.0, 0)


_Matches = Sequence[Mapping[int, _Match]]
"""For each published voice, its match with each voice of the new partition that has something of it, by index."""


def name_voices(found: Sequence[FoundVoice], book: VoiceBook, untouched: frozenset[int]) -> Naming:
    """Give every voice its number.

    - A voice keeps the first number published for it.
    - If two published voices are now one, the number that people gave to more of its segments stays, else the one with
      more labelled seconds, and the other is retired.
    - If a published voice is now two, the larger part keeps the number.
    - A new voice takes the number that is on untouched segments in which it speaks most. If there is none, it takes
      the smallest number that was never published, is on no untouched segment, and is not 99.

    Args:
        found: the voices, in order of first speech.
        book: what was published before.
        untouched: the numbers on untouched segments.
    """
    matches = _find_matches(book, found)
    new_of = _pair_voices(matches, book, found)
    numbers: list[int | None] = [None] * len(found)
    for old, new in new_of.items():
        numbers[new] = book.voices[old].speaker_id
    changes = _describe_gone(book, matches, new_of, numbers)
    taken = {voice.speaker_id for voice in book.voices} | {*book.retired, RESERVED_NUMBER}
    for index, voice in enumerate(found):
        if numbers[index] is not None or not voice.is_matched:
            continue
        number = numbers[index] = _choose_number(voice, taken, untouched)
        taken.add(number)
        changes.append(_describe_new(number, index, book, matches, new_of))
    return Naming(tuple(numbers), _write_book(book, found, numbers, changes), tuple(changes))


def _write_book(
    book: VoiceBook, found: Sequence[FoundVoice], numbers: Sequence[int | None], changes: Sequence[VoiceChange]
) -> VoiceBook:
    """Return the book after these changes."""
    gone = {change.speaker_id for change in changes if change.change in ("merged", "retired")}
    voices = [
        Voice(number, tuple(sorted(voice.members)), tuple(sorted(voice.segment_seconds)))
        for number, voice in zip(numbers, found, strict=True)
        if number is not None
    ]
    return VoiceBook(tuple(sorted(voices, key=lambda voice: voice.speaker_id)), tuple(sorted({*book.retired, *gone})))


def _find_matches(book: VoiceBook, found: Sequence[FoundVoice]) -> _Matches:
    """Compare the published voices with the new ones; the time does not grow with the product of their numbers.

    They are compared by their members. If they have none in common, as after every job was diarized anew, by the
    segments that had the number.
    """
    voice_of = {member: new for new, voice in enumerate(found) for member in voice.member_seconds}
    speaking_in: dict[str, list[tuple[int, float]]] = {}
    for new, voice in enumerate(found):
        for segment, spoken_s in voice.segment_seconds.items():
            speaking_in.setdefault(segment, []).append((new, spoken_s))
    matches = []
    for old in book.voices:
        pairs = [
            (voice_of[member], found[voice_of[member]].member_seconds[member], 1)
            for member in old.members
            if member in voice_of
        ]
        by_segment = ((new, spoken_s, 0) for segment in old.segments for new, spoken_s in speaking_in.get(segment, ()))
        row: dict[int, _Match] = {}
        for new, spoken_s, members in pairs or by_segment:
            before = row.get(new, _Match(0.0, 0))
            row[new] = _Match(before.labelled_s + spoken_s, before.members + members)
        matches.append({new: match for new, match in row.items() if not match.is_empty})
    return matches


def _pair_voices(matches: _Matches, book: VoiceBook, found: Sequence[FoundVoice]) -> dict[int, int]:
    """Return which new voice each published one is now, by index; one to one.

    Those that became one come first, if a person gave its segments to one of their numbers; then those with most
    seconds. A published voice with members in the new partition is only ever paired with a voice that has some of them.
    """
    pairs = sorted(
        (-match.labelled_s, -match.members, book.voices[old].speaker_id, new, old)
        for old, row in enumerate(matches)
        for new, match in row.items()
    )
    new_of = _keep_said_numbers(pairs, book, found)
    taken = set(new_of.values())
    for *_, new, old in pairs:
        if old not in new_of and new not in taken:
            new_of[old] = new
            taken.add(new)
    return new_of


def _keep_said_numbers(
    pairs: Sequence[tuple[float, int, int, int, int]], book: VoiceBook, found: Sequence[FoundVoice]
) -> dict[int, int]:
    """Return which published voice keeps its number where several are mostly the same new one, and people say which."""
    became: dict[int, list[int]] = {}
    seen: set[int] = set()
    for *_, new, old in pairs:
        if old not in seen:
            seen.add(old)
            became.setdefault(new, []).append(old)
    new_of = {}
    for new, olds in became.items():
        said = found[new].said_numbers
        best = max(olds, key=lambda old: said.get(book.voices[old].speaker_id, 0))
        if len(olds) > 1 and said.get(book.voices[best].speaker_id):
            new_of[best] = new
    return new_of


def _describe_gone(
    book: VoiceBook, matches: _Matches, new_of: Mapping[int, int], numbers: Sequence[int | None]
) -> list[VoiceChange]:
    """Return what became of the published voices that are no new voice: merged into another, or retired."""
    changes = []
    for old, voice in enumerate(book.voices):
        if old in new_of:
            continue
        best = max(sorted(matches[old]), key=lambda new: matches[old][new].rank, default=None)
        into = None if best is None else numbers[best]
        if into is None:
            changes.append(VoiceChange(change="retired", speaker_id=voice.speaker_id))
        else:
            changes.append(VoiceChange(change="merged", speaker_id=voice.speaker_id, into=into))
    return changes


def _describe_new(number: int, new: int, book: VoiceBook, matches: _Matches, new_of: Mapping[int, int]) -> VoiceChange:
    """Return where the voice with a new number comes from: split from a published voice, or new."""
    origins = [(matches[old][new].rank, book.voices[old].speaker_id) for old in new_of if new in matches[old]]
    if not origins:
        return VoiceChange(change="new", speaker_id=number)
    return VoiceChange(change="split", speaker_id=max(origins)[1], into=number)


def _choose_number(voice: FoundVoice, taken: set[int], untouched: frozenset[int]) -> int:
    """Return the number of a new voice."""
    own = [(-seconds, number) for number, seconds in voice.untouched_seconds.items() if number not in taken]
    if own:
        return min(own)[1]
    return next(number for number in count() if number not in taken and number not in untouched)
