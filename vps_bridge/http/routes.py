"""The paths of the HTTP server, its error answers, and its OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from importlib.metadata import version as package_version
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from schemas.audio_container import CONTAINER_NAMES
from schemas.conversation import Accepted, ConversationEvent
from schemas.document import message_schema
from schemas.failure import FailureCode, policy_of
from schemas.people import PersonEvent
from schemas.record import ID_PATTERN, Message, describe_wrong, is_id
from vps_bridge.errors import NoAgent, Refusal
from vps_bridge.http.access import OPEN_PATHS, AccessCheck, AccessRule
from vps_bridge.http.bodies import HINT_FIELDS
from vps_bridge.http.handlers import HttpHandlers
from vps_bridge.http.messages import (
    MAX_SPEAKERS,
    AudioQuery,
    Detail,
    Diarized,
    Health,
    HintQuery,
    HttpProblem,
    Problem,
    problem_response,
)
from vps_bridge.http.page_headers import PageHeaders
from vps_bridge.http.people import add_people
from vps_bridge.http.query_names import check_query
from vps_bridge.http.sign_in import SignIns
from vps_bridge.http.webhook_document import SENT, describe_webhooks
from vps_bridge.intake.history import ConversationHistory
from vps_bridge.mailbox import BridgeBusy

_REFERENCE = "#/components/schemas/{model}"
_REASONS = {
    400: "The body is empty, or does not parse.",
    401: "The token is missing or wrong.",
    403: "Without a token only programs on the bridge's own machine are let in, under a loopback name.",
    404: "No such path, conversation or person.",
    405: "The path takes another method.",
    408: "The client sent nothing for too long.",
    409: "It contradicts what is there: the message says how.",
    410: "The conversation is deleted.",
    413: "Too large, or too long.",
    415: "The path does not take this Content-Type.",
    422: "Invalid: the message names the field, or says that it is no audio.",
    500: "The bridge or the engine failed; the message says what to do.",
    503: "Full, stopping, its database or disk cannot be used, or no agent is live: send it again later.",
    504: "No answer in time.",
}
_TAKE_CODES = (401, 403, 408, 409, 410, 413, 415, 422, 500, 503)
_DIARIZE_CODES = (400, 401, 403, 408, 413, 422, 500, 503, 504)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_AUDIO_BODY = {
    "requestBody": {
        "required": True,
        "description": f"The audio itself: a file that holds {CONTAINER_NAMES}, or the samples `encoding` names.",
        "content": {"audio/*": _BINARY, "application/octet-stream": _BINARY},
    }
}
# Messages that our own encoder and decoder know, and not FastAPI.
_OWN_FORMS: tuple[type[Message], ...] = (ConversationEvent, PersonEvent, *SENT)


def _event_body(event: type[Message]) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model=event.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_FORM_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        **{name: {"type": "integer", "minimum": 0, "maximum": MAX_SPEAKERS} for name in HINT_FIELDS},
                    },
                }
            }
        },
    }
}
ConversationId = Annotated[str, Path(pattern=ID_PATTERN, description="1 to 128 of A-Z a-z 0-9 _ -, no dot.")]


def answers(codes: tuple[int, ...], body: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Return how a path documents its refusals."""
    return {code: {"model": body, "description": _REASONS[code]} for code in codes}


def make_app(handlers: HttpHandlers, rule: AccessRule, sign_ins: SignIns, port: int) -> FastAPI:
    """Return the ASGI application."""
    # No pages that render the document: they load their scripts from other servers. And no redirect from a path with a
    # slash behind it: curl would send the audio nowhere, and take that for success.
    app = FastAPI(
        title="omi-diarization: the bridge's HTTP door",
        version=package_version("omi-diarization"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(check_query)],
    )
    app.add_middleware(AccessCheck, rule=rule, sign_ins=sign_ins, port=port)
    app.add_middleware(PageHeaders)
    _add_paths(app, handlers)
    _add_reading(app, handlers)
    add_people(app, handlers.people, answers=answers, event_body=_event_body(PersonEvent), take_codes=_TAKE_CODES)
    _add_errors(app, handlers)
    _add_document(app, OPEN_PATHS if rule.is_loopback else ())
    return app


