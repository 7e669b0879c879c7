"""A Mosquitto as `omi-broker init` sets it up, with TLS, a bridge with its HTTP door, and an agent that answers."""

import contextlib
import getpass
import os
import shlex
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from typer.testing import CliRunner

from broker.mosquitto_setup import Wanted, set_up_mosquitto
from demo.programs import MODULES
from schemas.conversation import EventType, TranscriptSegment
from tests.brokers import RunningBroker, free_port, require_program
from tests.vps_bridge.http.door import answering, open_door
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS, STARTED_AT, Backend, LiveBridge, run_bridge
from tests.vps_bridge.scripted_agent import make_wav

AGENTS = ("first", "my-mac")


@dataclass
class RunningSystem:
    """What the blocks of the pages are run against; `home` is the directory that `/etc/mosquitto/omi` stands for."""

    home: Path
    broker: RunningBroker
    bridge: LiveBridge
    backend: Backend

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables with which a command speaks for the bridge."""
        return self.bridge.environment()

    @property
    def door_url(self) -> str:
        return f"http://127.0.0.1:{self.bridge.options['OMI_HTTP_PORT']}"

    def run_line(self, line: str) -> tuple[int, str]:
        """Run one command of a page in this process, which starts it at once; return its exit code and what it said."""
        here = line.replace("/etc/mosquitto/omi", str(self.home))
        here = here.replace("/etc/omi-diarization", str(self.home / "etc"))
        program, *words = shlex.split(here, comments=True)
        if [program, *words] == ["systemctl", "reload", "mosquitto"]:
            os.kill(self.broker.pid, signal.SIGHUP)
            return 0, ""
        if words[:1] == ["doctor"]:
            words = ["doctor", "--wait", "1"]  # both bridge and agent beat faster here than in an installation
        app = import_module(MODULES[program]).app
        done = CliRunner().invoke(app, words, env={**self.environment, "NO_COLOR": "1", "TERM": "dumb"})
        return done.exit_code, done.output


def _send_call(backend: Backend) -> None:
    """The conversation that the pages speak of: call-1, with segments s-1 to s-6."""
    segments = tuple(
        TranscriptSegment(id=f"s-{place}", start_s=start, end_s=end, text="word", speaker="SPEAKER_00")
        for place, (start, end, _) in enumerate(CALL_TURNS, 1)
    )
    backend.event("call-1", EventType.STARTED, started_at=STARTED_AT, owner="user-1")
    backend.event("call-1", EventType.SEGMENTS, segments=segments)
    backend.audio("call-1", make_wav(CALL_S), captured_at=STARTED_AT)
    backend.event("call-1", EventType.COMPLETED, chunks=1)
    backend.wait_updated("call-1")


@contextlib.contextmanager
def run_system_of_pages(directory: Path) -> Iterator[RunningSystem]:
    """Yield the system, with the conversation `call-1` in it."""
    program = require_program("mosquitto", "mosquitto")
    home, port = directory / "omi", free_port()
    setup = set_up_mosquitto(home, Wanted(tls=True, port=port, agent_ids=AGENTS))
    own = directory / "own.conf"  # it must not become another user, who could not read these files
    own.write_text(f"{(home / 'mosquitto.conf').read_text()}\nuser {getpass.getuser()}\n")
    users, ca = setup.mosquitto.users, home / "tls" / "ca.pem"
    command = (program, "-c", str(own))
    broker = RunningBroker(f"mqtts://127.0.0.1:{port}", users, directory / "log", "5", command, port, ca)
    broker.start()
    backend = Backend(broker)
    try:
        with run_bridge(broker, directory / "data", backend, **open_door()) as bridge:
            bridge.allow("first")
            with answering(broker):
                _send_call(backend)
                yield RunningSystem(home, broker, bridge, backend)
    finally:
        backend.stop()
        broker.kill()
