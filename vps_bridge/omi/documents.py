"""What OMI's webhooks say in JSON: a conversation with its segments, and live segments."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.conversation import TranscriptSegment
from schemas.record import Id
from schemas.text import KeyRepeated, unique_keys
from vps_bridge.conversations.transcripts import TranscriptError, read_rows

MAX_SEGMENTS_LIVE = 1_000
MIN_LIVE_REPORTS = 3
LIVE_LAG_S = 1.5
"""Speech-to-text reports a segment about so long after its end."""
_MOMENT = TypeAdapter(AwareDatetime)


class WebhookDocumentWrong(Exception):
    """A body that is not what OMI sends; the message names the field, never its value."""


class _Document(BaseModel):
    """The fields of OMI's conversation that matter here; both generations have them."""

    model_config = ConfigDict(extra="ignore")

    id: Id
    created_at: Any = None
    started_at: Any = None
    finished_at: Any = None
    language: Any = None
    discarded: bool | None = False
    transcript_segments: list[Any] = Field(default_factory=list)


@dataclass(frozen=True)
class OmiConversation:
    """A conversation as OMI reports it."""

    conversation_id: str
    started_at: datetime | None
    finished_at: datetime | None
    created_at: datetime | None
    language: str | None
    is_discarded: bool
    segments: tuple[TranscriptSegment, ...]

    @property
    def length_s(self) -> float:
        """Up to when somebody speaks, in seconds of the transcript."""
        return max((segment.end_s for segment in self.segments), default=0.0)

    def span(self, arrived_at: float) -> tuple[float, float]:
        """Return when it was, in Unix time; of times that are missing the others say what they can."""
        started = self.started_at.timestamp() if self.started_at is not None else None
        finished = self.finished_at.timestamp() if self.finished_at is not None else None
        if started is None:
            created = self.created_at.timestamp() if self.created_at is not None else arrived_at
            started = (finished if finished is not None else created) - self.length_s
        return started, max(finished if finished is not None else started, started + self.length_s)


def read_conversation(body: bytes) -> OmiConversation:
    """Read the body of a `memory created` webhook. Raises `WebhookDocumentWrong`."""
    content = _read_json(body)
    try:
        document = _Document.model_validate(content)
    except ValidationError as error:
        wrong = ", ".join(sorted({str(item["loc"][0]) if item["loc"] else "the body" for item in error.errors()}))
        raise WebhookDocumentWrong(f"wrong or missing: {wrong}; a conversation as OMI sends it has an id") from None
    try:
        segments = read_rows("conversation", document.transcript_segments, document.id)
    except TranscriptError as error:
        raise WebhookDocumentWrong(str(error)) from None
    language = document.language
    return OmiConversation(
        document.id,
        _read_moment(document.started_at),
        _read_moment(document.finished_at),
        _read_moment(document.created_at),
        language if isinstance(language, str) and 0 < len(language) <= 35 else None,  # noqa: PLR2004 - as the event has it
        bool(document.discarded),
        segments,
    )


@dataclass(frozen=True)
class LiveSegment:
    """A segment that came while the conversation went on."""

    segment_id: str
    end_s: float


def read_live(body: bytes) -> tuple[LiveSegment, ...]:
    """Read live segments: an object with `segments`, or a list of them. Raises `WebhookDocumentWrong`."""
    content = _read_json(body)
    rows = content.get("segments") if isinstance(content, dict) else content
    if not isinstance(rows, list) or len(rows) > MAX_SEGMENTS_LIVE:
        raise WebhookDocumentWrong(
            f"expected a list of at most {MAX_SEGMENTS_LIVE} segments, or an object with `segments`"
        )
    found = [row for row in rows if isinstance(row, dict)]
    return tuple(
        LiveSegment(str(row["id"]), float(row["end"]))
        for row in found
        if row.get("id") and isinstance(row.get("end"), int | float) and not isinstance(row["end"], bool)
    )


def read_live_text(body: bytes) -> tuple[TranscriptSegment, ...]:
    """Read the same segments as they are to be shown: those that OMI gave an id. Raises `WebhookDocumentWrong`."""
    content = _read_json(body)
    rows = content.get("segments") if isinstance(content, dict) else content
    named = [row for row in rows or () if isinstance(row, dict) and row.get("id")]
    try:
        return read_rows("live segments", named, "live")
    except TranscriptError as error:
        raise WebhookDocumentWrong(str(error)) from None


def transcript_zero(reports: Iterable[tuple[float, LiveSegment]], segment_ids: Collection[str]) -> float | None:
    """Return when second 0 of a transcript was (Unix time), from when its segments were reported live.

    A segment cannot have been reported before its end, so the earliest report decides. None where too few of the
    reports are of this transcript.
    """
    zeros = [arrived_at - segment.end_s for arrived_at, segment in reports if segment.segment_id in segment_ids]
    return min(zeros) - LIVE_LAG_S if len(zeros) >= MIN_LIVE_REPORTS else None


def _read_json(body: bytes) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(body, object_pairs_hook=unique_keys)
    except KeyRepeated:
        raise WebhookDocumentWrong("a key stands twice in one object") from None
    except (ValueError, RecursionError):
        raise WebhookDocumentWrong("the body is not JSON") from None


def _read_moment(value: object) -> datetime | None:
    """Return a time; one without a zone is in UTC, as OMI's backend writes it. None for anything else."""
    try:
        return _MOMENT.validate_python(value).astimezone(UTC)
    except (ValidationError, OverflowError):
        pass
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else None
    except ValueError:
        return None
