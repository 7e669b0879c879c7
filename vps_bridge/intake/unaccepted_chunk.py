"""A chunk before it is accepted: its id, and what is refused at first sight."""

from __future__ import annotations

import secrets

from schemas.audio import AudioPayload, ChunkDescription
from schemas.failure import FailureCode
from vps_bridge.errors import Refusal
from vps_bridge.intake.upload import check_size


class UnacceptedChunk:
    """A chunk that a publisher sends, over MQTT or HTTP."""

    def __init__(self, conversation_id: str, sha256: str, size_bytes: int, description: ChunkDescription) -> None:
        """Choose an id for it, if its publisher did not."""
        self.conversation_id, self.sha256, self.bytes = conversation_id, sha256, size_bytes
        self.description = description
        self.chunk_id = description.chunk_id or _default_chunk_id(description, sha256)


def check_bytes(size_bytes: int, max_bytes: int) -> None:
    """Raise `Refusal` where a chunk is empty, or larger than is accepted."""
    if size_bytes == 0:
        raise Refusal(FailureCode.AUDIO_EMPTY, "the chunk holds no bytes: publish at least one sample")
    check_size(size_bytes, max_bytes)


def total_bytes(payload: AudioPayload) -> int:
    """Return how large the chunk is that a payload is, or is a part of."""
    return len(payload.audio) if payload.total_bytes is None else payload.total_bytes


def wrong_sha256() -> Refusal:
    """Return what to tell who sent audio that is not what it says."""
    msg = "the audio does not have the sha256 it names: publish the chunk again"
    return Refusal(FailureCode.PAYLOAD_SHA256_MISMATCH, msg)


def new_chunk_id() -> str:
    """Return an id for a chunk that has none."""
    return f"b-{secrets.token_hex(12)}"


def _default_chunk_id(description: ChunkDescription, sha256: str) -> str:
    if description.sequence is not None:
        return f"s-{description.sequence}"
    if description.captured_at is not None:
        return f"t-{round(description.captured_at.timestamp() * 1000)}-{sha256[:16]}"
    return new_chunk_id()
