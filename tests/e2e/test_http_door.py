"""A backend that uses only HTTP: the earlier client, and every curl of docs/http.md, against the whole pipeline."""

import asyncio
import contextlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.conversation import ConversationUpdated
from tests.brokers import free_port
from tests.docs.pages import all_blocks
from tests.e2e.system import System, read_wav, sample_folder, wait_until
from tests.inbox import WAIT_S

TOKEN = "a-token-of-this-test-alone"
PAGES_URL = "http://127.0.0.1:8765"
CURLS = [line for block in all_blocks(run="http") if block.page == "docs/http.md" for line in block.text.splitlines()]


@pytest.fixture
def url(system: System) -> str:
    """The URL of a running bridge that has an allowed agent."""
    port = str(free_port())
    system.start_bridge(OMI_HTTP_PORT=port, OMI_HTTP_TOKEN=TOKEN)
    system.start_agent()
    system.allow_agent()
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: httpx.get(f"{url}/health").json()["status"] == "healthy", "the agent at the door")
    return url


async def _run_diarization(url: str, path: Path, num_speakers: int | None = None) -> dict[str, Any]:
    """Post the file as the earlier backend does."""
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        with path.open("rb") as file:
            data = {} if num_speakers is None else {"num_speakers": num_speakers}
            response = await client.post(
                f"{url}/api/diarize", files={"file": (path.name, file, "audio/wav")}, data=data
            )
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def test_the_earlier_backend_gets_turns_of_a_real_call_and_nothing_is_kept(system: System, url: str) -> None:
    sample = sample_folder() / "sample.wav"
    answer = asyncio.run(_run_diarization(url, sample, num_speakers=2))
    turns = answer["speakers"]
    assert {turn["speaker_id"] for turn in turns} == {"SPEAKER_00", "SPEAKER_01"}
    assert answer["num_speakers"] == 2
    assert all(0 <= turn["start"] < turn["end"] <= 30.1 for turn in turns)
    assert sum(turn["end"] - turn["start"] for turn in turns) > 15
    health = httpx.get(f"{url}/health").json()
    assert health["device"]
    assert health["model"]
    assert system.command("omi-bridge", "conversations", "--json").strip() == "[]"
    samples, _ = read_wav(sample)
    wait_until(lambda: not _files_with(system, samples[100_000:100_064]), "every file to let go of the audio")


def _files_with(system: System, fingerprint: bytes) -> list[Path]:
    found = []
    for path in system.data_dir.parent.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it is gone by now
            if path.is_file() and fingerprint in path.read_bytes():
                found.append(path)
    return found


def test_every_curl_of_the_page_does_what_it_says(system: System, url: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt-get install curl")
    assert len(CURLS) == 7
    shutil.copy(sample_folder() / "sample.wav", tmp_path / "call.wav")
    answers = [_answer(line, url, tmp_path) for line in CURLS[:5]]
    assert '"num_speakers":2' in answers[1]
    assert _wait_final(system, 1).speakers == 2
    _answer(CURLS[5], url, tmp_path)
    assert _wait_final(system, 2).speakers == 1
    assert json.loads(_answer(CURLS[6], url, tmp_path))["writes"][-1]["by"] == "anna"


def _answer(line: str, url: str, directory: Path) -> str:
    """Run a line of the page and return what it prints."""
    done = subprocess.run(
        ["bash", "-c", line.replace(PAGES_URL, url)],
        env={"PATH": "/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin", "TOKEN": TOKEN},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _wait_final(system: System, version: int) -> ConversationUpdated:
    found: list[ConversationUpdated] = wait_until(
        lambda: [
            item
            for item in system.watcher.seen(ConversationUpdated, "call-1")
            if item.state == "final" and item.updated_version >= version
        ],
        "the final labels",
    )
    return found[-1]
