"""The page as somebody sees it who has read nothing: what is stuck, which line is wrong, what a click will do."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, ViewportSize, expect

from schemas.conversation import EventType
from tests.brokers import RunningBroker, free_port
from tests.vps_bridge.http.chromium import open_page, run_chromium
from tests.vps_bridge.http.door import Door, answering, open_door
from tests.vps_bridge.http.page_steps import call, names, save, visit
from tests.vps_bridge.live_bridge import STARTED_AT, Backend, call_segments, run_bridge, wait_until
from tests.vps_bridge.webhook.hook_receiver import SECRET
from vps_bridge.omi.users import UserFile

pytestmark = pytest.mark.long
NARROW: ViewportSize = {"width": 360, "height": 740}
ZOOMED: ViewportSize = {"width": 640, "height": 450}  # a window of 1280 x 900 at 200 %
CUT_OFF = """() => Array.from(document.querySelectorAll("body *"), (one) => [one.tagName, one.getBoundingClientRect()])
  .filter(([, box]) => box.width > 1 && box.right > innerWidth + 1 && box.left >= 0).map(([tag]) => tag)"""

# Labels that stand neither above their field's left edge nor to the left of it.
APART = """() => Array.from(document.querySelectorAll("main label"), (one) => [one.textContent,
    one.getBoundingClientRect(), one.control.getBoundingClientRect()])
  .filter(([, label, field]) => label.width && Math.abs(label.left - field.left) > 2 && label.right > field.left)
  .map(([words]) => words)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with run_chromium() as running:
        yield running


