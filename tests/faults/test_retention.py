"""Where audio and text are kept, and for how long: all files are searched for bytes of the audio and for the text.

Bridge, agent and a Mosquitto that persists are real processes; each has a directory and a log, and all are searched.
"""

import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from schemas.conversation import EventType, TranscriptSegment
from tests.brokers import RunningBroker, run_mosquitto
from tests.faults.tone_process import ToneAgent, tone_agent
from tests.mac_agent.sounds import as_wav, tone
from tests.vps_bridge.live_bridge import STARTED_AT, Backend, LiveBridge, run_bridge, wait_until

TEXT, PERSON, OWNER = "the-words-that-were-said", "person-whose-name-it-is", "owner-of-the-necklace"
KEPT_S = "86400"


def noisy_call() -> tuple[bytes, list[bytes]]:
    """Return a call of noise, and markers from it: 24 bytes of every second."""
    rng = np.random.default_rng(5)
    audio = as_wav(tone(300, 8) + rng.uniform(-0.001, 0.001, tone(300, 8).size).astype(np.float32))
    step = len(audio) // 8
    return audio, [audio[start : start + 24] for start in range(1_000, len(audio) - 24, step)]


CALL, AUDIO_MARKERS = noisy_call()
WORD_MARKERS = [word.encode() for word in (TEXT, PERSON, OWNER)]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningBroker]:
    """A Mosquitto that writes its messages to disk every second."""
    home = tmp_path / "broker"
    home.mkdir()
    lines = f"persistence true\npersistence_location {home}/\nautosave_interval 1\n"
    with run_mosquitto(home, agent_ids=("mac",), extra_lines=lines) as running:
        yield running


@pytest.fixture
def backend(broker: RunningBroker) -> Iterator[Backend]:
    peer = Backend(broker)
    yield peer
    peer.stop()


@pytest.fixture
def bridge(broker: RunningBroker, backend: Backend, tmp_path: Path) -> Iterator[LiveBridge]:
    with run_bridge(broker, tmp_path / "vps", backend, OMI_KEEP_AUDIO_S=KEPT_S) as running:
        running.allow("mac")
        yield running


@pytest.fixture
def mac(broker: RunningBroker, tmp_path: Path) -> Iterator[ToneAgent]:
    with tone_agent(broker, "mac", tmp_path / "mac", tmp_path) as agent:
        agent.start(behaviour="hold")
        yield agent


def places(tmp_path: Path, markers: list[bytes]) -> set[str]:
    """Return the files that have any of the markers, by their names below the test's directory."""
    found = set()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if any(marker in data for marker in markers):
                found.add(str(path.relative_to(tmp_path)))
    return found


def save_broker(broker: RunningBroker, tmp_path: Path) -> None:
    """Have Mosquitto write its database now, and wait until it has."""
    database = tmp_path / "broker" / "mosquitto.db"
    before_ns = database.stat().st_mtime_ns if database.exists() else 0
    psutil.Process(broker.pid).send_signal(signal.SIGUSR1)
    wait_until(lambda: database.exists() and database.stat().st_mtime_ns > before_ns, "the broker to save")


def send_call(backend: Backend, conversation_id: str) -> None:
    segment = TranscriptSegment(id="s1", start_s=1.0, end_s=6.0, text=TEXT, speaker="SPEAKER_00", person_id=PERSON)
    backend.event(conversation_id, EventType.STARTED, started_at=STARTED_AT, owner=OWNER)
    backend.event(conversation_id, EventType.SEGMENTS, segments=(segment,))
    backend.audio(conversation_id, CALL, captured_at=STARTED_AT)
    backend.event(conversation_id, EventType.COMPLETED, chunks=1)


