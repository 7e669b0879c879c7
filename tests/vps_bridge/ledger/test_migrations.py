"""A ledger that an earlier version wrote is taken over as it is."""

import shutil
from typing import Any

from sqlalchemy import text

from vps_bridge.database import open_database
from vps_bridge.ledger import Ledger
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


def write_version_3(root, tmp_path):
    """Write a ledger with the migrations of then: a job and its leases, each ended for another reason."""
    older = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, older, ignore=shutil.ignore_patterns("000[4-9]*", "__pycache__"))
    database = open_database(root / FILE_NAME, older)
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
