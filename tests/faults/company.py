"""Several bridges on one ledger as real processes: broker or cluster, PostgreSQL, a bucket, bridges, agents."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.brokers import REPOSITORY, RunningBroker, free_port, run_mosquitto
from tests.bucket_server import RunningBucket, run_bucket
from tests.clusters import RunningCluster, run_cluster
from tests.faults.plan import AGENTS as PLANNED_AGENTS
from tests.faults.programs import DOOR_TOKEN, MAX_ATTEMPTS, SETTINGS, Program
from tests.faults.snapshot import Snapshot, files_in
from tests.postgres_server import PASSWORD, RunningPostgres, ledger_options, run_postgres
from vps_bridge.conversations.postgres import PostgresConversations
from vps_bridge.database_server import read_url
from vps_bridge.ledger import Ledger, open_ledger
from vps_bridge.settings import BridgeSettings

AGENTS = PLANNED_AGENTS[:2]
BRIDGES = ("bridge", "second", "third")
MOSQUITTO, NATS = "mosquitto", "nats"
MORE_CONNECTIONS = ("-c", "max_connections=60")
_BRIDGE = (sys.executable, "-c", "from vps_bridge.commands.main import main; main()", "run")
_AGENT = (sys.executable, "-m", "tests.faults.null_agent")
_COUNTS = """
SELECT (SELECT count(*) FROM omi_ledger.chunks),
  (SELECT count(*) FROM omi_ledger.chunks WHERE NOT covered),
  (SELECT count(*) FROM omi_ledger.jobs WHERE state IN ('ready', 'leased')),
  (SELECT count(*) FROM omi_ledger.jobs WHERE state = 'turns_stored'),
  (SELECT count(*) FROM omi_ledger.jobs WHERE state = 'done'),
  (SELECT count(*) FROM omi_ledger.jobs WHERE state = 'failed'),
  (SELECT count(*) FROM omi_ledger.conversations WHERE final_at IS NULL OR dirty > 0),
  (SELECT count(*) FROM omi_ledger.conversations WHERE applied_version < updated_version),
  (SELECT count(*) FROM omi_ledger.tombstones WHERE NOT finished)
"""


class AnyDoor(httpx.BaseTransport):
    """A balancer before the bridges' HTTP doors: each call goes to the next, also where that one is down."""

    def __init__(self, ports: tuple[int, ...]) -> None:
        self._ports, self._calls, self._way = ports, 0, httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._calls += 1
        request.url = request.url.copy_with(port=self._ports[self._calls % len(self._ports)])
        return self._way.handle_request(request)

    def close(self) -> None:
        self._way.close()


@dataclass
class RunningCompany:
    """All that runs; bridges and agents are not started yet."""

    directory: Path
    broker: RunningBroker | RunningCluster
    postgres: RunningPostgres
    bucket: RunningBucket
    bridges: dict[str, Program]
    agents: dict[str, Program]
    door_ports: tuple[int, ...]
    database: str

    @property
    def programs(self) -> list[Program]:
        return [*self.bridges.values(), *self.agents.values()]

    def agent_dir(self, agent_id: str) -> Path:
        return self.directory / agent_id

    def door(self, timeout_s: float) -> httpx.Client:
        """A client of whichever bridge."""
        headers = {"Authorization": f"Bearer {DOOR_TOKEN}"}
        base_url = "http://127.0.0.1"
        return httpx.Client(base_url=base_url, transport=AnyDoor(self.door_ports), headers=headers, timeout=timeout_s)

    @contextlib.contextmanager
    def books(self) -> Iterator[tuple[Ledger, PostgresConversations]]:
        """Ledger and store, for reading."""
        where = {"database_url": self.postgres.url(self.database), "database_secret": PASSWORD}
        ledger = open_ledger(BridgeSettings(data_dir=self.directory / "books", **where), exclusive=False)  # type: ignore[arg-type] # as the environment has them
        store = PostgresConversations(read_url("conversations", self.postgres.url(self.database), PASSWORD))
        try:
            yield ledger, store
        finally:
            store.close()
            ledger.close()

    def snapshot(self) -> Snapshot:
        """How far all is. The server must run."""
        with self.postgres.superuser(self.database) as connection:
            chunks, uncovered, waiting, stored, done, failed, unfinal, unconfirmed, undeleted = (
                connection.exec_driver_sql(_COUNTS).one()
            )
        inboxes = sum(len(files_in(self.agent_dir(agent_id) / "inbox")) for agent_id in self.agents)
        incoming = sum(len(files_in(self.directory / name / "bridge" / "incoming")) for name in self.bridges)
        counts = {"chunks": chunks, "uncovered": uncovered, "waiting": waiting, "stored": stored, "done": done}
        counts |= {"failed": failed, "unfinal": unfinal + undeleted, "unconfirmed": unconfirmed}
        return Snapshot(**counts, spool_files=0, arriving_files=incoming, outbox=0, inbox_files=inboxes)


