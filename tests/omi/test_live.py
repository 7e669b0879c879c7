"""Live segments of OMI are shown as they come, and end with the report of their conversation."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from schemas.conversation import EventType, Verdict
from schemas.corrections import Correction
from tests.brokers import RunningBroker, free_port
from tests.omi.clocked_bridge import ClockedBridge, start_clocked
from tests.omi.traffic import OmiSender, make_document
from tests.vps_bridge.live_bridge import Backend, wait_until
from vps_bridge.omi.users import UserFile

BEGAN_AT = 1_780_000_000.0
HOUR_S = 3_600.0
TOKEN = "for-programs-" + "x" * 20


@pytest.fixture(scope="module")
def omi(
    mosquitto: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClockedBridge]:
    options = {"OMI_HTTP_PORT": str(free_port()), "OMI_HTTP_TOKEN": TOKEN}
    bridge = start_clocked(mosquitto, tmp_path_factory.mktemp("data"), backend, BEGAN_AT, **options)
    yield bridge
    assert bridge.stop() == 0, bridge.log_file.read_text()


def live_talks(omi: ClockedBridge, uid: str) -> dict[str, list[str]]:
    """The conversations that show what a user's OMI hears, with what is said in them."""

    def read(path: str, **query: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{omi.options['OMI_HTTP_PORT']}/v1/conversations{path}"
        answer = httpx.get(url, params=query, headers={"Authorization": f"Bearer {TOKEN}"})
        return dict(answer.json()) if answer.is_success else {}  # it may have been deleted meanwhile

    listed = read("", waits_for="live: OMI has not reported it yet")["conversations"]
    found = {item["conversation_id"]: read(f"/{item['conversation_id']}") for item in listed}
    return {
        name: [segment["text"] for segment in talk["segments"]]
        for name, talk in found.items()
        if talk.get("owner") == uid
    }


def test_live_segments_are_shown_as_they_come_until_their_conversation_is_reported(
    omi: ClockedBridge, backend: Backend
) -> None:
    sender = OmiSender(omi.add_user("seen"), "B")
    old, began_at = OmiSender(omi.add_user("seen-old"), "A", is_signed=False), BEGAN_AT + 300
    rows = [{"id": f"live-{n}", "start": 4.0 * n, "end": 4.0 * n + 3, "text": f"words {n}"} for n in range(5)]
    for post in sender.send_live(rows[:2], began_at):
        assert omi.post(post).json() == {}
    (name,) = wait_until(lambda: live_talks(omi, "seen"), "the first live segments")
    # A segment grows while somebody speaks, and the restart of a bridge begins nothing anew.
    omi.kill()
    omi.start(backend)
    omi.wait_open()
    for post in sender.send_live([{**rows[1], "text": "words 1 and more"}, *rows[2:]], began_at):
        assert omi.post(post).json() == {}
    said = ["words 0", "words 1 and more", "words 2", "words 3", "words 4"]
    wait_until(lambda: live_talks(omi, "seen") == {name: said}, "all of them, in one talk")
    # Older backends say whose it is with `session_id` and send a bare list; half a segment is no reason to refuse.
    bare = json.dumps([rows[0], {"id": "broken", "end": 3}]).encode()
    path = f"/omi/transcript?token={old.access.token}?session_id=seen-old"
    assert omi.client.post(path, content=bare).json() == {}
    assert omi.client.post(path, content=json.dumps(rows[:1]).encode()).json() == {}
    wait_until(lambda: list(live_talks(omi, "seen-old").values()) == [["words 0"]], "those of an older backend")
    # The next talk is another one: OMI counts its seconds anew.
    later = [{**row, "id": f"next-{place}"} for place, row in enumerate(rows)]
    for post in sender.send_live(later, began_at + 200):
        omi.post(post)
    wait_until(lambda: len(live_talks(omi, "seen")) == 2, "a talk of its own for what comes later")
    document = make_document("seen-talk", began_at, rows)
    assert omi.post(sender.send_conversation(document, began_at + 210)).status_code == 200
    assert name not in live_talks(omi, "seen")
    assert len(live_talks(omi, "seen")) == 1
    thrown = make_document("thrown-away", began_at + 200, later) | {"discarded": True}
    assert omi.post(sender.send_conversation(thrown, began_at + 400)).status_code == 200
    assert live_talks(omi, "seen") == {}
    UserFile(omi.data_dir / "bridge").remove("seen-old")
    wait_until(lambda: not live_talks(omi, "seen-old"), "the removed user's words to be gone")


def test_words_that_were_shown_live_go_with_the_audio(omi: ClockedBridge) -> None:
    sender, at = OmiSender(omi.add_user("kept"), "B"), BEGAN_AT + 8 * HOUR_S
    row = {"id": "one", "start": 0.0, "end": 3.0, "text": "words"}
    for post in sender.send_live([row], at):
        omi.post(post)
    wait_until(lambda: live_talks(omi, "kept"), "what came live")
    omi.clock.set(at + 6 * HOUR_S + 10)
    wait_until(lambda: not live_talks(omi, "kept"), "the end of it")


@pytest.mark.ledger_file
def test_a_report_that_comes_while_the_ledger_is_elsewhere_is_to_be_sent_again(omi: ClockedBridge) -> None:
    sender, at = OmiSender(omi.add_user("moved"), "B"), BEGAN_AT + 20 * HOUR_S
    report = sender.send_conversation(make_document("moved-talk", at - 60, []), at)
    ledger = omi.data_dir / "bridge" / "ledger.sqlite3"
    ledger.rename(omi.data_dir / "elsewhere")
    answer = omi.post(report)
    (omi.data_dir / "elsewhere").rename(ledger)
    assert (answer.status_code, "moved away" in answer.json()["error"]) == (503, True), answer.text
    assert omi.post(report).status_code == 200


def test_a_label_by_hand_of_a_line_that_is_shown_live_goes_along_into_its_conversation(
    omi: ClockedBridge, backend: Backend
) -> None:
    sender, began_at = OmiSender(omi.add_user("labelled"), "B"), BEGAN_AT + 20 * HOUR_S
    rows = [{"id": f"hers-{n}", "start": 4.0 * n, "end": 4.0 * n + 3, "text": f"her words {n}"} for n in range(2)]
    for post in sender.send_live(rows, began_at):
        assert omi.post(post).json() == {}
    (name,) = wait_until(lambda: live_talks(omi, "labelled"), "what came live")
    said = Correction.model_validate({"kind": "segment_is", "segment_id": "hers-1", "person_id": "anna"})
    assert backend.event(name, EventType.CORRECTED, corrections=(said,)).verdict is Verdict.ACCEPTED
    document = make_document("hers", began_at, rows)
    assert omi.post(sender.send_conversation(document, began_at + 200)).status_code == httpx.codes.OK
    assert [label.person_id for label in backend.wait_updated("hers").segments] == [None, "anna"]
    assert live_talks(omi, "labelled") == {}
