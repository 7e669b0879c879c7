"""Conversations of one owner, as a backend sees them, with an agent whose voices sound as a test says."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from schemas.codec import encode
from schemas.conversation import ConversationUpdated, EventType, Verdict
from schemas.people import PersonAccepted, PersonEvent, PersonEventType
from schemas.turns import SpeakerTurns
from schemas.voice_people import VoicePerson
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS, STARTED_AT, TOPICS, Backend, call_segments, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav, voice_of

CALIBRATED = ("campplus-of-a-test", "1")
ALONE = ((0.5, 9.0, "a"), (10.0, 29.0, "a"))
Turns = Sequence[tuple[float, float, str]]


def sounding(like: str, similarity: float) -> bytes:
    """A voice that is so similar to the one of a label."""
    known, other = (np.frombuffer(voice_of(label), "<f4").astype(np.float64) for label in (like, "somebody else"))
    other -= (other @ known) * known
    vector = similarity * known + np.sqrt(1.0 - similarity**2) * other / np.linalg.norm(other)
    return vector.astype("<f4").tobytes()


class OwnersBackend:
    """One owner's backend: only messages."""

    def __init__(self, backend: Backend, agent: ScriptedAgent, owner: str | None = None) -> None:
        self.backend, self.agent = backend, agent
        self.owner = f"user-{uuid.uuid4().hex[:8]}" if owner is None else owner

    def call(
        self, turns: Turns = CALL_TURNS, *, voices: Mapping[str, bytes] | None = None, completed: bool = True
    ) -> ConversationUpdated:
        """A whole call, diarized; `voices` says how labels sound. Returns its update."""
        name = f"call-{uuid.uuid4().hex[:8]}"
        self.backend.event(name, EventType.STARTED, started_at=STARTED_AT, owner=self.owner)
        self.backend.event(name, EventType.SEGMENTS, segments=call_segments(name))
        self.hear(name, turns, voices=voices)
        if completed:
            self.backend.event(name, EventType.COMPLETED, chunks=1)
        return self.backend.wait_updated(name, final=completed)

    def hear(self, name: str, turns: Turns, *, voices: Mapping[str, bytes] | None = None, later_s: float = 0.0) -> None:
        """Audio of a conversation, so long after it began, and its result."""
        tone, heard = sum(map(ord, name)) % 30_000, len(self.agent.leases(name))
        captured_at = STARTED_AT + timedelta(seconds=later_s)
        self.backend.audio(name, make_wav(CALL_S, tone=tone), captured_at=captured_at, final=True)
        offer = self.agent.wait_offer(name, after=heard)
        result = self.agent.result(offer, turns)
        self.agent.send_raw(name, _encoded(result, voices or {}))
        self.agent.held.pop(offer.job_id or "", None)

    def enrol(self, person_id: str, turns: Turns, *, voices: Mapping[str, bytes] | None = None) -> ConversationUpdated:
        """Enrol from a recording; returns the update that tells the outcome, and says that it was heard."""
        name = f"enrolment-{uuid.uuid4().hex[:8]}"
        self.backend.event(name, EventType.STARTED, started_at=STARTED_AT, owner=self.owner, enrols=person_id)
        self.hear(name, turns, voices=voices)
        self.backend.event(name, EventType.COMPLETED, chunks=1)
        told = self.backend.wait_updated(name)
        receipt = self.backend.event(name, EventType.APPLIED, updated_version=told.updated_version)
        assert receipt.verdict is Verdict.ACCEPTED
        return told

    def say(
        self, person_id: str, kind: PersonEventType, *, event_id: str | None = None, **fields: Any
    ) -> PersonAccepted:
        """Say something of a person; returns the receipt."""
        event_id = event_id or f"e-{uuid.uuid4().hex}"
        event = PersonEvent(event_id=event_id, type=kind, **{"owner": self.owner, **fields})
        before = len(self._receipts(event_id))
        self.backend.publish(TOPICS.person_events(person_id), event)
        return wait_until(lambda: self._receipts(event_id)[before:], f"the receipt of {kind}")[0]

    def confirm(
        self, person_id: str, update: ConversationUpdated, speaker_id: int, **fields: Any
    ) -> ConversationUpdated:
        """Say that a voice is a person; returns the update that follows."""
        name = update.conversation_id
        fields |= {"conversation_id": name, "speaker_id": speaker_id, "by": "a person"}
        assert self.say(person_id, PersonEventType.CONFIRMED, **fields).verdict is Verdict.ACCEPTED
        return self.backend.wait_updated(name, version=update.updated_version + 1)

    def _receipts(self, event_id: str) -> list[PersonAccepted]:
        return [receipt for receipt in self.backend.seen(PersonAccepted) if receipt.event_id == event_id]


def _encoded(result: SpeakerTurns, voices: Mapping[str, bytes]) -> bytes:
    speakers = tuple(
        voice.model_copy(update={"embedding": voices.get(voice.speaker, voice.embedding)}) for voice in result.speakers
    )
    return encode(result.model_copy(update={"speakers": speakers}))


def person_of(update: ConversationUpdated, speaker_id: int) -> VoicePerson | None:
    """Who an update says a voice is."""
    return next((each for each in update.people if each.speaker_id == speaker_id), None)
