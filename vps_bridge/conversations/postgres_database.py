"""The connection to a PostgreSQL server: transactions that end in time, and a schema of its own, migrated."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from vps_bridge.database_server import (
    CONNECTING,
    ServerSchema,
    bring_up_to_date,
    describe_failure,
    replace_nul,
    show_server,
)
from vps_bridge.durations import seconds
from vps_bridge.errors import StoreUnavailable

SCHEMA = "omi_diarization"
MIGRATIONS = Path(__file__).parent / "migrations"
STATEMENT_TIMEOUT_S = 10.0
MARGIN_S = 2.0  # the server ends a statement by itself; it is hung up on where it does not
_TABLES = ServerSchema(SCHEMA, MIGRATIONS, MIGRATIONS / "postgres" / "0005_tables.sql")
# The schema is set for each transaction: what pools connections between here and the server may change hands then.
_BEGIN = (
    f"SET LOCAL search_path TO {SCHEMA}; SET LOCAL statement_timeout = {{limit_ms}}; "
    f"SET LOCAL lock_timeout = {{limit_ms}}; SET LOCAL idle_in_transaction_session_timeout = {{limit_ms}}; "
    "SET LOCAL synchronous_commit = on"
)
# Prepared statements belong to one connection of a pool between here and the server.
_CONNECTING: dict[str, Any] = {**CONNECTING, "prepare_threshold": None}


class ConnectionCut(StoreUnavailable):
    """The connection ended in the middle of a transaction, which may be done or not."""


class PostgresDatabase:
    """One connection, used by one thread at a time, opened when it is first needed and again when it is cut."""

    def __init__(self, url: URL, *, statement_timeout_s: float = STATEMENT_TIMEOUT_S) -> None:
        """Connect to nothing yet. Raises `ModuleNotFoundError` where the driver is not installed."""
        self._engine = create_engine(url, pool_size=1, max_overflow=0, connect_args=_CONNECTING)
        replace_nul(self._engine)
        self._limit_s, self._lock, self._is_migrated = statement_timeout_s, threading.RLock(), False
        self._shown = show_server(url)

    def reading(self) -> AbstractContextManager[Connection]:
        """Lend a connection for reading: all statements see the database as it was when the first one ran."""
        return self._transaction(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def writing(self) -> AbstractContextManager[Connection]:
        """Lend a connection for one transaction: all of it is done or, where an error is raised, none of it.

        A statement sees what was committed before it began: with the row of its conversation locked, a transaction
        sees all that others wrote into that.
        """
        return self._transaction(isolation_level="READ COMMITTED")

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            self._engine.dispose()

    @contextmanager
    def _transaction(self, **options: Any) -> Iterator[Connection]:  # noqa: ANN401 - of SQLAlchemy's execution
        with self._lock:
            if not self._is_migrated:
                self._migrate()
            with self._begun(**options) as connection:
                yield connection

    @contextmanager
    def _begun(self, **options: Any) -> Iterator[Connection]:  # noqa: ANN401 - of SQLAlchemy's execution
        with (
            _explained(self._shown),
            self._engine.connect() as connection,
            self._deadline(connection) as deadline,
            deadline.explained(self._shown),
            connection.execution_options(**options).begin(),
        ):
            connection.exec_driver_sql(_BEGIN.format(limit_ms=round(self._limit_s * 1000)))
            yield connection

    @contextmanager
    def _deadline(self, connection: Connection) -> Iterator[_Deadline]:
        driver: Any = connection.connection.driver_connection
        deadline = _Deadline(driver.fileno(), self._limit_s + MARGIN_S)

        def extend(*_: object) -> None:
            deadline.extend()

        event.listen(self._engine, "before_cursor_execute", extend)
        event.listen(self._engine, "commit", extend)
        try:
            yield deadline
        finally:
            event.remove(self._engine, "before_cursor_execute", extend)
            event.remove(self._engine, "commit", extend)
            deadline.end()

    def _migrate(self) -> None:
        with self._begun(isolation_level="READ COMMITTED") as connection:
            bring_up_to_date(connection, _TABLES, self._shown)
        self._is_migrated = True


class _Deadline:
    """Hangs up where a statement is not answered in time: a library that waits for a socket waits for ever."""

    def __init__(self, file_number: int, limit_s: float) -> None:
        self._socket = socket.socket(fileno=os.dup(file_number))
        self._limit_s, self._is_over, self._ended = limit_s, False, threading.Event()
        self.extend()
        self._thread = threading.Thread(target=self._watch, name="postgres-deadline", daemon=True)
        self._thread.start()

    def extend(self) -> None:
        """Begin anew: a statement is about to be sent."""
        self._due_s = time.monotonic() + self._limit_s

    def _watch(self) -> None:
        while (left_s := self._due_s - time.monotonic()) > 0:
            if self._ended.wait(left_s):
                return
        self._is_over = True
        with suppress(OSError):  # it has ended by itself
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Hang up no more."""
        self._ended.set()
        self._thread.join()
        self._socket.close()

    @contextmanager
    def explained(self, shown: str) -> Iterator[None]:
        """Say of what fails because of this that it took too long."""
        try:
            yield
        except DBAPIError as error:
            if self._is_over:
                raise StoreUnavailable(
                    f"{shown} did not answer within {seconds(self._limit_s)}: look at its load and at the network"
                ) from error
            raise


@contextmanager
def _explained(shown: str) -> Iterator[None]:
    """Turn what a server or the way to it does into `StoreUnavailable`; a statement that is wrong stays an error."""
    try:
        yield
    except (IntegrityError, DataError):
        raise
    except DBAPIError as error:
        if error.connection_invalidated:
            raise ConnectionCut(f"{shown} hung up: look whether it runs and what its log says") from error
        raise StoreUnavailable(f"{shown} {describe_failure(error, SCHEMA, 'conversations')}") from error
