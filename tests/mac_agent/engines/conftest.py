"""Engines for tests, each loaded once; a test is skipped, and says why, where the weights are not on this machine."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import pytest

from benchmarks.recordings import SHARED_AUDIO
from mac_agent.engines.registry import load_engine
from mac_agent.weights.pipelines import trust_directory
from mac_agent.worker import Worker, WorkerLimits
from tests.mac_agent.engines.engine_worker import EngineWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mac_agent.engines.engine import Engine
    from mac_agent.engines.pyannote_engine import PyannoteEngine


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return where this machine keeps fetched weights."""
    return Path(os.environ.get("OMI_DATA_DIR") or platformdirs.user_data_dir("omi-diarization"))


@pytest.fixture(scope="session")
def embedded(data_dir: Path) -> Engine:
    """Return the real engine with the real weights."""
    pytest.importorskip("pyannote.audio", reason="could not import pyannote.audio: install the agent extra")
    from mac_agent.errors import ModelMissing

    try:
        return load_engine("embedded", data_dir=data_dir)
    except ModelMissing as error:
        pytest.skip(f"the weights of the embedded engine are not here: {error}")


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pipeline directory whose speaker network has seeded weights."""
    pytest.importorskip("pyannote.audio", reason="could not import pyannote.audio: install the agent extra")
    if not (SHARED_AUDIO.parent / "models").is_dir():
        pytest.skip("shared/models is not beside the repository: no weights to run")
    import torch

    from benchmarks.local_pipeline import build_pipeline_directory

    torch.set_num_threads(2)
    return build_pipeline_directory(tmp_path_factory.mktemp("pipelines") / "seeded")


@pytest.fixture(scope="session")
def exact(directory: Path) -> PyannoteEngine:
    """Return the pyannote engine in exact mode on the CPU, in this process."""
    import torch

    from mac_agent.engines.pyannote_engine import PyannoteEngine
    from mac_agent.engines.pyannote_pipeline import ExactDiarization, load_pipeline

    return PyannoteEngine(load_pipeline(directory, ExactDiarization), directory, torch.device("cpu"))


@pytest.fixture(scope="session")
def start_engine(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], EngineWorker]]:
    """Start an engine in a worker process of its own at its first use; pyannote in exact mode with seeded weights.

    One thread each: two threads wait for each other at every layer, which is far slower where other programs use the
    cores.
    """
    pytest.importorskip("pyannote.audio", reason="could not import pyannote.audio: install the agent extra")
    with ExitStack() as running:

        @cache
        def start(name: str) -> EngineWorker:
            scratch = tmp_path_factory.mktemp(name)
            worker = Worker(choose_load(name, data_dir, scratch), WorkerLimits(240.0, 240.0, 20.0))
            started = EngineWorker(name, worker, scratch)
            running.callback(worker.stop)
            started.start()
            return started

        yield start


def choose_load(name: str, data_dir: Path, scratch: Path) -> Callable[[], Engine]:
    """Return a function that loads this engine, or skip the test where its weights are not here."""
    if name == "embedded":
        if not (data_dir / "models" / "embedded").is_dir():
            pytest.skip("the weights of the embedded engine are not here: run `omi-agent fetch-model embedded`")
        return partial(load_engine, "embedded", data_dir=data_dir, threads=1)
    if not (SHARED_AUDIO.parent / "models").is_dir():
        pytest.skip("shared/models is not beside the repository: no weights to run")
    from benchmarks.local_pipeline import build_pipeline_directory

    directory = build_pipeline_directory(scratch / "seeded")
    trust_directory(scratch, directory)
    return partial(load_engine, "pyannote", data_dir=scratch, device="cpu", pipeline_dir=directory, threads=1)


@pytest.fixture(scope="session", params=["embedded", pytest.param("pyannote", marks=pytest.mark.slow)])
def engine_worker(request: pytest.FixtureRequest, start_engine: Callable[[str], EngineWorker]) -> EngineWorker:
    """Return each engine in its worker process; what is decoded is the same, so pyannote's is left to acceptance."""
    return start_engine(request.param)
