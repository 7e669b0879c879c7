"""A folder into which recordings are dropped, and the command that watches it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.client.dropped_files import find_recordings
from vps_bridge.client.folder_records import conversation_of
from vps_bridge.commands.main import app

SRT = "".join(
    f"{place}\n00:00:{int(start):02},500 --> 00:00:{int(end):02},500\nword {place}\n\n"
    for place, (start, end, _) in enumerate(CALL_TURNS, 1)
)
FAST = ("--settle-s", "0.3", "--json")
START = "from vps_bridge.commands.main import main; main()"


@dataclass
class Folder:
    """A folder, and the command that watches it."""

    path: Path
    broker: RunningBroker

    def drop(self, name: str, *, tone: int, seconds: float = CALL_S) -> Path:
        path = self.path / name
        path.write_bytes(make_wav(seconds, tone=tone))
        return path

    def once(self, *options: str) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, news, and what was said on stderr."""
        arguments = ["watch-folder", str(self.path), "--once", *FAST, *options]
        done = CliRunner().invoke(app, arguments, env=self.broker.environment("backend"))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", START, "watch-folder", str(self.path), *FAST],
            env=self.broker.environment("backend"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def text(self, name: str) -> str:
        return (self.path / name).read_text()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir() if not path.name.startswith("."))

    def conversation(self, name: str, owner: str | None = None) -> str:
        (recording,) = [each for each in find_recordings(self.path) if each.audio.name == name]
        return conversation_of(recording.digest(), owner)
