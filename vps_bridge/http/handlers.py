"""What the HTTP paths do: take audio and events as over MQTT, and answer the two calls of the earlier HTTP server.

Nothing here touches the ledger: work that does is given to the bridge's own thread through its mailbox.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from schemas.audio import ChunkDescription
from schemas.conversation import ConversationEvent
from schemas.failure import FailureCode
from vps_bridge.conversations.store import speaker_name
from vps_bridge.durations import seconds
from vps_bridge.errors import DatabaseMoved, Refusal, refusal_of
from vps_bridge.http.answers import json_event, to_response
from vps_bridge.http.bodies import (
    BLOCK_BYTES,
    BUSY_BYTES_PER_S,
    FORM_ALLOWANCE_BYTES,
    LEAST_BYTES_PER_S,
    check_declared,
    declared_bytes,
    is_encoded,
    save_body,
    save_form,
)
from vps_bridge.http.messages import (
    MAX_SPEAKERS,
    AudioQuery,
    Diarized,
    Health,
    HintQuery,
    HttpProblem,
    SpokenTurn,
)
from vps_bridge.http.one_off import OneOffRequests, Turns
from vps_bridge.http.people import PeopleHandlers
from vps_bridge.intake.history import ConversationHistory
from vps_bridge.intake.intake import Intake
from vps_bridge.intake.partial_chunks import INCOMING
from vps_bridge.intake.taken import Taken
from vps_bridge.intake.upload import Upload
from vps_bridge.mailbox import BridgeBusy, Mailbox
from vps_bridge.settings import BridgeSettings

T = TypeVar("T")
SERVICE = "omi-diarization"
MAX_UPLOADS = 32  # at once; each has a file and a block of memory
QUEUE_TIMEOUT_S = 30.0  # how long one more waits until another has ended
DELETION_TIMEOUT_S, DELETION_POLL_S = 30.0, 0.1
ASK_TIMEOUT_S = 60.0  # the bridge's own thread answers in milliseconds, unless its disk hangs
_AUDIO_TYPES = ("audio/", "video/", "application/octet-stream", "application/ogg")


class HttpHandlers:
    """What the routes call; one instance for as long as the server exists."""

    def __init__(self, settings: BridgeSettings, mailbox: Mailbox, intake: Intake, one_offs: OneOffRequests) -> None:
        """Call `intake` and `one_offs` on the bridge's own thread, through `mailbox`."""
        self._settings, self._mailbox, self._intake, self._one_offs = settings, mailbox, intake, one_offs
        self._uploads, self._expected_bytes = asyncio.Semaphore(MAX_UPLOADS), 0
        self._waiting = 0  # uploads whose turn has not come
        self.people = PeopleHandlers(self._ask, intake)

    async def take_audio(self, request: Request, conversation_id: str, description: AudioQuery) -> Response:
        """Take a chunk of a conversation from a raw body."""
        try:
            taken = await self._take_body(request, conversation_id, description)
        except (Refusal, HttpProblem) as error:
            if error.code in set(FailureCode):
                refusal = Refusal(FailureCode(error.code), error.message)
                await self.note_refused(request, conversation_id, refusal, description.chunk_id)
            raise
        if taken.receipt is None:
            raise HttpProblem(500, "bridge.error", "the bridge gave no receipt: send it again")
        return to_response(taken.receipt, 202 if taken.is_new else 200)

    async def _take_body(self, request: Request, conversation_id: str, description: AudioQuery) -> Taken:
        kind = request.headers.get("content-type", "application/octet-stream").lower()
        if not kind.startswith(_AUDIO_TYPES):
            msg = "send the audio itself as the body, with `Content-Type: audio/wav` or another audio type"
            raise HttpProblem(415, FailureCode.AUDIO_UNDECODABLE, msg)
        _refuse_piece(request)
        expected_bytes = check_declared(request, self._settings.max_chunk_bytes)
        async with self._upload(expected_bytes) as upload:
            await save_body(request, upload, self._least_bytes_per_s)
            take = partial(self._intake.take_upload, conversation_id, description, upload, description.sha256)
            taken = await self._ask(take)
            return taken if taken.later is None else await asyncio.wrap_future(taken.later)

    async def note_refused(
        self, request: Request, conversation_id: str, refusal: Refusal, chunk_id: str | None = None
    ) -> None:
        """Note audio that was refused before it came to the bridge's own thread."""
        size_bytes = declared_bytes(request) or 0
        await self._ask(partial(self._intake.note_refused, conversation_id, chunk_id, refusal, size_bytes))

    async def take_event(self, request: Request, conversation_id: str) -> Response:
        """Take an event of a conversation."""
        data = await json_event(request, ConversationEvent)
        take = partial(self._intake.take_event, conversation_id, data)
        receipt, until_s = await self._ask(take), time.monotonic() + DELETION_TIMEOUT_S
        while receipt is None and time.monotonic() < until_s:  # a deletion, and the bucket is still being asked
            await asyncio.sleep(DELETION_POLL_S)
            receipt = await self._ask(take)
        if receipt is None:
            msg = "the conversation is deleted, its audio in the bucket not yet: that goes on by itself, ask again"
            raise HttpProblem(503, FailureCode.SPOOL_UNAVAILABLE, msg)
        return to_response(receipt, 200)

    async def read_history(self, conversation_id: str) -> ConversationHistory:
        """Return every change of a conversation's labels."""
        found = await self._ask(partial(self._intake.read_history, conversation_id))
        if found is None:
            raise HttpProblem(404, "conversation.unknown", "no such conversation: it was never heard of, or is deleted")
        return found

    async def diarize(self, request: Request, hints: HintQuery) -> Diarized:
        """Say who speaks when in a file."""
        began_s = time.monotonic()
        expected_bytes = check_declared(request, self._settings.max_chunk_bytes + FORM_ALLOWANCE_BYTES)
        await self._ask(self._one_offs.check_agent)
        conversation_id = f"once-{secrets.token_hex(16)}"
        try:
            async with self._upload(expected_bytes) as upload:
                description = _describe_file(await save_form(request, upload, self._least_bytes_per_s), hints)
                answer, later = await self._ask(partial(self._one_offs.start, conversation_id, description, upload))
                if later is not None:
                    taken = await asyncio.wrap_future(later)
                    await self._ask(partial(self._one_offs.go_on, conversation_id, taken))
            turns = await self._wait(request, asyncio.wrap_future(answer))
        finally:
            with suppress(BridgeBusy):  # a bridge that stops ends all one-off requests itself
                self._mailbox.ask(partial(self._one_offs.abandon, conversation_id))
        return _to_answer(turns, time.monotonic() - began_s)

    def _least_bytes_per_s(self) -> int:
        """How fast a body has to come: where others wait for their turn, it may not take its time."""
        return BUSY_BYTES_PER_S if self._waiting else LEAST_BYTES_PER_S

    async def health(self) -> Health:
        """Say whether an agent is there to diarize, with which model and device."""
        engines = [beat.engine for beat in await self._ask(self._intake.live_agents) if beat.engine]
        return Health(
            status="healthy" if engines else "no_agent",
            service=SERVICE,
            device=", ".join(sorted({engine.device for engine in engines})) or None,
            model=", ".join(sorted({engine.model or engine.name for engine in engines})) or None,
        )

    async def _ask(self, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return await asyncio.wrap_future(self._mailbox.ask(work))
        except TimeoutError:
            msg = "the bridge did not answer in time (is its disk slow?): nothing was promised, send it again"
            raise HttpProblem(503, "bridge.busy", msg) from None

    @asynccontextmanager
    async def _upload(self, declared_bytes: int | None) -> AsyncIterator[Upload]:
        """Open a file for a body, at most `MAX_UPLOADS` at once; for a large one the bridge is asked for room first.

        Until then nothing of the body is read: it waits in the client's connection.
        """
        self._waiting += 1
        try:
            async with asyncio.timeout(QUEUE_TIMEOUT_S):
                await self._uploads.acquire()
        except TimeoutError:
            msg = f"{MAX_UPLOADS} uploads are under way: send it again in a moment"
            raise HttpProblem(503, FailureCode.INGEST_FULL, msg) from None
        finally:
            self._waiting -= 1
        expected_bytes = self._settings.max_chunk_bytes if declared_bytes is None else declared_bytes
        self._expected_bytes += expected_bytes
        try:
            if expected_bytes > BLOCK_BYTES:
                await self._ask(partial(self._intake.check_room, self._expected_bytes))
            upload = await asyncio.to_thread(Upload, self._settings.root / INCOMING, self._settings.max_chunk_bytes)
            try:
                yield upload
            finally:
                upload.discard()
        except DatabaseMoved:
            raise  # as from any other path: it is not the disk that refuses
        except OSError as error:
            refusal = refusal_of(error)
            raise HttpProblem(503, refusal.code, refusal.message) from error
        finally:
            self._expected_bytes -= expected_bytes
            self._uploads.release()

    async def _wait(self, request: Request, answer: asyncio.Future[Turns]) -> Turns:
        """Wait for an answer, until the timeout or until the caller disconnects."""
        gone = asyncio.ensure_future(_wait_disconnect(request))
        events: set[asyncio.Future[Any]] = {answer, gone}
        timeout_s = self._settings.http_answer_timeout_s
        try:
            await asyncio.wait(events, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if answer.done():
            return answer.result()
        answer.cancel()
        if gone.done():
            raise ClientDisconnect
        msg = f"no answer within {seconds(timeout_s)}: see `omi-bridge agents`, or raise OMI_HTTP_ANSWER_TIMEOUT_S"
        raise HttpProblem(504, "engine.timeout", msg)


async def _wait_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _describe_file(fields: Mapping[str, str], query: HintQuery) -> ChunkDescription:
    """Return the description of a form's file; its fields take precedence over the query."""
    try:
        return ChunkDescription.model_validate({**query.model_dump(), **fields})
    except ValidationError as error:
        found = error.errors(include_input=False)
        wrong = ", ".join(sorted({str(item["loc"][0]) for item in found if item["loc"]}))
        msg = f"{wrong}: a number from 1 to {MAX_SPEAKERS}, or 0 for no hint"
        raise HttpProblem(
            422, "payload.malformed", msg if wrong else found[0]["msg"].removeprefix("Value error, ")
        ) from error


def _to_answer(turns: Turns, took_s: float) -> Diarized:
    spoken = [
        SpokenTurn(speaker_id=speaker_name(turn.speaker_id) or "", start=turn.start_s, end=turn.end_s) for turn in turns
    ]
    speakers = len({turn.speaker_id for turn in turns})
    return Diarized(speakers=spoken, num_speakers=speakers, processing_time_ms=round(took_s * 1000))


def _refuse_piece(request: Request) -> None:
    """Raise where the body is not the recording itself: taken for it, the rest of it would be lost without a word."""
    if "content-range" in request.headers:
        msg = "Content-Range says that this is a part of a file: send the file in one body, or in parts over MQTT"
        raise HttpProblem(415, FailureCode.AUDIO_UNDECODABLE, msg)
    if is_encoded(request):
        msg = "send the audio as it is, without Content-Encoding: FLAC or Opus are smaller than what gzip makes of WAV"
        raise HttpProblem(415, FailureCode.AUDIO_UNDECODABLE, msg)
