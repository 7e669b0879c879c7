"""From all evidence of a conversation to its labels: one pure function that the service calls each time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.conversation import ConversationTurn, SegmentLabel, VoiceChange
from schemas.turns import ChunkSpan, SpeakerTurn, SpeakerTurns, SpeakerVoice
from vps_bridge.align import AlignmentRules
from vps_bridge.assemble import AssemblyRules, ChunkInfo
from vps_bridge.assign import AssignmentRules
from vps_bridge.conversations.store import Change, Label, StoredSegment
from vps_bridge.speakers import LinkingRules, SpeakerLink
from vps_bridge.voices import VoiceBook


@dataclass(frozen=True)
class RelabelPolicy:
    """Every threshold of a relabelling; part of the write key."""

    assembly: AssemblyRules = AssemblyRules()
    alignment: AlignmentRules = AlignmentRules()
    linking: LinkingRules = LinkingRules()
    assignment: AssignmentRules = AssignmentRules()


@dataclass(frozen=True)
class JobEvidence:
    """What one finished job says, in the job's own seconds and labels."""

    job_id: str
    chunks: tuple[ChunkSpan, ...]
    """Where each chunk lay in the job, as decoded."""
    turns: tuple[SpeakerTurn, ...]
    exclusive_turns: tuple[SpeakerTurn, ...]
    speakers: tuple[SpeakerVoice, ...]
    embedding_model: str
    embedding_revision: str

    @classmethod
    def from_result(cls, result: SpeakerTurns) -> JobEvidence:
        """Take what counts from a result message."""
        return cls(
            job_id=result.job_id,
            chunks=result.chunks,
            turns=result.turns,
            exclusive_turns=result.exclusive_turns,
            speakers=result.speakers,
            embedding_model=result.engine.embedding_model,
            embedding_revision=result.engine.embedding_revision,
        )


@dataclass(frozen=True)
class ConversationEvidence:
    """All that is known of a conversation."""

    conversation_id: str
    chunks: tuple[ChunkInfo, ...]
    """Every chunk accepted so far; durations from the header are replaced by decoded ones here."""
    jobs: tuple[JobEvidence, ...]
    segments: tuple[StoredSegment, ...] = ()
    started_at_s: float | None = None
    """Unix time of the transcript's zero."""
    voices: VoiceBook = VoiceBook()
    """What the last relabelling returned."""
    links: tuple[SpeakerLink, ...] = ()
    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None


@dataclass(frozen=True)
class Relabelling:
    """The labels of a conversation, and everything that is to be said about them."""

    segments: tuple[SegmentLabel, ...]
    """Every segment's label as it shall read, left alone or not; in the order of the evidence."""
    changed: tuple[Change, ...]
    left_alone: tuple[tuple[str, str], ...]
    """(segment id, reason): human, two_speakers, low_coverage, no_audio, clock.unknown, clock.unverified."""
    voices: VoiceBook
    """Keep it, and give it to the next relabelling."""
    voice_changes: tuple[VoiceChange, ...]
    turns: tuple[ConversationTurn, ...]
    """Exclusive turns of numbered voices on the transcript's clock; without segments on the audio's clock."""
    speakers: int
    """How many voices have a number and speak in the audio."""
    warnings: tuple[str, ...]
    audio_s: float
    """Seconds of audio that some job covered."""
    write_key: str
    """sha256 of the evidence (machine labels left out) and the policy."""
    offsets: Mapping[int, float | None] = field(default_factory=dict)
    """Per stretch, what is added to audio seconds to get transcript seconds; None where it is not known."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """What `ConversationStore.apply` takes: the changed segments only."""
        wanted = {segment.id: segment.speaker_id for segment in self.segments}
        return tuple(Label(change.segment_id, wanted[change.segment_id]) for change in self.changed)


def relabel(evidence: ConversationEvidence, policy: RelabelPolicy) -> Relabelling:
    """Link, align, vote and name: the whole conversation again, each time.

    The result depends on the evidence alone, not on the order in which chunks or jobs arrived; only the numbers
    of voices remember what was published before. Applying it and relabelling again changes nothing.
    """
    raise NotImplementedError
