"""The embedded engine for tests, loaded once; skipped by name where its weights were not fetched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import pytest

if TYPE_CHECKING:
    from mac_agent.engines.engine import Engine


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return where this machine keeps fetched weights."""
    return Path(os.environ.get("OMI_DATA_DIR") or platformdirs.user_data_dir("omi-diarization"))


@pytest.fixture(scope="session")
def embedded(data_dir: Path) -> Engine:
    """Return the real engine with the real weights."""
    pytest.importorskip("pyannote.audio", reason="could not import pyannote.audio: install the agent extra")
    from mac_agent.engines.engine import ModelMissing
    from mac_agent.engines.registry import load_engine

    try:
        return load_engine("embedded", data_dir=data_dir)
    except ModelMissing as error:
        pytest.skip(f"the weights of the embedded engine are not here: {error}")
