"""Choose the engine that runs, and check that its weights are here and unchanged. Loads no engine and no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mac_agent.engines.registry import AUTO, ENGINE_NAMES
from mac_agent.errors import EngineError, ModelMissing, UnknownEngine
from mac_agent.weights.manifest import REVISION_CHARS
from mac_agent.weights.models import EMBEDDED, EMBEDDED_GE2E, GENERATIONS, has_weights, verified_path
from mac_agent.weights.pipelines import find_pipeline

if TYPE_CHECKING:
    from mac_agent.settings import AgentSettings


@dataclass(frozen=True)
class EngineChoice:
    """The engine that runs, and the reason for it."""

    engine: str
    reason: str


def choose_engine(settings: AgentSettings) -> EngineChoice:
    """Return the configured engine; for `auto`, pyannote where one of its pipelines is here, else embedded.

    Where `embedded` was fetched before it had its present networks and not since, its first generation runs.

    A pipeline that is here but cannot be used (changed, untrusted) is chosen all the same. Loading it then fails with
    an error that names it; falling back to the embedded engine would lower the accuracy without anyone noticing.
    """
    if settings.engine == EMBEDDED:
        return _choose_generation(settings, "as set")
    if settings.engine != AUTO:
        return EngineChoice(settings.engine, "as set")
    if settings.pipeline_dir is not None:
        return EngineChoice("pyannote", f"{AUTO}: its pipeline is set")
    try:
        find_pipeline(settings.weights)
    except ModelMissing:
        return _choose_generation(
            settings, f"{AUTO}: no pipeline of pyannote is here; to have it: omi-agent fetch-model pyannote"
        )
    except EngineError:
        return EngineChoice("pyannote", f"{AUTO}: a pipeline of it is here, and cannot be used")
    return EngineChoice("pyannote", f"{AUTO}: a pipeline of it is here")


def _choose_generation(settings: AgentSettings, reason: str) -> EngineChoice:
    if has_weights(settings.weights, EMBEDDED) or not has_weights(settings.weights, EMBEDDED_GE2E):
        return EngineChoice(EMBEDDED, reason)
    better = "the weights here are of its first generation; for the better ones: omi-agent fetch-model embedded"
    return EngineChoice(EMBEDDED_GE2E, f"{reason}; {better}")


def describe_weights(settings: AgentSettings, engine: str) -> str:
    """Check the sha256 of every weights file of an engine, and return a line that describes the weights.

    Raises:
        EngineError: there is no such engine, or its weights are missing, changed or untrusted.
    """
    if engine in GENERATIONS:
        for weights in GENERATIONS[engine]:
            verified_path(settings.weights, weights)
        return ", ".join(f"{weights.model} {weights.revision}" for weights in GENERATIONS[engine])
    if engine == "pyannote":
        manifest = find_pipeline(settings.weights, settings.pipeline_dir).manifest
        return f"{manifest.source} {manifest.revision[:REVISION_CHARS]}, {len(manifest.files)} files"
    raise UnknownEngine(engine, ENGINE_NAMES)
