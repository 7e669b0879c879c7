"""The option `--version` of the three programs."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Annotated

import typer


def _show_version(is_asked: bool) -> None:  # noqa: FBT001 - as typer calls it
    if is_asked:
        typer.echo(f"omi-diarization {version('omi-diarization')}, Python {platform.python_version()}")
        raise typer.Exit(0)


VersionOption = Annotated[
    bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
]
