"""The agent as a service of macOS: its property list, and the calls of `launchctl` that install, remove and query it.

A LaunchAgent runs as its user from login on, where the GPU is always available. A LaunchDaemon runs from boot on.
"""

from __future__ import annotations

import os
import plistlib
import pwd
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.file_checks import SECRET_WORD
from broker.private_files import replace_file, say_private
from broker.text_files import read_text

LABEL = "ai.omi.diarization.agent"
THROTTLE_S = 30  # between two starts, so that a wrong setting does not become a crash loop
EXIT_TIMEOUT_S = 30  # between SIGTERM and SIGKILL
PRIVATE_UMASK = 0o077
LAUNCHCTL = "/bin/launchctl"
LAUNCHCTL_TIMEOUT_S = 60.0
BOOTOUT_WAIT_S = 35.0  # launchd kills the agent after EXIT_TIMEOUT_S; and a margin
NOT_LOADED = {3, 36, 113}  # launchctl: no such process; operation in progress; could not find service
SECRET_VALUE = re.compile(r"://[^/\s]*:[^/\s]*@|\bhf_\w{8}")  # credentials in a URL; a token of the hub


class ServiceError(Exception):
    """The service cannot be installed, removed or queried; the message names the remedy."""


@dataclass(frozen=True)
class Service:
    """The program, files and user of the service."""

    program: tuple[str, ...]
    home: Path
    config_file: Path
    uid: int
    user: str
    is_daemon: bool = False
    data_dir: Path | None = None
    """As it was named; None: what the config file says, or the user's own."""

    @property
    def domain(self) -> str:
        """The launchd domain: the user's login session, or the system."""
        return "system" if self.is_daemon else f"gui/{self.uid}"

    @property
    def target(self) -> str:
        """The name of this service in calls of `launchctl`."""
        return f"{self.domain}/{LABEL}"

    @property
    def plist_file(self) -> Path:
        """Where launchd looks for the property list."""
        root = Path("/") if self.is_daemon else self.home
        return root / "Library" / ("LaunchDaemons" if self.is_daemon else "LaunchAgents") / f"{LABEL}.plist"

    @property
    def log_file(self) -> Path:
        """Where the agent writes its log, which it rotates itself (`log_file.py`)."""
        return self.home / "Library" / "Logs" / "omi-agent.log"


@dataclass(frozen=True)
class ServiceState:
    """The state of the service as launchd reports it."""

    is_loaded: bool
    state: str | None = None
    pid: int | None = None
    starts: int | None = None
    last_exit: str | None = None


def describe_service(*, config_file: Path, is_daemon: bool, data_dir: Path | None = None) -> Service:
    """Return the service of this user; under `sudo`, a LaunchDaemon of the user who called `sudo`."""
    name = os.environ.get("SUDO_USER") if is_daemon and os.geteuid() == 0 else None
    account = pwd.getpwnam(name) if name else pwd.getpwuid(os.getuid())
    command = Path(sys.executable).parent / "omi-agent"
    program = (str(command),) if command.exists() else (sys.executable, "-m", "mac_agent.commands.main")
    return Service(
        program=program,
        home=Path(account.pw_dir),
        config_file=config_file.absolute(),
        uid=account.pw_uid,
        user=account.pw_name,
        is_daemon=is_daemon,
        data_dir=data_dir.absolute() if data_dir else None,
    )


def render_plist(service: Service) -> bytes:
    """Return the property list. It names the config file and holds no secret, because every user may read it."""
    environment = {
        "OMI_CONFIG": str(service.config_file),
        "OMI_LOG_FILE": str(service.log_file),
        "OMI_LOG_JSON": "true",
        "PYANNOTE_METRICS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
    }
    if service.data_dir is not None:
        environment["OMI_DATA_DIR"] = str(service.data_dir)
    document: dict[str, Any] = {
        "Label": LABEL,
        "ProgramArguments": [*service.program, "run"],
        "WorkingDirectory": str(service.home),
        "EnvironmentVariables": environment,
        "RunAtLoad": True,
        "KeepAlive": True,
        "ThrottleInterval": THROTTLE_S,
        "ProcessType": "Interactive",  # Background would put inference on the efficiency cores
        "ExitTimeOut": EXIT_TIMEOUT_S,
        "Umask": PRIVATE_UMASK,
        "HardResourceLimits": {"Core": 0},  # a core dump would hold audio
        # For output before the agent has opened its own log, such as the error of a broken Python.
        "StandardOutPath": str(service.log_file),
        "StandardErrorPath": str(service.log_file),
    }
    if service.is_daemon:
        document |= {"UserName": service.user}
        environment |= {"HOME": str(service.home)}
    return plistlib.dumps(document, sort_keys=False)


def find_secrets(plist: bytes) -> list[str]:
    """Return where something in a property list looks like a secret: names of variables, places of program arguments.

    What is found is never repeated: it is printed and pasted into bug reports.

    Raises:
        ServiceError: the bytes are not a property list.
    """
    try:
        document = plistlib.loads(plist)
    except (plistlib.InvalidFileException, ValueError, OSError) as error:
        raise ServiceError(f"the property list is damaged ({error}). Run: omi-agent install") from error
    environment = document.get("EnvironmentVariables", {}) if isinstance(document, dict) else {}
    found = [name for name in environment if SECRET_WORD.search(name)]
    found += [name for name, value in environment.items() if SECRET_VALUE.search(str(value))]
    arguments = document.get("ProgramArguments", []) if isinstance(document, dict) else []
    places = [
        n for n, word in enumerate(map(str, arguments), 1) if SECRET_WORD.search(word) or SECRET_VALUE.search(word)
    ]
    return found + [f"program argument {place}" for place in places]


