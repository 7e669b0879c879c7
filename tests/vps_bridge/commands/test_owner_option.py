"""A conversation that is published from a shell can have an owner: else nobody whom `people` taught is recognised."""

import shutil
from pathlib import Path

from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import LiveBridge
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.ledger import Ledger

SRT = "1\n00:00:01,000 --> 00:00:02,000\nHello?\n"


def test_publish_import_and_watch_folder_say_whose_conversation_it_is(
    own_broker: RunningBroker, own_bridge: LiveBridge, tmp_path: Path
) -> None:
    audio, transcript, folder = tmp_path / "call.wav", tmp_path / "call.srt", tmp_path / "dropped"
    audio.write_bytes(make_wav(4.0))
    transcript.write_text(SRT)
    folder.mkdir()
    shutil.copy(audio, folder)
    backend, own = own_broker.environment("backend"), ("--owner", "user-1")
    for command in (
        ("publish", str(audio), "--conversation", "published", *own),
        ("import", str(transcript), "--conversation", "imported", *own),
        ("publish", str(audio), "--conversation", "imported"),
        ("watch-folder", str(folder), "--once", "--settle-s", "0", "--timeout-s", "1", *own),
    ):
        own_bridge.command(*command, own=backend, check=command[0] != "watch-folder")  # no agent is there
    ledger = Ledger(own_bridge.data_dir / "bridge", exclusive=False)
    names = ["published", "imported", *ledger.conversations.latest_open(9)]
    owners = {name: getattr(ledger.conversations.get(name), "owner", None) for name in names}
    ledger.close()
    assert len(owners) == 3
    assert set(owners.values()) == {"user-1"}
