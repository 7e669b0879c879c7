"""Calls made of tones, whose labels are known in advance: the tone engine takes each pitch for a voice."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence

import numpy as np

from schemas.conversation import Accepted, ConversationUpdated, EventType, TranscriptSegment
from tests.mac_agent.sounds import as_wav, tone
from tests.vps_bridge.live_bridge import TOPICS, Backend, part_payload

TURN_S = 4.0
SAMPLE_RATE_HZ = 16_000
PART_BYTES = 1_000_000
TWO_VOICES = (300, 700) * 3


def spoken_spans(turns: int) -> list[tuple[float, float]]:
    """Return when somebody speaks: once in each four seconds, between pauses of which no two follow each other alike.

    So audio and transcript fit each other in one way only, as those of people do.
    """
    draw = random.Random(turns)
    return [
        (TURN_S * turn + draw.uniform(0.1, 1.2), TURN_S * (turn + 1) - draw.uniform(0.1, 1.2)) for turn in range(turns)
    ]


def call_audio(pitches: Sequence[int] = TWO_VOICES) -> bytes:
    """Return a WAV in which each pitch has four seconds, pauses with them."""
    audio = np.zeros(round(TURN_S * len(pitches) * SAMPLE_RATE_HZ), dtype=np.float32)
    for pitch, (start_s, end_s) in zip(pitches, spoken_spans(len(pitches)), strict=True):
        spoken = tone(pitch, end_s - start_s)
        audio[round(start_s * SAMPLE_RATE_HZ) :][: len(spoken)] = spoken
    return as_wav(audio)


def call_segments(conversation_id: str, pitches: Sequence[int] = TWO_VOICES) -> tuple[TranscriptSegment, ...]:
    """Return a transcript with the same wrong speaker in every segment."""
    return tuple(
        TranscriptSegment(id=f"{conversation_id}-{turn}", start_s=start_s, end_s=end_s, text="word", speaker="X")
        for turn, (start_s, end_s) in enumerate(spoken_spans(len(pitches)))
    )


def begin_call(backend: Backend, conversation_id: str, pitches: Sequence[int] = TWO_VOICES) -> None:
    """Send the start of a call, and its transcript."""
    backend.event(conversation_id, EventType.STARTED)
    backend.event(conversation_id, EventType.SEGMENTS, segments=call_segments(conversation_id, pitches))


def send_call(backend: Backend, conversation_id: str, pitches: Sequence[int] = TWO_VOICES) -> Accepted:
    """Send a whole call: started, segments, one chunk (in parts), completed."""
    begin_call(backend, conversation_id, pitches)
    audio, chunk_id = call_audio(pitches), f"c-{uuid.uuid4().hex}"
    for start in range(0, len(audio), PART_BYTES):
        end = min(start + PART_BYTES, len(audio))
        part = part_payload(conversation_id, audio, start, end, chunk_id=chunk_id)
        backend.publish(TOPICS.audio(conversation_id), part)
    receipt = backend.wait_receipt(conversation_id, chunk_id=chunk_id)
    backend.event(conversation_id, EventType.COMPLETED, chunks=1)
    return receipt


def assert_labelled(update: ConversationUpdated, pitches: Sequence[int] = TWO_VOICES) -> None:
    """Check that each pitch has its own label, and every segment the label of its pitch."""
    assert update.failed_jobs == 0
    labels = [label.speaker for label in update.segments]
    assert len(labels) == len(pitches)
    first = {pitch: labels[pitches.index(pitch)] for pitch in pitches}
    assert len(set(first.values())) == len(first)
    assert labels == [first[pitch] for pitch in pitches]
