"""The agent as a service of systemd: install, uninstall and status on Linux."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from broker.systemd_unit import (
    SYSTEMCTL,
    SystemdService,
    find_program,
    find_user,
    query,
    render_unit,
)
from broker.systemd_unit import install as install_service
from broker.systemd_unit import uninstall as uninstall_service
from broker.terminal import print_json
from mac_agent.commands.terminal import EXIT_FAILED, err, fail, out

if TYPE_CHECKING:
    from collections.abc import Iterator

from contextlib import contextmanager

NAME = "omi-agent"


@contextmanager
def _explained() -> Iterator[None]:
    from broker.errors import BrokerError

    try:
        yield
    except BrokerError as error:
        fail(str(error), EXIT_FAILED)


def install_unit(user: str | None, config: Path | None, data_dir: Path | None, *, dry_run: bool) -> None:
    """Write the unit and start it, or only show it."""
    with _explained():
        service = _describe(user, config, data_dir)
        if dry_run:
            err.print(f"would write {service.unit_file}, then: {SYSTEMCTL} enable, {SYSTEMCTL} restart {NAME}")
            typer.echo(render_unit(service), nl=False)
        else:
            install_service(service)
            out.print(f"installed {service.unit_file}; it starts now: journalctl -fu {NAME}", markup=False)
        console = err if dry_run else out
        console.print(f"any other command of this agent: {service.command} doctor", markup=False)


def uninstall_unit() -> None:
    """Stop it and remove the unit."""
    with _explained():
        removed = uninstall_service(_named())
    out.print("stopped and removed" if removed else "it was not installed")


def show_unit(*, as_json: bool) -> None:
    """Print its state; ends the program with exit code 1 where it does not run."""
    with _explained():
        found, unit_file = query(NAME), _named().unit_file
    if as_json:
        print_json({**asdict(found), "unit": str(unit_file), "installed": unit_file.exists()})
    elif not unit_file.exists():
        out.print(f"not installed. Run: sudo {NAME} install --user USER", markup=False)
    else:
        words = f"{found.active} ({found.detail}), pid {found.pid or '-'}, started again {found.restarts} times"
        out.print(f"{words}; journalctl -u {NAME}", markup=False)
    if not found.runs:
        raise typer.Exit(EXIT_FAILED)


def _named() -> SystemdService:
    """Return the service by its name alone: for what needs no more."""
    nowhere = Path("/")
    return SystemdService(NAME, "", nowhere, "", nowhere, nowhere, nowhere)


def _describe(user: str | None, config: Path | None, data_dir: Path | None) -> SystemdService:
    from broker.service_files import choose_files
    from mac_agent.settings import AgentSettings

    account = find_user(user)
    home = Path(account.pw_dir)
    config_file, data = choose_files(AgentSettings, home, config, data_dir, markers=(Path("outbox.sqlite"),))
    return SystemdService(
        name=NAME,
        description="omi-diarization agent: diarizes what the bridge leases to it",
        program=find_program(NAME),
        user=account.pw_name,
        home=home,
        config_file=config_file,
        data_dir=data,
        needs_devices=True,
    )
