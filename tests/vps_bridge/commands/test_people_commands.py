"""`omi-bridge people` as a person at a shell uses it: enrol, see, correct, take along, forget; all for one owner."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker.session import Incoming
from schemas.codec import encode
from schemas.people import PersonEvent, PersonEventType
from tests.brokers import REPOSITORY, RunningBroker
from tests.vps_bridge.live_bridge import TOPICS, Backend, LiveBridge, wait_until
from tests.vps_bridge.owners_backend import CALIBRATED, OwnersBackend
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav
from vps_bridge.commands.watch import describe
from vps_bridge.ledger import Ledger

# Reads the arguments of one command from a line, runs it, and writes how it ended.
SHELL = """
import json, sys
from typer.testing import CliRunner
from vps_bridge.commands.main import app
for line in sys.stdin:
    done = CliRunner().invoke(app, json.loads(line))
    print(json.dumps([done.exit_code, done.stdout]), flush=True)
"""


class Shell:
    """Commands with a bridge's settings, in one other process: each would take a second to start."""

    def __init__(self, bridge: LiveBridge) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SHELL],
            env=bridge.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(["people", *arguments]) + "\n")
        self._process.stdin.flush()
        code, said = json.loads(self._process.stdout.readline())
        return code, said

    def code(self, *arguments: str) -> int:
        return self.run(*arguments)[0]

    def json(self, *arguments: str) -> Any:
        code, said = self.run(*arguments, "--json")
        assert code == 0, said
        return json.loads(said)

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def shell(bridge: LiveBridge) -> Iterator[Shell]:
    running = Shell(bridge)
    yield running
    running.close()


