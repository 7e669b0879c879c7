"""Write requirements/*.txt: the exact versions installed here, for each extra of pyproject.toml.

Run it with the Python of an environment in which `make test` passes:

    .venv/bin/python requirements/pin.py

It reads what is installed and asks no index, so no host ends up in a pin. What only Linux needs (the CUDA
libraries that torch brings) is marked so, and a Mac installs from the same files.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("broker", "bridge", "agent", "dev")
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


def main() -> None:
    """Write one file per extra, each complete: the base dependencies and the extra, with all they need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in EXTRAS:
        wanted = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"][extra]]
        header = (
            f"# omi-diarization[{extra}]: exact versions of everything it needs, so that every machine runs what the\n"
            "# tests ran. Why pins, and why this torch: docs/adr/0001-torch-pins.md\n"
            "# Written by: .venv/bin/python requirements/pin.py\n"
        )
        (ROOT / "requirements" / f"{extra}.txt").write_text(header + "\n".join(pins(wanted)) + "\n")


if __name__ == "__main__":
    main()
