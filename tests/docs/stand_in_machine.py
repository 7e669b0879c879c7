"""A directory that stands for a machine: the pages' commands run in it as they stand, and touch nothing outside.

Paths below /etc, /opt, /usr/local and /var are moved into it. Programs that would change the machine, or need a second
one, have stand-ins: `apt` and `useradd` do nothing, `sudo` changes no user, `scp` copies,
`tailscale` has the address 127.0.0.1, and `systemctl` starts what a unit says. What `install` gives to another user
becomes nobody's, whom a test that runs as root takes for `omi`.
"""

import getpass
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from demo.programs import MODULES
from tests.brokers import REPOSITORY
from tests.inbox import WAIT_S

_MOVED = re.compile(r"(?<![\w.$}])/(etc|opt|usr/local|var)/")
_STAND_INS = {
    "apt": "exit 0",
    "useradd": "exit 0",
    "tailscale": """
case "$*" in
"ip -4") echo 127.0.0.1 ;;
*) echo '{"BackendState": "Running", "Self": {"TailscaleIPs": ["127.0.0.1"]}}' ;;
esac""",
    "sudo": """
while [[ $1 == -* ]]; do case $1 in -u) shift 2 ;; *) shift ;; esac; done
exec env HOME="$OMI_TEST_ROOT/var/lib/omi-diarization" "$@" """,
    "install": """
words=()
while (($#)); do case $1 in
-o | -g) [[ $UID == 0 ]] && words+=("$1" 65534); shift 2 ;;
*) words+=("$1"); shift ;;
esac; done
PATH=/usr/bin:/bin exec install "${words[@]}" """,
    "scp": 'exec cp -p "${1#*:}" "$2"',
    "systemctl": f'exec {sys.executable} -m tests.docs.stand_in_systemctl "$@"',
}
_DEBIANS_MOSQUITTO = """
persistence true
persistence_location {root}/var/lib/mosquitto/
log_dest stderr
user {user}
include_dir {root}/etc/mosquitto/conf.d
"""


def below(root: Path, text: str) -> str:
    """Return a text in which the paths of the machine lie below `root`."""
    return _MOVED.sub(lambda found: f"{root}/{found[1]}/", text)


@dataclass
class StandInMachine:
    """A machine and the user who types there; `replaced` are further texts that are exchanged in every command."""

    root: Path
    environment: dict[str, str]
    home: Path
    replaced: dict[str, str] = field(default_factory=dict)
    background: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def programs(self) -> Path:
        """The directory of our three programs."""
        return self.root / "opt/omi-diarization/.venv/bin"

    def translate(self, text: str) -> str:
        """Return commands as they run here."""
        text = below(self.root, text)
        for written, meant in self.replaced.items():
            text = text.replace(written, meant)
        return text

    def run(self, text: str, *, codes: tuple[int, ...] = (0,), stdin: str = "", **environment: str) -> str:
        """Run the lines of a block, the first that fails ends it, and return what they print."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.translate(text)],
            env=self.environment | environment,
            cwd=self.home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode in codes, f"{text}\n{done.returncode}: {done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self, text: str, log: Path) -> subprocess.Popen[bytes]:
        """Run a command in the background."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self.translate(text.strip())}"],
                env=self.environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.background.append(process)
        return process

    def beside(self, name: str) -> "StandInMachine":
        """Return another machine, with the program in its user's home; `scp` finds the files of this one there."""
        home = self.root / name
        (home / ".venv").mkdir(parents=True)
        (home / ".venv/bin").symlink_to(self.programs)
        places = [str(home / ".venv/bin"), str(self.root / "bin"), os.environ["PATH"]]
        own = {"HOME": str(home), "PATH": os.pathsep.join(places)}
        return StandInMachine(self.root, self.environment | own, home, self.replaced)

    def stop(self) -> None:
        """End everything that was started here."""
        for process in self.background:
            process.terminate()
        for process in self.background:
            process.wait(WAIT_S)
        for file in (self.root / "run").glob("*.pid"):
            try:
                process_of_unit = psutil.Process(int(file.read_text()))
                process_of_unit.terminate()
                process_of_unit.wait(WAIT_S)
            except psutil.NoSuchProcess:
                continue  # it has ended by itself


def make_machine(root: Path, environment: dict[str, str], replaced: dict[str, str]) -> StandInMachine:
    """Lay out a Debian with its own Mosquitto, our programs in /opt, and the stand-ins."""
    folders = "bin run home etc/mosquitto/conf.d etc/systemd/system usr/local/bin var/lib/mosquitto"
    for name in (*folders.split(), "opt/omi-diarization/.venv/bin"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "opt/omi-diarization/systemd").symlink_to(REPOSITORY / "systemd")
    debians = _DEBIANS_MOSQUITTO.format(root=root, user=getpass.getuser())
    (root / "etc/mosquitto/mosquitto.conf").write_text(debians)
    for name, text in _STAND_INS.items():
        write_program(root / "bin" / name, text)
    places = [str(root / "usr/local/bin"), str(root / "bin"), os.environ["PATH"], "/usr/sbin"]
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OMI_", "XDG_"))}
    own = {"HOME": str(root / "home"), "OMI_TEST_ROOT": str(root), "PATH": os.pathsep.join(places)}
    plain = {"PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1", "TERM": "dumb"}
    machine = StandInMachine(root, ours | environment | own | plain, root / "home", replaced)
    for name, module in MODULES.items():
        text = f'exec {sys.executable} -m tests.docs.stand_in_program {module} "$@"'
        write_program(machine.programs / name, text)
    return machine


def write_program(path: Path, text: str) -> None:
    """Write a program of bash."""
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
