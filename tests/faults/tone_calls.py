"""Calls made of tones, whose labels are known in advance: the tone engine takes each pitch for a voice."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from schemas.conversation import Accepted, ConversationUpdated, EventType, TranscriptSegment
from tests.mac_agent.sounds import as_wav, tone
from tests.vps_bridge.live_bridge import TOPICS, Backend, part_payload

STARTED_AT = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
TURN_S = 4.0
PART_BYTES = 1_000_000
TWO_VOICES = (300, 700) * 3


def call_audio(pitches: Sequence[int] = TWO_VOICES) -> bytes:
    """Return a WAV with four seconds of each pitch."""
    return as_wav(np.concatenate([tone(pitch, TURN_S) for pitch in pitches]))


def begin_call(backend: Backend, conversation_id: str, pitches: Sequence[int] = TWO_VOICES) -> None:
    """Send the start of a call, and a transcript with the same wrong speaker in every segment."""
    segments = tuple(
        TranscriptSegment(
            id=f"{conversation_id}-{turn}", start_s=TURN_S * turn, end_s=TURN_S * (turn + 1), text="word", speaker="X"
        )
        for turn in range(len(pitches))
    )
    backend.event(conversation_id, EventType.STARTED, started_at=STARTED_AT)
    backend.event(conversation_id, EventType.SEGMENTS, segments=segments)


def send_call(backend: Backend, conversation_id: str, pitches: Sequence[int] = TWO_VOICES) -> Accepted:
    """Send a whole call: started, segments, one chunk (in parts), completed."""
    begin_call(backend, conversation_id, pitches)
    audio, chunk_id = call_audio(pitches), f"c-{uuid.uuid4().hex}"
    for start in range(0, len(audio), PART_BYTES):
        part = part_payload(conversation_id, audio, start, min(start + PART_BYTES, len(audio)), chunk_id=chunk_id)
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
