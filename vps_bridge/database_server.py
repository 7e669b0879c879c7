"""PostgreSQL, as the ledger and the conversation store share it: its address, connecting, its tables, its refusals."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from broker.errors import SettingsError
from vps_bridge.errors import StoreUnavailable
from vps_bridge.signed_endpoint import is_near

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection, Engine

DRIVER = "postgresql+psycopg"
SCHEMES = ("postgresql", "postgres")
CONNECT_TIMEOUT_S = 5
PROGRAM = "omi-diarization"
MAX_NAME_BYTES = 63  # a server keeps so many of a connection's name
CONNECTING: dict[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "client_encoding": "utf8",
    "application_name": PROGRAM,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
_MIGRATION_LOCK = 0x6F6D6964  # of this program alone; two processes may meet a new database at once
_READ_REVISION = text("SELECT version_num FROM alembic_version")
# Read from the catalogue's tables as they are now: `to_regclass` may say what was true before a lock was waited for.
_FIND_SCHEMA = text("SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = :name")
_FIND_REVISIONS = text(
    "SELECT pg_class.oid FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace "
    "WHERE nspname = :name AND relname = 'alembic_version'"
)


@dataclass(frozen=True)
class ServerSchema:
    """The tables of one part of this program on a server: the schema they are in, and how they come to be.

    `baseline` is a script of SQL that makes the tables as the migrations up to its own number leave them.
    """

    name: str
    migrations: Path
    baseline: Path


def read_url(setting: str, given: str, password: str | None) -> URL:
    """Return the address of a database as the driver takes it, for the settings `setting`_url and `setting`_secret.

    Beyond this machine and a tailnet the connection is encrypted, unless the address itself says otherwise.

    Raises:
        SettingsError: it is none, or it holds a password.
    """
    words = (
        f"postgresql://user@host/database, and the password as OMI_{setting.upper()}_SECRET or {setting}_secret_file"
    )
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise SettingsError(f"{setting}_url", "the settings", words) from None
    if url.password is not None or "password" in url.query or url.drivername not in SCHEMES:
        raise SettingsError(f"{setting}_url", "the settings", words)
    query = dict(url.query)
    if "sslmode" not in query and not _is_local(url):
        query["sslmode"] = "require"
    return url.set(drivername=DRIVER, password=password, query=query)


def name_connections(bridge_id: str) -> str:
    """Return how the connections of a running bridge are named on its ledger's server: others find them by it."""
    name = f"{PROGRAM} {bridge_id}"
    return name if len(name) <= MAX_NAME_BYTES else hashlib.sha256(name.encode()).hexdigest()[:MAX_NAME_BYTES]


def replace_nul(engine: Engine) -> None:
    """Have text that PostgreSQL cannot keep be kept as nearly as it can: the character of number 0 becomes U+FFFD.

    Whoever sends it would otherwise be refused for ever, or not be answered at all.
    """
    event.listen(engine, "before_cursor_execute", _replace_nul, retval=True)


def _replace_nul(
    _connection: Connection,
    _cursor: object,
    statement: str,
    values: Any,  # noqa: ANN401 - of any statement
    _context: object,
    _is_many: object,
) -> tuple[str, Any]:
    rows = values if isinstance(values, list | tuple) else [values]
    if any("\0" in value for row in rows if isinstance(row, dict) for value in row.values() if isinstance(value, str)):
        rows = [
            {name: value.replace("\0", "\ufffd") if isinstance(value, str) else value for name, value in row.items()}
            for row in rows
        ]
        return statement, rows if isinstance(values, list | tuple) else rows[0]
    return statement, values


def show_server(url: URL) -> str:
    """Return how a server is named in messages: never with user, password or database."""
    return f"PostgreSQL at {url.host or url.query.get('host') or 'its socket'}"


def _is_local(url: URL) -> bool:
    """Whether a server is reached by a socket of this machine, on loopback or in a tailnet."""
    hosts = [url.host] if url.host else url.query.get("host", "")
    names = [hosts] if isinstance(hosts, str) else list(hosts)
    return all(not name or name.startswith("/") or name == "localhost" or is_near(name) for name in names)


def read_revision(connection: Connection, schema: ServerSchema) -> str | None:
    """Return the newest migration that a schema has seen; None where there is nothing yet."""
    if connection.execute(_FIND_REVISIONS, {"name": schema.name}).first() is None:
        return None
    revision: str | None = connection.scalar(_READ_REVISION)
    return revision


def bring_up_to_date(connection: Connection, schema: ServerSchema, shown: str) -> None:
    """Make or migrate a schema's tables, within the transaction that the connection is in.

    Raises `StoreUnavailable` where a newer program has written them, or the database cannot keep every character.
    """
    revisions = sorted(script.name.split("_")[0] for script in (schema.migrations / "versions").glob("*.py"))
    if read_revision(connection, schema) == revisions[-1]:
        return
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
    current = read_revision(connection, schema)  # another process may have been faster
    if current == revisions[-1]:
        return
    if current is not None and current not in revisions:
        raise StoreUnavailable(
            f"{shown} was written by a newer version of omi-diarization (schema {current}): install that version again"
        )
    if current is None:
        _create_tables(connection, schema, shown)
    from vps_bridge.migrations import migrate  # noqa: PLC0415 - Alembic is slow to import and seldom needed

    migrate(connection, schema.migrations)


def _create_tables(connection: Connection, schema: ServerSchema, shown: str) -> None:
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        raise StoreUnavailable(
            f"{shown}: the database keeps text as {encoding}, which has no place for every character: make "
            "one with `CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0`"
        )
    if connection.execute(_FIND_SCHEMA, {"name": schema.name}).first() is None:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema.name}")
    connection.exec_driver_sql(schema.baseline.read_text())


def describe_failure(error: DBAPIError, schema: str, setting: str) -> str:
    """Return what went wrong on a server, without what a statement held, and what to do."""
    state = getattr(error.orig, "sqlstate", None)
    if state is None and isinstance(error, OperationalError):  # no connection: the words are the library's, on the way
        words = str(error.orig).strip().partition("\n")[0]
        name = f"OMI_{setting.upper()}_URL"
        return f"cannot be reached ({words}): look whether it runs, at {name} and at the password"
    return describe_refusal(str(state), schema)


def describe_refusal(state: str, schema: str) -> str:
    """Return what a server's SQLSTATE means here, and what to do."""
    rights = (
        f"the user may not do it: make it the owner of {schema} and its tables, or `GRANT CREATE ON DATABASE … TO …`"
    )
    advice = {
        "42501": rights,
        "42P01": f"its tables are gone (restore {schema}), or {rights}",  # who may not use a schema sees no tables
        "25006": "it is a copy that takes no writes: name the server that does",
        "53100": "its disk is full: make room on it",
        "53300": "it has no connection left: raise its max_connections",
        "55P03": "another connection holds the conversation: look for one that is idle in a transaction",
        "57014": "it took too long: look at its load",
    }
    return f"refuses (SQLSTATE {state}): {advice.get(state, 'its log says why')}"
