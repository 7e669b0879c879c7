"""GET, PUT and DELETE of conversation documents at a backend, signed. What its answers mean, and which are believed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus

from schemas.webhook_headers import SIGNATURE
from vps_bridge.conversations.document import (
    MAX_DOCUMENT_BYTES,
    SCHEMA,
    ConversationDocument,
    DocumentOfAnother,
    DocumentWrong,
    read_document,
)
from vps_bridge.errors import StoreConfusesConversations, StoreMisbehaves, StoreUnavailable
from vps_bridge.signed_endpoint import SignedEndpoint, sign
from vps_bridge.timed_calls import CLIENT_ERROR, OK, REDIRECT, SERVER_ERROR, Answer, CallFailed, TimedCalls

MAX_ETAG_CHARS = 1_000
_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_CHANGED = (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT)
_STORED = (HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NO_CONTENT)
_DELETED = (HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT, *_GONE)
_ADVICE = {
    HTTPStatus.UNAUTHORIZED: "has it the same secret (OMI_CONVERSATIONS_SECRET), and the right time?",
    HTTPStatus.FORBIDDEN: "has it the same secret (OMI_CONVERSATIONS_SECRET), and the right time?",
    HTTPStatus.NOT_FOUND: "it takes no documents at OMI_CONVERSATIONS_URL",
    HTTPStatus.METHOD_NOT_ALLOWED: "it takes no documents at OMI_CONVERSATIONS_URL",
    HTTPStatus.GONE: "it has deleted the conversation: tell the bridge too, by a `deleted` event",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"let it take documents of up to {MAX_DOCUMENT_BYTES // 2**20} MiB",
}


class PutOutcome(Enum):
    """What became of a document that was sent."""

    STORED = "the backend says that it has it"
    CHANGED = "the backend says that another came before"
    UNKNOWN = "nobody can tell yet"


@dataclass(frozen=True)
class PutAnswer:
    """What a backend answered to a document."""

    outcome: PutOutcome
    words: str
    etag: str | None = None
    """The tag of what it has now, where it says so."""


@dataclass(frozen=True)
class TaggedDocument:
    """A document and the tag that names it among all that this conversation ever had; None: there is none."""

    document: ConversationDocument
    etag: str | None


class DocumentClient:
    """Asks one backend. Every method may raise `StoreUnavailable` or `StoreMisbehaves`."""

    def __init__(self, endpoint: SignedEndpoint, *, clock: Callable[[], float] = time.time) -> None:
        """Ask nothing yet; `clock` gives Unix time, for signatures."""
        self._endpoint, self._calls, self._clock = endpoint, TimedCalls(endpoint), clock

    def get(self, conversation_id: str) -> TaggedDocument:
        """Return a conversation's document, or an empty one without a tag where there is none."""
        try:
            answer = self._call("GET", conversation_id)
        except CallFailed as error:
            raise StoreUnavailable(str(error)) from error
        if answer.status in _GONE:
            if answer.headers.get("omi-schema") != SCHEMA:
                words = (
                    f"{answer.status} without `Omi-Schema: {SCHEMA}`: is there nothing else at OMI_CONVERSATIONS_URL?"
                )
                raise self._misbehaves(words)
            return TaggedDocument(ConversationDocument(conversation_id), None)
        if answer.status != OK:
            raise self._refuse(answer)
        if len(answer.body) > MAX_DOCUMENT_BYTES:
            raise self._misbehaves(f"a document of more than {MAX_DOCUMENT_BYTES // 2**20} MiB: split the conversation")
        etag = self._read_etag(answer)
        if etag is None:
            raise self._misbehaves("a document without an ETag: nothing can be written into it safely")
        try:
            return TaggedDocument(read_document(conversation_id, answer.body), etag)
        except DocumentOfAnother as error:
            raise StoreConfusesConversations(str(self._misbehaves(f"what is no document: {error}"))) from error
        except DocumentWrong as error:
            raise self._misbehaves(f"what is no document: {error}") from error

    def put(self, conversation_id: str, body: bytes, etag: str | None) -> PutAnswer:
        """Send a document to take the place of the one with this tag; None: of none."""
        if len(body) > MAX_DOCUMENT_BYTES:
            raise StoreUnavailable(
                f"the document would have more than {MAX_DOCUMENT_BYTES // 2**20} MiB: split the conversation"
            )
        try:
            answer = self._call("PUT", conversation_id, body, etag)
        except CallFailed as error:
            if not error.may_have_arrived:
                raise StoreUnavailable(str(error)) from error
            return PutAnswer(PutOutcome.UNKNOWN, str(error))
        words = f"{self._endpoint.shown} answered {answer.status}"
        if answer.status in _STORED:
            return PutAnswer(PutOutcome.STORED, words, self._read_etag(answer))
        if answer.status in _CHANGED:
            return PutAnswer(PutOutcome.CHANGED, words)
        if answer.status >= SERVER_ERROR and "retry-after" not in answer.headers:
            return PutAnswer(PutOutcome.UNKNOWN, words)  # what stands before it may say so, though it has it
        raise self._refuse(answer)

    def delete(self, conversation_id: str) -> None:
        """Delete a document, whatever its tag."""
        try:
            answer = self._call("DELETE", conversation_id)
        except CallFailed as error:
            raise StoreUnavailable(str(error)) from error
        if answer.status not in _DELETED:
            raise self._refuse(answer)

    def abort(self) -> None:
        """End, from another thread, the call that is under way."""
        self._calls.abort()

    def _call(self, method: str, conversation_id: str, body: bytes | None = None, etag: str | None = None) -> Answer:
        path, mark, query = self._endpoint.target.partition("?")
        condition = {} if method != "PUT" else {"If-None-Match": "*"} if etag is None else {"If-Match": etag}
        signed = f"{method}\n{conversation_id}\n{''.join(condition.values())}\n".encode() + (body or b"")
        headers = {
            "Accept": "application/json",
            SIGNATURE: sign(self._endpoint.secret, int(self._clock()), signed),
            "Omi-Schema": SCHEMA,
            **condition,
            **({} if body is None else {"Content-Type": "application/json"}),
        }
        target = f"{path.rstrip('/')}/{conversation_id}{mark}{query}"
        return self._calls.call(method, target, headers, body, max_bytes=MAX_DOCUMENT_BYTES)

    def _read_etag(self, answer: Answer) -> str | None:
        etag = answer.headers.get("etag")
        if etag is None:
            return None
        if etag.startswith("W/"):
            raise self._misbehaves("a weak ETag (W/): turn off compressing on the way, and tag every document exactly")
        if len(etag) > MAX_ETAG_CHARS or not (etag.isascii() and etag.isprintable() and etag.strip('"')):
            raise self._misbehaves('an ETag that is none: "a-few-characters", in quotation marks')
        return etag

    def _refuse(self, answer: Answer) -> StoreUnavailable:
        status = answer.status
        if REDIRECT <= status < CLIENT_ERROR:
            return self._misbehaves(
                f"{status}: redirects are not followed, set OMI_CONVERSATIONS_URL to where it leads"
            )
        advice = _ADVICE.get(HTTPStatus(status)) if status in set(HTTPStatus) else None
        error = StoreUnavailable(f"{self._endpoint.shown} answered {status}{f': {advice}' if advice else ''}")
        error.asks_for_s = self._read_pause_s(answer)
        return error

    def _read_pause_s(self, answer: Answer) -> float:
        """Return how long it asks to be left alone."""
        said = answer.headers.get("retry-after", "")
        if said.isascii() and said.isdigit():
            return float(said[:9])
        try:
            return max(0.0, parsedate_to_datetime(said).timestamp() - self._clock())
        except (ValueError, OverflowError):
            return 0.0

    def _misbehaves(self, words: str) -> StoreMisbehaves:
        return StoreMisbehaves(f"{self._endpoint.shown} answered {words} (docs/stores.md says what it has to do)")
