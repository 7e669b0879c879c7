"""Clients as their users have them: installed beside nothing of this repository, run as programs of their own."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock
from uv import find_uv_bin

from tests.brokers import REPOSITORY, require_program
from tests.inbox import WAIT_S

PACKAGE = REPOSITORY / "clients" / "python"
MAX_BYTES = 20 * 2**20
NEEDED = ("msgpack", "paho-mqtt")


def pinned(name: str) -> str:
    """The pin of one package with its digests, as every environment of this repository has it."""
    pins = (REPOSITORY / "requirements" / "bridge.txt").read_text()
    found = re.search(rf"^{name}==.*?[^\\]$", pins, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[0]


def build_wheel(directory: Path) -> Path:
    """Build the package with the build tool that is installed here, from a copy: building leaves files behind."""
    source = directory / "source"
    subprocess.run(["cp", "-r", str(PACKAGE), str(source)], check=True)
    script = f"from setuptools.build_meta import build_wheel; print(build_wheel({str(directory)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=source, capture_output=True, check=True, text=True, timeout=WAIT_S
    )
    return directory / done.stdout.splitlines()[-1]


def install_package(directory: Path) -> Path:
    """Make an environment with nothing but the package and what it needs."""
    wheel, home = build_wheel(directory), directory / "env"
    requirements = directory / "requirements.txt"
    requirements.write_text("\n".join(map(pinned, NEEDED)) + "\n")
    uv, python = find_uv_bin(), str(home / "bin" / "python")
    began_s = time.monotonic()
    for command in (
        ("venv", "--quiet", "--python", sys.executable, str(home)),
        ("pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", str(requirements)),
        ("pip", "install", "--quiet", "--python", python, "--no-deps", str(wheel)),
    ):
        subprocess.run([uv, *command], check=True, timeout=WAIT_S)
    sys.stdout.write(f"installed in {time.monotonic() - began_s:.1f} s\n")
    return home


def install_node_example() -> Path:
    """Make a folder of the example for Node with what its lock file names, installed once for each lock file."""
    require_program("node", "nodejs")
    npm, source = require_program("npm", "npm"), REPOSITORY / "clients" / "node"
    digest = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()
    home = REPOSITORY / "build" / f"node-example-{digest[:16]}"
    with FileLock(f"{home}.lock"):
        if not (home / "node_modules" / ".package-lock.json").is_file():
            home.mkdir(parents=True, exist_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(source / name, home)
            quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--silent")
            subprocess.run([npm, "ci", *quiet], cwd=home, check=True, timeout=WAIT_S)
        shutil.copy(source / "publish.mjs", home)
    return home / "publish.mjs"


def run_outside(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        check=False,
        env={"PATH": os.environ["PATH"], **environment},
        text=True,
        timeout=WAIT_S,
    )
