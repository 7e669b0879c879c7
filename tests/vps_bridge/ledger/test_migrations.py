"""A ledger that an earlier version wrote is taken over as it is."""

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from tests.vps_bridge.ledger_server import KINDS, server_of
from vps_bridge.conversations.sqlite import MIGRATIONS as STORE_MIGRATIONS
from vps_bridge.database import open_database
from vps_bridge.ledger import Ledger
from vps_bridge.ledger import postgres as on_server
from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.ledger import FILE_NAME, MIGRATIONS
from vps_bridge.rules.lease import LeaseEnd

OLD_ENDS = {
    "l-stale": ("agent is stale", True, LeaseEnd.AGENT_STALE),
    "l-died": ("agent started anew without the job", True, LeaseEnd.AGENT_DIED),
    "l-limit": ("over the absolute limit", False, LeaseEnd.OVER_LIMIT),
    "l-failed": ("engine.crashed", False, LeaseEnd.ATTEMPT_FAILED),
    "l-cancelled": ("cancelled by an operator", False, LeaseEnd.JOB_CANCELLED),
    "l-running": (None, False, None),
}


def older_migrations(version, tmp_path):
    """The migrations up to one of them."""
    older = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, older, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (older / "versions").iterdir():
        if path.name[:4] > version:
            path.unlink()
    return older


def open_version(version, root, tmp_path):
    """Open a ledger as it was made by the migrations up to one of them."""
    return open_database(root / FILE_NAME, older_migrations(version, tmp_path))


def write_version_3(root, tmp_path):
    """Write a ledger of then: a job and its leases, each ended for another reason."""
    database = open_version("0003", root, tmp_path)
    with database.writing() as connection:
        connection.execute(
            text(
                "INSERT INTO conversations (conversation_id, state, since_at, started_revision, completed, "
                "completed_revision, voices, dirty, updated_version, applied_version) "
                "VALUES ('c', 'waiting', 1, -1, 0, -1, '[]', 0, 0, 0)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO jobs (job_id, conversation_id, state, audio_s, attempts, deaths, lease_id, created_at) "
                "VALUES ('j', 'c', 'leased', 30, 1, 1, 'l-running', 1)"
            )
        )
        lease = text(
            "INSERT INTO leases (lease_id, job_id, agent_id, instance_id, granted_at, ended_reason, may_return) "
            "VALUES (:lease, 'j', 'mac', 'i1', 1, :reason, :may_return)"
        )
        for lease_id, (reason, may_return, _) in OLD_ENDS.items():
            connection.execute(lease, {"lease": lease_id, "reason": reason, "may_return": may_return})
    database.close()


def test_leases_of_an_earlier_version_keep_why_they_ended_and_whether_they_may_return(tmp_path):
    root = tmp_path / "bridge"
    write_version_3(root, tmp_path)
    ledger: Any = Ledger(root, exclusive=True)
    for lease_id, (_, may_return, end) in OLD_ENDS.items():
        lease = ledger.leases.find(lease_id)
        assert lease.lease_end is end
        assert (end is not None and end.may_return) == may_return
    assert [lease.lease_id for lease in ledger.leases.current()] == ["l-running"]
    assert ledger.jobs.events("j") == []
    assert ledger.jobs.note_failure("j", "engine.crashed", "words", counted=True).state is JobState.READY
    assert ledger.leases.give_back(ledger.leases.find("l-stale"), "i1")
    ledger.close()


DAY_S = 86_400
OLD_CONVERSATION = text(
    "INSERT INTO conversations (conversation_id, state, since_at, started_revision, completed, completed_revision, "
    "voices, dirty, updated_version, applied_version, final_at) "
    "VALUES (:name, 'assigned', :since, -1, 1, -1, '[]', 0, 1, 0, :final)"
)
OLD_CHUNK = text(
    "INSERT INTO chunks (conversation_id, chunk_id, encoding, sha256, bytes, accepted_at, covered) "
    "VALUES (:name, 'k', 'wav', '', 1, :at, 1)"
)
OLD_JOB = text(
    "INSERT INTO jobs (job_id, conversation_id, state, audio_s, attempts, deaths, created_at, ended_at) "
    "VALUES (:name, :name, 'done', 30, 1, 0, :at, :at)"
)
OLD_RESULT = text(
    "INSERT INTO results (job_id, lease_id, agent_id, payload, stored_at) VALUES (:name, '', '', '', :at)"
)
OLD_EVENT = text("INSERT INTO events (conversation_id, event_id, verdict) VALUES (:name, 'e', 'accepted')")


