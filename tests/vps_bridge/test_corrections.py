"""Corrections over a real broker and over HTTP: kept, told, listed, taken back and brought back."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from schemas.conversation import Accepted, ConversationUpdated, EventType, SegmentLabel, Verdict
from schemas.corrections import Correction
from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, LiveBridge
from tests.vps_bridge.scripted_agent import ScriptedAgent

HEARD = ["SPEAKER_00", "SPEAKER_01"] * 3


class LabelledCall:
    """A labelled call of two people, as a backend knows it: only messages."""

    def __init__(self, backend: Backend, name: str) -> None:
        self.backend, self.name = backend, name
        self.latest = backend.wait_updated(name)

    def tell(self, kind: EventType, **fields: Any) -> Accepted:
        receipt = self.backend.event(self.name, kind, **fields)
        if receipt.verdict is Verdict.ACCEPTED:
            self.wait()
        return receipt

    def correct(self, *said: dict[str, Any], **fields: Any) -> Accepted:
        corrections = tuple(Correction.model_validate(one) for one in said)
        return self.tell(EventType.CORRECTED, corrections=corrections, **fields)

    def wait(self) -> ConversationUpdated:
        """The next update."""
        self.latest = self.backend.wait_updated(self.name, version=self.latest.updated_version + 1)
        return self.latest

    @property
    def labels(self) -> tuple[SegmentLabel, ...]:
        return self.latest.segments

    @property
    def speakers(self) -> list[str | None]:
        return [label.speaker for label in self.labels]


@pytest.fixture
def call(mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge) -> Iterator[LabelledCall]:
    bridge.allow("first")
    name = f"call-{uuid.uuid4().hex[:8]}"
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call(name, tone=sum(map(ord, name)) % 30_000)
        agent.answer(agent.wait_offer(name), CALL_TURNS)
        yield LabelledCall(backend, name)


def test_a_segment_is_corrected_and_the_correction_is_undone_and_redone(call: LabelledCall) -> None:
    before, first = call.labels, call.labels[0].id
    assert call.speakers == HEARD
    said = {"kind": "segment_is", "segment_id": first, "speaker_id": 1}
    assert call.correct(said, event_id="e-fix", by="anna").verdict is Verdict.ACCEPTED
    assert call.speakers == ["SPEAKER_01", *HEARD[1:]], "a single label does not join two voices that sound different"
    (outcome,) = call.latest.corrections
    assert (outcome.event_id, outcome.outcome, outcome.reason) == ("e-fix", "alone", "sounds_different")
    after = call.labels
    assert call.backend.event(call.name, EventType.UNDONE, event_id="e-undo", target_event_id="e-fix").reason is None
    call.wait()
    assert call.labels == before
    assert call.latest.corrections == ()
    call.tell(EventType.REDONE, target_event_id="e-fix")
    assert call.labels == after
    call.tell(EventType.UNDONE, target_event_id="e-fix")
    call.tell(EventType.UNDONE, target_write=call.latest.write)
    assert call.labels == after, "the undo of an undo"


def test_a_line_that_one_event_labels_several_times_has_the_last_label(call: LabelledCall) -> None:
    first, other = call.labels[0].id, call.labels[3].id
    said = [{"kind": "segment_is", "segment_id": first, "speaker_id": number} for number in (1, 0, 1)]
    both: list[dict[str, Any]] = [
        {"kind": "segment_is", "segment_id": other, "speaker_id": 0},
        {"kind": "segment_is", "segment_id": other, "person_id": "zoe"},
    ]
    before = call.labels
    assert call.correct(*said, *both, event_id="e-often").verdict is Verdict.ACCEPTED
    assert (call.labels[0].speaker, call.labels[3].speaker, call.labels[3].person_id) == (
        "SPEAKER_01",
        "SPEAKER_00",
        "zoe",
    )
    outcomes = [one.outcome for one in call.latest.corrections]
    assert (outcomes[1], outcomes[0] == outcomes[2] != "void") == ("void", True)
    assert call.tell(EventType.UNDONE, target_event_id="e-often").verdict is Verdict.ACCEPTED
    assert call.labels == before


def test_two_voices_become_one_and_two_again_under_their_old_numbers(call: LabelledCall) -> None:
    before = call.labels
    call.correct({"kind": "same_voice", "speaker_ids": [0, 1]}, event_id="e-merge")
    assert call.speakers == ["SPEAKER_00"] * 6
    assert [change.model_dump() for change in call.latest.voices] == [{"change": "merged", "speaker_id": 1, "into": 0}]
    assert call.latest.corrections[0].outcome == "spread"
    call.tell(EventType.UNDONE, target_event_id="e-merge", by="ben")
    assert call.labels == before
    call.tell(EventType.REDONE, target_event_id="e-merge")
    assert call.speakers == ["SPEAKER_00"] * 6


def test_the_same_event_twice_is_one_correction(call: LabelledCall, bridge: LiveBridge) -> None:
    said = {"kind": "voice_is", "speaker_id": 0, "person_id": "anna"}
    call.correct(said, event_id="e-once")
    assert [label.person_id for label in call.labels] == ["anna", None] * 3
    again = call.backend.event(
        call.name, EventType.CORRECTED, event_id="e-once", corrections=(Correction.model_validate(said),)
    )
    assert again.verdict is Verdict.ACCEPTED
    assert [write["kind"] for write in bridge.json("history", call.name)].count("correct") == 1


def test_what_names_nothing_that_is_there_is_refused_with_the_reason(call: LabelledCall) -> None:
    refused = call.correct({"kind": "same_voice", "speaker_ids": [0, 7]})
    assert (refused.verdict, refused.reason) == (Verdict.REFUSED, "correction.refused")
    assert "no speaker 7; there are: 0, 1" in (refused.message or "")
    refused = call.correct({"kind": "other_voice", "segment_ids": ["nowhere"]})
    assert "'nowhere'" in (refused.message or "")
    refused = call.tell(EventType.UNDONE, target_write=99)
    assert (refused.verdict, refused.reason) == (Verdict.REFUSED, "undo.refused")


def test_a_correction_that_a_later_one_builds_on_is_not_undone_before_it(call: LabelledCall) -> None:
    call.correct({"kind": "same_voice", "speaker_ids": [0, 1]}, event_id="e-merge")
    call.correct({"kind": "other_voice", "segment_ids": [call.labels[1].id]}, event_id="e-split")
    merged = call.labels
    refused = call.tell(EventType.UNDONE, target_event_id="e-merge")
    assert refused.reason == "undo.refused"
    assert "builds on" in (refused.message or "")
    call.tell(EventType.UNDONE, target_event_id="e-split")
    call.tell(EventType.UNDONE, target_event_id="e-merge")
    assert call.speakers == HEARD
    assert merged != call.labels


def test_whoever_was_named_by_mistake_is_nobody_s_person_after_the_undo(call: LabelledCall, bridge: LiveBridge) -> None:
    def listed() -> set[str]:
        return {person["person_id"] for person in bridge.people("")}

    slip = f"slip-{uuid.uuid4().hex[:8]}"
    call.correct({"kind": "voice_is", "speaker_id": 0, "person_id": slip}, event_id="e-slip")
    assert slip in listed()
    call.tell(EventType.UNDONE, target_event_id="e-slip")
    assert slip not in listed()
    call.tell(EventType.REDONE, target_event_id="e-slip")
    assert slip in listed()
    bridge.command("undo", call.name, str(call.latest.write), "--yes")
    call.wait()
    assert slip not in listed()
