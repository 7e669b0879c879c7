"""Labels of named people reach OMI once, never as the owner, and never over what people do there."""

import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from broker.errors import SettingsError
from schemas.conversation import SegmentLabel, Verdict
from schemas.people import PersonEvent, PersonEventType
from tests.omi.labelled_ledger import NAME, UID, add, all_told, know, matched, update
from tests.omi.omi_api import ADMIN_KEY, FakeApi, run_api
from tests.vps_bridge.live_bridge import wait_until
from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.omi.api import ApiFailed, OmiApi, read_api
from vps_bridge.omi.labels_back import LabelSender
from vps_bridge.settings import BridgeSettings


def test_named_people_are_assigned_once_and_the_owner_never(api: FakeApi, ledger: Ledger, sender: LabelSender) -> None:
    del sender
    api.people = {"known": "Anna", "theirs": "Bert"}
    api.statuses = [503, 404]
    know(ledger, "ours", "bert")
    know(ledger, "new", "Cleo")
    know(ledger, "me", "Me", is_owner=True)
    update(
        ledger,
        1,
        SegmentLabel(id="s1", person_id="ours", identity="matched"),
        SegmentLabel(id="s2", person_id="me", identity="matched"),
        SegmentLabel(id="s3", person_id="ours", identity="suggested"),
        SegmentLabel(id="s9", person_id="ours", identity="matched"),
    )
    wait_until(lambda: not api.statuses, "two refusals")
    update(
        ledger,
        2,
        SegmentLabel(id="s1", person_id="ours", identity="matched"),
        SegmentLabel(id="s4", person_id="known", identity="confirmed"),
        SegmentLabel(id="s5", person_id="new", identity="matched"),
        SegmentLabel(id="s6"),
    )
    wait_until(lambda: len(api.assigned) == 3, "the second update's labels")
    wait_until(lambda: ledger.omi.next_untold(()) is None, "all to be told")
    path = f"/v1/conversations/{NAME}/segments/assign-bulk"
    assert [one for one, _ in api.assigned] == [path, path, path]
    assert [body for _, body in api.assigned] == [
        {"segment_ids": ["s1"], "assign_type": "person_id", "value": "theirs"},
        {"segment_ids": ["s4"], "assign_type": "person_id", "value": "known"},
        {"segment_ids": ["s5"], "assign_type": "person_id", "value": "id-of-Cleo"},
    ]
    assert api.keys == {f"Bearer {ADMIN_KEY}{UID}"}


def test_what_fails_now_is_sent_later(api: FakeApi, ledger: Ledger, sender: LabelSender) -> None:
    del sender
    api.people = {"known": "Anna"}
    api.statuses = [503, 401, 308]
    update(ledger, 1, SegmentLabel(id="s1", person_id="known", identity="matched"))
    wait_until(lambda: api.assigned, "the label")
    wait_until(lambda: ledger.omi.next_untold(()) is None, "it to be noted")
    assert len(api.assigned) == 1


