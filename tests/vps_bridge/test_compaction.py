"""Conversations that nothing happens to any more: what they take on the disk, and that nobody else can tell."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.simulated_day import DayShape, SimulatedDay
from schemas.codec import decode
from schemas.conversation import EventType, Verdict
from schemas.corrections import Correction, CorrectionKind
from schemas.turns import SpeakerTurns
from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent
from vps_bridge.compaction import Compaction
from vps_bridge.dispatch.results import Results
from vps_bridge.exports.gather import gather_export
from vps_bridge.http.reading import list_conversations, read_conversation
from vps_bridge.intake.corrections import Corrections
from vps_bridge.intake.people import People
from vps_bridge.intake.spool import Spool
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.number import VoiceBook
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.ledger.records import NewChunk, SpeakerHints
from vps_bridge.retention import Retention

DAY_S = 86_400.0
SHAPE = DayShape(conversations=2, conversation_s=900.0)
GOAL_BYTES_A_DAY = 2e6
AUDIO_S_A_DAY = 16 * 3_600.0


class IdleDay(SimulatedDay):
    """Two conversations of a quarter of an hour, long after."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.names = self.ledger.listing.latest_first()[::-1]
        nothing = cast("Any", SimpleNamespace(clean_up=lambda _now_s: None, is_held=True))
        self._retention = Retention(
            self.settings,
            self.ledger,
            Spool(self.settings.root / "spool"),
            self.store,
            ingest=nothing,
            dispatcher=nothing,
            disk_reserve=nothing,
        )

    def pack(self) -> set[str]:
        """Let the bridge's housekeeping do all that is due; return which conversations are packed."""
        compaction, now_s = Compaction(self.settings, self.ledger, self.store), 0.0
        self._retention.sweep(now_s)
        self._retention.sweep(now_s)  # the first found audio to unlink, and may have more
        for _ in range(20):
            compaction.step(now_s)
            now_s += 1_000.0
        return self.ledger.packs.packed_among(self.names)

    def recognise(self, name: str, number: int, person_id: str | None) -> set[bytes]:
        """Publish that a voice is somebody by the voiceprint; return how it sounds, once for each job."""
        conversation = self.ledger.conversations.get(name)
        assert conversation is not None
        book = VoiceBook.from_json(conversation.voices)
        voices = tuple(
            replace(voice, matched_person=person_id) if voice.speaker_id == number else voice for voice in book.voices
        )
        update = AssignedUpdate(VoiceBook(voices).to_json(), "key", conversation.updated_payload or b"", True, (), 0)
        self.ledger.conversations.note_update(name, update)
        members = {member for voice in voices if voice.speaker_id == number for member in voice.members}
        return {sound for member, sound in self._sounds(name) if member in members}

    def sounds(self, name: str) -> set[bytes]:
        """How the speakers of a conversation sound."""
        return {sound for _, sound in self._sounds(name)}

    def _sounds(self, name: str) -> Iterator[tuple[LocalSpeaker, bytes]]:
        for found in self.ledger.jobs.results(name):
            result = decode(SpeakerTurns, found.payload)
            for voice in result.speakers:
                if voice.embedding is not None:
                    yield LocalSpeaker(result.job_id, voice.speaker), voice.embedding

    def describe(self, name: str) -> dict[str, Any]:
        """All that anybody can ask of a conversation."""
        return {
            "record": self.ledger.conversations.get(name),
            "chunks": self.ledger.chunks.of_conversation(name),
            "jobs": self.ledger.jobs.all(conversation_id=name),
            "results": self.ledger.jobs.results(name),
            "places": self.ledger.listing.audio_places(name),
            "stored": self.store.read(name),
            "history": self.store.history(name),
            "page": read_conversation(name, self.ledger, self.store, stale_s=30.0),
            "export": gather_export(name, self.ledger, self.store),
        }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a day in it, to be copied."""
    path = tmp_path_factory.mktemp("written")
    day = SimulatedDay(path)
    day.add(SHAPE)
    day.close()
    return path


@pytest.fixture
def day(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IdleDay]:
    shutil.copytree(written, tmp_path / "data")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 40 * DAY_S)
    idle = IdleDay(tmp_path / "data")
    yield idle
    idle.close()


def test_what_was_packed_is_told_as_before_and_the_newest_stays(day: IdleDay) -> None:
    old, newest = day.names
    assert day.pack() == {old}, "numbers are not to come twice: the newest chunk stays a row"
    packed = {name: day.describe(name) for name in day.names}
    assert not day.ledger.packs.packed_among(day.names), "whoever asks has the rows put back"
    assert {name: day.describe(name) for name in day.names} == packed
    assert packed[old]["page"].segments
    assert packed[old]["page"].turns
    assert packed[old]["history"]
    assert day.pack() == {old}
    day.store.history(old)
    assert old in day.store.unpacked()
    assert day.pack() == {old}
    assert day.store.unpacked() == [newest], "what only the store had unpacked is packed again too"


def test_packing_loses_nothing(day: IdleDay) -> None:
    old, _ = day.names
    day.ledger.chunks.mark_unlinked([chunk.arrival for chunk in day.ledger.chunks.of_conversation(old)])
    before = day.describe(old)
    compaction = Compaction(day.settings, day.ledger, day.store)
    assert compaction.step(0.0)
    assert day.ledger.packs.packed_among([old])
    assert day.describe(old) == before


def test_a_list_does_not_unpack(day: IdleDay) -> None:
    def listed() -> Any:
        found = list_conversations(day.ledger, stale_s=30.0, search="", state=None, offset=0, limit=10)
        return {one.conversation_id: (one.state, one.speakers, one.people) for one in found.conversations}

    before = listed()
    day.pack()
    assert listed() == before
    assert day.ledger.packs.packed_among(day.names)


def test_a_correction_months_later_relabels_the_conversation_and_can_be_undone(day: IdleDay) -> None:
    old, _ = day.names
    day.pack()
    stored = day.store.read(old)
    assert stored is not None
    voice = next(row.speaker_id for row in stored.segments if row.speaker_id is not None)
    before = {row.id: row.speaker for row in stored.segments}
    day.pack()
    said = Correction(kind=CorrectionKind.VOICE_IS, speaker_id=voice, person_id="anna")
    Corrections(day.ledger, day.store).correct(old, "e-late", [said], by="me")
    day.label(old, final=True)
    record = day.ledger.conversations.get(old)
    assert record is not None
    assert "anna" in str(record.voices)
    now = day.store.read(old)
    assert now is not None
    assert {row.id: row.speaker for row in now.segments} == before, "the same voices are found again"
    assert day.pack() == set(), "what just happened is kept as it is for a while"
    first = day.store.history(old)[0]
    assert day.store.undo(old, first.version).version > now.version


def test_what_comes_late_finds_what_it_belongs_to(day: IdleDay) -> None:
    old, _ = day.names
    chunk = day.ledger.chunks.of_conversation(old)[0]
    assert day.pack()
    again = day.ledger.chunks.find(old, chunk.chunk_id)
    assert again is not None, "the same chunk is a duplicate, and no new audio"
    assert again.sha256 == chunk.sha256
    assert day.pack()
    late = NewChunk(old, "late", "0" * 64, 10, "f" * 32, "wav", duration_s=1.0)
    day.ledger.chunks.accept(late, SpeakerHints(), final=False)
    assert [one.chunk_id for one in day.ledger.chunks.of_conversation(old)][-1] == "late"
    assert len(day.ledger.chunks.of_conversation(old)) == SHAPE.conversation_s / 10 + 1
    assert day.pack() == set(), "it is open again"


def test_a_late_result_is_settled_as_what_it_is(day: IdleDay) -> None:
    old, _ = day.names
    result = day.ledger.jobs.results(old)[0].payload
    settled: list[Any] = []
    dispatcher = cast("Any", SimpleNamespace(settle=lambda *said: settled.append(said[3])))
    assert day.pack() == {old}
    Results(day.ledger, dispatcher, day.settings.max_audio_s).take_turns(old, "mac-studio", result)
    assert settled == [Verdict.DUPLICATE]


@pytest.mark.long
def test_a_running_bridge_packs_and_takes_a_correction_of_what_it_packed(
    own_broker: RunningBroker, own_backend: Backend, tmp_path: Path
) -> None:
    at_once = {"OMI_KEEP_AUDIO_S": "0", "OMI_KEEP_SAMPLES_S": "0", "OMI_KEEP_DETAILS_S": "0"}
    with run_bridge(own_broker, tmp_path / "data", own_backend, **at_once) as bridge:
        bridge.allow("first")
        with ScriptedAgent(own_broker, "first") as agent:
            own_backend.send_call("old")
            offer = agent.wait_offer("old")
            own_backend.send_call("newer", tone=1)
            agent.answer(offer, CALL_TURNS)
            version = own_backend.wait_updated("old").updated_version
            own_backend.event("old", EventType.APPLIED, updated_version=version)
        ledger = Ledger(tmp_path / "data" / "bridge", exclusive=False)
        wait_until(lambda: ledger.packs.packed_among(["old"]), "packing", 100.0)
        said = Correction(kind=CorrectionKind.VOICE_IS, speaker_id=0, person_id="anna")
        own_backend.event("old", EventType.CORRECTED, corrections=(said,))
        update = own_backend.wait_updated("old", version=version + 1)
        assert [person.person_id for person in update.people] == ["anna"]
        assert {label.speaker_id for label in update.segments} == {0, 1}
        ledger.close()


def test_a_person_who_is_forgotten_goes_from_what_is_packed(day: IdleDay) -> None:
    old, _ = day.names
    said = Correction(kind=CorrectionKind.VOICE_IS, speaker_id=0, person_id="anna")
    Corrections(day.ledger, day.store).correct(old, "e-1", [said], by="me")
    day.label(old, final=True)
    now = time.time()
    time.time = lambda: now + 40 * DAY_S  # the fixture puts it back
    assert day.pack() == {old}
    assert list(day.ledger.people.naming("wearer", "anna")) == [old]
    People(day.ledger, day.store).forget("wearer", "anna")
    assert old in day.ledger.conversations.dirty(), "its labels are worked out anew, without the person"
    assert [kept.teaches for kept in day.ledger.corrections.of_conversation(old)] == [False]


def test_a_forgetting_that_was_cut_off_is_done_whole_the_next_time(
    day: IdleDay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A voice that was only recognised is nobody's once the person is gone: then nothing says whose it was."""
    old, _ = day.names
    day.ledger.people.add("wearer", "anna")
    recognised = day.recognise(old, 0, "anna")
    assert recognised <= day.sounds(old)
    with monkeypatch.context() as broken:
        broken.setattr(day.ledger.jobs, "replace_results", full_disk)
        with pytest.raises(OSError, match="disk"):
            People(day.ledger, day.store).forget("wearer", "anna")
    if day.ledger.people.get("wearer", "anna") is None:
        day.recognise(old, 0, None)  # as the bridge finds it, when it labels the conversation anew
    People(day.ledger, day.store).forget("wearer", "anna")
    assert recognised.isdisjoint(day.sounds(old))
    assert day.sounds(old), "the others' voices stay"


def full_disk(_payloads: object) -> None:
    raise OSError("the disk is full")


def test_a_packed_conversation_that_is_deleted_is_in_no_file(day: IdleDay) -> None:
    old, _ = day.names
    assert day.pack() == {old}
    day.ledger.conversations.delete(old)
    day.store.delete(old)
    day.ledger.forget_deleted_pages()
    assert day.ledger.conversations.get(old) is None
    assert day.ledger.packs.packed_among([old]) == set()
    assert old not in day.store.known()


def test_a_day_of_16_hours_takes_at_most_2_mb(day: IdleDay) -> None:
    assert day.pack()
    rows = day.ledger.packs.sizes() + day.store.packed_sizes()
    a_day = sum(rows) * AUDIO_S_A_DAY / SHAPE.conversation_s
    assert a_day < GOAL_BYTES_A_DAY


def test_files_give_room_back(day: IdleDay) -> None:
    day.pack()
    assert day.ledger.free_pages(0) == day.store.free_pages(0) == 0
