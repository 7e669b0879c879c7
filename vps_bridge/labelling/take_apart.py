"""Taking apart: a local speaker that mixes several people becomes one local speaker for each of them.

All voice samples of the conversation are clustered together (`cluster`). Wherever the samples say that a job's speaker
is another voice than the rest of it, its turns go to a part of it of their own. Pure, and in the seconds of each job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise

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
from vps_bridge.labelling.embedding_spaces import space_of
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.link import LinkingRules
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.piece_voices import PieceRules, PieceSet, find_piece_voices
from vps_bridge.labelling.sample_set import Floats, Labels, SampleRules, SampleSet

MIN_PART_S = 1.0  # what is shorter is more often a slip of the segmentation than somebody else


MAX_LABEL_CHARS = 56  # of at most 64, so that a number fits behind it


@dataclass(frozen=True, eq=False)
class _Columns:
    """The voice samples of a job as arrays."""

    start_s: Floats
    end_s: Floats
    clean_s: Floats
    embeddings: NDArray[np.float16]
    plda: NDArray[np.float16]
    phi: Floats
    speech: NDArray[np.bool_]

    @classmethod
    def read(cls, samples: VoiceSamples) -> _Columns:
        times_s = np.frombuffer(samples.times_s, "<f4").reshape(samples.count, 3).astype(np.float64)
        bits = np.frombuffer(samples.speech, np.uint8).reshape(samples.count, -1)
        return cls(
            start_s=times_s[:, 0],
            end_s=times_s[:, 1],
            clean_s=times_s[:, 2],
            embeddings=_halves(samples.embeddings, samples.count),
            plda=_halves(samples.plda, samples.count),
            phi=np.frombuffer(samples.phi, "<f4").astype(np.float64),
            speech=np.unpackbits(bits, axis=1).astype(bool),
        )


def _halves(data: bytes, count: int) -> NDArray[np.float16]:
    return np.frombuffer(data, "<f2").reshape(count, -1)


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
        if job.voice_samples is not None and len(jobs) > 1:
            dim = columns[job.job_id].embeddings.shape[1]
            space = (job.embedding_model, job.embedding_revision, dim, job.voice_samples.phi)
            by_space.setdefault(space, []).append(job)
    parted: dict[str, JobEvidence] = {}
    voice_of: dict[LocalSpeaker, str] = {}
    for number, comparable in enumerate(by_space.values()):
        sampled = [(job, columns[job.job_id]) for job in comparable]
        if not sampled[0][1].phi.size:
            voice_of.update({speaker: f"{number}/{voice}" for speaker, voice in _link_by_pieces(sampled).items()})
            continue
        voices = _cluster([(job.voice_samples, own) for job, own in sampled], rules)
        for job, chosen in zip(comparable, voices, strict=True):
            parted[job.job_id], known = _part_job(job, columns[job.job_id], chosen)
            voice_of.update({LocalSpeaker(job.job_id, label): f"{number}/{voice}" for label, voice in known.items()})
    return TakenApart(tuple(parted.get(job.job_id, job) for job in jobs), voice_of)


def _cluster(jobs: Sequence[tuple[VoiceSamples | None, _Columns]], rules: SampleRules) -> list[Labels]:
    """Return the voice of every sample of every job."""
    # Imported here: it needs scipy (0.4 s and 50 MiB), which a bridge without such conversations does without.
    from vps_bridge.labelling.cluster import find_voices  # noqa: PLC0415

    sizes = [len(columns.start_s) for _, columns in jobs]
    every = [samples.every if samples is not None else 1 for samples, _ in jobs]
    together = SampleSet(
        job=np.repeat(np.arange(len(jobs)), sizes),
        start_s=np.concatenate([columns.start_s for _, columns in jobs]),
        clean_s=np.concatenate([columns.clean_s for _, columns in jobs]),
        weight=np.repeat(np.array(every, dtype=np.float64), sizes),
        embeddings=np.concatenate([columns.embeddings for _, columns in jobs], dtype=np.float32),
        plda=np.concatenate([columns.plda for _, columns in jobs], dtype=np.float32),
        phi=jobs[0][1].phi,
    )
    return np.split(find_voices(together, rules), np.cumsum(sizes)[:-1])


def _link_by_pieces(jobs: Sequence[tuple[JobEvidence, _Columns]]) -> dict[LocalSpeaker, int]:
    """Return the voice of the speakers of every job, where samples are pieces without a PLDA."""
    speakers: list[LocalSpeaker] = []
    said_by: list[Labels] = []
    job_of: list[int] = []
    for number, (job, columns) in enumerate(jobs):
        labels = sorted({turn.speaker for turn in job.exclusive_turns})
        speaker_at = np.full(_step(max((turn.end_s for turn in job.exclusive_turns), default=0.0)) + 2, -1)
        for turn in job.exclusive_turns:
            speaker_at[_step(turn.start_s) : _step(turn.end_s)] = len(speakers) + labels.index(turn.speaker)
        middle = ((columns.start_s + columns.end_s) / 2 / SPEECH_STEP_S).astype(np.intp)
        said_by.append(speaker_at[np.minimum(middle, len(speaker_at) - 1)])
        speakers += [LocalSpeaker(job.job_id, label) for label in labels]
        job_of += [number] * len(labels)
    together = PieceSet(
        speaker=np.concatenate(said_by),
        job_of=np.array(job_of, dtype=np.intp),
        clean_s=np.concatenate([columns.clean_s for _, columns in jobs]),
        embeddings=np.concatenate([columns.embeddings for _, columns in jobs], dtype=np.float32),
    )
    first, _ = jobs[0]
    space = space_of(f"{first.embedding_model}@{first.embedding_revision}")
    voices = find_piece_voices(together, space, PieceRules()).tolist()
    return {speaker: voice for speaker, voice in zip(speakers, voices, strict=True) if voice >= 0}


_Parts = Mapping[str, Mapping[int, float]]
"""By label, the voices it consists of and each one's share of its speech; the one with most comes first."""


