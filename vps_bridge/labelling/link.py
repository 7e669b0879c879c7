"""Linking: finding which local speakers of a conversation's jobs are one voice.

Every job gives its speakers labels of its own. Two kinds of evidence link them: the similarity of their embeddings, and
beside it, never over it, what two jobs say about the seconds that both cover. Where agents send voice samples, these
were clustered before (`cluster`, `take_apart`), and what that found is joined first. All jobs are compared anew each
time. Centroids that are updated job by job drift, and make the result depend on the order of arrival
(BasedHardware/omi PR #12471).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vps_bridge.labelling.audio_clock import Span


@dataclass(frozen=True, order=True)
class LocalSpeaker:
    """A local speaker: a speaker's label within one job. In another job the same person has another label."""

    job_id: str
    speaker: str


Partition = tuple[tuple[LocalSpeaker, ...], ...]
"""A partition: the local speakers of all jobs, grouped into voices, in order of first speech. One group is one voice,
which later modules name by its index here. Local speakers that are in no voice are left out."""


@dataclass(frozen=True)
class SpeakerLink:
    """What a person's labels say about two local speakers: they must or cannot be one voice.

    It overrides everything measured, and `cannot` overrides `must`.
    """

    kind: Literal["must", "cannot"]
    a: LocalSpeaker
    b: LocalSpeaker


@dataclass(frozen=True, eq=False)
class LocalSpeakerEvidence:
    """What one job found out about one of its speakers."""

    id: LocalSpeaker
    turns: tuple[Span, ...]
    """Exclusive turns on the conversation's audio clock, sorted."""
    clean_speech_s: float
    """Seconds in which nobody else speaks, from which the embedding was made."""
    embedding: NDArray[np.float32] | None
    """Shape ``(dim,)``, finite, not zero; None where the job gave no usable one."""
    embedding_space: str = ""
    """Model and revision: only embeddings of the same space are ever compared."""
    voice: str | None = None
    """What clustering the voice samples of all jobs found: equal for those that are one voice. None without samples."""


@dataclass(frozen=True)
class LinkingRules:
    """When two local speakers are one voice.

    Thresholds are the least average cosine similarity of the parts of a voice, by a word in the name of the
    embedding model. Measured on real recordings cut into jobs of 60 to 120 s, with at least 3 s of clean speech:

    WeSpeaker (community-1's), two conversations: parts of one voice 0.51 to 0.95, median 0.84; of two voices
    median 0.36 to 0.45, higher only where a diarizer mixed them. From 0.60 on, one voice is split in two; below 0.46,
    two voices become one.

    GE2E (Resemblyzer 0.1.4): telephone call 0.87 to 0.98 against 0.58 to 0.78, meetings across a table 0.80 to
    0.94 against 0.72 to 0.84, read speech 0.77 to 0.99 against 0.38 to 0.80. With the embedded engine's own results
    (a call, and made-up conversations of 3 to 5 readers) every threshold from 0.70 to 0.85 finds the right voices,
    with and without shared seconds, at a DER within 0.014 of diarizing the whole recording at once.
    """

    min_clean_speech_s: float = 3.0
    """A local speaker with less makes no voice of its own, and its embedding is not used. Embeddings need 3 to 5 s
    (shared/design/diarization-facts.md)."""
    min_shared_s: float = 2.0
    """Two jobs must share this many seconds of a speaker's speech before what they say about them counts."""
    min_agreement: float = 0.6
    """From this share of the shared seconds on, two jobs say that two local speakers are one voice."""
    max_agreement: float = 0.2
    """Up to this share, they are kept apart."""
    thresholds: tuple[tuple[str, float], ...] = (("wespeaker", 0.52), ("resemblyzer", 0.78))
    default_threshold: float = 0.8

    def threshold(self, embedding_space: str) -> float:
        """Return the least similarity for an embedding model; one that was not measured gets the cautious default."""
        name = embedding_space.lower()
        return next((least for word, least in self.thresholds if word in name), self.default_threshold)


