"""`omi-bridge jobs`: what waits, who works on what, and what failed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from vps_bridge.cli_terminal import (
    AsJson,
    ConfigFile,
    DataDir,
    age,
    explained,
    opened,
    out,
    print_json,
)
from vps_bridge.ledger.records import JobRecord, JobState


def jobs(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs: what waits, who works on what, what failed and why.

    Example: omi-bridge jobs --state failed
    """
    with explained(), opened(config, data_dir) as (ledger, _store, _stale_s):
        found = ledger.jobs.all(states=(state,) if state else ())
        if as_json:
            print_json([asdict(job) for job in found])
            return
        table = Table("job", "conversation", "state", "audio", "attempts", "agent", "age", "failure")
        for job in found:
            table.add_row(*_job_row(job))
        out.print(table)


def _job_row(job: JobRecord) -> tuple[str, ...]:
    failure = f"{job.failure_code}: {job.failure_message}" if job.failure_code else ""
    audio = f"{job.audio_s:.0f} s" if job.audio_s else "?"
    head = (job.job_id, job.conversation_id, job.state, audio, str(job.attempts))
    return (*head, job.agent_id or "", age(job.created_at), failure)
