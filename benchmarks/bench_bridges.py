"""How many payloads two bridges on one ledger pass beside one: `python -m benchmarks.bench_bridges --help`.

A real Mosquitto, PostgreSQL (with its syncs) and bucket, real bridges, each held to a share of a processor core by its
own control group, so that nothing else is the bottleneck; agents that answer at once. Linux, as root. A payload is a
conversation of one chunk: started, audio, completed, leased, pulled, diarized, labelled, told, applied. What a run
loses or doubles is counted and printed. `--restart` restarts every bridge during the load and tells how long receipts
waited.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import secrets
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from broker.errors import BrokerError
from broker.logs import silence_logs
from broker.session import Incoming, MqttSession
from schemas.audio import AudioPayload
from schemas.codec import decode, encode
from schemas.conversation import Accepted, ConversationEvent, ConversationUpdated, EventType
from schemas.topics import TopicKind, Topics
from tests.brokers import RunningBroker, run_mosquitto
from tests.bucket_server import run_bucket
from tests.postgres_server import PASSWORD, RunningPostgres, ledger_options, run_postgres
from tests.vps_bridge.answering_agent import AnsweringAgent
from tests.vps_bridge.live_bridge import Backend, LiveBridge, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.rules.ownership import choose_owner

TOPICS = Topics()
BRIDGES = ("bridge", "second")
AGENTS_EACH = 2
PERIOD_US = 100_000
GROUPS = Path("/sys/fs/cgroup/cpu")  # of the first version; of the second all controllers are in one tree
GROUPS_2 = Path("/sys/fs/cgroup")
RESEND_S, LOOK_S, WAIT_S = 5.0, 0.02, 600.0
FROM, TO = 0.2, 0.9  # shares of a run between which the rate is taken: it begins and ends with half the work
AIM = 1.7


@dataclass(frozen=True)
class BridgesRun:
    """One run."""

    bridges: int
    payloads: int
    per_s: float
    """Payloads labelled a second."""
    receipt_p50_s: float
    receipt_max_s: float
    """From the first publish of a payload's audio to its receipt; the queue before full bridges is in it."""
    bridge_ms: float
    """Processor time of all bridges together, a payload."""
    cores: dict[str, float]
    """Processor time a second, of each program."""
    sent_again: int
    lost: int
    doubled: int


