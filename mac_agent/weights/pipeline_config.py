"""Read the `config.yaml` of a pyannote pipeline: which Python classes it names, and where its networks come from.

It is read with YAML's safe loader, and nothing that it names is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from broker.text_files import read_text
from mac_agent.errors import EngineError

CONFIG_FILE = "config.yaml"
INSIDE = "$model/"  # how a config names a part in its own directory (pyannote.audio core/pipeline.py)
CHECKPOINT, PLDA_FILES = "pytorch_model.bin", ("plda.npz", "xvec_transform.npz")
# What pyannote.audio 4 takes from the hub unless the config names it (pipelines/speaker_diarization.py).
PARTS = ("segmentation", "embedding", "plda")


class NotAPipeline(EngineError):
    """A directory or repository is not a pipeline that can be loaded from disk alone."""


@dataclass(frozen=True)
class PipelineConfig:
    """The content of a `config.yaml`."""

    document: dict[str, Any]
    classes: tuple[str, ...]
    parts: dict[str, Any]
    """The values of `segmentation`, `embedding` and `plda`; a part that the config does not name is missing here."""


def read_config(directory: Path) -> PipelineConfig:
    """Read the config of a pipeline directory.

    Raises:
        NotAPipeline: there is no config, or it names no pipeline.
    """
    path = directory / CONFIG_FILE
    try:
        document = yaml.safe_load(read_text(path))
    except OSError as error:
        raise NotAPipeline(
            f"{directory} has no readable {CONFIG_FILE}: it is not a pyannote pipeline. Name the directory that holds "
            f"{CONFIG_FILE}, segmentation/, embedding/ and plda/."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise NotAPipeline(f"{path} is not YAML. Take the file of the published pipeline.") from error
    pipeline = document.get("pipeline") if isinstance(document, dict) else None
    if not isinstance(pipeline, dict) or not isinstance(pipeline.get("name"), str):
        raise NotAPipeline(f"{path} names no pipeline (`pipeline: name: …`). Take the file of the published pipeline.")
    params = pipeline.get("params") or {}
    if not isinstance(params, dict):
        raise NotAPipeline(f"{path}: `pipeline: params:` must be a mapping.")
    preprocessors = document.get("preprocessors") or {}
    named = [entry.get("name") for entry in preprocessors.values()] if isinstance(preprocessors, dict) else []
    classes = (pipeline["name"], *(name for name in named if isinstance(name, str)))
    return PipelineConfig(document, classes, {name: params[name] for name in PARTS if name in params})


def check_parts(directory: Path, config: PipelineConfig) -> None:
    """Check that all parts are in the directory itself, so that its manifest covers them.

    Raises:
        NotAPipeline: a part is missing or lies elsewhere; the message says what to write instead.
    """
    for name in PARTS:
        value = config.parts.get(name)
        remedy = f"Put its files into {directory / name} and write `{name}: {INSIDE}{name}` below `params:`."
        if not isinstance(value, str) or not value.startswith(INSIDE):
            source = "the hub" if value is None else repr(value)
            raise NotAPipeline(
                f"{directory / CONFIG_FILE} takes its {name} from {source}, outside this directory, where no manifest "
                f"guards it. {remedy}"
            )
        inside = PurePosixPath(value.removeprefix(INSIDE))
        if ".." in inside.parts or inside.is_absolute():
            raise NotAPipeline(f"{directory / CONFIG_FILE}: {value!r} leaves the directory. {remedy}")
        for file in PLDA_FILES if name == "plda" else (CHECKPOINT,):
            if not (directory / inside / file).is_file():
                raise NotAPipeline(f"{directory / inside / file} is missing, and {CONFIG_FILE} asks for it. {remedy}")
