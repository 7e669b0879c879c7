"""The embedded engine for tests, loaded once; skipped by name where its weights were not fetched."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import pytest

from benchmarks.recordings import SHARED_AUDIO
from mac_agent.engines.registry import load_engine
from mac_agent.pipelines import trust_directory
from mac_agent.worker import Worker, WorkerLimits
from tests.mac_agent.engines.engine_worker import EngineWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mac_agent.engines.engine import Engine

ENGINES = ("embedded", "pyannote")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return where this machine keeps fetched weights."""
    return Path(os.environ.get("OMI_DATA_DIR") or platformdirs.user_data_dir("omi-diarization"))


@pytest.fixture(scope="session")
def embedded(data_dir: Path) -> Engine:
    """Return the real engine with the real weights."""
    pytest.importorskip("pyannote.audio", reason="could not import pyannote.audio: install the agent extra")
    from mac_agent.engines.engine import ModelMissing

    try:
        return load_engine("embedded", data_dir=data_dir)
    except ModelMissing as error:
        pytest.skip(f"the weights of the embedded engine are not here: {error}")


@pytest.fixture(scope="session", params=ENGINES)
def engine_worker(
    request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineWorker]:
    """Return each engine in a worker process of its own, loaded once; pyannote, exact, on seeded weights.

    One thread each: two that wait for each other at every layer are slower by far where other programs want the cores.
    """
    pytest.importorskip("pyannote.audio", reason="could not import pyannote.audio: install the agent extra")
    scratch = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        if not (data_dir / "models" / "embedded").is_dir():
            pytest.skip("the weights of the embedded engine are not here: run `omi-agent fetch-model embedded`")
        load = partial(load_engine, "embedded", data_dir=data_dir, threads=1)
    else:
        if not (SHARED_AUDIO.parent / "models").is_dir():
            pytest.skip("shared/models is not beside the repository: no weights to run")
        from benchmarks.local_pipeline import build_pipeline_directory

        directory = build_pipeline_directory(scratch / "seeded")
        trust_directory(scratch, directory)
        load = partial(load_engine, "pyannote", data_dir=scratch, device="cpu", pipeline_dir=directory, threads=1)
    running = EngineWorker(request.param, Worker(load, WorkerLimits(240.0, 240.0, 20.0)), scratch)
    running.start()
    yield running
    running.worker.stop()
