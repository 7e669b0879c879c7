"""With the switch every ledger is on a server, and a directory still names one ledger."""

from pathlib import Path

import pytest

from tests import ledger_switch
from vps_bridge.ledger import Ledger


@pytest.mark.skipif(ledger_switch.IS_ON, reason="does not apply: it is on for all tests")
def test_a_directory_names_a_ledger_on_a_server(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'omi-diarization[postgres]'")
    data_dir, copy = tmp_path / "data", tmp_path / "copy"
    with ledger_switch.switched():
        ids = []
        for root in (data_dir / "bridge", data_dir / "bridge", tmp_path / "other"):
            ledger = Ledger(root, exclusive=True)
            assert ledger.is_on_server
            ledger.agents.set_allowed("some-mac", allowed=True)
            ids.append(ledger.ledger_id)
            ledger.close()
        assert ids[0] == ids[1] != ids[2]
        assert ledger_switch.switched_options(data_dir)["OMI_DATABASE_URL"].startswith("postgresql://")
        ledger_switch.copy_ledger(data_dir / "bridge", copy)
        assert b"some-mac" in ledger_switch.read_ledger(copy)
    ledger = Ledger(tmp_path / "file", exclusive=True)
    assert not ledger.is_on_server
    ledger.close()
    assert ledger_switch.switched_options(data_dir) == {}
