"""People through real processes and the real engine, for a backend that has only MQTT and the published schemas."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from benchmarks.people.conversations import talk
from benchmarks.recordings import SAMPLE_RATE_HZ, Recording, voices
from tests.brokers import REPOSITORY
from tests.e2e.system import System, make_wav
from tests.inbox import WAIT_S

NAME = "Anna Arkadyevna Oblonskaya"
CHUNK_S = 30
PAUSES_S = (1.0, 3.0)  # by which it is seen that audio and transcript fit each other
OURS = {"schemas", "broker", "vps_bridge", "mac_agent", "omi_diarization_client", "tests", "benchmarks", "demo"}

pytestmark = pytest.mark.shared


def write_call(folder: Path, recording: Recording) -> None:
    samples = (np.clip(recording.waveform, -1.0, 1.0) * 32_767).astype("<i2")
    for place, first in enumerate(range(0, len(samples), CHUNK_S * SAMPLE_RATE_HZ)):
        chunk = samples[first : first + CHUNK_S * SAMPLE_RATE_HZ].tobytes()
        (folder / f"{recording.name}-{place}.wav").write_bytes(make_wav(chunk, SAMPLE_RATE_HZ))
    (folder / f"{recording.name}.json").write_text(json.dumps(recording.reference))


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Three calls of two readers each, who never say the same twice, and one of them alone."""
    folder = tmp_path / "calls"
    folder.mkdir()
    known, beside, enrolled, stranger = voices()[:4]
    write_call(folder, talk("first", [known, beside], [0, 1, 2], seed=1, pauses_s=PAUSES_S))
    write_call(folder, talk("second", [enrolled, known], [3, 4, 5], seed=2, pauses_s=PAUSES_S))
    write_call(folder, talk("alone", [enrolled], [0, 1], seed=3))
    write_call(folder, talk("third", [stranger, enrolled], [6, 7, 8], seed=4, pauses_s=PAUSES_S))
    return folder


def test_a_backend_of_schemas_alone_confirms_enrols_corrects_forgets_and_hears_the_outcome(
    working_system: System, calls: Path
) -> None:
    broker = working_system.broker
    address, (known, beside, enrolled, stranger) = urlsplit(broker.url), voices()[:4]
    said = {
        "host": address.hostname,
        "port": address.port,
        "user": broker.users["backend"].username,
        "password": broker.users["backend"].password,
        "chunk_s": CHUNK_S,
        "schemas": str(REPOSITORY / "schemas"),
        "folder": str(calls),
        "known": known,
        "name": NAME,
    }
    script = Path(__file__).with_name("schemas_backend.py")
    done = subprocess.run(
        [sys.executable, "-I", str(script), json.dumps(said)],
        capture_output=True,
        check=False,
        cwd=calls,
        text=True,
        timeout=6 * WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert not OURS & set(told["modules"])
    assert set(told["verdicts"]) == {"accepted"}
    assert told["refused"]["verdict"] == "refused", "no owner's conversation teaches another's people"

    assert people_in(told["first"]) == {known: {None}, beside: {None}}
    assert people_in(told["confirmed"]) == {known: {("anna", "confirmed")}, beside: {None}}
    assert people_in(told["second"]) == {known: {("anna", "matched")}, enrolled: {None}}, told["second"]
    assert people_in(told["corrected"]) == {known: {None}, enrolled: {None}}
    assert [(one["kind"], one["outcome"]) for one in told["outcomes"]] == [("voice_is_not", "spread")]
    assert told["undone_is_as_before"]
    assert (told["enrolment"]["person_id"], told["enrolment"]["outcome"]) == ("ben", "learned")
    assert people_in(told["third"]) == {enrolled: {("ben", "matched")}, stranger: {None}}, told["third"]
    assert people_in(told["without_anna"]) == {known: {None}, enrolled: {("ben", "matched")}}
    assert people_in(told["without_both"]) == {known: {None}, enrolled: {None}}
    assert NAME not in "".join(map(str, (told, working_system.command("omi-bridge", "people", "list", "--json"))))


def people_in(named: dict[str, list[Any]]) -> dict[str, set[Any]]:
    """By real speaker, whom the lines name and how surely."""
    return {
        who: {(person, identity) if person else None for _, person, identity, _ in lines}
        for who, lines in named.items()
    }
