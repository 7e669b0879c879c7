"""The wheel: what a user installs has everything in it that the checkout has, and needs no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.vps_bridge.test_upgrade import write_old_files

CHECKOUT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
LOOK = """
import json
from importlib.resources import files
from pathlib import Path
import broker, mac_agent, schemas, vps_bridge
page = sorted(item.name for item in (files("vps_bridge") / "http" / "page").iterdir())
documents = sorted(item.name for item in (files("schemas") / "json").iterdir())
places = [str(Path(room.__file__).resolve()) for room in (broker, mac_agent, schemas, vps_bridge)]
print(json.dumps({"page": page, "documents": documents, "places": places}))
"""


@pytest.mark.slow
def test_a_wheel_installs_and_runs_without_the_checkout(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True).stdout
    source, target = tmp_path / "source", tmp_path / "installed"
    for name in filter(None, listed.decode().split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, source / name)
    run(sys.executable, "-c", BUILD, str(tmp_path), cwd=source)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(target, with_pip=False)
    (site,) = target.glob("lib/python*/site-packages")
    # Everything that the wheel asks for, but not the checkout: only its own folders' .pth files are read by Python.
    (site / "needs.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = ("--python", str(target / "bin" / "python"), "install", "--no-deps", "--no-index", "--quiet")
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *install, str(wheel), cwd=tmp_path)
    shutil.rmtree(source)

    for program in ("omi-bridge", "omi-agent", "omi-broker"):
        assert "Usage" in run(str(target / "bin" / program), "--help", cwd=tmp_path)
    found = json.loads(run(str(target / "bin" / "python"), "-c", LOOK, cwd=tmp_path))
    assert all(Path(place).is_relative_to(target.resolve()) for place in found["places"])
    assert found["page"] == sorted(path.name for path in (CHECKOUT / "vps_bridge" / "http" / "page").iterdir())
    assert found["documents"] == sorted(path.name for path in (CHECKOUT / "schemas" / "json").iterdir())
    write_old_files(tmp_path / "data" / "bridge")
    listed_old = run(
        str(target / "bin" / "omi-bridge"),
        "conversations",
        "--json",
        "--data-dir",
        str(tmp_path / "data"),
        cwd=tmp_path,
    )
    assert {row["conversation_id"] for row in json.loads(listed_old)} >= {"done", "leased"}, "migrations are in it"


def run(*command: str, cwd: Path) -> str:
    """Run a command as if no checkout were there; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OMI_DATA_DIR")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout
