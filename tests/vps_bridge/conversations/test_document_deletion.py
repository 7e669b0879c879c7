"""Deleting a conversation at a backend that keeps documents: that one, and no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vps_bridge.conversations.document_server import endpoint_at
from tests.vps_bridge.conversations.odd_backend import HttpReply, HttpRequest, OddBackend
from tests.vps_bridge.conversations.test_store import make_segment
from vps_bridge.conversations.http_store import HttpConversations
from vps_bridge.errors import StoreMisbehaves


@pytest.fixture
def backend() -> Iterator[OddBackend]:
    """With one conversation, as it should be."""
    backend = OddBackend()
    with backend.listening():
        open_at(backend).upsert_segments("c1", 1, [make_segment("a", text="one two")])
        yield backend


@pytest.fixture
def store(backend: OddBackend) -> HttpConversations:
    return open_at(backend)


def open_at(backend: OddBackend) -> HttpConversations:
    return HttpConversations(endpoint_at(backend.port))


def test_a_deletion_that_did_not_happen_is_found_out(backend: OddBackend, store: HttpConversations) -> None:
    backend.always("DELETE", lambda _backend, _request: HttpReply())
    with pytest.raises(StoreMisbehaves, match="said that it deleted"):
        store.delete("c1")


def ignoring_case(backend: OddBackend, request: HttpRequest) -> HttpReply:
    """As a table whose key is compared without case, which is how MySQL compares where nobody says otherwise."""
    found = next((name for name in backend.documents if name.lower() == request.conversation_id.lower()), None)
    if request.method == "DELETE":
        backend.documents.pop(found or "", None)
        return HttpReply()
    if found is None:
        return HttpReply(404, {"Omi-Schema": "conversation-document"})
    etag, body = backend.documents[found]
    return HttpReply(200, {"ETag": etag}, body)


def test_the_deletion_of_a_conversation_leaves_another_that_the_backend_takes_for_it(
    backend: OddBackend, store: HttpConversations
) -> None:
    backend.oddness = ignoring_case
    with pytest.raises(StoreMisbehaves, match="capitals"):
        store.delete("C1")
    assert backend.content("c1")["segments"][0]["text"] == "one two"
    store.delete("c1")
    assert not backend.documents


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"conversation_id": null}'])
def test_a_document_that_cannot_be_read_can_be_deleted(
    backend: OddBackend, store: HttpConversations, body: bytes
) -> None:
    backend.keep("c1", body)
    store.delete("c1")
    assert not backend.documents
