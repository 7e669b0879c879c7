"""The three paths that OMI's webhooks are sent to. Nothing else is here: the listener has a public name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

import structlog
from starlette.types import Receive, Scope, Send

from schemas.failure import policy_of
from vps_bridge.error_guard import describe_error
from vps_bridge.errors import Refusal
from vps_bridge.http.outages import explain_failure
from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.mailbox import BridgeBusy, Mailbox
from vps_bridge.omi.capture import Arrival, CaptureLog
from vps_bridge.omi.commits import CommitQueue
from vps_bridge.omi.documents import (
    OmiConversation,
    WebhookDocumentWrong,
    read_conversation,
    read_live,
    read_live_text,
    transcript_zero,
)
from vps_bridge.omi.live import LiveText, LiveTexts
from vps_bridge.omi.records import AUDIO, NO_KEY, SEGMENTS, hash_key, hash_name
from vps_bridge.omi.report import Report, Reporter, hash_body
from vps_bridge.omi.request import (
    MAX_READING_BYTES,
    WebhookProblem,
    WebhookRequest,
    check_signature,
    find_user,
    read_body,
    read_request,
)
from vps_bridge.omi.users import OmiUser, UserFile, UsersFileBroken

_LOG = structlog.get_logger(__name__)
PATHS = ("/omi/audio", "/omi/transcript", "/omi/conversation")
MIN_RATE, MAX_RATE = 4_000, 192_000
LIVE_BEFORE_S = 600.0  # live segments may have been reported so long before the conversation is said to begin
ASK_TIMEOUT_S = 60.0


class OmiListener:
    """The ASGI application."""

    def __init__(
        self,
        users: UserFile,
        log: CaptureLog,
        commits: CommitQueue,
        reporter: Reporter,
        mailbox: Mailbox,
        counts: CaptureCounts,
        *,
        clock: Callable[[], float],
        on_report: Callable[[], None],
    ) -> None:
        """Take webhooks of `users`; `clock` is Unix time, `on_report` is called when a conversation was reported."""
        self._users, self._log, self._commits = users, log, commits
        self._reporter, self._mailbox, self._counts = reporter, mailbox, counts
        self.live = LiveTexts()
        self._clock, self._on_report = clock, on_report
        self._reading_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        try:
            status, message = await self._serve(scope, receive), ""
        except WebhookProblem as problem:
            status, message = problem.status, problem.message
        except Refusal as refusal:
            status, message = HTTPStatus(policy_of(refusal.code).http_status), refusal.message
        except (BridgeBusy, TimeoutError):
            status, message = HTTPStatus.SERVICE_UNAVAILABLE, "the bridge is busy or stopping: send it again"
        except UsersFileBroken as error:
            status, message = HTTPStatus.SERVICE_UNAVAILABLE, str(error)
        except ConnectionError:
            return  # the client has gone
        except asyncio.CancelledError:  # the bridge stops, and the time for requests in progress is over
            status, message = HTTPStatus.SERVICE_UNAVAILABLE, "the bridge is stopping: send it again in a moment"
        except Exception as error:  # noqa: BLE001 - one request that fails must not stop the listener
            _LOG.error("omi_request_failed", path=scope["path"], error=describe_error(error))
            answer = explain_failure(error)
            status, message = HTTPStatus(answer.status), answer.message
        self._count(status, message)
        await _answer(send, status, message)

    def _count(self, status: HTTPStatus, message: str) -> None:
        if status is HTTPStatus.OK:
            self._counts.taken += 1
        elif status is HTTPStatus.UNAUTHORIZED:
            self._counts.unauthorized += 1
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._counts.turn_away(message, self._clock())
        else:
            self._counts.malformed += 1

    async def _serve(self, scope: Scope, receive: Receive) -> HTTPStatus:
        """Return the status where all is well. Raises what `__call__` answers with."""
        if scope["path"] not in PATHS:
            raise WebhookProblem(HTTPStatus.NOT_FOUND, "no such path")
        if scope["method"] != "POST":
            raise WebhookProblem(HTTPStatus.METHOD_NOT_ALLOWED, "only POST")
        request = read_request(scope)
        user = find_user(request, self._users)
        body = await self._read(receive)
        check_signature(request, user, body, self._clock())
        if scope["path"] == PATHS[0]:
            await self._take_audio(request, user, body)
        elif scope["path"] == PATHS[1]:
            await self._take_live(user, body)
        else:
            await self._take_conversation(user, body)
        return HTTPStatus.OK

    async def _read(self, receive: Receive) -> bytes:
        """Return the body, unless too much is being read: whose it is may be known only from all of it."""
        came_bytes = 0

        def count(size: int) -> None:
            nonlocal came_bytes
            came_bytes += size
            self._reading_bytes += size
            if self._reading_bytes > MAX_READING_BYTES:
                raise WebhookProblem(HTTPStatus.SERVICE_UNAVAILABLE, "too much arrives at once: send it again later")

        try:
            return await read_body(receive, count)
        finally:
            self._reading_bytes -= came_bytes

    async def _take_audio(self, request: WebhookRequest, user: OmiUser, body: bytes) -> None:
        rate = request.query.get("sample_rate", "")
        if not (rate.isascii() and rate.isdigit() and len(rate) <= len(str(MAX_RATE))):
            raise WebhookProblem(HTTPStatus.BAD_REQUEST, "sample_rate is missing in the query, or no number")
        if not MIN_RATE <= int(rate) <= MAX_RATE:
            raise WebhookProblem(HTTPStatus.BAD_REQUEST, f"sample_rate is not within {MIN_RATE} to {MAX_RATE}")
        if body:
            key = hash_key(request.key, body) if request.key else NO_KEY
            await self._commits.commit(Arrival(AUDIO, hash_name(user.uid), key, int(rate), self._clock(), body))

    async def _take_live(self, user: OmiUser, body: bytes) -> None:
        """Keep live segments as long as audio: when each was reported tells where its conversation's second 0 is."""
        try:
            segments = read_live(body)
        except WebhookDocumentWrong as error:
            raise WebhookProblem(HTTPStatus.BAD_REQUEST, str(error)) from None
        if segments:
            kept = json.dumps({"segments": [{"id": one.segment_id, "end": one.end_s} for one in segments]}).encode()
            await self._commits.commit(Arrival(SEGMENTS, hash_name(user.uid), NO_KEY, 0, self._clock(), kept))
            self._show(user, body)

    def _show(self, user: OmiUser, body: bytes) -> None:
        """Have live segments shown. What cannot be is in the conversation that OMI reports."""
        try:
            self.live.put(LiveText(user.uid, self._clock(), read_live_text(body)))
        except WebhookDocumentWrong as error:
            _LOG.warning("omi_live_not_shown", reason=str(error))

    async def _take_conversation(self, user: OmiUser, body: bytes) -> None:
        arrived_at = self._clock()
        try:
            conversation = await asyncio.to_thread(read_conversation, body)
        except WebhookDocumentWrong as error:
            raise WebhookProblem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        zero_at = await asyncio.to_thread(self._find_zero, user, conversation, arrived_at)
        report = Report(user.uid, conversation, hash_body(body), arrived_at, zero_at)
        work = self._reporter.end_live if conversation.is_discarded else self._reporter.take
        taken = self._mailbox.ask(partial(work, report))
        await asyncio.wait_for(asyncio.wrap_future(taken), ASK_TIMEOUT_S)
        if not conversation.is_discarded:
            self._on_report()

    def _find_zero(self, user: OmiUser, conversation: OmiConversation, arrived_at: float) -> float | None:
        started_at, _ = conversation.span(arrived_at)
        records = self._log.records_of(hash_name(user.uid), started_at - LIVE_BEFORE_S)
        live = [record for record in records if record.header.kind == SEGMENTS]
        reports = [(record.header.arrived_at, segment) for record in live for segment in read_live(record.read())]
        return transcript_zero(reports, {segment.id for segment in conversation.segments})


async def _answer(send: Send, status: HTTPStatus, message: str) -> None:
    # An answer with words would be shown to the user as a notification.
    body = b"{}" if status is HTTPStatus.OK else json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