def settle_samples(results: Sequence[SpeakerTurns]) -> list[SpeakerTurns]:
    """Return a conversation's results without their voice samples, and with the mixed speakers taken apart for good.

    So what samples found stays when they are not kept any more. A result that would have more turns or speakers than a
    message may hold stays as its agent sent it.
    """
    apart = take_apart([JobEvidence.from_result(result) for result in results], SampleRules())
    settled = []
    for result, job in zip(results, _with_voices(apart), strict=True):
        bare = result.model_copy(update={"voice_samples": None})
        parted = bare.model_copy(
            update={"turns": job.turns, "exclusive_turns": job.exclusive_turns, "speakers": job.speakers}
        )
        fits = max(len(job.turns), len(job.exclusive_turns)) <= MAX_TURNS and len(job.speakers) <= MAX_SPEAKERS
        settled.append(parted if fits else bare)
    return settled


def _with_voices(apart: TakenApart) -> list[JobEvidence]:
    """Return the jobs; who says too little to be linked by itself has the mean embedding of the voice that was found.

    Not where another speaker of its job is that voice: two of one job are not joined by their embeddings.
    """
    least_s = LinkingRules().min_clean_speech_s
    totals: dict[str, Floats] = {}
    in_job: Counter[tuple[str, str]] = Counter()
    for job in apart.jobs:
        for speaker in job.speakers:
            voice = apart.voice_of.get(LocalSpeaker(job.job_id, speaker.speaker))
            if voice is None:
                continue
            in_job[job.job_id, voice] += 1
            vector = _read_vector(speaker, least_s)
            if vector is not None and totals.get(voice, vector).shape == vector.shape:
                totals[voice] = totals.get(voice, np.zeros_like(vector)) + vector * speaker.clean_speech_s

    def settle(job: JobEvidence, speaker: SpeakerVoice) -> SpeakerVoice:
        voice = apart.voice_of.get(LocalSpeaker(job.job_id, speaker.speaker))
        if voice is None or voice not in totals or in_job[job.job_id, voice] > 1:
            return speaker
        length = float(np.linalg.norm(totals[voice]))
        if length == 0 or _read_vector(speaker, least_s) is not None:
            return speaker
        mean = (totals[voice] / length).astype("<f4").tobytes()
        return speaker.model_copy(update={"embedding": mean, "clean_speech_s": max(speaker.clean_speech_s, least_s)})

    return [replace(job, speakers=tuple(settle(job, speaker) for speaker in job.speakers)) for job in apart.jobs]