def check_config(service: Service) -> None:
    """Check that the config file of the service exists, and that no other user can read a secret in it.

    Raises:
        ServiceError: names what to write, or the mode to set.
    """
    path = service.config_file
    try:
        text, mode = read_text(path), path.stat().st_mode
    except FileNotFoundError as error:
        raise ServiceError(
            f"{path} does not exist, and a service sees no variables of your shell. Let `omi-agent join INVITATION` "
            'write it, or create it with mode 600: broker_url = "mqtts://HOST:8883", broker_username = "…", '
            'broker_password = "…", and [agent] agent_id = "…"'
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"{path} cannot be read ({error}). Check whose it is, and that it is text.") from error
    if SECRET_WORD.search(text) and mode & 0o077:
        raise ServiceError(f"{path} holds a secret and others can read it. Run: {say_private(path)}")


def install(service: Service, *, launchctl: str = LAUNCHCTL) -> None:
    """Write the property list and make launchd start the agent; an agent that already runs is replaced.

    Raises:
        ServiceError: the config file is missing, others can read a secret in it, the property list cannot be written,
            or launchd refused.
    """
    check_config(service)
    if service.is_daemon and os.geteuid() != 0:
        raise ServiceError(
            f"a LaunchDaemon is root's to install. Run: sudo {' '.join(service.program)} install --daemon"
        )
    if service.uid == 0:
        raise ServiceError("the agent must not run as root. Run this as the user it belongs to (sudo keeps the name).")
    try:
        service.plist_file.parent.mkdir(parents=True, exist_ok=True)
        service.log_file.parent.mkdir(parents=True, exist_ok=True)
        # launchd refuses a property list that others can write.
        replace_file(service.plist_file, render_plist(service), mode=0o644)
    except OSError as error:
        raise ServiceError(f"{service.plist_file} cannot be written: {error.strerror}. Check its directory.") from error
    _bootout(service, launchctl)
    _call(launchctl, "enable", service.target)  # undoes an earlier `launchctl disable`
    started = _call(launchctl, "bootstrap", service.domain, str(service.plist_file))
    if started.returncode != 0:
        hint = (
            "Look at: sudo launchctl print system"
            if service.is_daemon
            else "A LaunchAgent needs a login on the screen (not only ssh): log in there, or install with --daemon."
        )
        raise ServiceError(f"launchd did not take the service ({_describe_failure(started)}). {hint}")


def uninstall(service: Service, *, launchctl: str = LAUNCHCTL) -> bool:
    """Stop the agent and remove its property list; weights, results and logs stay.

    Returns:
        Whether it was installed.

    Raises:
        ServiceError: launchd or the file system refused.
    """
    was_loaded = _bootout(service, launchctl)
    was_there = service.plist_file.exists()
    try:
        service.plist_file.unlink(missing_ok=True)
    except OSError as error:
        sudo = "sudo " if service.is_daemon else ""
        raise ServiceError(
            f"{service.plist_file} cannot be removed: {error.strerror}. Run: {sudo}rm '{service.plist_file}'"
        ) from error
    return was_loaded or was_there


def query(service: Service, *, launchctl: str = LAUNCHCTL) -> ServiceState:
    """Return the state of the service.

    Raises:
        ServiceError: `launchctl` cannot be run.
    """
    shown = _call(launchctl, "print", service.target)
    return parse_state(shown.stdout) if shown.returncode == 0 else ServiceState(is_loaded=False)


def parse_state(printed: str) -> ServiceState:
    """Parse the output of `launchctl print`. Its format is not documented, so a field that is not found is None."""

    def field(name: str) -> str | None:
        found = re.search(rf"^\t{name} = (.+)$", printed, re.MULTILINE)
        return found[1].strip() if found else None

    pid, starts = field("pid"), field("runs")
    return ServiceState(
        is_loaded=True,
        state=field("state"),
        pid=int(pid) if pid and pid.isdecimal() else None,
        starts=int(starts) if starts and starts.isdecimal() else None,
        last_exit=field("last exit code") or field("last exit reason"),
    )


def _bootout(service: Service, launchctl: str) -> bool:
    """Stop and unload the service, wait until it is gone (a bootstrap before that fails); return if it was loaded."""
    done = _call(launchctl, "bootout", service.target)
    if done.returncode not in {0, *NOT_LOADED}:
        sudo = " It is a LaunchDaemon: use sudo." if service.is_daemon else ""
        raise ServiceError(f"launchd did not stop the service ({_describe_failure(done)}).{sudo}")
    deadline_s = time.monotonic() + BOOTOUT_WAIT_S
    while query(service, launchctl=launchctl).is_loaded:
        if time.monotonic() > deadline_s:
            raise ServiceError(f"the agent did not stop within {BOOTOUT_WAIT_S:.0f} s. Try again in a minute.")
        time.sleep(0.2)
    return done.returncode == 0


def _call(launchctl: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - fixed arguments, no shell
            [launchctl, *arguments],
            capture_output=True,
            text=True,
            timeout=LAUNCHCTL_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"{launchctl} could not be run ({error}). launchd is there on macOS only.") from error


def _describe_failure(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr or done.stdout).strip().splitlines()
    return f"exit code {done.returncode}: {lines[-1] if lines else 'no message'}"
