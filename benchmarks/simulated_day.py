"""A day of a necklace in a real ledger and a real store: conversations as they come, diarized and labelled.

Chunks, jobs, leases, results, events and labels go through the bridge's own functions; only the broker, the audio files
and the engine are left out. Everything is drawn from a seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from schemas.codec import encode
from schemas.conversation import ConversationEvent, EventType, TranscriptSegment, Verdict, Word
from schemas.turns import ChunkSpan, EngineDescription, SpeakerTurn, SpeakerTurns, SpeakerVoice, VoiceSamples
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.dispatch.updates import Updater
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import JobChunk, NewChunk, SpeakerHints
from vps_bridge.rules.assemble import plan_jobs
from vps_bridge.settings import BridgeSettings

CHUNK_S = 10.0
AUDIO_BYTES_PER_S = 4_000  # Opus, as the necklace sends it
EMBEDDING_NUMBERS = 256  # of WeSpeaker
SAMPLE_STEP_S = 1.0  # pyannote's windows of 10 s begin so far apart; with two speakers in each: two samples
SHORTEST_SAMPLE_S = 0.05
WORDS_PER_S = 2.5
LABEL_EVERY_JOBS = 5  # the backend hears of labels about every five minutes while a conversation goes on
VOCABULARY = 3_000
OWN_SHARE = 0.02  # of the wearer's segments are labelled as theirs by hand
STARTED_AT_S = 1_770_000_000.0


@dataclass(frozen=True)
class DayShape:
    """How much there is in one day."""

    conversations: int = 24
    conversation_s: float = 2_400.0
    speech_share: float = 0.6
    """The part of the audio in which somebody speaks."""

    @property
    def audio_s(self) -> float:
        """Seconds of audio in a day."""
        return self.conversations * self.conversation_s


@dataclass(frozen=True)
class _Spoken:
    """One stretch of speech of one person, in seconds of the conversation."""

    start_s: float
    end_s: float
    person: int


class _Nobody:
    """Takes what the bridge would send."""

    def send_largest(self, *_: object, **__: object) -> bool:
        """Take an update."""
        return True


class SimulatedDay:
    """Writes conversations into the data directory of a bridge."""

    def __init__(self, data_dir: Path, *, seed: int = 1) -> None:
        """Open ledger and store below `data_dir`; `close` closes them."""
        self._draw = np.random.default_rng(seed)
        self.settings = BridgeSettings(data_dir=data_dir)
        self.ledger = Ledger(self.settings.root, exclusive=True)
        self.store = SqliteConversations(self.settings.root / STORE_FILE)
        self._updater = Updater(self.settings, self.ledger, self.store, cast("Any", _Nobody()))
        # The wearer's voice and those of the people met.
        self._voices = self._draw.standard_normal((12, EMBEDDING_NUMBERS))
        letters = "abcdefghijklmnoprstuvw"
        lengths = self._draw.integers(2, 9, VOCABULARY)
        self._words = ["".join(self._draw.choice(list(letters), size)) for size in lengths]
        self._events = 0

    def close(self) -> None:
        """Close ledger and store."""
        self.store.close()
        self.ledger.close()

    def add(self, shape: DayShape, day: int = 0) -> list[str]:
        """Write a day and return the ids of its conversations, all of them final and confirmed by the backend."""
        names = []
        for place in range(shape.conversations):
            name = f"conv-{day:04d}-{self._draw.bytes(6).hex()}"
            began_s = STARTED_AT_S + 86_400.0 * day + place * shape.conversation_s
            self._add_conversation(name, shape, began_s)
            names.append(name)
        return names

    def _add_conversation(self, name: str, shape: DayShape, began_s: float) -> None:
        people = [0, *self._draw.choice(range(1, len(self._voices)), int(self._draw.integers(1, 4)), replace=False)]
        spoken = list(self._speak(shape, people))
        self._hear(name, EventType.STARTED, started_at=datetime.fromtimestamp(began_s, UTC), owner="wearer")
        jobs = 0
        chunks = round(shape.conversation_s / CHUNK_S)
        for number in range(chunks):
            now_s = number * CHUNK_S
            self._accept(name, number, began_s + now_s)
            if number % 3 == 2:
                self._transcribe(name, [one for one in spoken if now_s - 2 * CHUNK_S <= one.start_s < now_s + CHUNK_S])
            for _ in self._plan(name, closing=number == chunks - 1):
                jobs += 1
                self._diarize(name, spoken)
                if jobs % LABEL_EVERY_JOBS == 0:
                    self.label(name, final=False)
        self._hear(name, EventType.COMPLETED, chunks=chunks)
        self.label(name, final=True)

    def _speak(self, shape: DayShape, people: Sequence[int]) -> Iterator[_Spoken]:
        at_s = 1.0
        while at_s < shape.conversation_s - 12.0:
            length_s = float(self._draw.gamma(2.0, 2.2)) + 0.6
            person = people[int(self._draw.choice(len(people), p=_shares(len(people))))]
            yield _Spoken(at_s, at_s + min(length_s, 11.0), person)
            at_s += min(length_s, 11.0) / shape.speech_share + float(self._draw.normal(0, 0.2))

    def _hear(self, name: str, kind: EventType, **fields: Any) -> None:  # noqa: ANN401 - fields of an event
        self._events += 1
        event = ConversationEvent(
            event_id=f"e-{self._draw.bytes(12).hex()}", type=kind, revision=self._events, **fields
        )
        if event.segments:
            self.store.upsert_segments(name, event.revision, event.segments)
        self.ledger.events.note(event, name, Verdict.ACCEPTED)

    def _accept(self, name: str, number: int, captured_at_s: float) -> None:
        size = round(CHUNK_S * AUDIO_BYTES_PER_S * self._draw.uniform(0.8, 1.2))
        new = NewChunk(
            conversation_id=name,
            chunk_id=f"{name}-{number}",
            sha256=hashlib.sha256(self._draw.bytes(16)).hexdigest(),
            bytes=size,
            spool_name=self._draw.bytes(16).hex(),
            encoding="ogg",
            sequence=number,
            captured_at_s=captured_at_s,
            sample_rate=16_000,
            channels=1,
            duration_s=CHUNK_S,
        )
        self.ledger.chunks.accept(new, SpeakerHints(), final=False)

    def _transcribe(self, name: str, spoken: Sequence[_Spoken]) -> None:
        segments = []
        for one in spoken:
            count = max(1, round((one.end_s - one.start_s) * WORDS_PER_S))
            step_s = (one.end_s - one.start_s) / count
            texts = [self._words[int(place)] for place in self._draw.zipf(1.2, count) % VOCABULARY]
            starts_s = [round(one.start_s + place * step_s, 2) for place in range(count)]
            words = tuple(
                Word(text=text, start_s=at_s, end_s=round(at_s + 0.8 * step_s, 2))
                for text, at_s in zip(texts, starts_s, strict=True)
            )
            times: dict[str, Any] = {"start_s": round(one.start_s, 2), "end_s": round(one.end_s, 2)}
            if one.person == 0 and self._draw.random() < OWN_SHARE:
                times |= {"is_user": True, "label_source": "manual"}
            segment_id = self._draw.bytes(8).hex()
            segments.append(
                TranscriptSegment(id=segment_id, text=" ".join(texts), speaker="SPEAKER_00", words=words, **times)
            )
        if segments:
            self._hear(name, EventType.SEGMENTS, segments=tuple(segments))

    def _plan(self, name: str, *, closing: bool) -> list[str]:
        infos = [chunk.info for chunk in self.ledger.chunks.of_conversation(name)]
        plans = plan_jobs(infos, closing=closing, idle_s=0.0, rules=self.settings.assembly_rules)
        return self.ledger.jobs.add(name, plans) if plans else []

    def _diarize(self, name: str, spoken: Sequence[_Spoken]) -> None:
        """Let an agent do the latest job."""
        job = self.ledger.jobs.of_conversation(name)[-1]
        lease = self.ledger.leases.grant(job.job_id, "mac-studio", "i-1", ("wespeaker", "1"))
        assert lease is not None
        chunks = self.ledger.jobs.chunks(job.job_id)
        spans = list(_spans(chunks))
        from_s = (chunks[0].chunk.sequence or 0) * CHUNK_S
        until_s = from_s + spans[-1].start_s + CHUNK_S
        mine = [one for one in spoken if one.start_s < until_s and one.end_s > from_s]
        labels = {person: f"SPEAKER_{place:02d}" for place, person in enumerate(dict.fromkeys(x.person for x in mine))}
        turns = tuple(
            SpeakerTurn(
                start_s=max(0.0, one.start_s - from_s + 0.1 * self._draw.random()),
                end_s=min(until_s, one.end_s) - from_s,
                speaker=labels[one.person],
            )
            for one in mine
            if min(until_s, one.end_s) - max(from_s, one.start_s) > 0.2
        )
        speakers = tuple(
            SpeakerVoice(speaker=label, clean_speech_s=10.0, embedding=self._sound(person))
            for person, label in labels.items()
        )
        result = SpeakerTurns(
            conversation_id=name,
            job_id=job.job_id,
            lease_id=lease.lease_id,
            agent_id="mac-studio",
            engine=EngineDescription(
                name="pyannote", model="community-1", embedding_model="wespeaker", embedding_revision="1"
            ),
            duration_s=until_s - from_s,
            chunks=tuple(spans),
            turns=turns,
            exclusive_turns=turns,
            speakers=speakers,
            voice_samples=self._sample(mine, from_s, until_s),
            timings_ms={"decode": self._draw.random() * 90, "diarize": self._draw.random() * 9_000},
        )
        assert self.ledger.jobs.store_result(lease, encode(result), {})

    def _sound(self, person: int) -> bytes:
        vector = self._voices[person] + 0.02 * self._draw.standard_normal(EMBEDDING_NUMBERS)
        return (vector / np.linalg.norm(vector)).astype("<f4").tobytes()

    def _sample(self, spoken: Sequence[_Spoken], from_s: float, until_s: float) -> VoiceSamples | None:
        rows: list[tuple[float, float, float]] = []
        vectors = []
        for one in spoken:
            start_s, end_s = max(from_s, one.start_s) - from_s, min(until_s, one.end_s) - from_s
            for at_s in np.arange(start_s, end_s - SHORTEST_SAMPLE_S, SAMPLE_STEP_S):
                rows.append(
                    (float(at_s), min(float(at_s) + SAMPLE_STEP_S, end_s), min(SAMPLE_STEP_S, end_s - float(at_s)))
                )
                vectors.append(self._voices[one.person] + 0.3 * self._draw.standard_normal(EMBEDDING_NUMBERS))
        if not rows:
            return None
        return VoiceSamples(
            count=len(rows),
            times_s=np.array(rows, "<f4").tobytes(),
            embeddings=np.array(vectors, "<f2").tobytes(),
        )

    def label(self, name: str, *, final: bool) -> None:
        """Work out a conversation's labels, as the bridge does, and confirm the update as the backend does."""
        conversation = self.ledger.conversations.get(name)
        assert conversation is not None
        assert self._updater.assign(self._updater.read(conversation, final=final), final=final)
        conversation = self.ledger.conversations.get(name)
        assert conversation is not None
        self._hear(name, EventType.APPLIED, updated_version=conversation.updated_version)


def _shares(people: int) -> list[float]:
    """Return how much of a conversation each speaks: the wearer half."""
    return [0.5, *([0.5 / (people - 1)] * (people - 1))]


def _spans(chunks: Sequence[JobChunk]) -> Iterator[ChunkSpan]:
    for place, item in enumerate(chunks):
        yield ChunkSpan(chunk_id=item.chunk.chunk_id, start_s=place * CHUNK_S, duration_s=CHUNK_S)
