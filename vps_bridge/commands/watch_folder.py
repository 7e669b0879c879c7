"""`omi-bridge watch-folder`: recordings dropped into a folder are published, and labelled beside themselves."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from filelock import FileLock, Timeout

from broker.stop_signals import StoppedBySignal
from broker.terminal import print_json
from vps_bridge.commands.terminal import (
    EXIT_FAILED,
    AsJson,
    BrokerUrl,
    ConfigFile,
    ConversationOwner,
    DataDir,
    explained,
    fail,
    load,
    out,
    print_warnings,
)

if TYPE_CHECKING:
    from vps_bridge.client.watched_folder import FolderNews, WatchedFolder

HELP_WATCH_FOLDER = """Publish the recordings that are dropped into a folder, and write beside each who spoke when.

A recording (WAV, FLAC, Ogg, MP3, M4A, AAC, WebM, AIFF, CAF) is taken once it has stopped growing. Its transcript may be
beside it, dropped before it: of call.wav call.json, call.srt, call.vtt, call.tsv or call.stm, in any layout that
`omi-bridge import` knows. Links, folders and files without a byte are no recordings. Then there are call.wav.rttm,
call.wav.json and call.wav.srt; while this runs (not with --once) they follow what is corrected later. What is refused
has call.wav.error.txt, which says why: delete it to have the recording tried again.

No file is replaced that this command has not written. What was done is known by content, in .omi-diarization in the
folder: it is done once, also after a restart, and half done it goes on.

Examples:

  omi-bridge watch-folder /srv/recordings

  omi-bridge watch-folder /srv/recordings --once --json

Runs until SIGTERM, SIGHUP or Ctrl-C. Exit codes: 0 ended, with --once all is done; 1 with --once something was refused
or failed, or not done in time; 2 wrong arguments.
"""
LOOK_S, LOOK_ONCE_S = 1.0, 0.2


def watch_folder(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The folder; none below it.")],
    once: Annotated[bool, typer.Option("--once", help="Do what is there, and end.")] = False,
    settle_s: Annotated[float, typer.Option(min=0, help="A file that has not changed for so long is complete.")] = 3.0,
    timeout_s: Annotated[float, typer.Option(min=0, help="With --once: how long to wait for labels.")] = 3600.0,
    owner: ConversationOwner = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    broker_url: BrokerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Publish what is dropped into a folder."""
    from vps_bridge.client.update_listener import UpdateListener
    from vps_bridge.client.watched_folder import WatchedFolder

    outcomes: set[str] = set()

    def report(news: FolderNews) -> None:
        outcomes.add(news.outcome)
        _print_news(news, as_json=as_json)

    with explained(), _ended_by_signal():
        settings = load(config, "backend", data_dir=data_dir, broker_url=broker_url)
        with _alone_in(folder), UpdateListener(settings) as listener:
            watched = WatchedFolder(settings, folder, listener, report, settle_s=settle_s, owner=owner)
            if once:
                _do_once(watched, timeout_s)
            else:
                _watch(watched, folder)
    if outcomes & {"refused", "failed"}:
        raise typer.Exit(EXIT_FAILED)


def _watch(watched: WatchedFolder, folder: Path) -> NoReturn:
    """Look once a second: labels come without a change of the folder, too."""
    while folder.is_dir():
        watched.look()
        time.sleep(LOOK_S)
    fail(f"{folder} is not watched any more: is it still there?", EXIT_FAILED)


def _do_once(watched: WatchedFolder, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not watched.look():
        if time.monotonic() > deadline_s:
            fail(f"not done in time, {watched.awaited} await labels: see `omi-bridge agents`", EXIT_FAILED)
        time.sleep(LOOK_ONCE_S)


def _print_news(news: FolderNews, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(news), indent=None)
        sys.stdout.flush()
        return
    files = f" ({', '.join(news.files)})" if news.files else ""
    out.print(f"{news.file}: {news.outcome}: {news.message}{files}", highlight=False, soft_wrap=True)
    print_warnings(news.warnings)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep a second one out of the folder."""
    from vps_bridge.client.folder_records import FolderRecords

    lock = FileLock(FolderRecords(folder).lock_file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        fail(f"another `omi-bridge watch-folder` watches {folder}: end that one first", EXIT_FAILED)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """End at a signal, wherever it is: what was half done goes on at the next start."""
    try:
        yield
    except (KeyboardInterrupt, StoppedBySignal):
        raise typer.Exit(0) from None
