"""Clustering the voice samples of a conversation into voices, as the engine does with those of one recording.

The samples of community-1 are clustered as in pyannote.audio 4 (`pipelines/clustering.py`, `utils/vbx.py`): average
embeddings are linked to a start, VBx (Landini et al., "Bayesian HMM clustering of x-vector sequences", 2022; equations
16, 17, 23 and 25) refines it in the space of the PLDA, and every sample gets the voice nearest to its embedding, two
samples of one window never the same. Samples may stand for several others: they have weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import squareform
from scipy.special import logsumexp, softmax

from vps_bridge.labelling.sample_set import Floats, Labels, SampleRules, SampleSet, unit_rows


def find_voices(samples: SampleSet, rules: SampleRules) -> Labels:
    """Return the voice of each sample, numbered from 0; -1 for a sample that cannot have one. Deterministic."""
    usable = np.flatnonzero(samples.clean_s >= rules.min_clean_s)
    if not len(usable):
        return np.full(len(samples), -1)
    length = np.sqrt(np.einsum("ij,ij->i", samples.embeddings, samples.embeddings))
    length = np.maximum(length, np.finfo(np.float32).tiny)  # a row of zeros stays one
    embeddings, plda, weight = _merge(samples, usable, length, rules)
    shares = _cluster_vbx(_start(embeddings, rules), plda, samples.phi, weight, rules)
    shares = shares * weight[:, None]
    centroids = (shares.T @ embeddings) / shares.sum(axis=0)[:, None]
    likeness = (samples.embeddings @ unit_rows(centroids).astype(np.float32).T) / length[:, None]
    return _choose(samples, likeness)


def _merge(
    samples: SampleSet, usable: Labels, length: NDArray[np.float32], rules: SampleRules
) -> tuple[Floats, Floats, Floats]:
    """Return embeddings, PLDA numbers and weights of at most `max_clustered` samples; the most alike of a job as one.

    Each job keeps its share of them, so that nobody who speaks in a few jobs only is lost.
    """
    if len(usable) <= rules.max_clustered:
        weight = samples.weight[usable]
        return samples.embeddings[usable].astype(float), samples.plda[usable].astype(float), weight
    embeddings, plda, weights = [], [], []
    for rows in np.split(usable, np.flatnonzero(np.diff(samples.job[usable])) + 1):
        most = max(1, int(rules.max_clustered * len(rows) / len(usable)))
        clusters = _link_to(most, samples.embeddings[rows] / length[rows, None])
        parts = (clusters == np.arange(clusters.max() + 1)[:, None]) * samples.weight[rows]
        weights.append(parts.sum(axis=1))
        share = (parts / weights[-1][:, None]).astype(np.float32)
        embeddings.append(share @ samples.embeddings[rows])
        plda.append(share @ samples.plda[rows])
    return np.concatenate(embeddings).astype(float), np.concatenate(plda).astype(float), np.concatenate(weights)


def _link_to(most: int, unit: NDArray[np.float32]) -> Labels:
    """Return clusters of average linkage, at most so many, numbered from 0 without gaps."""
    if len(unit) <= most:
        return np.arange(len(unit))
    clusters = fcluster(linkage(_distances(unit), "average"), most, "maxclust")
    return np.unique(clusters, return_inverse=True)[1]


def _distances(unit: NDArray[Any]) -> NDArray[Any]:
    """Return the Euclidean distance of every two rows of length 1, condensed, as `linkage` takes it.

    From one product of matrices, which takes a third of the time that measuring pair by pair does.
    """
    cosine: NDArray[Any] = squareform(unit @ unit.T, checks=False)
    return np.sqrt(np.maximum(2.0 - 2.0 * cosine, 0.0))


def _start(embeddings: Floats, rules: SampleRules) -> Labels:
    """Return the clusters that VBx starts from: centroid linkage, stopped early."""
    if len(embeddings) == 1:
        return np.zeros(1, dtype=np.intp)
    clusters = fcluster(linkage(_distances(unit_rows(embeddings)), "centroid"), rules.start_distance, "distance")
    return np.unique(clusters, return_inverse=True)[1]


def _cluster_vbx(start: Labels, plda: Floats, phi: Floats, weight: Floats, rules: SampleRules) -> Floats:
    """Return each sample's share of each voice, shape ``(samples, voices)``."""
    n_voices = int(start.max()) + 1
    shares = softmax(np.eye(n_voices)[start] * rules.start_sharpness, axis=1)
    prior = np.full(n_voices, 1 / n_voices)
    constant = -0.5 * ((plda**2).sum(axis=1, keepdims=True) + plda.shape[1] * np.log(2 * np.pi))
    rho = plda * np.sqrt(phi)
    ratio = rules.fa / rules.fb
    gained, before = np.inf, -np.inf
    for _ in range(rules.max_rounds):
        weighted = shares * weight[:, None]
        variance = 1 / (1 + ratio * weighted.sum(axis=0)[:, None] * phi)  # (17)
        mean = ratio * variance * (weighted.T @ rho)  # (16)
        likelihood = rules.fa * (rho @ mean.T - 0.5 * (variance + mean**2) @ phi + constant)  # (23)
        joint = likelihood + np.log(prior + 1e-8)
        evidence = logsumexp(joint, axis=1)
        shares = np.exp(joint - evidence[:, None])
        prior = weight @ shares / weight.sum()
        bound = weight @ evidence + rules.fb * 0.5 * float(np.sum(np.log(variance) - variance - mean**2 + 1))  # (25)
        gained, before = bound - before, bound
        if gained < rules.min_gain:
            break
    kept: Floats = shares[:, prior > rules.min_share]
    return kept


def _choose(samples: SampleSet, likeness: Floats) -> Labels:
    """Return the voice of each sample: the likeliest, and two of one window never the same."""
    voices: Labels = likeness.argmax(axis=1)
    for rows in _contested_windows(samples, voices, likeness):
        chosen, voice = linear_sum_assignment(likeness[rows], maximize=True)
        voices[rows] = -1
        voices[rows[chosen]] = voice
    return voices


def _contested_windows(samples: SampleSet, favourite: Labels, likeness: Floats) -> Sequence[Labels]:
    """Return the rows of each window in which two samples have one favourite, or one is as like another voice.

    In all others everyone gets the favourite: no assignment of different voices is better.
    """
    order = np.lexsort((samples.start_s, samples.job))
    is_new = (np.diff(samples.job[order]) != 0) | (np.diff(samples.start_s[order]) != 0)
    window = np.concatenate([[0], np.cumsum(is_new)])
    is_tied = (likeness == likeness.max(axis=1, keepdims=True)).sum(axis=1) > 1
    wanted = window * likeness.shape[1] + favourite[order]
    wanted_by = np.bincount(wanted, minlength=(int(window[-1]) + 1) * likeness.shape[1])
    is_contested = np.bincount(window, (wanted_by[wanted] > 1) | is_tied[order]) > 0
    firsts = np.concatenate([[0], np.flatnonzero(is_new) + 1])
    sizes = np.diff(firsts, append=len(order))
    several = (sizes > 1) & is_contested
    return [order[a : a + size] for a, size in zip(firsts[several], sizes[several], strict=True)]