def _read_vector(speaker: SpeakerVoice, least_s: float) -> Floats | None:
    """Return the embedding of who said enough for it to be compared; None where there is none, or no usable one."""
    data = speaker.embedding
    if not data or len(data) % 4 or speaker.clean_speech_s < least_s:
        return None
    vector = np.frombuffer(data, "<f4").astype(np.float64)
    return vector if np.isfinite(vector).all() else None


def _part_job(job: JobEvidence, columns: _Columns, voices: Labels) -> tuple[JobEvidence, dict[str, int]]:
    """Return a job with its mixed speakers taken apart, and the voice of each label where one is known."""
    last_s = max((turn.end_s for turn in (*job.turns, *job.exclusive_turns)), default=0.0)
    voice_at = _voices_by_step(columns, voices, _step(last_s) + 1)
    parts = _find_parts(job.exclusive_turns, voice_at)
    label_of = _name_parts(parts, {turn.speaker for turn in (*job.turns, *job.exclusive_turns)})
    known = {label: voice for (_, voice), label in label_of.items()}
    if all(len(own) == 1 for own in parts.values()):
        return job, known  # nobody is mixed
    # Where several speak at once, each keeps the voice it has elsewhere.
    alone_at = np.where(_count_busy(job.turns, len(voice_at)) > 1, -1, voice_at)
    parted = replace(
        job,
        turns=tuple(_cut(job.turns, alone_at, parts, label_of)),
        exclusive_turns=tuple(_cut(job.exclusive_turns, voice_at, parts, label_of)),
        speakers=tuple(_describe(job.speakers, parts, label_of, columns, voices)),
    )
    return parted, known


def _count_busy(turns: Sequence[SpeakerTurn], n_steps: int) -> Labels:
    """Return how many turns lie in each step, that of their end too."""
    begun, ended = _steps(turn.start_s for turn in turns), _steps(turn.end_s for turn in turns) + 1
    change = np.bincount(begun, minlength=n_steps + 1) - np.bincount(ended, minlength=n_steps + 1)
    return np.cumsum(change[:n_steps])


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


def _steps(moments_s: Iterable[float]) -> Labels:
    """Return the step of each moment."""
    return (np.fromiter(moments_s, np.float64) / SPEECH_STEP_S + 1e-6).astype(np.intp)


def _voices_by_step(columns: _Columns, voices: Labels, n_steps: int) -> Labels:
    """Return the voice that most windows hear in each step of 0.1 s; -1 where none does."""
    n_voices = int(voices.max(initial=-1)) + 1
    if not n_voices:
        return np.full(n_steps, -1)
    row, step = np.nonzero(columns.speech & (voices >= 0)[:, None])
    step += (columns.start_s / SPEECH_STEP_S + 1e-6).astype(np.intp)[row]
    is_inside = step < n_steps
    places = (voices[row] * n_steps + step)[is_inside]
    heard = np.bincount(places, minlength=n_voices * n_steps).reshape(n_voices, n_steps)
    return np.where(heard.max(axis=0) > 0, heard.argmax(axis=0), -1)


