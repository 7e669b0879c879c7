"""`omi-bridge show` names the segments that `omi-bridge correct` takes: whole, in one line, and at 80 columns."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.conversation import ConversationEvent, EventType, TranscriptSegment, Verdict
from vps_bridge.commands import terminal
from vps_bridge.commands.main import app
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.ledger import Ledger

COLUMNS = 80
SAID = "So we drove on until the coast road ends, and there it was, the whole bay at once. [laughter]"
IDS = {
    "s": ("s-1", "s-2"),
    "of-import": ("call-1-00001", "call-1-00002"),
    "uuid": ("7d1c2e9a-52b4-4f2b-9d0e-0c5f9a3e7b11", "7d1c2e9a-52b4-4f2b-9d0e-0c5f9a3e7b12"),
    "of-watch-folder": (f"file-{'a1' * 16}-00001", f"file-{'a1' * 16}-00002"),
    "wide": ("区間一", "区間二"),
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
@pytest.mark.parametrize("columns", [COLUMNS, 200])
def test_each_segment_s_id_can_be_copied_and_given_to_correct(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: tuple[str, ...], columns: int
) -> None:
    monkeypatch.setattr(terminal.out, "_width", columns)
    ledger = Ledger(tmp_path / "bridge", exclusive=True)
    ledger.events.note(ConversationEvent(event_id="e-1", type=EventType.STARTED), "call", Verdict.ACCEPTED)
    ledger.close()
    store = SqliteConversations(tmp_path / "bridge" / STORE_FILE)
    segments = [
        TranscriptSegment(id=name, start_s=9.0 * place, end_s=9.0 * place + 8, text=SAID)
        for place, name in enumerate(ids)
    ]
    store.upsert_segments("call", 1, segments)
    store.close()
    environment = {"OMI_DATA_DIR": str(tmp_path), "OMI_CONFIG": ""}
    shown = CliRunner().invoke(app, ["show", "call"], env=environment).output
    assert all(len(line) <= columns for line in shown.splitlines()), shown
    found = [word for line in shown.splitlines() for word in line.split() if word in ids]
    assert found == list(ids), shown
    assert "whole bay" in " ".join(shown.split())
    done = CliRunner().invoke(app, ["correct", "call", "segment", found[0], "--person", "anna"], env=environment)
    assert done.exit_code == 0, done.output
