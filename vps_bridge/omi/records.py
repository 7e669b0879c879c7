"""Records of the capture log: what one POST brought, behind a header of fixed length with a checksum over both."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass

_MAGIC = b"OMC1"
_FIELDS = struct.Struct("<4sB3xIdQI16s16s")  # magic, kind, rate, arrival, position, length, user, key
_CHECKSUM = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CHECKSUM.size
ERASED, AUDIO, SEGMENTS = 0, 1, 2
"""Kinds of records: audio or words that were erased, audio, live segments as JSON."""
NO_KEY = bytes(16)
NOBODY = bytes(16)


@dataclass(frozen=True)
class RecordHeader:
    """What stands before the bytes of a record."""

    kind: int
    sample_rate: int
    arrived_at: float
    """Unix time."""
    position: int
    """Audio: which byte of the user's whole stream is the first one here."""
    length: int
    """Bytes behind the header."""
    user: bytes
    """`hash_name` of the user."""
    key: bytes
    """`hash_key` of the Idempotency-Key, or `NO_KEY`."""

    @property
    def end(self) -> int:
        """The position behind the last byte."""
        return self.position + self.length


def hash_name(name: str) -> bytes:
    """Return a user's id in the fixed length that a header has for it."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def hash_key(key: str, body: bytes) -> bytes:
    """Return an Idempotency-Key in that length, with what it was sent with.

    A sender that uses a key again for other audio loses none of it: only the same bytes are the same audio.
    """
    return hashlib.blake2b(body, digest_size=16, key=hash_name(key)).digest()


def pack_header(header: RecordHeader, payload: bytes) -> bytes:
    """Return the bytes of a header, with the checksum over them and the payload."""
    fields = _FIELDS.pack(
        _MAGIC,
        header.kind,
        header.sample_rate,
        header.arrived_at,
        header.position,
        header.length,
        header.user,
        header.key,
    )
    return fields + _CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(fields)))


def unpack_header(data: bytes) -> RecordHeader | None:
    """Return the header; None where these bytes are none."""
    if len(data) < HEADER_BYTES:
        return None
    magic, *fields = _FIELDS.unpack_from(data)
    return RecordHeader(*fields) if magic == _MAGIC else None


def is_whole(header: bytes, payload: bytes) -> bool:
    """Whether header and payload have the checksum that the header states."""
    stated: int = _CHECKSUM.unpack_from(header, _FIELDS.size)[0]
    return zlib.crc32(payload, zlib.crc32(header[: _FIELDS.size])) == stated
