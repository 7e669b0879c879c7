"""Hearing what was said: which kept audio covers a span of the transcript, and sending it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path as FilePath
from typing import Annotated
from urllib.parse import urlencode

from fastapi import FastAPI, Path, Query, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from schemas.audio_container import AudioContainer, find_container
from schemas.failure import FailureCode
from schemas.record import ID_PATTERN
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.errors import StoreUnavailable
from vps_bridge.http.audio_cut import MAX_CUT_S, cut_wav, find_samples
from vps_bridge.http.messages import HttpProblem, Problem
from vps_bridge.http.own_connection import OwnConnection
from vps_bridge.http.routes import ConversationId, answers
from vps_bridge.labelling.placed_audio import PlacedAudio
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import ChunkRecord

MAX_S = 1e9
_CODES = (401, 403, 404, 422, 500, 503)
_TYPES = {
    AudioContainer.WAV: "audio/wav",
    AudioContainer.FLAC: "audio/flac",
    AudioContainer.OGG: "audio/ogg",
    AudioContainer.WEBM: "audio/webm",
    AudioContainer.MP4: "audio/mp4",
    AudioContainer.MP3: "audio/mpeg",
    AudioContainer.AAC: "audio/aac",
}
"""What browsers play; AIFF and CAF few of them do."""
GONE = "its audio is not kept any more"
UNPLACED = "where its audio lies in the transcript is not known (yet)"
UNPLAYABLE = "a browser cannot play audio of this kind"
Moment = Annotated[float, Query(ge=-MAX_S, le=MAX_S, allow_inf_nan=False)]
FileOfChunk = Callable[[ChunkRecord], FilePath]


class PlayablePart(BaseModel):
    """A stretch of one chunk."""

    chunk_id: str
    path: str = Field(description="Where it is, below this door's address.")
    start_s: float = Field(description="Where it begins in what the path answers with: not cut out, where above 0.")
    duration_s: float


class Playback(BaseModel):
    """What to play for a span of the transcript, one part after the other."""

    parts: list[PlayablePart]
    reason: str | None = Field(description="Why there is nothing to play, or not all of it.")


def add_playback_routes(app: FastAPI, connection: OwnConnection, find_file: FileOfChunk) -> None:
    """Add the paths; `find_file` returns a chunk's file, called on a thread of its own. See `Spool.fetch`."""

    @app.get("/v1/conversations/{conversation_id}/playback", responses=answers(_CODES, Problem))
    async def playback(conversation_id: ConversationId, from_s: Moment, to_s: Moment) -> Playback:
        """Say which kept audio covers a span of the transcript, in its seconds."""
        until_s = min(to_s, from_s + MAX_CUT_S)
        found = await connection.use(partial(_find_chunks, conversation_id, from_s, until_s))
        if found is None:
            raise HttpProblem(404, "conversation.unknown", "no such conversation: it was never heard of, or is deleted")
        try:
            return await asyncio.to_thread(_list_parts, find_file, conversation_id, found)
        except StoreUnavailable as error:
            raise _not_now(error) from error

    @app.get(
        "/v1/conversations/{conversation_id}/chunks/{chunk_id}/audio",
        response_class=Response,
        responses={200: {"content": {"audio/*": {}}}, **answers(_CODES, Problem)},
    )
    async def audio(
        conversation_id: ConversationId,
        chunk_id: Annotated[str, Path(pattern=ID_PATTERN)],
        from_s: Moment = 0.0,
        to_s: Moment = MAX_S,
    ) -> Response:
        """Send a chunk's audio: samples cut from `from_s` to `to_s` of the chunk, as WAV; any other file whole."""
        chunk = await connection.use(lambda ledger, _: ledger.chunks.find(conversation_id, chunk_id))
        if chunk is None or chunk.spool_name is None:
            raise HttpProblem(404, "audio.gone", f"no such chunk, or {GONE}")
        try:
            return await asyncio.to_thread(_answer, find_file, chunk, from_s, to_s)
        except FileNotFoundError as error:
            raise HttpProblem(404, "audio.gone", GONE) from error
        except StoreUnavailable as error:
            raise _not_now(error) from error


def _not_now(error: StoreUnavailable) -> HttpProblem:
    return HttpProblem(503, FailureCode.SPOOL_UNAVAILABLE, f"the audio cannot be had now: {error}")


def _find_chunks(
    conversation_id: str, from_s: float, to_s: float, ledger: Ledger, _store: ConversationStore
) -> list[tuple[PlacedAudio, ChunkRecord | None]] | None:
    """Return the parts of chunks that cover a span, with their chunks; None where there is no such conversation."""
    if ledger.conversations.get(conversation_id) is None:
        return None
    places = [PlacedAudio(*row) for row in ledger.listing.audio_places(conversation_id) or ()]
    covered = [part for place in places if (part := place.within(from_s, to_s)) is not None]
    return [(part, ledger.chunks.find(conversation_id, part.chunk_id)) for part in covered]


def _list_parts(
    find_file: FileOfChunk, conversation_id: str, covered: list[tuple[PlacedAudio, ChunkRecord | None]]
) -> Playback:
    parts, reason = [], None if covered else UNPLACED
    for part, chunk in covered:
        try:
            path = find_file(chunk) if chunk is not None and chunk.spool_name else None
        except FileNotFoundError:
            path = None
        if chunk is None or path is None:
            reason = GONE
        elif (start_s := _start_in_answer(path, chunk, part.from_s)) is None:
            reason = UNPLAYABLE
        else:
            query = urlencode({"from_s": round(part.from_s, 3), "to_s": round(part.to_s, 3)})
            where = f"/v1/conversations/{conversation_id}/chunks/{part.chunk_id}/audio?{query}"
            made = PlayablePart(
                chunk_id=part.chunk_id, path=where, start_s=start_s, duration_s=round(part.to_s - part.from_s, 3)
            )
            parts.append(made)
    return Playback(parts=parts, reason=reason)


def _start_in_answer(path: FilePath, chunk: ChunkRecord, from_s: float) -> float | None:
    """Return where a stretch begins in what is sent: 0 where it is cut out; None where a browser cannot play it."""
    if find_samples(path, chunk.encoding, chunk.sample_rate, chunk.channels) is not None:
        return 0.0
    return from_s if _media_type(path) is not None else None


def _media_type(path: FilePath) -> str | None:
    with path.open("rb") as file:
        container = find_container(file)
    return _TYPES.get(container.name) if container is not None else None


def _answer(find_file: FileOfChunk, chunk: ChunkRecord, from_s: float, to_s: float) -> Response:
    path = find_file(chunk)
    samples = find_samples(path, chunk.encoding, chunk.sample_rate, chunk.channels)
    if samples is not None:
        return Response(cut_wav(path, samples, from_s, to_s), media_type="audio/wav")
    return FileResponse(path, media_type=_media_type(path) or "application/octet-stream")
