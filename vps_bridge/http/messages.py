"""What the HTTP door says: its questions and answers as records, and which status stands for which failure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from schemas.audio import ChunkDescription
from schemas.failure import FailureCode
from schemas.record import Sha256

MAX_SPEAKERS = 100
RETRY_AFTER_S = 5
STATUS_OF = {
    FailureCode.AUDIO_EMPTY: 400,
    FailureCode.PAYLOAD_INCOMPLETE: 400,
    FailureCode.REVISION_STALE: 409,
    FailureCode.CHUNK_ID_CONFLICT: 409,
    FailureCode.CONVERSATION_DELETED: 410,
    FailureCode.INGEST_TOO_LARGE: 413,
    FailureCode.AUDIO_TOO_LONG: 413,
    FailureCode.AUDIO_UNDECODABLE: 422,
    FailureCode.PAYLOAD_MALFORMED: 422,
    FailureCode.PAYLOAD_SHA256_MISMATCH: 422,
    FailureCode.SCHEMA_UNSUPPORTED: 422,
    FailureCode.ENGINE_CRASHED: 500,
    FailureCode.ENGINE_FAILED: 500,
    FailureCode.ENGINE_TIMEOUT: 500,
    FailureCode.LEASE_LOST: 500,
    FailureCode.INGEST_FULL: 503,
    FailureCode.DISK_FULL: 503,
}


class HttpProblem(Exception):
    """A request that is not answered as it was meant; carries status, code and words that say what to do."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Name the reason."""
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})


class AudioQuery(ChunkDescription):
    """The fields of `AudioPayload` that say what the body is."""

    model_config = ConfigDict(extra="forbid")

    sha256: Sha256 | None = Field(default=None, description="Of the body; where it is given it is checked.")


class Problem(BaseModel):
    """Why a request was refused."""

    code: str = Field(description="A FailureCode of the contract, or one of http.*, bridge.*.")
    message: str = Field(description="What happened and what to do about it.")


class Detail(BaseModel):
    """Why the earlier call was refused."""

    detail: str


class SpokenTurn(BaseModel):
    """One stretch of speech, in seconds from the start of the file."""

    speaker_id: str = Field(description="SPEAKER_00, SPEAKER_01, …")
    start: float
    end: float


class Diarized(BaseModel):
    """Who spoke when, as the earlier HTTP server said it."""

    speakers: list[SpokenTurn]
    num_speakers: int
    processing_time_ms: int


class Health(BaseModel):
    """Whether a question could be answered now, and by what."""

    status: str = Field(description="`healthy`, or `no_agent` while none is live and allowed.")
    service: str
    device: str | None = Field(description="Of the live agents, by comma where they differ.")
    model: str | None


def problem_response(path: str, problem: HttpProblem) -> JSONResponse:
    """Return a problem's answer: `detail` where the earlier server spoke, code and message everywhere else."""
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
