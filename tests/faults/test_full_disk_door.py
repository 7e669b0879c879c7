"""The disk fills up while audio is uploaded over HTTP: it is refused, nothing of it is kept, and later it is taken."""

from collections.abc import Iterator
from pathlib import Path

from tests.brokers import run_mosquitto
from tests.faults.small_disk import mount_small_disk
from tests.vps_bridge.http.door import Door, open_door
from tests.vps_bridge.live_bridge import Backend, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import make_wav

DISK_BYTES, BALLAST_BYTES = 16 * 2**20, 2**20


def test_a_disk_that_fills_up_during_an_upload_refuses_it_and_recovers(tmp_path: Path) -> None:
    with mount_small_disk(tmp_path / "disk", DISK_BYTES) as disk, run_mosquitto(tmp_path) as broker:
        backend = Backend(broker)
        options = open_door(OMI_BALLAST_BYTES=str(BALLAST_BYTES), OMI_MAX_CHUNK_BYTES=str(8 * 2**20))
        with run_bridge(broker, disk.path / "data", backend, **options) as bridge:
            door = Door(bridge, backend)
            audio = make_wav(300.0)
            incoming = bridge.data_dir / "bridge" / "incoming"

            def slowly() -> Iterator[bytes]:
                yield audio[: 2 * 2**20]
                wait_until(lambda: sum(path.stat().st_size for path in incoming.glob("*")) >= 2**20, "a block on disk")
                disk.fill()
                yield audio[2 * 2**20 :]

            refused = door.audio("c1", slowly(), chunk_id="one")
            assert (refused.status_code, refused.json()["code"]) == (503, "disk.full")
            assert "make room" in refused.json()["message"]
            assert list(incoming.iterdir()) == []
            assert door.audio("c1", audio, chunk_id="one").status_code == 503
            assert list(bridge.spool.iterdir()) == []
            disk.make_room()
            wait_until(lambda: door.audio("c1", audio, chunk_id="one").status_code == 202, "room for the chunk")
        backend.stop()
