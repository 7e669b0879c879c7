"""A correction is taken back while another of the same voices was said, or taken back, since: only its own change goes.

The line that tells has two speakers: it keeps the number that its voice has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.labelling.corrected_conversation import CorrectedConversation
from tests.vps_bridge.labelling.test_corrections import SPOKEN
from tests.vps_bridge.labelling.test_reused_ids import ids_of, labelled_call

A, B, C = (ids_of(name) for name in "ABC")
UNCLEAR = B[3]
ONE_LINE: list[dict[str, Any]] = [
    {"kind": "segment_is", "segment_id": A[2], "person_id": "zoe"},
    {"kind": "segment_is", "segment_id": C[2], "person_id": "zoe"},
    {"kind": "voice_is", "speaker_id": 0, "person_id": "zoe"},
]


@contextmanager
def call_with_an_unclear_line() -> Iterator[CorrectedConversation]:
    _, start_s, end_s = SPOKEN[int(UNCLEAR)]
    unclear = TranscriptSegment(id=UNCLEAR, start_s=start_s + 3.5, end_s=end_s + 4.4)
    with labelled_call() as call:
        call.store.upsert_segments("c1", 2, (unclear,))
        call.relabel()
        assert (UNCLEAR, "two_speakers") in call.found.left_alone
        assert call.speakers[UNCLEAR] == call.speakers[B[0]] == "SPEAKER_01"
        yield call


@pytest.mark.parametrize("said", ONE_LINE)
def test_a_word_that_is_taken_back_leaves_a_merge_that_was_said_since(said: dict[str, Any]):
    with call_with_an_unclear_line() as call:
        word = call.correct(**said)
        call.correct(kind="same_voice", speaker_ids=[0, 1])
        merged = call.speakers
        assert merged[UNCLEAR] == merged[A[0]]
        call.undo(word)
        assert call.speakers == merged
        call.redo(word)
        assert call.speakers == merged


@pytest.mark.parametrize("said", ONE_LINE)
def test_a_word_that_is_taken_back_brings_no_merge_back_that_was_undone_since(said: dict[str, Any]):
    with call_with_an_unclear_line() as call:
        before = call.speakers
        word = call.correct(**said)
        merge = call.correct(kind="same_voice", speaker_ids=[0, 1])
        call.undo(word)
        call.redo(word)
        call.undo(merge)
        assert call.speakers == before
        call.undo(word)
        assert call.speakers == before
