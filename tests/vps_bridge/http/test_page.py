"""The page in a real browser, on a live bridge: reading, correcting, taking back, by mouse and by keyboard."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from schemas.agent import AgentControl
from schemas.conversation import EventType, TranscriptSegment
from schemas.failure import FailureCode
from tests.brokers import RunningBroker
from tests.vps_bridge.http.chromium import open_page, run_chromium
from tests.vps_bridge.http.door import Door, answering
from tests.vps_bridge.http.page_steps import call, names, save, visit
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS, call_segments
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav

pytestmark = pytest.mark.long
HOSTILE = "<img src=x onerror=\"document.title='taken over'\"><script>document.title='taken over'</script>"
READ_CUES = """async (path) => {
  const video = document.createElement("video");
  const track = document.createElement("track");
  track.src = path;
  video.append(track);
  document.body.append(video);
  const read = new Promise((done, failed) => { track.onload = done; track.onerror = failed; });
  track.track.mode = "hidden";
  await read;
  return Array.from(track.track.cues, (cue) => {
    const shown = cue.getCueAsHTML();
    return [cue.startTime, cue.endTime, shown.textContent, shown.querySelector("span").title];
  });
}"""
ALONE = ((0.5, 9.0, "a"), (10.0, 29.0, "a"))
LONG_S, LONG_SEGMENTS = 3 * 3_600, 5_000


def answer_unless_it_is_bad(agent: ScriptedAgent, offer: AgentControl) -> None:
    if offer.conversation_id == "bad" and len(agent.leases("bad")) == 1:
        agent.fail(offer, FailureCode.AUDIO_UNDECODABLE, retryable=False)
    else:
        enrols = (offer.conversation_id or "").startswith("enrolment-")
        agent.answer(offer, ALONE if enrols else CALL_TURNS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with run_chromium() as running:
        yield running


@pytest.fixture(scope="module")
def called(mosquitto: RunningBroker, door: Door) -> Iterator[Door]:
    """A door whose bridge has an agent that answers."""
    with answering(mosquitto, answer_unless_it_is_bad):
        yield door


@pytest.fixture
def page(browser: Browser, called: Door) -> Iterator[Page]:
    with open_page(browser, called) as opened:
        yield opened


def test_a_stranger_is_told_how_to_sign_in_and_signing_out_ends_it(browser: Browser, called: Door) -> None:
    stranger = browser.new_page(base_url=called.url)
    stranger.goto("/")
    expect(stranger.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(stranger.get_by_text("omi-bridge page")).to_be_visible()
    stranger.close()
    with open_page(browser, called) as page:
        assert page.url == f"{called.url}/"
        expect(page.get_by_role("row", name="first online scripted")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert page.evaluate("fetch('/v1/agents').then((answer) => answer.status)") == 401


def test_naming_joining_and_taking_back_and_a_second_page_sees_it(browser: Browser, called: Door, page: Page) -> None:
    call(called, "corrected")
    visit(page, "corrected")
    with open_page(browser, called, "/#/conversations/corrected") as second:
        expect(names(second)).to_have_text(["Speaker 0", "Speaker 1"] * 3)
        page.get_by_role("button", name="Name Speaker 0").click()
        page.get_by_label("Who is it?").fill("anna")
        page.get_by_label("Your name, for the history").fill("ben")
        save(page)
        expect(names(page)).to_have_text(["anna", "Speaker 1"] * 3)
        expect(names(second)).to_have_text(["anna", "Speaker 1"] * 3)
        expect(second.locator("ol").get_by_text("Speaker 0 is anna", exact=True)).to_be_visible()
        expect(second.get_by_text("2. ben")).to_be_visible()
    page.get_by_role("button", name="Speaker 1 is the same as…").click()
    page.get_by_role("radio", name="anna").check()
    save(page)
    expect(names(page)).to_have_text(["anna"] * 6)
    page.get_by_role("button", name="Undo: Speakers 1 and 0 are one").click()
    expect(names(page)).to_have_text(["anna", "Speaker 1"] * 3)
    expect(page.get_by_text("Done: taken back: Speakers 1 and 0 are one.")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(names(page)).to_have_text(["Speaker 0", "Speaker 1"] * 3)
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    page.get_by_role("button", name="Redo").click()
    expect(names(page)).to_have_text(["anna", "Speaker 1"] * 3)
    page.get_by_role("button", name="Redo").click()
    expect(names(page)).to_have_text(["anna"] * 6)
    expect(page.get_by_role("button", name="Redo")).to_be_disabled()


def test_a_conversation_is_saved_as_subtitles_that_a_browser_reads(called: Door, page: Page) -> None:
    call(called, "saved")
    visit(page, "saved")
    link = page.get_by_role("navigation", name="Download this conversation").get_by_role("link", name="VTT")
    with page.expect_download() as saving:
        link.press("Enter")
    assert saving.value.suggested_filename == "saved.vtt"
    cues = page.evaluate(READ_CUES, "/v1/conversations/saved/export?format=vtt")
    assert [cue[:2] for cue in cues] == [[start, end] for start, end, _ in CALL_TURNS]
    assert {cue[2] for cue in cues} == {"word"}
    assert {cue[3] for cue in cues} == {"SPEAKER_00", "SPEAKER_01"}


def test_one_segment_is_given_to_another_voice_and_to_nobody_known(called: Door, page: Page) -> None:
    call(called, "moved")
    visit(page, "moved")
    page.get_by_role("button", name="Correct who speaks at 0:05.5").click()
    page.get_by_role("dialog").get_by_label("Speaker 0").check()
    save(page)
    expect(names(page).nth(1)).to_have_text("Speaker 0")
    expect(page.get_by_text("a person said so, but Speaker 1 is heard here")).to_have_count(1)
    page.get_by_role("button", name="Correct who speaks at 0:15.5").click()
    page.get_by_label("a new voice").check()
    save(page)
    expect(names(page).nth(3)).to_have_text("Speaker 2")
    expect(page.get_by_role("listitem").filter(has_text="“word” (0:15.5) is somebody else –")).to_be_visible()
    page.get_by_role("button", name="Correct who speaks at 0:25.5").click()
    save_button = page.get_by_role("button", name="Save")
    save_button.click()
    expect(page.get_by_text("Choose or type something first.")).to_be_visible()
    page.get_by_label("The person’s name").fill("carla")
    save(page)
    expect(names(page).nth(5)).to_have_text("carla")
    page.get_by_role("button", name="Take back change 2").click()
    expect(names(page)).to_have_text(["Speaker 0", "carla", "Speaker 0", "Speaker 2", "Speaker 0", "carla"])


def test_a_segment_is_played_while_its_audio_is_kept(called: Door, page: Page) -> None:
    call(called, "played")
    visit(page, "played")
    with page.expect_response(lambda answer: "/chunks/" in answer.url) as sent:
        page.get_by_role("button", name="Play 0:05.5").click()
    assert (sent.value.status, sent.value.headers["content-type"]) == (200, "audio/wav")
    expect(page.get_by_text("Playing 0:05.5")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Playing 0:05.5")).to_be_hidden()


def test_a_failed_job_says_why_and_is_tried_again(called: Door, page: Page) -> None:
    called.backend.send_call("bad")
    failure = page.get_by_role("listitem").filter(has_text="audio.undecodable")
    expect(failure).to_contain_text("as the test told it")
    expect(failure).to_contain_text("1 time, on first")
    expect(failure).to_contain_text("What to do: listen to the audio")
    expect(failure).to_contain_text("then: “Give up”")  # the button, not the command
    page.goto("/#/conversations")
    expect(page.get_by_role("row", name="bad final 1 job failed: audio.undecodable")).to_be_visible()
    page.get_by_role("link", name="bad").click()
    page.get_by_role("link", name="Try again or give up: Now").click()
    failure.get_by_role("button", name="Try again").click()
    called.backend.wait_updated("bad")
    expect(page.get_by_text("Nothing has failed.")).to_be_visible()


def test_what_was_said_is_text_whatever_it_says(called: Door, page: Page) -> None:
    call(called, "hostile")
    segments = [segment.model_copy(update={"text": HOSTILE}) for segment in call_segments("hostile")]
    called.backend.event("hostile", EventType.SEGMENTS, revision=1, segments=tuple(segments))
    said = [{"kind": "voice_is", "speaker_id": 0, "person_id": HOSTILE}]
    assert called.event("hostile", EventType.CORRECTED, corrections=said, by=HOSTILE).status_code == 200
    visit(page, "hostile")
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    expect(names(page).first).to_have_text(HOSTILE)
    assert page.locator("main img, main script").count() == 0
    assert page.title() == "hostile – omi-diarization"


def test_everything_is_reached_by_the_keyboard(called: Door, page: Page) -> None:
    call(called, "keyed")
    visit(page, "keyed")
    page.locator("main").focus()
    for _ in range(4 + 3):  # the downloads, then the timeline's buttons
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Show all")).to_be_focused()
    rows = page.get_by_role("list", name="Segments").get_by_role("listitem")
    rows.first.focus()
    page.keyboard.press("ArrowDown")
    expect(rows.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Who speaks at 0:05.5?")).to_be_visible()
    late = TranscriptSegment(id="late", start_s=29.6, end_s=29.9, text="late")
    called.backend.event("keyed", EventType.SEGMENTS, segments=(late,))
    expect(page.locator(".segment")).to_have_count(7)  # the rows are drawn anew behind the dialog
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(rows.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")  # the first choice has the focus
    page.keyboard.press("Enter")
    expect(names(page).nth(1)).to_have_text("Speaker 0")
    timeline = page.get_by_role("group", name="Timeline")
    timeline.focus()
    before = page.locator(".row .quiet").inner_text()
    page.keyboard.press("+")
    expect(page.locator(".row .quiet")).not_to_have_text(before)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(called: Door, page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    call(called, f"seen-{scheme}")
    for path in ("/#/now", "/#/conversations", f"/#/conversations/seen-{scheme}"):
        page.goto(path)
        expect(page.locator("table, .segment").first).to_be_visible()
        assert serious(page) == []
    page.get_by_role("button", name="Correct who speaks at 0:05.5").click()
    assert serious(page) == []


def serious(page: Page) -> list[tuple[str, str]]:
    found = Axe().run(page).response["violations"]
    return [(item["id"], item["nodes"][0]["html"]) for item in found if item["impact"] != "minor"]


def serve_long(route: Route, count: int) -> None:
    """Answer with so many segments in place of the few that there are."""
    whole = json.loads(route.fetch().text())
    step_s = LONG_S / LONG_SEGMENTS
    model = whole["segments"][0]
    whole["segments"] = [
        model | {"id": f"s-{place}", "start_s": start_s, "end_s": start_s + 2, "text": "word " * (place % 60)}
        for place, start_s in enumerate(step_s * number for number in range(count))
    ]
    turns = [(place * step_s, place * step_s + 2.5, place % 2) for place in range(count)]
    whole["turns"] = [{"start_s": start, "end_s": end, "speaker_id": who} for start, end, who in turns]
    route.fulfill(json=whole)


def test_tab_enters_the_transcript_at_its_chosen_line_though_that_is_out_of_sight(called: Door, page: Page) -> None:
    call(called, "scrolled")
    page.route("**/v1/conversations/scrolled", partial(serve_long, count=300))
    visit(page, "scrolled")
    chosen, lines = page.locator('[data-segment="s-3"]'), page.locator(".transcript")
    chosen.click()
    page.locator("main").focus()
    lines.evaluate("element => element.scrollTo(0, element.scrollHeight / 2)")
    expect(chosen).not_to_be_in_viewport()
    page.get_by_role("button", name="Show all").focus()
    steps = 0
    while chosen.evaluate("element => !element.contains(document.activeElement)"):
        page.keyboard.press("Tab")
        assert (steps := steps + 1) < 20, "the chosen line is passed over"
    page.keyboard.press("ArrowDown")
    expect(page.locator('[data-segment="s-4"]')).to_be_focused()


@pytest.mark.slow
def test_three_hours_of_five_thousand_segments_are_drawn_as_far_as_they_are_seen(called: Door, page: Page) -> None:
    call(called, "long")
    page.route("**/v1/conversations/long", partial(serve_long, count=LONG_SEGMENTS))
    visit(page, "long")
    rows = page.get_by_role("list", name="Segments").get_by_role("listitem")
    assert rows.count() < 60
    rows.first.focus()
    page.keyboard.press("End")
    expect(page.locator('[data-segment="s-4999"]')).to_be_focused()
    assert rows.count() < 60
    expect(rows.last).to_have_attribute("aria-setsize", "5000")
    page.locator(".track").click(position={"x": 300, "y": 40})
    expect(page.locator(".segment[aria-current]")).to_be_visible()
    assert rows.count() < 60


def test_a_person_is_taught_seen_changed_and_forgotten_by_the_keyboard(
    browser: Browser, called: Door, tmp_path: Path
) -> None:
    recording = tmp_path / "anna.wav"
    recording.write_bytes(make_wav(CALL_S, tone=7))
    called.event("owned", EventType.STARTED, owner="user-2")
    with open_page(browser, called, "/#/people") as page, open_page(browser, called, "/#/people") as second:
        for opened in (page, second):
            opened.get_by_label("Whose people").select_option("user-2")
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
    assert called.client.get("/v1/people/anna-b", params={"owner": "user-2"}).status_code == 404


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).press("Enter")


def teach(page: Page, recording: Path) -> None:
    page.get_by_label("Name", exact=True).fill("Ánna B.")
    page.get_by_label("Agreed on").fill("2026-05-04")
    page.get_by_label("Recording").set_input_files(recording)
    press(page, "Learn the voice")
    expect(page.get_by_text("The voice of Ánna B. is learned.")).to_be_visible()


def test_a_voice_is_confirmed_in_its_conversation_and_the_owners_people_are_offered(
    browser: Browser, called: Door
) -> None:
    mine = {"owner": "user-1"}
    call(called, "first", **mine)
    event = {"schema": "person-event", "version": "1.0", **mine}
    for said in (
        {"event_id": "e-1", "type": "confirmed", "conversation_id": "first", "speaker_id": 0},
        {"event_id": "e-2", "type": "named", "name": "Ben"},
    ):
        assert called.client.post("/v1/people/ben/events", json=event | said).status_code == 200
    called.backend.wait_updated("first", version=2)
    call(called, "second", **mine)
    with open_page(browser, called, "/#/conversations/second") as page:
        page.get_by_role("button", name="Is Speaker 0 Ben?").click()
        expect(page.get_by_text("1.00 alike, 1.00 needed")).to_be_visible()
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


def test_a_name_is_learned_whatever_it_is_and_however_it_is_typed_again(browser: Browser, called: Door) -> None:
    mine = {"owner": "user-3"}
    with open_page(browser, called) as page:
        for conversation, typed in (("one", "Zoe\u0308  Müller"), ("other", "zoë müller")):
            call(called, conversation, **mine)
            visit(page, conversation)
            page.get_by_role("button", name="Name Speaker 1").click()
            page.get_by_label("Who is it?").fill(typed)
            save(page)
            expect(page.get_by_role("button", name="Name Zoë Müller")).to_be_visible()
    (zoe,) = called.client.get("/v1/people", params=mine).json()["people"]
    assert (zoe["person_id"], zoe["name"], len(zoe["prints"])) == ("zoe-muller", "Zoë Müller", 2)
