"""Chunks that arrive in parts. A chunk is not accepted until it is complete."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import structlog

from schemas.audio import AudioPayload
from schemas.failure import FailureCode
from vps_bridge.errors import Refusal

_LOG = structlog.get_logger(__name__)
INCOMING = "incoming"  # below the bridge's root
PARTIAL_LIFE_S = 600.0
MAX_PARTIALS = 64


class PartialChunk:
    """The file of one chunk that is arriving in parts."""

    def __init__(self, path: Path, total_bytes: int) -> None:
        """Start an empty file for `total_bytes` bytes."""
        self.path = path
        self.total_bytes = total_bytes
        self._received: dict[int, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def add(self, byte_offset: int, part: bytes) -> bool:
        """Write one part at its place and return whether the chunk is complete. A part may come twice."""
        with self.path.open("r+b") as file:
            file.seek(byte_offset)
            file.write(part)
        self._received[byte_offset] = max(len(part), self._received.get(byte_offset, 0))
        return self._covered_bytes() >= self.total_bytes

    def _covered_bytes(self) -> int:
        """Return how many bytes from the start have been received without a gap."""
        reach = 0
        for start in sorted(self._received):
            if start > reach:
                break
            reach = max(reach, start + self._received[start])
        return reach

    def sha256(self) -> str:
        """Return the hash of what was received."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def discard(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


@dataclass
class _Reception:
    """A chunk that is arriving, the hash its parts state, and when the latest part came (monotonic seconds)."""

    chunk: PartialChunk
    sha256: str
    last_part_s: float


class PartialChunks:
    """All chunks that are arriving in parts; parts come in any order and may repeat.

    Methods raise `OSError` when the disk does.
    """

    def __init__(self, directory: Path) -> None:
        """Start with none, and delete what an earlier run left: none of it was accepted."""
        self._directory = directory
        self._receptions: dict[tuple[str, str], _Reception] = {}
        for stray in directory.glob("*") if directory.exists() else ():
            stray.unlink()

    @property
    def reserved_bytes(self) -> int:
        """How large the chunks that are arriving will be together."""
        return sum(reception.chunk.total_bytes for reception in self._receptions.values())

    def knows(self, conversation_id: str, chunk_id: str) -> bool:
        """Whether a part of this chunk has come before."""
        return (conversation_id, chunk_id) in self._receptions

    def add(self, conversation_id: str, chunk_id: str, part: AudioPayload, now_s: float) -> PartialChunk | None:
        """Take a part. Return the chunk once it is complete and has its sha256; it is the caller's from then on.

        A part that does not have its own sha256 is ignored: the publisher sends it again when its timer runs out.

        Raises:
            Refusal: the part belongs to other audio than the first, or the complete chunk has another sha256.
        """
        if hashlib.sha256(part.audio).hexdigest() != part.part_sha256:
            _LOG.warning("part_corrupt", conversation=conversation_id, chunk=chunk_id, offset=part.byte_offset)
            return None
        key = (conversation_id, chunk_id)
        reception = self._receptions.get(key) or self._begin(key, part)
        if (reception.sha256, reception.chunk.total_bytes) != (part.sha256, part.total_bytes):
            msg = f"parts of chunk {chunk_id} name different audio: give new audio a new chunk_id"
            raise Refusal(FailureCode.CHUNK_ID_CONFLICT, msg)
        reception.last_part_s = now_s
        if not reception.chunk.add(part.byte_offset, part.audio):
            return None
        del self._receptions[key]
        if reception.chunk.sha256() != part.sha256:
            reception.chunk.discard()
            msg = "the parts do not add up to the sha256 they name: publish the chunk again"
            raise Refusal(FailureCode.PAYLOAD_SHA256_MISMATCH, msg)
        return reception.chunk

    def _begin(self, key: tuple[str, str], part: AudioPayload) -> _Reception:
        if len(self._receptions) >= MAX_PARTIALS:
            raise Refusal(FailureCode.INGEST_FULL, "too many chunks arrive in parts: try later")
        chunk = PartialChunk(self._directory / secrets.token_hex(16), part.total_bytes or 0)
        self._receptions[key] = _Reception(chunk, part.sha256, 0.0)
        return self._receptions[key]

    def write_whole(self, audio: bytes) -> Path:
        """Write a chunk that came as a whole beside those in parts; what is left of it, the next start deletes."""
        path = self._directory / secrets.token_hex(16)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(audio)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path

    def discard(self, conversation_id: str) -> None:
        """Delete the unfinished chunks of a conversation."""
        for key in [key for key in self._receptions if key[0] == conversation_id]:
            self._receptions.pop(key).chunk.discard()

    def drop_stale(self, now_s: float) -> None:
        """Delete chunks whose parts stopped coming; their publisher still has them and sends them again."""
        for key, reception in list(self._receptions.items()):
            if now_s - reception.last_part_s > PARTIAL_LIFE_S:
                _LOG.warning("parts_dropped", conversation=key[0], chunk=key[1])
                self._receptions.pop(key).chunk.discard()
