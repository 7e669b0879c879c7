"""Fetching a gated pipeline, and the message of each error. The hub is a small HTTP server on loopback."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mac_agent.weights.manifest import PipelineChanged
from mac_agent.weights.pipelines import find_pipeline, pipelines_dir
from tests.brokers import free_port
from tests.inbox import WAIT_S
from tests.mac_agent.small_hub import COMMUNITY, GOOD_TOKEN, PIPELINE_FILES, SmallHub

ROOT = Path(__file__).parents[3]
EXIT_FAILED = 1
VERSION_3_1 = "pyannote/speaker-diarization-3.1"
CONFIG_3_1 = b"""\
version: 3.1.0
pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: AgglomerativeClustering
    segmentation: pyannote/segmentation-3.0
    embedding: pyannote/wespeaker-voxceleb-resnet34-LM
"""


def fetch(
    home: Path, *arguments: str | Path, url: str, token: str = "", yes: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run `omi-agent fetch-model pyannote` as a user types it, in a separate home directory."""
    arguments = (*arguments, "--yes") if yes and "--from" not in arguments else arguments
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE"))}
    return subprocess.run(
        [sys.executable, "-m", "mac_agent.commands.main", "fetch-model", "pyannote", *arguments],
        cwd=ROOT,
        env={
            **environment,
            "OMI_DATA_DIR": str(home / "data"),
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": url,
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_XET": "1",
            "NO_COLOR": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )


@pytest.fixture
def hub():
    with SmallHub() as hub:
        yield hub


def fetched(home: Path) -> list[Path]:
    """Everything in the directory of the pipelines, temporary directories included."""
    return sorted(pipelines_dir(home / "data").iterdir()) if pipelines_dir(home / "data").exists() else []


def test_a_gated_pipeline_is_fetched_pinned_and_found_without_the_hub(hub, tmp_path):
    done = fetch(tmp_path, url=hub.url, token=GOOD_TOKEN)
    assert done.returncode == 0, done.stderr
    [directory] = fetched(tmp_path)
    assert directory.name == f"speaker-diarization-community-1@{hub.commit(COMMUNITY)[:12]}"
    found = find_pipeline(tmp_path / "data")
    assert found.directory == directory
    assert (found.manifest.source, found.manifest.revision) == (COMMUNITY, hub.commit(COMMUNITY))
    for name, content in PIPELINE_FILES.items():
        assert (directory / name).read_bytes() == content
    assert {file.path for file in found.manifest.files} == set(PIPELINE_FILES)
    written = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert GOOD_TOKEN not in written + done.stdout + done.stderr


def test_what_is_here_already_is_not_fetched_again(hub, tmp_path):
    assert fetch(tmp_path, url=hub.url, token=GOOD_TOKEN).returncode == 0
    hub.requests.clear()
    assert fetch(tmp_path, url=hub.url, token=GOOD_TOKEN).returncode == 0
    assert not [request for request in hub.requests if "/resolve/" in request]
    assert len(fetched(tmp_path)) == 1


def test_a_changed_file_refuses_to_load_by_name_and_fetching_again_repairs_it(hub, tmp_path):
    assert fetch(tmp_path, url=hub.url, token=GOOD_TOKEN).returncode == 0
    [directory] = fetched(tmp_path)
    (directory / "embedding" / "pytorch_model.bin").write_bytes(b"another network")
    with pytest.raises(PipelineChanged, match=r"embedding/pytorch_model\.bin.*omi-agent fetch-model pyannote"):
        find_pipeline(tmp_path / "data")
    assert fetch(tmp_path, url=hub.url, token=GOOD_TOKEN).returncode == 0
    assert find_pipeline(tmp_path / "data").directory == directory


def test_no_token_names_the_page_of_the_licence_and_how_to_give_one(hub, tmp_path):
    refused = fetch(tmp_path, url=hub.url)
    assert refused.returncode == EXIT_FAILED
    assert f"https://huggingface.co/{COMMUNITY}" in refused.stderr
    assert "https://huggingface.co/settings/tokens" in refused.stderr
    assert "HF_TOKEN" in refused.stderr
    assert fetched(tmp_path) == []


def test_conditions_not_accepted_name_their_page_and_not_the_token(hub, tmp_path):
    hub.accepted = False
    refused = fetch(tmp_path, url=hub.url, token=GOOD_TOKEN)
    assert refused.returncode == EXIT_FAILED
    assert "has not accepted the conditions" in refused.stderr
    assert f"https://huggingface.co/{COMMUNITY}" in refused.stderr
    assert GOOD_TOKEN not in refused.stderr


def test_a_revoked_token_has_another_message_than_conditions_not_accepted(hub, tmp_path):
    refused = fetch(tmp_path, url=hub.url, token="hf_" + "x" * 34)
    assert refused.returncode == EXIT_FAILED
    assert "refused the token from the variable HF_TOKEN" in refused.stderr
    assert "xxxx" not in refused.stderr


def test_an_unreachable_hub_is_reported_with_the_way_around_it(tmp_path):
    refused = fetch(tmp_path, url=f"http://127.0.0.1:{free_port()}", token=GOOD_TOKEN)
    assert refused.returncode == EXIT_FAILED
    assert "cannot be reached" in refused.stderr
    assert "--from" in refused.stderr


def test_a_file_changed_on_its_way_is_not_kept(hub, tmp_path):
    hub.changed_on_the_way = "embedding/pytorch_model.bin"
    refused = fetch(tmp_path, url=hub.url, token=GOOD_TOKEN)
    assert refused.returncode == EXIT_FAILED
    assert "embedding/pytorch_model.bin" in refused.stderr
    assert fetched(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("nobody/nothing",), "no nobody/nothing on the hub"), (("--revision", "v9"), "no such revision")],
)
def test_a_repository_or_revision_that_the_hub_does_not_have_is_named(hub, tmp_path, arguments, said):
    refused = fetch(tmp_path, *arguments, url=hub.url, token=GOOD_TOKEN)
    assert refused.returncode == EXIT_FAILED
    assert said in refused.stderr


