"""`omi-bridge jobs`, `failed`, `retry`, `cancel`: what waits, what failed and why, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column

from broker.terminal import print_json
from vps_bridge.commands.terminal import (
    EXIT_FAILED,
    EXIT_USAGE,
    AsJson,
    ConfigFile,
    DataDir,
    age,
    err,
    explained,
    fail,
    make_table,
    opened,
    out,
)
from vps_bridge.durations import seconds
from vps_bridge.ledger.job_states import JobState

if TYPE_CHECKING:
    from vps_bridge.ledger import Ledger
    from vps_bridge.ledger.operator_actions import ActionResult
    from vps_bridge.ledger.records import FailedJob, JobEventRecord, JobRecord
    from vps_bridge.ledger.refusals import RefusedChunk

SHOWN_JOBS, MAX_SHOWN_JOBS = 50, 10_000_000
SHA256_SHOWN_CHARS = 16
LEASE_ID_SHOWN_CHARS = 8  # enough to tell the leases of one job apart
WIDE_COLUMNS = 120  # narrower, why a job failed is left to `omi-bridge failed`
JOB_ID_CHARS = 26  # to be copied, so never cut
Limit = Annotated[
    int | None,
    typer.Option(
        min=0, max=MAX_SHOWN_JOBS, help=f"At most so many, the latest; 0: all. Default: {SHOWN_JOBS}, with --json all."
    ),
]
Job = Annotated[str, typer.Argument(help="The job's id; see `omi-bridge failed` and `omi-bridge jobs`.")]


def jobs(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Limit = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs: what waits, who works on what, what failed and why.

    Example: omi-bridge jobs --state ready --limit 200
    """
    states = (state,) if state else ()
    with explained(), opened(config, data_dir) as (ledger, _store, _stale_s):
        found = ledger.jobs.all(states=states, limit=bounded(limit, as_json=as_json))
        if as_json:
            print_json([asdict(job) for job in found])
            return
        counts = ledger.jobs.by_state()
        is_wide = out.width >= WIDE_COLUMNS
        names = ("conversation", "state", "audio", "attempts", "agent", "age", *(("failure",) if is_wide else ()))
        table = make_table(Column("job", no_wrap=True, min_width=JOB_ID_CHARS), *names)
        for job in found:
            row = _job_row(job)
            table.add_row(*(row if is_wide else row[:-1]))
        out.print(table)
        out.print(_sum_up(counts, ledger.refusals.count()), highlight=False)
        print_rest(len(found), sum(count for name, count in counts.items() if not states or name in states))


