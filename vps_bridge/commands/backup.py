"""`omi-bridge backup` and `restore`: all that a bridge cannot get again, in one file, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.terminal import print_json
from vps_bridge.commands.terminal import (
    EXIT_FAILED,
    AsJson,
    ConfigFile,
    DataDir,
    ask_first,
    check_outside,
    err,
    explained,
    fail,
    load,
    out,
)

BACK_UP_SERVER = (
    "`pg_dump --format=custom --schema=omi_ledger --file=ledger.dump DATABASE`, then copy the data directory (audio "
    "that is kept, erasures.log), in this order; docs/ledger-on-postgresql.md has it whole"
)
RESTORE_SERVER = (
    "stop the bridge, `pg_restore --clean --if-exists --dbname=DATABASE ledger.dump`, put the data directory back, and "
    "start it; docs/ledger-on-postgresql.md has it whole"
)

if TYPE_CHECKING:
    from rich.progress import TaskID

    from vps_bridge.backup.make import Report
    from vps_bridge.backup.restore import Restored


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write, of mode 600; one that is there is replaced.")],
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write a backup, with the bridge running or stopped: ledger, labels, history, people, audio of work in flight.

    What is accepted after it began is not in it: audio of the time between the backup and a restore is gone, unless the
    backend still has it and publishes it again. Audio that is only kept for listening is not in it either. The file
    holds transcripts, voices and audio in the clear: keep it where nobody else reads.

    Example: omi-bridge backup /var/backups/omi-$(date +%F).tar

    Exit codes: 0 written and checked; 1 failed.
    """
    from vps_bridge.backup.make import make_backup
    from vps_bridge.conversations.sqlite import STORE_FILE
    from vps_bridge.gone_database import refuse_gone

    with explained():
        settings = load(config, "bridge", data_dir=data_dir)
        if settings.database_url is not None:
            fail(f"a server keeps the ledger: {BACK_UP_SERVER}", EXIT_FAILED)
        if settings.conversations_url is None:
            refuse_gone(settings.root / STORE_FILE)
        target = file.resolve()  # where the file is a link, what it leads to is replaced
        if not target.parent.is_dir():
            fail(f"{target.parent} is no directory: make it first", EXIT_FAILED)
        check_outside(file, settings.root)
        if file.exists() and not file.is_file():  # a device would be replaced by the backup, for everybody
            fail(f"{file} is no file that could be replaced: name another", EXIT_FAILED)
        with _progress() as report:
            made = make_backup(settings.root, target, report)
        facts = {"file": str(file), "bytes": made.total_bytes, "made_at": made.made_at, "ledger_id": made.ledger_id}
        if as_json:
            print_json({**facts, "conversations": made.conversations, "chunks": made.chunks})
            return
        out.print(
            f"{file}: {made.conversations:,} conversations and {made.chunks:,} chunks of audio, "
            f"{made.total_bytes / 2**20:,.1f} MiB, checked",
            highlight=False,
            soft_wrap=True,
        )


def restore(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file that `omi-bridge backup` wrote.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files that are there; they are kept beside them.")
    ] = False,
    erasures: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The erasures.log to use, where the data directory is lost."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup back. Refused while a bridge runs, and where files would be replaced without --overwrite.

    What was erased after the backup (conversations, audio, people, agents) is erased again, before any bridge starts:
    erasures.log in the data directory says what, without a name. Where that is lost, name a copy of it with --erasures.

    Example: omi-bridge restore /var/backups/omi-2026-05-04.tar --overwrite

    Exit codes: 0 restored; 1 refused or failed; 3 a bridge runs.
    """
    from vps_bridge.backup.manifest import BackupUnusable
    from vps_bridge.backup.restore import RestoreRefused, restore_backup

    with explained():
        settings = load(config, "bridge", data_dir=data_dir)
        if settings.database_url is not None:
            fail(f"a server keeps the ledger: {RESTORE_SERVER}", EXIT_FAILED)
        if overwrite and not yes:
            ask_first(f"Replace what is in {settings.root} by {file}?", unasked="nothing was changed: ")
        try:
            with _progress() as report:
                done = restore_backup(file, settings.root, report, overwrite=overwrite, erasures=erasures)
        except (BackupUnusable, RestoreRefused) as error:
            fail(str(error), EXIT_FAILED)
        if as_json:
            previous = None if done.previous is None else str(done.previous)
            known = {
                "knows_erasures": done.knows_erasures,
                "damaged_erasures": done.damaged_erasures,
                "previous": previous,
            }
            print_json({"made_at": done.manifest.made_at, "erased_again": asdict(done.erased), **known})
            return
        _tell(done)


def _tell(done: Restored) -> None:
    made, erased = done.manifest, done.erased
    moment = datetime.fromtimestamp(made.made_at, UTC)
    out.print(f"restored {made.conversations:,} conversations as of {moment:%Y-%m-%d %H:%M} UTC", highlight=False)
    again = f"{erased.conversations} conversations, audio of {erased.audio}, {erased.people} people"
    if done.knows_erasures:
        out.print(f"erased again, as since then: {again}, {erased.agents} agents", highlight=False, soft_wrap=True)
    else:
        words = (
            "the erasures.log that goes with this backup was not found: what was erased since is there again. "
            "Restore with --erasures FILE, or erase it again by hand."
        )
        err.print(f"warning: {words}", highlight=False, soft_wrap=True)
    if done.damaged_erasures:
        words = (
            f"{done.damaged_erasures} lines of erasures.log cannot be read, or are gone: what they say was erased may "
            "be there again. Restore with --erasures and a whole copy of it, or erase it again by hand."
        )
        err.print(f"warning: {words}", highlight=False, soft_wrap=True)
    if done.previous is not None:
        words = f"what was there before is in {done.previous}: delete it once all is well"
        out.print(words, highlight=False, soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Report]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what)
            progress.update(tasks[what], completed=done, total=total)

        yield report
