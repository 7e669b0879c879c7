"""The paths under /v1 by which programs and the page read, and try failed work again or give it up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from schemas.record import ID_PATTERN
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.dispatch.operator_answers import CANCEL_REFUSED, RETRY_REFUSED, SAID, work_labels_out_again
from vps_bridge.http.changes import Changes
from vps_bridge.http.messages import HttpProblem, Problem
from vps_bridge.http.own_connection import OwnConnection
from vps_bridge.http.reading import (
    list_agents,
    list_conversations,
    list_jobs,
    read_conversation,
    read_status,
    read_webhook,
)
from vps_bridge.http.reading_records import (
    AgentPage,
    BridgeStatus,
    ConversationDetail,
    ConversationPage,
    JobAction,
    JobPage,
    WebhookStatus,
)
from vps_bridge.http.routes import ConversationId, answers
from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.operator_actions import ActionResult
from vps_bridge.ledger.records import ConversationState

JobId = Annotated[str, Path(pattern=ID_PATTERN)]
_READ_CODES = (401, 403, 422, 500, 503)
UNKNOWN_CONVERSATION = "no such conversation: it was never heard of, or is deleted"


Captured = Callable[[], CaptureCounts | None]


def add_reading_routes(
    app: FastAPI, connection: OwnConnection, changes: Changes, captured: Captured, *, stale_s: float
) -> None:
    """Add the paths; an agent silent for `stale_s` is taken for dead, `captured` returns what came of OMI."""
    _add_conversations(app, connection, stale_s)
    _add_operation(app, connection, captured, stale_s)
    _add_actions(app, connection, changes)

    told: dict[int | str, dict[str, Any]] = {
        200: {"description": "Until ten minutes have passed.", "content": {"text/event-stream": {}}}
    }

    @app.get("/v1/changes", response_class=StreamingResponse, responses={**told, **answers(_READ_CODES, Problem)})
    async def listen() -> StreamingResponse:
        """Tell of changes as server-sent events named `changed`, each a ChangeNotice; ends after ten minutes."""
        return StreamingResponse(changes.listen(), media_type="text/event-stream")


def _add_conversations(app: FastAPI, connection: OwnConnection, stale_s: float) -> None:
    @app.get("/v1/conversations", response_model=ConversationPage, responses=answers(_READ_CODES, Problem))
    async def conversations(
        search: Annotated[str, Query(max_length=200, description="Part of an id, or of a person's.")] = "",
        state: ConversationState | None = None,
        waits_for: Annotated[str, Query(max_length=200, description="Part of what it waits for.")] = "",
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Response:
        """List the conversations, the one that something happened to last first."""
        page = {"search": search, "state": state, "waits_for": waits_for, "offset": offset, "limit": limit}
        return await _read(connection, lambda ledger, _: list_conversations(ledger, stale_s=stale_s, **page))  # type: ignore[arg-type] # a mapping of mixed values

    @app.get(
        "/v1/conversations/{conversation_id}",
        response_model=ConversationDetail,
        responses=answers((*_READ_CODES, 404), Problem),
    )
    async def conversation(conversation_id: ConversationId) -> Response:
        """Say who speaks in a conversation: its voices, segments and turns, and what is wrong."""
        return await _read(connection, partial(read_conversation, conversation_id, stale_s=stale_s))


def _add_operation(app: FastAPI, connection: OwnConnection, captured: Captured, stale_s: float) -> None:
    @app.get("/v1/jobs", response_model=JobPage, responses=answers(_READ_CODES, Problem))
    async def jobs(
        state: JobState | None = None,
        conversation_id: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> Response:
        """List the latest jobs, of one state or one conversation where that is said."""
        wanted = {"state": state, "conversation_id": conversation_id, "limit": limit}
        return await _read(connection, lambda ledger, _: list_jobs(ledger, **wanted))  # type: ignore[arg-type] # a mapping of mixed values

    @app.get("/v1/agents", response_model=AgentPage, responses=answers(_READ_CODES, Problem))
    async def agents() -> Response:
        """List the agents as their last heartbeats describe them."""
        return await _read(connection, lambda ledger, _: list_agents(ledger, stale_s=stale_s))

    @app.get("/v1/status", response_model=BridgeStatus, responses=answers(_READ_CODES, Problem))
    async def status() -> Response:
        """Say what waits, what failed and why, and how much room there is."""
        return await _read(connection, lambda ledger, _: read_status(ledger, captured()))

    @app.get("/v1/webhook", response_model=WebhookStatus, responses=answers(_READ_CODES, Problem))
    async def webhook() -> Response:
        """Say whether the webhook is on, how many of its messages wait, since when, and what its receiver did last."""
        return await _read(connection, lambda ledger, _: read_webhook(ledger))


def _add_actions(app: FastAPI, connection: OwnConnection, changes: Changes) -> None:
    codes = answers((*_READ_CODES, 404, 409), Problem)

    async def act(work: Callable[[Ledger], ActionResult], refused: tuple[ActionResult, ...]) -> ActionResult:
        outcome = await connection.use(lambda ledger, _: work(ledger))
        changes.look_soon()
        if outcome in refused:
            code = 404 if outcome is ActionResult.UNKNOWN else 409
            raise HttpProblem(code, f"job.{outcome}", f"it {SAID[outcome]}")
        return outcome

    @app.post("/v1/jobs/{job_id}/retry", responses=codes)
    async def retry(job_id: JobId) -> JobAction:
        """Let a failed job wait for an agent again, with all its attempts."""
        outcome = await act(lambda ledger: ledger.operator_actions.retry(job_id), RETRY_REFUSED)
        return JobAction(job_id=job_id, conversation_id=None, outcome=outcome, message=f"it {SAID[outcome]}")

    @app.post("/v1/jobs/{job_id}/cancel", responses=codes)
    async def cancel(job_id: JobId) -> JobAction:
        """Give a job up for good; a late result is discarded."""
        outcome = await act(lambda ledger: ledger.operator_actions.cancel(job_id), CANCEL_REFUSED)
        return JobAction(job_id=job_id, conversation_id=None, outcome=outcome, message=f"it {SAID[outcome]}")

    @app.post("/v1/conversations/{conversation_id}/retry", responses=codes)
    async def retry_conversation(conversation_id: ConversationId) -> JobAction:
        """Have the labels of a failed conversation worked out again."""
        outcome = await act(lambda ledger: work_labels_out_again(ledger, conversation_id), ())
        if outcome is ActionResult.UNKNOWN:
            raise HttpProblem(404, "conversation.unknown", UNKNOWN_CONVERSATION)
        return JobAction(job_id=None, conversation_id=conversation_id, outcome=outcome, message=f"it {SAID[outcome]}")


async def _read(connection: OwnConnection, work: Callable[[Ledger, ConversationStore], BaseModel | None]) -> Response:
    """Answer with a record, which is read and encoded on the connection's own thread."""

    def encoded(ledger: Ledger, store: ConversationStore) -> str | None:
        record = work(ledger, store)
        return record.model_dump_json() if record is not None else None

    body = await connection.use(encoded)
    if body is None:
        raise HttpProblem(404, "conversation.unknown", UNKNOWN_CONVERSATION)
    return Response(body, media_type="application/json")
