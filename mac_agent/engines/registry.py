"""Load an engine by its name. Importing this module does not import torch; loading an engine does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mac_agent.engines.engine import Engine
from mac_agent.errors import UnknownEngine
from mac_agent.weights.models import EMBEDDED, EMBEDDED_GE2E, GENERATIONS
from mac_agent.weights.pipelines import find_pipeline, private_copy
from mac_agent.weights.verdict import EXACT, ModeChoice, find_mode

if TYPE_CHECKING:
    from pathlib import Path

ENGINE_NAMES = (EMBEDDED, EMBEDDED_GE2E, "pyannote")
AUTO = "auto"
"""A value of the setting for the engine: `mac_agent.engine_choice.choose_engine` then chooses one of the names."""


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
        data_dir: where ``omi-agent fetch-model`` stores weights, in ``data_dir/models/<name>/``.
        device: ``auto``, ``cpu``, or a torch device name.
        threads: CPU threads that torch may use; None: the engine's default.
        pipeline_dir: for ``pyannote``, a trusted directory of the user's own; None: the fetched pipeline.
        verdicts_dir: for ``pyannote``, where ``omi-agent qualify`` stores its verdicts. *Stretch* runs if one of them
            passed for this pipeline on this device, else *exact*; None: *exact*.
        mode: for ``pyannote``, ``exact`` or ``stretch`` regardless of the verdict; only for measurements.

    Raises:
        UnknownEngine: no engine has this name.
        ModelMissing: the weights were never fetched.
        ModelChanged: a weights file differs from the pinned one.
        PipelineUntrusted: nobody ran ``omi-agent trust`` for the pipeline.
        PipelineChanged: a file of the pipeline differs from the pinned one.
        PipelineUnusable: the pipeline cannot be loaded.
        DeviceUnavailable: the device cannot be used on this machine.
    """
    # Threads that spin at every barrier delay each other as soon as another program uses a core: 30 s of audio then
    # took up to 58 s, and 1.7 s with threads that sleep. Has to be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if name in GENERATIONS:
        from mac_agent.engines.embedded import load_embedded  # noqa: PLC0415 - keeps torch out of every other process

        return load_embedded(data_dir, name, device=device, threads=threads)
    if name == "pyannote":
        # Both are read only during the import: weights are loaded from disk, and no usage is sent to pyannote's makers.
        os.environ |= {"HF_HUB_OFFLINE": "1", "PYANNOTE_METRICS_ENABLED": "0"}
        from mac_agent.engines.pyannote_engine import load_pyannote  # noqa: PLC0415 - the same

        pipeline = find_pipeline(data_dir, pipeline_dir)

        def choose(on_device: str) -> ModeChoice:
            return find_mode(verdicts_dir, pipeline.manifest, on_device) if verdicts_dir else ModeChoice(EXACT, "")

        with private_copy(pipeline) as copy:
            return load_pyannote(copy, device=device, threads=threads, mode=mode or choose)
    raise UnknownEngine(name, ENGINE_NAMES)


def list_devices() -> tuple[str, ...]:
    """Return the devices that torch can use on this machine, fastest first. Imports torch."""
    import torch  # noqa: PLC0415 - as in `load_engine`

    found = [("mps", torch.backends.mps.is_available()), ("cuda", torch.cuda.is_available()), ("cpu", True)]
    return tuple(name for name, is_here in found if is_here)
