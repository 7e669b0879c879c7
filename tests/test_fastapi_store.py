"""The router for a backend: what it refuses, and that a deleted conversation's id is used no more."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response

from integrations.fastapi_store import MAX_DOCUMENT_BYTES, SqliteDocuments, conversation_router
from vps_bridge.signed_endpoint import sign

SECRET = "a-secret-of-these-tests-alone"
DOCUMENT = json.dumps({"schema": "conversation-document", "conversation_id": "c1", "segments": []}).encode()
NEW = {"If-None-Match": "*"}


class SignedClient:
    def __init__(self, path: Path) -> None:
        self.app = FastAPI()
        self.app.include_router(conversation_router(SqliteDocuments(path), SECRET))

    async def ask(
        self,
        method: str,
        body: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        secret: str = SECRET,
        age_s: int = 0,
        signed_as: dict[str, Any] | None = None,
    ) -> Response:
        condition = "".join((headers or {}).values())
        parts: dict[str, Any] = {"method": method, "name": "c1", "condition": condition, "body": body}
        parts |= signed_as or {}
        signed: bytes = f"{parts['method']}\n{parts['name']}\n{parts['condition']}\n".encode() + parts["body"]
        own = {"Omi-Signature": sign(secret, int(time.time()) - age_s, signed), **(headers or {})}
        async with AsyncClient(transport=ASGITransport(self.app), base_url="http://backend") as client:
            return await client.request(method, "/c1", content=body, headers=own)


@pytest.fixture
def client(tmp_path: Path) -> SignedClient:
    return SignedClient(tmp_path / "documents.sqlite3")


@pytest.mark.asyncio
async def test_a_document_comes_back_as_it_was_sent_and_only_its_own_tag_replaces_it(client):
    absent = await client.ask("GET")
    assert (absent.status_code, absent.headers["Omi-Schema"]) == (404, "conversation-document")
    first = await client.ask("PUT", DOCUMENT, headers=NEW)
    read = await client.ask("GET")
    assert (read.content, read.headers["ETag"]) == (DOCUMENT, first.headers["ETag"])
    assert (await client.ask("PUT", DOCUMENT, headers=NEW)).status_code == 412
    second = await client.ask("PUT", DOCUMENT + b" ", headers={"If-Match": first.headers["ETag"]})
    assert second.status_code == 204
    assert second.headers["ETag"] != first.headers["ETag"]
    assert (await client.ask("PUT", DOCUMENT, headers={"If-Match": first.headers["ETag"]})).status_code == 412
    assert (await client.ask("GET")).content == DOCUMENT + b" "


@pytest.mark.asyncio
async def test_a_deleted_conversation_is_gone_from_the_file_and_its_id_is_used_no_more(client, tmp_path):
    secret = DOCUMENT.replace(b"[]", b'[{"text": "very secret"}]')
    await client.ask("PUT", secret, headers=NEW)
    assert (await client.ask("DELETE")).status_code == 204
    gone = await client.ask("GET")
    assert (gone.status_code, gone.headers["Omi-Schema"]) == (410, "conversation-document")
    assert (await client.ask("PUT", DOCUMENT, headers=NEW)).status_code == 410
    assert (await client.ask("DELETE")).status_code == 204
    assert b"very secret" not in (tmp_path / "documents.sqlite3").read_bytes()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": "another-secret-altogether"},
        {"age_s": 301},
        {"age_s": -301},
        {"signed_as": {"method": "DELETE"}},
        {"signed_as": {"name": "c2"}},
        {"signed_as": {"condition": '"1"'}},
        {"signed_as": {"body": DOCUMENT + b" "}},
        {"headers": NEW | {"Omi-Signature": "t=1,v1=2"}},
    ],
    ids=str,
)
async def test_what_is_not_signed_as_it_is_is_refused(client, wrong):
    assert (await client.ask("PUT", DOCUMENT, **{"headers": NEW, **wrong})).status_code == 401
    assert (await client.ask("GET")).status_code == 404


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (DOCUMENT, {}, 428),
        (DOCUMENT, {"If-Match": "unquoted"}, 428),
        (b"no JSON", NEW, 400),
        (b"[" * 100_000, NEW, 400),
        (DOCUMENT.replace(b"c1", b"c2"), NEW, 400),
        (b" " * (MAX_DOCUMENT_BYTES + 1), NEW, 413),
    ],
    ids=["no condition", "no tag", "no JSON", "nested", "another conversation", "too large"],
)
async def test_what_is_no_document_is_refused(client, body, headers, status):
    assert (await client.ask("PUT", body, headers=headers)).status_code == status
