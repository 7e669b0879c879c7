"""What working out a conversation's labels needs, as it was read from ledger and store, and the work itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vps_bridge.conversations.store import StoredConversation
from vps_bridge.dispatch.read_result import read_result
from vps_bridge.labelling.corrections import read_kept
from vps_bridge.labelling.known_people import KnownPeople
from vps_bridge.labelling.number import VoiceBook
from vps_bridge.labelling.relabel import ConversationEvidence, JobEvidence, Relabelling, RelabelPolicy, relabel
from vps_bridge.ledger.people import OwnersPeople, PrintRecord
from vps_bridge.ledger.records import ChunkRecord, ConversationRecord, CorrectionRecord, JobRecord, describe_completion
from vps_bridge.people.match import Print
from vps_bridge.rules.completion import describe_missing

# Up to these, labels are worked out within some tens of milliseconds, on the bridge's own thread; beyond, in another
# process: what agents and backends send decides how long it takes, and nobody else may wait for it.
SMALL_RESULT_BYTES, SMALL_SEGMENTS, SMALL_CHUNKS, SMALL_LOCAL_SPEAKERS = 256_000, 2_000, 2_000, 150


@dataclass(frozen=True)
class LabellingWork:
    """A conversation as it was at one moment. The results are as agents sent them."""

    conversation: ConversationRecord
    stored: StoredConversation | None
    jobs: tuple[JobRecord, ...]
    chunks: tuple[ChunkRecord, ...]
    results: tuple[bytes, ...]
    corrections: tuple[CorrectionRecord, ...]
    """Those in force, oldest first."""
    people: OwnersPeople
    """Whom its owner knows."""
    is_final: bool
    """Whether nothing more is expected: these are the last labels."""

    @property
    def name(self) -> str:
        """The conversation's id."""
        return self.conversation.conversation_id

    @cached_property
    def evidence(self) -> ConversationEvidence:
        """All of it, decoded. Raises `SchemaError` where a stored result cannot be."""
        conversation = self.conversation
        least, most = conversation.min_speakers, conversation.max_speakers
        if least is not None and most is not None and least > most:
            least = most = None  # of different messages, which contradict each other: neither is a hint
        return ConversationEvidence(
            conversation_id=self.name,
            chunks=tuple(chunk.info for chunk in self.chunks),
            jobs=tuple(JobEvidence.from_result(read_result(result)) for result in self.results),
            segments=self.stored.segments if self.stored else (),
            started_at_s=conversation.started_at_s,
            voices=VoiceBook.from_json(conversation.voices) if conversation.voices else VoiceBook(),
            corrections=tuple(kept for record in self.corrections for kept in read_kept(record)),
            people=self._known_people,
            num_speakers=conversation.num_speakers,
            min_speakers=least,
            max_speakers=most,
            is_final=self.is_final,
            missing=describe_missing(describe_completion(conversation, self.chunks)) if self.is_final else None,
        )

    @property
    def _known_people(self) -> KnownPeople:
        own = [each for each in self.people.prints if each.is_from(self.name)]
        return KnownPeople(
            people=self.people.people,
            prints=tuple(to_print(each) for each in self.people.prints if not each.is_from(self.name)),
            taught=frozenset(each.person_id for each in own),
            enrols=self.conversation.enrols,
        )

    @property
    def is_small(self) -> bool:
        """Whether it is certain to take little time."""
        if sum(map(len, self.results)) > SMALL_RESULT_BYTES or len(self.chunks) > SMALL_CHUNKS:
            return False
        if self.stored is not None and len(self.stored.segments) > SMALL_SEGMENTS:
            return False
        local = sum(len({turn.speaker for turn in job.turns}) for job in self.evidence.jobs)
        return local <= SMALL_LOCAL_SPEAKERS


def to_print(record: PrintRecord) -> Print:
    """Return a voiceprint of the ledger as it is compared."""
    return Print(record.person_id, record.embedding_space, np.frombuffer(record.vector, "<f4"), record.clean_s)


def work_out(work: LabellingWork, policy: RelabelPolicy) -> Relabelling:
    """Return the labels. Raises `SchemaError` where a stored result cannot be read."""
    return relabel(work.evidence, policy)
