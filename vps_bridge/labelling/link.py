"""Linking: which local speakers of a conversation's jobs are one voice.

Every job names its speakers anew. Two kinds of evidence join them: the seconds that two jobs both heard, and
the similarity of their embeddings. All jobs are looked at together each time: running centroids drift and make
the partition depend on the order of arrival (BasedHardware/omi PR #12471).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Span = tuple[float, float]
"""(start_s, end_s)"""


@dataclass(frozen=True, order=True)
class LocalSpeaker:
    """A speaker as one job names it."""

    job_id: str
    speaker: str


@dataclass(frozen=True)
class SpeakerLink:
    """A person's word on two local speakers; it wins over everything measured, `cannot` over `must`."""

    kind: Literal["must", "cannot"]
    a: LocalSpeaker
    b: LocalSpeaker


@dataclass(frozen=True, eq=False)
class LocalVoice:
    """What one job knows of one of its speakers."""

    id: LocalSpeaker
    turns: tuple[Span, ...]
    """Exclusive turns on the conversation's audio clock, sorted."""
    clean_speech_s: float
    """Speech by nobody else, which the embedding was made from."""
    embedding: NDArray[np.float32] | None
    """Shape ``(dim,)``, finite, not zero; None where there is none to trust."""
    embedding_space: str = ""
    """Model and revision: only embeddings of the same space are ever compared."""


@dataclass(frozen=True)
class LinkingRules:
    """When two local speakers are one voice.

    Thresholds are the least average cosine similarity of the parts of a voice, by a word in the name of the
    embedding model. Measured on real recordings cut into jobs of 60 to 120 s, with at least 3 s of clean speech:

    WeSpeaker (community-1's), two conversations: parts of one voice 0.51 to 0.95, median 0.84; of two voices
    median 0.36 to 0.45, higher only where a diarizer mixed them. One voice falls apart from 0.60, two fall
    together below 0.46.

    GE2E (Resemblyzer 0.1.4): telephone call 0.87 to 0.98 against 0.58 to 0.78, meetings across a table 0.80 to
    0.94 against 0.72 to 0.84, read speech 0.77 to 0.99 against 0.38 to 0.80. With the embedded engine's own results
    (a call, and made-up conversations of 3 to 5 readers) every threshold from 0.70 to 0.85 finds the right voices,
    with and without shared seconds, at a DER within 0.014 of diarizing the whole recording at once.
    """

    min_clean_speech_s: float = 3.0
    """Less clean speech never makes a voice and never changes one (diarization-facts: 3 to 5 s)."""
    min_shared_s: float = 2.0
    """Seconds that two jobs must both have heard before their agreement counts."""
    min_agreement: float = 0.6
    """Share of the seconds both heard that make two local speakers one."""
    max_agreement: float = 0.2
    """Share below which they are kept apart."""
    thresholds: tuple[tuple[str, float], ...] = (("wespeaker", 0.52), ("resemblyzer", 0.78))
    default_threshold: float = 0.8

    def threshold(self, embedding_space: str) -> float:
        """Return the least similarity for a model; models nobody measured get the cautious default."""
        name = embedding_space.lower()
        return next((least for word, least in self.thresholds if word in name), self.default_threshold)


