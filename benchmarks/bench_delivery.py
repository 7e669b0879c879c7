"""What delivery costs, side by side: ours, the HTTP design it replaces, and bare paho over the same hops.

    python -m benchmarks.bench_delivery            the table, and benchmarks/delivery.md
    python -m benchmarks.bench_delivery --json     the same numbers for a program
    python -m benchmarks.bench_delivery --payloads 10 --lengths 30

Everything is real but the engine, which answers at once: a bridge and an agent process with the defaults a user has,
and a Mosquitto; every fsync is made. "Accepted to updated" is the time that our delivery adds once it has a payload;
"sent to updated" begins when the backend sends, as the time of the HTTP design does.

The HTTP design keeps nothing. The aims, in one run: our p50 is at most 2.2 times its p50, and the bridge's processor
time per payload through the MQTT door at most 0.85 of its server's.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.bare_hops import Sender, connect
from benchmarks.delivery import (
    PART_BYTES,
    RunningPipeline,
    cpu_seconds,
    find_mosquitto,
    make_segments,
    make_wav,
    percentiles_ms,
    run_pipeline,
)
from benchmarks.delivery_report import BARE, BASELINE, OURS_HTTP, OURS_MQTT, DeliveryRow, render, write_report
from benchmarks.http_baseline import MAX_AUDIO_S, HttpBackend
from broker.logs import silence_logs
from demo.programs import Programs, free_port
from mac_agent.audio import decode
from tests.brokers import RunningBroker, run_mosquitto
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.intake.spool import Spool

DEFAULT_LENGTHS_S = (30.0, 300.0)
WARM_UP = 2
AT_ONCE = 8  # payloads sent and not yet updated, when throughput is measured


@dataclass
class LoadPlan:
    """How much to run."""

    lengths_s: tuple[float, ...]
    payloads: int
    progress: Callable[[str, int], Callable[[], None]]

    def counts(self, seconds: float) -> tuple[int, int]:
        """Return how many payloads are sent one by one, and how many at full load; of long ones, fewer."""
        share = 1.0 if seconds <= 60 else 0.35
        return max(3, round(self.payloads * share)), max(4, round(1.5 * self.payloads * share))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--payloads", type=int, default=40, help="of the shortest length, one by one (default 40)")
    parser.add_argument("--lengths", nargs="+", type=float, default=DEFAULT_LENGTHS_S, help="seconds of audio")
    parser.add_argument(
        "--only", nargs="+", choices=[OURS_MQTT, OURS_HTTP, BASELINE, BARE], help="some designs (no report)"
    )
    parser.add_argument("--json", action="store_true", help="numbers for a program instead of a table")
    options = parser.parse_args()
    silence_logs()
    if find_mosquitto() is None:
        sys.exit("mosquitto is not installed: apt-get install mosquitto, or brew install mosquitto")
    wanted = options.only or [BARE, BASELINE, OURS_MQTT, OURS_HTTP]
    rows: list[DeliveryRow] = []
    with tempfile.TemporaryDirectory() as scratch, Progress(console=Console(stderr=True), transient=True) as progress:
        plan = LoadPlan(tuple(options.lengths), options.payloads, _counting(progress))
        directory = Path(scratch)
        with run_mosquitto(directory) as broker:
            if BARE in wanted:
                rows += measure_bare(broker, directory / "bare", plan)
            if BASELINE in wanted:
                rows += measure_baseline(directory / "http", plan)
            designs = [design for design in (OURS_MQTT, OURS_HTTP) if design in wanted]
            if designs:
                rows += measure_ours(broker, directory / "ours", plan, designs)
            costs = measure_costs(directory / "costs", plan.lengths_s)
    tables = render(rows, costs)
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "costs_ms": costs}, indent=2))
    else:
        print(tables)
    if not options.only:
        write_report(tables, (__doc__ or "").split("\n\n", 2)[2])


def _counting(progress: Progress) -> Callable[[str, int], Callable[[], None]]:
    def begin(label: str, total: int) -> Callable[[], None]:
        task = progress.add_task(label, total=total)
        return lambda: progress.advance(task)

    return begin


# ------------------------------------------------------------------------------------------------ ours


def measure_ours(broker: RunningBroker, directory: Path, plan: LoadPlan, designs: list[str]) -> list[DeliveryRow]:
    """Measure bridge and agent with their defaults."""
    with run_pipeline(broker, directory) as pipeline:
        bridge = pipeline.start_bridge()
        pipeline.allow_agent()
        agent = pipeline.start_agent()
        pids = {"bridge": bridge.pid, "agent": agent.pid, "broker": broker.pid}
        return [
            _measure_ours_at(pipeline, pids, seconds, plan, design) for seconds in plan.lengths_s for design in designs
        ]


def _measure_ours_at(
    pipeline: RunningPipeline, pids: Mapping[str, int], seconds: float, plan: LoadPlan, design: str
) -> DeliveryRow:
    one_by_one, at_once = plan.counts(seconds)
    backend, audio = pipeline.backend, make_wav(seconds)
    deliver = backend.send if design == OURS_MQTT else backend.post
    step = plan.progress(f"{design}, {seconds:g} s", WARM_UP + one_by_one + at_once)
    names: list[str] = []
    for _ in range(WARM_UP + one_by_one):
        name = f"one-{uuid.uuid4().hex}"
        backend.begin(name, seconds)
        deliver(name, audio)
        backend.wait_updated(name)
        names.append(name)
        step()
    timed = [backend.times[name] for name in names[WARM_UP:]]
    row = DeliveryRow(
        design,
        seconds,
        len(audio),
        one_by_one,
        percentiles_ms([times.updated_s - times.accepted_s for times in timed]),
        percentiles_ms([times.updated_s - times.sent_s for times in timed]),
        spans_ms=pipeline.spans_ms(set(names[WARM_UP:])),
    )
    loaded = [f"load-{uuid.uuid4().hex}" for _ in range(at_once)]
    for name in loaded:
        backend.begin(name, seconds)
    with _timed(row, pids, at_once):
        for place, name in enumerate(loaded):
            if place >= AT_ONCE:
                backend.wait_updated(loaded[place - AT_ONCE])
                step()
            deliver(name, audio)
        for name in loaded:
            backend.wait_updated(name)
    return row


@contextmanager
def _timed(row: DeliveryRow, pids: Mapping[str, int], payloads: int) -> Iterator[None]:
    """Measure throughput and processor time of the block."""
    before, own, began_s = cpu_seconds(pids), time.process_time(), time.monotonic()
    yield
    took_s = time.monotonic() - began_s
    after = cpu_seconds(pids) | {"backend": time.process_time()}
    before["backend"] = own
    row.per_second = payloads / took_s
    row.cpu_ms = {name: 1000 * (after[name] - before.get(name, 0.0)) / payloads for name in after}


# ---------------------------------------------------------------------------------- the design it replaces


def measure_baseline(directory: Path, plan: LoadPlan) -> list[DeliveryRow]:
    """Measure a FastAPI server that answers a multipart upload; its client waits, and writes the labels."""
    port, rows = free_port(), []
    directory.mkdir(parents=True)
    store = SqliteConversations(directory / "conversations.sqlite3")
    with Programs(directory / "logs") as programs:
        server = programs.start_command("server", [sys.executable, "-m", "benchmarks.http_baseline", str(port)])
        backend = HttpBackend(f"http://127.0.0.1:{port}", store)
        backend.wait_up()
        for seconds in plan.lengths_s:
            audio = directory / f"{seconds:g}.wav"
            audio.write_bytes(make_wav(seconds))
            rows.append(_measure_baseline_at(backend, audio, seconds, {"server": server.pid}, plan))
    store.close()
    return rows


def _measure_baseline_at(
    backend: HttpBackend, audio: Path, seconds: float, pids: Mapping[str, int], plan: LoadPlan
) -> DeliveryRow:
    one_by_one, at_once = plan.counts(seconds)
    step = plan.progress(f"{BASELINE}, {seconds:g} s", WARM_UP + one_by_one + at_once)

    def begin() -> str:
        name = f"c-{uuid.uuid4().hex}"
        backend.begin(name, make_segments(name, seconds))
        return name

    def deliver(name: str) -> float:
        began_s = time.monotonic()
        updated_s = backend.deliver(name, audio)
        step()
        return updated_s - began_s

    took = [deliver(begin()) for _ in range(WARM_UP + one_by_one)][WARM_UP:]
    loaded = [begin() for _ in range(at_once)]
    row = DeliveryRow(BASELINE, seconds, audio.stat().st_size, one_by_one, percentiles_ms(took), percentiles_ms(took))
    with _timed(row, pids, at_once), ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(deliver, loaded))
    return row


# --------------------------------------------------------------------------------------------- bare paho


def measure_bare(broker: RunningBroker, directory: Path, plan: LoadPlan) -> list[DeliveryRow]:
    """Measure paho alone: the same parts from backend to bridge to agent, and a short message back."""
    first, second = "omi/v1/conversations/bare/audio", "omi/v1/conversations/bare/audio/studio"
    done = "omi/v1/conversations/bare/turns/studio"
    address = ("127.0.0.1", int(broker.url.rpartition(":")[2]))
    directory.mkdir(parents=True)
    hops = [("bridge", first, second, "middle"), ("agent", second, done, "last")]
    processes = []
    for role, source, target, place in hops:
        user = broker.users[role]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bare_hops", *map(str, address), user.username, source, target, place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(user.password + "\n")
        process.stdin.flush()
        assert process.stdout.readline().strip() == "ready"
        processes.append(process)
    try:
        time.sleep(0.5)  # until the broker has the subscriptions
        clients = [
            connect(address, broker.users[role].username, broker.users[role].password) for role in ("backend", "bridge")
        ]
        sender = Sender(clients[0], first, clients[1], done, PART_BYTES)
        time.sleep(0.5)
        pids = {"bridge": processes[0].pid, "agent": processes[1].pid, "broker": broker.pid}
        rows = [_measure_bare_at(sender, seconds, pids, plan) for seconds in plan.lengths_s]
        for client in clients:
            client.disconnect()
            client.loop_stop()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return rows


def _measure_bare_at(sender: Sender, seconds: float, pids: Mapping[str, int], plan: LoadPlan) -> DeliveryRow:
    one_by_one, at_once = plan.counts(seconds)
    audio = make_wav(seconds)
    step = plan.progress(f"{BARE}, {seconds:g} s", WARM_UP + one_by_one + at_once)
    base = uuid.uuid4().int >> 80 << 16

    def deliver(number: int) -> float:
        began_s = time.monotonic()
        sender.send(number, audio)
        took_s = sender.wait(number) - began_s
        step()
        return took_s

    took = [deliver(base + place) for place in range(WARM_UP + one_by_one)][WARM_UP:]
    row = DeliveryRow(BARE, seconds, len(audio), one_by_one, percentiles_ms(took), percentiles_ms(took))
    base += WARM_UP + one_by_one
    with _timed(row, pids, at_once):
        for place in range(at_once):
            if place >= AT_ONCE:
                sender.wait(base + place - AT_ONCE)
                step()
            sender.send(base + place, audio)
        for place in range(at_once):
            sender.wait(base + place)
    return row


# ----------------------------------------------------------------------------------------- what a step costs


def measure_costs(directory: Path, lengths_s: tuple[float, ...]) -> dict[str, float]:
    """Return the median milliseconds of each step that durability and checking need, on this machine."""
    directory.mkdir(parents=True)
    spool, costs = Spool(directory / "spool"), {}
    with (directory / "file").open("wb") as file:

        def append_and_sync() -> None:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())

        costs["fsync of 4 KiB"] = _median_ms(append_and_sync)
    for seconds in lengths_s:
        audio = make_wav(seconds)
        label = f"{len(audio) / 1e6:.2f} MB"
        costs[f"sha256 of {label}"] = _median_ms(partial(hashlib.sha256, audio))
        costs[f"into the spool, {label} (2 fsyncs)"] = _median_ms(partial(_spool_once, spool, audio))
        costs[f"decoding {label} of WAV, in both designs"] = _median_ms(partial(_decode_once, audio))
    return costs


def _decode_once(audio: bytes) -> None:
    decode(io.BytesIO(audio), max_s=MAX_AUDIO_S)


def _spool_once(spool: Spool, audio: bytes) -> None:
    spool.remove(spool.write(audio))


def _median_ms(work: Callable[[], object], times: int = 20) -> float:
    took = []
    for _ in range(times):
        began_s = time.perf_counter()
        work()
        took.append(time.perf_counter() - began_s)
    return percentiles_ms(took)[0]


if __name__ == "__main__":
    main()
