"""Queries and answers of the HTTP server as records, and its error answers."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from schemas.audio import ChunkDescription
from schemas.record import Record, Sha256, SpeakerHint

MAX_SPEAKERS = 100
RETRY_AFTER_S = 5


class HttpProblem(Exception):
    """A request that is refused or failed; carries the status, a code and a message that says what to do."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Name the reason."""
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})


class AudioQuery(ChunkDescription):
    """The fields of `AudioPayload` that describe the body."""

    model_config = ConfigDict(extra="forbid")

    sha256: Sha256 | None = Field(default=None, description="Of the body; where it is given it is checked.")


class HintQuery(Record):
    """How many speakers the caller of a one-off request expects."""

    num_speakers: SpeakerHint = Field(default=None, description="As the form's field, which wins; 0: no hint.")
    min_speakers: SpeakerHint = Field(default=None, description="As num_speakers, which wins.")
    max_speakers: SpeakerHint = Field(default=None, description="As num_speakers, which wins.")


class Problem(BaseModel):
    """Why a request was refused."""

    code: str = Field(description="A FailureCode of the contract, or one of http.*, bridge.*.")
    message: str = Field(description="What happened and what to do about it.")


class Detail(BaseModel):
    """Why a call of the earlier HTTP server was refused."""

    detail: str


class SpokenTurn(BaseModel):
    """One speaker turn, in seconds from the start of the file."""

    speaker_id: str = Field(description="SPEAKER_00, SPEAKER_01, …")
    start: float
    end: float


class Diarized(BaseModel):
    """Who spoke when, as the earlier HTTP server said it."""

    speakers: list[SpokenTurn]
    num_speakers: int
    processing_time_ms: int


class Health(BaseModel):
    """Whether a file could be diarized now, and by what."""

    status: str = Field(description="`healthy`, or `no_agent` while none is live and allowed.")
    service: str
    device: str | None = Field(description="Of the live agents, by comma where they differ.")
    model: str | None


def problem_response(path: str, problem: HttpProblem) -> JSONResponse:
    """Return a problem's answer: `detail` on the earlier server's paths under /api/, code and message on all others."""
    if path.startswith("/api/"):
        body: BaseModel = Detail(detail=problem.message)
    else:
        body = Problem(code=problem.code, message=problem.message)
    headers = problem.headers
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return JSONResponse(body.model_dump(), status_code=problem.status, headers=headers)
