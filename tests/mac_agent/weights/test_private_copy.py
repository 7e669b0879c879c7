"""What is loaded of a pipeline is what was checked, even if its directory changes in between."""

import os
import shutil
import stat
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mac_agent.engines import registry
from mac_agent.errors import EngineError, ModelChanged
from mac_agent.weights import models
from mac_agent.weights.hub import copy_pipeline
from mac_agent.weights.manifest import MANIFEST_FILE, PipelineChanged, list_files, write_manifest
from mac_agent.weights.pipelines import find_pipeline, pin, private_copy, trust_directory
from tests.mac_agent.small_hub import PIPELINE_FILES

CHECKPOINT = "embedding/pytorch_model.bin"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    directory = tmp_path / "own"
    for name, content in PIPELINE_FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    return directory


def test_the_copy_is_private_holds_the_pinned_files_and_is_gone_afterwards(own, tmp_path, scratch):
    pipeline = trust_directory(tmp_path / "data", own)
    before = os.umask(0)
    try:
        with private_copy(pipeline) as copy:
            assert copy.name == own.name
            assert list_files(copy) == pipeline.manifest.files
            assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
            assert all(not (own / name).samefile(copy / name) for name in PIPELINE_FILES)
            (own / CHECKPOINT).write_bytes(b"changed in place, while it is loaded")
            assert (copy / CHECKPOINT).read_bytes() == PIPELINE_FILES[CHECKPOINT]
    finally:
        os.umask(before)
    assert list(scratch.iterdir()) == []


def becomes_other(path: Path) -> None:
    path.write_bytes(b"pickle that runs code" * 300)


def becomes_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def becomes_endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def becomes_a_linked_directory(path: Path) -> None:
    elsewhere = path.parent.with_name("elsewhere")
    shutil.copytree(path.parent, elsewhere)
    becomes_other(elsewhere / path.name)
    shutil.rmtree(path.parent)
    path.parent.symlink_to(elsewhere)


@pytest.mark.parametrize(
    "change", [becomes_other, becomes_a_link, becomes_endless, becomes_a_linked_directory, Path.unlink]
)
def test_a_file_that_changes_between_check_and_load_is_not_loaded(own, tmp_path, scratch, change, monkeypatch):
    """The change comes at the worst moment: when the directory has been checked, and before anything is read of it."""
    trust_directory(tmp_path / "data", own)
    loaded: list[Path] = []

    def check_then_change(*arguments: object) -> object:
        found = find_pipeline(*arguments)  # type: ignore[arg-type] # as it is called
        change(own / CHECKPOINT)
        return found

    monkeypatch.setattr(registry, "find_pipeline", check_then_change)
    engine = SimpleNamespace(load_pyannote=lambda path, **_: loaded.append(path))
    monkeypatch.setitem(sys.modules, "mac_agent.engines.pyannote_engine", engine)  # the real one brings torch
    with pytest.raises(EngineError):
        registry.load_engine("pyannote", data_dir=tmp_path / "data", pipeline_dir=own)
    assert loaded == []
    assert list(scratch.iterdir()) == []


def test_a_neighbour_that_changes_a_file_all_the_time_never_has_his_loaded(own, tmp_path, scratch):
    pipeline = trust_directory(tmp_path / "data", own)
    good, evil = PIPELINE_FILES[CHECKPOINT], b"x" * len(PIPELINE_FILES[CHECKPOINT])
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for content in (evil, good):
                (own / CHECKPOINT).write_bytes(content)

    neighbour = threading.Thread(target=swap)
    neighbour.start()
    refused = 0
    try:
        for _ in range(100):
            try:
                with private_copy(pipeline) as copy:
                    assert (copy / CHECKPOINT).read_bytes() == good
            except PipelineChanged:
                refused += 1
    finally:
        done.set()
        neighbour.join()
    assert refused


def test_trust_pins_what_is_of_one_moment(own, tmp_path, scratch, monkeypatch):
    """A config that names other classes once it was read is not pinned under the classes of the first."""
    calls: list[Path] = []

    def pin_then_change(directory: Path, **options: object) -> object:
        manifest = pin(directory, **options)  # type: ignore[arg-type] # as it is called
        if not calls:
            text = (own / "config.yaml").read_text()
            (own / "config.yaml").write_text(text.replace("SpeakerDiarization", "SomethingElse"))
        calls.append(directory)
        return manifest

    monkeypatch.setattr("mac_agent.weights.pipelines.pin", pin_then_change)
    with pytest.raises(PipelineChanged, match=r"config\.yaml"):
        trust_directory(tmp_path / "data", own)


def test_a_fetched_pipeline_that_changes_while_it_is_copied_here_is_refused(own, tmp_path, monkeypatch):
    write_manifest(own / MANIFEST_FILE, pin(own, source="owner/pipeline", revision="1" * 40))
    copytree = shutil.copytree

    def change_then_copy(source: Path, *arguments: Any, **options: Any) -> Any:
        if source == own:
            becomes_other(own / CHECKPOINT)
        return copytree(source, *arguments, **options)

    monkeypatch.setattr(shutil, "copytree", change_then_copy)
    with pytest.raises(PipelineChanged, match=r"pytorch_model\.bin"):
        copy_pipeline(tmp_path / "data", own)


def test_the_embedded_engine_loads_the_bytes_it_checked(tmp_path):
    """The checked bytes are handed on, so a later change of the file cannot matter."""
    path = models.embedded_dir(tmp_path) / models.ENCODER.name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"other weights")
    with pytest.raises(ModelChanged):
        models.verified_content(tmp_path, models.ENCODER)
