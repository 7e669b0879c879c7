"""Options and terminal output that the commands of `omi-broker` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from broker.errors import BrokerError
from broker.terminal import SafeConsole

if TYPE_CHECKING:
    from broker.settings import BrokerSettings, LoadedSettings

out = SafeConsole(highlight=False, soft_wrap=True)
err = SafeConsole(stderr=True, highlight=False, soft_wrap=True)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the generated users are kept (OMI_DATA_DIR).")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with settings (default: OMI_CONFIG).", dir_okay=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
TopicRoot = Annotated[str | None, typer.Option(help="First levels of every topic.")]


def load(config_file: Path | None, **flags: object) -> BrokerSettings:
    """Load the settings; an invalid one ends the program with a line that names it."""
    return _load(config_file, **flags).settings


def chosen_topic_root(config_file: Path | None, topic_root: str | None) -> str | None:
    """Return the topic root of the flag or of a setting; None where nobody chose one."""
    loaded = _load(config_file, topic_root=topic_root)
    return None if loaded.sources["topic_root"] == "default" else loaded.settings.topic_root


def _load(config_file: Path | None, **flags: object) -> LoadedSettings[BrokerSettings]:
    from broker.settings import BrokerSettings, load_settings

    try:
        loaded = load_settings(BrokerSettings, flags=flags, config_file=config_file)
    except BrokerError as error:
        fail(str(error))
    for warning in loaded.warnings:
        err.print(f"omi-broker: {warning}", style="yellow", markup=False)
    return loaded


def fail(message: str) -> NoReturn:
    """Print on stderr what is wrong and end the program with exit code 1."""
    err.print("[red]omi-broker:[/red]", end=" ")
    err.print(message, markup=False)
    raise typer.Exit(1)
