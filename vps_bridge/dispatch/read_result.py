"""Reading a result: what an agent sent of a job, as it was received and as the ledger keeps it."""

from __future__ import annotations

from functools import lru_cache

from schemas.codec import decode
from schemas.turns import SpeakerTurns

_KEPT, _KEPT_BYTES = 8, 64_000  # so a few megabytes at most


def read_result(data: bytes) -> SpeakerTurns:
    """Decode a result. Raises `SchemaError`.

    The last few small ones are kept: a result is labelled right after it was stored, and need not be decoded again.
    """
    return _read_kept(data) if len(data) <= _KEPT_BYTES else decode(SpeakerTurns, data)


@lru_cache(maxsize=_KEPT)
def _read_kept(data: bytes) -> SpeakerTurns:
    return decode(SpeakerTurns, data)
