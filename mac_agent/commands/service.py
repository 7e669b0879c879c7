"""The commands of `omi-agent` about running as a service of macOS: install, uninstall, status, logs."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.terminal import print_json
from mac_agent.commands.terminal import EXIT_FAILED, EXIT_USAGE, AsJson, ConfigFile, DataDir, err, fail, out

if TYPE_CHECKING:
    from mac_agent.service import Service

Daemon = Annotated[
    bool, typer.Option("--daemon", help="As a LaunchDaemon: from boot on, without anybody logged in. Needs sudo.")
]

ON_LINUX = "there is no launchd on Linux, where it is systemd that runs the agent: leave --daemon out"
ON_MACOS = "launchd runs it as the user who installs it: leave --user out (with --daemon, whoever calls sudo)"
NAME = "omi-agent"
ABOUT_DAEMONS = """\
A LaunchDaemon runs without a login. Know that:
- FileVault: after a restart the disk stays locked until somebody types a password at the screen. Until then nothing
  runs, this included (`sudo fdesetup authrestart` restarts once without that).
- The login keychain stays locked until its owner logs in: what the agent needs must be in files with mode 600 (the
  config; a token only while `fetch-model` runs).
- The GPU is not promised outside a login session. `omi-agent doctor --deep` shows the device that is used."""


def install(
    *,
    daemon: Daemon = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the property list; change nothing.")] = False,
    user: Annotated[
        str | None, typer.Option(help="On Linux: who it runs as; default: who called sudo.", show_default=False)
    ] = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Start the agent at login, and again whenever it ends (at most every 30 s); on Linux with the machine, by systemd.

    What is written names the config file and holds no secret. On a Mac the agent writes its own log and rotates it.

    Example: [bold]omi-agent install --dry-run[/bold]

    Example: [bold]sudo .venv/bin/omi-agent install --daemon --config ~/omi-agent.toml[/bold]

    Example, on Linux: [bold]sudo omi-agent install --user omi[/bold]
    """
    if sys.platform == "linux" and not daemon:
        from mac_agent.commands.linux_service import install_unit

        install_unit(user, config, data_dir, dry_run=dry_run)
        return
    if user is not None:
        fail(ON_MACOS, EXIT_USAGE)
    _install_with_launchd(_service(config, is_daemon=daemon, data_dir=data_dir), dry_run=dry_run)


def _install_with_launchd(service: Service, *, dry_run: bool) -> None:
    from mac_agent.service import LAUNCHCTL, ServiceError, render_plist
    from mac_agent.service import install as install_service

    if service.is_daemon:
        err.print(ABOUT_DAEMONS, markup=False)
    if dry_run:
        err.print(f"would write {service.plist_file}", markup=False)
        err.print(f"would run {LAUNCHCTL} bootstrap {service.domain} {service.plist_file}", markup=False)
        typer.echo(render_plist(service), nl=False)
        return
    _require_macos()
    unseen = sorted(name for name in os.environ if name.startswith("OMI_") and name != "OMI_CONFIG")
    if unseen:
        err.print(f"not seen by the service, write them into {service.config_file}: {', '.join(unseen)}", markup=False)
    try:
        install_service(service)
    except ServiceError as error:
        fail(str(error), EXIT_FAILED)
    out.print(f"installed {service.plist_file}; it starts now. Next: omi-agent status, omi-agent logs", markup=False)


def uninstall(*, daemon: Daemon = False) -> None:
    """Stop the agent and do not start it again; weights, results and logs stay where they are.

    Example: [bold]omi-agent uninstall[/bold]
    """
    from mac_agent.service import ServiceError
    from mac_agent.service import uninstall as uninstall_service

    if sys.platform == "linux" and not daemon:
        from mac_agent.commands.linux_service import uninstall_unit

        uninstall_unit()
        return
    _require_macos()
    service = _service(None, is_daemon=daemon)
    try:
        removed = uninstall_service(service)
    except ServiceError as error:
        fail(str(error), EXIT_FAILED)
    out.print("stopped and removed" if removed else "it was not installed")


def status(*, daemon: Daemon = False, as_json: AsJson = False) -> None:
    """Say whether launchd, or systemd on Linux, runs the agent; exit code 1 where it does not.

    Example: [bold]omi-agent status --json[/bold]
    """
    from mac_agent.service import ServiceError, query

    if sys.platform == "linux" and not daemon:
        from mac_agent.commands.linux_service import show_unit

        show_unit(as_json=as_json)
        return
    _require_macos()
    service = _service(None, is_daemon=daemon)
    try:
        found = query(service)
    except ServiceError as error:
        fail(str(error), EXIT_FAILED)
    if as_json:
        print_json({**asdict(found), "plist": str(service.plist_file), "log": str(service.log_file)})
    elif not found.is_loaded:
        out.print("not loaded. Run: omi-agent install")
    else:
        out.print(
            f"{found.state or 'state unknown'}, pid {found.pid or '-'}, started {found.starts or '?'} times, last exit "
            f"{found.last_exit or 'none'}; log in {service.log_file}",
            markup=False,
        )
    if found.pid is None:
        raise typer.Exit(EXIT_FAILED)


def logs(
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.", min=1)] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    file: Annotated[
        Path | None, typer.Option(help="Another log file (OMI_LOG_FILE).", envvar="OMI_LOG_FILE", dir_okay=False)
    ] = None,
) -> None:
    """Show the end of the service's log.

    Example: [bold]omi-agent logs --follow[/bold]
    """
    path = file or _service(None, is_daemon=False).log_file
    if sys.platform == "linux" and file is None:
        fail(f"its log is systemd's: journalctl -u {NAME}", EXIT_USAGE)
    if not path.exists():
        fail(f"{path} does not exist: the service never ran. Run: omi-agent install", EXIT_FAILED)
    tail = shutil.which("tail")
    if tail is None:
        fail(f"`tail` is not on PATH; the log is {path}", EXIT_FAILED)
    # -F also follows a log file that is replaced. Our own rotation truncates it in place, which tail notices.
    os.execv(tail, [tail, "-n", str(lines), *(["-F"] if follow else []), str(path)])  # noqa: S606 - ends as tail does


def _service(config: Path | None, *, is_daemon: bool, data_dir: Path | None = None) -> Service:
    from broker.errors import SettingsError
    from broker.settings import CONFIG_ENV, default_config_file
    from mac_agent.service import describe_service

    service_user = describe_service(config_file=Path("config.toml"), is_daemon=is_daemon)
    try:
        named = config or (default_config_file() if os.environ.get(CONFIG_ENV) else None)
    except SettingsError as error:
        fail(str(error), EXIT_USAGE)
    default = service_user.home / "Library" / "Application Support" / "omi-diarization" / "config.toml"
    return describe_service(config_file=named or default, is_daemon=is_daemon, data_dir=data_dir)


def _require_macos() -> None:
    if sys.platform != "darwin":
        fail(ON_LINUX, EXIT_USAGE)
