"""Linking of very many local speakers, in bounded time: the likeliest are linked, the others join their voices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vps_bridge.labelling.audio_clock import Span
from vps_bridge.labelling.link import (
    LinkingRules,
    LocalSpeaker,
    LocalSpeakerEvidence,
    Partition,
    SpeakerLink,
    link_speakers,
)

MAX_LINKED = 2_000
"""Local speakers that are compared each with each at once: about 16 hours of four people. The time grows with the
cube of their number, the memory with its square."""
MAX_ROUNDS = 3
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
    job, and so on, so that no job crowds out the others. Each of the rest with enough clean speech then joins the
    voice it is most similar to, if it is similar enough and no speaker of its own job is in that voice. Who is similar
    to no voice so far is linked in another round, up to `MAX_ROUNDS`: who says little in every job has a voice too.
    """
    listed = sorted(speakers, key=lambda speaker: speaker.id)
    known = {speaker.id: speaker for speaker in listed}
    voices: Partition = ()
    rest: Sequence[LocalSpeakerEvidence] = listed
    for _ in range(MAX_ROUNDS):
        most = None if max_speakers is None else max_speakers - len(voices)
        if not rest or (voices and most is not None and most <= 0):
            break
        chosen = rest if len(rest) <= max_linked else _choose(rest, max_linked, links)
        new = link_speakers(
            chosen, rules, links=links, min_speakers=None if voices else min_speakers, max_speakers=most
        )
        tried = {speaker.id for speaker in chosen}
        others = [speaker for speaker in rest if speaker.id not in tried and _is_reliable(speaker, rules)]
        new = _attach(new, known, others, rules)  # to the voices of earlier rounds they are not similar
        attached = {member for voice in new for member in voice}
        rest = [speaker for speaker in others if speaker.id not in attached]
        voices += new
    return _in_order(voices, known)


def _in_order(voices: Partition, known: Mapping[LocalSpeaker, LocalSpeakerEvidence]) -> Partition:
    """Return voices and their members in order of first speech."""

    def order(member: LocalSpeaker) -> tuple[tuple[Span, ...], LocalSpeaker]:
        return known[member].turns[:1] or ((np.inf, np.inf),), member

    return tuple(sorted((tuple(sorted(voice, key=order)) for voice in voices), key=lambda voice: order(voice[0])))


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
    known: Mapping[LocalSpeaker, LocalSpeakerEvidence],
    rest: Sequence[LocalSpeakerEvidence],
    rules: LinkingRules,
) -> Partition:
    """Return the partition with each of the rest in the voice that is most similar, if it is similar enough."""
    voices = [list(voice) for voice in partition]
    jobs_in = [{member.job_id for member in voice} for voice in partition]
    for space in sorted({speaker.embedding_space for speaker in rest}):
        with_mean, means = _mean_embeddings(partition, known, space, rules)
        comparable = [speaker for speaker in rest if speaker.embedding_space == space]
        for begin in range(0, len(comparable) if with_mean else 0, ROWS_AT_ONCE):
            rows = comparable[begin : begin + ROWS_AT_ONCE]
            similarity = np.stack([_unit(speaker) for speaker in rows]) @ means.T
            for speaker, nearest, similar in zip(rows, similarity.argmax(1), similarity.max(1), strict=True):
                voice = with_mean[nearest]
                if similar >= rules.threshold(space) and speaker.id.job_id not in jobs_in[voice]:
                    voices[voice].append(speaker.id)
                    jobs_in[voice].add(speaker.id.job_id)
    return tuple(tuple(voice) for voice in voices)


def _is_reliable(speaker: LocalSpeakerEvidence, rules: LinkingRules) -> bool:
    return speaker.embedding is not None and speaker.clean_speech_s >= rules.min_clean_speech_s


def _mean_embeddings(
    partition: Partition, known: Mapping[LocalSpeaker, LocalSpeakerEvidence], space: str, rules: LinkingRules
) -> tuple[list[int], NDArray[np.float32]]:
    """Return the voices with a reliable member of this embedding space, and their means weighted by clean speech.

    A vector's product with such a mean is its average similarity to the members, as average linkage measures it.
    """
    with_mean, means = [], []
    for voice, members in enumerate(partition):
        parts = [known[member] for member in members]
        parts = [part for part in parts if part.embedding_space == space and _is_reliable(part, rules)]
        if parts:
            with_mean.append(voice)
            weights = np.array([part.clean_speech_s for part in parts])
            means.append(np.average([_unit(part) for part in parts], axis=0, weights=weights))
    return with_mean, np.array(means, dtype=np.float32)


def _unit(speaker: LocalSpeakerEvidence) -> NDArray[np.float32]:
    vector = np.asarray(speaker.embedding, dtype=np.float32)
    return vector / np.float32(np.linalg.norm(vector))