def link_speakers(
    speakers: Iterable[LocalSpeakerEvidence],
    rules: LinkingRules,
    *,
    links: Sequence[SpeakerLink] = (),
    min_speakers: int | None = None,
    max_speakers: int | None = None,
) -> Partition:
    """Group local speakers into voices.

    The strongest evidence comes first: people's links, then average linkage of the embeddings, then agreement on
    shared seconds, which joins only what the embeddings allow or say nothing about. Only a person's link ever joins two
    speakers of one job. A local speaker with too little clean speech is in a voice only through a person's link or
    shared seconds. The order of `speakers` does not matter.

    Args:
        speakers: every local speaker of every job.
        rules: the thresholds.
        links: what people's labels say.
        min_speakers: average linkage stops at this number of voices.
        max_speakers: beyond this number the most similar voices are joined, where nothing forbids it.
    """
    ordered = sorted(speakers, key=lambda speaker: (speaker.turns[:1] or ((np.inf, np.inf),), speaker.id))
    groups = _Groups(ordered, links)
    if len({speaker.voice for speaker in ordered if speaker.voice is not None}) >= (min_speakers or 0):
        groups.join_found(ordered, disputed=_disputed(ordered, rules))
    shared = _measure_shared_seconds(ordered)
    for a, b in _disagreeing(shared, rules):
        groups.forbid(a, b)
    reliable = _reliable(ordered, rules)
    _link_embeddings(groups, ordered, reliable=reliable, rules=rules, bounds=(min_speakers or 0, max_speakers))
    _link_shared_seconds(groups, ordered, _agreeing(shared, rules), reliable)
    voices = [group for group in groups.all() if any(reliable[index] for index in group)]
    return tuple(tuple(ordered[index].id for index in group) for group in voices)


def _reliable(ordered: Sequence[LocalSpeakerEvidence], rules: LinkingRules) -> list[bool]:
    """Return which speakers can make a voice of their own: with clean speech enough and a usable embedding.

    In a conversation of one job there is nothing to compare with, and no embedding is needed.
    """
    is_one_job = len({speaker.id.job_id for speaker in ordered}) <= 1
    return [
        speaker.clean_speech_s >= rules.min_clean_speech_s and (speaker.embedding is not None or is_one_job)
        for speaker in ordered
    ]


def _disputed(ordered: Sequence[LocalSpeakerEvidence], rules: LinkingRules) -> set[str]:
    """Return the found voices in which a job has two speakers that differ, by its own answer and by their embeddings.

    Clustering many samples can miss somebody who speaks little, whom the engine did find in a job.
    """
    by_job: dict[tuple[str, str], list[LocalSpeakerEvidence]] = {}
    for speaker in ordered:
        is_firm = speaker.embedding is not None and speaker.clean_speech_s >= rules.min_clean_speech_s
        if speaker.voice is not None and is_firm:
            by_job.setdefault((speaker.voice, speaker.id.job_id), []).append(speaker)
    return {
        voice
        for (voice, _), members in by_job.items()
        for index, a in enumerate(members)
        for b in members[index + 1 :]
        if _unit(a.embedding) @ _unit(b.embedding) < rules.threshold(a.embedding_space)
    }


class _Groups:
    """The groups of speakers joined so far, as indexes of the ordered list, and which may not be joined."""

    def __init__(self, ordered: Sequence[LocalSpeakerEvidence], links: Sequence[SpeakerLink]) -> None:
        index_of = {speaker.id: index for index, speaker in enumerate(ordered)}
        self._group = {index: [index] for index in range(len(ordered))}  # all members of a group share one list
        self._jobs = [speaker.id.job_id for speaker in ordered]
        self._forbidden: set[frozenset[int]] = set()
        known = [link for link in links if link.a in index_of and link.b in index_of and link.a != link.b]
        for link in known:
            if link.kind == "cannot":
                self.forbid(index_of[link.a], index_of[link.b])
        for link in sorted((link for link in known if link.kind == "must"), key=lambda link: (link.a, link.b)):
            self.join(index_of[link.a], index_of[link.b], may_share_job=True)

    def forbid(self, a: int, b: int) -> None:
        """Keep the groups of two speakers apart from now on."""
        self._forbidden.add(frozenset((a, b)))

    def may_join(self, a: int, b: int, *, may_share_job: bool = False) -> bool:
        """Whether the groups of two speakers are two and may become one."""
        left, right = self._group[a], self._group[b]
        if left is right:
            return False
        if not may_share_job and {self._jobs[i] for i in left} & {self._jobs[i] for i in right}:
            return False
        return not any(frozenset((i, j)) in self._forbidden for i in left for j in right)

    def join(self, a: int, b: int, *, may_share_job: bool = False) -> bool:
        """Make the groups of two speakers one, if they may be; return whether they were joined."""
        if not self.may_join(a, b, may_share_job=may_share_job):
            return False
        merged = sorted(self._group[a] + self._group[b])
        for index in merged:
            self._group[index] = merged
        return True

    def join_found(self, ordered: Sequence[LocalSpeakerEvidence], disputed: set[str]) -> None:
        """Join what clustering found to be one voice, also two speakers of one job, where no person forbids it."""
        first_of: dict[str, int] = {}
        for index, speaker in enumerate(ordered):
            if speaker.voice is not None and speaker.voice not in disputed:
                self.join(first_of.setdefault(speaker.voice, index), index, may_share_job=True)

    def of(self, index: int) -> list[int]:
        """Return the group of a speaker."""
        return self._group[index]

    def blocked(self, firsts: Sequence[int]) -> NDArray[np.bool_]:
        """Return which pairs of the groups of these speakers may not be joined; a group is never joined to itself."""
        blocked = np.eye(len(firsts), dtype=bool)
        row_of = {member: row for row, first in enumerate(firsts) for member in self._group[first]}
        in_job: dict[str, set[int]] = {}
        for member, row in row_of.items():
            in_job.setdefault(self._jobs[member], set()).add(row)
        for rows in in_job.values():
            listed = sorted(rows)
            blocked[np.ix_(listed, listed)] = True
        for a, b in map(tuple, self._forbidden):
            if a in row_of and b in row_of:
                blocked[row_of[a], row_of[b]] = blocked[row_of[b], row_of[a]] = True
        return blocked

    def all(self) -> list[list[int]]:
        """Return every group, ordered by its first speaker."""
        return [group for index, group in sorted(self._group.items()) if group[0] == index]


