"""What the listener counted, as a file that `omi-bridge doctor` reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.omi.users import OMI

COUNTS_FILE = "counts.json"


def describe_counts(counts: CaptureCounts) -> dict[str, Any]:
    """Return what is written: what was turned away and what OMI was not told, not what changes with every POST."""
    wanted = ("turned_away", "turned_away_at", "reason", "labels_waiting", "labels_error")
    return {name: value for name, value in asdict(counts).items() if name in wanted}


def read_counts(root: Path) -> CaptureCounts | None:
    """Return what the bridge wrote last; None where its listener never ran."""
    try:
        found = json.loads((root / OMI / COUNTS_FILE).read_text())
        return CaptureCounts(**found)
    except (OSError, ValueError, TypeError):
        return None
