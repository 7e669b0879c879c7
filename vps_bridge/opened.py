"""The mark of a data directory with which a bridge has opened ledger and store, be they files there or on a server."""

from __future__ import annotations

from pathlib import Path

OPENED_NAME = "opened"
OPENED = Path("bridge") / OPENED_NAME
"""Where the mark is, below the data directory."""


def mark_opened(root: Path) -> None:
    """Leave the mark, an empty file, in the bridge's directory: for commands that look for its data."""
    (root / OPENED_NAME).touch(mode=0o600)


def is_marked(root: Path) -> bool:
    """Return whether a bridge has opened its ledger and store with this directory."""
    return (root / OPENED_NAME).exists()