def failed(
    *,
    limit: Limit = None,
    forget_refused: Annotated[
        bool,
        typer.Option("--forget-refused", help="Forget the refused audio, once it is dealt with; else after 7 days."),
    ] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List failed jobs, refused audio and failed conversations: why, how often, by whom, and what to do now.

    A conversation fails where its labels could not be worked out several times; all others go on.

    Example: omi-bridge failed --json | jq -r '.[] | select(.has_audio) | .job_id'
    """
    from vps_bridge.dispatch.operator_answers import advise, advise_set_aside

    with explained(), opened(config, data_dir) as (ledger, _store, _stale_s):
        if forget_refused:
            forgotten = ledger.refusals.forget_all()
            print_json({"forgotten": forgotten}) if as_json else out.print(f"{forgotten:,} refusals are forgotten")
            return
        found, set_aside = ledger.jobs.failed(limit=bounded(limit, as_json=as_json)), ledger.conversations.set_aside()
        refused = ledger.refusals.latest(bounded(limit, as_json=as_json))
        if as_json:
            aside = [_describe_set_aside(*item) for item in set_aside]
            print_json([*map(_describe_failed, found), *map(describe_refused, refused), *aside])
            return
        if not found and not set_aside:
            out.print("no job has failed")
        for name, why in set_aside:
            words = f"conversation {name}\n  why:  {why}\n  then: {advise_set_aside(name)}"
            out.print(words, highlight=False, soft_wrap=True)
        for item in found:
            job = item.job
            by = f" by {item.last_agent_id}" if item.last_agent_id else ""
            tried = f"{_attempts(job)}{by}, failed {age(job.ended_at)} ago"
            out.print(f"{job.job_id} of {job.conversation_id}: {tried}", style="bold", highlight=False, soft_wrap=True)
            why = f"  why:  {job.failure_code}: {job.failure_message}"
            out.print(why, highlight=False, soft_wrap=True)
            out.print(f"  then: {advise(item)}", highlight=False, soft_wrap=True)
        print_rest(len(found), ledger.jobs.by_state().get(JobState.FAILED, 0))
        print_refused(refused)
        print_rest(len(refused), ledger.refusals.count())


def retry(
    job: Annotated[str | None, typer.Argument(help="The job's or conversation's id; see `omi-bridge failed`.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that failed and whose audio is still here.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Let a failed job wait for an agent again, with all its attempts, or have a failed conversation labelled again.

    Works with the bridge running or stopped.

    Examples: omi-bridge retry j-0123456789abcdef01234567, or omi-bridge retry --all

    Exit codes: 0 it waits (or waited, or is diarized); 1 one of them cannot be tried again; 2 wrong arguments.
    """
    from vps_bridge.dispatch.operator_answers import RETRY_REFUSED

    if (job is None) != everything:
        fail("name one job, or say --all: `omi-bridge failed` lists those that failed", EXIT_USAGE)
    with explained(), opened(config, data_dir) as (ledger, _store, _stale_s):
        names = [job] if job else [item.job.job_id for item in ledger.jobs.failed()]
        names += [] if job else [name for name, _ in ledger.conversations.set_aside()]
        done = {name: _retry(ledger, name) for name in names}
    _print_outcomes(done, RETRY_REFUSED, as_json=as_json, nothing="no job has failed")


def cancel(job: Job, config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Give a job up for good: its agent stops, a late result is discarded, and its conversation waits no longer.

    Works with the bridge running or stopped. The audio is kept as long as that of a finished job.

    Example: omi-bridge cancel j-0123456789abcdef01234567

    Exit codes: 0 it is cancelled (or was); 1 it is unknown or diarized already.
    """
    from vps_bridge.dispatch.operator_answers import CANCEL_REFUSED

    with explained(), opened(config, data_dir) as (ledger, _store, _stale_s):
        done = {job: ledger.operator_actions.cancel(job)}
    _print_outcomes(done, CANCEL_REFUSED, as_json=as_json, nothing="")


def show_job(job: JobRecord, events: Sequence[JobEventRecord], *, as_json: bool) -> None:
    """Show a job and what happened to it, who did it and when."""
    if as_json:
        print_json(asdict(job) | {"events": [asdict(item) for item in events]})
        return
    failure = f" ({job.failure_code}: {job.failure_message})" if job.failure_code else ""
    out.print(f"{job.job_id} of {job.conversation_id}: {job.state}{failure}", soft_wrap=True)
    audio = f"{_audio(job)} of audio, " if job.audio_s else ""
    out.print(f"  {audio}{_attempts(job)}, made {age(job.created_at)} ago", highlight=False)
    for item in events:
        when = datetime.fromtimestamp(item.at).astimezone().isoformat(" ", "seconds")
        lease = f", lease {item.lease_id[:LEASE_ID_SHOWN_CHARS]}" if item.lease_id else ""
        why = ": ".join(words for words in (item.detail, item.message) if words)
        line = f"  {when}  {item.event} by {item.by}{lease}" + (f": {why}" if why else "")
        out.print(line, highlight=False, soft_wrap=True)


def _retry(ledger: Ledger, name: str) -> ActionResult:
    from vps_bridge.dispatch.operator_answers import work_labels_out_again

    if ledger.conversations.get(name) is None:
        return ledger.operator_actions.retry(name)
    return work_labels_out_again(ledger, name)


def _describe_set_aside(name: str, reason: str) -> dict[str, Any]:
    from vps_bridge.dispatch.operator_answers import advise_set_aside

    advice = advise_set_aside(name)
    return {"job_id": None, "conversation_id": name, "failure_message": reason, "has_audio": False, "advice": advice}


def _describe_failed(item: FailedJob) -> dict[str, Any]:
    from vps_bridge.dispatch.operator_answers import advise

    own = {"agent_id": item.last_agent_id, "has_audio": item.has_audio, "advice": advise(item)}
    return asdict(item.job) | own


def describe_refused(item: RefusedChunk) -> dict[str, Any]:
    """Return a refused chunk in the form of a failed job: without a job, and without audio to try again."""
    from schemas.conversation import Verdict
    from vps_bridge.dispatch.operator_answers import advise_refused

    failure = {"failure_code": item.reason, "failure_message": item.message, "advice": advise_refused(item)}
    return {"job_id": None, "state": Verdict.REFUSED, "has_audio": False, **asdict(item), **failure}


def print_refused(refused: Sequence[RefusedChunk]) -> None:
    """Print chunks that were refused: how often and when, why, and what to do."""
    from vps_bridge.dispatch.operator_answers import advise_refused

    for item in refused:
        name = (
            f"chunk {item.chunk_id}" if item.chunk_id else f"audio of sha256 {item.sha256[:SHA256_SHOWN_CHARS] or '?'}"
        )
        times = f"refused {item.times} times, the last" if item.times > 1 else "refused"
        head = f"{name} of {item.conversation_id}: {item.bytes:,} bytes, {times} {age(item.last_at)} ago"
        for line in (head, f"  why:  {item.reason}: {item.message}", f"  then: {advise_refused(item)}"):
            out.print(line, highlight=False, soft_wrap=True)


def _print_outcomes(
    done: Mapping[str, ActionResult], refused: Iterable[ActionResult], *, as_json: bool, nothing: str
) -> None:
    """Say what became of each job; exit code 1 where one could not be helped."""
    from vps_bridge.dispatch.operator_answers import SAID

    bad = tuple(refused)
    if as_json:
        print_json(
            [{"job_id": job_id, "outcome": outcome, "done": outcome not in bad} for job_id, outcome in done.items()]
        )
    for job_id, outcome in done.items() if not as_json else ():
        console = err if outcome in bad else out
        console.print(f"{job_id} {SAID[outcome]}", highlight=False, soft_wrap=True)
    if not done and not as_json:
        out.print(nothing)
    if any(outcome in bad for outcome in done.values()):
        raise typer.Exit(EXIT_FAILED)


def bounded(limit: int | None, *, as_json: bool) -> int | None:
    """Return how many to list; None: all."""
    if limit is None:
        return None if as_json else SHOWN_JOBS
    return limit or None


def _sum_up(counts: Mapping[JobState, int], refused: int) -> str:
    listed = ", ".join(f"{counts[state]:,} {state}" for state in JobState if state in counts)
    jobs = f"{sum(counts.values()):,} jobs: {listed}" if listed else "no jobs"
    return f"{jobs}; {refused:,} chunks refused: omi-bridge failed" if refused else jobs


def print_rest(shown: int, total: int) -> None:
    """Say how many more there are."""
    if total > shown:
        out.print(f"{total - shown:,} earlier ones are not shown: --limit 0 shows all", highlight=False)


def _job_row(job: JobRecord) -> tuple[str, ...]:
    failure = f"{job.failure_code}: {job.failure_message}" if job.failure_code else ""
    head = (job.job_id, job.conversation_id, job.state, _audio(job), str(job.attempts))
    return (*head, job.agent_id or "", age(job.created_at), failure)


def _attempts(job: JobRecord) -> str:
    return "1 attempt" if job.attempts == 1 else f"{job.attempts} attempts"


def _audio(job: JobRecord) -> str:
    """Say how much audio a job has; where its bytes do not tell, that it is estimated until an agent decodes it."""
    if not job.audio_s:
        return "?"
    return f"about {seconds(job.audio_s)} (estimated)" if job.audio_estimated else seconds(job.audio_s)
