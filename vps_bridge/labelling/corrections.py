"""Corrections as labelling reads them: what a person said, and which voices they meant when they said it.

Numbers of speakers change: voices merge, split, and are found again after all audio was diarized anew. So each number
that a correction names is kept with what its voice was at that moment.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from schemas.corrections import Correction, CorrectionKind
from vps_bridge.conversations.near_in_time import NearInTime
from vps_bridge.conversations.store import StoredSegment, is_same_place
from vps_bridge.labelling.kept_line import KeptLine, LineSearch, LinesNow, lines_from_json, lines_to_json
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.number import Voice, VoiceBook

if TYPE_CHECKING:
    from vps_bridge.labelling.link import LocalSpeakerEvidence

TWO_PEOPLE = 1 / 4
"""From this share of a local speaker's speech on, lines that are split off it say that its job took two people for one.
So it did in its other jobs, where just more than half was split off: a line that is gone later must not decide it."""
NO_NUMBER = -1
"""Stands for the number of what speech-to-text gave none."""


@dataclass(frozen=True)
class KeptCorrection:
    """One correction in force."""

    said: Correction
    write: int
    """Number of its event in the conversation's history; a later one overrides an earlier."""
    place: int = 0
    """Which of its event's corrections it is."""
    event_id: str = ""
    anchors: tuple[Voice, ...] = ()
    """The voices that it is about, as they were published when it was said."""
    teaches: bool = True
    """False where the person it names was forgotten since: it makes no voiceprint."""
    lines: Mapping[str, KeptLine] = field(default_factory=dict)
    """Which lines the segments were that it is about when it was said, as far as that is known."""
    labelled: AbstractSet[str] = frozenset()
    """Segments that had a person's label already, as far as that is known."""
    cut_off: tuple[str, ...] = ()
    """Segments that were a part of the one that it labels, and are lines of their own now, without its label."""

    def anchor(self, speaker_id: int) -> Voice | None:
        """Return the voice that had a number then."""
        return next((voice for voice in self.anchors if voice.speaker_id == speaker_id), None)

    @property
    def split_voices(self) -> tuple[Voice, ...]:
        """Which of the anchors segments are split off (`other_voice`)."""
        return tuple(voice for voice in self.anchors if not set(voice.segments).isdisjoint(self.said.segment_ids))

    @property
    def others(self) -> frozenset[LocalSpeaker]:
        """The local speakers that were known to be none of those voices."""
        own = [voice.not_members for voice in self.split_voices]
        return frozenset.intersection(*own) if own else frozenset()

    @property
    def lines_left(self) -> set[str]:
        """The segments of those voices that are not split off, nor labelled by a person."""
        of_them = {name for voice in self.split_voices for name in voice.segments}
        return of_them - self.labelled - set(self.said.segment_ids)

    @property
    def heard_jobs(self) -> frozenset[str]:
        """The jobs that had heard the voices that it is about."""
        return frozenset(speaker.job_id for voice in self.anchors for speaker in voice.members)

    @property
    def is_ahead(self) -> bool:
        """Whether the segment that it names was in no published voice yet: no result had heard it, or not clearly."""
        return not any(self.said.segment_id in voice.segments for voice in self.anchors)

    def on(self, now: LinesNow) -> KeptCorrection:
        """Return it with the ids that its lines have now, without those that are found no more.

        The one that it gives a label to stays: whether it has that label still is seen from the segment itself.
        """
        lines = {name: line for name, line in self.lines.items() if name != self.said.segment_id}
        search = LineSearch(lines, now)
        anchors = tuple(replace(voice, segments=search.find(voice.segments)) for voice in self.anchors)
        said = self.said.model_copy(update={"segment_ids": search.find(self.said.segment_ids)})
        return replace(self, said=said, anchors=anchors, cut_off=self._find_cut_off(now))

    def without_lines_split_before(self, split: AbstractSet[str]) -> KeptCorrection:
        """Return it about what earlier ones had left of voices of which nothing had been heard: no label showed it."""
        before = split - set(self.said.segment_ids)
        anchors = tuple(
            voice if voice.members else replace(voice, segments=tuple(n for n in voice.segments if n not in before))
            for voice in self.anchors
        )
        return replace(self, anchors=anchors)

    def _find_cut_off(self, now: LinesNow) -> tuple[str, ...]:
        name = self.said.segment_id or ""
        if name not in self.lines or name not in now.lines or not self.lines[name].is_cut_to(now.lines[name]):
            return ()
        return LineSearch(self.lines, now).find_cut_off(name)


