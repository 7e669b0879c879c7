"""The page's people in a real browser: taught by a recording, confirmed in a conversation, changed, and forgotten."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from schemas.agent import AgentControl
from schemas.conversation import EventType
from tests.brokers import RunningBroker
from tests.vps_bridge.http.chromium import open_page, run_chromium
from tests.vps_bridge.http.door import Door, answering
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS, STARTED_AT
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav

pytestmark = pytest.mark.long
ALONE = ((0.5, 9.0, "a"), (10.0, 29.0, "a"))


def answer(agent: ScriptedAgent, offer: AgentControl) -> None:
    """One voice in what enrols somebody, two in all else."""
    agent.answer(offer, ALONE if (offer.conversation_id or "").startswith("enrolment-") else CALL_TURNS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with run_chromium() as running:
        yield running


@pytest.fixture(scope="module")
def taught(mosquitto: RunningBroker, door: Door) -> Iterator[Door]:
    with answering(mosquitto, answer):
        yield door


def test_a_person_is_taught_seen_changed_and_forgotten_by_the_keyboard(
    browser: Browser, taught: Door, tmp_path: Path
) -> None:
    recording = tmp_path / "anna.wav"
    recording.write_bytes(make_wav(CALL_S, tone=7))
    with open_page(browser, taught, "/#/people") as page, open_page(browser, taught, "/#/people") as second:
        expect(page.get_by_text("Nobody is known yet.")).to_be_visible()
        teach(page, recording)
        row = page.get_by_role("row", name="Ánna B.")
        expect(row).to_contain_text("agreed on 2026-05-04")
        expect(row).to_contain_text("1, 28 s of clean speech")
        expect(second.get_by_role("row", name="Ánna B.")).to_contain_text("1, 28 s of clean speech")
        press(page, "Show Ánna B.")
        expect(page.get_by_role("heading", name="Ánna B. (anna-b)")).to_be_visible()
        expect(page.get_by_text("from a recording that was thrown away")).to_be_visible()
        assert serious(page) == []
        press(page, "Change Ánna B.")
        page.get_by_role("dialog").get_by_label("Name").fill("Anna")
        page.get_by_label("Is the owner").press("Space")
        press(page, "Save")
        expect(page.get_by_role("row", name="Anna the owner")).to_be_visible()
        press(page, "Forget Anna")
        expect(page.get_by_role("dialog", name="Forget Anna for good?")).to_be_visible()
        assert serious(page) == []
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Forget Anna")).to_be_focused()
        press(page, "Forget Anna")
        page.get_by_role("dialog").get_by_role("button", name="Forget").press("Enter")
        expect(page.get_by_text("Nobody is known yet.")).to_be_visible()
        expect(second.get_by_text("Nobody is known yet.")).to_be_visible()
    assert taught.client.get("/v1/people/anna-b").status_code == 404


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).press("Enter")


def teach(page: Page, recording: Path) -> None:
    page.get_by_label("Name", exact=True).fill("Ánna B.")
    page.get_by_label("Agreed on").fill("2026-05-04")
    page.get_by_label("Recording").set_input_files(recording)
    press(page, "Learn the voice")
    expect(page.get_by_text("The voice of Ánna B. is learned.")).to_be_visible()


def call(door: Door, name: str, **started: str) -> None:
    door.event(name, EventType.STARTED, started_at=STARTED_AT.isoformat(), **started)
    door.backend.send_call(name, tone=len(name))
    door.backend.wait_updated(name)


def serious(page: Page) -> list[tuple[str, str]]:
    found = Axe().run(page).response["violations"]
    return [(item["id"], item["nodes"][0]["html"]) for item in found if item["impact"] != "minor"]


def test_a_voice_is_confirmed_in_its_conversation_and_the_owners_people_are_offered(
    browser: Browser, taught: Door
) -> None:
    mine = {"owner": "user-1"}
    call(taught, "first", **mine)
    event = {"schema": "person-event", "version": "1.0", **mine}
    for said in (
        {"event_id": "e-1", "type": "confirmed", "conversation_id": "first", "speaker_id": 0},
        {"event_id": "e-2", "type": "named", "name": "Ben"},
    ):
        assert taught.client.post("/v1/people/ben/events", json=event | said).status_code == 200
    taught.backend.wait_updated("first", version=2)
    call(taught, "second", **mine)
    with open_page(browser, taught, "/#/conversations/second") as page:
        page.get_by_role("button", name="Is Speaker 0 Ben?").click()
        page.get_by_label("Yes, it is Ben: learn the voice").check()
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("button", name="Name Ben")).to_be_visible()
        expect(page.get_by_role("button", name="Is Speaker 0 Ben?")).to_have_count(0)
        page.get_by_role("button", name="Name Speaker 1").click()
        expect(page.locator("datalist option")).to_have_attribute("value", "ben")
        page.keyboard.press("Escape")
        page.get_by_role("link", name="People").click()
        page.get_by_label("Whose people").select_option("user-1")
        press(page, "Show Ben")
        heard_in = page.get_by_role("listitem").filter(has_text="as Speaker 0, confirmed")
        expect(heard_in.get_by_role("link", name="second")).to_be_visible()
        expect(page.get_by_role("row", name="Ben")).to_contain_text("no consent date")
