"""The path under /v1 by which a conversation is downloaded as a file."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query, Response

from vps_bridge.conversations.store import ConversationStore
from vps_bridge.exports.export_format import ExportFormat
from vps_bridge.exports.formats import MEDIA_TYPES, file_name, render_export
from vps_bridge.exports.gather import gather_export
from vps_bridge.exports.records import ExportedConversation
from vps_bridge.http.messages import HttpProblem, Problem
from vps_bridge.http.own_connection import OwnConnection
from vps_bridge.http.routes import ConversationId, answers
from vps_bridge.ledger import Ledger

_TEXT = {"schema": {"type": "string"}}
_FILE = {
    "description": "The file.",
    "content": {kind: _TEXT for form, kind in MEDIA_TYPES.items() if form is not ExportFormat.JSON},
    "headers": {"Content-Disposition": {"description": "The file's name.", "schema": {"type": "string"}}},
}


def add_export_routes(app: FastAPI, connection: OwnConnection) -> None:
    """Add the path."""

    @app.get(
        "/v1/conversations/{conversation_id}/export",
        response_model=ExportedConversation,
        responses={200: _FILE, **answers((401, 403, 404, 422, 500, 503), Problem)},
    )
    async def export(
        conversation_id: ConversationId,
        form: Annotated[ExportFormat, Query(alias="format", description="JSON holds everything.")] = ExportFormat.JSON,
    ) -> Response:
        """Send who spoke when, and what, as a file: RTTM, SRT, WebVTT or JSON."""

        def render(ledger: Ledger, store: ConversationStore) -> str | None:
            found = gather_export(conversation_id, ledger, store)
            return render_export(found, form) if found is not None else None

        text = await connection.use(render)
        if text is None:
            raise HttpProblem(404, "conversation.unknown", "no such conversation: it was never heard of, or is deleted")
        name = f'attachment; filename="{file_name(conversation_id, form)}"'
        return Response(text, media_type=MEDIA_TYPES[form], headers={"Content-Disposition": name})
