"""What a person does on the page, step by step."""

from playwright.sync_api import Locator, Page, expect

from schemas.conversation import EventType
from tests.vps_bridge.http.door import Door
from tests.vps_bridge.live_bridge import STARTED_AT


def call(door: Door, name: str, **started: str) -> None:
    if started:
        door.event(name, EventType.STARTED, started_at=STARTED_AT.isoformat(), **started)
    door.backend.send_call(name)
    door.backend.wait_updated(name)


def visit(page: Page, name: str) -> None:
    page.goto(f"/#/conversations/{name}")
    expect(page.get_by_role("list", name="Segments").get_by_role("listitem").first).to_be_visible()


def names(page: Page) -> Locator:
    """Who speaks, segment by segment."""
    return page.get_by_role("list", name="Segments").locator(".who strong")


def save(page: Page) -> None:
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
