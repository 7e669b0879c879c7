"""What the commands `install`, `uninstall` and `status` of both programs show and do where systemd runs them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from broker.systemd_unit import SYSTEMCTL, find_unit_file, query, render_unit, uninstall
from broker.terminal import SafeConsole, print_json

if TYPE_CHECKING:
    from broker.systemd_unit import SystemdService

EXIT_FAILED = 1

_out = SafeConsole(markup=False, highlight=False, soft_wrap=True)
_err = SafeConsole(stderr=True, markup=False, highlight=False, soft_wrap=True)


def show_plan(service: SystemdService) -> None:
    """Show the unit and what would be run, and change nothing."""
    _err.print(f"would write {service.unit_file}, then: {SYSTEMCTL} enable, {SYSTEMCTL} restart {service.name}")
    typer.echo(render_unit(service), nl=False)
    _err.print(_about_commands(service))


def show_installed(service: SystemdService) -> None:
    """Say that it is installed and runs, and how its other commands are called."""
    _out.print(f"installed {service.unit_file}; it runs now: journalctl -fu {service.name}")
    _out.print(_about_commands(service))


def remove(name: str) -> None:
    """Stop a program's service and remove its unit. Raises `ServiceProblem` where that fails."""
    _out.print("stopped and removed" if uninstall(name) else "it was not installed")


def show_state(name: str, *, as_json: bool) -> None:
    """Print the state of a program's service; ends the process with exit code 1 where it does not run.

    Raises:
        ServiceProblem: `systemctl` cannot be run.
    """
    found, unit_file = query(name), find_unit_file(name)
    if as_json:
        print_json({**asdict(found), "unit": str(unit_file), "installed": unit_file.exists()})
    elif not unit_file.exists():
        _out.print(f"not installed. Run: sudo {name} install --user USER")
    else:
        words = f"{found.active} ({found.detail}), pid {found.pid or '-'}, started again {found.restarts} times"
        _out.print(f"{words}; journalctl -u {name}")
    if not found.runs:
        raise typer.Exit(EXIT_FAILED)


def _about_commands(service: SystemdService) -> str:
    return f"any other command of it: {service.command} doctor"
