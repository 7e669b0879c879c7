"""Old conversations of a self-hosted OMI backend: the script as its owner runs it, beside modules as the backend's."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from schemas.conversation import ConversationUpdated
from tests.brokers import REPOSITORY, RunningBroker
from tests.clients.installed import run_outside
from tests.vps_bridge.live_bridge import CALL_S, STARTED_AT, Backend, LiveBridge, call_segments, wait_until
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.ledger import Ledger

SCRIPTS = REPOSITORY / "integrations" / "omi"
RATE, CHUNK_S = 16_000, 15
CONVERSATIONS = """
import json
from pathlib import Path

KEPT = json.loads(Path("kept.json").read_text())

def get_conversations(uid, limit=100, offset=0, include_discarded=False, statuses=()):
    return [each for each in KEPT if each["uid"] == uid][offset:offset + limit]
"""
USERS = """
def get_people(uid: str):
    people = [{"id": "ben", "name": "Ben"}, {"id": "mute", "name": "Mute"}]
    return [*people, {"id": "guessed", "name": "Guessed", "unverified": True}]
"""
STORAGE = f"""
import json
import shutil
from pathlib import Path

TIMES = json.loads(Path("times.json").read_text())

def list_audio_chunks(uid, conversation_id):
    kept = TIMES if conversation_id == "old-1" else [1.0] if conversation_id == "lost" else []
    return [{{"timestamp": at, "path": "p", "size": 1, "is_batch": False}} for at in reversed(kept)]

def download_audio_chunks_and_merge(uid, conversation_id, timestamps, fill_gaps=True, sample_rate=16000):
    if conversation_id == "lost":
        return b""
    return b"".join(bytes([TIMES.index(at) + 1, 0]) * ({CHUNK_S} * sample_rate) for at in timestamps)

def get_user_person_speech_samples(uid, person_id, download=False):
    if person_id == "mute":
        return []
    assert download and person_id == "ben", person_id
    return [shutil.copy("sample.wav", f"{{uid}}_person_1.wav")]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A backend's folder, with our three files in it."""
    for path in SCRIPTS.glob("*.py"):
        shutil.copy(path, tmp_path)
    for name, text in (
        ("database/conversations", CONVERSATIONS),
        ("database/users", USERS),
        ("utils/other/storage", STORAGE),
    ):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    began_s = STARTED_AT.timestamp()
    (tmp_path / "times.json").write_text(json.dumps([began_s, began_s + CHUNK_S]))
    rows = [
        {"id": each.id, "text": each.text, "start": each.start_s, "end": each.end_s} for each in call_segments("old-1")
    ]
    base = {"uid": "user-9", "status": "completed", "discarded": False, "transcript_segments": rows}
    kept = [
        {**base, "id": "old-1"},
        {**base, "id": "silent"},
        {**base, "id": "lost"},
        {**base, "id": "running", "status": "in_progress"},
        {**base, "id": "thrown", "discarded": True},
    ]
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    (tmp_path / "sample.wav").write_bytes(make_wav(CALL_S, tone=21))
    return tmp_path


def run(environment: Path, folder: Path, broker: RunningBroker, *arguments: str) -> subprocess.CompletedProcess[str]:
    user = broker.users["backend"]
    python = str(environment / "bin" / "python")
    return run_outside(
        "sh", "-c", 'cd "$0" && exec "$@"', str(folder), python, "backfill.py", *arguments,
        OMI_BROKER_URL=broker.url,
        OMI_BROKER_USERNAME=user.username,
        OMI_BROKER_PASSWORD=user.password or "",
        OMI_OWNERS_FILE=str(folder / "owners.tsv"),
    )  # fmt: skip


def test_old_conversations_and_known_people_are_sent_once(
    environment: Path, mosquitto: RunningBroker, bridge: LiveBridge, backend: Backend, folder: Path
) -> None:
    done = run(environment, folder, mosquitto, "user-9", "--people")
    assert done.returncode == 0, done.stderr
    assert "user-9: 1 voices learned" in done.stderr
    assert "user-9: 1 conversations, 30 s of audio sent" in done.stderr
    assert "lost: a chunk that the backend lists cannot be read" in done.stderr
    assert not list(folder.glob("*_person_*.wav"))
    wait_until(lambda: any(told.state == "final" for told in backend.seen(ConversationUpdated, "old-1")), "its labels")
    ledger = Ledger(bridge.data_dir / "bridge", exclusive=False)
    chunks = [(chunk.chunk_id, chunk.captured_at_s) for chunk in ledger.chunks.of_conversation("old-1")]
    others = [ledger.conversations.get(name) for name in ("silent", "lost", "running", "thrown")]
    ledger.close()
    began_s = STARTED_AT.timestamp()
    assert sorted(chunks) == [(f"kept-{round(at * 1000)}", at) for at in (began_s, began_s + CHUNK_S)]
    assert others == [None] * 4
    assert (folder / "owners.tsv").read_text() == "old-1\tuser-9\n"
    assert [person["person_id"] for person in bridge.people("user-9")] == ["ben"]

    again = run(environment, folder, mosquitto, "user-9", "--people")
    assert (again.returncode, "user-9: 0 conversations, 0 s of audio sent" in again.stderr) == (0, True)
    assert "lost: a chunk that the backend lists cannot be read" in again.stderr


def test_another_backend_is_refused_before_anything_is_sent(
    environment: Path, mosquitto: RunningBroker, folder: Path
) -> None:
    (folder / "database" / "users.py").write_text("def get_people(tenant, uid):\n    return []\n")
    done = run(environment, folder, mosquitto, "user-9")
    assert done.returncode == 1
    assert "database.users.get_people takes tenant, uid; known is uid: nothing is done" in done.stderr
    assert not (folder / "owners.tsv").exists()