def link_speakers(
    voices: Iterable[LocalVoice],
    rules: LinkingRules,
    *,
    links: Sequence[SpeakerLink] = (),
    min_speakers: int | None = None,
    max_speakers: int | None = None,
) -> tuple[tuple[LocalSpeaker, ...], ...]:
    """Partition local speakers into voices, in order of first speech.

    Strongest evidence first: a person's links, then agreement on shared seconds, then average linkage of the
    embeddings. Two speakers of one job are never joined except by a person. Local speakers in no voice (too
    little clean speech, and no shared seconds with a voice) are left out. The order of `voices` does not matter.

    Args:
        voices: every local speaker of every job.
        rules: the thresholds.
        links: what people said.
        min_speakers: average linkage stops at this number of voices.
        max_speakers: beyond this number the most similar voices are joined, where nothing forbids it.
    """
    ordered = sorted(voices, key=lambda voice: (voice.turns[:1] or ((np.inf, np.inf),), voice.id))
    groups = _Groups(ordered, links)
    shared = _shared_seconds(ordered)
    for a, b in _apart(shared, rules):
        groups.forbid(a, b)
    for a, b in _agreeing(shared, rules):
        groups.join(a, b)
    only_one_job = len({voice.id.job_id for voice in ordered}) < 2  # noqa: PLR2004 - nothing to compare with

    def is_firm(voice: LocalVoice) -> bool:
        enough = voice.clean_speech_s >= rules.min_clean_speech_s
        return enough and (voice.embedding is not None or only_one_job)

    _link_embeddings(
        groups,
        ordered,
        is_firm_by_place=[is_firm(voice) for voice in ordered],
        rules=rules,
        bounds=(min_speakers or 0, max_speakers),
    )
    firm = [group for group in groups.all() if any(is_firm(ordered[place]) for place in group)]
    return tuple(tuple(ordered[place].id for place in group) for group in firm)


class _Groups:
    """Disjoint groups of places in the ordered list, and what may not be joined."""

    def __init__(self, ordered: Sequence[LocalVoice], links: Sequence[SpeakerLink]) -> None:
        place = {voice.id: index for index, voice in enumerate(ordered)}
        self._group = {index: [index] for index in range(len(ordered))}  # shared list per group
        self._jobs = [voice.id.job_id for voice in ordered]
        self._forbidden: set[frozenset[int]] = set()
        known = [link for link in links if link.a in place and link.b in place and link.a != link.b]
        for link in known:
            if link.kind == "cannot":
                self.forbid(place[link.a], place[link.b])
        for link in sorted((link for link in known if link.kind == "must"), key=lambda link: (link.a, link.b)):
            self.join(place[link.a], place[link.b], by_person=True)

    def forbid(self, a: int, b: int) -> None:
        self._forbidden.add(frozenset((a, b)))

    def may_join(self, a: int, b: int, *, by_person: bool = False) -> bool:
        left, right = self._group[a], self._group[b]
        if left is right:
            return False
        if not by_person and {self._jobs[i] for i in left} & {self._jobs[i] for i in right}:
            return False
        return not any(frozenset((i, j)) in self._forbidden for i in left for j in right)

    def join(self, a: int, b: int, *, by_person: bool = False) -> bool:
        if not self.may_join(a, b, by_person=by_person):
            return False
        merged = sorted(self._group[a] + self._group[b])
        for index in merged:
            self._group[index] = merged
        return True

    def blocked(self, places: Sequence[int]) -> NDArray[np.bool_]:
        """Which pairs of the groups of `places` may not be joined; a group never with itself."""
        blocked = np.eye(len(places), dtype=bool)
        row_of = {member: row for row, place in enumerate(places) for member in self._group[place]}
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
        return [group for index, group in sorted(self._group.items()) if group[0] == index]


_Shared = Mapping[tuple[int, int], tuple[float, float, float]]
"""(place, place) -> seconds both speak, seconds of the first that the other's job heard, and the reverse."""


def _shared_seconds(ordered: Sequence[LocalVoice]) -> _Shared:
    """What each pair of jobs says about the seconds both heard speech in."""
    by_job: dict[str, list[int]] = {}
    for place, voice in enumerate(ordered):
        if voice.turns:
            by_job.setdefault(voice.id.job_id, []).append(place)
    extent = {
        job: (min(ordered[p].turns[0][0] for p in places), max(ordered[p].turns[-1][1] for p in places))
        for job, places in by_job.items()
    }
    shared: dict[tuple[int, int], tuple[float, float, float]] = {}
    by_start = sorted(by_job, key=lambda job: (extent[job], job))
    for order, job in enumerate(by_start):
        for other in by_start[order + 1 :]:
            if extent[other][0] >= extent[job][1]:
                break
            seconds = np.array(
                [[overlap_s(ordered[a].turns, ordered[b].turns) for b in by_job[other]] for a in by_job[job]]
            )
            heard_a, heard_b = seconds.sum(axis=1), seconds.sum(axis=0)
            for i, a in enumerate(by_job[job]):
                for j, b in enumerate(by_job[other]):
                    shared[a, b] = (float(seconds[i, j]), float(heard_a[i]), float(heard_b[j]))
    return shared


