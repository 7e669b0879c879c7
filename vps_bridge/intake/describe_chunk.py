"""What the ledger is to know of a chunk that the spool has: its kind and its length, as its bytes tell."""

from __future__ import annotations

from pathlib import Path

from schemas.audio import RAW_ENCODINGS
from schemas.audio_container import CONTAINER_NAMES
from schemas.failure import FailureCode
from vps_bridge.errors import Refusal
from vps_bridge.intake.audio_length import has_magic, is_raw, measure_length, raw_duration_s, recognise
from vps_bridge.intake.measured_length import AudioLength
from vps_bridge.intake.unaccepted_chunk import UnacceptedChunk
from vps_bridge.ledger.records import NewChunk


def describe_chunk(chunk: UnacceptedChunk, name: str, path: Path) -> NewChunk:
    """Return the description of a chunk of this name in the spool. Raises `OSError`, and `Refusal` where it is none."""
    description = chunk.description
    encoding = description.encoding
    if is_raw(encoding) and has_magic(path):
        encoding = "auto"  # samples that begin as a file does are a file: read as samples its voices would be noise
    if is_raw(encoding):
        rate, channels = description.sample_rate or 1, description.channels or 1
        length = AudioLength(raw_duration_s(encoding, chunk.bytes, rate, channels))
    else:
        found = recognise(path)
        if found is None:
            raise Refusal(FailureCode.AUDIO_UNDECODABLE, _describe_unknown(encoding))
        encoding = found.name
        length = measure_length(path, found, description.duration_s)
    return NewChunk(
        conversation_id=chunk.conversation_id,
        chunk_id=chunk.chunk_id,
        sha256=chunk.sha256,
        bytes=chunk.bytes,
        spool_name=name,
        encoding=encoding,
        sequence=description.sequence,
        captured_at_s=description.captured_at.timestamp() if description.captured_at else None,
        captured_error_s=description.captured_error_s,
        sample_rate=description.sample_rate,
        channels=description.channels,
        duration_s=length.duration_s,
        duration_estimated=length.is_estimated,
    )


def _describe_unknown(encoding: str) -> str:
    named = "no raw encoding is named" if encoding == "auto" else f"{encoding} is no raw encoding"
    return (
        f"the bytes do not begin as a file of {CONTAINER_NAMES} does, and {named}: publish one of these, each with its "
        f"beginning, or samples as {', '.join(RAW_ENCODINGS)}"
    )
