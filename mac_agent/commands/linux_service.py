"""The agent as a service of systemd: install, uninstall and status on Linux."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from broker import systemd_commands
from broker.errors import BrokerError
from broker.service_files import choose_files
from broker.systemd_unit import SystemdService, find_program, find_user
from broker.systemd_unit import install as install_service
from mac_agent.commands.terminal import EXIT_FAILED, fail
from mac_agent.settings import AgentSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "omi-agent"


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BrokerError as error:
        fail(str(error), EXIT_FAILED)


def install_unit(user: str | None, config: Path | None, data_dir: Path | None, *, dry_run: bool) -> None:
    """Write the unit and start it, or only show it."""
    with _explained():
        service = _describe(user, config, data_dir)
        if dry_run:
            systemd_commands.show_plan(service)
        else:
            install_service(service)
            systemd_commands.show_installed(service)


def uninstall_unit() -> None:
    """Stop it and remove the unit."""
    with _explained():
        systemd_commands.remove(NAME)


def show_unit(*, as_json: bool) -> None:
    """Print its state; ends the program with exit code 1 where it does not run."""
    with _explained():
        systemd_commands.show_state(NAME, as_json=as_json)


def _describe(user: str | None, config: Path | None, data_dir: Path | None) -> SystemdService:
    account = find_user(user)
    home = Path(account.pw_dir)
    config_file, data = choose_files(AgentSettings, home, config, data_dir, markers=[Path("outbox.sqlite")])
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