def as_lines_are_now(corrections: Iterable[KeptCorrection], now: LinesNow) -> tuple[KeptCorrection, ...]:
    """Return corrections with the ids that their lines have now.

    Many backends number their lines: where one more or one less is found, an id is that of another line, of another
    voice perhaps.
    """
    corrections = tuple(corrections)
    split = set[str]()
    labelled = {name for name, segment in now.segments.items() if segment.is_human_labelled}
    said_at: dict[str, int] = {}
    for place, kept in enumerate(corrections):
        said_at.setdefault(kept.said.segment_id or "", place)
    found = []
    for place, kept in enumerate(corrections):
        then = frozenset(name for name in labelled if said_at.get(name, -1) < place)
        found.append(replace(kept, labelled=then).on(now).without_lines_split_before(split))
        if kept.said.kind is CorrectionKind.OTHER_VOICE:
            split.update(found[-1].said.segment_ids)
    return tuple(found)


def parted_lines(corrections: Iterable[KeptCorrection]) -> set[str]:
    """Return the segments that people split off a voice, and those that they left in it."""
    return {
        name
        for kept in corrections
        if kept.said.kind is CorrectionKind.OTHER_VOICE
        for name in (*kept.said.segment_ids, *kept.lines_left)
    }


def find_anchors(
    said: Iterable[Correction], book: VoiceBook, segments: Iterable[StoredSegment] = ()
) -> tuple[Voice, ...]:
    """Return the published voices that corrections are about: by number, or as those of the segments they name.

    A segment that is split off is of the voice whose number it shows, also where no clear vote gave it that number; of
    a number of speech-to-text that is no voice yet, it is split off all that show it. Before there is any voice, one
    without a number is split off all those without.
    """
    said, segments = tuple(said), tuple(segments)
    split = {name for one in said for name in one.segment_ids} - book.numbers.keys()
    shown = {one.id: one.speaker_id for one in segments if one.id in split and not one.is_human_labelled}
    book = book.with_numbers(book.numbers | {name: number for name, number in shown.items() if number is not None})
    numbers = {number for correction in said for number in correction.speaker_ids}
    numbers |= {correction.speaker_id for correction in said if correction.speaker_id is not None}
    named = {segment for correction in said for segment in correction.segment_ids}
    named |= {correction.segment_id for correction in said if correction.segment_id is not None}
    about = [voice for voice in book.voices if voice.speaker_id in numbers or not named.isdisjoint(voice.segments)]
    published = {voice.speaker_id for voice in book.voices}.union(book.retired)
    to_be = {NO_NUMBER if number is None else number for number in shown.values()} - published
    return (*about, *_voices_to_be(to_be - {NO_NUMBER} if book.voices else to_be, segments))


def _voices_to_be(numbers: AbstractSet[int], segments: Sequence[StoredSegment]) -> list[Voice]:
    """Return the segments that show numbers of speech-to-text as voices of which nothing has been heard."""
    by_number: dict[int, list[str]] = {}
    for one in segments:
        number = NO_NUMBER if one.speaker_id is None else one.speaker_id
        if number in numbers and not one.is_human_labelled:
            by_number.setdefault(number, []).append(one.id)
    return [Voice(number, (), tuple(names)) for number, names in sorted(by_number.items())]


