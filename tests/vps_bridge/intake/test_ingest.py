"""What is published becomes accepted audio exactly once, over a real broker and a bridge as a process."""

import hashlib
import random
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from schemas.audio import AudioPayload
from schemas.bridge import BridgeHeartbeat
from schemas.conversation import Accepted, EventType, TranscriptSegment, Verdict
from schemas.failure import FailureCode
from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import (
    STARTED_AT,
    TOPICS,
    Backend,
    LiveBridge,
    audio_payload,
    part_payload,
    run_bridge,
    wait_until,
)
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.intake.queue_room import COUNT_EVERY_S

WAV = make_wav(2.0)


def _chunks(bridge: LiveBridge, conversation_id: str) -> list[str]:
    """What the ledger knows of a conversation's chunks, by id in order of arrival."""
    from vps_bridge.ledger import Ledger

    ledger = Ledger(bridge.data_dir / "bridge", exclusive=False)
    try:
        return [chunk.chunk_id for chunk in ledger.chunks.of_conversation(conversation_id)]
    finally:
        ledger.close()


def _has_receipts(backend: Backend, conversation_id: str, count: int) -> bool:
    return len(backend.seen(Accepted, conversation_id)) >= count


def test_the_same_chunk_again_is_accepted_again_and_kept_once(backend: Backend, bridge: LiveBridge) -> None:
    for _ in range(3):
        receipt = backend.audio("again", WAV, chunk_id="c1")
        assert (receipt.verdict, receipt.bytes) == (Verdict.ACCEPTED, len(WAV))
        assert receipt.sha256 == hashlib.sha256(WAV).hexdigest()
    assert _chunks(bridge, "again") == ["c1"]


def test_other_audio_under_a_used_id_is_a_conflict(backend: Backend, bridge: LiveBridge) -> None:
    assert backend.audio("conflict", WAV, chunk_id="c1").verdict is Verdict.ACCEPTED
    receipt = backend.audio("conflict", make_wav(3.0), chunk_id="c1")
    assert (receipt.verdict, receipt.reason) == (Verdict.REFUSED, FailureCode.CHUNK_ID_CONFLICT)
    assert "new chunk_id" in (receipt.message or "")
    (failure,) = wait_until(lambda: backend.failures("conflict"), "the failure under the bridge's id")
    assert (failure.code, failure.chunk_id, failure.retryable) == (FailureCode.CHUNK_ID_CONFLICT, "c1", False)


def test_parts_may_come_in_any_order_twice_and_once_corrupt(backend: Backend, bridge: LiveBridge) -> None:
    audio = make_wav(20.0)
    starts = [*range(0, len(audio), 20_000), *range(0, len(audio), 70_000)]
    random.Random(7).shuffle(starts)
    spoilt = part_payload("parts", audio, 0, 20_000, chunk_id="c1", part_sha256="0" * 64)
    backend.publish(TOPICS.audio("parts"), spoilt)
    for start in starts:
        end = min(start + (20_000 if start % 20_000 == 0 else 70_000), len(audio))
        backend.publish(TOPICS.audio("parts"), part_payload("parts", audio, start, end, chunk_id="c1"))
    receipt = backend.wait_receipt("parts", chunk_id="c1")
    assert (receipt.verdict, receipt.bytes) == (Verdict.ACCEPTED, len(audio))
    assert _chunks(bridge, "parts") == ["c1"]
    hashes = {hashlib.sha256(path.read_bytes()).hexdigest() for path in bridge.spool.iterdir()}
    assert hashlib.sha256(audio).hexdigest() in hashes


def test_parts_that_do_not_add_up_are_refused_and_can_be_sent_again(backend: Backend, bridge: LiveBridge) -> None:
    audio = make_wav(5.0)
    other = audio[:40_000] + b"\x01" * (len(audio) - 40_000)
    whole = hashlib.sha256(audio).hexdigest()
    wrong = part_payload("sum", other, 40_000, len(other), chunk_id="c1").model_copy(update={"sha256": whole})
    backend.publish(TOPICS.audio("sum"), wrong)
    backend.publish(TOPICS.audio("sum"), part_payload("sum", audio, 0, 40_000, chunk_id="c1"))
    receipt = backend.wait_receipt("sum", chunk_id="c1")
    assert (receipt.verdict, receipt.reason) == (Verdict.REFUSED, FailureCode.PAYLOAD_SHA256_MISMATCH)
    for start, end in ((0, 40_000), (40_000, len(audio))):
        backend.publish(TOPICS.audio("sum"), part_payload("sum", audio, start, end, chunk_id="c1"))
    assert backend.wait_receipt("sum", count=2, chunk_id="c1").verdict is Verdict.ACCEPTED


