"""Every line of a voice has a label of a person: what is said of the voice then changes nothing, and that is told."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.labelling.corrected_conversation import CorrectedConversation
from tests.vps_bridge.labelling.test_reused_ids import ids_of, labelled_call

CALLED = {"A": "anna", "B": "ben"}
NOTHING_CHANGES = [
    {"kind": "voice_is", "speaker_id": 0, "person_id": "zoe"},
    {"kind": "voice_is_not", "speaker_id": 0, "person_id": "anna"},
    {"kind": "same_voice", "speaker_ids": [0, 1]},
    {"kind": "other_voice", "segment_ids": ids_of("A")[:3]},
    {"kind": "other_voice", "segment_ids": ids_of("A")[-3:]},
]
AGREES = [
    {"kind": "voice_is", "speaker_id": 0, "person_id": "anna"},
    {"kind": "voice_is_not", "speaker_id": 0, "person_id": "ben"},
]


def label_by_hand(call: CorrectedConversation, but: int = 0) -> None:
    """Let the backend send all lines of two voices as people labelled them there, but for some."""
    labelled = [
        TranscriptSegment(id=one, speaker=call.speakers[one], person_id=person, label_source="manual")
        for voice, person in CALLED.items()
        for one in ids_of(voice)[: len(ids_of(voice)) - but]
    ]
    call.store.upsert_segments("c1", 2, tuple(labelled))
    call.relabel()


@pytest.mark.parametrize("said", NOTHING_CHANGES)
def test_what_is_said_of_a_voice_whose_lines_all_say_otherwise_is_told_as_contradicted(said: dict[str, Any]):
    with labelled_call() as call:
        label_by_hand(call)
        before = call.speakers, call.persons
        call.correct(**said)
        assert (call.speakers, call.persons) == before, "a line that a person labelled is never touched"
        assert [one[1:] for one in call.outcomes] == [("alone", "contradicted")]


@pytest.mark.parametrize("said", AGREES)
def test_what_all_lines_of_a_voice_say_too_is_told_as_done(said: dict[str, Any]):
    with labelled_call() as call:
        label_by_hand(call)
        call.correct(**said)
        assert [one[1:] for one in call.outcomes] == [("spread", None)]


@pytest.mark.parametrize("said", NOTHING_CHANGES[:3])
def test_what_is_said_of_a_voice_reaches_the_lines_that_nobody_labelled(said: dict[str, Any]):
    with labelled_call() as call:
        label_by_hand(call, but=3)
        before = call.speakers, call.persons
        call.correct(**said)
        assert (call.speakers, call.persons) != before
        assert [one[1:] for one in call.outcomes] == [("spread", None)]
