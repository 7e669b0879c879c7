"""The conversation store in a SQLite file: private, erased for good, and migrated or refused."""

from __future__ import annotations

import shutil
import sqlite3
import stat

import pytest

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.conversations.test_store import make_segment
from vps_bridge.conversations.sqlite import MIGRATIONS, SqliteConversations
from vps_bridge.conversations.store import Label
from vps_bridge.database import DatabaseNewer, DatabaseUnreadable, open_database


@pytest.fixture
def store(tmp_path):
    store = SqliteConversations(tmp_path / "state" / "conversations.db")
    yield store
    store.close()


def test_file_and_directory_are_private(store, tmp_path):
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    for path in (tmp_path / "state").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_deletion_leaves_no_byte_behind_while_the_store_is_open(store, tmp_path):
    store.upsert_segments("c1", 1, [make_segment("a", text="a very secret sentence", speaker="SPEAKER_00")])
    store.upsert_segments("c2", 1, [make_segment("a", text="somebody else")])
    store.apply("c1", store.read("c1").revision, "k1", [Label("a", 1)])
    store.delete("c1")
    assert store.read("c1") is None
    assert store.history("c1") == ()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert b"secret" not in kept
    assert b"somebody else" in kept
    store.delete("c1")


def test_the_store_reads_what_an_earlier_process_wrote(tmp_path):
    for process in range(2):
        store = SqliteConversations(tmp_path / "c.db")
        if process == 0:
            store.upsert_segments("c1", 1, [make_segment("a", text="kept")])
        kept = store.read("c1")
        assert kept is not None
        assert [segment.text for segment in kept.segments] == ["kept"]
        store.close()


def test_segments_of_an_earlier_version_keep_their_revision(tmp_path):
    older = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, older, ignore=shutil.ignore_patterns("000[2-9]*", "__pycache__"))
    open_database(tmp_path / "c.db", older).close()
    with sqlite3.connect(tmp_path / "c.db") as connection:
        connection.execute("INSERT INTO conversations VALUES ('c1', 1, 0)")
        connection.execute(
            "INSERT INTO segments (conversation_id, segment_id, backend_revision, removed, text, start_s, end_s, "
            "undone, is_user) VALUES ('c1', 'a', 5, 0, 'kept', 1, 2, 0, 0)"
        )
    store = SqliteConversations(tmp_path / "c.db")
    assert not store.upsert_segments("c1", 4, [make_segment("a", text="older")])
    store.upsert_segments("c1", 5, [TranscriptSegment(id="a", speaker="SPEAKER_01")])
    kept = store.read("c1")
    assert kept is not None
    assert [(segment.text, segment.speaker) for segment in kept.segments] == [("kept", "SPEAKER_01")]
    store.close()


def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "c.db"
    SqliteConversations(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseNewer, match="newer version"):
        SqliteConversations(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "c.db"
    path.write_bytes(b"these are notes, not a database" * 100)
    with pytest.raises(DatabaseUnreadable, match="restore a backup"):
        SqliteConversations(path)
    assert path.read_bytes().startswith(b"these are notes")
