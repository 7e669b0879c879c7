"""Nothing is told as done that the labels do not show, whatever linking made of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.vps_bridge.labelling.corrected_conversation import NAME
from tests.vps_bridge.labelling.test_reused_ids import ids_of, labelled_call
from vps_bridge.labelling.corrections import as_lines_are_now, read_kept
from vps_bridge.labelling.kept_line import LinesNow
from vps_bridge.labelling.seen_outcomes import as_seen
from vps_bridge.labelling.vote import Vote, VoteOutcome

A = ids_of("A")
SAID: list[dict[str, Any]] = [
    {"kind": "voice_is", "speaker_id": 0, "person_id": "anna"},
    {"kind": "same_voice", "speaker_ids": [0, 1]},
    {"kind": "other_voice", "segment_ids": A[:3]},
]


@pytest.mark.parametrize(
    ("said", "undone"),
    [
        *((one, False) for one in SAID),
        *((one, True) for one in SAID),
        ({"kind": "voice_is_not", "speaker_id": 0, "person_id": "anna"}, False),
    ],
    ids=str,
)
def test_what_the_labels_do_not_show_is_not_told_as_done(said: dict[str, Any], undone: bool) -> None:
    """Outcomes are worked out of labels of before, or after, the correction."""
    with labelled_call() as call:
        before = call.found
        write = call.correct(**said)
        (done,) = call.found.corrections
        assert done.outcome != "void"
        votes = [Vote(one.id, VoteOutcome.CLEAR, 0, 1.0, 4.0, None, 0.0) for one in call.found.segments]
        stored = call.store.read(NAME)
        assert stored is not None
        (record,) = call.ledger.corrections.of_conversation(NAME)
        kept = as_lines_are_now(read_kept(record), LinesNow(stored.segments))
        shown = before.segments if undone else call.found.segments
        (seen,) = as_seen(call.found.corrections, kept, shown, votes)
        if undone:
            assert (seen.outcome, seen.reason) == ("void", "overridden")
        else:
            assert seen == done
        assert seen.write == write


def test_a_split_whose_lines_are_two_voices_since_is_told_as_contradicted() -> None:
    with labelled_call() as call:
        first = call.correct(kind="other_voice", segment_ids=A[:3])
        second = call.correct(kind="other_voice", segment_ids=[A[0]])
        assert call.outcomes == [(first, "alone", "contradicted"), (second, "alone", "sounds_different")]
        call.undo(second)
        assert call.outcomes == [(first, "alone", "sounds_different")]
