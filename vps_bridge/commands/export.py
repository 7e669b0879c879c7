"""`omi-bridge export`: a conversation as a file for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from broker.private_files import replace_file
from broker.terminal import make_visible
from vps_bridge.commands.terminal import (
    EXIT_FAILED,
    ConfigFile,
    DataDir,
    NamedConversation,
    check_outside,
    explained,
    fail,
    known,
    opened,
)
from vps_bridge.exports.export_format import ExportFormat

HELP_EXPORT = """Write who spoke when, and what, as RTTM, SRT, WebVTT or JSON: to stdout, or to a file.

RTTM holds the turns, for tools that measure diarization. SRT and WebVTT hold the transcript with who speaks, for
players. JSON holds everything. People have the names that their owner gave them; without one, their ids.

Examples:

  omi-bridge export call-1 --format vtt --output call-1.vtt

  omi-bridge export call-1 --format rttm | less

Exit codes: 0 done; 1 no such conversation, or the file is there already; 2 wrong arguments.
"""


def export(
    conversation: NamedConversation,
    form: Annotated[ExportFormat, typer.Option("--format", help="What to write.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write this file; stdout without it.", dir_okay=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Write a conversation."""
    from vps_bridge.exports.formats import render_export
    from vps_bridge.exports.gather import gather_export

    with explained(), opened(config, data_dir) as (ledger, store, _):
        known(ledger, conversation)
        found = gather_export(conversation, ledger, store)
        if found is None:
            fail(f"conversation {conversation} was deleted just now", EXIT_FAILED)
        text = render_export(found, form)
        if output is None:
            # The words come from outside: a terminal must not obey them, a file or a pipe gets them unchanged.
            sys.stdout.write(make_visible(text) if sys.stdout.isatty() else text)
        else:
            check_outside(output, ledger.root)
            _write(output, text, force=force)


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write the file for its owner alone. A file that is there is replaced as a whole, or not at all."""
    if path.exists() and not path.is_file():
        fail(f"{path} is no file that could be replaced: give another --output", EXIT_FAILED)
    if force:
        replace_file(path, text)
        return
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        fail(f"{path} is there already: say --force to replace it, or give another --output", EXIT_FAILED)
