"""An agent with the tone engine as a process of its own, which a test may stop, kill, and put to sleep."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.brokers import AGENT_ID, REPOSITORY, RunningBroker
from tests.inbox import WAIT_S


@dataclass
class AgentProcess:
    """The process, and where it keeps and says things. Writing `behaviour` tells its engine what to do next."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    log_file: Path
    behaviour: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL the agent alone."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """SIGKILL the agent and whatever belongs to it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(WAIT_S)

    def sleep(self) -> None:
        """Stop agent and worker, as a sleeping machine stops both."""
        os.killpg(self.pid, signal.SIGSTOP)

    def wake(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)

    def inbox_files(self) -> list[Path]:
        return sorted((self.data_dir / "inbox").glob("*.audio"))

    def log(self) -> str:
        return self.log_file.read_text()


def start_tone_agent(
    broker: RunningBroker,
    directory: Path,
    *,
    agent_id: str = AGENT_ID,
    data_dir: Path | None = None,
    behaviour: str = "",
    **settings: object,
) -> AgentProcess:
    """Start one with short pauses; `settings` are the agent's own, by name. The caller ends it."""
    directory.mkdir(parents=True, exist_ok=True)
    data_dir = data_dir or directory / "agent"
    behaviour_file = directory / "behaviour"
    behaviour_file.write_text(behaviour)
    log_file = directory / f"agent-{len(list(directory.glob('agent-*.log')))}.log"
    short = {
        "agent_id": agent_id,
        "data_dir": data_dir,
        "heartbeat_s": 0.5,
        "want_timeout_s": 1,
        "offer_retry_s": 1,
        "retry_max_s": 4,
        "reconnect_min_s": 0.05,
        "reconnect_max_s": 0.5,
        **settings,
    }
    role = f"agent:{agent_id}"
    environment = broker.environment(role if role in broker.users else "agent")
    environment |= {f"OMI_{name.upper()}": str(value) for name, value in short.items()}
    environment |= {"OMI_TEST_BEHAVIOUR": str(behaviour_file), "PYTHONPATH": str(REPOSITORY)}
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.mac_agent.tone_agent"],
            env=environment,
            stderr=log,
            stdout=log,
            cwd=REPOSITORY,
            start_new_session=True,
        )
    return AgentProcess(process, data_dir, log_file, behaviour_file)
