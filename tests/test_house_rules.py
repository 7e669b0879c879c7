"""The rules of the house (docs and CONTRIBUTING.md), read from the source. Each rule is shown to be able to fail."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

ROOM_IMPORTS = {
    "schemas": {"schemas"},
    "broker": {"schemas", "broker"},
    "mac_agent": {"schemas", "broker", "mac_agent"},
    "vps_bridge": {"schemas", "broker", "vps_bridge"},
}
# What a room may import beyond the base dependencies.
ROOM_EXTRA = {"broker": "broker", "mac_agent": "agent", "vps_bridge": "bridge"}
FURTHER_EXTRAS = {"vps_bridge": ("bucket",)}  # imported where they are used; without them the bridge says so
# Released in lockstep: half of the other, or its base; or what the pinned other one builds the same layers of.
COMES_WITH = {"pydantic-core": "pydantic", "botocore": "boto3", "asteroid-filterbanks": "pyannote-audio"}

TORCH = {"torch", "torchaudio", "torchcodec", "pyannote", "lightning", "pytorch_lightning"}
MQTT = {"paho", "amqtt"}
SQL = {"sqlalchemy", "alembic", "sqlite3"}
SQL_PLACES = ("ledger", "outbox", "conversations", "database", "migrations")
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "manager", "managers", "core", "common", "misc"}

# Written in pieces, so that this file does not break its own rule.
FORBIDDEN_TEXT = {
    "a path of one machine": re.compile("/" + r"work/|/" + r"root/|/" + r"tmp/brief|/" + r"Users/(?!\w*YOU)"),
    "the host of a registry": re.compile(
        r"pypi" + r"\.org|python" + r"hosted\.org|npmjs" + r"\.org|crates" + r"\.io|ghcr" + r"\.io"
        r"|extra-index" + r"-url|find-" + r"links|index-" + r"url"
    ),
    "a private key": re.compile("BEGIN [A-Z ]*PRIVATE" + " KEY"),
}
UNTRACKED = re.compile(r"\b(TODO|FIXME|XXX)\b(?!.*(issue|#\d))")

SKIPPED_FOLDERS = {"__pycache__", "models", "build", "dist", "out"}
TEXT_SUFFIXES = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".ini",
    ".json",
    ".yaml",
    ".yml",
    ".service",
    ".plist",
    ".sh",
    ".conf",
    ".sql",
    "",
}


def imported_modules(tree: ast.Module, package: str) -> list[tuple[int, str]]:
    """Return (line, dotted name) of all that a module imports, also inside functions and by `import_module`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            found.append((node.lineno, ".".join([*base, node.module or ""]).strip(".")))
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                found.append((node.lineno, node.args[0].value))
    return found


def import_breaches(tree: ast.Module, path: Path) -> list[tuple[int, str]]:
    """Return (line, what) for each import that `path`, relative to the root, may not have."""
    room, parts = path.parts[0], [*path.parts[1:-1], path.stem]
    found = []
    for line, module in imported_modules(tree, ".".join(path.parts[:-1])):
        top = module.split(".")[0]
        if top in ROOM_IMPORTS and top not in ROOM_IMPORTS[room]:
            found.append((line, f"{room} may not import {top}"))
        if top in {"tests", "demo", "benchmarks"}:
            found.append((line, f"a room may not import {top}"))
        if top in TORCH and path.parts[:2] != ("mac_agent", "engines"):
            found.append((line, f"{top} is imported only inside mac_agent/engines"))
        if top in MQTT and room != "broker":
            found.append((line, f"{top} is imported only inside broker/"))
        if top in SQL and not any(part.startswith(SQL_PLACES) for part in parts):
            found.append((line, f"SQL ({top}) only in the ledger, the outbox and the conversation stores"))
    return found


