"""What people corrected stands in whatever order results come, and every way back leads to what was there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.labelling.corrected_conversation import NAME, open_conversation
from tests.vps_bridge.labelling.test_relabel import chunks_of, diarize
from vps_bridge.conversations.reversal import corrections_in_force
from vps_bridge.conversations.store import StoreError
from vps_bridge.errors import Refusal
from vps_bridge.rules.assemble import AssemblyRules, plan_jobs

LINES = [("ABAC"[n % 4], n * 8.0 + 0.5, n * 8.0 + 7.0 + (n % 3) * 0.4) for n in range(16)]
CHUNKS = tuple(chunks_of(130.0, 10.0))
JOBS = tuple(
    diarize(CHUNKS, plan, LINES)
    for plan in plan_jobs(CHUNKS, closing=True, idle_s=0.0, rules=AssemblyRules(min_job_s=20.0, max_job_s=40.0))
)
HEARD_FIRST_S = 40.0
SEGMENTS = tuple(
    TranscriptSegment(id=f"s{n:02d}", start_s=start_s, end_s=end_s, text="word", speaker="SPEAKER_00")
    for n, (_, start_s, end_s) in enumerate(LINES)
)
IDS = [segment.id for segment in SEGMENTS]
HEARD_FIRST = [segment.id for segment in SEGMENTS if segment.end_s < HEARD_FIRST_S]
NUMBERS, PERSONS = st.integers(0, 2), st.sampled_from(["anna", "ben"])
CORRECTIONS = st.one_of(
    st.builds(
        lambda numbers: {"kind": "same_voice", "speaker_ids": numbers}, st.lists(NUMBERS, min_size=2, unique=True)
    ),
    st.builds(
        lambda segments: {"kind": "other_voice", "segment_ids": sorted(segments)},
        st.sets(st.sampled_from(HEARD_FIRST), min_size=1),
    ),
    st.builds(
        lambda segment, number: {"kind": "segment_is", "segment_id": segment, "speaker_id": number},
        st.sampled_from(IDS),
        NUMBERS,
    ),
    st.builds(
        lambda segment, person: {"kind": "segment_is", "segment_id": segment, "person_id": person},
        st.sampled_from(IDS),
        PERSONS,
    ),
    st.builds(lambda number, person: {"kind": "voice_is", "speaker_id": number, "person_id": person}, NUMBERS, PERSONS),
)
SAID = st.lists(CORRECTIONS, min_size=1, max_size=5)
ORDERS = st.permutations(range(1, len(JOBS)))
STEPS = st.lists(
    st.one_of(CORRECTIONS, st.tuples(st.sampled_from(["undo", "redo"]), st.integers(0, 8))), min_size=3, max_size=9
)
FEW, MANY = settings(max_examples=12, deadline=None), settings(max_examples=500, deadline=None)


def make(found, said, writes=()):
    """Correct, or undo or redo one of some writes; return the new ones. What is refused changes nothing."""
    before = found.segments
    try:
        if isinstance(said, dict):
            return [found.correct(**said)]
        if writes:
            way, place = said
            return [getattr(found, way)(writes[place % len(writes)])]
    except (Refusal, StoreError):
        assert found.segments == before
    return []


def hear_the_rest(said, order=()):
    """Return the segments, and what became of each correction, when all is heard; at once without an order."""
    with open_conversation(SEGMENTS) as found:
        found.hear(CHUNKS, JOBS[:1])
        for one in said:
            make(found, one)
        speakers, persons, outcomes = found.speakers, found.persons, found.outcomes
        for count in range(1, len(order) + 1) if order else [None]:
            found.hear(CHUNKS, JOBS if count is None else (JOBS[0], *(JOBS[job] for job in order[:count])))
        assert {name: found.speakers[name] for name in HEARD_FIRST} == {name: speakers[name] for name in HEARD_FIRST}
        named = [name for name in HEARD_FIRST if persons[name] is not None]
        assert {name: found.persons[name] for name in named} == {name: persons[name] for name in named}
        spread = {write for write, outcome, _ in outcomes if outcome == "spread"}
        assert {write for write, outcome, _ in found.outcomes if outcome == "spread"} >= spread
        return found.segments, found.outcomes


def check_order(said, order):
    assert hear_the_rest(said, order) == hear_the_rest(said)


def check_ways_back(steps):
    """The same corrections in force are the same segments, to the letter, on whatever way one came there."""
    with open_conversation(SEGMENTS) as found:
        found.hear(CHUNKS, JOBS)
        seen: dict[frozenset[int], list[dict[str, Any]]] = {frozenset(): found.segments}
        writes: list[int] = []
        for step in steps:
            writes += make(found, step, writes)
            in_force = corrections_in_force(found.store.history(NAME))
            assert found.segments == seen.setdefault(in_force, found.segments)


def split(*segments):
    return {"kind": "other_voice", "segment_ids": list(segments)}


SEVERAL_VOICES = [split("s01", "s03")]
SPLIT_AGAIN = [
    {"kind": "same_voice", "speaker_ids": [0, 1, 2]},
    split("s04"),  # which the second job hears, too
]
MOST_SPLIT_OFF = [{"kind": "same_voice", "speaker_ids": [0, 1]}, split("s00", "s01", "s02")]  # s04 is left


@FEW
@example(said=SEVERAL_VOICES, order=[3, 1, 2])
@example(said=SPLIT_AGAIN, order=[3, 1, 2])
@example(said=MOST_SPLIT_OFF, order=[1, 2, 3])
@given(said=SAID, order=ORDERS)
def test_corrections_stand_in_every_order_of_results(said, order):
    check_order(said, order)


MERGE = {"kind": "same_voice", "speaker_ids": [0, 1]}
# After the split two voices speak in s13, so that no vote decides it, and only the merge gives it another number.
MERGE_TAKEN_BACK = [SEVERAL_VOICES[0], MERGE, ("undo", 1)]


@FEW
@example(steps=MERGE_TAKEN_BACK)
@example(steps=[*MERGE_TAKEN_BACK, ("redo", 1), ("undo", 1), ("undo", 0)])
@given(steps=STEPS)
def test_every_way_back_leads_to_what_was_there(steps):
    check_ways_back(steps)


def test_lines_of_several_voices_split_off_together_take_along_what_sounds_like_each():
    with open_conversation(SEGMENTS) as found:
        found.hear(CHUNKS, JOBS[:1])
        make(found, SEVERAL_VOICES[0])
        number = found.speakers["s01"]
        found.hear(CHUNKS, JOBS)
        of_others = [SEGMENTS[n].id for n, (who, *_) in enumerate(LINES) if who != "A"]
        assert {found.speakers[name] for name in of_others} == {number}
        assert {speaker for name, speaker in found.speakers.items() if name not in of_others} == {"SPEAKER_00"}
        assert [outcome for _, outcome, _ in found.outcomes] == ["spread"]


@pytest.mark.slow
@MANY
@given(said=SAID, order=ORDERS)
def test_many_corrections_stand_in_every_order_of_results(said, order):
    check_order(said, order)


@pytest.mark.slow
@MANY
@given(steps=STEPS)
def test_many_ways_back_lead_to_what_was_there(steps):
    check_ways_back(steps)
