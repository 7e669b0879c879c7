"""Parting off: a local speaker who is somebody else in the segments that a person split off becomes two.

Only where those segments are less than half of its speech. Of more, all of it goes with them: then the job had the
voice right and linking had it wrong. Unless nobody of the voice would be left to say its other lines: then the job took
two people for one, and the lines that are left are parted off. So it is with a job that heard some of those seconds
too: where the other job's local speaker goes with them whole, linking finds who of the later job is that voice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from schemas.corrections import CorrectionKind
from vps_bridge.conversations.near_in_time import NearInTime
from vps_bridge.labelling.align import StretchClock
from vps_bridge.labelling.audio_clock import Span
from vps_bridge.labelling.corrections import TWO_PEOPLE, KeptCorrection, Speech
from vps_bridge.labelling.evidence import AudioTimeline, TimelineTurn
from vps_bridge.labelling.link import LocalSpeakerEvidence
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.own_spans import OwnSpans, cut_span


def part_off(
    timeline: AudioTimeline,
    clocks: Sequence[StretchClock],
    segments: OwnSpans,
    measure: Callable[[AudioTimeline], Speech],
    corrections: Iterable[KeptCorrection],
) -> AudioTimeline:
    """Return the timeline with every `other_voice` in it, one local speaker more for each that is parted.

    A later one parts what an earlier one left. `measure` returns how long each speaker of a timeline speaks where.
    """
    for kept in corrections:
        if kept.said.kind is CorrectionKind.OTHER_VOICE:
            speech, name = measure(timeline), f"{kept.write}.{kept.place}"
            whole = frozenset(speech.split_off_whole(kept))
            named = _Lines(name, kept.said.segment_ids, whole, kept.others, kept.heard_jobs)
            ids = _lines_to_leave(kept, speech, whole)
            left = _Lines(f"{name} left", ids, frozenset(speech.go_whole(ids)) - whole, kept.others, kept.heard_jobs)
            for lines in (named, left):
                timeline = _part_lines(timeline, clocks, segments, speech, lines)
    return timeline


@dataclass(frozen=True)
class _Lines:
    """Lines of a split that are one voice, and not that of the others."""

    name: str
    ids: Collection[str]
    whole: frozenset[LocalSpeaker]
    """Who is this voice with all that they say."""
    others: frozenset[LocalSpeaker]
    """Who was known to be no voice that was split."""
    heard_jobs: frozenset[str]
    """The jobs that had heard the voices when they were split."""


def _part_lines(
    timeline: AudioTimeline,
    clocks: Sequence[StretchClock],
    segments: OwnSpans,
    speech: Speech,
    lines: _Lines,
) -> AudioTimeline:
    """Return the timeline with what is said in some lines by whoever says more elsewhere as somebody else's."""
    named = segments.of(lines.ids)
    saying = set(speech.in_segments(lines.ids))
    # Whom a job had beside the voice that was split, such as a listener, stays who it is, also in these lines.
    told_apart = {one.job_id for one in saying - lines.others}
    mixed = saying - lines.whole - {one for one in saying & lines.others if one.job_id in told_apart}
    for index in [index for index, speaker in enumerate(timeline.speakers) if speaker.id in mixed]:
        own = [
            span
            for name, spans in named.items()
            if not _goes_on(timeline.speakers[index].id, speech.in_segment[name].keys(), lines)
            for span in spans
        ]
        spans = _on_audio_clock(own, clocks, timeline.origins)
        if spans:
            timeline = _part(timeline, index, spans, lines.name)
    return timeline


def _lines_to_leave(kept: KeptCorrection, speech: Speech, whole: frozenset[LocalSpeaker]) -> set[str]:
    """Return the lines left that would go with the lines that are split off, in part or all of them.

    All of a voice where everybody who says them goes; those of whoever goes where everybody else is two people as well;
    else those that somebody says who goes by what another job heard.
    """
    lines, named_s = set[str](), speech.in_segments(kept.said.segment_ids)
    for voice in kept.split_voices:
        left = kept.lines_left.intersection(voice.segments)
        saying = {line: speech.loudest_in(line, kept.heard_jobs) for line in left}
        going = {line for line in left if whole & speech.in_segment.get(line, {}).keys()}
        staying = set(saying.values()) - whole - {None}
        if not staying:
            lines |= left
        elif all(named_s.get(one, 0.0) >= TWO_PEOPLE * speech.all_s(one) for one in staying if one is not None):
            lines |= going
        else:
            lines |= {line for line in going if saying[line] not in whole}
    return lines


def _goes_on(mixed: LocalSpeaker, saying: AbstractSet[LocalSpeaker], lines: _Lines) -> bool:
    """Whether a later job's local speaker may be the voice that another job has for the same line, and that goes whole.

    Of a job that had heard the line when it was split off, it is known that it had somebody else for whoever says it.
    Where no job had heard anything, none of them bears out better than the person who says it.
    """
    is_later = bool(lines.heard_jobs) and mixed.job_id not in lines.heard_jobs
    return is_later and any(one.job_id != mixed.job_id for one in saying & lines.whole)


def _on_audio_clock(spans: Sequence[Span], clocks: Sequence[StretchClock], origins: Sequence[float]) -> list[Span]:
    """Return spans of the transcript in seconds of the audio clock."""
    found = []
    for clock, origin_s in zip(clocks, origins, strict=True):
        for piece in clock.pieces:
            for start_s, end_s in spans:
                first_s = max(start_s - piece.offset_s, piece.start_s)
                last_s = min(end_s - piece.offset_s, piece.end_s)
                if last_s > first_s:
                    found.append((origin_s + first_s, origin_s + last_s))
    return sorted(found)


def _part(timeline: AudioTimeline, index: int, spans: Sequence[Span], name: str) -> AudioTimeline:
    """Return the timeline with what one local speaker says in these spans as another one's, the last of the list."""
    speaker, origins = timeline.speakers[index], timeline.origins
    new_index, in_time = len(timeline.speakers), NearInTime(spans, lambda one: one)

    def cut(span: Span) -> tuple[list[Span], list[Span]]:
        return cut_span(span, in_time.find(span))

    def divide(turns: Iterable[TimelineTurn]) -> tuple[TimelineTurn, ...]:
        divided = []
        for turn in turns:
            if turn.speaker_index != index:
                divided.append(turn)
                continue
            origin_s = origins[turn.stretch]
            inside, outside = cut((turn.start_s + origin_s, turn.end_s + origin_s))
            for owner, parts in ((new_index, inside), (index, outside)):
                divided.extend(
                    TimelineTurn(turn.stretch, start_s - origin_s, end_s - origin_s, owner) for start_s, end_s in parts
                )
        return tuple(sorted(divided))

    parts_of = [cut(span) for span in speaker.turns]
    parted, rest = ([part for pair in parts_of for part in pair[side]] for side in (0, 1))
    parted_s = sum(end_s - start_s for start_s, end_s in parted)
    new = LocalSpeakerEvidence(
        speaker.id.part(name),
        tuple(parted),
        parted_s,
        None,
        speaker.embedding_space,
        is_confirmed=True,
    )
    kept = replace(speaker, turns=tuple(rest), clean_speech_s=max(0.0, speaker.clean_speech_s - parted_s))
    speakers = (*timeline.speakers[:index], kept, *timeline.speakers[index + 1 :], new)
    return replace(
        timeline, speakers=speakers, turns=divide(timeline.turns), exclusive_turns=divide(timeline.exclusive_turns)
    )
