"""A bucket that has a chunk before the bridge's own thread goes on: what is being accepted is not thrown away."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest

from schemas.audio import ChunkDescription
from tests.vps_bridge.dispatch.lease_model import SimulatedWire
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.intake.disk_reserve import DiskReserve
from vps_bridge.intake.ingest import Ingest
from vps_bridge.intake.spool import Spool
from vps_bridge.intake.taken import Taken
from vps_bridge.intake.upload import ArrivedFile, Upload
from vps_bridge.ledger import Ledger
from vps_bridge.settings import BridgeSettings


class FastOutgoing:
    """Has put a chunk before `put` returns, as a bucket near by may while the bridge's thread waits for a processor."""

    def __init__(self, spool: Spool) -> None:
        self.spool, self.outcome = spool, Future[Taken]()

    def put(self, _conversation_id: str, _chunk_id: str, _told: ChunkDescription, file: ArrivedFile) -> Future[Taken]:
        file.kept_as = self.spool.write(file.path.read_bytes())
        return self.outcome


def test_a_chunk_that_the_bucket_has_at_once_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = BridgeSettings(data_dir=tmp_path, ballast_bytes=1_000_000)
    ledger = Ledger(settings.root, exclusive=True)
    store = SqliteConversations(settings.root / "conversations.sqlite3")
    spool, reserve = Spool(settings.root / "spool"), DiskReserve(settings.root, settings.ballast_bytes)
    assert reserve.update()
    ingest = Ingest(settings, ledger, spool, store, SimulatedWire(), reserve)  # type: ignore[arg-type] # it only sends
    outgoing = FastOutgoing(spool)
    monkeypatch.setattr(ingest, "outgoing", outgoing)
    upload = Upload(settings.root / "incoming", max_bytes=1_000_000)
    upload.write(make_wav(2.0))
    upload.finish()
    taken = ingest.take_upload("c", ChunkDescription(chunk_id="k"), upload, None)
    assert taken.later is outgoing.outcome
    assert spool.path(upload.kept_as or "").is_file()
    store.close()
    ledger.close()
