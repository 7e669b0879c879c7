"""A stand-in for `systemctl`, for a test's own directories: starts what a unit says, in the background.

`mosquitto` is started as Debian's unit does it. Of every other unit `ExecStart`, `Environment` and `EnvironmentFile`
are obeyed. OMI_TEST_ROOT names the directory that stands for `/`.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.docs.stand_in_machine import below

ROOT = Path(os.environ["OMI_TEST_ROOT"])
STARTS_S = 60.0


def pid_file(name: str) -> Path:
    return ROOT / "run" / f"{name}.pid"


def running(name: str) -> psutil.Process | None:
    """Return the process of a unit, where it runs."""
    try:
        process = psutil.Process(int(pid_file(name).read_text()))
        return process if process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None


def read_unit(name: str) -> tuple[list[str], dict[str, str]]:
    """Return the command of a unit and its variables."""
    if name == "mosquitto":
        return ["mosquitto", "-c", str(ROOT / "etc/mosquitto/mosquitto.conf")], {}
    lines = below(ROOT, (ROOT / f"etc/systemd/system/{name}.service").read_text()).splitlines()
    values = [line.partition("=")[::2] for line in lines if "=" in line and not line.startswith("#")]
    given = [text for key, text in values if key == "Environment"]
    files = [Path(text.removeprefix("-")) for key, text in values if key == "EnvironmentFile"]
    given += [file.read_text() for file in files if file.exists()]
    variables = dict(word.partition("=")[::2] for text in given for word in shlex.split(text))
    (command,) = (text for key, text in values if key == "ExecStart")
    return shlex.split(command), variables | {"HOME": str(ROOT / "var/lib/omi-diarization")}


def start(name: str) -> None:
    command, variables = read_unit(name)
    with (ROOT / "run" / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    pid_file(name).write_text(str(process.pid))
    wanted = {"mosquitto": "running", "omi-bridge": "connected"}.get(name, "")
    deadline_s = time.monotonic() + STARTS_S
    while wanted not in (ROOT / "run" / f"{name}.log").read_text():
        if process.poll() is not None or time.monotonic() > deadline_s:
            sys.exit(f"{name} did not start: {(ROOT / 'run' / f'{name}.log').read_text()}")
        time.sleep(0.05)


def stop(name: str) -> None:
    process = running(name)
    if process is not None:
        process.terminate()
        process.wait(STARTS_S)


def main() -> int:
    action, *words = sys.argv[1:]
    for name in (word for word in words if not word.startswith("-")):
        match action:
            case "enable":
                if "--now" in words:
                    start(name)
            case "start":
                start(name)
            case "show":
                process = running(name)
                state, pid = ("active", process.pid) if process else ("inactive", 0)
                sys.stdout.write(f"ActiveState={state}\nSubState=running\nMainPID={pid}\n")
            case "restart":
                stop(name)
                start(name)
            case "stop" | "disable":
                stop(name)
            case "reload":
                process = running(name)
                if process is None:
                    return 1
                process.send_signal(signal.SIGHUP)
            case "status":
                return 0 if running(name) else 3
            case _:
                sys.exit(f"no stand-in for systemctl {action}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