def statement_breaches(tree: ast.Module, path: Path) -> list[tuple[int, str]]:
    """Return (line, what) for each statement that has no place in a room."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            found.append((node.lineno, "print outside the command line: log it"))
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                found.append((node.lineno, "bare except: name what is expected"))
            elif getattr(node.type, "id", "") in {"Exception", "BaseException"} and swallows(node):
                found.append((node.lineno, "an exception is swallowed: log it or let it go"))
    may_print = path.stem == "cli" or "commands" in path.parts
    return [(line, what) for line, what in found if not (may_print and what.startswith("print"))]


def breaches(source: str, path: Path) -> list[str]:
    """Return one line for each rule that a module of one of the four rooms breaks. `path` is relative to the root."""
    tree = ast.parse(source, filename=str(path))
    found = import_breaches(tree, path) + statement_breaches(tree, path)
    found += [
        (1, f"{name!r} says nothing: name the noun") for name in VAGUE_NAMES.intersection(path.with_suffix("").parts)
    ]
    return [f"{path}:{line}: {what}" for line, what in found]


def swallows(handler: ast.ExceptHandler) -> bool:
    """Say whether an except block does nothing at all."""
    return all(
        isinstance(statement, ast.Pass | ast.Continue)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in handler.body
    )


def forbidden_text(text: str, name: str) -> list[str]:
    """Return one line for each thing that no file of this repository may contain."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        found += [f"{name}:{number}: {what}" for what, pattern in FORBIDDEN_TEXT.items() if pattern.search(line)]
        if name.endswith(".py") and UNTRACKED.search(line):
            found.append(f"{name}:{number}: a TODO names its issue")
    return found


def room_modules() -> list[Path]:
    """Return every Python file of the four rooms, relative to the root."""
    return sorted(path.relative_to(ROOT) for room in ROOM_IMPORTS for path in (ROOT / room).rglob("*.py"))


def text_files() -> list[Path]:
    """Return every text file of the repository, what git ignores aside."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    if listed.returncode == 0:
        files = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # a tree without git, such as an unpacked archive
        files = [
            path
            for path in ROOT.rglob("*")
            if not any(part in SKIPPED_FOLDERS or part.startswith(".venv") for part in path.relative_to(ROOT).parts)
        ]
    return sorted(path for path in files if path.suffix in TEXT_SUFFIXES and path.is_file())


def requirement_names(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_every_room_has_modules_to_check():
    assert {path.parts[0] for path in room_modules()} == set(ROOM_IMPORTS)


@pytest.mark.parametrize("path", room_modules(), ids=str)
def test_module_holds_the_house_rules(path):
    assert breaches((ROOT / path).read_text(), path) == []


def test_no_file_names_a_machine_a_registry_or_a_key():
    found = []
    for path in text_files():
        found += forbidden_text(path.read_text(errors="replace"), path.relative_to(ROOT).as_posix())
    assert found == []


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("schemas/a.py", "import broker.session", "schemas may not import broker"),
        ("broker/a.py", "from mac_agent import x", "broker may not import mac_agent"),
        ("mac_agent/a.py", "from vps_bridge.ledger import x", "mac_agent may not import vps_bridge"),
        ("vps_bridge/a.py", "def f():\n    import mac_agent.engines", "vps_bridge may not import mac_agent"),
        ("vps_bridge/a.py", "import tests.fixtures", "a room may not import tests"),
        ("vps_bridge/a.py", "import importlib\nimportlib.import_module('torch')", "torch is imported only"),
        ("mac_agent/worker.py", "from torch import nn", "torch is imported only"),
        ("mac_agent/worker.py", "import pyannote.audio", "pyannote is imported only"),
        ("mac_agent/inbox.py", "import paho.mqtt.client", "paho is imported only"),
        ("mac_agent/inbox.py", "import sqlite3", "SQL (sqlite3) only"),
        ("vps_bridge/dispatch/dispatcher.py", "from sqlalchemy import select", "SQL (sqlalchemy) only"),
        ("broker/session.py", "print('hello')", "print outside the command line"),
        ("broker/session.py", "try:\n    f()\nexcept:\n    raise", "bare except"),
        ("broker/session.py", "try:\n    f()\nexcept Exception:\n    pass", "swallowed"),
        ("broker/utils.py", "x = 1", "'utils' says nothing"),
        ("vps_bridge/core/lease.py", "x = 1", "'core' says nothing"),
    ],
)
def test_a_planted_breach_is_caught(path, source, expected):
    found = breaches(source, Path(path))
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("mac_agent/engines/embedded.py", "import torch\nfrom pyannote.audio import Model"),
        ("broker/session.py", "import paho.mqtt.client\nfrom schemas import topics"),
        ("vps_bridge/ledger.py", "import sqlalchemy\nfrom . import lease"),
        ("vps_bridge/conversations/sqlite.py", "import sqlite3"),
        ("vps_bridge/commands/main.py", "print('{}')"),
        ("mac_agent/inbox.py", "try:\n    f()\nexcept Exception:\n    log()\n    raise"),
    ],
)
def test_what_the_rules_allow_is_not_reported(path, source):
    assert breaches(source, Path(path)) == []


@pytest.mark.parametrize(
    "line",
    [
        "see /" + "work/main/README.md",
        "pip install --extra-index" + "-url x",
        "https://pypi" + ".org/simple",
        "# TO" + "DO: later",
        "-----BEGIN RSA PRIVATE" + " KEY-----",
    ],
)
def test_planted_text_is_caught(line):
    assert len(forbidden_text(f"fine\n{line}\n", "a.py")) == 1


def test_relative_imports_are_resolved():
    tree = ast.parse("from ..dispatch import lease\nfrom . import x")
    assert [name for _, name in imported_modules(tree, "vps_bridge.conversations")] == [
        "vps_bridge.dispatch",
        "vps_bridge.conversations",
    ]


@pytest.mark.parametrize("room", ROOM_IMPORTS)
def test_what_a_room_imports_is_declared(room):
    """A user who installs one extra has all that its rooms import."""
    names = [ROOM_EXTRA[room], *FURTHER_EXTRAS.get(room, ())] if room in ROOM_EXTRA else []
    extra = [line for name in names for line in EXTRAS[name]]
    declared = requirement_names(PROJECT["dependencies"] + extra)
    provided_by = packages_distributions()
    undeclared = set()
    for path in room_modules():
        if path.parts[0] != room:
            continue
        for _, module in imported_modules(ast.parse((ROOT / path).read_text()), ".".join(path.parts[:-1])):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top in ROOM_IMPORTS:
                continue
            found_in: set[str] = {canonicalize_name(name) for name in provided_by.get(top, [top])}
            distributions = {COMES_WITH.get(name, name) for name in found_in}
            if not distributions & declared:
                undeclared.add(f"{path} imports {top}")
    assert undeclared == set()


@pytest.mark.bridge_only
def test_the_bridge_extra_never_brings_torch():
    heavy = re.compile(r"^(torch|pyannote|lightning|nvidia|cuda|triton)")
    text = (ROOT / "requirements" / "bridge.txt").read_text()
    pinned = [line.removesuffix("\\") for line in text.splitlines() if "==" in line]
    names = requirement_names(PROJECT["dependencies"] + EXTRAS["bridge"]) | requirement_names(pinned)
    assert {name for name in names if heavy.match(name)} == set()


@pytest.mark.bridge_only
def test_every_module_of_the_bridge_imports_where_there_is_no_torch():
    script = """
