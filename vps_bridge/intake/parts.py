"""Chunks that arrive in parts. Nothing of them is promised to anybody until they are whole."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

import structlog

from schemas.audio import AudioPayload
from schemas.failure import FailureCode
from vps_bridge.errors import Refusal
from vps_bridge.intake.spool import PartialChunk

_LOG = structlog.get_logger(__name__)
INCOMING = "incoming"  # below the bridge's root
PARTIAL_LIFE_S = 600.0
MAX_PARTIALS = 64


@dataclass
class _Arrival:
    chunk: PartialChunk
    sha256: str
    touched_s: float


class PartialChunks:
    """The parts that have come, in any order and more than once. Methods raise `OSError` when the disk does."""

    def __init__(self, directory: Path) -> None:
        """Start with nothing: what an earlier run left here was promised to nobody."""
        self._directory = directory
        self._arriving: dict[tuple[str, str], _Arrival] = {}
        for stray in directory.glob("*") if directory.exists() else ():
            stray.unlink()

    @property
    def reserved_bytes(self) -> int:
        """How large the chunks that are arriving will be together."""
        return sum(arrival.chunk.total_bytes for arrival in self._arriving.values())

    def knows(self, conversation_id: str, chunk_id: str) -> bool:
        """Whether a part of this chunk has come before."""
        return (conversation_id, chunk_id) in self._arriving

    def add(self, conversation_id: str, chunk_id: str, part: AudioPayload, now_s: float) -> PartialChunk | None:
        """Take a part. Return the chunk once it is whole and has its sha256; it is the caller's from then on.

        A part that does not have its own sha256 is passed over: the publisher's timer sends it again.

        Raises:
            Refusal: the part is of other audio than the first, or the parts do not add up.
        """
        if hashlib.sha256(part.audio).hexdigest() != part.part_sha256:
            _LOG.warning("part_corrupt", conversation=conversation_id, chunk=chunk_id, offset=part.byte_offset)
            return None
        key = (conversation_id, chunk_id)
        arrival = self._arriving.get(key) or self._begin(key, part)
        if (arrival.sha256, arrival.chunk.total_bytes) != (part.sha256, part.total_bytes):
            msg = f"parts of chunk {chunk_id} name different audio: give new audio a new chunk_id"
            raise Refusal(FailureCode.CHUNK_ID_CONFLICT, msg)
        arrival.touched_s = now_s
        if not arrival.chunk.add(part.byte_offset, part.audio):
            return None
        del self._arriving[key]
        if arrival.chunk.sha256() != part.sha256:
            arrival.chunk.discard()
            msg = "the parts do not add up to the sha256 they name: publish the chunk again"
            raise Refusal(FailureCode.PAYLOAD_SHA256_MISMATCH, msg, retryable=True)
        return arrival.chunk

    def _begin(self, key: tuple[str, str], part: AudioPayload) -> _Arrival:
        if len(self._arriving) >= MAX_PARTIALS:
            raise Refusal(FailureCode.INGEST_FULL, "too many chunks arrive in parts: try later", retryable=True)
        chunk = PartialChunk(self._directory / secrets.token_hex(16), part.total_bytes or 0)
        self._arriving[key] = _Arrival(chunk, part.sha256, 0.0)
        return self._arriving[key]

    def discard(self, conversation_id: str) -> None:
        """Unlink what has come for a conversation."""
        for key in [key for key in self._arriving if key[0] == conversation_id]:
            self._arriving.pop(key).chunk.discard()

    def drop_stale(self, now_s: float) -> None:
        """Forget chunks whose parts stopped coming; their publisher still has them and sends them again."""
        for key, arrival in list(self._arriving.items()):
            if now_s - arrival.touched_s > PARTIAL_LIFE_S:
                _LOG.warning("parts_dropped", conversation=key[0], chunk=key[1])
                self._arriving.pop(key).chunk.discard()