@dataclass(frozen=True)
class _SharedSeconds:
    """What two jobs say about a pair of speakers, one of each, in the seconds where both jobs have speech."""

    both_s: float
    """Seconds in which both speak, each according to its own job."""
    a_s: float
    """Seconds of the first speaker's turns in which anyone speaks according to the second job."""
    b_s: float
    """Seconds of the second speaker's turns in which anyone speaks according to the first job."""


_SharedByPair = Mapping[tuple[int, int], _SharedSeconds]


def _measure_shared_seconds(ordered: Sequence[LocalSpeakerEvidence]) -> _SharedByPair:
    """Return the shared seconds of each pair of speakers whose jobs overlap."""
    by_job: dict[str, list[int]] = {}
    for index, speaker in enumerate(ordered):
        if speaker.turns:
            by_job.setdefault(speaker.id.job_id, []).append(index)
    extent = {
        job: (min(ordered[i].turns[0][0] for i in indexes), max(ordered[i].turns[-1][1] for i in indexes))
        for job, indexes in by_job.items()
    }
    shared: dict[tuple[int, int], _SharedSeconds] = {}
    by_start = sorted(by_job, key=lambda job: (extent[job], job))
    for order, job in enumerate(by_start):
        for other in by_start[order + 1 :]:
            if extent[other][0] >= extent[job][1]:
                break
            seconds = np.array(
                [[overlap_s(ordered[a].turns, ordered[b].turns) for b in by_job[other]] for a in by_job[job]]
            )
            a_s, b_s = seconds.sum(axis=1), seconds.sum(axis=0)
            for i, a in enumerate(by_job[job]):
                for j, b in enumerate(by_job[other]):
                    shared[a, b] = _SharedSeconds(float(seconds[i, j]), float(a_s[i]), float(b_s[j]))
    return shared


def _disagreeing(shared: _SharedByPair, rules: LinkingRules) -> list[tuple[int, int]]:
    """Return the pairs that two jobs say are different speakers."""
    return [
        pair
        for pair, seconds in shared.items()
        if (least_s := min(seconds.a_s, seconds.b_s)) >= rules.min_shared_s
        and seconds.both_s <= rules.max_agreement * least_s
    ]


def _agreeing(shared: _SharedByPair, rules: LinkingRules) -> list[tuple[int, int]]:
    """Return the pairs that two jobs say are one speaker, those with most seconds first."""
    pairs = [
        (seconds.both_s, pair)
        for pair, seconds in shared.items()
        if seconds.both_s >= rules.min_shared_s
        and seconds.both_s >= rules.min_agreement * max(seconds.a_s, seconds.b_s)
    ]
    return [pair for _, pair in sorted(pairs, key=lambda item: (-item[0], item[1]))]