@pytest.fixture(scope="module")
def door(mosquitto: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door whose bridge has an agent that answers, and a webhook whose receiver nobody started."""
    hook = {"OMI_WEBHOOK_URL": f"http://127.0.0.1:{free_port()}/hook", "OMI_WEBHOOK_SECRET": SECRET}
    data = tmp_path_factory.mktemp("data")
    omi = {"OMI_OMI_HTTP_PORT": str(free_port()), "OMI_OMI_USER_BYTES": str(2**20)}
    with run_bridge(mosquitto, data, backend, **open_door(**hook, **omi)) as bridge:
        bridge.allow("first")
        yield Door(bridge, backend)


@pytest.fixture
def page(browser: Browser, door: Door) -> Iterator[Page]:
    with open_page(browser, door) as opened:
        yield opened


@pytest.fixture(scope="module")
def called(mosquitto: RunningBroker, door: Door) -> Iterator[Door]:
    with answering(mosquitto):
        call(door, "seen")
        yield door


def test_now_says_first_what_is_stuck_and_what_to_do(door: Door, page: Page) -> None:
    stuck = page.get_by_role("status", name="Is anything stuck")
    expect(stuck).to_contain_text("No agent is online: nothing is labelled. Start one on the Mac: omi-agent run")
    expect(page.get_by_text("On. Its receiver has taken everything.")).to_be_visible()


def test_now_shows_what_the_webhooks_receiver_has_not_taken_as_programs_read_it(called: Door, page: Page) -> None:
    stuck = page.get_by_role("status", name="Is anything stuck")
    expect(stuck).to_contain_text("The webhook’s receiver does not take its messages")
    expect(stuck).not_to_contain_text("No agent")
    webhook = page.get_by_role("region", name="Webhook")
    expect(webhook).to_contain_text("On. 1 message waits, the oldest since")
    expect(webhook).to_contain_text("Connection refused")
    said = called.client.get("/v1/webhook").json()
    assert (said["is_on"], said["waiting"]) == (True, 1)
    assert "Connection refused" in said["last_error"]
    assert said["oldest_at"] <= said["last_error_at"]


def test_a_line_that_somebody_gave_to_another_than_is_heard_says_so_until_it_is_corrected(
    called: Door, page: Page
) -> None:
    call(called, "wrong")
    visit(page, "wrong")
    second = call_segments("wrong")[1].id
    said = [{"kind": "segment_is", "segment_id": second, "speaker_id": 0}]
    assert called.event("wrong", EventType.CORRECTED, corrections=said, by="x").status_code == 200
    odd = page.get_by_role("listitem").filter(has_text="a person said so, but Speaker 1 is heard here")
    expect(odd).to_have_count(1)
    check = page.get_by_role("button", name="1 line to check: show it")
    check.press("Enter")
    expect(odd).to_be_focused()  # so Enter corrects it
    odd.get_by_role("button", name="Correct").click()
    expect(page.get_by_text("Given to Speaker 0 now: “word”")).to_be_visible()
    page.get_by_role("dialog").get_by_label("Speaker 1").check()
    save(page)
    expect(page.get_by_text("Done: “word” (0:05.5) is Speaker 1.")).to_be_visible()
    expect(odd).to_have_count(0)
    expect(check).to_have_count(0)
    expect(names(page)).to_have_text(["Speaker 0", "Speaker 1"] * 3)
    page.get_by_role("button", name="Undo: “word” (0:05.5) is Speaker 1").click()
    expect(page.get_by_role("listitem").filter(has_text="taken back by change 4")).to_be_visible()
    expect(page.get_by_role("button", name="Take back change 4")).to_have_count(0)  # Redo, or change 3, does that
    expect(page.get_by_role("button", name="Redo: “word” (0:05.5) is Speaker 1")).to_be_enabled()


def test_what_is_told_covers_no_control_of_a_line(called: Door, page: Page) -> None:
    call(called, "told")
    visit(page, "told")
    page.get_by_role("button", name="Name Speaker 0").click()
    page.get_by_label("Who is it?").fill("emil")
    save(page)
    told = page.locator("#notice")
    expect(told).to_have_text("Done: Speaker 0 is emil.")
    under = """(told) => {
      const [one, rows] = [told.getBoundingClientRect(), document.querySelectorAll(".segment button")];
      const isUnder = (it) => it.right > one.left && it.left < one.right;
      return [...rows].filter((row) => isUnder(row.getBoundingClientRect())).length;
    }"""
    assert told.evaluate(under) == 0


def test_the_list_is_narrowed_to_what_waits_for_something(called: Door, page: Page) -> None:
    called.event("idle", EventType.STARTED, started_at=STARTED_AT.isoformat())
    page.goto("/#/conversations")
    rows = page.get_by_role("region", name="Conversations: table").locator("tbody tr")
    expect(rows.filter(has_text="seen")).to_have_count(1)
    page.get_by_label("Waits for").fill("No audio")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("no audio yet")
    found = called.client.get("/v1/conversations", params={"waits_for": "AUDIO yet"}).json()["conversations"]
    assert [item["conversation_id"] for item in found] == ["idle"]


def test_what_is_not_there_or_not_yet_says_so_where_it_would_be(called: Door, page: Page) -> None:
    page.goto("/#/conversations/later")
    expect(page.get_by_text("There is no such conversation: it was never heard of, or it is deleted.")).to_be_visible()
    expect(page.get_by_role("button", name="Zoom in")).to_have_count(0)
    called.event("later", EventType.STARTED, started_at=STARTED_AT.isoformat())
    expect(page.get_by_text("Nothing of it is here yet.")).to_be_visible()
    expect(page.get_by_role("button", name="Zoom in")).to_be_hidden()
    page.get_by_role("link", name="Conversations").click()
    page.get_by_label("Search (id or person)").fill("not this")
    expect(page.get_by_text("No conversation is like that.")).to_be_visible()


@pytest.mark.parametrize("lost", ["**/v1/**", "**/v1/conversations/**"], ids=["all", "reads, and no stream of changes"])
def test_a_bridge_that_is_away_is_told_of_until_it_is_back(called: Door, page: Page, lost: str) -> None:
    page.route(lost, lambda route: route.abort())
    page.goto("/#/conversations/seen")
    expect(page.get_by_text("not connected: this is how it was; trying again")).to_be_visible()
    expect(page.get_by_text("The bridge does not answer: is it running (omi-bridge status)")).to_be_visible()
    page.unroute(lost)
    expect(page.get_by_role("button", name="Play 0:00.5")).to_be_visible()
    expect(page.get_by_text("live", exact=True)).to_be_visible()


def test_whom_naming_teaches_and_what_forgetting_leaves_is_said_before(called: Door, page: Page) -> None:
    call(called, "taught")
    visit(page, "taught")
    page.get_by_role("button", name="Name Speaker 0").click()
    expect(page.get_by_text("The voice is learned under this name")).to_be_visible()
    page.get_by_label("Who is it?").fill("dora")
    save(page)
    expect(names(page).first).to_have_text("dora")
    said = called.client.get("/v1/conversations/taught/history").json()["writes"][-1]
    assert said["by"] == "somebody on the page"
    page.get_by_role("link", name="People").click()
    page.get_by_role("button", name="Change dora").click()
    expect(page.get_by_role("dialog").get_by_label("Name")).to_have_value("dora")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Forget dora").click()
    expect(page.get_by_text("it stays, and is corrected there")).to_be_visible()


def test_nothing_is_cut_off_in_a_narrow_window_or_at_200_percent(called: Door, page: Page) -> None:
    for path in ("/#/now", "/#/conversations", "/#/conversations/seen", "/#/people"):
        page.goto(path)
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator("table, .segment, #enrol-title").first).to_be_visible()
        for size in (NARROW, ZOOMED):
            page.set_viewport_size(size)
            assert page.evaluate(CUT_OFF) == [], (path, size)
            assert page.evaluate(APART) == [], (path, size)


def test_a_conversation_opens_at_its_top_and_tab_leaves_the_transcript_after_one_line(called: Door, page: Page) -> None:
    page.set_viewport_size(ZOOMED)
    page.goto("/#/conversations")
    page.get_by_role("link", name="seen").press("Enter")
    rows = page.get_by_role("list", name="Segments").get_by_role("listitem")
    expect(rows.first).to_be_visible()
    wait_until(lambda: page.evaluate("scrollY") == 0, "the top of the page in sight")
    # All is there that Tab can lead to: what comes later comes between.
    expect(page.get_by_role("button", name="Play 0:00.5")).to_be_visible()
    expect(page.get_by_role("button", name="Take back change 1")).to_be_visible()
    rows.first.focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Play 0:00.5")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Take back change 1")).to_be_focused()
    wait_until(lambda: page.evaluate("scrollY") > 0, "the history in sight")


def test_what_is_read_late_takes_the_keyboard_from_nobody(called: Door, page: Page) -> None:
    held: list[Route] = []
    page.goto("/#/conversations")
    page.route("**/v1/conversations/seen", lambda route: held.append(route))  # noqa: PLW0108 - Playwright takes no built-in
    page.get_by_role("link", name="seen").press("Enter")
    expect(page.locator("main")).to_be_focused()
    people = page.get_by_role("link", name="People", exact=True)
    people.focus()
    while not held:
        page.wait_for_timeout(50)
    for route in held:
        route.continue_()
    expect(page.get_by_role("button", name="Take back change 1")).to_be_visible()
    page.wait_for_timeout(500)
    expect(people).to_be_focused()


def test_now_says_what_omi_dropped_because_there_was_no_room(called: Door, page: Page) -> None:
    access = UserFile(called.bridge.data_dir / "bridge").put("much")
    path = f"/omi/audio?sample_rate=16000&uid=much&token={access.token}"
    omi = f"http://127.0.0.1:{called.bridge.options['OMI_OMI_HTTP_PORT']}{path}"
    assert [httpx.post(omi, content=bytes(400_000)).status_code for _ in range(3)] == [200, 200, 503]
    page.goto("/#/now")
    stuck = page.get_by_role("status", name="Is anything stuck")
    expect(stuck).to_contain_text("OMI’s webhooks: 1 POST turned away since the start; OMI drops what they held.")
    expect(stuck).to_contain_text("raise OMI_OMI_USER_BYTES")
    expect(page.get_by_text("Of OMI, until its conversation is reported")).to_be_visible()

    def counts() -> tuple[int, int, bool]:
        said = called.client.get("/v1/status").json()["omi"]
        return said["taken"], said["turned_away"], said["kept_bytes"] > 800_000

    wait_until(lambda: counts() == (2, 1, True), "what is kept, counted every second")
