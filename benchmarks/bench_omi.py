"""How soon OMI's audio webhooks are answered: 200 users, a POST of 32 kB a second each, and `kill -9` at the end.

A real Mosquitto, a real bridge, and this process as 200 OMI backends with a connection each, on the same processors.
What was answered is then looked for in the capture log.

    python -m benchmarks.bench_omi
    python -m benchmarks.bench_omi --users 50 --seconds 20
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from broker.logs import silence_logs
from tests.brokers import run_mosquitto
from tests.omi.clocked_bridge import ClockedBridge, start_clocked
from tests.vps_bridge.live_bridge import Backend
from vps_bridge.omi.capture import CAPTURE, Arrival, CaptureLog
from vps_bridge.omi.records import AUDIO, NO_KEY, hash_name
from vps_bridge.omi.users import OMI, NewAccess, UserFile

RATE = 16_000
BODY_BYTES = 2 * RATE
WARM_S = 2.0
OK = b"HTTP/1.1 200"
DISK_ROUNDS = 20


@dataclass
class SendingUser:
    """One user's backend, and how long each of its answers took."""

    access: NewAccess
    port: int
    burst: int
    answered: list[int] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    refused: int = 0

    def body(self, place: int) -> bytes:
        """Return audio that tells which it is."""
        return place.to_bytes(4, "little") * (BODY_BYTES // 4)

    async def send(self, seconds: float, started_s: float) -> None:
        """Send until the time is over or the bridge is gone."""
        wait_s = random.random() * self.burst  # noqa: S311 - no secret
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        place = 0
        try:
            while time.monotonic() < started_s + seconds:
                await asyncio.sleep(max(0.0, started_s + wait_s + place - time.monotonic()))
                for _ in range(self.burst):
                    await self._post(reader, writer, place, is_counted=time.monotonic() > started_s + WARM_S)
                    place += 1
        except (OSError, asyncio.IncompleteReadError):
            return  # the bridge was killed
        finally:
            writer.close()

    async def _post(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: int, *, is_counted: bool
    ) -> None:
        uid, token = self.access.user.uid, self.access.token
        head = (
            f"POST /omi/audio?token={token}&sample_rate={RATE}&uid={uid} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/octet-stream\r\nIdempotency-Key: {uid}-{place}\r\n"
            f"Content-Length: {BODY_BYTES}\r\n\r\n"
        )
        body = self.body(place)
        began_s = time.monotonic()
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"{}")
        took_s = time.monotonic() - began_s
        if not answer.startswith(OK):
            self.refused += 1
            return
        self.answered.append(place)
        if is_counted:
            self.took_s.append(took_s)


async def send_all(users: Sequence[SendingUser], seconds: float, bridge: ClockedBridge) -> None:
    """Send, and kill the bridge in the middle of it."""
    started_s = time.monotonic()
    sending = [asyncio.create_task(user.send(seconds + 5, started_s)) for user in users]
    await asyncio.sleep(seconds)
    await asyncio.to_thread(bridge.kill)
    await asyncio.gather(*sending)


def count_lost(users: Sequence[SendingUser], root: Path) -> tuple[int, int]:
    """Return how many answered bodies the capture log has not, or twice; and how many were answered."""
    log = CaptureLog(root / OMI / CAPTURE, 6 * 3600.0, time.time())
    lost = 0
    for user in users:
        records = log.records_of(hash_name(user.access.user.uid))
        kept = [int.from_bytes(record.read(0, 4), "little") for record in records]
        lost += sum(kept.count(place) != 1 for place in user.answered)
    return lost, sum(len(user.answered) for user in users)


def measure(n_users: int, seconds: float, burst: int) -> str:
    """Return a row of the table."""
    with tempfile.TemporaryDirectory() as name, run_mosquitto(Path(name), agent_ids=("first",)) as broker:
        backend = Backend(broker)
        root = Path(name) / "data" / "bridge"
        root.mkdir(parents=True)
        accesses = [UserFile(root).put(f"user{number:03}") for number in range(n_users)]
        bridge = start_clocked(broker, Path(name) / "data", backend, time.time())
        backend.stop()
        users = [SendingUser(access, bridge.omi_port, burst) for access in accesses]
        busy_s = sum(os.times()[:2])
        asyncio.run(send_all(users, seconds, bridge))
        own = (sum(os.times()[:2]) - busy_s) / seconds
        lost, answered = count_lost(users, root)
    took_ms = sorted(1000 * took_s for user in users for took_s in user.took_s)
    p50, p99, longest = (took_ms[min(len(took_ms) - 1, int(share * len(took_ms)))] for share in (0.5, 0.99, 1.0))
    refused = sum(user.refused for user in users)
    shape = "one a second" if burst == 1 else f"{burst} every {burst} s"
    return (
        f"| {n_users}, {shape} | {answered} | {p50:.1f} | {p99:.1f} | {longest:.0f} | {refused} | {lost} "
        f"| {own:.2f} | {os.getloadavg()[0]:.1f} |"
    )


def measure_disk(n_users: int) -> str:
    """Return what it costs to make a second of everybody's audio durable: a file and an fsync each, or one log."""
    body, at = os.urandom(BODY_BYTES), time.time()
    with tempfile.TemporaryDirectory() as name:
        files = [os.open(Path(name) / str(number), os.O_CREAT | os.O_WRONLY | os.O_APPEND) for number in range(n_users)]
        began_s = time.monotonic()
        for _ in range(DISK_ROUNDS):
            for descriptor in files:
                os.write(descriptor, body)
                os.fdatasync(descriptor)
        each_ms = (time.monotonic() - began_s) / DISK_ROUNDS * 1000
        for descriptor in files:
            os.close(descriptor)
        log = CaptureLog(Path(name) / "log", 3600.0, at)
        arrivals = [Arrival(AUDIO, hash_name(str(number)), NO_KEY, RATE, at, body) for number in range(n_users)]
        began_s = time.monotonic()
        for _ in range(DISK_ROUNDS):
            log.append(arrivals)
        shared_ms = (time.monotonic() - began_s) / DISK_ROUNDS * 1000
        log.close()
    return f"a second of {n_users} users on disk: {each_ms:.0f} ms with a file each, {shared_ms:.0f} ms in one log"


def main() -> None:
    """Print a table."""
    silence_logs()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    sys.stdout.write(
        "| users, POSTs of 32 kB | answered | p50, ms | p99, ms | longest | refused | lost | own cpu | load |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|---|---|---|\n")
    for burst in (1, 4):
        sys.stdout.write(measure(options.users, options.seconds, burst) + "\n")
        sys.stdout.flush()
    sys.stdout.write("\n" + measure_disk(options.users) + "\n")


if __name__ == "__main__":
    main()
