"""What the commands print is what people said and named, whole, at 80 columns."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.cli import app as broker_app
from schemas.conversation import EventType, TranscriptSegment
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.live_bridge import CALL_TURNS, STARTED_AT, Backend, LiveBridge
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav
from vps_bridge.commands.main import app
from vps_bridge.commands.watch import summarize

COLUMNS = 80
LONG_NAME = "conversation-of-the-whole-family-on-the-way-home-from-the-seaside"


@pytest.fixture
def narrow(bridge: LiveBridge) -> LiveBridge:
    """The bridge, its commands at a terminal of 80 columns."""
    bridge.options["COLUMNS"] = str(COLUMNS)
    return bridge


def test_a_transcript_in_brackets_is_no_markup_and_long_ids_are_not_cut(
    mosquitto: RunningBroker, backend: Backend, narrow: LiveBridge
) -> None:
    said = "[laughter] so [/b] it is"
    segments = (TranscriptSegment(id="s-1", start_s=0.5, end_s=4.5, text=said, speaker="SPEAKER_00"),)
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.event(LONG_NAME, EventType.STARTED, started_at=STARTED_AT)
        backend.event(LONG_NAME, EventType.SEGMENTS, segments=segments)
        backend.audio(LONG_NAME, make_wav(30.0, tone=9), captured_at=STARTED_AT)
        backend.event(LONG_NAME, EventType.COMPLETED, chunks=1)
        offer = agent.wait_offer(LONG_NAME)
        agent.answer(offer, CALL_TURNS)
        backend.wait_updated(LONG_NAME)
    assert said in narrow.command("show", LONG_NAME).stdout
    jobs = narrow.command("jobs").stdout
    assert max(map(len, jobs.splitlines())) <= COLUMNS
    assert str(offer.job_id) in jobs
    assert "…" not in jobs
    listed = narrow.command("conversations").stdout
    assert max(map(len, listed.splitlines())) <= COLUMNS
    assert "…" not in listed


def test_turns_without_a_transcript_are_shown(mosquitto: RunningBroker, backend: Backend, narrow: LiveBridge) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.audio("bare", make_wav(30.0, tone=10), captured_at=STARTED_AT)
        backend.event("bare", EventType.COMPLETED, chunks=1)
        agent.answer(agent.wait_offer("bare"), CALL_TURNS)
        backend.wait_updated("bare")
    shown = narrow.command("show", "bare").stdout
    assert "no transcript" in shown
    assert "SPEAKER_01" in shown
    turns = narrow.json("show", "bare")["turns"]
    assert [turn["speaker_id"] for turn in turns] == [0, 1, 0, 1, 0, 1]


def test_an_agent_that_nobody_ever_heard_is_allowed_with_a_question(narrow: LiveBridge) -> None:
    done = narrow.command("agents", "allow", "my-mca")
    assert "is it spelt as its OMI_AGENT_ID" in done.stderr
    told = json.loads(narrow.command("agents", "--json", "allow", "my-mca").stdout)
    assert told == {"agent_id": "my-mca", "allowed": True, "heard": False}
    narrow.command("agents", "forget", "my-mca")


def test_a_user_who_may_not_publish_is_told_at_once_and_what_to_set(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path
) -> None:
    file = tmp_path / "call.wav"
    file.write_bytes(make_wav(1.0))
    command = [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", "publish", str(file)]
    environment = mosquitto.environment("bridge") | {"OMI_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [*command, "-c", "c1"], env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 1
    assert "does not let user 'bridge' publish" in done.stderr
    assert "OMI_BROKER_USERNAME" in done.stderr


def test_a_mistake_in_the_config_file_names_the_sections(tmp_path: Path) -> None:
    config = tmp_path / "omi.toml"
    config.write_text('broker_urll = "mqtt://x"')
    done = CliRunner().invoke(app, ["config", "--config", str(config)])
    assert done.exit_code == 2
    assert "[bridge]" in done.output


@pytest.mark.parametrize("program", [app, broker_app], ids=["omi-bridge", "omi-broker"])
def test_every_program_tells_its_version(program) -> None:
    done = CliRunner().invoke(program, ["--version"])
    assert done.exit_code == 0
    assert done.output.startswith("omi-diarization ")


def test_a_watched_message_is_one_line_of_facts() -> None:
    message = json.loads(
        '{"schema": "conversation-updated", "version": "1.2", "conversation_id": "c", "state": "final", "speakers": 2,'
        ' "segments": [{"id": "a"}, {"id": "b"}], "warnings": [], "left_alone_counts": {"human": 1}}'
    )
    assert summarize(message) == "state=final speakers=2 2 segments left_alone_counts.human=1"