def anchors_to_json(
    said: Iterable[Correction],
    anchors: Iterable[Voice],
    segments: Iterable[StoredSegment] = (),
    known: Mapping[str, KeptLine] = MappingProxyType({}),
) -> str:
    """Return anchors as the ledger keeps them, with which lines the segments are that corrections are about.

    Also those that say the same, for what is said twice tells no line from another; and those that lie in them or
    around them, of which one may have their ids later. `known`: which lines those are that are no segments now.
    """
    anchors, segments = tuple(anchors), tuple(segments)
    about = {name for voice in anchors for name in voice.segments}
    about |= {name for correction in said for name in (*correction.segment_ids, correction.segment_id) if name}
    of_them = [segment for segment in segments if segment.id in about]
    texts, near = {segment.text for segment in of_them}, NearInTime(segments, lambda one: one.span)
    about |= {one.id for line in of_them for one in near.find(line.span) if is_same_place(line.span, one.span)}
    lines = {one.id: KeptLine.of(one) for one in segments if one.id in about or (one.text and one.text in texts)}
    gone = {name: line for name, line in known.items() if name in about}
    return json.dumps({**json.loads(VoiceBook(anchors).to_json()), "lines": lines_to_json(gone | lines)})


def kept_lines(anchors: str) -> dict[str, KeptLine]:
    """Return which lines the segments were, of what `anchors_to_json` returned."""
    return lines_from_json(json.loads(anchors).get("lines", {}))


class KeptRecord(Protocol):
    """A `corrected` event as the ledger keeps it; of which labelling imports nothing."""

    @property
    def write(self) -> int:
        """Its number in the conversation's history."""
        ...

    @property
    def event_id(self) -> str:
        """The id of the event."""
        ...

    @property
    def said(self) -> Sequence[Mapping[str, Any]]:
        """The corrections, as JSON."""
        ...

    @property
    def anchors(self) -> str:
        """What `anchors_to_json` returned."""
        ...

    @property
    def voices_before(self) -> str | None:
        """The published voices before it, as text of a `VoiceBook`."""
        ...

    @property
    def teaching(self) -> Sequence[bool]:
        """Of each correction, whether it teaches."""
        ...


def read_kept(record: KeptRecord) -> list[KeptCorrection]:
    """Return the corrections of one event, about the voices that were published before it."""
    before, anchors = record.voices_before, record.anchors
    book = VoiceBook.from_json(before).voices if before else ()
    every = frozenset(member for voice in book for member in voice.members)
    voices = tuple(
        replace(voice, not_members=every.difference(voice.members)) for voice in VoiceBook.from_json(anchors).voices
    )
    lines = kept_lines(anchors)
    return [
        KeptCorrection(Correction.model_validate(one), record.write, place, record.event_id, voices, teaches, lines)
        for place, (one, teaches) in enumerate(zip(record.said, record.teaching, strict=True))
    ]


