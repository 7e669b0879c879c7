"""Taking apart: a local speaker that mixes several people becomes one local speaker for each of them.

All voice samples of the conversation are clustered together (`cluster`). Wherever the samples say that a job's speaker
is another voice than the rest of it, its turns go to a part of it of their own. Pure, and in the seconds of each job.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from schemas.turns import (
    MAX_SPEAKERS,
    MAX_TURNS,
    SPEECH_STEP_S,
    SpeakerTurn,
    SpeakerTurns,
    SpeakerVoice,
    VoiceSamples,
)
from vps_bridge.labelling.cluster import Floats, Labels, SampleRules, SampleSet, find_voices
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.local_speaker import LocalSpeaker

MIN_PART_S = 1.0  # what is shorter is more often a slip of the segmentation than somebody else


MAX_LABEL_CHARS = 56  # of at most 64, so that a number fits behind it


@dataclass(frozen=True, eq=False)
class _Columns:
    """The voice samples of a job as arrays."""

    start_s: Floats
    clean_s: Floats
    embeddings: NDArray[np.float32]
    plda: NDArray[np.float32]
    phi: Floats
    speech: NDArray[np.bool_]

    @classmethod
    def read(cls, samples: VoiceSamples) -> _Columns:
        times_s = np.frombuffer(samples.times_s, "<f4").reshape(samples.count, 3).astype(np.float64)
        bits = np.frombuffer(samples.speech, np.uint8).reshape(samples.count, -1)
        return cls(
            start_s=times_s[:, 0],
            clean_s=times_s[:, 2],
            embeddings=_halves(samples.embeddings, samples.count),
            plda=_halves(samples.plda, samples.count),
            phi=np.frombuffer(samples.phi, "<f4").astype(np.float64),
            speech=np.unpackbits(bits, axis=1).astype(bool),
        )


def _halves(data: bytes, count: int) -> NDArray[np.float32]:
    return np.frombuffer(data, "<f2").reshape(count, -1).astype(np.float32)


@dataclass(frozen=True)
class TakenApart:
    """The jobs with their mixed speakers taken apart."""

    jobs: tuple[JobEvidence, ...]
    voice_of: Mapping[LocalSpeaker, str]
    """The voice that clustering found for a local speaker; equal for those that are one. Not of all is one known."""


def take_apart(jobs: Sequence[JobEvidence], rules: SampleRules) -> TakenApart:
    """Cluster the voice samples of all jobs, and take apart the local speakers that mix voices.

    Jobs without samples stay as they are, and so does a conversation of one job: there its engine has seen everything.
    """
    columns = {job.job_id: _Columns.read(job.voice_samples) for job in jobs if job.voice_samples is not None}
    by_space: dict[tuple[object, ...], list[JobEvidence]] = {}
    for job in jobs:
        if job.voice_samples is not None and len(jobs) > 1 and job.voice_samples.plda:
            dim = columns[job.job_id].embeddings.shape[1]
            space = (job.embedding_model, job.embedding_revision, dim, job.voice_samples.phi)
            by_space.setdefault(space, []).append(job)
    parted: dict[str, JobEvidence] = {}
    voice_of: dict[LocalSpeaker, str] = {}
    for number, comparable in enumerate(by_space.values()):
        voices = _cluster([(job.voice_samples, columns[job.job_id]) for job in comparable], rules)
        for job, chosen in zip(comparable, voices, strict=True):
            parted[job.job_id], known = _part_job(job, columns[job.job_id], chosen)
            voice_of.update({LocalSpeaker(job.job_id, label): f"{number}/{voice}" for label, voice in known.items()})
    return TakenApart(tuple(parted.get(job.job_id, job) for job in jobs), voice_of)


def _cluster(jobs: Sequence[tuple[VoiceSamples | None, _Columns]], rules: SampleRules) -> list[Labels]:
    """Return the voice of every sample of every job."""
    sizes = [len(columns.start_s) for _, columns in jobs]
    every = [samples.every if samples is not None else 1 for samples, _ in jobs]
    together = SampleSet(
        job=np.repeat(np.arange(len(jobs)), sizes),
        start_s=np.concatenate([columns.start_s for _, columns in jobs]),
        clean_s=np.concatenate([columns.clean_s for _, columns in jobs]),
        weight=np.repeat(np.array(every, dtype=np.float64), sizes),
        embeddings=np.concatenate([columns.embeddings for _, columns in jobs]),
        plda=np.concatenate([columns.plda for _, columns in jobs]),
        phi=jobs[0][1].phi,
    )
    return np.split(find_voices(together, rules), np.cumsum(sizes)[:-1])


_Parts = Mapping[str, Mapping[int, float]]
"""By label, the voices it consists of and each one's share of its speech; the one with most comes first."""


def settle_samples(results: Sequence[SpeakerTurns]) -> list[SpeakerTurns]:
    """Return a conversation's results without their voice samples, and with the mixed speakers taken apart for good.

    So what samples found stays when they are not kept any more. A result that would have more turns or speakers than a
    message may hold stays as its agent sent it.
    """
    apart = take_apart([JobEvidence.from_result(result) for result in results], SampleRules()).jobs
    settled = []
    for result, job in zip(results, apart, strict=True):
        bare = result.model_copy(update={"voice_samples": None})
        parted = bare.model_copy(
            update={"turns": job.turns, "exclusive_turns": job.exclusive_turns, "speakers": job.speakers}
        )
        fits = max(len(job.turns), len(job.exclusive_turns)) <= MAX_TURNS and len(job.speakers) <= MAX_SPEAKERS
        settled.append(parted if fits else bare)
    return settled


