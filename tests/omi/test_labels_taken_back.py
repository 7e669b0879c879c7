"""Labels that were mended, taken back or refused: OMI has in the end what is said here, or the bridge tells of it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import false, select

from schemas.conversation import SegmentLabel, Verdict
from schemas.people import PersonEvent, PersonEventType
from tests.omi.labelled_ledger import NAME, UID, all_told, know, matched, run_sender, update
from tests.omi.omi_api import FakeApi
from tests.vps_bridge.live_bridge import wait_until
from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.omi_conversations import OmiConversationRecord
from vps_bridge.ledger.packing import Brief
from vps_bridge.ledger.tables import ConversationRow
from vps_bridge.ledger.told_segment import ELSEWHERE, ToldSegment
from vps_bridge.omi.api import OmiApi
from vps_bridge.omi.labels_back import LabelSender


def test_a_label_whose_answer_was_lost_can_be_mended(api: FakeApi, ledger: Ledger, sender: LabelSender) -> None:
    del sender
    api.people, api.lost = {"known": "Anna", "other": "Bert"}, 1
    update(ledger, 1, matched("s1", "known"))
    all_told(ledger)
    update(ledger, 2, matched("s1", "other"))
    all_told(ledger)
    assert [body["value"] for _, body in api.assigned] == ["known", "other"]


def test_a_label_that_is_taken_back_here_is_taken_back_in_omi(
    api: FakeApi, ledger: Ledger, sender: LabelSender
) -> None:
    del sender
    api.people = {"known": "Anna", "other": "Bert"}
    know(ledger, "me", "Me", is_owner=True)
    ledger.people.add(UID, "nameless")
    told = [f"s{place}" for place in range(1, 6)]
    update(ledger, 1, *(matched(one, "known") for one in told))
    all_told(ledger)
    api.labels[NAME, "s5"] = "other"
    suggested = SegmentLabel(id="s2", person_id="known", identity="suggested")
    mended = SegmentLabel(id="s1"), suggested, matched("s3", "me"), matched("s4", "nameless"), SegmentLabel(id="s5")
    update(ledger, 2, *mended)
    all_told(ledger)
    assert api.labels == {(NAME, one): "other" if one == "s5" else None for one in told}
    update(ledger, 3, *mended[1:], matched("s1", "known"))
    all_told(ledger)
    assert api.labels[NAME, "s1"] == "known"


def test_a_person_who_is_renamed_here_is_somebody_else_in_omi(
    api: FakeApi, ledger: Ledger, sender: LabelSender
) -> None:
    del sender
    api.people = {"b": "Bert"}
    know(ledger, "p", "Cleo")
    update(ledger, 1, matched("s1", "p"), matched("s2", "p"))
    all_told(ledger)
    api.labels[NAME, "s2"] = None
    again = PersonEvent(event_id="again", type=PersonEventType.NAMED, owner=UID, revision=5, name="Bert")
    ledger.people.note("p", again, Verdict.ACCEPTED)
    wait_until(lambda: api.labels[NAME, "s1"] == "b", "the other one")
    assert api.labels[NAME, "s2"] is None


@pytest.mark.parametrize("said", ["another name", "is me"])
def test_what_is_said_of_a_person_while_her_labels_are_on_their_way_is_told_too(
    api: FakeApi, ledger: Ledger, tmp_path: Path, counts: CaptureCounts, said: str
) -> None:
    know(ledger, "p", "Anna")
    kind = PersonEventType.OWNER if said == "is me" else PersonEventType.NAMED
    name = {} if said == "is me" else {"name": "Annika"}
    fresh = PersonEvent(event_id="fresh", type=kind, owner=UID, revision=5, **name)  # type: ignore[arg-type]
    assign, pending = OmiApi.assign, [fresh]

    def assign_slowly(self: OmiApi, *what: Any) -> None:
        assign(self, *what)
        while pending:
            ledger.people.note("p", pending.pop(), Verdict.ACCEPTED)

    update(ledger, 1, matched("s1", "p"))
    with patch.object(OmiApi, "assign", assign_slowly), run_sender(tmp_path, api, counts):
        wait_until(lambda: (NAME, "s1") in api.labels and not pending, "the first label")
        all_told(ledger)
    assert api.labels == {(NAME, "s1"): None if said == "is me" else "id-of-Annika"}


@pytest.mark.parametrize("told_as", ["it", "another"])
def test_a_report_of_whom_omi_had_while_it_is_told_another_is_mended_too(
    api: FakeApi, ledger: Ledger, tmp_path: Path, counts: CaptureCounts, told_as: str
) -> None:
    """OMI writes the one whom it had read over what it is told, and reports that before its answer is here."""
    api.people, api.labels = {"known": "Anna", "other": "Bert"}, {(NAME, "s1"): "known"}
    record = OmiConversationRecord(NAME, UID, 0.0, 10.0, 2, "", waits=False)
    ledger.omi.put(record, {}, {"s1": ToldSegment("known" if told_as == "it" else ELSEWHERE, "known")})
    assign, pending = OmiApi.assign, [record]

    def assign_and_report(self: OmiApi, *what: Any) -> None:
        assign(self, *what)
        while pending:
            api.labels[NAME, "s1"] = "known"
            told = ledger.omi.told_near(NAME, UID, (0.0, 10.0), {}, 0.0)["s1"]
            ledger.omi.put(pending.pop(), {}, {"s1": told.reported("known")})

    update(ledger, 1, matched("s1", "other"))
    with patch.object(OmiApi, "assign", assign_and_report), run_sender(tmp_path, api, counts):
        wait_until(lambda: not pending, "the report")
        all_told(ledger)
    assert api.labels == {(NAME, "s1"): "other"}


def test_what_a_person_says_in_omi_between_two_calls_is_not_written_over(
    api: FakeApi, ledger: Ledger, tmp_path: Path, counts: CaptureCounts
) -> None:
    api.people, api.refused = {"known": "Anna", "other": "Bert", "hers": "Cleo"}, {"s1"}
    assign, left = OmiApi.assign, ["s4", "s3"]

    def assign_slowly(self: OmiApi, uid: str, name: str, ids: Sequence[str], who: str | None) -> None:
        if left:
            api.labels[NAME, left.pop()] = "hers"
        assign(self, uid, name, ids, who)

    update(ledger, 1, *(matched(one, "known") for one in ("s1", "s2", "s3")), matched("s4", "other"))
    with patch.object(OmiApi, "assign", assign_slowly), run_sender(tmp_path, api, counts):
        wait_until(lambda: counts.labels_waiting == 1 and not left, "it to be told that one line is refused")
        api.refused = set()
        all_told(ledger)
    assert api.labels == {(NAME, "s1"): "known", (NAME, "s2"): "known", (NAME, "s3"): "hers", (NAME, "s4"): "hers"}


def test_an_old_report_takes_nothing_of_what_was_told_meanwhile(ledger: Ledger) -> None:
    tried = ToldSegment("a", "known", ("other",))
    record = OmiConversationRecord(NAME, UID, 0.0, 10.0, 2, "", waits=False)
    update(ledger, 1, matched("s1", "b"))
    ledger.omi.put(record, {}, {"s1": ToldSegment("b", "other")})
    ledger.omi.put(record, {}, {"s1": tried})  # as it was when the report was read
    told = ledger.omi.told_near(NAME, UID, (0.0, 10.0), {}, 0.0)["s1"]
    assert told == ToldSegment("b", "other", ("other",))


def test_what_a_person_said_otherwise_in_omi_once_stays_there_also_as_we_had_it(
    api: FakeApi, ledger: Ledger, sender: LabelSender
) -> None:
    del sender
    api.people = {"known": "Anna", "other": "Bert", "third": "Cleo"}
    update(ledger, 1, matched("s1", "known"), matched("s2", "known"))
    all_told(ledger)
    record = OmiConversationRecord(NAME, UID, 0.0, 10.0, 2, "", waits=False)
    ledger.omi.put(record, {"other": ["s1"]}, {"s1": ToldSegment()})
    api.labels[NAME, "s1"] = "known"
    update(ledger, 2, matched("s1", "third"), matched("s2", "third"))
    all_told(ledger)
    assert api.labels == {(NAME, "s1"): "known", (NAME, "s2"): "third"}


@pytest.mark.parametrize("trouble", ["locked", "old", "two of one name", "other segments"])
def test_labels_that_omi_does_not_take_yet_are_told_of_and_sent_later(
    api: FakeApi, ledger: Ledger, sender: LabelSender, counts: CaptureCounts, trouble: str
) -> None:
    del sender
    api.people = {"one": "Anna", "two": "anna"} if trouble == "two of one name" else {"one": "Anna"}
    api.locked, api.is_old = {NAME} if trouble == "locked" else set(), trouble == "old"
    segments, api.segments = api.segments, [] if trouble == "other segments" else api.segments
    know(ledger, "p", "Anna")
    update(ledger, 1, matched("s1", "p"))
    wait_until(lambda: counts.labels_waiting == 1, "it to be told of")
    api.locked, api.is_old, api.segments = set(), False, segments
    api.people = {"one": "Anna"}
    all_told(ledger)
    assert api.labels == {(NAME, "s1"): "one"}


def test_what_was_told_for_a_conversation_before_its_merge_can_be_mended_and_stays_where_nobody_is_named(
    api: FakeApi, ledger: Ledger, sender: LabelSender
) -> None:
    del sender
    api.people, api.labels = {"known": "Anna", "other": "Bert"}, {(NAME, "s1"): "known", (NAME, "s2"): "known"}
    first = OmiConversationRecord("first", UID, -3_000.0, -50.0, 1, "", waits=False)
    ledger.omi.put(first, {}, {"s1": ToldSegment("a", "known"), "s2": ToldSegment("a", "known")})
    told = ledger.omi.told_near(NAME, UID, (0.0, 10.0), {}, 0.0)
    assert told == dict.fromkeys(("s1", "s2"), ToldSegment(ELSEWHERE, "known"))
    assert ledger.omi.told_near(NAME, "somebody else", (0.0, 10.0), {}, 0.0) == {}
    assert ledger.omi.told_near(NAME, UID, (500.0, 510.0), {}, 0.0) == {}
    ledger.omi.put(OmiConversationRecord(NAME, UID, 0.0, 10.0, 2, "", waits=False), {}, told)
    update(ledger, 1, SegmentLabel(id="s1"), SegmentLabel(id="s2"), matched("s3", "known"))
    all_told(ledger)
    assert set(api.labels.values()) == {"known"}
    update(ledger, 2, matched("s1", "other"), SegmentLabel(id="s2"), matched("s3", "known"))
    all_told(ledger)
    update(ledger, 3, SegmentLabel(id="s1"), SegmentLabel(id="s2"), matched("s3", "known"))
    all_told(ledger)
    assert api.labels == {(NAME, "s1"): None, (NAME, "s2"): "known", (NAME, "s3"): "known"}
    assert "other" in [body["value"] for _, body in api.assigned]


@pytest.mark.parametrize("order", [("known", "other"), ("other", "known")])
@pytest.mark.parametrize("told_itself", [False, True])
def test_whom_any_conversation_told_of_a_segment_is_ours_unless_a_person_said_otherwise_in_one(
    ledger: Ledger, order: tuple[str, str], *, told_itself: bool
) -> None:
    """A line that was mended in a conversation after another that it was merged from; one may be taken apart again."""
    span = 0.0, 10.0
    for place, theirs in enumerate(order):
        before = OmiConversationRecord(f"before-{place}", UID, -20.0 + place, 10.0, 1, "", waits=False)
        ledger.omi.put(before, {}, {"s1": ToldSegment("a", theirs)})
    record = OmiConversationRecord(NAME, UID, *span, 2, "", waits=False)
    if told_itself:
        ledger.omi.put(record, {}, {"s1": ToldSegment("b", "third")})

    def is_ours(theirs: str) -> bool:
        return ledger.omi.told_near(NAME, UID, span, {"s1": theirs}, 0.0)["s1"].may_be(theirs, 0.0)

    assert [is_ours(one) for one in ("known", "other", "third", "fourth")] == [True, True, told_itself, False]
    ledger.omi.put(before, {}, {"s1": ToldSegment()})
    assert not is_ours(order[0]) or told_itself
    ledger.omi.put(record, {}, {"s1": ToldSegment()})
    assert not any(map(is_ours, order))


def test_labels_stay_where_omi_does_not_list_its_people(
    api: FakeApi, ledger: Ledger, sender: LabelSender, counts: CaptureCounts
) -> None:
    del sender
    api.people = {"known": "Anna", "other": "Bert"}
    update(ledger, 1, matched("s1", "known"))
    all_told(ledger)
    api.wraps_people = True
    update(ledger, 2, matched("s1", "other"))
    wait_until(lambda: counts.labels_waiting == 1, "it to be told of")
    assert api.labels == {(NAME, "s1"): "known"}
    api.wraps_people = False
    all_told(ledger)
    assert api.labels == {(NAME, "s1"): "other"}


def test_whom_omi_was_told_before_is_an_echo_for_minutes(api: FakeApi, ledger: Ledger, sender: LabelSender) -> None:
    del sender
    api.people = {"known": "Anna", "other": "Bert"}
    for version, who in ((1, "known"), (2, "other"), (3, "other")):
        update(ledger, version, matched("s1", who))
        all_told(ledger)
    told, now = ledger.omi.told_near(NAME, UID, (0.0, 10.0), {}, 0.0)["s1"], time.time()
    found = [told.may_be(who, now + later_s) for who in ("other", "known", None) for later_s in (0.0, 301.0, -86_400.0)]
    assert found == [True, True, True, True, False, False, True, False, False]


@pytest.mark.parametrize("name", ["Zoe\u0301  Smith ", "Zo\u00e9 Smith\u200b", "Zo\u00e9 Smi\u00adth"])
def test_a_person_is_found_in_omi_however_the_name_was_typed(
    api: FakeApi, ledger: Ledger, sender: LabelSender, name: str
) -> None:
    del sender
    api.people = {"z": name}
    know(ledger, "p", "zo\u00e9 Smith")
    update(ledger, 1, matched("s1", "p"))
    all_told(ledger)
    assert api.labels == {(NAME, "s1"): "z"}


@pytest.mark.parametrize(("most", "refused"), [(5, 0), (300, 40)])
def test_of_many_segments_all_that_omi_takes_are_sent(
    api: FakeApi, ledger: Ledger, sender: LabelSender, most: int, refused: int
) -> None:
    del sender
    api.people, api.most = {"known": "Anna"}, most
    api.segments = [f"t{place}" for place in range(300)]
    api.refused = set(api.segments[:refused])
    update(ledger, 1, *(matched(one, "known") for one in api.segments))
    wait_until(lambda: len(api.labels) == 300 - refused, "all but those")
    api.refused = set()
    all_told(ledger)
    assert len(api.labels) == 300


def test_lines_of_a_packed_conversation_are_sent_too(api: FakeApi, ledger: Ledger, sender: LabelSender) -> None:
    del sender
    api.people = {"other": "Bert"}
    ledger.people.add(UID, "new")
    update(ledger, 1, matched("s1", "new"))
    all_told(ledger)
    all_of_it = select(ConversationRow.conversation_id)  # days later, and the backend has confirmed it
    packing: dict[str, Any] = {"_IS_IDLE": all_of_it, "_IS_TO_SEND": all_of_it.where(false())}
    with patch.multiple("vps_bridge.ledger.packing", **packing):
        assert ledger.packs.pack(NAME, Brief([], ("new",), holds_voices=False), time.time())
    know(ledger, "new", "Cleo")
    wait_until(lambda: api.assigned, "the label")
    all_told(ledger)
    assert api.labels == {(NAME, "s1"): "id-of-Cleo"}
    assert ledger.packs.packed_among({NAME}) == {NAME}
