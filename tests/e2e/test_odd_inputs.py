"""Inputs that once failed, through the real path: `omi-bridge import`, `publish`, an agent with the embedded engine."""

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.system import System

pytestmark = [pytest.mark.shared, pytest.mark.long]


@pytest.fixture
def cases(shared_dir: Path) -> Path:
    return shared_dir / "cases"


def test_labels_stay_where_no_voice_is_found(system: System, cases: Path) -> None:
    """A memo of two seconds: no speaker is certain, so the transcript keeps the labels it came with."""
    system.start_bridge()
    system.start_agent()
    system.allow_agent()
    memo = cases / "labels_taken_from_short_memo"
    system.command("omi-bridge", "import", str(memo / "segs.json"), "--conversation", "memo")
    system.command("omi-bridge", "publish", str(memo / "clip.wav"), "--conversation", "memo", "--wait")
    shown = system.show("memo")
    assert shown["state"] == "final"
    assert [segment["speaker"] for segment in shown["segments"]] == ["SPEAKER_00", "SPEAKER_00"]


def test_the_first_id_of_a_whisper_transcript_stays_zero(system: System, cases: Path) -> None:
    system.start_bridge()
    transcript = cases / "import_id_zero" / "t.json"
    system.command("omi-bridge", "import", str(transcript), "--conversation", "whisper")
    segments = system.show("whisper")["segments"]
    assert [segment["id"] for segment in segments] == [str(row["id"]) for row in json.loads(transcript.read_text())]


def test_a_config_file_with_a_byte_order_mark_is_read(system: System, cases: Path, tmp_path: Path) -> None:
    config = shutil.copy(cases / "toml_bom" / "config.toml", tmp_path / "config.toml")
    shown = json.loads(system.command("omi-bridge", "config", "--config", str(config), "--json"))
    assert "data_dir" in shown
