"""Load an engine by name. torch is imported only when an engine that needs it is loaded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mac_agent.engines.engine import Engine
from mac_agent.errors import UnknownEngine
from mac_agent.weights.pipelines import find_pipeline
from mac_agent.weights.verdict import EXACT, ModeChoice, find_mode

if TYPE_CHECKING:
    from pathlib import Path

ENGINE_NAMES = ("embedded", "pyannote")
AUTO = "auto"
"""In settings: `mac_agent.engine_choice.choose_engine` says which of them that is."""


def load_engine(
    name: str,
    *,
    data_dir: Path,
    device: str = "auto",
    threads: int | None = None,
    pipeline_dir: Path | None = None,
    verdicts_dir: Path | None = None,
    mode: str | None = None,
) -> Engine:
    """Load an engine and its weights, ready to diarize.

    Args:
        name: one of ``ENGINE_NAMES``.
        data_dir: where ``omi-agent fetch-model`` keeps weights, in ``data_dir/models/<name>/``.
        device: ``auto``, ``cpu``, or a torch device name.
        threads: CPU threads torch may use; the engine's own default when None.
        pipeline_dir: for ``pyannote``, a trusted directory of the user's own; the fetched pipeline when None.
        verdicts_dir: for ``pyannote``, where ``omi-agent qualify`` keeps its verdicts: *stretch* runs with one that
            passed for this pipeline on this device, and *exact* without; None: *exact*.
        mode: for ``pyannote``, ``exact`` or ``stretch`` whatever the verdict; only to measure.

    Raises:
        UnknownEngine: no engine has this name.
        ModelMissing: the weights were never fetched.
        ModelChanged: a weights file is not the pinned one.
        PipelineUntrusted, PipelineChanged: nobody vouched for the pipeline, or a file of it is another since.
        PipelineUnusable: the pipeline cannot be loaded.
        DeviceUnavailable: the device cannot be used on this machine.
    """
    # Threads that spin at every barrier starve each other as soon as another program wants a core: 30 s of audio
    # took up to 58 s beside a busy core, 1.7 s with threads that sleep. Must stand before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if name == "embedded":
        from mac_agent.engines.embedded import load_embedded  # noqa: PLC0415 - keeps torch out of every other process

        return load_embedded(data_dir, device=device, threads=threads)
    if name == "pyannote":
        # Before the import: both are read only then. Weights come from the disk, and nothing is reported to anyone.
        os.environ |= {"HF_HUB_OFFLINE": "1", "PYANNOTE_METRICS_ENABLED": "0"}
        from mac_agent.engines.pyannote_engine import load_pyannote  # noqa: PLC0415 - the same

        pipeline = find_pipeline(data_dir, pipeline_dir)

        def choose(on_device: str) -> ModeChoice:
            return find_mode(verdicts_dir, pipeline.manifest, on_device) if verdicts_dir else ModeChoice(EXACT, "")

        return load_pyannote(pipeline.directory, device=device, threads=threads, mode=mode or choose)
    raise UnknownEngine(name, ENGINE_NAMES)


def list_devices() -> tuple[str, ...]:
    """Return the devices torch can use on this machine, fastest first. Imports torch."""
    import torch  # noqa: PLC0415 - as in `load_engine`

    found = [("mps", torch.backends.mps.is_available()), ("cuda", torch.cuda.is_available()), ("cpu", True)]
    return tuple(name for name, is_here in found if is_here)
