"""Forgetting how people sound: long after the last labels, the embeddings of voices that nobody named go.

Each is replaced by a drawn vector, the same for all parts of one voice and unlike that of any other. It says only what
the labels say, and nothing about a person; so a segment or a correction that comes later meets the same voices.
A voice that somebody named keeps its sound, in one vector for all its parts: one for each of its jobs would take more
room than everything else that is kept of the conversation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.conversation import ConversationTurn
from schemas.turns import SpeakerTurns, SpeakerVoice
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.number import VoiceBook
from vps_bridge.labelling.take_apart import settle_samples
from vps_bridge.labelling.vote import TranscriptTurn, measure_segments

FORGOTTEN = "voices.forgotten"
"""A warning of every result whose embeddings were replaced."""
ERASED = "voices.erased"
"""A warning of every result that was there when how a person sounds was erased. What comes later cannot be linked with
that person's voice any more; the conversation tells it where something did come later."""
ERASED_SPEAKERS = "voices.erased_speakers"
"""Of a result that says whose sound was erased: one more line for each, with the speaker behind it. Told nobody."""
_MAX_WARNINGS = 50
MIN_WEIGHT_S = 0.1


def find_named(segments: Sequence[StoredSegment], turns: Iterable[ConversationTurn]) -> frozenset[int]:
    """Return the numbers of the voices that somebody named: who speaks most in a segment that is a person's.

    Args:
        segments: the transcript.
        turns: who speaks when, in seconds of the transcript.
    """
    of_people = [segment for segment in segments if segment.is_user or segment.person_id]
    spoken = [TranscriptTurn(turn.start_s, turn.end_s, turn.speaker_id) for turn in turns]
    measured = measure_segments(spoken, of_people)
    return frozenset(max(sorted(seconds), key=seconds.__getitem__) for seconds in measured if seconds)


def forget_voices(results: Sequence[SpeakerTurns], book: VoiceBook, named: frozenset[int]) -> list[SpeakerTurns]:
    """Return a conversation's results without voice samples and without the embeddings of voices that nobody named."""
    number_of = {member: voice.speaker_id for voice in book.voices for member in voice.members}
    stand_ins = _StandIns()
    settled = [result for result in settle_samples(results) if FORGOTTEN not in result.warnings]
    for number, embedding in _mean_sounds(settled, number_of, named):
        stand_ins.keep(number, embedding)
    for result in results:
        for voice in result.speakers if FORGOTTEN in result.warnings else ():
            known = number_of.get(LocalSpeaker(result.job_id, voice.speaker))
            if voice.embedding is not None and known is not None:
                stand_ins.keep(known, voice.embedding)

    def forget(job_id: str, voice: SpeakerVoice) -> SpeakerVoice:
        number = number_of.get(LocalSpeaker(job_id, voice.speaker))
        if voice.embedding is None:
            return voice
        stand_in = None if number is None else stand_ins.of(number, len(voice.embedding))
        return voice.model_copy(update={"embedding": stand_in})

    return [
        _with_warnings(result, tuple(forget(result.job_id, voice) for voice in result.speakers), FORGOTTEN)
        for result in settled
    ]


def _mean_sounds(
    results: Sequence[SpeakerTurns], number_of: Mapping[LocalSpeaker, int], named: frozenset[int]
) -> Iterator[tuple[int, bytes]]:
    """Yield each named voice's mean embedding, weighted by clean speech; one for each length of embeddings."""
    sums: dict[tuple[int, int], NDArray[np.float64]] = {}
    for result in results:
        for voice in result.speakers:
            number = number_of.get(LocalSpeaker(result.job_id, voice.speaker))
            if voice.embedding is not None and number in named:
                vector = np.frombuffer(voice.embedding, "<f4").astype(np.float64)
                key = number, len(vector)
                sums[key] = sums.get(key, 0.0) + max(voice.clean_speech_s, MIN_WEIGHT_S) * vector
    for (number, _), total in sums.items():
        length = float(np.linalg.norm(total))
        if length > 0.0:
            yield number, (total / length).astype("<f4").tobytes()


def forget_numbers(results: Sequence[SpeakerTurns], book: VoiceBook, numbers: frozenset[int]) -> list[SpeakerTurns]:
    """Return a conversation's results without voice samples and without the embeddings of voices with these numbers.

    The other voices stay as they are, and are forgotten in their own time.
    """
    gone = {
        member: voice.speaker_id for voice in book.voices if voice.speaker_id in numbers for member in voice.members
    }
    stand_ins = _StandIns()

    def forget(job_id: str, voice: SpeakerVoice) -> SpeakerVoice:
        number = gone.get(LocalSpeaker(job_id, voice.speaker))
        if voice.embedding is None or number is None:
            return voice
        return voice.model_copy(update={"embedding": stand_ins.of(number, len(voice.embedding))})

    def forget_in(result: SpeakerTurns) -> SpeakerTurns:
        labels = [voice.speaker for voice in result.speakers]
        erased = erased_speakers(result.warnings, labels)
        erased |= {label for label in labels if LocalSpeaker(result.job_id, label) in gone}
        lines = [ERASED, ERASED_SPEAKERS, *(_line_of(label) for label in sorted(erased))]
        speakers = tuple(forget(result.job_id, voice) for voice in result.speakers)
        return _with_warnings(result, speakers, *lines[: None if len(lines) <= _MAX_WARNINGS else 1])

    settled = {result.job_id: result for result in settle_samples(results)}
    return [forget_in(settled.get(result.job_id, result)) for result in results]


def erased_speakers(warnings: Sequence[str], speakers: Iterable[str]) -> frozenset[str]:
    """Return whose sound was erased in a result; all of its speakers where it does not say whose."""
    if ERASED not in warnings:
        return frozenset()
    says_whose = ERASED_SPEAKERS in warnings
    return frozenset(label for label in speakers if not says_whose or _line_of(label) in warnings)


def _line_of(label: str) -> str:
    return f"{ERASED_SPEAKERS}: {label}"


def _with_warnings(result: SpeakerTurns, speakers: tuple[SpeakerVoice, ...], *lines: str) -> SpeakerTurns:
    own = (ERASED, ERASED_SPEAKERS) if ERASED in lines else lines
    others = [line for line in result.warnings if line.partition(":")[0] not in own]
    return result.model_copy(update={"speakers": speakers, "warnings": (*others[: _MAX_WARNINGS - len(lines)], *lines)})


class _StandIns:
    """The drawn vectors, by number of the voice and by length; at right angles to each other while there is room."""

    def __init__(self) -> None:
        self._vectors: dict[int, dict[int, NDArray[np.float64]]] = {}
        self._draw = np.random.default_rng()

    def keep(self, number: int, embedding: bytes) -> None:
        """Use again what stands for this voice already."""
        vector = np.frombuffer(embedding, "<f4").astype(np.float64)
        self._vectors.setdefault(len(embedding), {})[number] = vector

    def of(self, number: int, n_bytes: int) -> bytes:
        """Return the vector of a voice, as an embedding of so many bytes."""
        known = self._vectors.setdefault(n_bytes, {})
        if number not in known:
            vector = self._draw.normal(size=n_bytes // 4)
            for other in known.values() if len(known) < len(vector) else ():
                vector -= (vector @ other) * other
            known[number] = vector / np.linalg.norm(vector)
        return known[number].astype("<f4").tobytes()
