"""The names of the formats; apart from their writers, so that a command can name them at once."""

from __future__ import annotations

from enum import StrEnum


class ExportFormat(StrEnum):
    """A format, and the ending of its files."""

    RTTM = "rttm"
    """Turns, for tools that measure or train."""
    SRT = "srt"
    """Subtitles that every player takes."""
    VTT = "vtt"
    """Subtitles of web pages, with speakers as the format has them."""
    JSON = "json"
    """Everything, for programs."""