import importlib, pathlib, sys
for name in ("torch", "torchaudio", "torchcodec", "pyannote", "mac_agent"):
    sys.modules[name] = None  # importing it now raises
for path in sorted(pathlib.Path("vps_bridge").rglob("*.py")):
    if "migrations" not in path.parts and path.stem != "__main__":
        parts = path.with_suffix("").parts
        importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


HEAVY = {"numpy", "scipy", "fastapi", "sqlalchemy", "alembic", "paho"}


@pytest.mark.parametrize("program", ["vps_bridge.commands.main", "broker.cli"])
def test_help_does_not_wait_for_what_a_command_may_need(program):
    heavy = {*HEAVY, "pydantic", "structlog", "cryptography"}
    script = f"import sys, {program}; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.bridge_only
@pytest.mark.parametrize("command", ["config", "page", "status"])
def test_a_command_does_not_wait_for_what_only_others_need(command, tmp_path):
    script = f"""import sys, vps_bridge.commands.main as program
try: program.main()
finally: print("heavy:", *{HEAVY} & set(sys.modules), file=sys.stderr)"""
    done = subprocess.run(
        [sys.executable, "-c", script, command],
        cwd=ROOT,
        env=os.environ | {"OMI_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1].split() == ["heavy:"]


def test_preventable_skips_are_told_from_honest_ones():
    spec = importlib.util.spec_from_file_location("root_conftest", ROOT / "tests" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    skips = [
        ("a", "Skipped: mosquitto is not installed: apt-get install mosquitto"),
        ("b", "Skipped: no `shared` folder"),
        ("c", "Skipped: needs a Mac with MPS"),
        ("d", "Skipped: the weights of community-1 are gated: accept the licence first"),
        ("e", "Skipped: does not apply: all agents are one user of the embedded broker"),
    ]
    assert [line[0] for line in conftest.preventable_skips(skips)] == ["a", "b"]
