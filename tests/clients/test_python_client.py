"""What the Python client package says where something is wrong, and what it keeps until it is confirmed."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from omi_diarization_client import AudioChanged, Client, ConversationLabels, NoAnswer
from omi_diarization_client.heartbeat import BridgePulse
from omi_diarization_client.recording import AudioSource
from omi_diarization_client.updates import MAX_KEPT, HeardUpdates
from omi_diarization_client.wire import make_event, make_segments

NOWHERE = "mqtt://127.0.0.1:9"


def labels_of(name: str, version: int, state: str = "final") -> ConversationLabels:
    message = {
        "schema": "conversation-updated",
        "version": "1.3",
        "conversation_id": name,
        "updated_version": version,
        "state": state,
    }
    return ConversationLabels.read(message)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Client("http://vps.example"), "mqtt://host:port"),
        (lambda: Client("mqtt://user:secret@vps.example"), "stand apart"),
        (lambda: Client(NOWHERE, root="omi//v1"), "topic root"),
        (lambda: Client(NOWHERE, mqtt_version="4"), "use auto, 5, 3.1.1"),
        (lambda: Client(NOWHERE).start("a.b"), "no dot"),
        (lambda: Client(NOWHERE).forget("a/b"), "no dot"),
        (lambda: make_event("started", started_at=datetime(2026, 5, 4, 10, 0)), "time zone"),  # noqa: DTZ001 - that is the mistake
        (lambda: make_segments("c", [{"text": "hello", "start": 0.0}]), "segment 0 .* give both"),
        (lambda: make_segments("c", ["hello"]), "segment 0 .* no dict"),  # type: ignore[list-item] # the mistake
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_sent(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        call()
    assert "secret" not in str(refused.value)


def test_a_file_that_changes_meanwhile_is_named(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(b"x" * 1_000)
    recording = AudioSource(path)
    parts = recording.parts(400)
    assert next(parts) == (0, b"x" * 400)
    with path.open("ab") as file:
        file.write(b"more")
    assert [len(part) for _, part in parts] == [400, 200], "what is written behind the end is not this chunk's"
    path.write_bytes(b"y" * 1_000)
    with pytest.raises(AudioChanged, match="wait until it is written"):
        list(recording.parts(400))
    os.truncate(path, 500)
    with pytest.raises(AudioChanged, match="shorter"):
        list(recording.parts(400))
    with pytest.raises(OSError, match="no regular file"):
        AudioSource(tmp_path)
    assert [part for _, part in AudioSource(b"").parts(400)] == [b""]


@pytest.mark.parametrize(
    ("beat", "retained", "is_alive"),
    [
        ({}, False, True),
        ({}, True, True),
        ({"sent_at": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}, False, True),
        ({"sent_at": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}, True, False),
        ({"sent_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}, True, False),
        ({"sent_at": "yesterday"}, True, False),
        ({"state": "offline"}, False, False),
        ({"accepting": False, "last_error": "the disk is full"}, False, False),
    ],
)
def test_only_a_living_bridge_that_takes_audio_counts(beat: dict[str, Any], retained: bool, is_alive: bool) -> None:
    pulse = BridgePulse()
    pulse.note({"state": "online", "sent_at": datetime.now(UTC).isoformat()} | beat, retained=retained)
    if is_alive:
        assert pulse.wait(0)
    else:
        with pytest.raises(NoAnswer, match="disk is full" if "accepting" in beat else "no live bridge"):
            pulse.wait(0)


def test_of_several_bridges_one_that_lives_is_enough() -> None:
    pulse, now = BridgePulse(), datetime.now(UTC).isoformat()
    for name, state in (("a", "online"), ("b", "online"), ("b", "stopped")):
        pulse.note({"bridge_id": name, "state": state, "sent_at": now}, retained=False)
    assert pulse.wait(0)["bridge_id"] == "a"
    pulse.note({"bridge_id": "a", "state": "stopped", "sent_at": now}, retained=False)
    with pytest.raises(NoAnswer, match="stopped"):
        pulse.wait(0)


def test_of_updates_the_latest_is_kept_and_a_confirmed_one_is_not_told_twice() -> None:
    heard = HeardUpdates()
    heard.listen()
    assert heard.note(labels_of("a", 1, "live"))
    assert heard.take("a", final=True, timeout_s=0) is None
    assert heard.note(labels_of("a", 2))
    latest = heard.take("a", final=True, timeout_s=0)
    assert latest is not None
    assert latest.version == 2
    heard.confirm(latest)
    assert not heard.note(labels_of("a", 2)), "the bridge did not hear that it was confirmed: tell it again"
    heard.note(labels_of("a", 3))
    heard.drop("a")
    assert heard.take("a", final=True, timeout_s=0) is None
    for place in range(MAX_KEPT + 5):
        heard.note(labels_of(f"c{place}", 1))
    assert heard.take("c0", final=True, timeout_s=0) is None
    assert heard.take(f"c{MAX_KEPT}", final=True, timeout_s=0) is not None
    told = [labels for _ in range(MAX_KEPT) if (labels := heard.take_any(0)) is not None]
    assert len(told) == MAX_KEPT
    assert heard.take_any(0) is None