def _add_paths(app: FastAPI, handlers: HttpHandlers) -> None:
    taken = {202: {"model": Accepted, "description": "Accepted now."}, **answers((400, *_TAKE_CODES), Problem)}
    known = "Accepted before: the same id and the same audio."

    @app.post(
        "/v1/conversations/{conversation_id}/audio",
        response_model=Accepted,
        response_description=known,
        responses=taken,
        openapi_extra=_AUDIO_BODY,
    )
    async def take_audio(
        conversation_id: ConversationId, description: Annotated[AudioQuery, Query()], request: Request
    ) -> Response:
        """Take a chunk of a conversation. Once this is answered, the bridge is responsible for the audio."""
        return await handlers.take_audio(request, conversation_id, description)

    @app.post(
        "/v1/conversations/{conversation_id}/events",
        response_model=Accepted,
        responses=answers(_TAKE_CODES, Problem),
        openapi_extra=_event_body(ConversationEvent),
    )
    async def take_event(conversation_id: ConversationId, request: Request) -> Response:
        """Take an event of a conversation."""
        return await handlers.take_event(request, conversation_id)

    @app.get("/health", responses=answers((401, 403, 500, 503), Problem))
    async def health() -> Health:
        """Say whether an agent is there to diarize."""
        return await handlers.health()

    @app.post("/api/diarize", responses=answers(_DIARIZE_CODES, Detail), openapi_extra=_FORM_BODY)
    async def diarize(request: Request, hints: Annotated[HintQuery, Query()]) -> Diarized:
        """Say who speaks when in a file. All of it is deleted once this is answered or the caller disconnects."""
        return await handlers.diarize(request, hints)


def _add_reading(app: FastAPI, handlers: HttpHandlers) -> None:
    @app.get("/v1/conversations/{conversation_id}/history", responses=answers((401, 403, 404, 422, 500, 503), Problem))
    async def read_history(conversation_id: ConversationId) -> ConversationHistory:
        """Say who changed which labels of a conversation, what they said, and what became of it."""
        return await handlers.read_history(conversation_id)


def _add_errors(app: FastAPI, handlers: HttpHandlers) -> None:
    def answer(translate: Callable[[Any], HttpProblem]) -> Callable[[Request, Exception], Awaitable[Response]]:
        async def respond(request: Request, error: Exception) -> Response:
            return problem_response(request.url.path, translate(error))

        return respond

    app.add_exception_handler(HttpProblem, answer(lambda problem: problem))
    app.add_exception_handler(
        Refusal, answer(lambda refusal: HttpProblem(policy_of(refusal.code).http_status, refusal.code, refusal.message))
    )
    app.add_exception_handler(NoAgent, answer(lambda error: HttpProblem(503, "bridge.no_agent", str(error))))
    app.add_exception_handler(
        BridgeBusy, answer(lambda error: HttpProblem(503, "bridge.busy", f"{error}: send it again"))
    )

    async def refuse(request: Request, error: Exception) -> Response:
        conversation_id = request.path_params.get("conversation_id", "")
        problem = _explain(error)
        if request.url.path == f"/v1/conversations/{conversation_id}/audio" and is_id(conversation_id):
            refusal = Refusal(FailureCode.PAYLOAD_MALFORMED, problem.message)
            with suppress(HttpProblem, BridgeBusy):
                await handlers.note_refused(request, conversation_id, refusal)
        return problem_response(request.url.path, problem)

    app.add_exception_handler(RequestValidationError, refuse)

    async def repeat(request: Request, error: Exception) -> Response:
        return problem_response(request.url.path, _repeat(app, request, error))

    app.add_exception_handler(HTTPException, repeat)


def _repeat(app: FastAPI, request: Request, error: Exception) -> HttpProblem:
    """Put what the router found (no such path, or another method) into our form of answer."""
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:  # the router names the methods of one route only
        matching = [route for route in app.routes if route.matches(request.scope)[0] is not Match.NONE]
        methods = {name for route in matching for name in getattr(route, "methods", None) or ()}
        headers["Allow"] = ", ".join(sorted(methods))
    return HttpProblem(error.status_code, "http.error", _REASONS.get(error.status_code, error.detail), headers)


def _explain(error: Exception) -> HttpProblem:
    """Name the wrong fields, never their values."""
    items = error.errors() if isinstance(error, RequestValidationError) else ()
    wrong = [f"{'.'.join(str(part) for part in item['loc'][1:]) or 'query'}: {describe_wrong(item)}" for item in items]
    return HttpProblem(422, "payload.malformed", "; ".join(wrong[:5]))


def _add_document(app: FastAPI, open_paths: Sequence[str]) -> None:
    """Add to the document what FastAPI does not know: the token, the webhook, and the messages of the contract."""

    def document() -> Mapping[str, Any]:
        if app.openapi_schema is None:
            described = get_openapi(title=app.title, version=app.version, routes=app.routes)
            for kind in _OWN_FORMS:
                message = message_schema(kind, reference=_REFERENCE)
                parts = message.pop("$defs", {})
                described["components"]["schemas"] |= {**parts, kind.__name__: message}
            described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in described["paths"].items():
                for operation in operations.values():
                    operation["security"] = [{"token": []}, *([{}] if path in open_paths else [])]
            described["webhooks"] = describe_webhooks(_REFERENCE)
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign,assignment] # as FastAPI documents it
