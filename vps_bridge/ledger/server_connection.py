"""One connection to the server that keeps a ledger, from its opening to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from broker.errors import SettingsError
from vps_bridge.database import DatabaseError
from vps_bridge.database_server import (
    CONNECTING,
    PROGRAM,
    describe_failure,
    describe_refusal,
    replace_nul,
    show_server,
)
from vps_bridge.durations import seconds
from vps_bridge.errors import LedgerUnavailable
from vps_bridge.ledger.hang_up import HangUp

SCHEMA, SETTING = "omi_ledger", "database"
_SQLSTATE = ord("C")  # the field of an error that holds it: PG_DIAG_SQLSTATE
OLDEST = (13,)
MARGIN_S = 2.0  # the server ends a statement by itself; it is hung up on where it does not
INSTALL = "PostgreSQL needs its driver: pip install 'omi-diarization[bridge,postgres]'"


@dataclass(frozen=True)
class LedgerServer:
    """Where a ledger is that is kept by a server."""

    url: URL
    timeout_s: float = 10.0
    """A statement has so long, and a process that stops in a transaction holds up others for as long."""
    name: str = PROGRAM
    """How the server knows its connections."""

    @property
    def shown(self) -> str:
        """How it is named in messages: never with user, password or database."""
        return show_server(self.url)


class ServerConnection:
    """A connection on which transactions are begun and ended by messages of ours; SQLAlchemy runs the statements."""

    def __init__(self, server: LedgerServer, *, sync_commits: bool) -> None:
        """Connect. Raises `LedgerUnavailable` where that fails, `SettingsError` where there is no driver."""
        self._server = server
        try:
            self._engine = create_engine(
                server.url,
                poolclass=NullPool,
                isolation_level="AUTOCOMMIT",
                connect_args=CONNECTING
                | {"application_name": server.name, "options": _options(server.timeout_s, sync_commits=sync_commits)},
            )
        except ModuleNotFoundError as error:
            raise SettingsError(f"{SETTING}_url", "the settings", INSTALL) from error
        replace_nul(self._engine)
        try:
            self.connection = self._engine.connect()
        except DBAPIError as error:
            raise LedgerUnavailable(f"{server.shown} {describe_failure(error, SCHEMA, SETTING)}") from error
        if (self._engine.dialect.server_version_info or OLDEST) < OLDEST:
            self.connection.close()
            msg = f"{server.shown} is too old: the ledger needs PostgreSQL {OLDEST[0]} or a later one"
            raise DatabaseError(msg)
        driver: Any = self.connection.connection.driver_connection
        self._driver = driver
        self._hang_up = HangUp(driver.fileno(), server.timeout_s + MARGIN_S)
        event.listen(self._engine, "before_cursor_execute", lambda *_: self._hang_up.extend())

    @property
    def is_broken(self) -> bool:
        """Whether nothing can be asked on it any more."""
        return bool(self._driver.broken) or self.connection.invalidated

    def exchange(self, command: bytes) -> None:
        """Send commands of ours, and wait for the answer to all of them. Raises `LedgerUnavailable`."""
        self._hang_up.extend()
        try:
            result = self._driver.pgconn.exec_(command)
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise self.explain_end() from error
        if self.is_broken:
            raise self.explain_end()
        # A commit of what failed before is answered with a ROLLBACK and no error.
        if result.error_message or (command.endswith(b"COMMIT") and result.command_status != b"COMMIT"):
            raise LedgerUnavailable(f"{self._server.shown} {describe_refusal(_sqlstate(result), SCHEMA)}")

    def roll_back(self) -> None:
        """End the transaction, as far as the connection is there."""
        if not self.is_broken:
            self.exchange(b"ROLLBACK")

    @property
    def server_id(self) -> int:
        """The number by which the server knows this connection."""
        return int(self._driver.pgconn.backend_pid)

    def wait_for_news(self, timeout_s: float) -> list[tuple[int, str]]:
        """Return what was announced meanwhile, each with the number of its connection. Raises what the driver does."""
        return [(found.pid, found.payload) for found in self._driver.notifies(timeout=timeout_s, stop_after=1)]

    def rest(self) -> None:
        """Watch nothing: everything was answered."""
        self._hang_up.rest()

    def explain_end(self) -> LedgerUnavailable:
        """Return the error that says how the connection ended."""
        words = "hung up: look whether it runs and what its log says"
        if self._hang_up.has_hung_up:
            words = f"did not answer within {seconds(self._server.timeout_s)}: look at its load and at the network"
        return LedgerUnavailable(f"{self._server.shown} {words}")

    def close(self) -> None:
        """End it, broken or not."""
        self._hang_up.end()
        self.connection.invalidate()
        self.connection.close()
        self._engine.dispose()


def _options(timeout_s: float, *, sync_commits: bool) -> str:
    limit_ms = round(timeout_s * 1_000)
    settings = {
        "search_path": SCHEMA,
        "statement_timeout": limit_ms,
        "lock_timeout": limit_ms,
        "idle_in_transaction_session_timeout": limit_ms,
        "synchronous_commit": "on" if sync_commits else "off",
        # So soon the server finds out that we are gone, and lets go of our locks.
        "tcp_keepalives_idle": 5,
        "tcp_keepalives_interval": 2,
        "tcp_keepalives_count": 3,
    }
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def _sqlstate(result: Any) -> str:  # noqa: ANN401 - a PGresult of the driver, which not every bridge has
    return (result.error_field(_SQLSTATE) or b"none").decode()
