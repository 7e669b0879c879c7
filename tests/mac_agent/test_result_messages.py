from __future__ import annotations

import math

import numpy as np
import pytest

from mac_agent.audio import JoinedChunk, Quality
from mac_agent.engines.engine import Diarization, EngineInfo, SpeakerEvidence, Turn
from mac_agent.inference import JobResult
from mac_agent.result import to_job_failure, to_speaker_turns
from schemas.agent import AgentControl, ControlType, OfferedChunk
from schemas.codec import decode, encode
from schemas.failure import FailureCode
from schemas.turns import MAX_TURNS, SpeakerTurns

OFFER = AgentControl(
    type=ControlType.OFFER,
    ledger_id="ledger-1",
    job_id="job-1",
    lease_id="lease-1",
    conversation_id="conversation-1",
    attempt=3,
    chunks=(OfferedChunk(chunk_id="c-1", bytes=10, sha256="a" * 64, encoding="wav"),),
)


def result(turns=(), speakers=(), *, timings=None, warnings=(), quality=None) -> JobResult:
    found = Diarization(tuple(turns), tuple(turns), tuple(speakers), 1.0, {}, ())
    return JobResult(
        token=1,
        info=EngineInfo("e", "m", "r", "cpu", "full", "em", "er"),
        duration_s=60.0,
        placed=(JoinedChunk(0.0, 60.0),),
        diarization=found,
        quality=quality or Quality(0.5, 0.0, -20.0),
        timings_ms=timings or {},
        warnings=tuple(warnings),
    )


def over_the_wire(made: JobResult) -> SpeakerTurns:
    return decode(SpeakerTurns, encode(to_speaker_turns(OFFER, "lease-2", "studio", made)))


def test_a_result_names_its_job_lease_attempt_and_engine():
    turns = over_the_wire(result([Turn(1.0, 2.5, "SPEAKER_00")]))
    assert (turns.job_id, turns.lease_id, turns.attempt, turns.agent_id) == ("job-1", "lease-2", 3, "studio")
    assert (turns.engine.embedding_model, turns.engine.embedding_revision) == ("em", "er")
    assert [(turn.start_s, turn.end_s, turn.speaker) for turn in turns.turns] == [(1.0, 2.5, "SPEAKER_00")]
    assert [(span.chunk_id, span.start_s, span.duration_s) for span in turns.chunks] == [("c-1", 0.0, 60.0)]


def test_silence_is_a_result():
    turns = over_the_wire(result())
    assert (turns.turns, turns.exclusive_turns, turns.speakers) == ((), (), ())


def test_an_embedding_travels_as_a_unit_vector_of_little_endian_float32():
    voice = SpeakerEvidence("SPEAKER_00", 4.0, np.array([3.0, 4.0], dtype=np.float32))
    sent = over_the_wire(result(speakers=[voice])).speakers[0]
    assert sent.embedding is not None
    assert np.frombuffer(sent.embedding, dtype="<f4") == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("vector", [None, [math.nan, 1.0], [math.inf, 1.0], [0.0, 0.0], [], [0.1] * 5000])
def test_an_embedding_that_cannot_be_trusted_is_left_out(vector):
    embedding = None if vector is None else np.array(vector, dtype=np.float32)
    sent = over_the_wire(result(speakers=[SpeakerEvidence("SPEAKER_00", math.nan, embedding)])).speakers[0]
    assert sent.embedding is None
    assert sent.clean_speech_s == 0.0


def test_numbers_that_are_none_never_leave():
    turns = over_the_wire(
        result(
            [Turn(math.nan, 1.0, "A"), Turn(0.0, math.inf, "B"), Turn(-1.0, 2.0, "C"), Turn(59.0, 61.0, "D")],
            timings={"listen": math.inf, "total": math.nan},
            quality=Quality(math.inf, math.nan, -math.inf),
        )
    )
    assert [(turn.start_s, turn.end_s, turn.speaker) for turn in turns.turns] == [(0.0, 2.0, "C"), (59.0, 60.0, "D")]
    assert turns.timings_ms == {"listen": 0.0, "total": 0.0}
    assert (turns.quality.peak, turns.quality.clipped_ratio, turns.quality.rms_dbfs) == (0.0, 0.0, -400.0)


def test_too_many_turns_are_cut_and_the_cut_is_told():
    many = [Turn(index * 0.001, index * 0.001 + 0.0005, "A") for index in range(MAX_TURNS + 5)]
    sent = to_speaker_turns(OFFER, "lease-1", "studio", result(many, warnings=["audio.truncated"] * 60))
    assert len(sent.turns) == MAX_TURNS
    assert sent.warnings[0] == "turns.truncated"


@pytest.mark.parametrize(
    ("code", "retryable"),
    [
        (FailureCode.ENGINE_CRASHED, True),
        (FailureCode.ENGINE_TIMEOUT, True),
        (FailureCode.PAYLOAD_SHA256_MISMATCH, True),
        (FailureCode.DISK_FULL, True),
        (FailureCode.AUDIO_EMPTY, False),
        (FailureCode.AUDIO_UNDECODABLE, False),
        (FailureCode.AUDIO_TOO_LONG, False),
        (FailureCode.INGEST_TOO_LARGE, False),
    ],
)
def test_only_what_another_attempt_may_cure_is_retryable(code, retryable):
    failure = to_job_failure(OFFER, "lease-1", code, "what to do", 0)
    assert (failure.retryable, failure.chunk_id, failure.sha256, failure.attempt) == (retryable, "c-1", "a" * 64, 3)


def test_of_more_speakers_than_a_message_holds_the_rest_is_left_out_with_its_turns():
    many = [Turn(0.1 * n, 0.1 * n + 0.05, f"S{n}") for n in range(150)]
    sent = to_speaker_turns(OFFER, "lease-1", "studio", result(many))
    assert len({turn.speaker for turn in sent.turns}) == len(sent.exclusive_turns) == 100
    assert "turns.truncated" in sent.warnings
