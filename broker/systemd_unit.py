"""A program of ours as a service of systemd: its unit, and the calls of `systemctl` that install, remove, query it."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.errors import BrokerError
from broker.file_checks import SECRET_WORD
from broker.private_files import replace_file, say_private
from broker.text_files import read_text

UNITS = Path("/etc/systemd/system")
SYSTEMCTL = "systemctl"
SYSTEMCTL_TIMEOUT_S = 60.0
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
SECRET_VALUE = re.compile(r"://[^/\s]*:[^/\s]*@|\bhf_\w{8}")  # credentials in a URL; a token of the hub
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./@+:,-]+")  # what systemd reads as it stands: no space, quote, % or $


UNIT = """\
# Written by `{name} install`; run it again rather than editing this, or use: systemctl edit {name}
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target mosquitto.service omi-broker.service tailscaled.service
# One that cannot start says why; five tries a minute, then systemd shows it as failed.
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=exec
User={user}
ExecStart={program} run
Environment={environment} OMI_LOG_JSON=true
# Further settings as variables, if you have such a file (mode 0600, owner root).
EnvironmentFile=-/etc/omi-diarization/{short_name}.env
ReadWritePaths={data_dir}
UMask=0077
Restart=always
RestartSec=2
SuccessExitStatus=143
TimeoutStopSec=30
{memory}# Each connection is an open file: many of them must not take those that audio and databases need.
LimitNOFILE=65536
# A core dump would hold audio and words.
LimitCORE=0
NoNewPrivileges=true
PrivateTmp=true
PrivateDevices={private_devices}
ProtectSystem=strict
ProtectHome={protect_home}
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectControlGroups=true
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=true
LockPersonality=true
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""


class ServiceProblem(BrokerError):
    """The service cannot be installed, removed or queried; the message names the remedy."""


@dataclass(frozen=True)
class SystemdService:
    """What a unit is made of. The config file may hold secrets; the unit, which everybody can read, holds none."""

    name: str
    description: str
    program: Path
    user: str
    home: Path
    config_file: Path
    data_dir: Path
    needs_devices: bool = False
    """A GPU: an agent's. Without it the service sees no device but /dev/null and the like."""
    memory_max: str | None = None

    @property
    def unit_file(self) -> Path:
        """Where systemd looks for it."""
        return find_unit_file(self.name)

    @property
    def variables(self) -> Mapping[str, str]:
        """What makes any command of the program use the files of the service."""
        return {"OMI_CONFIG": str(self.config_file), "OMI_DATA_DIR": str(self.data_dir)}

    @property
    def command(self) -> str:
        """How a person calls the program with the files and as the user of the service."""
        given = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.variables.items())
        return f"sudo -H -u {self.user} {given} {self.program}"


@dataclass(frozen=True)
class UnitState:
    """The state of a unit as systemd reports it."""

    active: str
    detail: str = ""
    pid: int | None = None
    restarts: int = 0
    last_exit: str = ""

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self.active == "active" and self.pid is not None


def find_unit_file(name: str) -> Path:
    """Return where systemd looks for the unit of a program, whether it is there or not."""
    return UNITS / f"{name}.service"


def find_user(name: str | None) -> pwd.struct_passwd:
    """Return the account that the service is to run as: the one named, else whoever called sudo, else this one.

    Raises:
        ServiceProblem: there is none, or it is root.
    """
    caller = os.environ.get("SUDO_USER") if os.geteuid() == 0 else None  # else root became this user by sudo
    wanted = name or caller
    try:
        account = pwd.getpwnam(wanted) if wanted else pwd.getpwuid(os.getuid())
    except KeyError as error:
        home = "/var/lib/omi-diarization"
        raise ServiceProblem(
            f"there is no user {wanted}: useradd --system --create-home --home-dir {home} --shell /usr/sbin/nologin "
            f"{wanted}"
        ) from error
    if account.pw_uid == 0:
        raise ServiceProblem("it must not run as root: name the user it runs as with --user")
    return account


def find_program(name: str) -> Path:
    """Return the console script of this Python environment."""
    return Path(sys.executable).parent / name


def render_unit(service: SystemdService) -> str:
    """Return the unit. Every user may read it: it names the config file and holds no secret.

    Raises:
        ServiceProblem: a path that systemd would read as something else.
    """
    for path in (service.program, service.config_file, service.data_dir):
        if not PLAIN_PATH.fullmatch(str(path)) or not path.is_absolute():
            raise ServiceProblem(f"{path}: use a full path without spaces, quotes, % and $")
    paths = (service.program, service.config_file, service.data_dir)
    is_in_homes = any(path.is_relative_to(home) for path in paths for home in HOMES)
    return UNIT.format(
        name=service.name,
        short_name=service.name.removeprefix("omi-"),
        description=service.description,
        user=service.user,
        program=service.program,
        environment=" ".join(f"{name}={value}" for name, value in service.variables.items()),
        data_dir=service.data_dir,
        memory=f"MemoryMax={service.memory_max}\n" if service.memory_max else "",
        private_devices="false" if service.needs_devices else "true",
        protect_home="read-only" if is_in_homes else "true",
    )