def place_in_bucket(ledger: Ledger, conversation_id: str) -> str:
    """What stands for a conversation in the keys of its objects."""
    return hashlib.sha256(f"{ledger.ledger_id}/{conversation_id}".encode()).hexdigest()[:32]


@contextlib.contextmanager
def run_company(
    directory: Path, *, bridge_ids: tuple[str, ...], broker: str, max_nap_s: float, own: Mapping[str, str] | None = None
) -> Iterator[RunningCompany]:
    """Run all but bridges and agents; at the end everything that still runs is killed. `own`: of the bridges."""
    (directory / "logs").mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(run_postgres(*MORE_CONNECTIONS))
        bucket = stack.enter_context(run_bucket(directory))
        bucket.keep_versions()
        running = stack.enter_context(_run_broker(directory, broker, bridge_ids))
        database = postgres.new_database()
        ports = tuple(free_port() for _ in bridge_ids)
        shared = ledger_options(postgres, database) | bucket.environment(directory)
        shared |= {"OMI_CONVERSATIONS_URL": postgres.url(database), "OMI_CONVERSATIONS_SECRET": PASSWORD}
        shared |= {"OMI_HTTP_TOKEN": DOOR_TOKEN, "OMI_MAX_ATTEMPTS": str(MAX_ATTEMPTS), **(own or {})}
        bridges = {}
        for name, port in zip(bridge_ids, ports, strict=True):
            role = "bridge" if name == BRIDGES[0] else f"bridge:{name}"
            environment = running.environment(role) | SETTINGS | shared
            environment |= {"OMI_BRIDGE_ID": name, "OMI_HTTP_PORT": str(port)}
            bridges[name] = _program(directory, name, _BRIDGE, environment)
        agents = {}
        for name in AGENTS:
            environment = running.environment(f"agent:{name}") | SETTINGS | {
                "OMI_AGENT_ID": name,
                "OMI_CHAOS_RUN_LOG": str(directory / "runs.log"),
                "OMI_CHAOS_MAX_NAP_S": str(max_nap_s),
            }  # fmt: skip
            agents[name] = _program(directory, name, _AGENT, environment)
        company = RunningCompany(directory, running, postgres, bucket, bridges, agents, ports, database)
        stack.callback(_end, company)
        yield company


def _run_broker(
    directory: Path, kind: str, bridge_ids: tuple[str, ...]
) -> contextlib.AbstractContextManager[RunningBroker | RunningCluster]:
    if kind == NATS:
        return run_cluster(directory, agent_ids=AGENTS, further_bridges=bridge_ids[1:])
    return run_mosquitto(directory, agent_ids=AGENTS, further_bridges=bridge_ids[1:])


def _program(directory: Path, name: str, command: tuple[str, ...], environment: Mapping[str, str]) -> Program:
    own = {"OMI_DATA_DIR": str(directory / name), "PYTHONPATH": str(REPOSITORY)}
    return Program(name, command, {**environment, **own}, directory / "logs" / f"{name}.log", directory / "no-clock")


def _end(company: RunningCompany) -> None:
    for program in company.programs:
        if program.is_alive:
            program.kill()