@dataclass(frozen=True)
class Speech:
    """How long each local speaker speaks in each segment."""

    in_segment: Mapping[str, Mapping[LocalSpeaker, float]]
    total_s: Mapping[LocalSpeaker, float]
    """In all segments; 0 for a local speaker that speaks in none."""
    unplaced_s: Mapping[LocalSpeaker, float] = field(default_factory=dict)
    """How long each speaks in audio that has no place in the transcript now; missing: not at all."""

    @classmethod
    def of(
        cls,
        segments: Sequence[StoredSegment],
        measured: Iterable[Mapping[int, float]],
        speakers: Sequence[LocalSpeakerEvidence],
        unplaced_s: Mapping[LocalSpeaker, float] | None = None,
    ) -> Speech:
        """Take it from what `measure_segments` returned, by index of the local speaker."""
        in_segment = {
            segment.id: {speakers[index].id: spoken_s for index, spoken_s in seconds.items()}
            for segment, seconds in zip(segments, measured, strict=True)
        }
        total_s = {speaker.id: 0.0 for speaker in speakers}
        for seconds in in_segment.values():
            for speaker, spoken_s in seconds.items():
                total_s[speaker] += spoken_s
        return cls(in_segment, total_s, unplaced_s or {})

    def in_segments(self, segment_ids: Iterable[str]) -> dict[LocalSpeaker, float]:
        """Return how long each local speaker speaks in these segments together."""
        seconds: dict[LocalSpeaker, float] = {}
        for name in segment_ids:
            for speaker, spoken_s in self.in_segment.get(name, {}).items():
                seconds[speaker] = seconds.get(speaker, 0.0) + spoken_s
        return seconds

    def loudest_in(self, segment_id: str, jobs: AbstractSet[str] = frozenset()) -> LocalSpeaker | None:
        """Return who speaks most in a segment, as these jobs heard it if any of them did; None where nobody speaks."""
        every = self.in_segment.get(segment_id, {})
        seconds = {speaker: spoken_s for speaker, spoken_s in every.items() if speaker.job_id in jobs} or every
        return min(seconds, key=lambda speaker: (-seconds[speaker], speaker), default=None)

    def lines_of(self, speakers: AbstractSet[LocalSpeaker], segment_ids: Iterable[str]) -> list[str]:
        """Return those of some segments in which any of these local speakers speaks."""
        return [name for name in segment_ids if not speakers.isdisjoint(self.in_segment.get(name, ()))]

    def heard_before(self, speaker: LocalSpeaker, jobs: AbstractSet[str]) -> set[LocalSpeaker | None]:
        """Return whom these jobs had where a later one has a speaker, who stands for himself where they had nobody."""
        return {self.loudest_in(name, jobs) for name in self.lines_of({speaker}, self.in_segment)}

    def mostly_in(self, segment_ids: Iterable[str]) -> list[LocalSpeaker]:
        """Return the local speakers that speak at least half of their time in these segments, sorted."""
        seconds = self.in_segments(segment_ids)
        return sorted(speaker for speaker, spoken_s in seconds.items() if spoken_s >= self.total_s[speaker] / 2)

    def all_s(self, speaker: LocalSpeaker) -> float:
        """Return how long one speaks in segments and in audio without a place, of which nobody knows whose it is."""
        return self.total_s.get(speaker, 0.0) + self.unplaced_s.get(speaker, 0.0)

    def go_whole(self, segment_ids: Iterable[str]) -> list[LocalSpeaker]:
        """Return the local speakers that go with these segments whole where a person splits them off, sorted.

        What has no place now counts as said elsewhere: where the transcript fits less of the audio than it did, nobody
        who was split off comes back together with the rest.
        """
        seconds = self.in_segments(segment_ids)
        return [one for one in self.mostly_in(segment_ids) if seconds[one] >= self.all_s(one) / 2]

    def split_off_whole(self, kept: KeptCorrection) -> list[LocalSpeaker]:
        """Return who goes whole with the segments of a split: nobody who was known to be no voice that was split."""
        split = kept.split_voices
        found = self.go_whole(kept.said.segment_ids)
        return [one for one in found if not split or any(one not in voice.not_members for voice in split)]

    def of_voice(self, voice: Voice) -> list[LocalSpeaker]:
        """Return the local speakers that are a voice of earlier: those of its segments, and members in no segment.

        Segments come first, for a job's labels may mean others once its voice samples were clustered with more. Of
        jobs whose labels mean whom they meant, whoever was another voice then is not this one: two jobs may have
        different voices for one line. Nor is a member who says again what was parted off for another voice.
        """
        found = self.mostly_in(voice.segments)
        known = [one for one in voice.members if one in self.total_s and not self._is_whole_again(one, voice)]
        renamed = {one.job_id for one in known if one not in found and self.total_s[one] > 0.0}
        same = {job: said for job in renamed if (said := self._still_says(job, known, voice))}
        renamed -= same.keys()
        found = [one for one in found if one not in voice.not_members or one.job_id in renamed]
        found = [one for one in found if one.job_id not in same] + [one for said in same.values() for one in said]
        return sorted({*found, *(speaker for speaker in known if not found or self.total_s[speaker] == 0.0)})

    def _still_says(self, job: str, known: Collection[LocalSpeaker], voice: Voice) -> set[LocalSpeaker]:
        """Return the members of a voice whom a job heard most in its segments; nobody if it had others in most of them.

        A listener may say all that he says within one line: he is not whoever speaks in it.
        """
        loudest = [one for name in voice.segments if (one := self.loudest_in(name, {job})) and one.job_id == job]
        said = [one for one in loudest if one in known]
        return set(said) if 2 * len(said) >= len(loudest) else set()

    def _is_whole_again(self, speaker: LocalSpeaker, voice: Voice) -> bool:
        """Whether a split had made two of a member of a voice, and no line is left of it by which it still would."""
        return any(one.is_part_of(speaker) and one not in self.total_s for one in voice.not_members)
