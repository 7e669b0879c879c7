"""How long the sound of voices is kept: the bridge's sweep, on a real ledger, with the clock put forward."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from schemas.codec import decode, encode
from schemas.conversation import ConversationUpdated, TranscriptSegment
from schemas.turns import EngineDescription, SpeakerTurns, VoiceSamples
from tests.vps_bridge.labelling.test_relabel import DIALOGUE, POLICY, evidence_of, transcript
from tests.vps_bridge.waiting_job import add_waiting_job
from vps_bridge import retention
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.intake.people import People
from vps_bridge.intake.spool import Spool
from vps_bridge.labelling.evidence import ConversationEvidence
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.relabel import Relabelling, relabel
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.settings import BridgeSettings

DAY_S = 86_400.0
NAMED = "s001"  # B says it
SAMPLES = VoiceSamples(count=1, times_s=bytes(12), embeddings=b"\x11\x3c\x22\x3c" * 64)


class FinalConversation:
    """A conversation with final labels, as ledger and store hold it."""

    def __init__(self, root: Path) -> None:
        self.ledger, self.store = Ledger(root, exclusive=True), SqliteConversations(root / "conversations.db")
        self.root, evidence = root, evidence_of(DIALOGUE, segments=transcript(DIALOGUE), is_final=True)
        rows = [
            TranscriptSegment(
                id=row.id,
                start_s=row.start_s,
                end_s=row.end_s,
                speaker=row.speaker,
                person_id="p" if row.id == NAMED else None,
                label_source="manual" if row.id == NAMED else None,
            )
            for row in evidence.segments
        ]
        self.store.upsert_segments("c1", 1, rows)
        jobs = [self._store_job(job) for job in evidence.jobs]
        self.evidence = replace(evidence, jobs=tuple(jobs), segments=self._segments())
        self.before = relabel(self.evidence, POLICY)
        self._note_final(self.before)

    def _segments(self) -> Any:
        stored = self.store.read("c1")
        assert stored is not None
        return stored.segments

    def _store_job(self, job: JobEvidence) -> JobEvidence:
        """Store a result under the id that the ledger gives its job."""
        chunk_id = job.chunks[-1].chunk_id
        add_waiting_job(self.ledger, "c1", chunk_id, audio_s=60.0, final=False)
        made = self.ledger.jobs.of_conversation("c1")[-1]
        lease = self.ledger.leases.grant(made.job_id, "mac", "i", ("wespeaker", "1"))
        assert lease is not None
        result = SpeakerTurns(
            conversation_id="c1",
            job_id=made.job_id,
            lease_id=lease.lease_id,
            agent_id="mac",
            engine=EngineDescription(name="pyannote", embedding_model="wespeaker", embedding_revision="1"),
            chunks=job.chunks,
            turns=job.turns,
            exclusive_turns=job.exclusive_turns,
            speakers=job.speakers,
            voice_samples=SAMPLES,
        )
        assert self.ledger.jobs.store_result(lease, encode(result), {})
        return JobEvidence.from_result(result)

    def _note_final(self, found: Relabelling) -> None:
        update = ConversationUpdated(
            conversation_id="c1", updated_version=1, state="final", turns=found.turns, segments=found.segments
        )
        done = tuple(job.job_id for job in self.ledger.jobs.of_conversation("c1"))
        made = AssignedUpdate(found.voices.to_json(), found.write_key, encode(update), True, done, 0)
        self.ledger.conversations.note_update("c1", made)

    def sweep(self) -> None:
        nothing = cast("Any", SimpleNamespace(clean_up=lambda _now_s: None, is_held=True))
        kept = retention.Retention(
            BridgeSettings(data_dir=self.root),
            self.ledger,
            Spool(self.root / "spool"),
            self.store,
            ingest=nothing,
            dispatcher=nothing,
            disk_reserve=nothing,
        )
        self.ledger.chunks.mark_unlinked(list(range(1_000)))
        kept.sweep(0.0)

    def results(self) -> list[SpeakerTurns]:
        return [decode(SpeakerTurns, found.payload) for found in self.ledger.jobs.results("c1")]

    def relabelled(self) -> tuple[ConversationEvidence, Relabelling]:
        jobs = tuple(JobEvidence.from_result(result) for result in self.results())
        evidence = replace(self.evidence, jobs=jobs, voices=self.before.voices)
        return evidence, relabel(evidence, POLICY)

    def is_anywhere(self, data: bytes) -> bool:
        return any(data in path.read_bytes() for path in self.root.rglob("*") if path.is_file())


@pytest.fixture
def final(tmp_path: Path) -> FinalConversation:
    return FinalConversation(tmp_path / "bridge")


def put_clock_forward(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + days * DAY_S)


def embeddings_of(final: FinalConversation, *, of: str) -> set[bytes]:
    """Every embedding of the voice that says this segment."""
    number = next(row.speaker_id for row in final.before.segments if row.id == of)
    voice = next(voice for voice in final.before.voices.voices if voice.speaker_id == number)
    members = {(member.job_id, member.speaker) for member in voice.members}
    return {
        speaker.embedding or b""
        for job in final.evidence.jobs
        for speaker in job.speakers
        if (job.job_id, speaker.speaker) in members
    }


def _is_like(embedding: bytes | None, sounds: set[bytes]) -> bool:
    if embedding is None:
        return False
    one, others = (np.frombuffer(data, "<f4") for data in (embedding, b"".join(sounds)))
    return bool((others.reshape(len(sounds), -1) @ one).max() > 0.8)


def test_samples_go_after_3_days_and_voices_that_nobody_named_after_30_from_every_file(
    final: FinalConversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    others, named = embeddings_of(final, of="s000"), embeddings_of(final, of="s005")
    assert all(map(final.is_anywhere, [SAMPLES.embeddings, *others, *named]))

    put_clock_forward(monkeypatch, 2.9)
    final.sweep()
    assert all(result.voice_samples is not None for result in final.results())
    put_clock_forward(monkeypatch, 0.2)
    final.sweep()
    assert not final.is_anywhere(SAMPLES.embeddings)
    assert all(map(final.is_anywhere, [*others, *named]))

    put_clock_forward(monkeypatch, 27.0)
    final.sweep()
    assert not any(map(final.is_anywhere, others))
    (kept_sound,) = {
        voice.embedding for result in final.results() for voice in result.speakers if _is_like(voice.embedding, named)
    }
    assert kept_sound, "B was named: how B sounds stays, in one vector for all jobs"
    evidence, again = final.relabelled()
    assert evidence.jobs
    assert again.changed == final.before.changed
    assert [voice.members for voice in again.voices.voices] == [voice.members for voice in final.before.voices.voices]
    assert "voices.forgotten" in again.warnings
    kept = final.results()
    final.sweep()
    assert final.results() == kept, "once"


def test_a_deleted_conversation_leaves_no_voice_in_any_file(final: FinalConversation) -> None:
    from vps_bridge.intake.erasure import erase_conversation

    voices = [*embeddings_of(final, of="s000"), *embeddings_of(final, of="s005")]
    erase_conversation("c1", final.ledger, Spool(final.root / "spool"), final.store)
    assert not any(map(final.is_anywhere, [SAMPLES.embeddings, *voices]))


def test_a_forgotten_person_s_voice_is_in_no_file_and_all_others_stay(final: FinalConversation) -> None:
    others, named = embeddings_of(final, of="s000"), embeddings_of(final, of=NAMED)
    People(final.ledger, final.store).forget("", "p")
    assert not any(map(final.is_anywhere, [SAMPLES.embeddings, *named]))
    assert all(map(final.is_anywhere, others))
    evidence, again = final.relabelled()
    assert evidence.jobs
    assert again.changed == final.before.changed
    assert again.warnings == final.before.warnings, "the other voices are forgotten in their own time"
