"""The real processes of a chaos run: a broker with or without persistence, a bridge, agents, and their links."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from broker.listener import Listener
from broker.mosquitto import hash_password, provision_mosquitto
from broker.users import Credentials, generate_password
from schemas.topics import DEFAULT_ROOT
from tests.brokers import REPOSITORY, RunningBroker, free_port, require_program
from tests.faults.plan import AGENTS
from tests.faults.proxy import TcpProxy
from tests.inbox import WAIT_S

TAP_USER = "tap"  # the user of the test itself, which may receive and publish everything
BACKEND = "backend"
BRIDGE = "bridge"
DOOR_TOKEN = generate_password()
# About a tenth of the product's timers, so that hundreds of faults take minutes. One chunk of 8 s is one job, with the
# chunk before it as context.
SETTINGS = {
    "OMI_HEARTBEAT_S": "1",
    "OMI_STALE_S": "8",
    "OMI_GRACE_S": "2",
    "OMI_RETRY_MIN_S": "1",
    "OMI_RETRY_MAX_S": "15",
    "OMI_OFFER_RETRY_S": "1.5",
    "OMI_WANT_TIMEOUT_S": "2",
    "OMI_GIVE_UP_S": "30",
    "OMI_KEEPALIVE_S": "5",
    "OMI_RECONNECT_MIN_S": "0.05",
    "OMI_RECONNECT_MAX_S": "0.5",
    "OMI_MIN_JOB_S": "9",
    "OMI_MAX_JOB_S": "9.5",
    "OMI_OVERLAP_S": "2",
    "OMI_PAUSE_S": "1",
    "OMI_QUIET_S": "1",
    "OMI_KEEP_AUDIO_S": "0",
    "OMI_PART_BYTES": "16384",
    "OMI_LEASE_LIMIT_FLOOR_S": "20",
    "OMI_LEASE_LIMIT_FACTOR": "1",  # for an agent without a measured speed, as after every start
    "OMI_JOB_TIMEOUT_FLOOR_S": "600",
    "OMI_LOAD_TIMEOUT_S": "30",
    "OMI_LOG_JSON": "true",
}
_BRIDGE = (sys.executable, "-m", "tests.faults.faked_clock", "vps_bridge.commands.main", "run")
_AGENT = (sys.executable, "-m", "tests.faults.null_agent")
_PLANTED = (sys.executable, "-m", "tests.faults.planted")
PLANT_ENV, ROLE_ENV = "OMI_CHAOS_PLANT", "OMI_CHAOS_ROLE"  # read by `planted.py`
MAX_ATTEMPTS = 3  # the product's default
CLOCK_ZERO = "+0"


def faketime_library() -> Path | None:
    """Return the path of libfaketime, which changes the wall clock of one process and no other clock."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return found[0] if found else None


def worker_pids(agent_pid: int) -> list[int]:
    """Return an agent's child processes that have an engine."""
    with contextlib.suppress(psutil.Error):
        return [
            child.pid
            for child in psutil.Process(agent_pid).children()
            if "resource_tracker" not in " ".join(child.cmdline())
        ]
    return []


@dataclass
class Program:
    """One of our programs. `wanted` means that it should be running; each unexpected end is noted."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log_file: Path
    clock_file: Path
    process: subprocess.Popen[bytes] | None = None
    wanted: bool = False
    started_s: float = 0.0
    """Its last start (monotonic seconds); 0: never."""
    log_from: int = 0
    """Where its log of the last start begins, in bytes."""
    unwanted_ends: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            self.log_from = log.tell()
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd=REPOSITORY
            )
        self.wanted, self.started_s = True, time.monotonic()

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.wanted = False
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, wait, and return the exit code; if it does not end, it is killed, which is noted."""
        self.wanted = False
        assert self.process is not None
        self.process.terminate()
        try:
            code = self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self.unwanted_ends.append(f"{self.name} did not obey SIGTERM within {WAIT_S:.0f} s")
            return -signal.SIGKILL
        if code != 0:
            self.unwanted_ends.append(f"{self.name} answered SIGTERM with exit code {code}")
        return code

    def revive(self) -> None:
        """Start it again if it ended by itself, as launchd and systemd do, and note that."""
        if self.wanted and not self.is_alive:
            assert self.process is not None
            self.unwanted_ends.append(f"{self.name} ended by itself with exit code {self.process.returncode}")
            self.start()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def set_clock(self, offset_s: float) -> None:
        """Shift its wall clock by `offset_s`; its monotonic clock is not affected."""
        new = self.clock_file.with_suffix(".new")
        new.write_text(f"{offset_s:+.0f}\n")
        new.replace(self.clock_file)


