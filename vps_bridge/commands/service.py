"""The commands of `omi-bridge` about running as a service of systemd: install, uninstall, status."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.terminal import print_json
from vps_bridge.commands.terminal import EXIT_FAILED, AsJson, ConfigFile, DataDir, err, explained, fail, out
from vps_bridge.ledger.erasure_log import LOG_NAME

if TYPE_CHECKING:
    from broker.systemd_unit import SystemdService

NAME = "omi-bridge"
OPENED = Path("bridge") / LOG_NAME
"""Below the data directory, once a bridge has opened its ledger, in a file or on a server."""
START_S, POLL_S = 30.0, 0.1


def install(
    user: Annotated[str | None, typer.Option(help="Who it runs as; default: who called sudo.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the unit; change nothing.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Have systemd run the bridge, from now on and with every start of the machine.

    Without --config it is the config file of that user, where `omi-bridge join` run as that user writes it. It ends
    once the bridge has opened its files, so that other commands find them.

    Example: sudo /opt/omi-diarization/.venv/bin/omi-bridge install --user omi --data-dir /var/lib/omi-diarization
    """
    from broker.systemd_unit import SYSTEMCTL, render_unit
    from broker.systemd_unit import install as install_unit

    with explained():
        service = _describe(user, config, data_dir)
        if dry_run:
            err.print(f"would write {service.unit_file}, then: {SYSTEMCTL} enable, {SYSTEMCTL} restart {NAME}")
            typer.echo(render_unit(service), nl=False)
        else:
            install_unit(service)
            _wait_for(service.data_dir / OPENED)
            out.print(
                f"installed {service.unit_file}; it runs now: journalctl -fu {NAME}", highlight=False, soft_wrap=True
            )
        console = err if dry_run else out
        words = f"any other command of this bridge: {service.command} doctor"
        console.print(words, highlight=False, soft_wrap=True)


def _wait_for(opened: Path) -> None:
    """Wait until the bridge has opened its ledger, or end the program where it does not."""
    deadline_s = time.monotonic() + START_S
    while not opened.exists():
        if time.monotonic() > deadline_s:
            fail(f"it is installed, and does not come up: journalctl -u {NAME} says why", EXIT_FAILED)
        time.sleep(POLL_S)


def uninstall() -> None:
    """Stop the service and do not start it again; data, settings and logs stay where they are.

    Example: sudo /opt/omi-diarization/.venv/bin/omi-bridge uninstall
    """
    from broker.systemd_unit import uninstall as uninstall_unit

    with explained():
        removed = uninstall_unit(_named())
    out.print("stopped and removed" if removed else "it was not installed")


def status(as_json: AsJson = False) -> None:
    """Say whether systemd runs the bridge; exit code 1 where it does not.

    Example: omi-bridge status --json
    """
    from broker.systemd_unit import query

    with explained():
        found, unit_file = query(NAME), _named().unit_file
    if as_json:
        print_json({**asdict(found), "unit": str(unit_file), "installed": unit_file.exists()})
    elif not unit_file.exists():
        out.print(f"not installed. Run: sudo {NAME} install --user USER", highlight=False)
    else:
        words = f"{found.active} ({found.detail}), pid {found.pid or '-'}, started again {found.restarts} times"
        out.print(f"{words}; journalctl -u {NAME}", highlight=False, soft_wrap=True)
    if not found.runs:
        raise typer.Exit(EXIT_FAILED)


def _named() -> SystemdService:
    """Return the service by its name alone: for what needs no more."""
    from broker.systemd_unit import SystemdService

    nowhere = Path("/")
    return SystemdService(NAME, "", nowhere, "", nowhere, nowhere, nowhere)


def _describe(user: str | None, config: Path | None, data_dir: Path | None) -> SystemdService:
    from broker.service_files import choose_files
    from broker.systemd_unit import SystemdService, find_program, find_user
    from vps_bridge.ledger.ledger import FILE_NAME
    from vps_bridge.settings import BridgeSettings

    account = find_user(user)
    home = Path(account.pw_dir)
    markers = (OPENED, Path("bridge") / FILE_NAME)  # earlier versions had no log of erasures
    config_file, data = choose_files(BridgeSettings, home, config, data_dir, markers=markers)
    return SystemdService(
        name=NAME,
        description="omi-diarization bridge: ingest, ledger, leases and results",
        program=find_program(NAME),
        user=account.pw_name,
        home=home,
        config_file=config_file,
        data_dir=data,
        memory_max="1G",
    )
