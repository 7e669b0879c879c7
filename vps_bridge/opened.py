"""The mark of a data directory with which a bridge has opened its ledger, be that a file there or on a server."""

from __future__ import annotations

from pathlib import Path

OPENED_NAME = "opened"
OPENED = Path("bridge") / OPENED_NAME
"""Where the mark is, below the data directory."""


def mark_opened(root: Path) -> None:
    """Leave the mark, an empty file, in the bridge's directory: for commands that look for its data."""
    (root / OPENED_NAME).touch(mode=0o600)
