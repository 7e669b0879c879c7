"""Labels go from a real bridge to OMI's API; where OMI does not take them, doctor and heartbeat say so."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.bridge import BridgeHeartbeat
from schemas.conversation import ConversationUpdated, EventType
from schemas.corrections import Correction
from tests.brokers import RunningBroker
from tests.omi.clocked_bridge import ClockedBridge, start_clocked
from tests.omi.coded_talk import CodedAgent
from tests.omi.omi_api import ADMIN_KEY, FakeApi
from tests.omi.test_replay import Told, report, send_talk
from tests.omi.traffic import OmiSender, make_document
from tests.vps_bridge.live_bridge import Backend, wait_until

BEGAN_AT = 1_780_000_000.0
NAME = "talk"


@pytest.fixture
def omi(own_broker: RunningBroker, own_backend: Backend, tmp_path: Path, api: FakeApi) -> Iterator[ClockedBridge]:
    options = {"OMI_OMI_API_URL": f"http://127.0.0.1:{api.port}", "OMI_OMI_ADMIN_KEY": ADMIN_KEY}
    bridge = start_clocked(own_broker, tmp_path, own_backend, BEGAN_AT, **options)
    bridge.allow("first")
    yield bridge
    assert bridge.stop() == 0, bridge.log_file.read_text()


def found_by_doctor(omi: ClockedBridge) -> str:
    ended = omi.command("doctor", "--json", check=False)
    (check,) = [one for one in json.loads(ended.stdout) if one["name"] == "labels to omi"]
    return str(check["found"])


def correct(backend: Backend, name: str, kind: str, number: int | None, person: str) -> None:
    said = Correction.model_validate({"kind": kind, "speaker_id": number, "person_id": person})
    backend.event(name, EventType.CORRECTED, corrections=(said,))


def send_to(omi: ClockedBridge) -> Told:
    """Send half a minute of two people as OMI does."""
    sender = OmiSender(omi.add_user("u1"), "A", is_signed=False, buffer_s=5.0)
    return send_talk(omi, sender, NAME, 30.0, 1, BEGAN_AT + 100)


def report_lines(omi: ClockedBridge, told: Told, name: str, lines: list[dict[str, Any]], after_s: float) -> None:
    """Report a conversation of these lines, so long after the talk began."""
    document = make_document(name, told.talk.began_at, lines, generation="A")
    assert report(omi, told, document, told.talk.began_at + after_s).status_code == 200


def test_labels_that_omi_does_not_take_are_told_of_and_sent_once_it_does(
    own_broker: RunningBroker, own_backend: Backend, omi: ClockedBridge, api: FakeApi
) -> None:
    with CodedAgent(own_broker, "first") as working, working.at_work():
        told = send_to(omi)
        api.segments, api.broken, api.people = [row["id"] for row in told.rows], {NAME}, {"anna": "Anna"}
        assert report(omi, told, told.document(), BEGAN_AT + 300).status_code == 200
        labelled = own_backend.wait_updated(NAME)
    number = next(label.speaker_id for label in labelled.segments if label.speaker_id is not None)
    hers = {label.id for label in labelled.segments if label.speaker_id == number}
    correct(own_backend, NAME, "voice_is", number, "anna")

    def beats() -> list[str]:
        return [beat.last_error for beat in own_backend.seen(BridgeHeartbeat) if beat.last_error]

    wait_until(lambda: [one for one in beats() if "labels of 1 conversations wait: PATCH" in one], "the heartbeat")
    found = wait_until(lambda: [one for one in [found_by_doctor(omi)] if "503" in one], "the doctor")
    assert "1 conversations wait" in found[0]
    api.broken = set()
    wait_until(lambda: {one for _, one in api.labels} == hers, "her lines to be Anna's in OMI")
    wait_until(lambda: found_by_doctor(omi) == "OMI takes them", "the doctor to be content")
    correct(own_backend, NAME, "voice_is_not", number, "anna")
    wait_until(lambda: "anna" not in api.labels.values(), "her lines to be nobody's in OMI")


def test_what_omi_was_told_comes_back_as_no_persons_word(
    own_broker: RunningBroker, own_backend: Backend, omi: ClockedBridge, api: FakeApi
) -> None:
    api.people = {"anna": "Anna", "bert": "Bert"}
    with CodedAgent(own_broker, "first") as working, working.at_work():
        told = send_to(omi)
        api.segments = [row["id"] for row in told.rows]

        def report_with_labels(name: str, after_s: float, **more: Any) -> None:
            labels = [{**row, "person_id": api.labels.get((name, row["id"])), **more} for row in told.rows]
            report_lines(omi, told, name, labels, after_s)

        report_with_labels(NAME, 200)
        labelled = own_backend.wait_updated(NAME)
        number = next(label.speaker_id for label in labelled.segments if label.speaker_id is not None)
        hers = {label.id for label in labelled.segments if label.speaker_id == number}
        correct(own_backend, NAME, "voice_is", number, "anna")
        wait_until(lambda: {one for _, one in api.labels} == hers, "her lines to be Anna's in OMI")

        # OMI reports it again, as of now and with what it has from us, and joins it with another as a new one.
        report_with_labels(NAME, 300, label_source="manual")
        api.labels |= {("joined", one): "anna" for one in hers}
        report_with_labels("joined", 301)
        joined = own_backend.wait_updated("joined")
        number_there = next(label.speaker_id for label in joined.segments if label.id in hers)
        correct(own_backend, "joined", "voice_is", number_there, "bert")
        wait_until(lambda: {api.labels["joined", one] for one in hers} == {"bert"}, "the joined one to be mended")
        api.labels |= {("joined", one): "anna" for one in hers}
        report_with_labels("joined", 302, label_source="manual")  # of what OMI had read before
        wait_until(lambda: {api.labels["joined", one] for one in hers} == {"bert"}, "it to be mended again")

        correct(own_backend, NAME, "voice_is_not", number, "anna")
        wait_until(lambda: {api.labels[NAME, one] for one in hers} == {None}, "her lines to be nobody's in OMI")
    people = [{label.person_id for label in own_backend.wait_updated(name).segments} for name in (NAME, "joined")]
    assert people == [{None}, {"bert", None}]


def numbers_of(backend: Backend, hers: list[int]) -> list[int | None]:
    """Return the number of these lines once no other has it."""
    newest = [update for update in backend.seen(ConversationUpdated, NAME) if update.state == "final"][-1:]
    numbers = [label.speaker_id for update in newest for label in update.segments]
    others = {number for place, number in enumerate(numbers) if place not in hers}
    return [numbers[hers[0]]] if numbers and {numbers[place] for place in hers}.isdisjoint(others) else []


def test_labels_that_come_back_under_new_ids_are_ours_and_what_a_person_set_back_is_hers(
    own_broker: RunningBroker, own_backend: Backend, omi: ClockedBridge, api: FakeApi
) -> None:
    api.people = {"anna": "Anna", "bert": "Bert", "cleo": "Cleo"}
    with CodedAgent(own_broker, "first") as working, working.at_work():
        told = send_to(omi)
        anew = [{**row, "id": f"anew-{place}"} for place, row in enumerate(told.rows)]
        api.segments = [row["id"] for row in (*told.rows, *anew)]

        def report_with_labels(lines: list[dict[str, Any]], after_s: float) -> None:
            who = [api.labels.get((NAME, row["id"])) for row in lines]
            labels = [
                {**row, "person_id": one, "label_source": one and "manual"} for row, one in zip(lines, who, strict=True)
            ]
            report_lines(omi, told, NAME, labels, after_s)

        report_with_labels(told.rows, 300)
        hers = [place for place, (_, _, speaker) in enumerate(told.turns) if speaker == "a"]
        (number,) = wait_until(lambda: numbers_of(own_backend, hers), "both to be told apart")
        correct(own_backend, NAME, "voice_is", number, "anna")
        wait_until(lambda: len(api.labels) == len(hers), "her lines to be Anna's in OMI")

        api.labels |= {(NAME, f"anew-{place}"): "anna" for place in hers}
        report_with_labels(anew, 400)
        first, *others = [(NAME, f"anew-{place}") for place in hers]
        for after_s, who in ((410, "bert"), (420, "anna")):
            api.labels[first] = who
            report_with_labels(anew, after_s)
        wait_until(lambda: own_backend.seen(ConversationUpdated, NAME)[-1].segments[0].id == "anew-0", "the new lines")
        correct(own_backend, NAME, "voice_is", number, "cleo")
        wait_until(lambda: {api.labels[one] for one in others} == {"cleo"}, "the others to be Cleo's in OMI")
    assert api.labels[first] == "anna"
