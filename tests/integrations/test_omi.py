"""What stands beside a self-hosted OMI backend: frames of its pusher, and labels by functions shaped as its own."""

from __future__ import annotations

import copy
import struct
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from integrations.omi.labels import (
    BackendFunctions,
    BackendUnknown,
    LabelOutcome,
    LabelWriter,
    OwnersFile,
    apply,
    relabel,
)
from integrations.omi.publish import PusherFrames, PusherTap, TapJob, TapPublisher
from omi_diarization_client import ConversationLabels

RATE = 16_000
BEGAN_S = 1_777_888_800.25


def audio(at_s: float, seconds: float, value: int = 1) -> bytes:
    return struct.pack("<Id", 101, BEGAN_S + at_s) + struct.pack("<h", value) * round(seconds * RATE)


def conversation(name: str) -> bytes:
    return struct.pack("<I", 103) + name.encode()


def jobs_of(*frames: bytes, closes: bool = True) -> list[TapJob]:
    jobs: list[TapJob] = []
    tapped = PusherFrames("user-1", RATE, jobs.append)
    for frame in frames:
        tapped.frame(frame)
    if closes:
        tapped.close()
    return jobs


def told(jobs: list[TapJob]) -> list[tuple[str, float | None, float | None]]:
    """Conversation, where a chunk begins and how long it is; of a completion neither."""
    return [
        (job.conversation_id, None, None)
        if job.samples is None
        else (job.conversation_id, round(job.began_s - BEGAN_S, 3), len(job.samples) / 2 / RATE)
        for job in jobs
    ]


def test_audio_goes_into_its_conversation_in_chunks_with_their_times() -> None:
    frames = [conversation("one"), *(audio(at_s, 1.0) for at_s in range(20))]
    assert told(jobs_of(*frames)) == [("one", 0.0, 15.0), ("one", 15.0, 5.0), ("one", None, None)]


def test_a_switch_ends_the_conversation_before_with_its_last_sample() -> None:
    frames = [conversation("one"), audio(0.0, 2.0), conversation("two"), audio(2.0, 1.0), conversation("two")]
    expected = [("one", 0.0, 2.0), ("one", None, None), ("two", 2.0, 1.0), ("two", None, None)]
    assert told(jobs_of(*frames)) == expected


def test_the_id_in_a_transcript_frame_moves_no_audio() -> None:
    transcript = struct.pack("<I", 102) + b'{"segments": [], "memory_id": "two"}'
    frames = [conversation("one"), audio(0.0, 1.0), transcript, struct.pack("<I", 100), audio(1.0, 1.0)]
    assert told(jobs_of(*frames)) == [("one", 0.0, 2.0), ("one", None, None)]


def test_after_a_gap_a_chunk_has_a_time_of_its_own_and_early_audio_waits_for_its_conversation() -> None:
    frames = [audio(0.0, 1.0), audio(10.0, 1.0), conversation("one"), audio(11.0, 1.0), audio(30.0, 1.0)]
    expected = [("one", 0.0, 1.0), ("one", 10.0, 2.0), ("one", 30.0, 1.0), ("one", None, None)]
    assert told(jobs_of(*frames)) == expected
    forgotten = [audio(float(at_s * 10), 5.0) for at_s in range(20)]
    assert sum(length or 0 for _, _, length in told(jobs_of(*forgotten, conversation("late")))) == 60.0
    assert jobs_of(*forgotten) == [], "nobody knows whose it is"


def test_nothing_is_raised_or_kept_without_end_whatever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_broker() -> Any:
        raise OSError("no broker")

    monkeypatch.setattr("integrations.omi.publish.MAX_WAITING", 3)
    publisher = TapPublisher(no_broker, RATE)
    tap = PusherTap("user-1", RATE, publisher)
    for frame in (
        b"",
        b"\x65\x00",
        conversation("one"),
        struct.pack("<I", 103) + b"\xff",
        *(audio(at, 0.1) for at in range(20)),
    ):
        tap.frame(frame)
    tap.close()
    publisher.stop(timeout_s=0.1)
    assert publisher.dropped >= 10
    monkeypatch.delenv("OMI_BROKER_URL", raising=False)
    off = PusherTap.from_environment("user-1", RATE)
    off.frame(audio(0.0, 1.0))
    off.close()


