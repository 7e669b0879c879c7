"""The pins name exact versions and the digests of their files, and every installation checks them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PIN_FILES = sorted((ROOT / "requirements").glob("*.txt"))
DIGEST = re.compile(r"^--hash=sha256:[0-9a-f]{64}$")


def read_pins(path: Path) -> dict[str, tuple[Requirement, frozenset[str]]]:
    """Return by name the requirement and its digests; a line that is neither fails the test."""
    text = re.sub(r"\\\n", " ", path.read_text())
    pins: dict[str, tuple[Requirement, frozenset[str]]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement, *digests = re.split(r"\s+(?=--hash)", line.strip())
            assert [digest for digest in digests if not DIGEST.match(digest)] == [], line
            parsed = Requirement(requirement)
            pins[canonicalize_name(parsed.name)] = (parsed, frozenset(digests))
    return pins


def test_there_are_pins_for_each_program_and_for_building():
    assert {path.stem for path in PIN_FILES} == {"agent", "bridge", "broker", "bucket", "build", "dev", "postgres"}


@pytest.mark.parametrize("path", PIN_FILES, ids=lambda path: path.stem)
def test_every_pin_is_one_version_with_digests_and_names_no_place(path):
    pins = read_pins(path)
    assert pins
    for requirement, digests in pins.values():
        assert requirement.url is None
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], requirement
        assert digests, requirement
    assert "://" not in path.read_text()


def test_the_files_agree_so_that_one_environment_takes_them_all():
    known: dict[str, tuple[str, frozenset[str]]] = {}
    for path in PIN_FILES:
        for name, (requirement, digests) in read_pins(path).items():
            pin = (str(requirement.specifier), digests)
            assert known.setdefault(name, pin) == pin, f"{name} differs in {path.name}"


def test_native_packages_have_digests_for_every_platform_not_only_for_this_one():
    """At least one file for each of two Linuxes and macOS, times three Pythons."""
    digests = read_pins(ROOT / "requirements" / "agent.txt")["numpy"][1]
    assert len(digests) >= 9


@pytest.mark.parametrize("path", ["Makefile", ".ci/run", "docs/set-up-vps.md", "docs/set-up-mac.md"])
def test_every_installation_from_pins_checks_their_digests(path):
    lines = [line for line in (ROOT / path).read_text().splitlines() if "pip" in line and " install -" in line]
    assert lines
    for line in lines:
        if "-r " in line:
            assert "--require-hashes" in line, line
        else:  # the package itself: an isolated build would fetch its own tools, unchecked
            assert "--no-build-isolation" in line, line