def test_audio_and_words_are_where_they_are_needed_and_nowhere_else_until_they_are_deleted(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, mac: ToneAgent, tmp_path: Path
) -> None:
    send_call(backend, "call")
    wait_until(lambda: b"job runs" in mac.log_file.read_bytes(), "the job to run")
    save_broker(broker, tmp_path)
    in_work = places(tmp_path, AUDIO_MARKERS)
    assert any(name.startswith("vps/bridge/spool/") for name in in_work), "the search must find what is there"
    assert all(name.startswith(("vps/bridge/spool/", "mac/inbox/")) for name in in_work), in_work

    mac.behaviour.write_text("")
    backend.wait_updated("call")
    wait_until(lambda: b"settled" in mac.log_file.read_bytes(), "the settlement")
    save_broker(broker, tmp_path)
    settled = places(tmp_path, AUDIO_MARKERS)
    assert all(name.startswith("vps/bridge/spool/") for name in settled), (
        "on the Mac it must be gone when it is settled"
    )
    words, owners = places(tmp_path, [TEXT.encode()]), places(tmp_path, [OWNER.encode()])
    assert words, "the search must find what is there"
    assert all(name.startswith("vps/bridge/conversations.sqlite3") for name in words), words
    assert owners, "people are known by owner"
    assert all(name.startswith("vps/bridge/ledger.sqlite3") for name in owners), owners
    people = places(tmp_path, [PERSON.encode()])  # the update, which is kept until it is applied, names them too
    kept = ("vps/bridge/conversations.sqlite3", "vps/bridge/ledger.sqlite3")
    assert all(name.startswith(kept) for name in people), people

    bridge.stop()
    bridge.start(backend, OMI_KEEP_AUDIO_S="0")
    wait_until(lambda: places(tmp_path, AUDIO_MARKERS) == set(), "the audio to be gone from the VPS, too")

    backend.event("call", EventType.DELETED)
    save_broker(broker, tmp_path)
    assert places(tmp_path, WORD_MARKERS + AUDIO_MARKERS) == set()


def test_a_conversation_deleted_while_its_job_runs_is_gone_everywhere(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, mac: ToneAgent, tmp_path: Path
) -> None:
    send_call(backend, "call")
    wait_until(lambda: b"job runs" in mac.log_file.read_bytes(), "the job to run")
    backend.event("call", EventType.DELETED)
    wait_until(lambda: b"cancel" in mac.log_file.read_bytes(), "the cancellation at the agent")
    save_broker(broker, tmp_path)
    wait_until(lambda: places(tmp_path, WORD_MARKERS + AUDIO_MARKERS) == set(), "all of it to be gone")
    late = backend.audio("call", CALL)
    assert late.verdict == "discarded"
    save_broker(broker, tmp_path)  # it may have saved just while it passed the audio on
    wait_until(lambda: places(tmp_path, AUDIO_MARKERS) == set(), "late audio to be gone")


def test_a_segment_that_is_replaced_or_removed_leaves_no_words_behind(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, tmp_path: Path
) -> None:
    segment = TranscriptSegment(id="s1", start_s=1.0, end_s=6.0, text=TEXT, person_id=PERSON)
    backend.event("call", EventType.SEGMENTS, revision=1, segments=(segment,))
    assert places(tmp_path, WORD_MARKERS)
    backend.event("call", EventType.SEGMENTS, revision=2, removed=("s1",))
    bridge.stop()
    save_broker(broker, tmp_path)  # it saves what is on its way, and overwrites that with its next save
    wait_until(lambda: places(tmp_path, WORD_MARKERS) == set(), "the words to be gone")
    bridge.start(backend)


def test_what_an_agent_and_a_bridge_hold_is_private_and_in_no_core_dump(
    backend: Backend, bridge: LiveBridge, mac: ToneAgent
) -> None:
    send_call(backend, "call")
    wait_until(lambda: b"job runs" in mac.log_file.read_bytes(), "the job to run")
    inbox = mac.data_dir / "inbox"
    private = [inbox, bridge.spool, bridge.data_dir / "bridge", *bridge.spool.iterdir()]
    assert not [path for path in private if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert (inbox / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
    assert bridge.process is not None
    family = [psutil.Process(bridge.process.pid), psutil.Process(mac.pid), *psutil.Process(mac.pid).children()]
    assert len(family) >= 3, "the worker must be one of them"
    if not Path("/proc/self/limits").exists():
        pytest.skip("no /proc here tells the limits of a process")
    for process in family:
        (line,) = [each for each in Path(f"/proc/{process.pid}/limits").read_text().splitlines() if "core file" in each]
        assert line.split()[4:6] == ["0", "0"], process.cmdline()