def _find_parts(turns: Iterable[SpeakerTurn], voice_at: Labels) -> _Parts:
    """Return the parts of every label in which a voice is known."""
    spans: dict[str, list[Labels]] = {}
    for turn in turns:
        spans.setdefault(turn.speaker, []).append(voice_at[_step(turn.start_s) : _step(turn.end_s)])
    found = {}
    for label, heard in spans.items():
        known = np.concatenate(heard)
        counted = np.bincount(known[known >= 0])
        ranked = sorted(np.flatnonzero(counted).tolist(), key=lambda voice: (-counted[voice], voice))
        kept = ranked[:1] + [voice for voice in ranked[1:] if counted[voice] * SPEECH_STEP_S >= MIN_PART_S]
        if kept:
            found[label] = {voice: float(counted[voice] / counted[kept].sum()) for voice in kept}
    return found


def _cut(
    turns: Sequence[SpeakerTurn],
    voice_at: Labels,
    parts: _Parts,
    label_of: Mapping[tuple[str, int], str],
) -> list[SpeakerTurn]:
    """Return the turns, each cut where its voice changes."""
    firsts = _steps(turn.start_s for turn in turns)
    lasts = np.maximum(firsts + 1, _steps(turn.end_s for turn in turns))
    cut: list[tuple[SpeakerTurn, ...]] = [(turn,) for turn in turns]
    said_by: dict[str, list[int]] = {}
    for place, turn in enumerate(turns):
        said_by.setdefault(turn.speaker, []).append(place)
    for label in said_by.keys() & {label for label, voices in parts.items() if len(voices) > 1}:
        voices = list(parts[label])
        is_part = np.zeros(int(voice_at.max()) + 2, dtype=bool)  # the last place is that of -1, no voice
        is_part[voices] = True
        heard = np.where(is_part[voice_at], voice_at, voices[0])
        changes = np.flatnonzero(np.diff(heard)) + 1
        after = np.searchsorted(changes, firsts[said_by[label]], "right").tolist()
        before = np.searchsorted(changes, lasts[said_by[label]], "left").tolist()
        for place, begin, end in zip(said_by[label], after, before, strict=True):
            if begin < end or int(heard[firsts[place]]) != voices[0]:
                steps = [int(firsts[place]), *changes[begin:end].tolist()]
                names = [label_of[label, int(heard[step])] for step in steps]
                cut[place] = tuple(_part_turn(turns[place], steps[1:], names))
    return [part for listed in cut for part in listed]


def _part_turn(turn: SpeakerTurn, inside: Sequence[int], names: Iterable[str]) -> Iterator[SpeakerTurn]:
    """Yield the parts of a turn between some steps inside it, under these names."""
    edges_s = [turn.start_s, *(step * SPEECH_STEP_S for step in inside), turn.end_s]
    for (start_s, end_s), name in zip(pairwise(edges_s), names, strict=True):
        yield SpeakerTurn(start_s=start_s, end_s=end_s, speaker=name)


def _describe(
    speakers: Iterable[SpeakerVoice],
    parts: _Parts,
    label_of: Mapping[tuple[str, int], str],
    columns: _Columns,
    voices: Labels,
) -> Iterator[SpeakerVoice]:
    """Yield what is known of each speaker's voice; of a part, what its samples say."""
    totals: dict[int, Floats] = {}
    for speaker in speakers:
        known = parts.get(speaker.speaker, {})
        if len(known) <= 1:
            yield speaker
            continue
        for voice, share in known.items():
            if voice not in totals:
                own = np.flatnonzero(voices == voice)
                totals[voice] = columns.clean_s[own] @ columns.embeddings[own].astype(np.float64)
            length = float(np.linalg.norm(totals[voice]))
            yield SpeakerVoice(
                speaker=label_of[speaker.speaker, voice],
                clean_speech_s=speaker.clean_speech_s * share,
                embedding=(totals[voice] / length).astype("<f4").tobytes() if length > 0 else None,
            )
