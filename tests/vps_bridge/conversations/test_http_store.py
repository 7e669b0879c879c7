"""The HTTP store beside backends that are slow, broken or lie: it waits so long and believes no wrong answer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from schemas.corrections import Correction
from tests.vps_bridge.conversations.document_server import endpoint_at
from tests.vps_bridge.conversations.odd_backend import Document, HttpReply, HttpRequest, OddBackend, Oddness
from tests.vps_bridge.conversations.test_store import make_segment, speakers_of
from tests.vps_bridge.conversations.test_store_history import correct
from vps_bridge.conversations.document import MAX_DOCUMENT_BYTES
from vps_bridge.conversations.http_store import HttpConversations
from vps_bridge.conversations.store import Applied, Conflict, HumanLabel, Label
from vps_bridge.errors import StoreMisbehaves, StoreUnavailable

SHORT_S = 0.3


@pytest.fixture(scope="module")
def running() -> Iterator[OddBackend]:
    backend = OddBackend()
    with backend.listening():
        yield backend


@pytest.fixture
def backend(running: OddBackend) -> OddBackend:
    """With one conversation, as it should be."""
    running.reset()
    open_at(running).upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00", text="one two")])
    running.requests.clear()
    return running


@pytest.fixture
def store(backend: OddBackend) -> HttpConversations:
    return open_at(backend)


def open_at(backend: OddBackend, **changed: Any) -> HttpConversations:
    return HttpConversations(replace(endpoint_at(backend.port), **changed))


def methods(backend: OddBackend) -> list[str]:
    return [request.method for request in backend.requests]


def reply(status: int, **headers: str) -> Oddness:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _backend, _request: HttpReply(status, named)


def served_as(make: Callable[[HttpReply], HttpReply]) -> Oddness:
    return lambda backend, request: make(backend.serve(request))


def changed_document(change: Callable[[Document], object]) -> Oddness:
    """The document that is kept is another than the one that was sent."""

    def put(backend: OddBackend, request: HttpRequest) -> HttpReply:
        content = json.loads(request.body)
        change(content)
        return HttpReply(headers={"ETag": backend.keep(request.conversation_id, json.dumps(content).encode())})

    return put


def first_segment(**members: Any) -> Callable[[Document], object]:
    return lambda document: document["segments"][0].update(members)


def test_what_is_asked_is_signed_with_its_condition_and_says_for_whom_it_is(backend, store):
    store.upsert_segments("new", 1, [make_segment("a")])
    assert methods(backend) == ["GET", "PUT", "GET"]
    assert all(request.is_signed_with("a-secret-of-these-tests-alone") for request in backend.requests)
    assert not any(request.is_signed_with("another-secret-of-these-tests") for request in backend.requests)
    assert backend.requests[1].headers["if-none-match"] == "*"
    assert {request.path for request in backend.requests} == {"/omi/conversations/new?key=hush"}
    forged = replace(backend.requests[1], headers=backend.requests[1].headers | {"if-none-match": "", "if-match": "x"})
    assert not forged.is_signed_with("a-secret-of-these-tests-alone")


def test_what_changes_nothing_sends_nothing(backend, store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00", text="one two")])
    store.apply("c1", "another revision", "k1", [Label("a", 4)])
    assert methods(backend) == ["GET", "GET"]


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(served_as(lambda _: HttpReply(hangs_up=True)), id="stored, and hung up"),
        pytest.param(served_as(lambda _: HttpReply(502)), id="stored, and a proxy says 502"),
        pytest.param(served_as(lambda _: HttpReply(409)), id="stored, and 409"),
        pytest.param(served_as(lambda one: replace(one, headers={})), id="stored, and no ETag told"),
        pytest.param(reply(500), id="not stored, and 500"),
        pytest.param(lambda *_: HttpReply(hangs_up=True), id="not stored, and hung up"),
    ],
)
def test_a_write_of_which_nobody_knows_is_found_out_and_made_once(backend, store, odd):
    backend.once("PUT", odd)
    assert correct(store, "e1", "a", 4) == Applied(1)
    assert [write.write_key for write in open_at(backend).history("c1")] == ["e1"]
    assert backend.content("c1")["segments"][0]["speaker"] == "SPEAKER_04"
    assert len(backend.requests) <= 6


def test_a_document_that_arrives_after_it_was_given_up_takes_nobodys_place(backend, store):
    late: list[HttpRequest] = []

    def delay(_backend: OddBackend, request: HttpRequest) -> HttpReply:
        late.append(request)
        return HttpReply(504)

    backend.once("PUT", delay)
    assert correct(store, "e1", "a", 4) == Applied(1)
    before = backend.documents["c1"]
    assert backend.answer(late[0]).status == 412
    assert backend.documents["c1"] == before


def test_a_document_that_arrives_late_after_all_is_found_by_who_asks_again(backend):
    late: list[HttpRequest] = []

    def delay(_backend: OddBackend, request: HttpRequest) -> HttpReply:
        late.append(request)
        return HttpReply(504)

    backend.always("PUT", delay)
    with pytest.raises(StoreUnavailable, match="answered 504 to 2 documents in a row"):
        correct(open_at(backend), "e1", "a", 4)
    backend.oddness = lambda *_: None
    assert backend.answer(late[0]).status == 204
    assert backend.answer(late[1]).status == 412
    assert correct(open_at(backend), "e1", "a", 4) == Applied(1)
    assert len(open_at(backend).history("c1")) == 1


@pytest.mark.parametrize("status", [412, 409])
def test_who_is_told_that_another_came_before_reads_again_and_decides_anew(backend, store, status):
    def edited(backend: OddBackend, _request: HttpRequest) -> HttpReply:
        backend.edit("c1", first_segment(text="other words"))
        return HttpReply(status)

    revision = store.read("c1").revision
    backend.once("PUT", edited)
    assert correct(store, "e1", "a", 4) == Applied(1)
    assert store.read("c1").segments[0].text == "other words"
    backend.once("PUT", edited)
    now = store.read("c1").revision
    assert now != revision
    backend.edit("c1", first_segment(speaker="SPEAKER_00", label_source=None, person_id=None))
    assert isinstance(store.apply("c1", now, "k1", [Label("a", 1)]), Conflict)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        pytest.param(reply(204, ETag='"9"'), "stored a document, and does not have it", id="stores nothing"),
        pytest.param(reply(412), "refused a document as out of date, and has no other", id="refuses for no reason"),
        pytest.param(reply(307, Location="/elsewhere"), "307: redirects are not followed", id="leads elsewhere"),
        pytest.param(
            changed_document(first_segment(speaker="SPEAKER_09")), "stored another document", id="stores another label"
        ),
        pytest.param(changed_document(first_segment(start_s=0.5)), "stored another document", id="stores other times"),
        pytest.param(changed_document(lambda it: it.pop("bridge")), "does not have it", id="drops the history"),
        pytest.param(
            changed_document(lambda it: it.update(bridge=it["bridge"][:50])), "keep it as it is", id="cuts the history"
        ),
    ],
)
def test_a_backend_that_does_not_keep_what_it_was_sent_is_found_out(backend, store, odd, said):
    backend.always("PUT", odd)
    with pytest.raises(StoreMisbehaves, match=said) as refused:
        correct(store, "e1", "a", 4)
    assert "hush" not in str(refused.value)
    assert not any("elsewhere" in request.path for request in backend.requests)


def test_an_etag_that_does_not_change_is_found_out_by_the_first_write(backend, store):
    def keep(backend: OddBackend, request: HttpRequest) -> HttpReply:
        tag, _ = backend.documents["c1"]
        backend.documents["c1"] = tag, request.body
        return HttpReply(headers={"ETag": tag})

    backend.always("PUT", keep)
    with pytest.raises(StoreMisbehaves, match="kept the ETag of a document that changed"):
        correct(store, "e1", "a", 4)


def body_of(body: bytes, **headers: str) -> Oddness:
    return lambda *_: HttpReply(200, {"ETag": '"1"', **headers}, body)


def rewritten(change: Callable[[Document], object]) -> Oddness:
    def get(backend: OddBackend, request: HttpRequest) -> HttpReply:
        content = backend.content(request.conversation_id)
        change(content)
        return HttpReply(200, {"ETag": '"1"'}, json.dumps(content).encode())

    return get


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        pytest.param(rewritten(lambda it: it.update(conversation_id="c2")), "not the document of", id="another's"),
        pytest.param(rewritten(lambda it: it["segments"].append(it["segments"][0])), "stands twice", id="an id twice"),
        pytest.param(rewritten(first_segment(start_s="soon")), "segment 0 has a wrong or missing start_s", id="a time"),
        pytest.param(rewritten(lambda it: it["segments"][0].pop("end_s")), "no start_s or end_s", id="no time"),
        pytest.param(rewritten(lambda it: it.update(segments=[{}] * 20_001)), "at most 20000", id="too many"),
        pytest.param(rewritten(lambda it: it.update(version="2.0")), "version", id="another version"),
        pytest.param(rewritten(lambda it: it.update(bridge="eJwDAAAAAAE=")), "keep it as it is", id="an empty history"),
        pytest.param(body_of(b"<html>"), "no JSON", id="a web page"),
        pytest.param(body_of(b'{"schema": NaN}'), "no JSON", id="no number"),
        pytest.param(body_of(b"[" * 100_000), "no JSON", id="nested"),
        pytest.param(body_of(b"{}," * 2_000_000), "more than 3000000 values", id="many values"),
        pytest.param(body_of(b"null"), "no JSON object", id="null"),
        pytest.param(body_of(b" " * (MAX_DOCUMENT_BYTES + 1)), "more than 32 MiB", id="huge"),
        pytest.param(body_of(b"{}", ETag='W/"1"'), "weak ETag", id="a weak ETag"),
        pytest.param(body_of(b"{}", ETag='""'), "an ETag that is none", id="an empty ETag"),
        pytest.param(lambda *_: HttpReply(200, {}, b"{}"), "without an ETag", id="no ETag"),
        pytest.param(reply(404), "404 without", id="a 404 of something else"),
        pytest.param(reply(302, Location="/elsewhere"), "redirects are not followed", id="a redirect"),
    ],
)
def test_an_answer_that_may_not_be_is_refused_with_the_reason(backend, store, odd, said):
    backend.always("GET", odd)
    with pytest.raises(StoreMisbehaves, match=said) as refused:
        store.read("c1")
    assert "docs/stores.md" in str(refused.value)
    assert "one two" not in str(refused.value)
    assert len(backend.requests) == 1


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        pytest.param(reply(500), "answered 500", id="500"),
        pytest.param(reply(401), "answered 401: has it the same secret", id="401"),
        pytest.param(reply(418), "answered 418", id="418"),
        pytest.param(lambda *_: HttpReply(hangs=True), "no answer within", id="silent"),
        pytest.param(body_of(b"{", **{"Content-Length": "100"}), "hung up", id="cut off"),
        pytest.param(lambda *_: HttpReply(200, {"Content-Length": "999"}, drips=True), "no answer within", id="drips"),
        pytest.param(lambda *_: HttpReply(hangs_up=True), "hung up", id="hangs up"),
    ],
)
def test_a_backend_that_does_not_answer_is_unavailable_and_left_alone_for_a_while(backend, odd, said):
    store = open_at(backend, timeout_s=SHORT_S)
    backend.always("GET", odd)
    with pytest.raises(StoreUnavailable, match=said):
        store.read("c1")
    with pytest.raises(StoreUnavailable, match=rf"{re.escape(said)}.*asked again in 0\.\d+ s"):
        correct(store, "e1", "a", 4)
    assert methods(backend) == ["GET"]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_backend_that_has_too_much_to_do_is_left_alone_as_long_as_it_asks_for(backend, store, method):
    backend.always(method, reply(429, Retry_After="120"))
    with pytest.raises(StoreUnavailable, match="answered 429"):
        correct(store, "e1", "a", 4)
    count = len(backend.requests)
    with pytest.raises(StoreUnavailable, match=r"asked again in 1\d\d s"):
        store.read("c1")
    assert len(backend.requests) == count
    backend.oddness = lambda *_: None
    assert open_at(backend).history("c1") == ()


@pytest.mark.parametrize(
    ("status", "said"),
    [(413, "documents of up to 32 MiB"), (410, "deleted the conversation"), (405, "takes no documents")],
)
def test_a_document_that_is_refused_is_not_written_and_says_what_to_do(backend, store, status, said):
    backend.always("PUT", reply(status))
    with pytest.raises(StoreUnavailable, match=f"answered {status}: .*{said}"):
        correct(store, "e1", "a", 4)
    assert methods(backend) == ["GET", "PUT"]


@pytest.mark.parametrize(
    ("method", "odd"),
    [
        pytest.param("PUT", reply(413), id="too large for a proxy"),
        pytest.param("PUT", reply(422), id="not taken"),
        pytest.param("PUT", reply(500), id="the backend fails with it"),
        pytest.param("GET", reply(500), id="the backend cannot read it"),
        pytest.param("GET", body_of(b"{", ETag='"1"'), id="damaged"),
    ],
)
def test_conversations_that_a_backend_refuses_stop_no_other(backend, store, method, odd):
    bad = {"bad-1", "bad-2"}

    def refuse(backend, request):
        return odd(backend, request) if request.method == method and request.conversation_id in bad else None

    backend.oddness = refuse
    kept_out = 0
    for number in range(10):
        for name in bad:
            with pytest.raises(StoreUnavailable):
                store.upsert_segments(name, number, [make_segment("a", text=f"{number}")])
        try:
            store.upsert_segments(f"good-{number}", 1, [make_segment("a")])
        except StoreUnavailable:
            kept_out += 1
            time.sleep(0.6)
    assert kept_out <= 1, "until another conversation has shown that the backend answers"


def test_what_a_person_changes_at_the_backend_counts_and_what_is_the_backends_stays(backend, store):
    store.upsert_segments("c1", 2, [make_segment("b", 1, 2, text="three"), make_segment("c", 2, 3, text="four")])
    store.apply("c1", store.read("c1").revision, "k1", [Label("a", 4), Label("b", 5), Label("c", 6)])

    def edit(document: Document) -> None:
        document["title"] = "Breakfast"
        document["segments"][0] |= {"speaker": "SPEAKER_07", "person_id": "zoe", "label_source": "manual", "colour": 3}
        document["segments"][1] |= {"text": "three and a half"}
        del document["segments"][2]

    backend.edit("c1", edit)
    first, second = store.read("c1").segments
    assert (first.speaker, first.person_id, first.is_human_labelled) == ("SPEAKER_07", "zoe", True)
    assert (second.speaker, second.text, second.is_human_labelled) == ("SPEAKER_05", "three and a half", False)
    revision = store.read("c1").revision
    assert isinstance(store.apply("c1", revision, "k2", [Label("a", 1)]), Conflict)
    assert store.apply("c1", revision, "k3", [Label("b", 8)]) == Applied(2)
    assert not store.upsert_segments("c1", 1, [make_segment("c", 2, 3)]), "the backend removed it"
    kept = backend.content("c1")
    assert (kept["title"], kept["segments"][0]["colour"]) == ("Breakfast", 3)
    assert kept["segments"][0] | {"label_source": "manual", "person_id": "zoe"} == kept["segments"][0]
    assert kept["segments"][1]["speaker"] == "SPEAKER_08"


def test_a_label_that_the_backend_put_back_by_itself_is_written_again(backend, store):
    revision = store.read("c1").revision
    assert store.apply("c1", revision, "k1", [Label("a", 4)]) == Applied(1)
    backend.edit("c1", first_segment(speaker="SPEAKER_00"))
    assert store.apply("c1", store.read("c1").revision, "k1", [Label("a", 4)]) == Applied(2)
    assert speakers_of(store) == {"a": "SPEAKER_04"}


def test_a_correction_is_shown_as_a_persons_and_its_undo_gives_back_what_the_backend_had(backend, store):
    backend.edit("c1", first_segment(person_id="ann", label_source="auto"))
    said = [Correction.model_validate({"kind": "segment_is", "segment_id": "a", "person_id": "zoe"})]
    store.correct("c1", "e1", [HumanLabel("a", person_id="zoe")], corrections=said, by="ben")
    shown = backend.content("c1")["segments"][0]
    assert (shown["person_id"], shown["label_source"]) == ("zoe", "manual")
    store.undo("c1", 1)
    shown = backend.content("c1")["segments"][0]
    assert (shown["person_id"], shown["label_source"]) == ("ann", "auto")


def test_a_label_does_not_stay_with_an_id_that_the_backend_gives_to_another_line(backend, store):
    lines = [make_segment(str(n), 10.0 * n, 10.0 * n + 8.0, text=f"line {n}", speaker="SPEAKER_00") for n in range(4)]
    store.upsert_segments("c2", 1, lines)
    said = [Correction.model_validate({"kind": "segment_is", "segment_id": "1", "person_id": "zoe"})]
    store.correct("c2", "e1", [HumanLabel("1", 4, person_id="zoe")], corrections=said, by="ben")
    spoken = ("text", "start_s", "end_s", "words")

    def one_line_less(document: Document) -> None:
        listed = document["segments"]
        moved = [{name: one[name] for name in spoken} for one in listed[1:]]
        document["segments"] = [one | line for one, line in zip(listed, moved, strict=False)]

    backend.edit("c2", first_segment(text="line nought"))
    assert [one.person_id for one in store.read("c2").segments] == [None, "zoe", None, None]
    backend.edit("c2", one_line_less)
    read = store.read("c2").segments
    assert [(one.text, one.speaker, one.person_id) for one in read] == [
        (f"line {n}", "SPEAKER_00", None) for n in (1, 2, 3)
    ]
    assert not any(one.is_human_labelled for one in read)


def test_a_document_that_the_backend_wrote_first_is_taken_as_it_is(backend, store):
    content = {"schema": "conversation-document", "version": "1.3", "conversation_id": "own", "started": 5}
    content["segments"] = [{"id": "x", "start_s": 0, "end_s": 1, "text": "hi", "speaker": "SPEAKER_1", "mood": "good"}]
    backend.keep("own", json.dumps(content).encode())
    assert speakers_of(store, "own") == {"x": "SPEAKER_01"}
    assert store.apply("own", store.read("own").revision, "k1", [Label("x", 4)]) == Applied(1)
    kept = backend.content("own")
    assert (kept["started"], kept["segments"][0]["mood"], kept["segments"][0]["speaker"]) == (5, "good", "SPEAKER_04")
    store.undo("own", 1)
    assert speakers_of(store, "own") == {"x": "SPEAKER_01"}