@pytest.mark.long
def test_a_recording_is_enrolled_and_thrown_away(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path, shell: Shell
) -> None:
    recording = tmp_path / "anna.wav"
    recording.write_bytes(make_wav(30.0))
    said = ("people", "enroll", "anna", str(recording), "--name", "Anna", "--me", "--owner", "user-1", "--json")
    command = [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", *said]
    environment = bridge.environment() | {
        name: value for name, value in mosquitto.environment("backend").items() if "BROKER" in name
    }
    with ScriptedAgent(mosquitto, "first", embedding=CALIBRATED) as agent:
        running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        offer = wait_until(lambda: next(iter(agent.offers.items), None), "the job")
        agent.answer(offer, [(0.5, 29.0, "a")])
        told, _ = running.communicate()
    assert (running.returncode, json.loads(told)["outcome"]) == (0, "learned")
    (anna,) = shell.json("list", "--owner", "user-1")["people"]
    assert (anna["person_id"], anna["name"], anna["is_owner"]) == ("anna", "Anna", True)
    wait_until(lambda: bridge.is_deleted(offer.conversation_id or ""), "the end of the enrolment")
    assert list(bridge.spool.iterdir()) == []


def test_a_heard_voice_is_confirmed_shown_renamed_exported_and_forgotten(
    mosquitto: RunningBroker, backend: Backend, shell: Shell
) -> None:
    with ScriptedAgent(mosquitto, "first", embedding=CALIBRATED) as agent:
        people = OwnersBackend(backend, agent)
        call, mine = people.call(), ("--owner", people.owner)
        name = call.conversation_id
        shell.json("confirm", "ben", name, "1", *mine, "--by", "anna")
        backend.wait_updated(name, version=call.updated_version + 1)
    assert shell.json("rename", "ben", "Ben Nevis", *mine)["name"] == "Ben Nevis"
    shown = shell.run("show", "ben", *mine)[1]
    assert "ben (Ben Nevis): 1 voiceprints" in shown
    assert f"heard in {name} as 1 (confirmed)" in shown
    exported = shell.json("export", "ben", *mine)
    assert len(exported["voiceprints"][0]["vector"]) == 64
    assert [each["what"] for each in exported["decisions"]][:2] == ["confirmed", "learned"]
    for arguments in (("show", "ben"), ("export", "ben"), ("rename", "ben", "B"), ("forget", "ben", "--yes")):
        assert shell.code(*arguments) == 1, "nobody else's owner knows him"
    assert shell.code("confirm", "ben", name, "1") == 1
    assert shell.code("forget", "ben", *mine) == 1, "nobody is here to confirm"
    assert shell.json("forget", "ben", *mine, "--yes")["forgotten"]
    assert shell.json("list", *mine)["people"] == []
    assert shell.code("show", "no.id", *mine) == 1


def test_an_enrolment_of_which_a_recording_is_refused_names_it_and_leaves_nothing(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    good.write_bytes(make_wav(30.0))
    bad.write_text("the shopping list")
    command = [sys.executable, "-c", "from vps_bridge.commands.main import main; main()"]
    environment = bridge.environment() | {
        name: value for name, value in mosquitto.environment("backend").items() if "BROKER" in name
    }
    kept = set(bridge.spool.iterdir())
    done = subprocess.run(
        [*command, "people", "enroll", "carl", str(good), str(bad)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"{bad}: audio.undecodable" in done.stderr
    wait_until(lambda: set(bridge.spool.iterdir()) <= kept, "the end of the good recording")
    listed = subprocess.run(
        [*command, "conversations"], env=bridge.environment(), capture_output=True, text=True, check=False
    )
    assert "enrolment-" not in listed.stdout


@pytest.mark.parametrize("option", [("--name", " \u200b"), ("--consent-date", "2199-01-01"), ("--owner", " ")])
def test_what_cannot_be_said_of_a_person_is_refused_before_the_voice_is_learned(
    bridge: LiveBridge, tmp_path: Path, shell: Shell, option: tuple[str, str]
) -> None:
    recording, kept = tmp_path / "eve.wav", set(bridge.spool.iterdir())
    recording.write_bytes(make_wav(30.0))
    assert shell.code("enroll", "eve", str(recording), "--timeout-s", "1", *option) == 2
    assert set(bridge.spool.iterdir()) == kept, "no audio was sent"


def test_whose_enrolment_still_waits_is_forgotten_with_it(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path, shell: Shell
) -> None:
    recording = tmp_path / "finn.wav"
    recording.write_bytes(make_wav(30.0))
    command = [sys.executable, "-m", "vps_bridge", "people", "enroll", "finn", str(recording), "--timeout-s", "2"]
    environment = bridge.environment() | {
        name: value for name, value in mosquitto.environment("backend").items() if "BROKER" in name
    }
    kept = set(bridge.spool.iterdir())
    subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, check=False)
    assert set(bridge.spool.iterdir()) > kept, "no agent is there: it waits"
    assert shell.json("forget", "finn", "--yes")["forgotten"]
    wait_until(lambda: set(bridge.spool.iterdir()) <= kept, "the end of the enrolment's audio")
    assert shell.code("forget", "finn", "--yes") == 1


def test_an_enrolment_that_sigterm_ends_before_all_is_sent_leaves_nothing(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path
) -> None:
    first, long = tmp_path / "first.wav", tmp_path / "long.wav"
    first.write_bytes(make_wav(30.0))
    long.write_bytes(make_wav(30.0))
    os.truncate(long, 60_000_000)  # it takes a while to send
    command = [sys.executable, "-m", "vps_bridge", "people", "enroll", "dora", str(first), str(long)]
    environment = bridge.environment() | {
        name: value for name, value in mosquitto.environment("backend").items() if "BROKER" in name
    }
    kept = set(bridge.spool.iterdir())
    running = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: set(bridge.spool.iterdir()) - kept, "the first recording")
    running.terminate()
    _, said = running.communicate()
    assert running.returncode == 143
    assert "Traceback" not in said
    wait_until(lambda: set(bridge.spool.iterdir()) <= kept, "the end of the first recording")
    with closing(Ledger(bridge.data_dir / "bridge", exclusive=False)) as ledger:
        assert not [name for name in ledger.listing.latest_first() if name.startswith("enrolment-")]


def test_each_command_shows_an_example(shell: Shell) -> None:
    for name in ("enroll", "confirm", "list", "show", "rename", "forget", "export"):
        assert "Example: omi-bridge people" in shell.run(name, "--help")[1]


def test_who_watches_the_broker_sees_no_name() -> None:
    event = PersonEvent(event_id="e", type=PersonEventType.NAMED, name="Anna Karenina", owner="user-1")
    seen = describe(
        TOPICS, Incoming(TOPICS.person_events("anna"), encode(event), retain=False, qos=1, content_type=None)
    )
    assert seen["message"]["type"] == "named"
    assert "Karenina" not in str(seen)
    assert "user-1" not in str(seen)
