"""Which engine runs, and whether its weights are on this machine and unchanged. No torch here: nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mac_agent.engines.registry import AUTO, ENGINE_NAMES
from mac_agent.errors import EngineError, ModelMissing, UnknownEngine
from mac_agent.weights.manifest import REVISION_CHARS
from mac_agent.weights.models import EMBEDDED_FILES, verified_path
from mac_agent.weights.pipelines import find_pipeline

if TYPE_CHECKING:
    from mac_agent.settings import AgentSettings


@dataclass(frozen=True)
class EngineChoice:
    """Which engine runs, and why."""

    engine: str
    reason: str


def choose_engine(settings: AgentSettings) -> EngineChoice:
    """Return the engine that is set; for `auto`, pyannote where a pipeline of it is here, else the embedded one.

    A pipeline that is here and cannot be used (changed, untrusted) is chosen nevertheless, and refused by its own name
    when it is loaded: another engine in its place would be worse, silently.
    """
    if settings.engine != AUTO:
        return EngineChoice(settings.engine, "as set")
    if settings.pipeline_dir is not None:
        return EngineChoice("pyannote", f"{AUTO}: its pipeline is set")
    try:
        find_pipeline(settings.weights)
    except ModelMissing:
        return EngineChoice(
            "embedded", f"{AUTO}: no pipeline of pyannote is here; to have it: omi-agent fetch-model pyannote"
        )
    except EngineError:
        return EngineChoice("pyannote", f"{AUTO}: a pipeline of it is here, and cannot be used")
    return EngineChoice("pyannote", f"{AUTO}: a pipeline of it is here")


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