def _part_job(job: JobEvidence, columns: _Columns, voices: Labels) -> tuple[JobEvidence, dict[str, int]]:
    """Return a job with its mixed speakers taken apart, and the voice of each label where one is known."""
    last_s = max((turn.end_s for turn in (*job.turns, *job.exclusive_turns)), default=0.0)
    voice_at = _voices_by_step(columns, voices, _step(last_s) + 1)
    parts = _find_parts(job.exclusive_turns, voice_at)
    label_of = _name_parts(parts, {turn.speaker for turn in (*job.turns, *job.exclusive_turns)})
    busy = np.zeros(len(voice_at), dtype=int)
    for turn in job.turns:
        busy[_step(turn.start_s) : _step(turn.end_s) + 1] += 1
    alone_at = np.where(busy > 1, -1, voice_at)  # where several speak at once, each keeps the voice it has elsewhere
    parted = replace(
        job,
        turns=tuple(_cut(job.turns, alone_at, parts, label_of)),
        exclusive_turns=tuple(_cut(job.exclusive_turns, voice_at, parts, label_of)),
        speakers=tuple(_describe(job.speakers, parts, label_of, columns, voices)),
    )
    return parted, {label: voice for (_, voice), label in label_of.items()}


def _name_parts(parts: _Parts, used: set[str]) -> dict[tuple[str, int], str]:
    """Return a label for each part: the first keeps that of the whole, the others get one that the job does not use."""
    taken, label_of = {*used, *parts}, {}
    for label, voices in parts.items():
        for place, voice in enumerate(voices):
            names = (f"{label[:MAX_LABEL_CHARS]} ({number})" for number in count(place + 1))
            label_of[label, voice] = label if place == 0 else next(name for name in names if name not in taken)
            taken.add(label_of[label, voice])
    return label_of


def _step(moment_s: float) -> int:
    return int(moment_s / SPEECH_STEP_S + 1e-6)


def _voices_by_step(columns: _Columns, voices: Labels, n_steps: int) -> Labels:
    """Return the voice that most windows hear in each step of 0.1 s; -1 where none does."""
    n_window = columns.speech.shape[1]
    heard = np.zeros((int(voices.max(initial=-1)) + 1, n_steps + n_window + 1))
    for start_s, voice, speech in zip(columns.start_s, voices, columns.speech, strict=True):
        first = _step(start_s)
        if voice >= 0 and first < n_steps:
            heard[voice, first : first + n_window] += speech
    heard = heard[:, :n_steps]
    if not len(heard):
        return np.full(n_steps, -1)
    return np.where(heard.max(axis=0) > 0, heard.argmax(axis=0), -1)


def _find_parts(turns: Iterable[SpeakerTurn], voice_at: Labels) -> _Parts:
    """Return the parts of every label in which a voice is known."""
    steps: dict[str, Counter[int]] = {}
    for turn in turns:
        steps.setdefault(turn.speaker, Counter()).update(voice_at[_step(turn.start_s) : _step(turn.end_s)].tolist())
    found = {}
    for label, counted in steps.items():
        ranked = sorted((voice for voice in counted if voice >= 0), key=lambda voice: (-counted[voice], voice))
        kept = ranked[:1] + [voice for voice in ranked[1:] if counted[voice] * SPEECH_STEP_S >= MIN_PART_S]
        total = sum(counted[voice] for voice in kept)
        if kept:
            found[label] = {voice: counted[voice] / total for voice in kept}
    return found


def _cut(
    turns: Iterable[SpeakerTurn],
    voice_at: Labels,
    parts: _Parts,
    label_of: Mapping[tuple[str, int], str],
) -> Iterator[SpeakerTurn]:
    """Yield the turns, each cut where its voice changes."""
    mixed = {label: list(voices) for label, voices in parts.items() if len(voices) > 1}
    voices_of = {label: np.where(np.isin(voice_at, voices), voice_at, voices[0]) for label, voices in mixed.items()}
    changes_of = {label: (np.flatnonzero(np.diff(heard)) + 1).tolist() for label, heard in voices_of.items()}
    for turn in turns:
        if turn.speaker not in mixed:
            yield turn
            continue
        first = _step(turn.start_s)
        last = max(first + 1, _step(turn.end_s))
        changes = changes_of[turn.speaker]
        inside = changes[bisect_right(changes, first) : bisect_left(changes, last)]
        edges_s = [turn.start_s, *(step * SPEECH_STEP_S for step in inside), turn.end_s]
        for start_s, end_s, step in zip(edges_s, edges_s[1:], [first, *inside], strict=False):
            voice = int(voices_of[turn.speaker][step])
            yield SpeakerTurn(start_s=start_s, end_s=end_s, speaker=label_of[turn.speaker, voice])


def _describe(
    speakers: Iterable[SpeakerVoice],
    parts: _Parts,
    label_of: Mapping[tuple[str, int], str],
    columns: _Columns,
    voices: Labels,
) -> Iterator[SpeakerVoice]:
    """Yield what is known of each speaker's voice; of a part, what its samples say."""
    for speaker in speakers:
        known = parts.get(speaker.speaker, {})
        if len(known) <= 1:
            yield speaker
            continue
        for voice, share in known.items():
            own = voices == voice
            total = columns.clean_s[own] @ columns.embeddings[own]
            length = float(np.linalg.norm(total))
            yield SpeakerVoice(
                speaker=label_of[speaker.speaker, voice],
                clean_speech_s=speaker.clean_speech_s * share,
                embedding=(total / length).astype("<f4").tobytes() if length > 0 else None,
            )
