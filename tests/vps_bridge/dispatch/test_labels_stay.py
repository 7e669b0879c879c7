"""What a backend and an operator see of conversations whose times are wrong, whose audio is short, or failed."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from schemas.agent import AgentControl
from schemas.conversation import ConversationUpdated, EventType, TranscriptSegment
from schemas.failure import FailureCode
from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS, STARTED_AT, Backend, LiveBridge, call_segments, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav


def labels_in(shown: dict[str, Any]) -> set[str | None]:
    return {segment["speaker"] for segment in shown["segments"]}


def test_a_time_zone_mistake_takes_no_label_and_is_named(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.event("zone", EventType.STARTED, started_at=STARTED_AT)
        backend.audio("zone", make_wav(CALL_S, tone=1), captured_at=STARTED_AT + timedelta(hours=1))
        backend.event("zone", EventType.COMPLETED, chunks=1)
        agent.answer(agent.wait_offer("zone"), CALL_TURNS)
        assert backend.wait_updated("zone").speakers == 2, "and they have numbers before the transcript comes"
        backend.event("zone", EventType.SEGMENTS, segments=call_segments("zone"))

        def with_segments() -> ConversationUpdated | None:
            return next((update for update in backend.seen(ConversationUpdated, "zone") if update.segments), None)

        update = wait_until(with_segments, "the update with segments")
    assert {label.speaker for label in update.segments} <= {"SPEAKER_00", "SPEAKER_01"}
    (warning,) = [words for words in update.warnings if "audio and transcript do not overlap by 3,600 s" in words]
    assert "time zone" in warning
    shown = bridge.json("show", "zone")
    assert warning in shown["warnings"]
    assert None not in labels_in(shown)
    assert warning in bridge.command("show", "zone").stdout


def test_milliseconds_are_named_and_take_no_label(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.event("millis", EventType.STARTED, started_at=STARTED_AT)
        rows = [
            row.model_copy(update={"start_s": row.start_s * 1000, "end_s": row.end_s * 1000})
            for row in call_segments("millis")
        ]
        backend.event("millis", EventType.SEGMENTS, segments=tuple(rows))
        backend.audio("millis", make_wav(CALL_S, tone=2), captured_at=STARTED_AT)
        backend.event("millis", EventType.COMPLETED, chunks=1)
        agent.answer(agent.wait_offer("millis"), CALL_TURNS)
        update = backend.wait_updated("millis")
    assert [warning for warning in update.warnings if "29,500 s" in warning and "send seconds" in warning]
    assert labels_in(bridge.json("show", "millis")) == {"SPEAKER_00"}


def heard_in(offer: AgentControl, turns: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Return who speaks in a job whose chunks are laid end to end: what two of them share is heard twice."""
    found, end_s = [], 0.0
    for chunk in offer.chunks:
        assert chunk.captured_at is not None
        from_s = (chunk.captured_at - STARTED_AT).total_seconds()
        for start, end, label in turns:
            start_s, end_of_it_s = max(start, from_s), min(end, from_s + 10.0)
            if start_s < end_of_it_s:
                found.append((end_s + start_s - from_s, end_s + end_of_it_s - from_s, label))
        end_s += 10.0
    return found


def test_chunks_that_overlap_by_a_second_get_right_labels_and_are_named(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    lengths_s = [4.0, 7.5, 2.0, 6.0, 3.0, 9.0, 5.0, 2.5, 8.0, 4.5, 3.5, 6.5, 5.5, 7.0]
    starts_s = [0.5 + sum(lengths_s[:place]) + 0.7 * place for place in range(len(lengths_s))]
    turns = [
        (start, start + length, "ab"[place % 2])
        for place, (start, length) in enumerate(zip(starts_s, lengths_s, strict=True))
    ]
    rows = tuple(
        TranscriptSegment(id=f"overlap-{place}", start_s=start, end_s=end, text="word", speaker="SPEAKER_00")
        for place, (start, end, _) in enumerate(turns)
    )
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.event("overlap", EventType.STARTED, started_at=STARTED_AT)
        backend.event("overlap", EventType.SEGMENTS, segments=rows)
        for number in range(10):
            captured_at = STARTED_AT + timedelta(seconds=9 * number)
            backend.audio("overlap", make_wav(10.0, tone=40 + number), captured_at=captured_at, sequence=number)
        backend.event("overlap", EventType.COMPLETED, chunks=10)
        answered: set[str] = set()

        def final() -> ConversationUpdated | None:
            for offer in agent.offers.items:
                if offer.lease_id is not None and offer.lease_id not in answered:
                    answered.add(offer.lease_id)
                    agent.answer(offer, heard_in(offer, turns))
            seen = backend.seen(ConversationUpdated, "overlap")
            return next((found for found in seen if found.state == "final"), None)

        update = wait_until(final, "the final update")
    assert [label.speaker for label in update.segments] == ["SPEAKER_00", "SPEAKER_01"] * (len(turns) // 2)
    (warning,) = update.warnings
    assert warning.startswith("audio.chunks_overlap: by captured_at a chunk begins 1.0 s before the one before it ends")


def test_a_clip_of_two_seconds_has_its_speaker_once_it_is_completed(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.event("clip", EventType.STARTED, started_at=STARTED_AT)
        backend.audio("clip", make_wav(2.0, tone=3), captured_at=STARTED_AT)
        backend.event("clip", EventType.COMPLETED, chunks=1)
        agent.answer(agent.wait_offer("clip"), [(0.0, 2.0, "only")])
        update = backend.wait_updated("clip")
    assert update.speakers == 1
    assert [turn.speaker_id for turn in update.turns or ()] == [0]


def test_failed_audio_is_told_with_its_reason_to_the_backend_and_to_who_looks(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("lost", tone=4)
        offer = agent.wait_offer("lost")
        agent.fail(offer, FailureCode.AUDIO_UNDECODABLE, retryable=False)
        update = backend.wait_updated("lost")
    assert (update.failed_jobs, update.changed) == (1, ())
    (failure,) = update.failures
    assert (failure.job_id, failure.code, failure.message) == (offer.job_id, "audio.undecodable", "as the test told it")
    assert f"omi-bridge cancel {offer.job_id}" in failure.remedy
    shown = bridge.json("show", "lost")
    assert (shown["state"], shown["failures"]) == ("final", [failure.model_dump()])
    text = bridge.command("show", "lost").stdout
    assert "no labels from 30 s of audio" in text
    assert "audio.undecodable: as the test told it" in text
    assert failure.remedy in text
    bridge.command("cancel", offer.job_id or "")
    told = wait_until(
        lambda: [item for item in backend.seen(ConversationUpdated, "lost") if item.failed_jobs == 0],
        "the update that nothing is failed any more",
    )
    assert told[0].failures == ()


def test_what_was_final_is_offered_as_live_once_the_conversation_is_open_again(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("again", tone=31)
        agent.answer(agent.wait_offer("again"), CALL_TURNS)
        version = backend.wait_updated("again", final=True).updated_version
    backend.audio("again", make_wav(CALL_S, tone=32), captured_at=STARTED_AT + timedelta(hours=1))
    before = len(backend.seen(ConversationUpdated, "again"))
    backend.event("again", EventType.RESYNC)
    told = wait_until(lambda: backend.seen(ConversationUpdated, "again")[before:], "the update once more")[0]
    assert (told.updated_version, told.state, told.speakers) == (version, "live", 2)