class ChaosBroker:
    """A Mosquitto that can restart with or without its retained and queued messages, and has the `tap` user."""

    def __init__(self, directory: Path) -> None:
        program = require_program("mosquitto", "mosquitto")
        self._home, self._port = directory / "mosquitto", free_port()
        self._tap = Credentials(TAP_USER, generate_password())
        users = self._configure(persistent=False)
        self.running = RunningBroker(
            url=f"mqtt://127.0.0.1:{self._port}",
            users={**users, TAP_USER: self._tap},
            log_file=self._home / "mosquitto.log",
            mqtt_version="auto",
            _command=(program, "-c", str(self._home / "mosquitto.conf")),
            _port=self._port,
        )

    @property
    def port(self) -> int:
        return self._port

    def come_back(self, *, persistent: bool) -> None:
        """Start again, with the messages it had saved or without any."""
        if not persistent:
            (self._home / "mosquitto.db").unlink(missing_ok=True)
        self._configure(persistent=persistent)
        self.running.start()

    def _configure(self, *, persistent: bool) -> Mapping[str, Credentials]:
        provisioned = provision_mosquitto(
            self._home,
            Listener(port=self._port, persistence=persistent),
            agent_ids=AGENTS,
        )
        files = provisioned.files
        with files.passwords.open("a") as passwords:
            passwords.write(f"{TAP_USER}:{hash_password(self._tap.password)}\n")
        with files.acl.open("a") as acl:
            acl.write(f"\nuser {TAP_USER}\ntopic readwrite {DEFAULT_ROOT}/#\n")
        with files.config.open("a") as config:
            me = psutil.Process().username()
            config.write(f"user {me}\n" + ("autosave_interval 1\n" if persistent else ""))
        return provisioned.users


@dataclass
class ChaosSystem:
    """Everything that runs: the broker, links (of `bridge`, `backend`, each agent), programs (bridge, agents)."""

    directory: Path
    broker: ChaosBroker
    links: dict[str, TcpProxy]
    programs: dict[str, Program]
    has_clocks: bool
    door_url: str
    """The bridge's HTTP door."""

    @property
    def bridge(self) -> Program:
        return self.programs[BRIDGE]

    @property
    def bridge_root(self) -> Path:
        return self.directory / BRIDGE / "bridge"

    def agent_dir(self, agent_id: str) -> Path:
        return self.directory / agent_id

    @property
    def run_log(self) -> Path:
        return self.directory / "runs.log"

    def revive(self) -> None:
        """Start the programs that ended by themselves."""
        for program in self.programs.values():
            program.revive()

    def cpu_s(self) -> dict[str, float]:
        """Return the processor seconds of each running program and its children."""
        used = {}
        for name, pid in [
            *((name, p.pid) for name, p in self.programs.items() if p.is_alive),
            ("broker", self.broker.running.pid),
        ]:
            with contextlib.suppress(psutil.Error):
                family = [psutil.Process(pid), *psutil.Process(pid).children()]
                used[name] = sum(sum(each.cpu_times()[:2]) for each in family)
        return used

    def unwanted_ends(self) -> list[str]:
        return [end for program in self.programs.values() for end in program.unwanted_ends]

    def leftovers(self) -> list[str]:
        """Return processes that still run although the programs have ended, such as workers without a parent."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get("OMI_CHAOS_DIR") == str(self.directory):
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
        return found


@contextlib.contextmanager
def run_chaos_system(directory: Path, *, max_nap_s: float, plant: str | None = None) -> Iterator[ChaosSystem]:
    """Run a broker and links to it; the programs are not started yet. Everything is ended at the end.

    Args:
        directory: for all their files and logs.
        max_nap_s: the longest time a job takes.
        plant: the bug that the bridge and the agents are started with (see `planted.py`).
    """
    logs = directory / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    broker = ChaosBroker(directory)
    broker.running.start()
    library, door_port = faketime_library(), free_port()
    with contextlib.ExitStack() as stack:
        stack.callback(broker.running.kill)
        links = {name: stack.enter_context(TcpProxy(broker.port)) for name in (BRIDGE, BACKEND, *AGENTS)}
        programs = {}
        for name in (BRIDGE, *AGENTS):
            clock_file = directory / f"{name}.clock"
            clock_file.write_text(f"{CLOCK_ZERO}\n")
            role = BRIDGE if name == BRIDGE else f"agent:{name}"
            environment = broker.running.environment(role) | SETTINGS | {
                "OMI_BROKER_URL": f"mqtt://127.0.0.1:{links[name].port}",
                "OMI_DATA_DIR": str(directory / name),
                "OMI_AGENT_ID": name,
                "OMI_MAX_ATTEMPTS": str(MAX_ATTEMPTS),
                "OMI_CHAOS_DIR": str(directory),
                "OMI_CHAOS_RUN_LOG": str(directory / "runs.log"),
                "OMI_CHAOS_MAX_NAP_S": str(max_nap_s),
                PLANT_ENV: plant or "",
                ROLE_ENV: name,
                "PYTHONPATH": str(REPOSITORY),
            }  # fmt: skip
            if name == BRIDGE:
                environment |= {"OMI_HTTP_PORT": str(door_port), "OMI_HTTP_TOKEN": DOOR_TOKEN}
            if library is not None:
                environment |= faketime_settings(library, clock_file)
            command = _PLANTED if plant else _BRIDGE if name == BRIDGE else _AGENT
            programs[name] = Program(name, command, environment, logs / f"{name}.log", clock_file)
        system = ChaosSystem(
            directory, broker, links, programs, has_clocks=library is not None, door_url=f"http://127.0.0.1:{door_port}"
        )
        stack.callback(_end, system)
        yield system


def faketime_settings(library: Path, clock_file: Path) -> dict[str, str]:
    """Return the environment of a process whose wall clock is off by what the file says, such as `-3600`."""
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock_file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else timed waits on glibc 2.36, on Python's locks too, last seconds
    }


def _end(system: ChaosSystem) -> None:
    """Kill everything that still runs, suspended processes too."""
    for program in system.programs.values():
        if program.is_alive:
            for pid in worker_pids(program.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            program.kill()
    deadline_s = time.monotonic() + WAIT_S
    while system.leftovers() and time.monotonic() < deadline_s:
        time.sleep(0.05)
