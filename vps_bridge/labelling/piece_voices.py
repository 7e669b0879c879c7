"""Linking by pieces: samples of an engine that embeds short pieces of speech, and has no PLDA to cluster them in.

A piece of 0.8 s is too short to be clustered by itself. So the speakers that the jobs found with enough speech are the
start: those with similar mean embeddings are one voice. Whoever says little in a job gets the voice that its pieces
together are clearly most like, where an embedding of it alone would not be compared. Whoever is like none has none: the
nearest of the known voices is no evidence that it is one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vps_bridge.labelling.embedding_spaces import EmbeddingSpace
from vps_bridge.labelling.linkage import Linkage
from vps_bridge.labelling.sample_set import Floats, Labels, unit_rows

MAX_STARTS, MAX_VOICES = 2_000, 200
"""Speakers that are compared each with each, and voices that others are compared with: those who speak most."""


@dataclass(frozen=True)
class PieceRules:
    """When a speaker has a voice. `docs/adr/0021-embedding-spaces.md` says how they were chosen."""

    min_speaker_s: float = 3.0
    """A speaker with less clean speech is no start of a voice."""
    margin_nats: float = 4.0
    """Such a speaker has a voice only where one is likelier than every other by this, and like it at all."""


@dataclass(frozen=True, eq=False)
class PieceSet:
    """Pieces that can be compared, job by job and in order of time. All arrays but one have a row for each."""

    speaker: Labels
    """Index of who says it, of the speakers of all jobs; -1 where its job names nobody there."""
    job_of: Labels
    """The job of each speaker."""
    clean_s: Floats
    embeddings: NDArray[np.float32]


def find_piece_voices(pieces: PieceSet, space: EmbeddingSpace, rules: PieceRules) -> Labels:
    """Return the voice of each speaker, numbered from 0; -1 where it has none. Deterministic.

    Args:
        pieces: the pieces of all jobs.
        space: how their embeddings are compared.
        rules: when a speaker has a voice.
    """
    unit = unit_rows(pieces.embeddings.astype(np.float64))
    sums = np.zeros((len(pieces.job_of), unit.shape[1]))
    clean_s = np.zeros(len(pieces.job_of))
    for speaker, rows in _rows_by_speaker(pieces.speaker):
        sums[speaker], clean_s[speaker] = pieces.clean_s[rows] @ unit[rows], pieces.clean_s[rows].sum()
    voice_of = _link_starts(pieces.job_of, sums, clean_s, space, rules)
    n_voices = int(voice_of.max(initial=-1)) + 1
    if not n_voices:
        return voice_of
    centroids = unit_rows(np.array([sums[voice_of == voice].sum(axis=0) for voice in range(n_voices)]))
    products = sums @ centroids.T
    little = np.flatnonzero((voice_of < 0) & (clean_s < rules.min_speaker_s) & (clean_s > 0))
    for speaker in little[np.argsort(-clean_s[little], kind="stable")].tolist():
        voice = int(products[speaker].argmax())
        least = space.least_cosine(clean_s[speaker]) * np.linalg.norm(sums[speaker])
        is_apart = np.any((pieces.job_of == pieces.job_of[speaker]) & (voice_of == voice))  # its engine heard two
        is_like = products[speaker, voice] >= least
        if is_like and not is_apart and _is_clear(space.nats_per_s * products[speaker], rules.margin_nats):
            voice_of[speaker] = voice
    return voice_of


def _rows_by_speaker(speaker: Labels) -> Iterator[tuple[int, Labels]]:
    """Yield each speaker and its rows, in their order; without those of nobody."""
    order = np.argsort(speaker, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(speaker[order])) + 1):
        if len(rows) and speaker[rows[0]] >= 0:
            yield int(speaker[rows[0]]), rows


def _link_starts(job_of: Labels, sums: Floats, clean_s: Floats, space: EmbeddingSpace, rules: PieceRules) -> Labels:
    """Return the voice of each speaker with enough clean speech, by average linkage; -1 for the others."""
    starts = np.flatnonzero(clean_s >= rules.min_speaker_s)
    starts = np.sort(starts[np.argsort(-clean_s[starts], kind="stable")[:MAX_STARTS]])
    voice_of = np.full(len(job_of), -1)
    if not len(starts):
        return voice_of
    jobs, group = job_of[starts], np.arange(len(starts))
    means = unit_rows(sums[starts]) / space.certainty(clean_s[starts])[:, None]
    linkage = Linkage(means, clean_s[starts], jobs[:, None] == jobs)
    similarity, i, j = linkage.best()
    while similarity >= space.threshold:
        linkage.merge(i, j)
        group[group == j] = i
        similarity, i, j = linkage.best()
    spoken_s = np.bincount(group, clean_s[starts], len(starts))
    loudest = np.argsort(-spoken_s, kind="stable")[:MAX_VOICES]
    voice = np.full(len(starts), -1)
    voice[loudest[spoken_s[loudest] > 0]] = np.arange(np.count_nonzero(spoken_s[loudest] > 0))
    voice_of[starts] = voice[group]
    return voice_of


def _is_clear(nats: Floats, margin_nats: float) -> bool:
    """Whether one voice is likelier than every other by the margin."""
    ranked = np.sort(nats)
    return len(ranked) == 1 or bool(ranked[-1] - ranked[-2] >= margin_nats)
