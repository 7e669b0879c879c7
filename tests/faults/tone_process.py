"""An agent with the tone engine, as a process beside a real bridge."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.brokers import REPOSITORY, RunningBroker
from tests.inbox import WAIT_S

SHORT = {
    "OMI_HEARTBEAT_S": "0.5",
    "OMI_WANT_TIMEOUT_S": "1",
    "OMI_OFFER_RETRY_S": "1",
    "OMI_RETRY_MAX_S": "4",
    "OMI_RECONNECT_MIN_S": "0.05",
    "OMI_RECONNECT_MAX_S": "0.5",
}


@dataclass
class ToneAgent:
    """An agent process. After `stop` or `kill`, `start` starts a new process with the same directories."""

    broker: RunningBroker
    agent_id: str
    data_dir: Path
    directory: Path
    """For its log and the file with the behaviour of its engine; not on the disk that a test fills."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def log_file(self) -> Path:
        return self.directory / f"{self.agent_id}.log"

    @property
    def behaviour(self) -> Path:
        return self.directory / f"{self.agent_id}.behaviour"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, *, behaviour: str = "", **options: str) -> None:
        self.behaviour.write_text(behaviour)
        own = {
            "OMI_AGENT_ID": self.agent_id,
            "OMI_DATA_DIR": str(self.data_dir),
            "OMI_TEST_BEHAVIOUR": str(self.behaviour),
            "PYTHONPATH": str(REPOSITORY),
        }
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.mac_agent.tone_agent"],
                env={**os.environ, **self.broker.environment(f"agent:{self.agent_id}"), **SHORT, **own, **options},
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
            )

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(WAIT_S)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def tone_agent(broker: RunningBroker, agent_id: str, data_dir: Path, directory: Path) -> Iterator[ToneAgent]:
    """Yield an agent that is not started yet; killed when the test is over."""
    agent = ToneAgent(broker, agent_id, data_dir, directory)
    try:
        yield agent
    finally:
        agent.kill()
        if agent.log_file.exists():
            sys.stdout.write(agent.log_file.read_text()[-6_000:])  # pytest shows it if the test failed