def _link_embeddings(
    groups: _Groups,
    ordered: Sequence[LocalSpeakerEvidence],
    *,
    reliable: Sequence[bool],
    rules: LinkingRules,
    bounds: tuple[int, int | None],
) -> None:
    """Join groups by average linkage of their reliable embeddings, weighted by clean speech, model by model."""
    min_voices, max_voices = bounds
    voices = sum(any(reliable[index] for index in group) for group in groups.all())
    usable = [index for index, speaker in enumerate(ordered) if reliable[index] and speaker.embedding is not None]
    for space in sorted({ordered[index].embedding_space for index in usable}):
        comparable = {index for index in usable if ordered[index].embedding_space == space}
        members = [(group[0], [i for i in group if i in comparable]) for group in groups.all()]
        linkage = _Linkage(groups, ordered, [member for member in members if member[1]])
        while voices > min_voices:
            similarity, i, j = linkage.best()
            too_many = max_voices is not None and voices > max_voices
            if similarity == -np.inf or (similarity < rules.threshold(space) and not too_many):
                break
            linkage.merge(i, j)
            voices -= 1


def _link_shared_seconds(
    groups: _Groups,
    ordered: Sequence[LocalSpeakerEvidence],
    agreeing: Iterable[tuple[int, int]],
    reliable: Sequence[bool],
) -> None:
    """Join the groups of speakers on whose shared seconds two jobs agree, where no embeddings can be compared.

    Where they can be, average linkage has decided. Joined here as well, a speaker that mixes two people, and so agrees
    with both, would make them one voice: confusion 18 % instead of 5 % (docs/adr/0012-linking.md).
    """

    def spaces(index: int) -> set[str]:
        used = [ordered[i] for i in groups.of(index) if reliable[i]]
        return {speaker.embedding_space for speaker in used if speaker.embedding is not None}

    for a, b in agreeing:
        if not spaces(a) & spaces(b):
            groups.join(a, b)


class _Linkage:
    """The mean cosine similarity between groups, kept up to date while they merge.

    The mean over all pairs of members of two groups is the product of the groups' weighted mean vectors, so that no
    pair of members is ever visited.
    """

    def __init__(
        self, groups: _Groups, ordered: Sequence[LocalSpeakerEvidence], members: Sequence[tuple[int, Sequence[int]]]
    ) -> None:
        self._groups = groups
        self._firsts = [first for first, _ in members]
        totals, weights = [], []
        for _, parts in members:
            clean_s = np.array([ordered[index].clean_speech_s for index in parts])
            totals.append(clean_s @ np.array([_unit(ordered[index].embedding) for index in parts]))
            weights.append(clean_s.sum())
        self._totals, self._weights = np.array(totals), np.array(weights)
        self._means = self._totals / self._weights[:, None]
        self._blocked = groups.blocked(self._firsts)
        # Rounded, so that two equally similar pairs stay equal in whatever order their members were added up.
        self._similarity = np.where(self._blocked, -np.inf, np.round(self._means @ self._means.T, 9))

    def best(self) -> tuple[float, int, int]:
        """Return the similarity and the rows of the most similar pair that may merge; -inf where there is none.

        Of several equally similar pairs it is the earliest.
        """
        i, j = divmod(int(self._similarity.argmax()), len(self._firsts))
        return float(self._similarity[i, j]), i, j

    def merge(self, i: int, j: int) -> None:
        """Join the groups of two rows; row `i` is that of both from now on."""
        self._groups.join(self._firsts[i], self._firsts[j])
        self._totals[i] += self._totals[j]
        self._weights[i] += self._weights[j]
        self._means[i] = self._totals[i] / self._weights[i]
        self._blocked[i] |= self._blocked[j]
        self._blocked[:, i] = self._blocked[i]
        self._blocked[j] = self._blocked[:, j] = True
        row = np.where(self._blocked[i], -np.inf, np.round(self._means @ self._means[i], 9))
        self._similarity[i] = self._similarity[:, i] = row
        self._similarity[j] = self._similarity[:, j] = -np.inf


def _unit(embedding: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """Return the vector scaled to length 1."""
    vector = np.asarray(embedding, dtype=np.float64)
    return vector / np.linalg.norm(vector)


def overlap_s(a: Sequence[Span], b: Sequence[Span]) -> float:
    """Return the seconds that two sorted lists of spans have in common; within a list no two spans overlap."""
    total, i, j = 0.0, 0, 0
    while i < len(a) and j < len(b):
        total += max(0.0, min(a[i][1], b[j][1]) - max(a[i][0], b[j][0]))
        if a[i][1] <= b[j][1]:
            i += 1
        else:
            j += 1
    return total