def test_a_user_that_omi_does_not_answer_for_stops_no_other(
    api: FakeApi, ledger: Ledger, sender: LabelSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    del sender
    monkeypatch.setattr("vps_bridge.omi.api.TIMEOUT_S", 0.5)
    api.people, api.unknown, api.endless = {"known": "Anna"}, {"gone"}, {"slow"}
    label = SegmentLabel(id="s1", person_id="known", identity="matched")
    for name, uid in (("a-gone", "gone"), ("a-slow", "slow")):
        add(ledger, name, uid)
        update(ledger, 1, label, name=name)
    time.sleep(3.0)  # each was tried
    update(ledger, 1, label)
    wait_until(lambda: api.assigned, "the label of the third")
    api.unknown = set()
    api.endless = set()
    wait_until(lambda: ledger.omi.next_untold(()) is None, "all to be told, theirs too")
    assert len(api.assigned) == 3


def test_what_omi_took_is_not_sent_again_where_it_fails_with_the_rest(
    api: FakeApi, ledger: Ledger, sender: LabelSender
) -> None:
    del sender
    api.people, api.failing = {"known": "Anna", "other": "Bert"}, {"other"}
    labels = [
        SegmentLabel(id=name, person_id=who, identity="matched") for name, who in (("s1", "known"), ("s2", "other"))
    ]
    update(ledger, 1, *labels)
    time.sleep(3.0)  # it was tried more than once
    assert [body["segment_ids"] for _, body in api.assigned] == [["s1"]]
    api.failing = set()
    wait_until(lambda: ledger.omi.next_untold(()) is None, "all to be told")
    assert [body["segment_ids"] for _, body in api.assigned] == [["s1"], ["s2"]]


def test_lines_of_somebody_without_a_name_are_sent_once_there_is_one(
    api: FakeApi, ledger: Ledger, sender: LabelSender
) -> None:
    del sender
    api.people = {"other": "Bert"}
    ledger.people.add(UID, "new")
    update(ledger, 1, SegmentLabel(id="s1", person_id="new", identity="confirmed"))
    wait_until(lambda: ledger.omi.next_untold(()) is None, "it to be looked at")
    assert api.assigned == []
    know(ledger, "new", "Cleo")
    wait_until(lambda: api.assigned, "the label")
    assert api.assigned[0][1] == {"segment_ids": ["s1"], "assign_type": "person_id", "value": "id-of-Cleo"}


def test_what_somebody_said_in_omi_is_not_written_over(api: FakeApi, ledger: Ledger, sender: LabelSender) -> None:
    del sender
    api.people = {"known": "Anna", "other": "Bert"}
    api.labels = {(NAME, "s1"): "other", (NAME, "s2"): "is_user"}
    update(ledger, 1, *(matched(f"s{place}", "known") for place in (1, 2, 3, 4)))
    all_told(ledger)
    assert [body["segment_ids"] for _, body in api.assigned] == [["s3", "s4"]]
    api.labels[NAME, "s3"], api.labels[NAME, "s4"] = "other", None
    update(ledger, 2, *(matched(f"s{place}", "new") for place in (1, 2, 3, 4)))
    know(ledger, "new", "Cleo")
    all_told(ledger)
    assert len(api.assigned) == 1


def test_a_label_that_is_mended_here_is_mended_in_omi(api: FakeApi, ledger: Ledger, sender: LabelSender) -> None:
    del sender
    api.people = {"known": "Anna", "other": "Bert"}
    update(ledger, 1, matched("s1", "known"), matched("s2", "known"))
    all_told(ledger)
    update(ledger, 2, matched("s1", "known"), matched("s2", "other"))
    all_told(ledger)
    assert api.labels == {(NAME, "s1"): "known", (NAME, "s2"): "other"}
    update(ledger, 3, matched("s1", "known"), matched("s2", "known"))
    all_told(ledger)
    assert api.labels == {(NAME, "s1"): "known", (NAME, "s2"): "known"}
    assert len(api.assigned) == 3


def test_a_segment_that_omi_does_not_take_keeps_no_other_back(
    api: FakeApi, ledger: Ledger, sender: LabelSender, counts: CaptureCounts
) -> None:
    del sender
    api.people, api.refused, api.segments = {"known": "Anna"}, {"s5"}, [f"s{place}" for place in range(1, 9)]
    update(ledger, 1, *(matched(f"s{place}", "known") for place in range(1, 10)))  # OMI has no s9 any more
    wait_until(lambda: len(api.labels) == 7, "all but the one")
    wait_until(lambda: counts.labels_waiting == 1, "the one to be told of")
    assert "409" in counts.labels_error
    api.refused = set()
    all_told(ledger)
    assert set(api.labels) == {(NAME, f"s{place}") for place in range(1, 9)}
    wait_until(lambda: not counts.labels_error, "nothing to be told of any more")


def test_a_person_whom_omi_always_fails_with_keeps_no_other_back(
    api: FakeApi, ledger: Ledger, sender: LabelSender, counts: CaptureCounts
) -> None:
    del sender
    api.people, api.failing = {"a": "Anna", "b": "Bert", "c": "Cleo"}, {"a"}
    update(ledger, 1, matched("s1", "a"), matched("s2", "b"), matched("s3", "c"))
    wait_until(lambda: len(api.assigned) == 2, "the other two")
    assert api.labels == {(NAME, "s2"): "b", (NAME, "s3"): "c"}
    wait_until(lambda: counts.labels_waiting == 1, "it to be told of")
    api.failing = set()
    all_told(ledger)
    assert len(api.assigned) == 3


def test_an_update_that_cannot_be_read_stops_no_other(api: FakeApi, ledger: Ledger, sender: LabelSender) -> None:
    del sender
    api.people = {"known": "Anna"}
    add(ledger, "a-broken")
    made = AssignedUpdate([], "key", b"no update", final=True, done_jobs=(), seen=0)
    ledger.conversations.note_update("a-broken", made)
    update(ledger, 1, matched("s1", "known"))
    wait_until(lambda: api.assigned, "the label of the other")


def test_a_name_that_omi_does_not_take_is_told_of_and_waits_for_another(
    api: FakeApi, ledger: Ledger, sender: LabelSender, counts: CaptureCounts
) -> None:
    del sender
    api.unnamable, api.people = {"J"}, {"known": "Anna"}
    know(ledger, "new", "J")
    update(ledger, 1, matched("s1", "new"), matched("s2", "known"))
    wait_until(lambda: counts.labels_waiting == 1 and "name" in counts.labels_error, "it to be told of")
    assert api.labels == {(NAME, "s2"): "known"}
    know_again = PersonEvent(event_id="again", type=PersonEventType.NAMED, owner=UID, revision=5, name="Jo")
    ledger.people.note("new", know_again, Verdict.ACCEPTED)
    all_told(ledger)
    assert api.labels == {(NAME, "s1"): "id-of-Jo", (NAME, "s2"): "known"}
    wait_until(lambda: not counts.labels_error, "it to be told of no more")


def test_lines_of_somebody_whom_omi_alone_knows_wait_while_it_lists_nobody(
    api: FakeApi, ledger: Ledger, sender: LabelSender, counts: CaptureCounts
) -> None:
    del sender
    update(ledger, 1, matched("s1", "known"))
    wait_until(lambda: counts.labels_waiting == 1 and "lists no people" in counts.labels_error, "it to be told of")
    api.people = {"known": "Anna"}
    all_told(ledger)
    assert api.labels == {(NAME, "s1"): "known"}


def test_lines_of_somebody_who_is_the_owner_no_more_are_sent(api: FakeApi, ledger: Ledger, sender: LabelSender) -> None:
    del sender
    know(ledger, "me", "Cleo", is_owner=True)
    update(ledger, 1, matched("s1", "me"))
    all_told(ledger)
    assert api.assigned == []
    other = PersonEvent(event_id="not", type=PersonEventType.OWNER, owner=UID, revision=5, is_owner=False)
    ledger.people.note("me", other, Verdict.ACCEPTED)
    wait_until(lambda: api.assigned, "the label")
    assert api.labels == {(NAME, "s1"): "id-of-Cleo"}


def test_a_conversation_that_was_deleted_in_omi_stops_nothing(
    api: FakeApi, ledger: Ledger, sender: LabelSender
) -> None:
    del sender
    api.people, api.gone = {"known": "Anna"}, {NAME}
    update(ledger, 1, matched("s1", "known"))
    all_told(ledger)
    assert api.assigned == []
    api.gone = set()  # restored there, and reported again as it was
    add(ledger, NAME)
    wait_until(lambda: api.labels == {(NAME, "s1"): "known"}, "the label")
    all_told(ledger)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>no server is ready</html>"),
        (404, b"404 page not found"),
        (404, b'{"message": "no route matched"}'),
        (404, b'{"detail": "Not Found"}'),
        (404, b""),
        (400, b'{"detail": "bad request"}'),
        (405, b"<html>blocked by a rule</html>"),
    ],
)
def test_a_conversation_that_something_else_than_omi_refuses_to_show_is_not_taken_for_deleted(
    api: FakeApi, ledger: Ledger, sender: LabelSender, counts: CaptureCounts, status: int, body: bytes
) -> None:
    del sender
    api.people, api.shut = {"known": "Anna"}, (status, body)
    update(ledger, 1, matched("s1", "known"))
    wait_until(lambda: counts.labels_waiting == 1 and str(status) in counts.labels_error, "it to be told of")
    api.shut = None
    wait_until(lambda: api.labels == {(NAME, "s1"): "known"}, "the label")


