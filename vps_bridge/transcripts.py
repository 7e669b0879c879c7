"""Transcript files for `omi-bridge import`: JSON segments as the OMI backend has them, or STM."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.conversation import TranscriptSegment


def read_transcript(
    path: Path, conversation_id: str, *, keep_speakers: bool = True
) -> tuple[TranscriptSegment, ...]:
    """Read the segments of a transcript file: `.stm`, else JSON."""
    raise NotImplementedError
