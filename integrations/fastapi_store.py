"""The backend's side of the bridge's HTTP store, for FastAPI: one file, to be copied into a backend.

    documents = SqliteDocuments(Path("conversations.sqlite3"))  # or a class of your own around your table
    app.include_router(conversation_router(documents, secret), prefix="/omi/conversations")

The bridge then has `conversations_url = "https://backend.example/omi/conversations"` and the same secret. A document is
kept as the bytes that came, so nothing of it is lost. What it holds and what the bridge relies on, `docs/stores.md`
says. It needs FastAPI and the standard library.
"""

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple, Protocol

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi import Path as InPath

SCHEMA = "conversation-document"
MAX_DOCUMENT_BYTES = 32 * 2**20
MAX_AGE_S = 300
_SIGNATURE = re.compile(r"t=(\d{1,12}),v1=([0-9a-f]{64})")
ConversationId = Annotated[str, InPath(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")]


class DocumentChanged(Exception):
    """Another document came before."""


class DocumentDeleted(Exception):
    """The conversation was deleted; its id is not used again."""


class KeptDocument(NamedTuple):
    """A document and the tag that no other document of this conversation ever had or will have."""

    tag: str
    document: bytes


class Documents(Protocol):
    """Where documents are kept. What a method did is on disk when it returns. `Call-1` and `call-1` are two ids."""

    def read(self, conversation_id: str) -> KeptDocument | None:
        """Return a document, or None where there is none. Raises `DocumentDeleted`."""
        ...

    def write(self, conversation_id: str, document: bytes, expected_tag: str | None) -> str:
        """Keep a document in place of the one with this tag (None: of none), and return its own tag.

        Looking at the tag and writing are one step: of two writers one gets `DocumentChanged`. Raises
        `DocumentDeleted`.
        """
        ...

    def delete(self, conversation_id: str) -> None:
        """Delete a document for good; the id alone stays."""
        ...


class SqliteDocuments:
    """Documents in a SQLite file."""

    def __init__(self, path: Path) -> None:
        """Open the file, or create it."""
        self._path = path
        with self._writing() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS documents (id TEXT PRIMARY KEY, tag TEXT, document BLOB)")

    def read(self, conversation_id: str) -> KeptDocument | None:
        """See `Documents.read`."""
        with self._writing() as connection:
            return self._find(connection, conversation_id)

    def write(self, conversation_id: str, document: bytes, expected_tag: str | None) -> str:
        """See `Documents.write`."""
        with self._writing() as connection:
            kept = self._find(connection, conversation_id)
            if (kept.tag if kept else None) != expected_tag:
                raise DocumentChanged
            tag = secrets.token_hex(16)
            connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (conversation_id, tag, document))
            return tag

    def delete(self, conversation_id: str) -> None:
        """See `Documents.delete`."""
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO documents VALUES (?, NULL, NULL)", (conversation_id,))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection for one transaction; a reader too sees only what is there as a whole."""
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()  # without COMMIT nothing was done

    @staticmethod
    def _find(connection: sqlite3.Connection, conversation_id: str) -> KeptDocument | None:
        row = connection.execute("SELECT tag, document FROM documents WHERE id = ?", (conversation_id,)).fetchone()
        if row is not None and row[0] is None:
            raise DocumentDeleted
        return None if row is None else KeptDocument(*row)


def conversation_router(documents: Documents, secret: str) -> APIRouter:
    """Return the routes GET, PUT and DELETE `/{conversation_id}`, for the bridge that knows the secret alone."""
    router = APIRouter()

    async def read_signed(request: Request, conversation_id: ConversationId) -> bytes:
        body = await _read_body(request)
        condition = request.headers.get("if-match") or request.headers.get("if-none-match") or ""
        signed = f"{request.method}\n{conversation_id}\n{condition}\n".encode() + body
        if not is_signed(secret, request.headers.get("omi-signature", ""), signed, int(time.time())):
            raise HTTPException(401, "wrong Omi-Signature: have both sides the same secret, and the right time?")
        return body

    @router.get("/{conversation_id}")
    def get_document(conversation_id: ConversationId, _body: Annotated[bytes, Depends(read_signed)]) -> Response:
        try:
            kept = documents.read(conversation_id)
        except DocumentDeleted:
            return _absent(410)
        if kept is None:
            return _absent(404)
        return Response(kept.document, media_type="application/json", headers={"ETag": f'"{kept.tag}"'})

    @router.put("/{conversation_id}")
    def put_document(
        conversation_id: ConversationId, body: Annotated[bytes, Depends(read_signed)], request: Request
    ) -> Response:
        _check_document(conversation_id, body)
        try:
            tag = documents.write(conversation_id, body, _read_condition(request))
        except DocumentDeleted:
            return _absent(410)
        except DocumentChanged:
            raise HTTPException(412, "another document came before: read it and decide anew") from None
        return Response(status_code=204, headers={"ETag": f'"{tag}"'})

    @router.delete("/{conversation_id}")
    def delete_document(conversation_id: ConversationId, _body: Annotated[bytes, Depends(read_signed)]) -> Response:
        documents.delete(conversation_id)
        return Response(status_code=204)

    return router


def is_signed(secret: str, signature: str, signed: bytes, now: int) -> bool:
    """Whether a request was signed with the secret a short while ago. `now` is Unix time."""
    found = _SIGNATURE.fullmatch(signature)
    if found is None or abs(now - int(found[1])) > MAX_AGE_S:
        return False
    right = hmac.new(secret.encode(), f"{found[1]}.".encode() + signed, hashlib.sha256).hexdigest()
    return hmac.compare_digest(right, found[2])


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > MAX_DOCUMENT_BYTES:
            raise HTTPException(413, f"a document has at most {MAX_DOCUMENT_BYTES} bytes")
    return bytes(body)


def _read_condition(request: Request) -> str | None:
    """Return the tag that a document must have to be replaced, or None where there must be none."""
    if request.headers.get("if-none-match") == "*":
        return None
    tag = request.headers.get("if-match", "")
    if len(tag) < len('"x"') or tag[0] + tag[-1] != '""':
        raise HTTPException(428, "say what is to be replaced: If-Match with its ETag, or If-None-Match: *")
    return tag[1:-1]


def _check_document(conversation_id: str, body: bytes) -> None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise HTTPException(400, f"the body is no {SCHEMA}")
    if content.get("conversation_id") != conversation_id:
        raise HTTPException(400, "the body is another conversation's")


def _absent(status: int) -> Response:
    """Return an answer by which the bridge knows that these routes are here, and the conversation is not."""
    return Response(status_code=status, headers={"Omi-Schema": SCHEMA})
