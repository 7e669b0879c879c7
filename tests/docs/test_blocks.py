"""The blocks of the pages against a real broker and bridge: what an operator types, and what a backend runs."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.brokers import REPOSITORY, free_port, require_program
from tests.docs.node_packages import installed_packages, node_program
from tests.docs.pages import Block, all_blocks
from tests.docs.running_system import RunningSystem, run_system_of_pages
from tests.inbox import WAIT_S, eventually
from tests.vps_bridge.http.door import TOKEN
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS
from tests.vps_bridge.scripted_agent import make_wav

MAY_FAIL = {"omi-bridge doctor", "omi-bridge doctor --wait 12", "omi-bridge agents drain second-mac --timeout 5"}
"""Commands whose exit code tells what they found: no second Mac runs here."""
TYPED = [block for block in all_blocks(run="operating") if block.label("background") is None]
LISTENING = [
    line for block in all_blocks(run="operating") if block.label("background") == "" for line in block.text.splitlines()
]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    with run_system_of_pages(tmp_path_factory.mktemp("pages")) as running:
        yield running


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A directory with a recording and its transcript, in which a backend's example runs."""
    (tmp_path / "call.wav").write_bytes(make_wav(CALL_S))
    segments = [
        {"id": f"s-{place}", "start_s": start, "end_s": end, "text": "word"}
        for place, (start, end, _) in enumerate(CALL_TURNS, 1)
    ]
    (tmp_path / "segments.json").write_text(json.dumps(segments))
    return tmp_path


def backend_environment(system: RunningSystem, desk: Path) -> dict[str, str]:
    """What a backend has: the address, its user, the CA, the door's token."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OMI_", "XDG_"))}
    names = ("OMI_BROKER_URL", "OMI_BROKER_USERNAME", "OMI_BROKER_PASSWORD", "OMI_BROKER_CA_FILE")
    own = {name: system.broker.environment("backend")[name] for name in names}
    return ours | own | {"HOME": str(desk), "TOKEN": TOKEN, "OMI_DATA_DIR": str(desk / "data")}


def finished(command: list[str], desk: Path, environment: Mapping[str, str]) -> str:
    """Run an example to its end and return what it printed."""
    done = subprocess.run(
        command, cwd=desk, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("block", TYPED, ids=str)
def test_what_an_operator_types_works(system: RunningSystem, block: Block) -> None:
    for line in block.text.splitlines():
        code, said = system.run_line(line)
        assert code in ((0, 1) if line in MAY_FAIL else (0,)), f"{line}: {said}"


@pytest.mark.parametrize("line", LISTENING, ids=lambda line: line.split()[0])
def test_what_an_operator_listens_with_hears_the_bridge(system: RunningSystem, line: str, tmp_path: Path) -> None:
    address = f"-h 127.0.0.1 -p {system.broker.port}"
    line = line.replace("-h 100.64.0.1 -p 8883", address).replace("/etc/mosquitto/omi", str(system.home))
    program = f'{sys.executable} -c "from vps_bridge.commands.main import main; main()"'
    line = line.replace("omi-bridge", program, 1) if line.startswith("omi-bridge") else line
    secret = system.broker.users["watch"].password
    heard = tmp_path / "heard"
    with heard.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"], env={**system.environment, "PASSWORD": secret}, stdout=out, stderr=out
        )
    try:
        eventually(lambda: "bridge/bridge/heartbeat" in heard.read_text())
    finally:
        process.terminate()
        process.wait(WAIT_S)


def test_python_with_our_client_gets_turns(system: RunningSystem, desk: Path) -> None:
    ours, _ = all_blocks("python", run="backend")
    environment = backend_environment(system, desk) | {
        "ENABLE_SPEAKER_DIARIZATION": "true",
        "PYTHONPATH": str(REPOSITORY),
    }
    assert "'speaker_id': 'SPEAKER_01'" in finished([sys.executable, "-c", ours.text], desk, environment)


def test_python_with_nothing_of_ours_gets_labels(system: RunningSystem, desk: Path) -> None:
    _, plain = all_blocks("python", run="backend")
    assert "vps_bridge" not in plain.text
    said = finished([sys.executable, "-c", plain.text], desk, backend_environment(system, desk))
    assert "accepted py-1-0" in said
    assert "{'s-1': 'SPEAKER_00', 's-2': 'SPEAKER_01'," in said
    assert "2 speakers" in said


def test_node_gets_labels(system: RunningSystem, desk: Path) -> None:
    (block,) = all_blocks("js", run="backend")
    (desk / "backend.cjs").write_text(block.text)
    environment = backend_environment(system, desk) | {"NODE_PATH": str(installed_packages())}
    said = finished([node_program(), "backend.cjs"], desk, environment)
    assert "accepted node-1-0" in said
    assert "s-1 SPEAKER_00" in said


def test_a_shell_sends_a_file_and_hears_the_update(system: RunningSystem, desk: Path) -> None:
    require_program("mosquitto_pub", "mosquitto-clients")
    who, send = all_blocks("sh", run="backend")
    finished(["bash", "-em", "-c", who.text + send.text], desk, backend_environment(system, desk))
    assert (desk / ".config" / "mosquitto_pub").stat().st_mode & 0o777 == 0o600
    assert (desk / ".config" / "mosquitto_sub").stat().st_mode & 0o777 == 0o600
    assert '"verdict":"accepted"' in (desk / "sh-1.log").read_text()


def test_a_shell_does_the_same_by_http(system: RunningSystem, desk: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt-get install curl")
    (block,) = (block for block in all_blocks(run="http") if block.page == "docs/backend-in-ten-lines.md")
    text = block.text.replace("http://127.0.0.1:8765", system.door_url)
    said = finished(["bash", "-e", "-c", text], desk, backend_environment(system, desk))
    assert '"verdict":"accepted"' in said
    assert '"conversation_id":"sh-2"' in said


def test_the_embedded_broker_makes_its_users(tmp_path: Path) -> None:
    start, users = all_blocks(run="embedded")
    environment = {**os.environ, "OMI_DATA_DIR": str(tmp_path)}

    def command(line: str) -> list[str]:
        return [sys.executable, "-c", "from broker.cli import main; main()", *line.split()[1:]]

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command(start.text), "--port", str(free_port())], env=environment, stdout=log, stderr=log
        )
    try:
        eventually(lambda: "omi-broker ready" in (tmp_path / "log").read_text())
        said = finished(command(users.text), tmp_path, environment)
        assert all(name in said for name in ("bridge", "backend", "agent", "watch"))
    finally:
        process.terminate()
        process.wait(WAIT_S)