def test_a_repository_that_is_no_pipeline_is_refused(hub, tmp_path):
    hub.repositories["someone/words"] = {"README.md": b"words"}
    refused = fetch(tmp_path, "someone/words", url=hub.url, token=GOOD_TOKEN)
    assert refused.returncode == EXIT_FAILED
    assert "config.yaml" in refused.stderr
    assert fetched(tmp_path) == []


def test_parts_of_other_repositories_end_up_in_one_directory(hub, tmp_path):
    """The config of 3.1 names its networks, and pyannote.audio 4 takes the PLDA of community-1 by default."""
    hub.repositories[VERSION_3_1] = {"config.yaml": CONFIG_3_1}
    hub.repositories["pyannote/segmentation-3.0"] = {"pytorch_model.bin": b"s3", "config.yaml": b"no: pipeline"}
    hub.repositories["pyannote/wespeaker-voxceleb-resnet34-LM"] = {"pytorch_model.bin": b"e3"}
    done = fetch(tmp_path, VERSION_3_1, url=hub.url, token=GOOD_TOKEN)
    assert done.returncode == 0, done.stderr
    found = find_pipeline(tmp_path / "data")
    assert (found.directory / "segmentation" / "pytorch_model.bin").read_bytes() == b"s3"
    assert (found.directory / "embedding" / "pytorch_model.bin").read_bytes() == b"e3"
    assert (found.directory / "plda" / "plda.npz").read_bytes() == PIPELINE_FILES["plda/plda.npz"]
    config = (found.directory / "config.yaml").read_text()
    assert all(f"{part}: $model/{part}" in config for part in ("segmentation", "embedding", "plda"))
    assert found.manifest.components[COMMUNITY] == hub.commit(COMMUNITY)