@pytest.mark.parametrize("number", [2, 101])
def test_conversations_that_omi_fails_with_stop_no_other(
    api: FakeApi, ledger: Ledger, sender: LabelSender, number: int
) -> None:
    del sender
    api.people, api.broken = {"known": "Anna"}, {f"a{place}" for place in range(number)}
    for name in sorted(api.broken):
        add(ledger, name)
        update(ledger, 1, SegmentLabel(id="s1", person_id="known", identity="matched"), name=name)
    time.sleep(3.0)  # two have failed at least
    update(ledger, 1, SegmentLabel(id="s1", person_id="known", identity="matched"))
    wait_until(lambda: api.assigned, "the label of the third")
    api.broken = set()
    wait_until(lambda: ledger.omi.next_untold(()) is None, "all to be told")


def test_a_key_or_a_users_id_that_no_header_can_have_is_told_of() -> None:
    for key, uid in ((f"{ADMIN_KEY}\u200b", UID), (ADMIN_KEY, "李雷")):
        with pytest.raises(ApiFailed, match="has letters that a header of HTTP cannot have"), run_api() as running:
            OmiApi("http", "127.0.0.1", running.port, "", key).list_people(uid)


@pytest.mark.parametrize("url", ["http://omi.example.org", "ftp://127.0.0.1", "https://", "https://a:b@host", "x"])
def test_the_admin_key_leaves_this_machine_only_encrypted(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError):
        read_api(BridgeSettings(data_dir=tmp_path, omi_api_url=url, omi_admin_key=SecretStr(ADMIN_KEY)))


def test_without_a_url_nothing_goes_back_and_without_a_key_the_bridge_says_so(tmp_path: Path) -> None:
    assert read_api(BridgeSettings(data_dir=tmp_path)) is None
    with pytest.raises(SettingsError, match="ADMIN_KEY"):
        read_api(BridgeSettings(data_dir=tmp_path, omi_api_url="https://omi.example.org"))
    api = read_api(
        BridgeSettings(data_dir=tmp_path, omi_api_url="http://127.0.0.1:8000/x/", omi_admin_key=SecretStr(ADMIN_KEY))
    )
    assert api == OmiApi("http", "127.0.0.1", 8_000, "/x", ADMIN_KEY)
    assert ADMIN_KEY not in repr(api)
