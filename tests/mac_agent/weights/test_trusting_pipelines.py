"""A pipeline directory of the user's own: trusted once, verified before every load, refused by name after a change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mac_agent.errors import EngineError
from mac_agent.weights.manifest import ManifestUnreadable, PipelineChanged, list_files
from mac_agent.weights.pipeline_config import NotAPipeline
from mac_agent.weights.pipelines import PipelineMissing, PipelineUntrusted, find_pipeline, trust_directory
from tests.mac_agent.small_hub import CONFIG, PIPELINE_FILES

ROOT = Path(__file__).parents[3]
EXIT_FAILED = 1


@pytest.fixture
def own(tmp_path):
    """A pipeline directory."""
    directory = tmp_path / "own"
    for name, content in PIPELINE_FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def weights(tmp_path):
    return tmp_path / "data"


def test_a_directory_nobody_trusted_is_refused_with_the_command_to_type(own, weights):
    with pytest.raises(PipelineUntrusted, match=f"omi-agent trust {own}"):
        find_pipeline(weights, own)


def test_a_trusted_directory_is_found_unchanged_and_nothing_was_written_into_it(own, weights):
    before = list_files(own), sorted(path.name for path in own.rglob("*"))
    trust_directory(weights, own)
    assert (list_files(own), sorted(path.name for path in own.rglob("*"))) == before
    assert find_pipeline(weights, own).directory == own
    assert {file.path for file in find_pipeline(weights, own).manifest.files} == set(PIPELINE_FILES)


@pytest.mark.parametrize("name", PIPELINE_FILES)
def test_one_changed_byte_is_refused_by_name(own, weights, name):
    trust_directory(weights, own)
    content = bytearray((own / name).read_bytes())
    content[-1] ^= 1
    (own / name).write_bytes(content)
    with pytest.raises(PipelineChanged, match=f"{name}.*omi-agent trust"):
        find_pipeline(weights, own)


def test_a_missing_and_an_added_file_are_refused_by_name(own, weights):
    trust_directory(weights, own)
    (own / "plda" / "extra.py").write_text("import os")
    with pytest.raises(PipelineChanged, match=r"extra\.py was added"):
        find_pipeline(weights, own)
    (own / "plda" / "extra.py").unlink()
    (own / "plda" / "plda.npz").unlink()
    with pytest.raises(PipelineChanged, match=r"plda\.npz is missing"):
        find_pipeline(weights, own)


def test_what_the_finder_leaves_behind_changes_nothing(own, weights):
    trust_directory(weights, own)
    (own / "plda" / ".DS_Store").write_bytes(b"icons")
    assert find_pipeline(weights, own).directory == own


def test_trusting_again_accepts_the_change(own, weights):
    trust_directory(weights, own)
    (own / "embedding" / "pytorch_model.bin").write_bytes(b"trained further")
    trust_directory(weights, own)
    assert find_pipeline(weights, own).directory == own


def test_the_same_directory_by_another_path_is_still_trusted(own, weights, tmp_path):
    trust_directory(weights, own)
    (tmp_path / "alias").symlink_to(own)
    assert find_pipeline(weights, tmp_path / "alias").directory == own


def test_another_directory_of_equal_content_is_not_trusted(own, weights, tmp_path):
    trust_directory(weights, own)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(PipelineUntrusted):
        find_pipeline(weights, other)
    with pytest.raises(PipelineMissing, match="Correct --pipeline or OMI_PIPELINE_DIR"):
        find_pipeline(weights, tmp_path / "nowhere")


def test_a_linked_directory_is_not_trusted(own, weights, tmp_path):
    (own / "embedding").rename(tmp_path / "elsewhere")
    (own / "embedding").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PipelineChanged, match="embedding is a link"):
        trust_directory(weights, own)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("embedding: pyannote/wespeaker-voxceleb-resnet34-LM", "takes its embedding from 'pyannote/wespeaker"),
        ("embedding: /opt/models/pytorch_model.bin", "takes its embedding from '/opt"),
        ("embedding: $model/../elsewhere", "leaves the directory"),
        ("embedding: $model/other", r"other/pytorch_model\.bin is missing"),
        ("embedding_batch_size: 32", "takes its embedding from the hub"),
    ],
)
def test_parts_that_no_manifest_would_guard_are_refused(own, weights, line, said):
    (own / "config.yaml").write_text(CONFIG.replace("embedding: $model/embedding", line))
    with pytest.raises(NotAPipeline, match=said):
        trust_directory(weights, own)


@pytest.mark.parametrize("text", ["", "[1, 2]", "pipeline: 3", "a: [", "pipeline: {name: x, params: 4}", "\udcff"])
def test_a_config_that_is_none_is_refused(own, weights, text):
    (own / "config.yaml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(NotAPipeline):
        trust_directory(weights, own)


def test_a_config_runs_nothing_while_it_is_read(own, weights, tmp_path):
    marker = tmp_path / "ran"
    (own / "config.yaml").write_text(f"!!python/object/apply:os.system ['touch {marker}']")
    with pytest.raises(NotAPipeline):
        trust_directory(weights, own)
    assert not marker.exists()


@pytest.mark.parametrize("damage", ["", "{}", '{"version": 2}'])
def test_a_damaged_manifest_is_no_trust(own, weights, damage):
    trust_directory(weights, own)
    [manifest] = (weights / "trusted").iterdir()
    manifest.write_text(damage)
    with pytest.raises(ManifestUnreadable, match=manifest.name):
        find_pipeline(weights, own)


def test_a_manifest_that_points_outside_is_refused(own, weights):
    trust_directory(weights, own)
    [path] = (weights / "trusted").iterdir()
    manifest = json.loads(path.read_text())
    manifest["files"][0]["path"] = "../config.yaml"
    path.write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match="outside"):
        find_pipeline(weights, own)


def test_the_command_shows_files_sizes_and_classes(own, weights):
    def trust(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mac_agent.commands.main", "trust", *arguments],
            cwd=ROOT,
            env={**os.environ, "OMI_DATA_DIR": str(weights), "NO_COLOR": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )

    shown = trust(str(own))
    assert shown.returncode == 0, shown.stderr
    assert "pyannote.audio.pipelines.SpeakerDiarization" in shown.stdout
    assert all(name in shown.stdout for name in PIPELINE_FILES)
    assert f"{len(PIPELINE_FILES['segmentation/pytorch_model.bin']):,}" in shown.stdout
    pinned = json.loads(trust(str(own), "--json").stdout)
    assert pinned["revision"] == find_pipeline(weights, own).manifest.revision
    (own / "config.yaml").unlink()
    refused = trust(str(own))
    assert refused.returncode == EXIT_FAILED
    assert "config.yaml" in refused.stderr
