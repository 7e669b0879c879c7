"""What one finished job found: what labelling takes from a result message."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.turns import ChunkSpan, SpeakerTurn, SpeakerTurns, SpeakerVoice, VoiceSamples


@dataclass(frozen=True)
class JobEvidence:
    """What one finished job found, in the job's own seconds and under its own labels."""

    job_id: str
    chunks: tuple[ChunkSpan, ...]
    """Where each chunk was in the job, measured after decoding."""
    turns: tuple[SpeakerTurn, ...]
    """With overlap: two speakers at once are two turns."""
    exclusive_turns: tuple[SpeakerTurn, ...]
    """The same speakers, one at a time."""
    speakers: tuple[SpeakerVoice, ...]
    embedding_model: str
    embedding_revision: str
    warnings: tuple[str, ...] = ()
    """What its agent reported about the audio, for a person who wonders why a result is poor."""
    undecoded: frozenset[str] = frozenset()
    """The ids of chunks of which its agent could decode nothing."""
    voice_samples: VoiceSamples | None = None
    """What its engine clustered; None from an older agent, or where they are not kept any more."""

    @classmethod
    def from_result(cls, result: SpeakerTurns) -> JobEvidence:
        """Take from a result message what labelling needs."""
        return cls(
            job_id=result.job_id,
            chunks=result.chunks,
            turns=result.turns,
            exclusive_turns=result.exclusive_turns,
            speakers=result.speakers,
            embedding_model=result.engine.embedding_model,
            embedding_revision=result.engine.embedding_revision,
            warnings=result.warnings,
            undecoded=frozenset(chunk.chunk_id for chunk in result.undecoded),
            voice_samples=result.voice_samples,
        )
