"""How soon another bridge goes on when one is gone: `python -m benchmarks.bench_takeover --help`.

Two real bridges with the heartbeat that they have by default, a real Mosquitto, PostgreSQL and bucket, and an agent
that answers at once. The bridge that owns a call is killed (or stopped for good, as a machine that lost its power: its
connections stay open) after it has the call's transcript. Then the call's audio and its end are offered once a second,
as every publisher does. Told is how long after the death the audio had its receipt, and the call its final labels.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.logs import silence_logs
from schemas.conversation import ConversationEvent, EventType
from tests.brokers import run_mosquitto
from tests.bucket_server import run_bucket
from tests.postgres_server import PASSWORD, ledger_options, run_postgres
from tests.vps_bridge.live_bridge import (
    CALL_S,
    STARTED_AT,
    TOPICS,
    Backend,
    LiveBridge,
    audio_payload,
    call_segments,
    run_bridge,
    wait_until,
)
from tests.vps_bridge.scripted_agent import make_wav
from tests.vps_bridge.test_bridge_on_postgresql import PatientAgent, offer
from vps_bridge.rules.ownership import choose_owner

BRIDGES = ("bridge", "second")
AGENT = "first"
DEFAULTS = {"OMI_HEARTBEAT_S": "10", "OMI_KEEPALIVE_S": "15"}
WAYS = {"kill -9": signal.SIGKILL, "stopped for good": signal.SIGSTOP}
AIM_S = 25.0


@dataclass(frozen=True)
class Takeover:
    """One death: seconds until the audio had its receipt, and until the call had its final labels."""

    receipt_s: float
    labels_s: float


@contextlib.contextmanager
def two_bridges(directory: Path) -> Iterator[tuple[Backend, dict[str, LiveBridge]]]:
    """Both, and an agent."""
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(run_mosquitto(directory, agent_ids=(AGENT,), further_bridges=BRIDGES[1:]))
        postgres = stack.enter_context(run_postgres())
        bucket = stack.enter_context(run_bucket(directory))
        backend = Backend(broker)
        stack.callback(backend.stop)
        url = postgres.url(database := postgres.new_database())
        options = ledger_options(postgres, database) | bucket.environment(directory) | DEFAULTS
        options |= {"OMI_CONVERSATIONS_URL": url, "OMI_CONVERSATIONS_SECRET": PASSWORD}
        bridges = {}
        for name in BRIDGES:
            role = "bridge" if name == BRIDGES[0] else f"bridge:{name}"
            running = run_bridge(broker, directory / name, backend, role=role, **options, OMI_BRIDGE_ID=name)
            bridges[name] = stack.enter_context(running)
        bridges[BRIDGES[0]].allow(AGENT)
        stack.enter_context(PatientAgent(broker, AGENT))
        yield backend, bridges


def measure(backend: Backend, bridges: dict[str, LiveBridge], how: signal.Signals, number: int) -> Takeover:
    """Have one bridge die in the middle of a call that it owns, and bring it back afterwards."""
    wait_until(lambda: all(_knows_both(bridge) for bridge in bridges.values()), "that each knows the other")
    victim = BRIDGES[number % 2]
    names = (f"call-{how.name}-{number}-{place}" for place in range(99))
    name = next(each for each in names if choose_owner(each, BRIDGES) == victim)
    backend.event(name, EventType.STARTED, started_at=STARTED_AT)
    backend.event(name, EventType.SEGMENTS, segments=call_segments(name))
    process = bridges[victim].process
    assert process is not None
    process.send_signal(how)
    died_s = time.monotonic()
    payload = audio_payload(name, make_wav(CALL_S), chunk_id=f"{name}-k", captured_at=STARTED_AT)
    offer(backend, TOPICS.audio(name), payload, name, chunk_id=f"{name}-k")
    receipt_s = time.monotonic() - died_s
    end = ConversationEvent(event_id=f"{name}-end", type=EventType.COMPLETED, chunks=1)
    offer(backend, TOPICS.events(name), end, name, event_id=end.event_id)
    backend.wait_updated(name)
    labels_s = time.monotonic() - died_s
    if how is signal.SIGSTOP:
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: bridges[victim].logged("taken_for_dead"), "that it finds itself replaced")
    else:
        process.wait()
        bridges[victim].start(backend)
    return Takeover(receipt_s, labels_s)


def _knows_both(bridge: LiveBridge) -> bool:
    seen = bridge.logged("owners")
    return bool(seen) and tuple(seen[-1]["bridges"]) == BRIDGES


def describe(found: dict[str, list[Takeover]]) -> str:
    """Return a table."""
    lines = ["| the owner of a call | times | receipt of its audio | its final labels, median | longest | within |"]
    lines.append("|---|---|---|---|---|---|")
    for how, each in found.items():
        labels_s = sorted(one.labels_s for one in each)
        cells = [
            f"{how}",
            f"{len(each)}",
            f"{max(one.receipt_s for one in each):.1f} s at most",
            f"{labels_s[len(labels_s) // 2]:.1f} s",
            f"{labels_s[-1]:.1f} s",
            f"{AIM_S:.0f} s: {'yes' if labels_s[-1] <= AIM_S else 'no'}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and append it to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--record", type=Path, help="append the table to this file")
    given = parser.parse_args()
    silence_logs()
    with tempfile.TemporaryDirectory() as directory, two_bridges(Path(directory)) as (backend, bridges):
        found = {
            how: [measure(backend, bridges, number, turn) for turn in range(given.rounds)]
            for how, number in WAYS.items()
        }
    table = describe(found)
    print(table)
    if given.record is not None:
        with given.record.open("a", encoding="utf-8") as file:
            file.write(f"\n{table}\n")


if __name__ == "__main__":
    main()