def test_a_directory_from_another_machine_keeps_its_pins(hub, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert fetch(first, url=hub.url, token=GOOD_TOKEN).returncode == 0
    [directory] = fetched(first)
    nowhere = f"http://127.0.0.1:{free_port()}"
    done = fetch(second, "--from", directory, url=nowhere)
    assert done.returncode == 0, done.stderr
    assert find_pipeline(second / "data").manifest.revision == hub.commit(COMMUNITY)
    shutil.copytree(directory, tmp_path / "cut")
    (tmp_path / "cut" / "plda" / "plda.npz").write_bytes(b"")
    refused = fetch(second, "--from", tmp_path / "cut", url=nowhere)
    assert refused.returncode == EXIT_FAILED
    assert "plda/plda.npz" in refused.stderr


def test_a_plain_directory_is_taken_and_pinned_as_it_is(tmp_path):
    for name, content in PIPELINE_FILES.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(content)
    done = fetch(tmp_path, "--from", tmp_path / "mine", url=f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 0, done.stderr
    found = find_pipeline(tmp_path / "data")
    assert found.directory.name.startswith("mine@")
    assert found.manifest.classes == ("pyannote.audio.pipelines.SpeakerDiarization",)


def test_a_new_commit_is_shown_and_taken_only_when_somebody_says_so(hub, tmp_path):
    commit = hub.commit(COMMUNITY)
    refused = fetch(tmp_path, url=hub.url, token=GOOD_TOKEN, yes=False)
    assert refused.returncode == EXIT_FAILED
    assert f"--revision {commit}" in refused.stderr
    assert "--yes" in refused.stderr
    assert not [request for request in hub.requests if "/resolve/" in request], "something was fetched"
    assert fetched(tmp_path) == []
    named = fetch(tmp_path, "--revision", commit, url=hub.url, token=GOOD_TOKEN, yes=False)
    assert named.returncode == 0, named.stderr
    assert find_pipeline(tmp_path / "data").manifest.revision == commit


def test_the_pinned_commit_is_used_again_until_another_is_confirmed(hub, tmp_path):
    assert fetch(tmp_path, url=hub.url, token=GOOD_TOKEN).returncode == 0
    first = hub.commit(COMMUNITY)
    hub.repositories[COMMUNITY]["embedding/pytorch_model.bin"] = b"somebody pushed this to main"
    again = fetch(tmp_path, url=hub.url, token=GOOD_TOKEN, yes=False)
    assert again.returncode == 0, again.stderr
    assert find_pipeline(tmp_path / "data").manifest.revision == first
    unasked = fetch(tmp_path, "--revision", "main", url=hub.url, token=GOOD_TOKEN, yes=False)
    assert unasked.returncode == EXIT_FAILED
    assert hub.commit(COMMUNITY) in unasked.stderr
    assert find_pipeline(tmp_path / "data").manifest.revision == first
    assert fetch(tmp_path, "--revision", "main", url=hub.url, token=GOOD_TOKEN).returncode == 0
    assert find_pipeline(tmp_path / "data").manifest.revision == hub.commit(COMMUNITY)


def test_the_question_is_asked_at_a_terminal_and_no_is_no(hub, tmp_path):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "OMI_DATA_DIR": str(tmp_path / "data"), "HF_HOME": str(tmp_path / "hf")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": GOOD_TOKEN, "HF_HUB_DISABLE_XET": "1"}
    environment["HF_HUB_OFFLINE"] = "0"  # a test that loaded an engine in this process leaves it set
    for answer, code in (("n\n", EXIT_FAILED), ("y\n", 0)):
        os.write(ours, answer.encode())
        done = subprocess.run(
            [sys.executable, "-m", "mac_agent.commands.main", "fetch-model", "pyannote"],
            cwd=ROOT,
            env=environment,
            stdin=theirs,
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
        )
        assert done.returncode == code, done.stderr
        assert hub.commit(COMMUNITY) in done.stderr
        assert "Fetch this commit" in done.stderr
        assert bool(fetched(tmp_path)) is (code == 0)
    os.close(ours)
    os.close(theirs)


def test_commits_of_the_parts_are_asked_about_too_and_kept(hub, tmp_path):
    hub.repositories[VERSION_3_1] = {"config.yaml": CONFIG_3_1}
    hub.repositories["pyannote/segmentation-3.0"] = {"pytorch_model.bin": b"s3"}
    hub.repositories["pyannote/wespeaker-voxceleb-resnet34-LM"] = {"pytorch_model.bin": b"e3"}
    refused = fetch(
        tmp_path, VERSION_3_1, "--revision", hub.commit(VERSION_3_1), url=hub.url, token=GOOD_TOKEN, yes=False
    )
    assert refused.returncode == EXIT_FAILED
    assert hub.commit("pyannote/segmentation-3.0") in refused.stderr
    assert fetched(tmp_path) == []
    assert fetch(tmp_path, VERSION_3_1, url=hub.url, token=GOOD_TOKEN).returncode == 0
    assert fetch(tmp_path, VERSION_3_1, url=hub.url, token=GOOD_TOKEN, yes=False).returncode == 0


def test_a_hub_whose_commit_is_a_path_is_refused(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(SmallHub, "commit", lambda *_: "../../../../elsewhere")
    refused = fetch(tmp_path, url=hub.url, token=GOOD_TOKEN)
    assert refused.returncode == EXIT_FAILED
    assert "no commit" in refused.stderr
    assert fetched(tmp_path) == []


def test_a_directory_that_is_no_pipeline_is_named_and_not_copied(tmp_path: Path) -> None:
    holiday = tmp_path / "holiday"
    holiday.mkdir()
    (holiday / "film.mkv").write_bytes(bytes(2**20))
    done = fetch(tmp_path, "--from", holiday, url="http://127.0.0.1:9")
    assert done.returncode == EXIT_FAILED
    assert f"{holiday} has no readable config.yaml" in " ".join(done.stderr.split())
    assert not pipelines_dir(tmp_path / "data").exists()