def install(service: SystemdService, *, systemctl: str = SYSTEMCTL) -> None:
    """Write the unit and have systemd start it now and with the machine; one that runs is started anew.

    Raises:
        ServiceProblem: the config file is missing or open to others, or systemd refused.
    """
    check_config(service)
    if not service.program.exists():
        raise ServiceProblem(f"{service.program} is not there: install the package into this environment")
    try:
        _make_data_dir(service.data_dir, pwd.getpwnam(service.user))
        replace_file(service.unit_file, render_unit(service), mode=0o644)
    except OSError as error:
        again = f"sudo {service.program} install --user {service.user} --data-dir {service.data_dir}"
        is_roots = isinstance(error, PermissionError) or Path(error.filename).is_relative_to(UNITS)
        remedy = f"A service is root's to install: {again}" if is_roots else "Name another with --data-dir"
        raise ServiceProblem(f"{error.filename}: {error.strerror}. {remedy}") from error
    for words in (("daemon-reload",), ("enable", service.name), ("restart", service.name)):
        done = _call(systemctl, *words)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise ServiceProblem(f"systemctl {' '.join(words)}: {said}. journalctl -u {service.name} may say more")


def _make_data_dir(directory: Path, account: pwd.struct_passwd) -> None:
    """Make a directory and the missing ones above it, all of them its user's: else that user could not go in."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700)
        os.chown(path, account.pw_uid, account.pw_gid)
    if not directory.is_dir():
        raise ServiceProblem(f"{directory} is no directory: name one with --data-dir")
    if directory.stat().st_uid != account.pw_uid:
        raise ServiceProblem(f"{directory} is not {account.pw_name}'s: chown -R {account.pw_name}: {directory}")


def uninstall(name: str, *, systemctl: str = SYSTEMCTL) -> bool:
    """Stop a service and remove its unit; data, settings and logs stay. Returns whether there was one.

    Raises:
        ServiceProblem: it does not stop, or its unit cannot be removed.
    """
    unit_file = find_unit_file(name)
    if not unit_file.exists():
        return False
    stopped = _call(systemctl, "disable", "--now", name)
    if stopped.returncode != 0 and query(name, systemctl=systemctl).runs:
        said = (stopped.stderr or stopped.stdout).strip()
        raise ServiceProblem(f"it still runs: systemctl disable --now {name}: {said}")
    try:
        unit_file.unlink()
    except OSError as error:
        again = f"A service is root's to remove: sudo {find_program(name)} uninstall"
        raise ServiceProblem(f"{unit_file}: {error.strerror}. {again}") from error
    _call(systemctl, "daemon-reload")
    return True


def query(name: str, *, systemctl: str = SYSTEMCTL) -> UnitState:
    """Return the state of a unit.

    Raises:
        ServiceProblem: `systemctl` cannot be run.
    """
    fields = "ActiveState,SubState,MainPID,NRestarts,Result"
    shown = _call(systemctl, "show", name, f"--property={fields}")
    facts = dict(line.partition("=")[::2] for line in shown.stdout.splitlines())
    pid, restarts = facts.get("MainPID", "0"), facts.get("NRestarts", "0")
    return UnitState(
        active=facts.get("ActiveState", "unknown"),
        detail=facts.get("SubState", ""),
        pid=int(pid) if pid.isdecimal() and pid != "0" else None,
        restarts=int(restarts) if restarts.isdecimal() else 0,
        last_exit=facts.get("Result", ""),
    )


def check_config(service: SystemdService) -> None:
    """Check that the config file is there and that no other user can read a secret in it.

    Raises:
        ServiceProblem: names what to do.
    """
    path = service.config_file
    try:
        text, mode = read_text(path), path.stat().st_mode
    except FileNotFoundError as error:
        raise ServiceProblem(f"{path} does not exist. Write it with: {service.command} join INVITATION") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceProblem(f"{path} cannot be read ({error}): check whose it is, and that it is text") from error
    if SECRET_WORD.search(text) and mode & 0o077:
        raise ServiceProblem(f"{path} holds a secret and others can read it. Run: {say_private(path)}")


def _call(systemctl: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - fixed arguments, no shell
            [systemctl, *arguments],
            capture_output=True,
            text=True,
            timeout=SYSTEMCTL_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceProblem(f"{systemctl} could not be run ({error}): this machine has no systemd") from error