def _apart(shared: _Shared, rules: LinkingRules) -> list[tuple[int, int]]:
    return [
        pair
        for pair, (both_s, a_s, b_s) in shared.items()
        if min(a_s, b_s) >= rules.min_shared_s and both_s <= rules.max_agreement * min(a_s, b_s)
    ]


def _agreeing(shared: _Shared, rules: LinkingRules) -> list[tuple[int, int]]:
    """Pairs that two jobs agree on, those with most seconds first."""
    pairs = [
        (both_s, pair)
        for pair, (both_s, a_s, b_s) in shared.items()
        if both_s >= rules.min_shared_s and both_s >= rules.min_agreement * max(a_s, b_s)
    ]
    return [pair for _, pair in sorted(pairs, key=lambda item: (-item[0], item[1]))]


def _link_embeddings(
    groups: _Groups,
    ordered: Sequence[LocalVoice],
    *,
    is_firm_by_place: Sequence[bool],
    rules: LinkingRules,
    bounds: tuple[int, int | None],
) -> None:
    """Average linkage, weighted by clean speech, of the groups that have firm embeddings, model by model."""
    least, most = bounds
    voices = sum(any(is_firm_by_place[place] for place in group) for group in groups.all())
    firm = [place for place, voice in enumerate(ordered) if is_firm_by_place[place] and voice.embedding is not None]
    for space in sorted({ordered[place].embedding_space for place in firm}):
        comparable = {place for place in firm if ordered[place].embedding_space == space}
        members = [(group[0], [p for p in group if p in comparable]) for group in groups.all()]
        linkage = _Linkage(groups, ordered, [member for member in members if member[1]])
        while voices > least:
            similarity, i, j = linkage.best()
            too_many = most is not None and voices > most
            if similarity == -np.inf or (similarity < rules.threshold(space) and not too_many):
                break
            linkage.merge(i, j)
            voices -= 1


class _Linkage:
    """Mean cosine similarity between groups, kept up to date while they merge.

    The mean over all pairs of two groups is the product of their weighted mean vectors: no pair is visited twice.
    """

    def __init__(
        self, groups: _Groups, ordered: Sequence[LocalVoice], members: Sequence[tuple[int, Sequence[int]]]
    ) -> None:
        self._groups = groups
        self._places = [place for place, _ in members]
        totals, weights = [], []
        for _, parts in members:
            clean_s = np.array([ordered[place].clean_speech_s for place in parts])
            totals.append(clean_s @ np.array([_unit(ordered[place].embedding) for place in parts]))
            weights.append(clean_s.sum())
        self._totals, self._weights = np.array(totals), np.array(weights)
        self._means = self._totals / self._weights[:, None]
        self._blocked = groups.blocked(self._places)
        # Rounded, so that two pairs that are equally alike stay a tie whatever the order of summing.
        self._similarity = np.where(self._blocked, -np.inf, np.round(self._means @ self._means.T, 9))

    def best(self) -> tuple[float, int, int]:
        """The most similar pair that may merge, the earliest of equals; similarity -inf where there is none."""
        i, j = divmod(int(self._similarity.argmax()), len(self._places))
        return float(self._similarity[i, j]), i, j

    def merge(self, i: int, j: int) -> None:
        self._groups.join(self._places[i], self._places[j])
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
    vector = np.asarray(embedding, dtype=np.float64)
    return vector / np.linalg.norm(vector)


def overlap_s(a: Sequence[Span], b: Sequence[Span]) -> float:
    """Return the seconds that two sorted lists of spans, none overlapping another of its list, have in common."""
    total, i, j = 0.0, 0, 0
    while i < len(a) and j < len(b):
        total += max(0.0, min(a[i][1], b[j][1]) - max(a[i][0], b[j][0]))
        if a[i][1] <= b[j][1]:
            i += 1
        else:
            j += 1
    return total
