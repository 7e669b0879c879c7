"""Ledgers for tests, in a file or on a server: what the books promise holds on both."""

from __future__ import annotations

from pathlib import Path

from tests.postgres_server import PASSWORD, RunningPostgres
from vps_bridge.database_server import read_url
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.server_connection import LedgerServer
from vps_bridge.ledger.tables import Base

KINDS = ("sqlite", "postgresql")


def server_of(postgres: RunningPostgres, database: str, *, port: int | None = None) -> LedgerServer:
    """Where a ledger is that is kept in this database."""
    return LedgerServer(read_url("database", postgres.url(database, port=port), PASSWORD))


def empty(server: LedgerServer, root: Path) -> None:
    """Delete every row of a ledger: making its tables anew takes longer than most tests."""
    ledger = Ledger(root, exclusive=False, server=server)
    with ledger._database.writing() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
    ledger.close()