def segment(name: str, speaker: str = "SPEAKER_00", **fields: Any) -> dict[str, Any]:
    number = int(speaker.split("_")[1])
    base = {"id": name, "text": "words", "speaker": speaker, "speaker_id": number, "is_user": False, "person_id": None}
    return {**base, "start": 0.0, "end": 1.0, "translations": [], **fields}


def labels_of(**speakers: str | None) -> ConversationLabels:
    segments = [{"id": name, "speaker": speaker} for name, speaker in speakers.items()]
    message = {"schema": "conversation-updated", "version": "1.3", "conversation_id": "c-1", "updated_version": 3}
    return ConversationLabels.read({**message, "state": "final", "segments": segments})


class FakeBackend:
    """Conversations as `database.conversations` keeps them, and somebody else who may write in between."""

    def __init__(self, *segments: dict[str, Any], **fields: Any) -> None:
        self.document = {
            "id": "c-1",
            "status": "completed",
            "updated_at": 1,
            "transcript_segments": list(segments),
            **fields,
        }
        self.others: list[dict[str, Any]] = []
        self.writes: list[list[dict[str, Any]]] = []

    def get_conversation(self, uid: str, conversation_id: str) -> dict[str, Any] | None:
        found = copy.deepcopy(self.document) if (uid, conversation_id) == ("user-1", "c-1") else None
        if self.others:
            self.document |= self.others.pop(0)
        return found

    def update_conversation_segments(self, uid: str, conversation_id: str, segments: list[dict[str, Any]]) -> None:
        self.writes.append(segments)
        self.document |= {"transcript_segments": segments, "updated_at": int(str(self.document["updated_at"])) + 1}

    @property
    def writer(self) -> LabelWriter:
        return LabelWriter(BackendFunctions(self.get_conversation, self.update_conversation_segments))


def test_only_speaker_and_number_of_segments_that_nobody_labelled_are_written() -> None:
    segments = [
        segment("a"),
        segment("b", is_user=True),
        segment("c", person_id="anna"),
        segment("d", speaker_label_source="manual"),
        segment("e"),
        segment("f"),
        segment("g"),
    ]
    backend = FakeBackend(*segments)
    labels = labels_of(a="SPEAKER_01", b="SPEAKER_01", c="SPEAKER_01", d="SPEAKER_01", e=None, f="SPEAKER_99")
    assert backend.writer.write("user-1", labels) is LabelOutcome.WRITTEN
    (written,) = backend.writes
    assert written == [{**segments[0], "speaker": "SPEAKER_01", "speaker_id": 1}, *segments[1:]]
    assert backend.writer.write("user-1", labels) is LabelOutcome.UNCHANGED
    assert len(backend.writes) == 1


def test_a_name_is_padded_as_the_conversation_has_it() -> None:
    assert relabel([segment("a", "SPEAKER_0")], {"a": "SPEAKER_01"})[0]["speaker"] == "SPEAKER_1"
    assert relabel([segment("a", "SPEAKER_00")], {"a": "SPEAKER_12"})[0]["speaker"] == "SPEAKER_12"


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"status": "in_progress"}, LabelOutcome.LATER),
        ({"status": "processing"}, LabelOutcome.LATER),
        ({"is_locked": True}, LabelOutcome.GONE),
        ({"discarded": True}, LabelOutcome.GONE),
        ({"deleted": True}, LabelOutcome.GONE),
    ],
)
def test_what_is_not_completed_waits_and_what_is_gone_is_left(fields: dict[str, Any], outcome: LabelOutcome) -> None:
    backend = FakeBackend(segment("a"), **fields)
    assert backend.writer.write("user-1", labels_of(a="SPEAKER_01")) is outcome
    assert backend.writer.write("somebody else", labels_of(a="SPEAKER_01")) is LabelOutcome.GONE
    assert backend.writes == []


