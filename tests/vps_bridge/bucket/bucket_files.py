"""What tests of a live bridge with a bucket look at: the bucket, and the bridge's own files."""

from __future__ import annotations

import uuid

from tests.bucket_server import RunningBucket
from tests.vps_bridge.live_bridge import LiveBridge
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.intake.bucket_spool import COPIES
from vps_bridge.ledger import Ledger

AUDIO = make_wav(30.0)


def new_name() -> str:
    return f"call-{uuid.uuid4().hex[:8]}"


def own_audio(bucket: RunningBucket, bridge: LiveBridge) -> list[str]:
    """The keys of everything of one ledger, a key for each version."""
    ledger = Ledger(bridge.data_dir / "bridge", exclusive=False)
    try:
        return [key for key, _ in bucket.audio() if ledger.ledger_id in key]
    finally:
        ledger.close()


def forget_copies(bridge: LiveBridge) -> None:
    for copy in (bridge.data_dir / "bridge" / COPIES).iterdir():
        copy.unlink()


def assert_nowhere(bridge: LiveBridge, audio: bytes, *ids: str) -> None:
    """No file of the bridge has a piece of this audio, or one of these ids in its name."""
    piece = audio[len(audio) // 2 :][:200]
    for path in (bridge.data_dir / "bridge").rglob("*"):
        if path.is_file() and ".sqlite3" not in path.name:
            assert piece not in path.read_bytes(), path
            assert not any(name in path.name for name in ids), path


def chunk_ids(bridge: LiveBridge, conversation_id: str) -> list[str]:
    """What was accepted of a conversation, in order."""
    ledger = Ledger(bridge.data_dir / "bridge", exclusive=False)
    try:
        return [chunk.chunk_id for chunk in ledger.chunks.of_conversation(conversation_id)]
    finally:
        ledger.close()
