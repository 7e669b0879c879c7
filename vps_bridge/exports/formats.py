"""The formats that there are: how each is written, and what its file is called."""

from __future__ import annotations

from collections.abc import Callable

from vps_bridge.exports.export_format import ExportFormat
from vps_bridge.exports.records import ExportedConversation
from vps_bridge.exports.rttm import render_rttm
from vps_bridge.exports.subtitles import render_srt, render_vtt

MEDIA_TYPES = {
    ExportFormat.RTTM: "text/plain",
    ExportFormat.SRT: "application/x-subrip",
    ExportFormat.VTT: "text/vtt",
    ExportFormat.JSON: "application/json",
}


def _render_json(conversation: ExportedConversation) -> str:
    return conversation.model_dump_json(indent=2) + "\n"


_RENDER: dict[ExportFormat, Callable[[ExportedConversation], str]] = {
    ExportFormat.RTTM: render_rttm,
    ExportFormat.SRT: render_srt,
    ExportFormat.VTT: render_vtt,
    ExportFormat.JSON: _render_json,
}


def render_export(conversation: ExportedConversation, form: ExportFormat) -> str:
    """Return the file's text."""
    return _RENDER[form](conversation)


def file_name(conversation_id: str, form: ExportFormat) -> str:
    """Return what a download is called; an id has no character that a file name may not have."""
    return f"{conversation_id}.{form}"