def test_who_writes_in_between_wins_and_the_labels_are_made_of_what_they_wrote() -> None:
    backend = FakeBackend(segment("a"), segment("b"))
    backend.others = [{"updated_at": 2, "transcript_segments": [segment("a", person_id="anna"), segment("b")]}]
    assert backend.writer.write("user-1", labels_of(a="SPEAKER_01", b="SPEAKER_01")) is LabelOutcome.WRITTEN
    assert [(each["speaker"], each["person_id"]) for each in backend.writes[0]] == [
        ("SPEAKER_00", "anna"),
        ("SPEAKER_01", None),
    ]
    busy = FakeBackend(segment("a"))
    busy.others = [{"updated_at": number} for number in range(2, 12)]
    assert busy.writer.write("user-1", labels_of(a="SPEAKER_01")) is LabelOutcome.LATER
    assert busy.writes == []
    older = FakeBackend(segment("a"), updated_at=None)  # the first generation has none: its segments are compared
    older.others = [{"transcript_segments": [segment("a", text="other words")]}]
    older.update_conversation_segments = lambda *said: older.writes.append(said[2])  # type: ignore[method-assign]
    assert older.writer.write("user-1", labels_of(a="SPEAKER_01")) is LabelOutcome.WRITTEN
    assert older.writes[0][0]["text"] == "other words"


def module_with(**functions: Any) -> types.ModuleType:
    module = types.ModuleType("backend_of_a_test")
    vars(module).update(functions)
    return module


def get_conversation(uid, conversation_id):
    return None


def get_by_id(conversation_id):
    return None


async def get_later(uid, conversation_id):
    return None


def update(uid, conversation_id, segments):
    return None


def update_with_level(uid, conversation_id, segments, level=None):
    return None


def update_with_revision(uid, conversation_id, segments, base_revision):
    return None


@pytest.mark.parametrize(
    ("get", "write", "named"),
    [
        (get_conversation, update, None),
        (get_conversation, update_with_level, None),
        (None, update, "get_conversation is no function here"),
        (get_by_id, update, "get_conversation takes conversation_id; known is uid, conversation_id"),
        (get_later, update, "get_conversation is no function here"),
        (get_conversation, None, "update_conversation_segments is no function here"),
        (get_conversation, update_with_revision, "update_conversation_segments takes .*base_revision; known is"),
    ],
)
def test_a_backend_with_other_functions_is_refused_by_their_name(
    monkeypatch: pytest.MonkeyPatch, get: Any, write: Any, named: str | None
) -> None:
    module = module_with(get_conversation=get, update_conversation_segments=write)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    if named is None:
        assert BackendFunctions.find(module.__name__).get_conversation is get
    else:
        with pytest.raises(BackendUnknown, match=named):
            BackendFunctions.find(module.__name__)
    with pytest.raises(BackendUnknown, match="in the backend's folder"):
        BackendFunctions.find("no_such_backend.database")


def test_an_error_of_the_backends_ends_nothing_and_strangers_conversations_are_left(tmp_path: Path) -> None:
    owners = OwnersFile(tmp_path / "owners.tsv")
    backend = FakeBackend(segment("a"))
    assert apply(backend.writer, owners, labels_of(a="SPEAKER_01")) is None
    (tmp_path / "owners.tsv").write_text("c-0\tuser-0\nc-1\tuser-1\n")
    assert apply(backend.writer, owners, labels_of(a="SPEAKER_01")) is LabelOutcome.WRITTEN
    broken = LabelWriter(BackendFunctions(lambda *_: {"status": "completed", "transcript_segments": ["?"]}, print))
    assert apply(broken, owners, labels_of(a="SPEAKER_01")) is LabelOutcome.LATER
