"""The commands of `omi-bridge` about running as a service of systemd: install, uninstall, status."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vps_bridge.commands.terminal import EXIT_FAILED, AsJson, ConfigFile, DataDir, explained, fail
from vps_bridge.opened import OPENED

if TYPE_CHECKING:
    from broker.systemd_unit import SystemdService

NAME = "omi-bridge"
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
    from broker import systemd_commands
    from broker.systemd_unit import install as install_unit

    with explained():
        service = _describe(user, config, data_dir)
        if dry_run:
            systemd_commands.show_plan(service)
        else:
            install_unit(service)
            _wait_for(service.data_dir / OPENED)
            systemd_commands.show_installed(service)


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
    from broker import systemd_commands

    with explained():
        systemd_commands.remove(NAME)


def status(as_json: AsJson = False) -> None:
    """Say whether systemd runs the bridge; exit code 1 where it does not.

    Example: omi-bridge status --json
    """
    from broker import systemd_commands

    with explained():
        systemd_commands.show_state(NAME, as_json=as_json)


def _describe(user: str | None, config: Path | None, data_dir: Path | None) -> SystemdService:
    from broker.service_files import choose_files
    from broker.systemd_unit import SystemdService, find_program, find_user
    from vps_bridge.ledger.ledger import FILE_NAME
    from vps_bridge.settings import BridgeSettings

    account = find_user(user)
    home = Path(account.pw_dir)
    markers = (OPENED, Path("bridge") / FILE_NAME)  # earlier versions left no mark
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
