"""What the commands of `omi-bridge` share: options, exit codes, output, and opening the bridge's files."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.table import Column, Table

from broker.errors import BrokerError, SettingsError
from broker.program import explain_file_error
from broker.terminal import SafeConsole
from schemas.limits import MAX_NAME_CHARS
from schemas.text import compose_name, is_blank

if TYPE_CHECKING:
    from vps_bridge.conversations.sqlite import SqliteConversations
    from vps_bridge.conversations.store import ConversationStore
    from vps_bridge.ledger import Ledger
    from vps_bridge.ledger.records import ConversationRecord
    from vps_bridge.settings import BridgeSettings

EXIT_FAILED, EXIT_USAGE, EXIT_OTHER_BRIDGE = 1, 2, 3

# What people said or named is printed as it is: a transcript's [laughter] is no markup.
out, err = SafeConsole(markup=False), SafeConsole(stderr=True, markup=False)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings; see `omi-bridge config`.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the bridge keeps everything.")]
BrokerUrl = Annotated[str | None, typer.Option("--broker-url", help="mqtt://host:port or mqtts://host:port.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")]


@contextmanager
def explained() -> Iterator[None]:
    """Turn errors that the user can do something about into one line and an exit code."""
    try:
        yield
    except SettingsError as error:
        fail(str(error), EXIT_USAGE)
    except BrokerError as error:
        fail(str(error), EXIT_FAILED)
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise  # it is said already, or whoever reads our output wants no more of it
    except Exception as error:
        _explain_files(error)  # what it knows takes half a second to import: only a failed command waits for it
        raise


def _explain_files(error: Exception) -> None:
    """End the program where the error is one that the user can do something about."""
    from schemas.errors import SchemaError
    from vps_bridge.bucket.objects import BucketUnavailable
    from vps_bridge.client.errors import ClientError
    from vps_bridge.conversations.store import StoreError
    from vps_bridge.conversations.transcripts import TranscriptError
    from vps_bridge.database import DAMAGE_ERRORS, PROGRAM_FAULTS, DatabaseError, reason_of
    from vps_bridge.errors import AnotherBridge, LedgerUnavailable, StoreUnavailable
    from vps_bridge.ledger import LedgerBusy, LedgerMissing
    from vps_bridge.locked_file import LOCKED, find_holder, is_locked
    from vps_bridge.packed_rows import PackedRowsDamaged

    if is_locked(error) and not isinstance(error, DatabaseError):
        fail(f"a database of the bridge cannot be used now: {LOCKED}. {find_holder()}", EXIT_FAILED)
    if isinstance(error, (AnotherBridge, LedgerBusy)):
        fail(str(error), EXIT_OTHER_BRIDGE)
    plain = (ClientError, LedgerMissing, StoreError, DatabaseError, PackedRowsDamaged, TranscriptError, SchemaError)
    if isinstance(error, plain):  # their words say what to do
        fail(str(error), EXIT_FAILED)
    if isinstance(error, BucketUnavailable):
        fail(f"the bucket: {error}", EXIT_FAILED)
    if isinstance(error, LedgerUnavailable):
        fail(f"the ledger: {error}", EXIT_FAILED)
    if isinstance(error, PROGRAM_FAULTS):
        return
    if isinstance(error, DAMAGE_ERRORS):  # ahead of whoever knows which file it is
        words = f"a file of the bridge cannot be read or written ({reason_of(error)}). omi-bridge doctor says which"
        fail(f"{words}, and what mends it", EXIT_FAILED)
    if isinstance(error, StoreUnavailable):
        fail(f"the conversation store: {error}", EXIT_FAILED)
    if isinstance(error, OSError):
        if isinstance(error, PermissionError) and error.filename:
            whose = "run this as the user whose it is (sudo -u USER), as the service does"
            fail(f"{error.filename}: {error.strerror}: {whose}", EXIT_FAILED)
        fail(explain_file_error(error), EXIT_FAILED)


def fail(message: str, code: int) -> NoReturn:
    """Print on stderr what is wrong and end the program with an exit code."""
    err.print(f"omi-bridge: {message}", style="red", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def print_warnings(warnings: Iterable[str]) -> None:
    """Print what is odd about a conversation's audio or times, a line each."""
    for warning in warnings:
        out.print(f"warning: {warning}", highlight=False, soft_wrap=True)


def load(config: Path | None, role: str, **flags: Any) -> BridgeSettings:  # noqa: ANN401 - fields of the settings
    """Load the settings, and set up logging by them."""
    from broker.logs import configure_logs
    from broker.settings import load_settings
    from vps_bridge.settings import BridgeSettings

    loaded = load_settings(BridgeSettings, flags=flags, config_file=config, role=role)
    configure_logs(as_json=loaded.settings.log_json)
    for warning in loaded.warnings:
        err.print(f"omi-bridge: {warning}", style="yellow", highlight=False, soft_wrap=True)
    return loaded.settings


