"""Write requirements/*.txt: the exact versions installed here, with the sha256 of every file of each release.

Run it with the Python of an environment in which `make test` passes:

    .venv/bin/python requirements/pin.py

The versions are those that are installed. The digests, of the files for every platform and Python, are what the
package index lists (uv asks it: UV_INDEX_URL where it is not the public one), and no host ends up in a pin. What only
Linux needs (the CUDA libraries that torch brings) is marked so, and a Mac installs from the same files. `build.txt` is
what building this package takes.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from uv import find_uv_bin

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("broker", "bridge", "postgres", "bucket", "agent", "dev")
PLATFORMS = {
    "linux": {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    },
    "darwin": {
        "sys_platform": "darwin",
        "platform_system": "Darwin",
        "platform_machine": "arm64",
        "os_name": "posix",
    },
}


def closure(wanted: list[Requirement], platform: dict[str, str]) -> dict[str, str]:
    """Return name → installed version of everything `wanted` needs on a platform.

    Raises:
        SystemExit: something needed there is not installed here.
    """
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(requirement, "") for requirement in wanted]
    while queue:
        requirement, parent_extra = queue.pop()
        if requirement.marker and not requirement.marker.evaluate({**platform, "extra": parent_extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is needed on {platform['sys_platform']} but not installed here: pip install {name}")
        versions[name] = found.version
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                queue += [(Requirement(line), extra) for line in found.requires or []]
    return versions


def pins(wanted: list[Requirement]) -> list[str]:
    """Return one `name==version` line per package, marked where only one platform needs it."""
    linux, darwin = (closure(wanted, PLATFORMS[name]) for name in ("linux", "darwin"))
    lines = []
    for name in sorted(linux | darwin):
        marker = "" if name in linux and name in darwin else "linux" if name in linux else "darwin"
        suffix = f' ; sys_platform == "{marker}"' if marker else ""
        lines.append(f"{name}=={(linux | darwin)[name]}{suffix}")
    return lines


def with_hashes(lines: list[str]) -> str:
    """Return the pins with the digests of all files of each release, in the form that pip checks.

    Raises:
        SystemExit: the index cannot be asked, or does not have a release.
    """
    command = [find_uv_bin(), "pip", "compile", "-", "--quiet", "--no-deps", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-header", "--no-annotate"]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)  # noqa: S603 - fixed arguments, no shell
    if done.returncode != 0:
        sys.exit(f"no digests from the package index: {done.stderr.strip()}")
    return done.stdout


def main() -> None:
    """Write one file per extra, each complete: the base dependencies and the extra, with all they need."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = document["project"]
    wanted = {extra: project["dependencies"] + project["optional-dependencies"][extra] for extra in EXTRAS}
    wanted["build"] = document["build-system"]["requires"]
    for name, lines in wanted.items():
        what = "building omi-diarization" if name == "build" else f"omi-diarization[{name}]"
        header = (
            f"# {what}: exact versions of everything it needs, so that every machine runs what the tests ran,\n"
            "# and the sha256 of their files, so that nothing else is installed. Why: docs/adr/0001-torch-pins.md\n"
            "# Written by: .venv/bin/python requirements/pin.py\n"
        )
        pinned = with_hashes(pins([Requirement(line) for line in lines]))
        (ROOT / "requirements" / f"{name}.txt").write_text(header + pinned)


if __name__ == "__main__":
    main()
