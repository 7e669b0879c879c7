"""A bridge process whose clock for OMI's webhooks a test sets: hours pass at once."""

import os
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.brokers import RunningBroker, free_port
from tests.inbox import WAIT_S
from tests.omi.traffic import OmiPost
from tests.vps_bridge.live_bridge import Backend, LiveBridge, wait_until
from vps_bridge.omi.users import NewAccess, UserFile

CLOCK = "OMI_TEST_CLOCK"  # names the file; only this program reads it
TIME = struct.Struct("<d")


class ClockFile:
    """A time in a file of eight bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> float:
        (now,) = TIME.unpack(self.path.read_bytes())
        return float(now)

    def set(self, now: float) -> None:
        descriptor = os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600)
        os.pwrite(descriptor, TIME.pack(now), 0)  # no reader sees half of it
        os.close(descriptor)


@dataclass
class ClockedBridge(LiveBridge):
    """The bridge with its listener for OMI, reached as a proxy on the same machine reaches it."""

    omi_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.clock = ClockFile(self.data_dir / "clock")
        self.options |= {"OMI_OMI_HTTP_PORT": str(self.omi_port), CLOCK: str(self.clock.path)}
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.omi_port}", timeout=WAIT_S)

    def spawn(self) -> None:
        with self.log_file.open("ab") as log:
            command = [sys.executable, "-m", "tests.omi.clocked_bridge"]
            self.process = subprocess.Popen(command, env=self.environment(), stdout=log, stderr=log)

    def add_user(self, uid: str) -> NewAccess:
        root = self.data_dir / "bridge"
        root.mkdir(parents=True, exist_ok=True)
        return UserFile(root).put(uid)

    def wait_open(self) -> None:
        def is_open() -> bool:
            try:
                return self.client.get("/omi/audio").status_code == httpx.codes.METHOD_NOT_ALLOWED
            except httpx.TransportError:
                return False

        wait_until(is_open, "the listener for OMI")

    def post(self, post: OmiPost) -> httpx.Response:
        """Send what OMI sends, at its time."""
        self.clock.set(post.at)
        return self.client.post(post.url, content=post.body, headers=post.headers)

    def reconnect(self) -> None:
        """What is sent next comes over a new connection."""
        self.client.close()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.omi_port}", timeout=WAIT_S)

    @property
    def capture(self) -> list[Path]:
        """The files of the capture log."""
        return list((self.data_dir / "bridge" / "omi" / "capture").glob("*.log"))


def start_clocked(broker: RunningBroker, data_dir: Path, backend: Backend, at: float, **options: str) -> ClockedBridge:
    """Start one whose clock stands at a Unix time."""
    bridge = ClockedBridge(broker, data_dir)
    bridge.clock.set(at)
    bridge.start(backend, **options)
    bridge.wait_open()
    return bridge


def main() -> None:
    from vps_bridge.bridge import Bridge
    from vps_bridge.commands.terminal import load

    Bridge(load(None, "bridge"), omi_clock=ClockFile(Path(os.environ[CLOCK]))).run()


if __name__ == "__main__":
    main()
