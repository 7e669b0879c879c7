"""Blocks in which two people speak, under a number of speech-to-text that is somebody else's by now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.labelling.test_relabel import POLICY, apply, evidence_of, irregular, transcript
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.conversations.store import Applied, StoredSegment
from vps_bridge.labelling.relabel import Relabelling, relabel
from vps_bridge.labelling.vote import AssignmentRules

STALE = "label.stale"
REMOVING = replace(POLICY, assignment=AssignmentRules(removes_stale=True))
SPOKEN = irregular(30)  # A and B in turn


def with_blocks(firsts: set[int]) -> tuple[StoredSegment, ...]:
    """The transcript, all of it under one number; each of these turns and the next one are one segment."""
    rows = transcript(SPOKEN)
    return tuple(
        replace(row, end_s=rows[n + 1].end_s) if n in firsts else row
        for n, row in enumerate(rows)
        if n - 1 not in firsts
    )


def owners(result: Relabelling, firsts: set[int]) -> dict[str | None, str]:
    """Who has each number, by the segments in which one person speaks."""
    single = [row for row in result.segments if int(row.id[1:]) not in firsts]
    return {row.speaker: SPOKEN[int(row.id[1:])][0] for row in single}


def speaks_most(first: int) -> str:
    return max(SPOKEN[first : first + 2], key=lambda turn: turn[2] - turn[1])[0]


def stale_of(result: Relabelling) -> set[str]:
    return {segment for segment, reason in result.left_alone if reason == STALE}


blocks = st.sets(st.sampled_from(range(4, 26, 3)), min_size=1, max_size=6)


@settings(max_examples=12, deadline=None)
@given(blocks, st.integers(0, 7))
def test_a_number_that_means_somebody_else_is_told_or_taken_off_and_comes_back(firsts: set[int], human: int) -> None:
    by_person = f"s{sorted(firsts)[human % len(firsts)]:03d}"
    segments = tuple(
        replace(row, label_source="manual", person_id="p") if row.id == by_person else row
        for row in with_blocks(firsts)
    )
    evidence = evidence_of(SPOKEN, 300.0, segments=segments)
    told, removed = relabel(evidence, POLICY), relabel(evidence, REMOVING)

    owner = owners(told, firsts)["SPEAKER_00"]
    two_speakers = {row for row, reason in told.left_alone if reason in ("two_speakers", STALE)}
    assert stale_of(told) == {row for row in two_speakers if speaks_most(int(row[1:])) != owner}
    assert (STALE in told.warnings) == bool(stale_of(told))
    assert {change.segment_id for change in told.changed}.isdisjoint(stale_of(told))

    assert {change.segment_id for change in removed.changed if change.after is None} == stale_of(told)
    assert by_person not in {change.segment_id for change in removed.changed}
    assert STALE not in {*removed.warnings, *(reason for _, reason in removed.left_alone)}
    after = replace(evidence, segments=apply(segments, removed), voices=removed.voices)
    assert relabel(after, REMOVING).changed == ()
    assert {change.segment_id for change in relabel(after, POLICY).changed} == stale_of(told), "with the setting"


def test_an_undo_brings_a_number_back_that_was_taken_off(tmp_path: Path) -> None:
    firsts = set(range(4, 26, 3))
    store = SqliteConversations(tmp_path / "conversations.db")
    sent = [
        TranscriptSegment(id=row.id, start_s=row.start_s, end_s=row.end_s, speaker="SPEAKER_00")
        for row in with_blocks(firsts)
    ]
    store.upsert_segments("c1", 1, sent)
    stored = store.read("c1")
    assert stored is not None
    found = relabel(evidence_of(SPOKEN, 300.0, segments=stored.segments), REMOVING)
    taken_off = {change.segment_id for change in found.changed if change.after is None}
    assert taken_off
    assert store.apply("c1", stored.revision, found.write_key, found.labels) == Applied(1)
    store.undo("c1", 1)
    after = store.read("c1")
    assert after is not None
    assert {row.speaker for row in after.segments} == {"SPEAKER_00"}
    again = relabel(evidence_of(SPOKEN, 300.0, segments=after.segments, voices=found.voices), REMOVING)
    assert again.changed == (), "what a person undid is a person's label"
    store.close()
