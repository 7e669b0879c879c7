"""A person's word about one line joins no two voices heard beside each other, and no later job ends it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.labelling.corrected_conversation import CorrectedConversation
from tests.vps_bridge.labelling.test_corrections import ALL, EARLY, conversation, said_by
from tests.vps_bridge.labelling.test_relabel import PEOPLE, chunks_of, diarize
from vps_bridge.conversations.store import StoreError
from vps_bridge.rules.assemble import AssemblyRules, plan_jobs

LINES = [("A", 0.5, 6.0), ("B", 7.0, 8.5), ("A", 9.0, 14.0), ("B", 15.0, 27.0), ("A", 28.0, 33.0), ("B", 34.0, 37.0)]
ALIKE = 0.7  # far above the threshold of linking


@contextmanager
def two_people_in(folder: Path) -> Iterator[CorrectedConversation]:
    chunks = chunks_of(40.0, 10.0)
    (plan,) = plan_jobs(chunks, closing=True, idle_s=0.0, rules=AssemblyRules())
    segments = tuple(
        TranscriptSegment(id=f"s{place}", start_s=start_s, end_s=end_s, text="word", speaker="SPEAKER_00")
        for place, (_, start_s, end_s) in enumerate(LINES)
    )
    made = CorrectedConversation(folder, segments)
    made.hear(tuple(chunks), (diarize(chunks, plan, LINES),))
    yield made
    made.close()


def test_one_line_moved_does_not_make_one_voice_of_two_alike_ones(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEOPLE, "B", ALIKE * PEOPLE["A"] + np.sqrt(1 - ALIKE**2) * PEOPLE["B"])
    with two_people_in(tmp_path) as made:
        before = made.speakers
        assert list(before.values()) == ["SPEAKER_00", "SPEAKER_01"] * 3
        made.correct(kind="segment_is", segment_id="s3", speaker_id=0)
        assert made.speakers == before | {"s3": "SPEAKER_00"}, "it is most of what that voice says, and still one line"
        assert made.found.corrections[-1].outcome == "alone"


@pytest.mark.parametrize("segment", said_by("A")[:8])
def test_a_name_stays_on_its_voice_when_a_later_job_decides_the_end_of_the_line(segment: str) -> None:
    with conversation(EARLY) as found:
        found.correct(kind="segment_is", segment_id=segment, person_id="ben")
        found.correct(kind="segment_is", segment_id="s003", speaker_id=2)
        found.hear(*ALL)
        persons = {one["id"]: one["person_id"] for one in found.segments}
        assert {persons[one] for one in said_by("A")} == {"ben"}
        assert found.found.corrections[0].outcome == "spread"


@pytest.fixture
def two_people(tmp_path) -> Iterator[CorrectedConversation]:
    with two_people_in(tmp_path) as made:
        yield made


def test_a_line_moved_after_most_of_its_voice_was_does_what_it_says_and_keeps_the_number(two_people) -> None:
    first = two_people.correct(kind="segment_is", segment_id="s3", speaker_id=0)
    assert two_people.outcomes == [(first, "alone", "sounds_different")]
    two_people.correct(kind="segment_is", segment_id="s0", speaker_id=1)
    assert [outcome for _, outcome, _ in two_people.outcomes] == ["alone", "alone"], "nothing else moved"
    assert two_people.speakers["s1"] == "SPEAKER_01"
    two_people.correct(kind="segment_is", segment_id="s1", speaker_id=0)
    assert {two_people.speakers[name] for name in ("s1", "s2", "s3", "s4", "s5")} == {"SPEAKER_00"}
    assert [outcome for _, outcome, _ in two_people.outcomes][::2] == ["spread", "spread"]


def test_a_line_labelled_twice_is_taken_back_in_the_order_it_was_said(two_people) -> None:
    before = two_people.segments
    first = two_people.correct(kind="segment_is", segment_id="s0", person_id="anna")
    second = two_people.correct(kind="segment_is", segment_id="s0", person_id="ben")
    with pytest.raises(StoreError, match=f"Take that back first: omi-bridge undo c1 {second}"):
        two_people.undo(first)
    two_people.undo(second)
    two_people.undo(first)
    assert two_people.segments == before
    with pytest.raises(StoreError, match=f"Bring that back first: omi-bridge redo c1 {first}"):
        two_people.redo(second)


def test_a_split_that_took_others_along_is_not_told_as_overridden() -> None:
    with conversation() as found:
        found.correct(kind="same_voice", speaker_ids=[0, 2])
        found.correct(kind="other_voice", segment_ids=said_by("C")[:2])
        assert {found.speakers[one] for one in said_by("C")} == {"SPEAKER_03"}
        assert [outcome for _, outcome, _ in found.outcomes] == ["void", "spread"]


def test_a_label_said_before_its_line_was_heard_takes_no_name_from_a_voice_that_had_it() -> None:
    with conversation(EARLY) as found:
        found.correct(kind="segment_is", segment_id="s015", person_id="ben")
        found.correct(kind="same_voice", speaker_ids=[0, 1, 2])
        found.correct(kind="segment_is", segment_id="s000", person_id="anna")
        found.hear(*ALL)
        assert (found.persons["s003"], found.persons["s015"]) == ("anna", "ben")
        assert [outcome for _, outcome, _ in found.outcomes] == ["alone", "spread", "spread"]