class LoadingBackend:
    """A backend that keeps so many conversations in flight, repeats what has no receipt, and confirms every update."""

    def __init__(self, broker: RunningBroker, names: list[str], window: int, audio: bytes) -> None:
        """Connect."""
        self._names, self._window, self._audio = names, window, audio
        self._sha256 = hashlib.sha256(audio).hexdigest()
        self._lock = threading.Lock()
        self.sent_s: dict[str, float] = {}
        self.receipt_s: dict[str, float] = {}
        self.final_s: dict[str, float] = {}
        self.sent_again = 0
        self._sent_again_s: dict[str, float] = {}
        self._missing: dict[str, dict[str, tuple[str, bytes]]] = {}  # by conversation and id, what has no receipt
        self.session = MqttSession(
            broker.settings("backend"), client_id=f"load-{secrets.token_hex(8)}", on_message=self._take
        )
        for kind in (TopicKind.ACCEPTED, TopicKind.UPDATED):
            self.session.subscribe(TOPICS.filter(kind))
        self.session.start()
        self.session.wait_connected(WAIT_S)

    def _take(self, message: Incoming) -> None:
        now_s, address = time.monotonic(), TOPICS.parse(message.topic)
        name = address.conversation_id or ""
        if address.kind is TopicKind.ACCEPTED:
            receipt = decode(Accepted, message.payload)
            found = receipt.chunk_id or receipt.event_id or ""
            with self._lock:
                self._missing.get(name, {}).pop(found, None)
            if receipt.chunk_id:
                self.receipt_s.setdefault(name, now_s - self.sent_s.get(name, now_s))
            return
        update = decode(ConversationUpdated, message.payload)
        if update.state == "final":
            self.final_s.setdefault(name, now_s)
        self._send(name, EventType.APPLIED, updated_version=update.updated_version)

    def _send(self, name: str, kind: EventType, *, is_kept: bool = False, **fields: Any) -> None:  # noqa: ANN401 - of an event
        event = ConversationEvent(event_id=f"{name}-{kind}-{secrets.token_hex(4)}", type=kind, **fields)
        self._publish(name, event.event_id, TOPICS.events(name), encode(event), is_kept=is_kept)

    def _publish(self, name: str, key: str, topic: str, payload: bytes, *, is_kept: bool) -> None:
        if is_kept:
            with self._lock:
                self._missing.setdefault(name, {})[key] = topic, payload
        with contextlib.suppress(BrokerError):
            self.session.publish(topic, payload)

    def run(self) -> None:
        """Send everything; return once every conversation is final, or nothing more comes for long."""
        waiting, until_s = list(self._names), time.monotonic() + WAIT_S
        while len(self.final_s) < len(self._names) and time.monotonic() < until_s:
            while waiting and len(self.sent_s) - len(self.final_s) < self._window:
                self._begin(waiting.pop(0))
            self._send_again()
            time.sleep(LOOK_S)

    def _begin(self, name: str) -> None:
        self._send(name, EventType.STARTED, is_kept=True)
        payload = AudioPayload(conversation_id=name, chunk_id="k", sha256=self._sha256, audio=self._audio)
        self.sent_s[name] = self._sent_again_s[name] = time.monotonic()
        self._publish(name, "k", TOPICS.audio(name), encode(payload), is_kept=True)
        self._send(name, EventType.COMPLETED, is_kept=True, chunks=1)

    def _send_again(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            due = [name for name, left in self._missing.items() if left and now_s - self._sent_again_s[name] > RESEND_S]
            messages = [each for name in due for each in self._missing[name].values()]
        for name in due:
            self._sent_again_s[name] = now_s
        self.sent_again += len(messages)
        for topic, payload in messages:
            with contextlib.suppress(BrokerError):
                self.session.publish(topic, payload)


@contextlib.contextmanager
def held_to(share: float, name: str) -> Iterator[Path]:
    """A control group whose processes get so much of a core together; yields the file that takes their ids."""
    is_second = not (GROUPS / "cpu.cfs_quota_us").exists()
    group = (GROUPS_2 if is_second else GROUPS) / f"omi-bench-{os.getpid()}-{name}"
    group.mkdir()
    try:
        if is_second:
            (group / "cpu.max").write_text(f"{round(share * PERIOD_US)} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(round(share * PERIOD_US)))
        yield group / "cgroup.procs"
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


def choose_agents() -> list[str]:
    """Return the ids of agents of which each of two bridges owns as many."""
    names = (f"mac-{number}" for number in range(99))
    found: dict[str | None, list[str]] = {bridge_id: [] for bridge_id in BRIDGES}
    for name in names:
        mine = found[choose_owner(name, BRIDGES)]
        if len(mine) < AGENTS_EACH:
            mine.append(name)
    return [name for mine in found.values() for name in mine]


@dataclass(frozen=True)
class Running:
    """Everything that runs for a measurement; each bridge has its control group."""

    broker: RunningBroker
    bridges: dict[str, LiveBridge]
    groups: dict[str, Path]
    pids: dict[str, int]


@contextlib.contextmanager
def run_all(postgres: RunningPostgres, count: int, share: float, directory: Path) -> Iterator[Running]:
    """So many bridges on a new ledger, and agents that answer at once."""
    agents, database = choose_agents(), postgres.new_database()
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(run_mosquitto(directory, agent_ids=agents, further_bridges=BRIDGES[1:]))
        bucket = stack.enter_context(run_bucket(directory))
        # Before the bridges: a group can be removed once nobody is in it.
        groups = {name: stack.enter_context(held_to(share, f"{count}-{name}")) for name in BRIDGES[:count]}
        onlooker = Backend(broker)
        stack.callback(onlooker.stop)
        shared = ledger_options(postgres, database) | bucket.environment(directory)
        shared |= {"OMI_CONVERSATIONS_URL": postgres.url(database), "OMI_CONVERSATIONS_SECRET": PASSWORD}
        shared |= {"OMI_HEARTBEAT_S": "2", "OMI_STALE_S": "60"}
        bridges = {}
        for name in groups:
            role = "bridge" if name == BRIDGES[0] else f"bridge:{name}"
            running = run_bridge(broker, directory / name, onlooker, role=role, **shared, OMI_BRIDGE_ID=name)
            bridges[name] = stack.enter_context(running)
        bridges[BRIDGES[0]].allow(*agents)
        for agent_id in agents:
            stack.enter_context(AnsweringAgent(broker, agent_id))
        wait_until(lambda: all(knows_all(bridge, count) for bridge in bridges.values()), "the bridges", WAIT_S)
        onlooker.session.stop()  # it would only cost processor time
        for name, bridge in bridges.items():
            hold(bridge, groups[name])
        assert postgres.process is not None
        pids = {name: bridge.process.pid for name, bridge in bridges.items() if bridge.process is not None}
        pids |= {
            "load": os.getpid(),
            "postgresql": postgres.process.pid,
            "mosquitto": broker.pid,
            "bucket": bucket.process.pid,
        }
        yield Running(broker, bridges, groups, pids)


def measure(postgres: RunningPostgres, count: int, options: argparse.Namespace, directory: Path) -> BridgesRun:
    """Have so many bridges pass the payloads."""
    names = [f"c{count}-{number}" for number in range(options.payloads)]
    with run_all(postgres, count, options.share, directory) as running, contextlib.ExitStack() as stack:
        load = LoadingBackend(running.broker, names, options.window, make_wav(options.seconds))
        stack.callback(load.session.stop)
        before, began_s = cpu_s(running.pids), time.monotonic()
        if options.restart:
            restarter = threading.Thread(target=restart_all, args=(running, load))
            restarter.start()
            stack.callback(restarter.join)
        load.run()
        took_s = time.monotonic() - began_s
        # A bridge that was restarted is another process: what it used is not known.
        used = {name: max(0.0, now_s - before[name]) for name, now_s in cpu_s(running.pids).items()}
        jobs = [running.bridges[BRIDGES[0]].jobs(name) for name in names]
    ends = sorted(load.final_s.values())
    first, last = round(len(ends) * FROM), max(1, round(len(ends) * TO) - 1)
    receipts = sorted(load.receipt_s.values()) or [0.0]
    return BridgesRun(
        bridges=count,
        payloads=len(names),
        per_s=(last - first) / max(1e-9, ends[last] - ends[first]) if len(ends) > 1 else 0.0,
        receipt_p50_s=statistics.median(receipts),
        receipt_max_s=receipts[-1],
        bridge_ms=1_000 * sum(used[name] for name in BRIDGES[:count]) / len(names),
        cores={name: round(each_s / took_s, 2) for name, each_s in used.items()},
        sent_again=load.sent_again,
        lost=sum(not any(job["state"] == "done" for job in mine) for mine in jobs),
        doubled=sum(len(mine) > 1 for mine in jobs),
    )


def hold(bridge: LiveBridge, group: Path) -> None:
    """Put a bridge into its group."""
    assert bridge.process is not None
    group.write_text(str(bridge.process.pid))


def knows_all(bridge: LiveBridge, count: int) -> bool:
    """Whether a bridge knows how many there are; one that is alone need not know anything."""
    seen = bridge.logged("owners")
    return count == 1 or (bool(seen) and len(seen[-1]["bridges"]) == count)


def restart_all(running: Running, load: LoadingBackend) -> None:
    """Restart one bridge after the other, once a fifth of the payloads is done; the second once the first serves."""
    wait_until(lambda: len(load.final_s) >= len(load.sent_s) / 5 > 1, "load", WAIT_S)
    for name, bridge in running.bridges.items():
        bridge.stop()
        before = len(bridge.logged("owners"))
        bridge.spawn()
        hold(bridge, running.groups[name])

        def serves(bridge: LiveBridge = bridge, before: int = before) -> bool:
            return len(bridge.logged("owners")) > before and knows_all(bridge, len(running.bridges))

        wait_until(serves, f"the start of {name}", WAIT_S)


def cpu_s(pids: dict[str, int]) -> dict[str, float]:
    """Return the processor time of each program and its children that run now; 0 of one that ended."""
    used = dict.fromkeys(pids, 0.0)
    for name, pid in pids.items():
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(pid)
            family = (root,) if pid == os.getpid() else (root, *root.children(recursive=True))
            used[name] = sum(sum(each.cpu_times()[:2]) for each in family)
    return used


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--payloads", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=8.0, help="of audio in each")
    parser.add_argument("--window", type=int, default=24, help="conversations in flight")
    parser.add_argument("--share", type=float, default=0.25, help="of a core that each bridge gets")
    parser.add_argument("--bridges", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--restart", action="store_true", help="restart every bridge during the load")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    silence_logs()
    with tempfile.TemporaryDirectory() as directory, run_postgres("-c", "max_connections=60") as postgres:
        runs = []
        for count in options.bridges:
            (home := Path(directory) / str(count)).mkdir()
            runs.append(measure(postgres, count, options, home))
    ratio = runs[-1].per_s / runs[0].per_s if len(runs) > 1 and runs[0].per_s else None
    load = os.getloadavg()[0]
    if options.json:
        print(json.dumps({"runs": [asdict(run) for run in runs], "ratio": ratio, "aim": AIM, "load_average": load}))
        return
    print(f"each bridge held to {options.share:g} of a core; load average of the machine {load:.1f}\n")
    print(render(runs))
    if ratio is not None:
        print(f"\n{runs[-1].bridges} bridges pass {ratio:.2f} times as many payloads as {runs[0].bridges}", end=" ")
        print(f"(wanted: {AIM} for two)")


def render(runs: list[BridgesRun]) -> str:
    """Return the runs as a table."""
    heads = ["bridges", "payloads a second", "of the bridges, a payload", "receipt, median", "longest"]
    heads += ["lost", "doubled", "sent again", "cores used"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for run in runs:
        cores = ", ".join(f"{name} {each:g}" for name, each in run.cores.items() if each)
        each_ms = f"{run.bridge_ms:.0f} ms" if run.bridge_ms else "-"
        lines.append(
            f"| {run.bridges} | {run.per_s:.2f} | {each_ms} | {run.receipt_p50_s:.1f} s | {run.receipt_max_s:.1f} s | "
            f"{run.lost} | {run.doubled} | {run.sent_again} | {cores} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
