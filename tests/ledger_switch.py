"""`OMI_TEST_LEDGER=postgresql`: every ledger that a test would have in a file is on a server, also that of a process.

The rules of delivery are proven on a ledger in a file; `make test-postgres` runs the same tests with this. A ledger is
told by the directory that it would be in: whoever opens that again, in whichever process, finds it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any

from tests.postgres_server import RunningPostgres, ledger_options, run_postgres

FILE_NAME = "ledger.sqlite3"
SWITCH = "OMI_TEST_LEDGER"
IS_ON = os.environ.get(SWITCH) == "postgresql"
CONNECTIONS = "200"  # each bridge has some, and each process of a run has all of this server for itself
TEMPLATE = "template_of_ledgers"


class _Switched:
    """The server, and which database stands for which directory."""

    def __init__(self, postgres: RunningPostgres) -> None:
        self._postgres, self._databases = postgres, dict[Path, str]()

    def database_of(self, root: Path, *, like: str = TEMPLATE) -> str:
        """The database of a ledger that would be in this directory; where it is new, it is made like another."""
        place = root.absolute()
        if place not in self._databases:
            name = f"l{len(self._databases)}"
            with self._postgres.superuser() as connection:
                connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {like}")
            self._databases[place] = name
        return self._databases[place]

    def read(self, root: Path) -> bytes:
        """All that is in the database of a ledger."""
        with self._postgres.superuser(self.database_of(root)) as connection:
            names = connection.exec_driver_sql("SELECT tablename FROM pg_tables WHERE schemaname = 'omi_ledger'")
            rows = [
                row for name in names.scalars().all() for row in connection.exec_driver_sql(f"TABLE omi_ledger.{name}")
            ]
        return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row)

    def options_of(self, root: Path) -> dict[str, str]:
        return ledger_options(self._postgres, self.database_of(root))


_switched: _Switched | None = None


def switched_options(data_dir: Path) -> dict[str, str]:
    """The environment of a bridge with this data directory; empty where its ledger is a file."""
    return {} if _switched is None else _switched.options_of(data_dir / "bridge")


def copy_ledger(source: Path, target: Path) -> None:
    """Copy a directory with the ledger in it, which nobody has open."""
    shutil.copytree(source, target)
    if _switched is not None:
        _switched.database_of(target, like=_switched.database_of(source))


def read_ledger(root: Path) -> bytes:
    """All that a ledger holds, as bytes in which one can look for others."""
    return (root / FILE_NAME).read_bytes() if _switched is None else _switched.read(root)


@contextmanager
def switched() -> Iterator[None]:
    """Have all ledgers of this process, and of the bridges it starts, on a server meanwhile."""
    global _switched  # noqa: PLW0603 - what starts bridges asks for it, in every folder of tests
    from tests.vps_bridge.ledger_server import server_of
    from vps_bridge.ledger import Ledger

    make = Ledger.__init__
    with run_postgres("-c", f"max_connections={CONNECTIONS}") as postgres:
        _make_template(postgres)
        _switched = _Switched(postgres)

        def open_switched(self: Ledger, root: Path, **how: Any) -> None:
            if how.get("server") is None and _switched is not None:
                how["server"] = server_of(postgres, _switched.database_of(root))
            make(self, root, **how)

        Ledger.__init__ = partialmethod(open_switched)  # type: ignore[method-assign, assignment] # for as long as this
        try:
            yield
        finally:
            Ledger.__init__ = make  # type: ignore[method-assign]
            _switched = None


def _make_template(postgres: RunningPostgres) -> None:
    """Making the tables takes longer than most tests; each ledger has an id of its own."""
    from tests.vps_bridge.ledger_server import server_of
    from vps_bridge.ledger import Ledger

    with postgres.superuser() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {TEMPLATE}")
    Ledger(postgres.directory / "template", exclusive=True, server=server_of(postgres, TEMPLATE)).close()
    with postgres.superuser(TEMPLATE) as connection:
        connection.exec_driver_sql("DELETE FROM omi_ledger.meta")
