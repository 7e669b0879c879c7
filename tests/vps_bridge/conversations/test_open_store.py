"""Which store the settings choose, what they have to say for it, and what is told where it cannot be used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import inspect

from broker.check import CheckState
from broker.errors import SettingsError
from tests.postgres_server import PASSWORD, RunningPostgres
from tests.vps_bridge.conversations.odd_backend import SECRET, OddBackend
from vps_bridge.conversations.http_store import HttpConversations
from vps_bridge.conversations.open_store import open_store
from vps_bridge.conversations.postgres import PostgresConversations
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.conversations.tables import metadata
from vps_bridge.database_server import read_url
from vps_bridge.doctor.file_checks import check_files
from vps_bridge.errors import StoreUnavailable
from vps_bridge.ledger import Ledger, open_ledger
from vps_bridge.settings import BridgeSettings

ROOT = Path(__file__).resolve().parents[3]


def settings(directory: Path, url: str | None = None, secret: str | None = SECRET, **others: Any) -> BridgeSettings:
    kept = None if secret is None else SecretStr(secret)
    return BridgeSettings(data_dir=directory, conversations_url=url, conversations_secret=kept, **others)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        (None, SqliteConversations),
        ("postgresql://bridge@127.0.0.1/backend", PostgresConversations),
        ("postgres:///backend?host=/run/postgresql", PostgresConversations),
        ("https://backend.example/omi", HttpConversations),
    ],
)
def test_the_address_chooses_the_store_and_nothing_is_asked_yet(tmp_path: Path, url: str | None, kind: type) -> None:
    store = open_store(settings(tmp_path, url))
    assert isinstance(store, kind)
    store.close()
    assert (tmp_path / "bridge" / "conversations.sqlite3").exists() == (url is None)


@pytest.mark.parametrize(
    ("url", "secret", "said"),
    [
        ("mysql://h/d", SECRET, "postgresql://user@host/database or https://"),
        ("postgresql://h:port/d", SECRET, "postgresql://user@host/database"),
        ("http://8.8.8.8/hush", SECRET, "OMI_CONVERSATIONS_INSECURE"),
        ("https://backend.example/hush", None, "OMI_CONVERSATIONS_SECRET"),
        ("https://backend.example/hush", "short", "openssl rand"),
        ("https://me@backend.example/hush", SECRET, "without user and password"),
    ],
)
def test_settings_that_are_no_store_say_what_is_needed(tmp_path: Path, url: str, secret: str, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)) as refused:
        open_store(settings(tmp_path, url, secret))
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://me:hush@h/d", "postgresql://h/d?password=hush", "https://me:hush@h/"])
def test_a_password_in_the_address_is_refused_before_anything_can_show_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValidationError, match="OMI_CONVERSATIONS_SECRET") as refused:
        settings(tmp_path, url)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://db.example/d", "require"),
        ("postgresql://10.0.0.1/d", "require"),
        ("postgresql://db.example/d?sslmode=verify-full", "verify-full"),
        ("postgresql://127.0.0.1/d", None),
        ("postgresql://100.64.0.7/d", None),
        ("postgresql://localhost/d", None),
        ("postgresql:///d?host=/run/postgresql", None),
    ],
)
def test_beyond_this_machine_and_the_tailnet_the_connection_is_encrypted(url: str, mode: str | None) -> None:
    found = read_url("conversations", url, SECRET)
    assert found.query.get("sslmode") == mode
    assert SECRET not in repr(found)


def test_without_the_driver_it_is_said_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from vps_bridge.commands.main import main; sys.argv[1:] = ['history', 'c1']; main()"
    )
    environment = {"OMI_CONVERSATIONS_URL": "postgresql://h/d", "OMI_DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    Ledger(tmp_path / "bridge", exclusive=True).close()
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "pip install 'omi-diarization[bridge,postgres]'" in done.stderr


def test_doctor_says_whether_the_store_answers_and_why_not(tmp_path: Path, plain_backend: OddBackend) -> None:
    plain_backend.reset()
    url = f"http://127.0.0.1:{plain_backend.port}/omi"
    Ledger(tmp_path / "bridge", exclusive=True).close()

    def found(**changed: Any) -> tuple[CheckState, str]:
        checks, ledger = check_files(settings(tmp_path, **{"url": url, **changed}))
        assert ledger is not None
        ledger.close()
        return checks[1].verdict, checks[1].found

    assert found() == (CheckState.OK, "their store answers")
    assert plain_backend.documents == {}
    verdict, words = found(secret="another-secret-of-these-tests")
    assert (verdict, "has it the same secret" in words) == (CheckState.FAILED, True)
    verdict, words = found(secret="short")
    assert (verdict, "openssl rand" in words) == (CheckState.FAILED, True)
    assert found(url=None) == (CheckState.OK, "the file is whole")


def open_as(server: RunningPostgres, user: str = "bridge", database: str = "postgres", password: str = PASSWORD):
    url = server.url(database).replace("//bridge@", f"//{user}@")
    return PostgresConversations(read_url("conversations", url, password))


def test_migrations_leave_the_tables_that_the_code_has_in_postgresql_too(postgres: RunningPostgres) -> None:
    store = open_as(postgres)
    store.check()
    store.close()
    with postgres.superuser() as connection:
        found = inspect(connection)
        for table in metadata.tables.values():
            columns = {one["name"]: one["nullable"] for one in found.get_columns(table.name, schema="omi_diarization")}
            assert columns == {one.name: bool(one.nullable) for one in table.columns}, table.name
            key = found.get_pk_constraint(table.name, schema="omi_diarization")["constrained_columns"]
            assert key == [column.name for column in table.primary_key]


def test_doctor_says_of_a_server_that_takes_no_writes_that_nothing_can_be_kept_there(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    database = postgres.new_database()
    kept = settings(
        tmp_path,
        postgres.url(database),
        PASSWORD,
        database_url=postgres.url(database),
        database_secret=SecretStr(PASSWORD),
    )
    open_ledger(kept, exclusive=True).close()

    def found() -> list[tuple[CheckState, str]]:
        checks, ledger = check_files(kept)
        if ledger is not None:
            ledger.close()
        return [(check.verdict, check.found) for check in checks]

    assert [verdict for verdict, _ in found()] == [CheckState.OK, CheckState.OK]
    with postgres.superuser() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    told = found()
    assert [verdict for verdict, _ in told] == [CheckState.FAILED, CheckState.FAILED]
    assert ["takes no writes" in words for _, words in told] == [True, True]


def refusal_of(store: PostgresConversations) -> str:
    with pytest.raises(StoreUnavailable) as refused:
        store.read("c1")
    assert PASSWORD not in str(refused.value)
    store.close()
    return str(refused.value)


@pytest.mark.slow
def test_a_postgresql_that_cannot_be_used_says_why_and_what_to_do(postgres: RunningPostgres) -> None:
    with postgres.superuser() as connection:
        connection.exec_driver_sql(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
        connection.exec_driver_sql("CREATE DATABASE plain TEMPLATE template0")
        connection.exec_driver_sql("CREATE DATABASE old ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
        assert "password authentication failed" in refusal_of(open_as(postgres, password="wrong"))
        assert '"nowhere" does not exist' in refusal_of(open_as(postgres, database="nowhere"))
        assert "GRANT CREATE" in refusal_of(open_as(postgres, user="guest", database="plain"))
        assert "ENCODING 'UTF8'" in refusal_of(open_as(postgres, database="old"))
        connection.exec_driver_sql("ALTER DATABASE plain SET default_transaction_read_only = on")
        assert "takes no writes" in refusal_of(open_as(postgres, database="plain"))
        first = open_as(postgres)
        first.check()
        first.close()
        assert "owner of omi_diarization" in refusal_of(open_as(postgres, user="guest"))
        connection.exec_driver_sql("UPDATE omi_diarization.alembic_version SET version_num = '9999'")
        assert "install that version again" in refusal_of(open_as(postgres))
        connection.exec_driver_sql("DROP SCHEMA omi_diarization CASCADE")
