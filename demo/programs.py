"""The programs of the pipeline as processes, each with its own log, all stopped at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_TIMEOUT_S = 15.0
BROKER_TIMEOUT_S = 60.0
MODULES = {"omi-broker": "broker.cli", "omi-agent": "mac_agent.commands.main", "omi-bridge": "vps_bridge.commands.main"}


class ProgramFailed(Exception):
    """A program ended or did not start; the message has the end of its log, or where it is."""


@dataclass
class DemoProgram:
    """A running program."""

    name: str
    process: subprocess.Popen[bytes]
    log_file: Path
    begin: Callable[[], subprocess.Popen[bytes]]
    """Starts the process anew."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def check(self) -> None:
        """Raise `ProgramFailed` where it has ended."""
        if self.process.poll() is not None:
            tail = "\n".join(self.log_file.read_text(errors="replace").splitlines()[-15:])
            msg = f"{self.name} ended with exit code {self.process.returncode}; the end of {self.log_file}:\n{tail}"
            raise ProgramFailed(msg)

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def restart(self) -> None:
        """Start it again once it has ended, as systemd and launchd would."""
        self.process = self.begin()

    def stop(self) -> int:
        """Ask it to stop (SIGTERM), wait, and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@dataclass
class Programs:
    """Programs that share a directory; as a context manager it stops them all, the last started first."""

    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    running: list[DemoProgram] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Make the directory."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Stop everything that was started here."""
        for program in reversed(self.running):
            program.stop()

    def start(self, command: str, *arguments: str, environment: Mapping[str, str] | None = None) -> DemoProgram:
        """Start one of our commands with the interpreter that runs this program."""
        ours = [sys.executable, "-c", f"from {MODULES[command]} import main; main()", *arguments]
        return self.start_command(command, ours, environment=environment)

    def start_command(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> DemoProgram:
        """Start any program; its log is `name`.log."""
        log_file = self.directory / f"{name}.log"
        variables = {**os.environ, **self.environment, **(environment or {})}

        def begin() -> subprocess.Popen[bytes]:
            with log_file.open("ab") as log:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=variables,
                    start_new_session=True,  # Ctrl-C ends only this program, which then stops the others in order
                )

        program = DemoProgram(name, begin(), log_file, begin)
        self.running.append(program)
        return program

    def start_broker(self, data_dir: Path) -> str:
        """Start the embedded broker on a free port and return its URL once it answers."""
        port = free_port()
        program = self.start("omi-broker", "run", "--port", str(port), "--data-dir", str(data_dir))
        deadline_s = time.monotonic() + BROKER_TIMEOUT_S
        while time.monotonic() < deadline_s:
            program.check()
            if "omi-broker ready" in program.log_file.read_text(errors="replace"):
                return f"mqtt://127.0.0.1:{port}"
            time.sleep(0.05)
        msg = f"omi-broker was not ready within {BROKER_TIMEOUT_S:.0f} s: see {program.log_file}"
        raise ProgramFailed(msg)


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
