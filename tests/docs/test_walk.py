"""From a fresh machine to a corrected label, by the pages alone: their commands, in their order, as they stand.

VPS and Mac are directories of this machine; broker, bridge, agent and browser are real. So is the engine, on the real
call, in `make acceptance`; with every change an engine that hears pitches, on tones in place of the call's voices.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect
from typer.testing import CliRunner

from tests.brokers import free_port, require_program
from tests.docs.pages import Block, all_blocks, blocks_of
from tests.docs.stand_in_machine import StandInMachine, make_machine, write_program
from tests.docs.tones import make_tones
from tests.e2e.system import models_dir, sample_folder, wait_until, weights_dir
from tests.vps_bridge.http.chromium import run_chromium
from vps_bridge.commands.main import app as bridge_app
from vps_bridge.conversations.transcripts import read_transcript

pytestmark = pytest.mark.long
BLOCKS = all_blocks(run="walk")
PAGES = {"docs/set-up-vps.md", "docs/set-up-mac.md", "docs/first-conversation.md"}
VOICES = "010100100110"  # who says each of its lines
PITCHES_HZ, CALL_S = (400, 800), 30.0
START_AGENT = "from mac_agent.commands.main import main; main()"
TAKEN = 6  # the line that is given to somebody else, at 0:14.4


def steps(page: str) -> list[Block]:
    """Return the blocks of a page that this walk takes, in their order."""
    return [block for block in BLOCKS if block.page == page]


@pytest.fixture(params=["tones", pytest.param("embedded", marks=pytest.mark.slow)])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StandInMachine]:
    """The VPS."""
    require_program("mosquitto", "mosquitto")
    if not (models_dir() / "embedded").is_dir():
        pytest.skip("the weights of the embedded engine are not here: run `omi-agent fetch-model embedded`")
    environment = {
        "OMI_HTTP_PORT": str(free_port()),
        "OMI_WEIGHTS_DIR": str(weights_dir()),
        "OMI_ENGINE": "embedded",
        "OMI_THREADS": "2",
    }
    # On loopback TLS is not the default, and the port of a broker with TLS may be another's on this machine.
    host = '--host "$(tailscale ip -4)"'
    machine = make_machine(tmp_path, environment, {host: f"{host} --tls --port {free_port()}"})
    write_call(machine, is_real=request.param == "embedded")
    yield machine
    machine.stop()


def write_call(machine: StandInMachine, *, is_real: bool) -> None:
    """Put the call and the page's transcript of it into the home of whoever types; without an engine, as tones."""
    (transcript,) = (block for block in blocks_of("docs/first-conversation.md") if block.label("file"))
    file = machine.home / (transcript.label("file") or "")
    file.write_text(transcript.text)
    if is_real:
        shutil.copy(sample_folder() / "sample.wav", machine.home / "call.wav")
        return
    lines = zip(read_transcript(file, "call-1"), VOICES, strict=True)
    turns = [(line.start_s, line.end_s, PITCHES_HZ[int(voice)]) for line, voice in lines]
    (machine.home / "call.wav").write_bytes(make_tones(turns, CALL_S))
    own = {"OMI_CHAOS_RUN_LOG": str(machine.root / "runs.log"), "OMI_CHAOS_MAX_NAP_S": "0"}
    machine.environment |= own
    run = f"{sys.executable} -m tests.faults.null_agent"
    command = f'case $1 in run) exec {run} ;; *) exec {sys.executable} -c "{START_AGENT}" "$@" ;; esac'
    write_program(machine.programs / "omi-agent", command)


@pytest.fixture
def mac(machine: StandInMachine) -> Iterator[StandInMachine]:
    """The Mac; `scp` finds there what was written on the VPS."""
    mac = machine.beside("mac")
    yield mac
    mac.stop()


def take(machine: StandInMachine, block: Block) -> str:
    """Run a block; a doctor at its end may find something."""
    ends_with_doctor = block.text.splitlines()[-1].endswith("doctor")
    return machine.run(block.text, codes=(0, 1) if ends_with_doctor else (0,))


def set_up_the_vps(machine: StandInMachine) -> None:
    for block in steps("docs/set-up-vps.md"):
        said = take(machine, block)
    assert "ok     bridge: bridge is online" in said
    assert "ok     service: active" in said
    assert "the Mac: omi-agent doctor" in said, "what is missing is no surprise"


def set_up_the_mac(mac: StandInMachine) -> None:
    health = f"http://127.0.0.1:{mac.environment['OMI_HTTP_PORT']}/health"
    for block in steps("docs/set-up-mac.md"):
        if block.label("background") is None:
            said = take(mac, block)
        else:
            mac.start(block.text, mac.root / "run" / "omi-agent.log")
            wait_until(lambda: httpx.get(health).json()["status"] == "healthy", "an agent that works")
    assert "ok     allowed: my-mac may work for bridge" in said
    assert "ok     agent: online, " in said
    assert " offline " not in said, "a word that reads as a fault"
    assert not (mac.home / "my-mac.invitation").exists(), "a secret is left"


def correct_on_the_page(page: Page, link: str) -> None:
    """What the page about a first conversation says in words: Conversations, call-1, Correct, save."""
    page.goto(link)
    page.get_by_role("link", name="Conversations").click()
    page.get_by_role("link", name="call-1").click()
    who = page.get_by_role("list", name="Segments").locator(".who strong")
    expect(who).to_have_count(12)
    before = who.nth(TAKEN).inner_text()
    page.get_by_role("button", name="Correct who speaks at 0:14.4").click()
    other = "Speaker 1" if before == "Speaker 0" else "Speaker 0"
    page.get_by_role("dialog").get_by_label(other).check()
    page.get_by_role("button", name="Save").click()
    expect(who.nth(TAKEN)).to_have_text(other)
    expect(page.get_by_text("a person said so")).to_have_count(1)


def test_from_nothing_to_a_corrected_label_by_the_commands_of_the_pages(
    machine: StandInMachine, mac: StandInMachine
) -> None:
    assert {block.page for block in BLOCKS} == PAGES
    set_up_the_vps(machine)
    set_up_the_mac(mac)

    copy, publish, page, take_back = steps("docs/first-conversation.md")
    take(machine, copy)
    said = take(machine, publish)
    assert "update 1 (final): 2 speakers in 30 s of audio, 12 segments changed, 0 left alone" in said
    first = labels(machine)
    with run_chromium() as browser:
        correct_on_the_page(browser.new_page(), take(machine, page).split()[0])
    assert {number for number in range(12) if labels(machine)[number] != first[number]} == {TAKEN}

    history, undo, redo, export = take_back.text.splitlines()
    assert "version 2" in machine.run(history)
    machine.run(undo)
    assert labels(machine) == first
    machine.run(redo)
    assert labels(machine)[TAKEN] != first[TAKEN]
    assert machine.run(export).startswith("WEBVTT")


def labels(machine: StandInMachine) -> list[str]:
    """Return who speaks, line by line, as `omi-bridge show` has it; in this process, which starts it at once."""
    data_dir = str(machine.root / "var/lib/omi-diarization")
    shown = CliRunner().invoke(bridge_app, ["show", "call-1", "--json", "--data-dir", data_dir])
    assert shown.exit_code == 0, shown.output
    return [segment["speaker"] for segment in json.loads(shown.output)["segments"]]
