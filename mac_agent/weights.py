"""Whether the weights of an engine are on this machine and unchanged. No torch here: nothing is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mac_agent.engines.engine import UnknownEngine
from mac_agent.engines.registry import ENGINE_NAMES
from mac_agent.manifest import REVISION_CHARS
from mac_agent.models import EMBEDDED_FILES, verified_path
from mac_agent.pipelines import find_pipeline

if TYPE_CHECKING:
    from mac_agent.settings import AgentSettings


def describe_weights(settings: AgentSettings, engine: str) -> str:
    """Check the sha256 of every file of an engine, and return what they are.

    Raises:
        EngineError: there is no such engine, or its weights are missing, changed or untrusted.
    """
    if engine == "embedded":
        for weights in EMBEDDED_FILES:
            verified_path(settings.weights, weights)
        return ", ".join(f"{weights.model} {weights.revision}" for weights in EMBEDDED_FILES)
    if engine == "pyannote":
        manifest = find_pipeline(settings.weights, settings.pipeline_dir).manifest
        return f"{manifest.source} {manifest.revision[:REVISION_CHARS]}, {len(manifest.files)} files"
    raise UnknownEngine(engine, ENGINE_NAMES)