def test_a_ledger_of_an_earlier_version_knows_which_conversations_are_alive(tmp_path):
    root, now = tmp_path / "bridge", time.time()
    month_ago, hour_ago = now - 30 * DAY_S, now - 3_600
    database = open_version("0004", root, tmp_path)
    with database.writing() as connection:
        for name, final in (("quiet", month_ago), ("silent", None), ("chunk", None), ("result", None), ("told", None)):
            connection.execute(OLD_CONVERSATION, {"name": name, "since": month_ago, "final": final})
        connection.execute(OLD_CONVERSATION, {"name": "final", "since": month_ago, "final": hour_ago})
        for name, at in (("quiet", month_ago), ("chunk", hour_ago), ("result", month_ago)):
            connection.execute(OLD_CHUNK, {"name": name, "at": at})
        for name, at in (("quiet", month_ago), ("result", hour_ago)):
            connection.execute(OLD_JOB, {"name": name, "at": month_ago})
            connection.execute(OLD_RESULT, {"name": name, "at": at})
        for name in ("quiet", "told"):
            connection.execute(OLD_EVENT, {"name": name})
    database.close()
    ledger: Any = Ledger(root, exclusive=True)
    assert set(ledger.conversations.quiet_since(now - DAY_S)) == {"quiet", "silent"}, "only these may be erased"
    assert ledger.conversations.get("result").last_activity_at == pytest.approx(hour_ago)
    assert ledger.conversations.get("told").last_activity_at >= now, "nobody knows when its event came"
    assert len(ledger.listing.latest_first()) == 6
    ledger.close()


OMI_BEFORE = """
INSERT INTO conversations (conversation_id, last_activity_at, started_revision, completed, completed_revision, voices,
    dirty, updated_version, applied_version, updated_payload)
SELECT name, 1, 0, 1 = 1, 0, '[]', 0, version, 0, :payload
FROM (SELECT 'untold' AS name, 2 AS version UNION ALL SELECT 'told', 1) AS made;
INSERT INTO tombstones (conversation_id, deleted_at, finished) VALUES ('gone', 1, 1 = 1);
INSERT INTO omi_conversations (conversation_id, uid, started_at, ended_at, posts, body_sha256, waits, sent_version,
    sent_labels)
SELECT name, 'uid', 1, 2, 1, '', 1 = 0, 1, '{}'
FROM (SELECT 'untold' AS name UNION ALL SELECT 'told' UNION ALL SELECT 'gone') AS made
"""


@pytest.mark.parametrize("kind", KINDS)
def test_omi_is_told_what_an_earlier_version_had_not_told_and_what_was_deleted_is_erased(
    kind, tmp_path, request, monkeypatch
):
    root, server = tmp_path / "bridge", None
    if kind == "sqlite":
        root.mkdir()
        database: Any = open_version("0016", root, tmp_path)
    else:
        postgres = request.getfixturevalue("postgres")
        server = server_of(postgres, postgres.new_database())
        tables = replace(on_server.TABLES, migrations=older_migrations("0016", tmp_path))
        with monkeypatch.context() as patch:
            patch.setattr(on_server, "TABLES", tables)
            database = on_server.PostgresLedger(server, sync_commits=True)
            database.migrate()
    with database.writing() as connection:
        for part in OMI_BEFORE.split(";"):
            payload = {"payload": b"{}"} if ":payload" in part else {}
            connection.execute(text(part).bindparams(**payload), payload)
    database.close()
    ledger: Any = Ledger(root, exclusive=True, server=server)
    untold = ledger.omi.next_untold(())
    assert untold is not None
    assert (untold.conversation_id, dict(untold.told.assigned)) == ("untold", {})
    assert [found.conversation_id for found in ledger.omi.deleted()] == ["gone"]
    ledger.omi.note_told(untold)
    assert ledger.omi.next_untold(()) is None
    ledger.close()


@pytest.mark.parametrize("folder", [MIGRATIONS, STORE_MIGRATIONS], ids=["ledger", "store"])
def test_the_newest_migration_by_its_file_is_the_newest_to_alembic(folder):
    """Opening a file compares its revision with the names of the files and asks Alembic only where they differ."""
    config = Config()
    config.set_main_option("script_location", str(folder))
    scripts = {script.revision: script.path for script in ScriptDirectory.from_config(config).walk_revisions()}
    assert all(Path(path).name.startswith(f"{revision}_") for revision, path in scripts.items())
    assert max(scripts) == ScriptDirectory.from_config(config).get_current_head()


def test_a_command_that_finds_the_newest_schema_starts_without_alembic(tmp_path):
    Ledger(tmp_path, exclusive=True).close()
    code = (
        "import sys; from pathlib import Path; from vps_bridge.ledger import Ledger; "
        f"Ledger(Path({str(tmp_path)!r}), exclusive=False).close(); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
