"""Signing in to the page: the link, the cookie, and everything that is refused."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from schemas.conversation import EventType
from tests.brokers import RunningBroker, free_port
from tests.hand_clock import HandClock
from tests.inbox import WAIT_S
from tests.vps_bridge.http.door import TOKEN, Door, open_door
from tests.vps_bridge.live_bridge import Backend, run_bridge
from vps_bridge.http.sign_in import LINK_S, SESSION_S, SignIns


def make_link(door: Door) -> str:
    """What `omi-bridge page` prints, without its second of start-up."""
    return f"{door.url}/sign-in?link={SignIns(door.bridge.data_dir / 'bridge').make_link()}"


def sign_in(door: Door) -> httpx.Client:
    """A browser that has used a link."""
    browser = httpx.Client(base_url=door.url, timeout=WAIT_S)
    assert browser.get(make_link(door)).status_code == 303
    return browser


def test_the_link_that_the_command_prints_signs_in_once_and_is_in_no_later_address(door: Door) -> None:
    link = door.bridge.json("page")["url"]
    browser = httpx.Client(base_url=door.url, timeout=WAIT_S)
    assert browser.get("/v1/agents").status_code == 401
    answer = browser.get(link)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Max-Age=43200" in cookie
    assert browser.get("/v1/agents").status_code == 200
    again = httpx.get(link, timeout=WAIT_S)
    assert (again.status_code, again.json()["code"]) == (401, "http.link_refused")
    assert "set-cookie" not in again.headers
    secrets = (urlsplit(link).query.partition("=")[2], browser.cookies[f"omi_page_{door.port}"])
    log = door.bridge.log_file.read_text()
    kept = "".join(path.name + path.read_text() for path in (door.bridge.data_dir / "bridge" / "sign-ins").iterdir())
    assert not any(secret in log or secret in kept for secret in secrets)


# Several commands in one process, which is not this one: a command sets up the logs of its process.
RUN_PAGE = """
import json, sys
from typer.testing import CliRunner
from vps_bridge.commands.main import app
done = [CliRunner().invoke(app, ["page", *words], env=env) for words, env in json.load(sys.stdin)]
print(json.dumps([[one.exit_code, one.output] for one in done]))
"""


def run_page(data_dir: Path, *commands: tuple[list[str], dict[str, str]]) -> list[tuple[int, str]]:
    """What `omi-bridge page` says, by arguments and environment."""
    asked = json.dumps([(words, {"OMI_DATA_DIR": str(data_dir), **environment}) for words, environment in commands])
    done = subprocess.run([sys.executable, "-c", RUN_PAGE], input=asked, capture_output=True, text=True, check=True)
    return [(code, said) for code, said in json.loads(done.stdout)]


def test_the_command_says_what_is_missing_and_takes_another_address(tmp_path: Path) -> None:
    ((code, said),) = run_page(tmp_path, ([], {}))
    assert (code, "start `omi-bridge run` first" in said) == (1, True)
    (tmp_path / "bridge").mkdir()
    off, everywhere, six, elsewhere, out = run_page(
        tmp_path,
        ([], {"OMI_HTTP_PORT": "0"}),
        ([], {"OMI_HTTP_HOST": "0.0.0.0"}),
        ([], {"OMI_HTTP_HOST": "::1"}),
        (["--url", "https://vps.example/"], {}),
        (["--sign-out"], {}),
    )
    assert (off[0], "OMI_HTTP_PORT" in off[1]) == (1, True)
    assert (everywhere[0], "--url" in everywhere[1]) == (2, True)
    assert (six[0], "http://[::1]:8765/sign-in?link=" in six[1]) == (0, True)
    assert (elsewhere[0], "https://vps.example/sign-in?link=" in elsewhere[1]) == (0, True)
    assert out == (0, "0 sessions are ended\n")
    assert list((tmp_path / "bridge" / "sign-ins").iterdir()) == []


def test_a_session_changes_things_only_from_the_page_itself(door: Door) -> None:
    browser = sign_in(door)
    path = "/v1/conversations/by-page/events"
    event = {"schema": "conversation-event", "version": "1.1", "event_id": "e-page", "type": EventType.STARTED}
    for foreign in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}):
        refused = browser.post(path, json=event, headers=foreign)
        assert (refused.status_code, refused.json()["code"]) == (403, "http.forbidden")
    cross = {"Origin": door.url, "Sec-Fetch-Site": "cross-site"}
    assert browser.post(path, json=event, headers=cross).status_code == 403
    assert browser.post(path, json=event, headers={"Origin": door.url}).status_code == 200
    assert door.client.post(path, json=event).status_code == 200, "a program's token says enough"


def test_without_a_session_the_page_is_but_its_files_and_only_to_this_machine(door: Door) -> None:
    assert door.open.get("/").status_code == 200
    for path in ("/v1/conversations", "/v1/agents", "/v1/jobs", "/v1/status", "/v1/changes", "/v1/conversations/x"):
        assert door.open.get(path).status_code == 401
        forged = {"Cookie": f"omi_page_{door.port}=forged"}
        assert door.open.get(path, headers=forged).status_code == 401
    assert door.open.post("/sign-out").status_code == 401
    assert door.open.get("/", headers={"Host": "rebound.example"}).status_code == 403
    assert door.open.get("/page/main.js", headers={"Origin": door.url}).status_code == 200
    assert door.open.get("/page/main.js", headers={"Origin": "http://evil.example"}).status_code == 403
    assert door.open.get("/", headers={"X-Forwarded-For": "203.0.113.7"}).status_code == 401
    assert door.open.get("/v1/agents", headers={"X-Forwarded-For": "203.0.113.7"}).status_code == 401
    for missing in ("/page/none.js", "/page/..%2Fsign_in.py", "/page/%2Fetc%2Fpasswd"):
        assert door.open.get(missing).status_code in (401, 404)
    assert door.open.get("/sign-in", params={"link": "never-made"}).status_code == 401


def test_signing_out_ends_the_session_and_signing_all_out_ends_all(door: Door) -> None:
    first, second = sign_in(door), sign_in(door)
    unused = make_link(door)
    cookies = dict(first.cookies)
    assert first.post("/sign-out", headers={"Origin": door.url}).status_code == 204
    assert httpx.get(f"{door.url}/v1/agents", cookies=cookies, timeout=WAIT_S).status_code == 401
    assert second.get("/v1/agents").status_code == 200
    assert SignIns(door.bridge.data_dir / "bridge").sign_everybody_out() >= 1
    assert second.get("/v1/agents").status_code == 401
    assert httpx.get(unused, timeout=WAIT_S).status_code == 401


def test_every_answer_forbids_what_the_page_does_not_need(door: Door) -> None:
    for answer in (door.open.get("/"), door.client.get("/v1/agents"), door.open.get("/v1/agents")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert (answer.headers["cache-control"], answer.headers["x-frame-options"]) == ("no-store", "DENY")
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_links_and_sessions_end_by_the_clock_and_outlive_a_restart(tmp_path: Path) -> None:
    clock = HandClock(1_000_000.0)
    sign_ins = SignIns(tmp_path, clock=clock)
    late, early = sign_ins.make_link(), sign_ins.make_link()
    clock.now_s += LINK_S - 1
    session = sign_ins.redeem(early)
    assert session is not None
    clock.now_s += 2
    assert sign_ins.redeem(late) is None
    assert sign_ins.redeem(early) is None
    assert SignIns(tmp_path, clock=clock).is_signed_in(session)
    clock.now_s += SESSION_S
    assert not sign_ins.is_signed_in(session)
    again = sign_ins.redeem(sign_ins.make_link())
    assert again is not None
    clock.now_s += -3_600.0
    assert not sign_ins.is_signed_in(again), "the clock was set back: better signed out than signed in for ever"
    assert not sign_ins.is_signed_in("")


def test_a_door_that_others_reach_shows_its_page_to_nobody_without_a_session(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    options = open_door(OMI_HTTP_HOST="0.0.0.0", OMI_HTTP_PORT=str(free_port()))
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, **options) as bridge:
        door = Door(bridge, own_backend)
        assert door.open.get("/").status_code == 401
        browser = sign_in(door)
        assert browser.get("/").status_code == 200
        assert TOKEN not in browser.get("/").text
