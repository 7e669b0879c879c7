"""The packages of Node that the tests of the pages use, installed once from the committed lock into a cache."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import platformdirs
import pytest
from filelock import FileLock

FOLDER = Path(__file__).parent / "node"
LOCK = FOLDER / "package-lock.json"
INSTALL_S = 600


def node_program() -> str:
    """Return the path of Node; without it, or without npm, the test that needs it is skipped with its name."""
    for name in ("node", "npm"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed: apt-get install nodejs npm")
    return shutil.which("node") or ""


def installed_packages() -> Path:
    """Return the `node_modules` that the lock describes; where no registry can be reached, the test is skipped."""
    node_program()
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    home = platformdirs.user_cache_path("omi-diarization") / f"node-{digest}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(home.with_suffix(".lock")):
        if not home.exists():
            _install(home)
    return home / "node_modules"


def _install(home: Path) -> None:
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(FOLDER / name, scratch)
        # No script of a package runs: one of them would report each installation to its makers.
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"]
        done = subprocess.run(
            command, cwd=scratch, env=os.environ, capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
        if done.returncode != 0:
            offline = any(code in done.stderr for code in ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT"))
            if offline:
                pytest.skip("the packages of Node are not installed, and no registry can be reached")
            pytest.fail(f"npm ci: {done.stderr}")
        Path(scratch).rename(home)
        Path(scratch).mkdir()  # what the context manager removes