def test_parts_of_two_files_under_one_id_do_not_mix(backend: Backend, bridge: LiveBridge) -> None:
    one, other = make_wav(5.0, tone=1), make_wav(6.0, tone=2)
    backend.publish(TOPICS.audio("mixed"), part_payload("mixed", one, 0, 40_000, chunk_id="c1"))
    backend.publish(TOPICS.audio("mixed"), part_payload("mixed", other, 40_000, 80_000, chunk_id="c1"))
    receipt = backend.wait_receipt("mixed", chunk_id="c1")
    assert (receipt.verdict, receipt.reason) == (Verdict.REFUSED, FailureCode.CHUNK_ID_CONFLICT)


REFUSED: dict[str, tuple[Callable[[], bytes | AudioPayload], str]] = {
    "wrong_sha256": (lambda: audio_payload("r", WAV, chunk_id="x", sha256="0" * 64), "payload.sha256_mismatch"),
    "no_audio": (lambda: audio_payload("r", b"", chunk_id="x"), "audio.empty"),
    "no_file": (lambda: audio_payload("r", b"neither file nor raw", chunk_id="x"), "audio.undecodable"),
    "other_topic": (lambda: audio_payload("elsewhere", WAV, chunk_id="x"), "payload.malformed"),
    "empty": (lambda: b"", "audio.empty"),
    "text": (lambda: b"hello", "audio.undecodable"),
    "cut_msgpack": (lambda: b"\x8f\xa6schema", "payload.malformed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_chunk_is_refused_with_words(backend: Backend, bridge: LiveBridge, name: str) -> None:
    make, code = REFUSED[name]
    payload = make()
    conversation_id = f"refused-{name}"
    if isinstance(payload, AudioPayload) and payload.conversation_id == "r":
        payload = payload.model_copy(update={"conversation_id": conversation_id})
    backend.publish(TOPICS.audio(conversation_id), payload)
    (receipt,) = wait_until(lambda: backend.seen(Accepted, conversation_id), "the receipt")
    assert (receipt.verdict, receipt.reason) == (Verdict.REFUSED, code)
    assert len(receipt.message or "") > 20
    assert [failure.code for failure in wait_until(lambda: backend.failures(conversation_id), "failure")] == [code]
    assert _chunks(bridge, conversation_id) == []


@pytest.mark.parametrize("name", ["pcm16", "s16le", "mulaw8", "opus"])
def test_a_name_that_is_no_raw_encoding_is_refused_with_those_that_are(
    backend: Backend, bridge: LiveBridge, name: str
) -> None:
    samples = {"encoding": name, "sample_rate": 16_000, "channels": 1}
    backend.publish(
        TOPICS.audio(f"named-{name}"), audio_payload(f"named-{name}", bytes(3_200), chunk_id="c1", **samples)
    )
    receipt = backend.wait_receipt(f"named-{name}", chunk_id="c1")
    assert (receipt.verdict, receipt.reason) == (Verdict.REFUSED, FailureCode.AUDIO_UNDECODABLE)
    assert f"{name} is no raw encoding" in (receipt.message or "")
    assert "pcm_s16le" in (receipt.message or "")


def test_a_bare_file_twice_is_two_chunks(backend: Backend, bridge: LiveBridge) -> None:
    for count in (1, 2):
        backend.publish(TOPICS.audio("bare"), WAV)
        wait_until(partial(_has_receipts, backend, "bare", count), "a receipt")
    first, second = backend.seen(Accepted, "bare")
    assert first.verdict is second.verdict is Verdict.ACCEPTED
    assert _chunks(bridge, "bare") == [first.chunk_id, second.chunk_id]


def test_default_ids_come_from_sequence_else_from_time_and_audio(backend: Backend, bridge: LiveBridge) -> None:
    for _ in range(2):
        for fields in (
            {"sequence": 3},
            {"captured_at": STARTED_AT},
            {"captured_at": STARTED_AT + timedelta(seconds=2)},
        ):
            backend.publish(TOPICS.audio("named"), audio_payload("named", WAV, **fields))
    wait_until(lambda: len(backend.seen(Accepted, "named")) == 6, "all receipts")
    names = [receipt.chunk_id for receipt in backend.seen(Accepted, "named")]
    assert names[:3] == names[3:], "the same audio again is the same chunk"
    assert _chunks(bridge, "named") == names[:3]
    assert names[0] == "s-3"


@pytest.mark.parametrize(("encoding", "sample_bytes"), [("pcm_s16le", 2), ("pcm_f32le", 4), ("pcm_mulaw", 1)])
def test_raw_samples_are_as_long_as_their_bytes_say(
    backend: Backend, bridge: LiveBridge, encoding: str, sample_bytes: int
) -> None:
    from vps_bridge.ledger import Ledger

    name = f"raw-{encoding}"
    backend.audio(name, bytes(16_000 * sample_bytes * 2 * 3), encoding=encoding, sample_rate=16_000, channels=2)
    ledger = Ledger(bridge.data_dir / "bridge", exclusive=False)
    (chunk,) = ledger.chunks.of_conversation(name)
    ledger.close()
    assert (chunk.duration_s, chunk.encoding) == (3.0, encoding)


def test_a_file_that_is_named_raw_samples_is_a_file(backend: Backend, bridge: LiveBridge) -> None:
    """Read as samples at the rate that was named, its voices would be noise."""
    backend.audio("named-raw", make_wav(20.0), encoding="pcm_s16le", sample_rate=48_000, channels=2)
    backend.event("named-raw", EventType.COMPLETED, chunks=1)
    (job,) = wait_until(lambda: bridge.jobs("named-raw"), "the job")
    assert job["audio_s"] == pytest.approx(20.0)


def test_an_event_twice_is_answered_the_same_and_counts_once(backend: Backend, bridge: LiveBridge) -> None:
    first = backend.event("event", EventType.STARTED, event_id="e1", revision=5, started_at=STARTED_AT)
    again = backend.event("event", EventType.STARTED, event_id="e1", revision=5, started_at=STARTED_AT)
    assert first == again
    stale = backend.event("event", EventType.STARTED, event_id="e2", revision=4, started_at=STARTED_AT)
    assert (stale.verdict, stale.reason) == (Verdict.DISCARDED, FailureCode.REVISION_STALE)
    assert backend.event("event", EventType.STARTED, event_id="e2", revision=4, started_at=STARTED_AT) == stale


def test_another_event_under_a_used_id_is_a_conflict_and_never_taken_for_the_first(
    backend: Backend, bridge: LiveBridge
) -> None:
    first, second = (TranscriptSegment(id=name, start_s=0, end_s=1, text=name) for name in "ab")
    assert backend.event("ids", EventType.SEGMENTS, event_id="e-1", segments=(first,)).verdict is Verdict.ACCEPTED
    other = backend.event("ids", EventType.SEGMENTS, event_id="e-1", segments=(second,))
    assert (other.verdict, other.reason) == (Verdict.REFUSED, FailureCode.EVENT_ID_CONFLICT)
    assert "under an id of its own" in (other.message or "")
    assert backend.event("ids", EventType.SEGMENTS, event_id="e-1", segments=(first,)).verdict is Verdict.ACCEPTED
    assert [segment["id"] for segment in bridge.json("show", "ids")["segments"]] == ["a"]


def test_a_lower_revision_never_overwrites_a_higher(backend: Backend, bridge: LiveBridge) -> None:
    def say(revision: int, text: str, removed: tuple[str, ...] = ()) -> None:
        segments = () if removed else (TranscriptSegment(id="a", start_s=0, end_s=1, text=text),)
        backend.event("revised", EventType.SEGMENTS, revision=revision, segments=segments, removed=removed)

    def text() -> list[str]:
        return [segment["text"] for segment in bridge.json("show", "revised")["segments"]]

    say(2, "new")
    say(1, "old")
    assert text() == ["new"]
    say(3, "", removed=("a",))
    say(2, "new")
    assert text() == []


def test_started_may_come_after_the_audio(backend: Backend, bridge: LiveBridge) -> None:
    backend.audio("late", WAV, captured_at=STARTED_AT)
    assert backend.event("late", EventType.STARTED, started_at=STARTED_AT).verdict is Verdict.ACCEPTED
    assert bridge.json("show", "late")["started_at_s"] == STARTED_AT.timestamp()


@pytest.mark.parametrize("payload", [b"{", b"[]", b'{"schema": "nope", "version": "1.0"}', b"\xff" * 100])
def test_an_unreadable_event_is_refused(backend: Backend, bridge: LiveBridge, payload: bytes) -> None:
    name = f"unreadable-{hashlib.sha256(payload).hexdigest()[:8]}"
    backend.publish(TOPICS.events(name), payload)
    (receipt,) = wait_until(lambda: backend.seen(Accepted, name), "the receipt")
    assert receipt.verdict is Verdict.REFUSED


def test_too_large_and_full_are_told_apart_and_full_passes(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    limits = {"OMI_MAX_CHUNK_BYTES": "100000", "OMI_MAX_QUEUE_BYTES": "150000"}
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, **limits):
        large = own_backend.audio("large", make_wav(10.0), chunk_id="c1")
        assert (large.verdict, large.reason) == (Verdict.REFUSED, FailureCode.INGEST_TOO_LARGE)
        assert own_backend.audio("one", make_wav(5.0)).verdict is Verdict.ACCEPTED
        full = own_backend.audio("two", make_wav(5.0), chunk_id="c1")
        assert (full.verdict, full.reason) == (Verdict.REFUSED, FailureCode.INGEST_FULL)
        assert [failure.retryable for failure in wait_until(lambda: own_backend.failures("two"), "failure")] == [True]
        own_backend.event("one", EventType.DELETED)

        def accepted() -> bool:
            return own_backend.audio("two", make_wav(5.0), chunk_id="c1").verdict is Verdict.ACCEPTED

        wait_until(accepted, "room for the second")
        beats = own_backend.seen(BridgeHeartbeat)
        assert beats[-1].last_error is None


def test_who_fills_the_queue_leaves_room_for_conversations_that_have_begun(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def send(conversation_id: str, number: int) -> Accepted:
        return own_backend.audio(conversation_id, make_wav(1.0, tone=number), chunk_id=f"c{number}")

    def is_refused(conversation_id: str) -> Accepted | None:
        """A chunk that is a job of its own; the queue is counted once a second."""
        receipt = own_backend.audio(conversation_id, make_wav(1.0), captured_at=STARTED_AT, final=True)
        return receipt if receipt.verdict is Verdict.REFUSED else None

    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, OMI_MAX_QUEUE_JOBS="40") as bridge:
        for number in range(3):
            assert send("live", number).verdict is Verdict.ACCEPTED
        for number in range(36):
            assert not is_refused(f"flood-{max(0, number - 5)}")
        wait_until(lambda: len(bridge.json("jobs", "--state", "ready")) >= 36, "a job of each")
        time.sleep(COUNT_EVERY_S)
        for name in ("flood-new", "flood-0"):
            receipt = is_refused(name)
            assert receipt is not None, name
            assert receipt.reason == FailureCode.INGEST_FULL
            assert "conversations that have begun" in (receipt.message or "")
        assert wait_until(lambda: own_backend.failures("flood-new"), "failure")[-1].retryable
        assert send("live", 3).verdict is Verdict.ACCEPTED
        assert own_backend.seen(BridgeHeartbeat)[-1].accepting


def test_a_kill_leaves_in_the_spool_only_what_the_ledger_knows(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend) as bridge:
        own_backend.audio("kept", WAV, chunk_id="c1")
        audio = make_wav(5.0)
        own_backend.publish(TOPICS.audio("half"), part_payload("half", audio, 0, 40_000, chunk_id="c1"))
        incoming = bridge.data_dir / "bridge" / "incoming"
        wait_until(lambda: incoming.exists() and list(incoming.iterdir()), "the first part on disk")
        bridge.kill()
        (kept,) = bridge.spool.iterdir()
        (bridge.spool / ("0" * 32)).write_bytes(b"written, but the ledger never heard of it")
        bridge.start(own_backend)
        assert list(bridge.spool.iterdir()) == [kept]
        assert list(incoming.iterdir()) == []
        assert own_backend.audio("kept", WAV, chunk_id="c1").verdict is Verdict.ACCEPTED
        assert _private(bridge.data_dir / "bridge")


def _private(root: Path) -> bool:
    """Whether nobody but this user may read what the bridge keeps."""
    return all(path.stat().st_mode & 0o077 == 0 for path in [root, *root.iterdir()] if path.suffix != ".lock")
