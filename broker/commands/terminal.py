"""Options and terminal output that the commands of `omi-broker` share."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from broker.errors import BrokerError
from broker.terminal import SafeConsole

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from broker.settings import BrokerSettings, LoadedSettings

out = SafeConsole(highlight=False, soft_wrap=True)
err = SafeConsole(stderr=True, highlight=False, soft_wrap=True)

NEW_USERS = (
    "users.json was gone: every password is another, and every program has to join again, with these invitations. An "
    "agent that is not among them: omi-broker add-agent"
)
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


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error that the user can do something about into one line and an exit code."""
    try:
        yield
    except BrokerError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}. Run this as root, or as the user the files belong to.")
    except ModuleNotFoundError as error:
        fail(f"{error.name} is missing, which certificates and passwords need: pip install 'omi-diarization[bridge]'")


def roles_of(ids: Collection[str] | None, kind: str = "agent") -> tuple[str, ...]:
    """Return the roles of agents, or of further bridges."""
    return tuple(f"{kind}:{each}" for each in ids or ())


def print_invitation(role: str, path: str) -> None:
    """Say where an invitation lies, and what to do with it."""
    kind, _, agent_id = role.partition(":")
    program = "omi-agent" if kind == "agent" else "omi-bridge"
    out.print(f"\ninvitation of {agent_id or kind}, a secret: {path}", markup=False)
    if kind == "agent":
        out.print(f"  copy it to that machine (scp keeps it private), there: {program} join FILE", markup=False)
        out.print(f"  then allow it, on the bridge's machine: omi-bridge agents allow {agent_id}", markup=False)
    else:
        out.print(f"  as the user that it runs as: {program} join - < {path}", markup=False)
