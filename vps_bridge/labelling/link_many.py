"""Linking of very many local speakers, in bounded time: the likeliest are linked, the others join their voices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vps_bridge.labelling.link import (
    LinkingRules,
    LocalSpeaker,
    LocalSpeakerEvidence,
    Partition,
    SpeakerLink,
    link_speakers,
)

MAX_LINKED = 2_000
"""Local speakers that are compared each with each: about 16 hours of four people. The time grows with the cube."""
ROWS_AT_ONCE = 2_000


def link_many_speakers(
    speakers: Iterable[LocalSpeakerEvidence],
    rules: LinkingRules,
    *,
    links: Sequence[SpeakerLink] = (),
    min_speakers: int | None = None,
    max_speakers: int | None = None,
    max_linked: int = MAX_LINKED,
) -> Partition:
    """Group local speakers into voices, as `link_speakers` does, at most `max_linked` of them by comparing all.

    Those are the ones with most clean speech of their job: first the first of every job, then the second of every
    job, and so on, so that no job crowds out the others. Each of the rest that has enough clean speech then joins the
    voice it is most similar to, if it is similar enough and no speaker of its own job is in that voice.
    """
    listed = sorted(speakers, key=lambda speaker: speaker.id)
    chosen = listed if len(listed) <= max_linked else _choose(listed, max_linked, links)
    partition = link_speakers(chosen, rules, links=links, min_speakers=min_speakers, max_speakers=max_speakers)
    if len(chosen) == len(listed):
        return partition
    return _attach(partition, {speaker.id: speaker for speaker in chosen}, listed, rules)


def _choose(
    listed: Sequence[LocalSpeakerEvidence], most: int, links: Sequence[SpeakerLink]
) -> list[LocalSpeakerEvidence]:
    """Return those that are linked: whom people's labels name come first."""
    named = {end for link in links for end in (link.a, link.b)}
    by_job: dict[str, list[LocalSpeakerEvidence]] = {}
    for speaker in sorted(listed, key=lambda speaker: (-speaker.clean_speech_s, speaker.id)):
        by_job.setdefault(speaker.id.job_id, []).append(speaker)
    ranked = sorted(
        (speaker.id not in named, rank, -speaker.clean_speech_s, speaker.id, speaker)
        for speakers in by_job.values()
        for rank, speaker in enumerate(speakers)
    )
    return [speaker for *_, speaker in ranked[:most]]


def _attach(
    partition: Partition,
    linked: Mapping[LocalSpeaker, LocalSpeakerEvidence],
    listed: Sequence[LocalSpeakerEvidence],
    rules: LinkingRules,
) -> Partition:
    """Return the partition with everybody who was not linked in the voice that is most similar."""
    voices = [list(voice) for voice in partition]
    jobs_in = [{member.job_id for member in voice} for voice in partition]
    rest = [speaker for speaker in listed if speaker.id not in linked and _is_reliable(speaker, rules)]
    for space in sorted({speaker.embedding_space for speaker in rest}):
        known, means = _mean_embeddings(partition, linked, space, rules)
        comparable = [speaker for speaker in rest if speaker.embedding_space == space]
        for begin in range(0, len(comparable) if known else 0, ROWS_AT_ONCE):
            rows = comparable[begin : begin + ROWS_AT_ONCE]
            similarity = np.stack([_unit(speaker) for speaker in rows]) @ means.T
            for speaker, nearest, similar in zip(rows, similarity.argmax(1), similarity.max(1), strict=True):
                voice = known[nearest]
                if similar >= rules.threshold(space) and speaker.id.job_id not in jobs_in[voice]:
                    voices[voice].append(speaker.id)
                    jobs_in[voice].add(speaker.id.job_id)
    return tuple(tuple(voice) for voice in voices)


def _is_reliable(speaker: LocalSpeakerEvidence, rules: LinkingRules) -> bool:
    return speaker.embedding is not None and speaker.clean_speech_s >= rules.min_clean_speech_s


def _mean_embeddings(
    partition: Partition, linked: Mapping[LocalSpeaker, LocalSpeakerEvidence], space: str, rules: LinkingRules
) -> tuple[list[int], NDArray[np.float32]]:
    """Return the voices with a reliable member of this embedding space, and their means weighted by clean speech.

    A vector's product with such a mean is its average similarity to the members, as average linkage measures it.
    """
    known, means = [], []
    for voice, members in enumerate(partition):
        parts = [linked[member] for member in members]
        parts = [part for part in parts if part.embedding_space == space and _is_reliable(part, rules)]
        if parts:
            known.append(voice)
            weights = np.array([part.clean_speech_s for part in parts])
            means.append(np.average([_unit(part) for part in parts], axis=0, weights=weights))
    return known, np.array(means, dtype=np.float32)


def _unit(speaker: LocalSpeakerEvidence) -> NDArray[np.float32]:
    vector = np.asarray(speaker.embedding, dtype=np.float32)
    return vector / np.float32(np.linalg.norm(vector))
