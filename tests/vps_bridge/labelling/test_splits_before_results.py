"""Lines that a person splits off a number of speech-to-text before any result has come: as if said afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.labelling.corrected_conversation import CorrectedConversation, open_conversation
from tests.vps_bridge.labelling.test_relabel import chunks_of, diarize
from vps_bridge.rules.assemble import AssemblyRules, plan_jobs

LINES = [(0.5, 8.0), (9.0, 17.0), (18.0, 25.0), (26.0, 33.0), (34.0, 41.0), (42.0, 49.0)]


def lines(prefix: str = "s") -> tuple[TranscriptSegment, ...]:
    return tuple(
        TranscriptSegment(
            id=f"{prefix}{place}", start_s=start_s, end_s=end_s, text=f"words {place}", speaker="SPEAKER_00"
        )
        for place, (start_s, end_s) in enumerate(LINES)
    )


def hear(found: CorrectedConversation, people: str) -> None:
    """One job, which heard these people, one in each line."""
    chunks = chunks_of(60.0, 10.0)
    (plan,) = plan_jobs(chunks, closing=True, idle_s=0.0, rules=AssemblyRules())
    spoken = [(who, start_s, end_s) for who, (start_s, end_s) in zip(people, LINES, strict=True)]
    found.hear(tuple(chunks), (diarize(chunks, plan, spoken),))


def names(places: Sequence[int], prefix: str = "s") -> set[str]:
    return {f"{prefix}{place}" for place in places}


@pytest.mark.parametrize("people", ["AAAAAA", "AAABBB"])
@pytest.mark.parametrize("places", [(1,), (1, 2, 3), (0, 1, 3, 4)], ids=str)
def test_lines_that_were_split_off_before_any_result_leave_the_others_behind(
    people: str, places: tuple[int, ...]
) -> None:
    with open_conversation(lines()) as found:
        found.relabel()
        write = found.correct(kind="other_voice", segment_ids=sorted(names(places)))
        assert found.outcomes == [(write, "void", "no_voice")]
        hear(found, people)
        off = {found.speakers[name] for name in names(places)}
        assert off.isdisjoint(found.speakers[name] for name in found.speakers.keys() - names(places))
        assert found.outcomes == [(write, "alone", "sounds_different")]
        found.undo(write)
        assert len(set(found.speakers.values())) == len(set(people))


def test_they_leave_them_behind_under_other_ids_too() -> None:
    with open_conversation(lines()) as found:
        found.correct(kind="other_voice", segment_ids=["s1", "s2", "s3"])
        found.transcribe_anew(lines("new"))
        hear(found, "AAAAAA")
        off = {found.speakers[name] for name in names((1, 2, 3), "new")}
        assert len(off) == 1
        assert off.isdisjoint(found.speakers[name] for name in names((0, 4, 5), "new"))
