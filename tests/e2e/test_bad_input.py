"""Bytes that are not audio end as a failure with a clear message, at once, and the next job runs."""

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from schemas.agent import AgentHeartbeat
from schemas.audio import AudioPayload
from schemas.codec import encode
from schemas.conversation import Accepted, ConversationUpdated, EventType, TranscriptSegment, Verdict
from schemas.failure import FailureCode, JobFailure
from tests.e2e.system import (
    TOPICS,
    MqttBackend,
    System,
    count_right,
    make_wav,
    read_wav,
    sample_folder,
    sample_segments,
    wait_until,
)

on_mosquitto = pytest.mark.parametrize("working_system", ["mosquitto"], indirect=True)
on_both = pytest.mark.parametrize(
    "working_system", ["mosquitto", pytest.param("embedded", marks=pytest.mark.slow)], indirect=True
)


def _whole_call() -> bytes:
    samples, rate = read_wav(sample_folder() / "sample.wav")
    return make_wav(samples, rate)


def _with_version(payload: bytes, version: bytes) -> bytes:
    assert payload.count(b"\xa31.1") == 1
    return payload.replace(b"\xa31.1", b"\xa3" + version)


def _payload(conversation_id: str, audio: bytes, **fields: object) -> bytes:
    fields.setdefault("sha256", hashlib.sha256(audio).hexdigest())
    return encode(AudioPayload(conversation_id=conversation_id, chunk_id="bad", audio=audio, **fields))  # type: ignore[arg-type]


REFUSED_AT_THE_DOOR = {
    "empty": (lambda name: b"", FailureCode.AUDIO_EMPTY),
    "empty_chunk": (lambda name: _payload(name, b""), FailureCode.AUDIO_EMPTY),
    "text": (lambda name: b"this is not audio", FailureCode.AUDIO_UNDECODABLE),
    "text_in_a_payload": (lambda name: _payload(name, b"this is not audio"), FailureCode.AUDIO_UNDECODABLE),
    "cut_in_the_middle": (lambda name: _payload(name, _whole_call())[:-1000], FailureCode.PAYLOAD_MALFORMED),
    "wrong_sha256": (lambda name: _payload(name, _whole_call(), sha256="0" * 64), FailureCode.PAYLOAD_SHA256_MISMATCH),
    "unknown_major": (
        lambda name: _with_version(_payload(name, _whole_call()), b"2.0"),
        FailureCode.SCHEMA_UNSUPPORTED,
    ),
    "unknown_schema": (lambda name: b"\x82\xa6schema\xa4nope\xa7version\xa31.0", FailureCode.SCHEMA_UNSUPPORTED),
}


@on_both
def test_what_is_no_audio_payload_is_refused_by_the_bridge(
    working_system: System, backend: MqttBackend, record_property: Callable[[str, object], None]
) -> None:
    slowest_s = 0.0
    for name, (make, code) in REFUSED_AT_THE_DOOR.items():
        began_s = time.monotonic()
        backend.publish(TOPICS.audio(name), make(name))
        failures: list[JobFailure] = wait_until(partial(working_system.failures, name), f"the failure of {name}")
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        assert [failure.code for failure in failures] == [code], name
        assert len(failures[0].message) > 20, "a failure must say what to do"
        receipts = wait_until(partial(backend.seen, Accepted, name), f"the receipt of {name}")
        assert receipts[-1].verdict is Verdict.REFUSED
    record_property("slowest_refusal_s", round(slowest_s, 3))
    _next_job_runs(backend, "after-refusals")


BROKEN_FILES = {
    "header_only": (lambda: _whole_call()[:40], FailureCode.AUDIO_UNDECODABLE),
    "no_samples": (lambda: make_wav(b"", 16_000), FailureCode.AUDIO_EMPTY),
    "noise_behind_the_magic": (lambda: b"fLaC" + bytes(range(256)) * 40, FailureCode.AUDIO_UNDECODABLE),
}


@on_both
def test_a_broken_file_fails_its_job_for_good_and_the_next_runs(working_system: System, backend: MqttBackend) -> None:
    for name, (make, code) in BROKEN_FILES.items():
        receipt = backend.audio(name, make(), encoding="auto")
        assert receipt is not None
        assert receipt.verdict is Verdict.ACCEPTED, "header and size look right, and the bridge does not decode"
        backend.event(name, EventType.COMPLETED, chunks=1)
        by_agent = wait_until(partial(_failures_of_agents, working_system, name), f"the failure of {name}")
        assert {failure.code for failure in by_agent} == {code}
        update = backend.updated(name)
        assert update.failed_jobs == 1
        assert update.speakers == 0
    _next_job_runs(backend, "after-broken-files")
    assert working_system.watcher.seen(AgentHeartbeat)[-1].state == "online"


def _thrice(name: str) -> tuple[list[TranscriptSegment], dict[str, str]]:
    """Return the lines of the sample call three times after each other, and who says which."""
    segments, true = sample_segments(name)
    moves = [(turn, 30 * turn, line) for turn in range(3) for line in segments]
    return [
        line.model_copy(update={"id": f"{line.id}-{turn}", "start_s": line.start_s + by_s, "end_s": line.end_s + by_s})
        for turn, by_s, line in moves
    ], true


