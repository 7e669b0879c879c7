"""docs/delivery-rules.md names a test for every rule; a test that was renamed or dropped leaves a rule unproven."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def unproven(text: str) -> list[str]:
    """Return what the text names as a test and is none."""
    return [f"{file}::{name}" if name else file for file, name in NAMED.findall(text) if not is_test(ROOT / file, name)]


def is_test(path: Path, name: str) -> bool:
    """Whether the file is there and, where a test is named, has it."""
    if not path.is_file():
        return False
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return not name or any(
        isinstance(node, functions) and node.name == name for node in ast.parse(path.read_text()).body
    )


def test_every_rule_of_delivery_has_a_test_that_exists():
    text = (ROOT / "docs" / "delivery-rules.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| rule |")]
    assert rows
    assert [row for row in rows if not NAMED.search(row)] == [], "a rule without a test"
    assert unproven(text) == []


def test_a_test_that_is_gone_is_noticed():
    assert unproven("| x | `tests/test_delivery_rules.py::test_that_never_was` |") != []
    assert unproven("| x | `tests/test_never.py::test_x` |") != []