def make_table(*columns: str | Column, title: str | None = None) -> Table:
    """Return a table that can be read at 80 columns: no frame, and no cell is cut, long ones go on in the next line."""
    made = [Column(column) if isinstance(column, str) else column for column in columns]
    for column in made:
        column.overflow = "fold"
    return Table(*made, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")


def check_id(whose: str, value: str) -> None:
    """End the program where an id of a conversation, an agent or a person is not valid."""
    from schemas.record import is_id

    if not is_id(value):
        fail(f"{whose} id {value!r}: use 1 to 128 of A-Z a-z 0-9 _ - (no dot)", EXIT_USAGE)


def checked_id(conversation_id: str) -> str:
    """Return a conversation's id, or end the program where it is not valid."""
    check_id("conversation", conversation_id)
    return conversation_id


def check_regular(file: Path) -> None:
    """End the program where the end of a file may never come, as with a pipe or a device."""
    if not file.is_file():
        fail(f"{file} is no regular file: write the audio into one first, and give that", EXIT_FAILED)


def check_outside(file: Path, root: Path) -> None:
    """End the program where a file that is to be written lies among the bridge's own: it might be its database."""
    if root.resolve() in file.resolve().parents:
        fail(f"{file} would lie among the bridge's own files: name one outside of {root}", EXIT_FAILED)


def checked_names(names: str | list[str] | None) -> str | list[str] | None:
    """Return ids or names of people's making, or end the program where one is too long or of no character."""
    for name in [names] if isinstance(names, str) else names or []:
        if not 1 <= len(name) <= MAX_NAME_CHARS:
            msg = f"say 1 to {MAX_NAME_CHARS} characters, not {len(name)}"
            raise typer.BadParameter(msg)
    return names


def composed_names(names: str | None) -> str | None:
    """Return what people call somebody as it is compared (see `compose_name`); ends the program as `checked_names`."""
    composed: str | None = compose_name(names)
    checked_names(composed)
    if composed is not None and is_blank(composed):
        msg = "it has no character that can be seen"
        raise typer.BadParameter(msg)
    return composed


def ask_first(question: str, *, unasked: str) -> None:
    """Ask whether to go on and end the program where not; `unasked` says what stands still where nobody can answer."""
    if not sys.stdin.isatty():
        fail(f"{unasked}nobody is here to confirm: say --yes", EXIT_FAILED)
    typer.confirm(question, abort=True, err=True)


Conversation = Annotated[str, typer.Option("--conversation", "-c", help="The conversation's id.", callback=checked_id)]
ConversationOwner = Annotated[
    str | None,
    typer.Option(
        "--owner",
        help="Whose conversation it is: people whom this owner knows are recognised in it.",
        callback=composed_names,
    ),
]
NamedConversation = Annotated[str, typer.Argument(help="The conversation's id.", callback=checked_id)]


def known(ledger: Ledger, conversation: str) -> ConversationRecord:
    """Return a conversation, or end the program where there is none of that id."""
    record = ledger.conversations.get(conversation)
    if record is None:
        gone = "is deleted" if ledger.conversations.is_deleted(conversation) else "was never heard of"
        fail(f"conversation {conversation} {gone}: `omi-bridge conversations` lists those there are", EXIT_FAILED)
    return record


def age(moment: float | None) -> str:
    """Say how long ago a Unix time was, roughly: `5 min`."""
    if moment is None:
        return ""
    seconds = max(0, round(time.time() - moment))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@contextmanager
def opened(config: Path | None, data_dir: Path | None) -> Iterator[tuple[Ledger, ConversationStore, float]]:
    """Open ledger and store, beside a running bridge or without one; the third value is the setting `stale_s`."""
    from vps_bridge.conversations.open_store import open_store
    from vps_bridge.intake.disk_reserve import DiskReserve
    from vps_bridge.ledger import open_ledger

    settings = load(config, "bridge", data_dir=data_dir)
    DiskReserve(settings.root, settings.ballast_bytes).release_if_full()  # a stopped bridge cannot do it
    ledger = open_ledger(settings, exclusive=False)
    try:
        store = open_store(settings)
        try:
            with named_damage(ledger, store):
                yield ledger, store, settings.stale_s
        finally:
            store.close()
    finally:
        ledger.close()


@contextmanager
def named_damage(ledger: Ledger, store: ConversationStore) -> Iterator[None]:
    """Raise `DatabaseUnreadable`, which names the file, in the place of any error that a damaged file explains."""
    from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
    from vps_bridge.database import DAMAGE_ERRORS, DatabaseUnreadable
    from vps_bridge.ledger.ledger import FILE_NAME

    try:
        yield
    except (*DAMAGE_ERRORS, LookupError, ValueError, TypeError, ArithmeticError) as error:
        files: dict[str, Ledger | SqliteConversations] = {FILE_NAME: ledger}
        if isinstance(store, SqliteConversations):
            files[STORE_FILE] = store
        for name, file in files.items():
            if found := file.find_damage():
                lines = [line for line in found[0].splitlines() if not line.startswith("***")]  # a heading of SQLite's
                raise DatabaseUnreadable(ledger.root / name, lines[0]) from error
        raise