@on_mosquitto
@pytest.mark.parametrize(
    "stated",
    [
        pytest.param({"duration_s": 5.0}, id="length stated"),
        pytest.param({}, id="length unknown", marks=pytest.mark.slow),  # its rule: labelling/test_lost_chunks.py
    ],
)
def test_a_chunk_that_cannot_be_decoded_costs_no_other_chunk_its_labels_and_leaves_a_trace(
    working_system: System, backend: MqttBackend, stated: dict[str, Any]
) -> None:
    """Its five seconds have no label; before and behind it, every line is right or as it was; none is wrong."""
    name = f"one-bad-{len(stated)}"
    samples, rate = read_wav(sample_folder() / "sample.wav")
    samples, size, bad = 3 * samples, 2 * 5 * rate, 4
    lines, true = _thrice(name)
    backend.event(name, EventType.STARTED)
    backend.event(name, EventType.SEGMENTS, revision=1, segments=lines)
    for place, start in enumerate(range(0, len(samples), size)):
        audio = make_wav(samples[start : start + size], rate)
        if place == bad:
            backend.audio(
                name, BROKEN_FILES["noise_behind_the_magic"][0](), chunk_id="damaged", sequence=place, **stated
            )
        else:
            backend.audio(name, audio, sequence=place, encoding="wav")
    backend.event(name, EventType.COMPLETED, chunks=18)
    update = backend.updated(name)
    assert (update.speakers, update.failed_jobs) == (2, 1)
    (failure,) = update.failures
    assert (failure.code, failure.message.partition(": ")[0]) == ("audio.undecodable", "chunk damaged")
    assert any(line.startswith("audio.undecodable: chunk damaged: ") for line in update.warnings), update.warnings
    assert any(line.startswith("audio.length_unknown: chunk damaged") for line in update.warnings) is not bool(stated)
    heard = [
        (true[line.id.rpartition("-")[0]], label.speaker)
        for line, label in zip(lines, update.segments, strict=True)
        if label.coverage and line.end_s - line.start_s >= 1.0
    ]
    assert len(set(heard)) == 2, update.segments
    assert len(heard) >= (20 if stated else 3), "of unknown length: nobody knows where what follows lies"
    failed = working_system.command("omi-bridge", "failed")
    assert "chunk damaged" in failed
    shown = working_system.show(name)
    assert shown["failures"] == [failure.model_dump()]


@on_mosquitto
def test_a_file_cut_short_gives_what_is_there(working_system: System, backend: MqttBackend) -> None:
    """A WAV with 30 s in its header and 20 s of samples: the result has the turns of 20 s and a warning."""
    audio = _whole_call()
    backend.audio("short", audio[: len(audio) * 2 // 3], encoding="wav")
    backend.event("short", EventType.COMPLETED, chunks=1)
    update = backend.updated("short")
    assert update.audio_s == pytest.approx(20.0, abs=0.5)
    assert any("truncated" in warning for warning in update.warnings), update.warnings


def _failures_of_agents(system: System, name: str) -> list[JobFailure]:
    return [failure for failure in system.failures(name) if failure.lease_id is not None]


def _next_job_runs(backend: MqttBackend, name: str) -> None:
    segments, _ = sample_segments(name)
    backend.event(name, EventType.STARTED)
    backend.event(name, EventType.SEGMENTS, revision=1, segments=segments)
    backend.audio(name, _whole_call(), encoding="wav")
    backend.event(name, EventType.COMPLETED, chunks=1)
    right, _ = count_right({label.id: label.speaker for label in backend.updated(name).segments}, name)
    assert right >= 12


@on_mosquitto
def test_audio_that_comes_after_the_chunk_marked_final_counts_all_the_same_and_its_receipt_says_so(
    working_system: System, backend: MqttBackend
) -> None:
    """`final` on the first of six chunks: the others open the conversation again, and every line is labelled."""
    samples, rate = read_wav(sample_folder() / "sample.wav")
    segments, _ = sample_segments("early-end")
    backend.event("early-end", EventType.STARTED)
    backend.event("early-end", EventType.SEGMENTS, revision=1, segments=segments)
    size = 2 * 5 * rate
    receipts = [
        backend.audio("early-end", make_wav(samples[start : start + size], rate), sequence=place, final=place == 0)
        for place, start in enumerate(range(0, len(samples), size))
    ]
    told = [receipt.message for receipt in receipts if receipt is not None and receipt.verdict is Verdict.ACCEPTED]
    assert (told[0], len(told)) == (None, 6)
    assert all(message is not None and "after the end" in message for message in told[1:])
    update = wait_until(
        lambda: next((found for found in backend.seen(ConversationUpdated, "early-end") if found.audio_s > 29), None),
        "the labels of all six",
    )
    right, _ = count_right({label.id: label.speaker for label in update.segments}, "early-end")
    assert right >= 12
    jobs = json.loads(working_system.command("omi-bridge", "jobs", "--json"))
    assert len([job for job in jobs if job["conversation_id"] == "early-end"]) == 2, "no chunk of 5 s stands alone"
