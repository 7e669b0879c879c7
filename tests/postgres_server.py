"""A PostgreSQL server of these tests alone, on a port of its own, that can be killed and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Connection, NullPool, create_engine, make_url

from tests.brokers import free_port
from tests.inbox import WAIT_S, eventually

PASSWORD = "a-password-of-these-tests-alone"
USER = "bridge"
PROGRAMS = ("initdb", "postgres", "pg_isready")
_LEAST = ("-c", "shared_buffers=16MB", "-c", "max_connections=20", "-c", "autovacuum=off", "-c", "jit=off")


def find_postgres() -> Path:
    """Return where the server's programs are: Debian keeps them off the path."""
    found = shutil.which("postgres")
    places = [*([Path(found).parent] if found else []), *sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    usable = [place for place in places if all((place / name).exists() for name in PROGRAMS)]
    if not usable:
        pytest.skip("no PostgreSQL is installed here (apt install postgresql, brew install postgresql)")
    return usable[-1]


@dataclass
class RunningPostgres:
    """The server's process. `kill` is what a power cut does to it; `start` brings it back."""

    programs: Path
    directory: Path
    options: tuple[str, ...]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        return f"postgresql://{USER}@127.0.0.1:{port or self.port}/{database}"

    @contextlib.contextmanager
    def superuser(self, database: str = "postgres") -> Iterator[Connection]:
        """A connection of its owner's, each statement a transaction of its own."""
        url = make_url(self.url(database)).set(drivername="postgresql+psycopg", password=PASSWORD)
        engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            yield connection

    def new_database(self) -> str:
        """The name of an empty one."""
        name = f"d{uuid.uuid4().hex}"
        with self.superuser() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return name

    def start(self) -> None:
        command = [self.programs / "postgres", "-D", self.directory / "data", "-p", str(self.port)]
        command += ["-h", "127.0.0.1", "-k", self.directory, *_LEAST, *self.options]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **_owner())  # type: ignore[call-overload] # the user, where it is root
        eventually(self._answers)

    def kill(self) -> None:
        """SIGKILL to all of it at once."""
        assert self.process is not None
        parts = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for part in parts:
            with contextlib.suppress(psutil.NoSuchProcess):
                part.send_signal(signal.SIGKILL)
        self.process.wait(WAIT_S)
        psutil.wait_procs(parts, timeout=WAIT_S)

    def stop(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # at once, whoever is connected
            self.process.wait(WAIT_S)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
        command = [str(self.programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0


def ledger_options(server: RunningPostgres, database: str) -> dict[str, str]:
    """The environment of a bridge whose ledger is in this database."""
    return {"OMI_DATABASE_URL": server.url(database), "OMI_DATABASE_SECRET": PASSWORD}


@contextlib.contextmanager
def run_postgres(*options: str) -> Iterator[RunningPostgres]:
    """A server with an empty database `postgres`, in a folder that its user may reach, as pytest's own are not."""
    programs = find_postgres()
    with tempfile.TemporaryDirectory(prefix="omi-postgres-") as name:
        directory = Path(name)
        secret = directory / "password"
        secret.write_text(PASSWORD)
        if owner := _owner():
            for path in (directory, secret):
                shutil.chown(path, **owner)
        command = [
            str(programs / "initdb"),
            "-D",
            str(directory / "data"),
            "-U",
            USER,
            "--pwfile",
            str(secret),
            "--no-sync",
        ]
        command += ["--auth", "scram-sha-256", "-E", "UTF8", "--locale", "C.UTF-8"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **_owner())  # type: ignore[call-overload] # the user, where it is root
        server = RunningPostgres(programs, directory, options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _owner() -> dict[str, str]:
    """Return who is to run it: it refuses to run as root."""
    return {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
