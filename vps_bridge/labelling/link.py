"""Linking: finding which local speakers of a conversation's jobs are one voice.

Every job gives its speakers labels of its own. Two kinds of evidence link them: the similarity of their embeddings, and
beside it, never over it, what two jobs say about the seconds that both cover. Where agents send voice samples, these
were clustered before (`cluster`, `take_apart`), and what that found is joined first. All jobs are compared anew each
time. Centroids that are updated job by job drift, and make the result depend on the order of arrival
(BasedHardware/omi PR #12471).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vps_bridge.labelling.audio_clock import Span
from vps_bridge.labelling.embedding_spaces import space_of
from vps_bridge.labelling.linkage import Linkage
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.shared_seconds import agreeing, disagreeing, measure_shared_seconds

MAX_LINKED = 2_000
"""Groups of local speakers that average linkage compares, which costs the square of their number: 32 MB, a second."""

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
    is_confirmed: bool = False
    """A person says that this is a voice, however little it speaks."""


@dataclass(frozen=True)
class LinkingRules:
    """When two local speakers are one voice; how similar their embeddings must be, `embedding_spaces` says."""

    min_clean_speech_s: float = 3.0
    """A local speaker with less makes no voice of its own, and its embedding is not used. Embeddings need 3 to 5 s
    (shared/design/diarization-facts.md)."""
    min_shared_s: float = 2.0
    """Two jobs must share this many seconds of a speaker's speech before what they say about them counts."""
    min_agreement: float = 0.6
    """From this share of the shared seconds on, two jobs say that two local speakers are one voice."""
    max_agreement: float = 0.2
    """Up to this share, they are kept apart."""


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
        groups.join_found(ordered, disputed=_disputed(ordered, rules) | _split_by_people(ordered, links))
    shared = measure_shared_seconds([(speaker.id.job_id, speaker.turns) for speaker in ordered])
    for a, b in disagreeing(shared, min_s=rules.min_shared_s, max_agreement=rules.max_agreement):
        groups.forbid(a, b)
    reliable = _reliable(ordered, rules)
    _link_embeddings(groups, ordered, reliable=reliable, bounds=(min_speakers or 0, max_speakers))
    agreed = agreeing(shared, min_s=rules.min_shared_s, min_agreement=rules.min_agreement)
    _link_shared_seconds(groups, ordered, agreed, reliable)
    voices = [group for group in groups.all() if any(reliable[index] for index in group)]
    return tuple(tuple(ordered[index].id for index in group) for group in voices)


def _reliable(ordered: Sequence[LocalSpeakerEvidence], rules: LinkingRules) -> list[bool]:
    """Return which speakers can make a voice of their own: with clean speech enough and a usable embedding.

    In a conversation of one job there is nothing to compare with, and no embedding is needed.
    """
    is_one_job = len({speaker.id.job_id for speaker in ordered}) <= 1
    return [
        speaker.is_confirmed
        or (speaker.clean_speech_s >= rules.min_clean_speech_s and (speaker.embedding is not None or is_one_job))
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
        if _unit(a.embedding) @ _unit(b.embedding)
        < space_of(a.embedding_space).least_cosine(a.clean_speech_s, b.clean_speech_s)
    }


def _split_by_people(ordered: Sequence[LocalSpeakerEvidence], links: Sequence[SpeakerLink]) -> set[str]:
    """Return the found voices of which a person says that they are two: which part is whose, embeddings tell."""
    voice_of = {speaker.id: speaker.voice for speaker in ordered if speaker.voice is not None}
    return {
        voice_of[link.a]
        for link in links
        if link.kind == "cannot" and link.a in voice_of and voice_of[link.a] == voice_of.get(link.b)
    }


class _Groups:
    """The groups of speakers joined so far, as indexes of the ordered list, and which may not be joined."""

    def __init__(self, ordered: Sequence[LocalSpeakerEvidence], links: Sequence[SpeakerLink]) -> None:
        index_of = {speaker.id: index for index, speaker in enumerate(ordered)}
        self._group = {index: [index] for index in range(len(ordered))}  # all members of a group share one list
        # What a person parted off is no speaker that its job told apart: the rest may be the voice that it now is.
        self._jobs = [speaker.id.job_id if not speaker.is_confirmed else str(speaker.id) for speaker in ordered]
        self._jobs_in = {index: {job} for index, job in enumerate(self._jobs)}  # by the first member of a group
        self._apart: dict[int, set[int]] = {}
        known = [link for link in links if link.a in index_of and link.b in index_of and link.a != link.b]
        for link in known:
            if link.kind == "cannot":
                self.forbid(index_of[link.a], index_of[link.b])
        for link in sorted((link for link in known if link.kind == "must"), key=lambda link: (link.a, link.b)):
            self.join(index_of[link.a], index_of[link.b], may_share_job=True)

    def forbid(self, a: int, b: int) -> None:
        """Keep the groups of two speakers apart from now on."""
        self._apart.setdefault(a, set()).add(b)
        self._apart.setdefault(b, set()).add(a)

    def may_join(self, a: int, b: int, *, may_share_job: bool = False) -> bool:
        """Whether the groups of two speakers are two and may become one."""
        left, right = self._group[a], self._group[b]
        if left is right:
            return False
        if not may_share_job and not self._jobs_in[left[0]].isdisjoint(self._jobs_in[right[0]]):
            return False
        return all(self._apart[i].isdisjoint(right) for i in left if i in self._apart)

    def join(self, a: int, b: int, *, may_share_job: bool = False) -> bool:
        """Make the groups of two speakers one, if they may be; return whether they were joined."""
        if not self.may_join(a, b, may_share_job=may_share_job):
            return False
        left, right = self._group[a], self._group[b]
        merged = sorted(left + right)
        self._jobs_in[merged[0]] = self._jobs_in[left[0]] | self._jobs_in[right[0]]
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
        for a, others in self._apart.items():
            for b in others & row_of.keys() if a in row_of else ():
                blocked[row_of[a], row_of[b]] = True
        return blocked

    def all(self) -> list[list[int]]:
        """Return every group, ordered by its first speaker."""
        return [group for index, group in sorted(self._group.items()) if group[0] == index]


def _link_embeddings(
    groups: _Groups,
    ordered: Sequence[LocalSpeakerEvidence],
    *,
    reliable: list[bool],
    bounds: tuple[int, int | None],
) -> None:
    """Join groups by average linkage of their reliable embeddings, weighted by clean speech, model by model.

    Beyond `MAX_LINKED` groups, those with less clean speech are only joined to the voices that the others make. One
    that is like none of them is no longer reliable: it makes no voice of its own.
    """
    min_voices, max_voices = bounds
    usable = [index for index, speaker in enumerate(ordered) if reliable[index] and speaker.embedding is not None]
    compared: dict[str, list[tuple[int, list[int]]]] = {}
    for space in sorted({ordered[index].embedding_space for index in usable}):
        comparable = {index for index in usable if ordered[index].embedding_space == space}
        members = [(group[0], [i for i in group if i in comparable]) for group in groups.all()]
        compared[space] = [member for member in members if member[1]]
    left_out = sum(max(0, len(members) - MAX_LINKED) for members in compared.values())
    voices = sum(any(reliable[index] for index in group) for group in groups.all()) - left_out
    for space, members in compared.items():
        clearest = _clearest(members, ordered)
        firsts = [first for first, _ in clearest]
        linkage = Linkage(*_mean_embeddings(ordered, [parts for _, parts in clearest]), groups.blocked(firsts))
        while voices > min_voices:
            similarity, i, j = linkage.best()
            too_many = max_voices is not None and voices > max_voices
            if similarity == -np.inf or (similarity < space_of(space).threshold and not too_many):
                break
            groups.join(firsts[i], firsts[j])
            linkage.merge(i, j)
            voices -= 1
        kept = set(firsts)
        rest = [parts[0] for first, parts in members if first not in kept]
        _attach(groups, ordered, rest, clearest, reliable=reliable, threshold=space_of(space).threshold)


def _attach(
    groups: _Groups,
    ordered: Sequence[LocalSpeakerEvidence],
    rest: Sequence[int],
    linked: Sequence[tuple[int, list[int]]],
    *,
    reliable: list[bool],
    threshold: float,
) -> None:
    """Join each group of the rest to the most similar voice that it may join; those without one become unreliable."""
    if not rest:
        return
    parts_of: dict[int, list[int]] = {}
    for first, parts in linked:
        parts_of.setdefault(groups.of(first)[0], []).extend(parts)
    means, _ = _mean_embeddings(ordered, list(parts_of.values()))
    firsts = list(parts_of)
    for index in rest:
        similarity = means @ _weighed(ordered[index])
        near = [row for row in np.argsort(-similarity, kind="stable") if similarity[row] >= threshold]
        if not any(groups.join(firsts[row], index) for row in near):
            for member in groups.of(index):
                reliable[member] = False


def _link_shared_seconds(
    groups: _Groups,
    ordered: Sequence[LocalSpeakerEvidence],
    agreed: Iterable[tuple[int, int]],
    reliable: Sequence[bool],
) -> None:
    """Join the groups of speakers on whose shared seconds two jobs agree, where no embeddings can be compared.

    Where they can be, average linkage has decided. Joined here as well, a speaker that mixes two people, and so agrees
    with both, would make them one voice: confusion 18 % instead of 5 % (docs/adr/0012-linking.md).
    """

    def spaces(index: int) -> set[str]:
        used = [ordered[i] for i in groups.of(index) if reliable[i]]
        return {speaker.embedding_space for speaker in used if speaker.embedding is not None}

    for a, b in agreed:
        if not spaces(a) & spaces(b):
            groups.join(a, b)


def _clearest(
    members: Sequence[tuple[int, list[int]]], ordered: Sequence[LocalSpeakerEvidence]
) -> list[tuple[int, list[int]]]:
    """Return at most `MAX_LINKED` groups, in their order: of every job the one with most clean speech, then the second.

    So no job crowds out those who speak little, but in every job.
    """
    clean_s = [sum(ordered[index].clean_speech_s for index in parts) for _, parts in members]
    louder: Counter[str] = Counter()  # by job, how many of its groups came before
    ranked: list[tuple[int, float, int]] = []
    for row in sorted(range(len(members)), key=lambda row: (-clean_s[row], row)):
        job_id = ordered[members[row][0]].id.job_id
        ranked.append((louder[job_id], -clean_s[row], row))
        louder[job_id] += 1
    return [members[row] for row in sorted(row for _, _, row in sorted(ranked)[:MAX_LINKED])]


def _mean_embeddings(
    ordered: Sequence[LocalSpeakerEvidence], groups: Sequence[Sequence[int]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of each group's weighed embeddings, weighted by clean speech, and its clean speech."""
    means, weights = [], []
    for parts in groups:
        clean_s = np.array([ordered[index].clean_speech_s for index in parts])
        means.append(clean_s @ np.array([_weighed(ordered[index]) for index in parts]) / clean_s.sum())
        weights.append(clean_s.sum())
    return np.array(means), np.array(weights)


def _weighed(speaker: LocalSpeakerEvidence) -> NDArray[np.float64]:
    """Return the embedding as long as its products have to be for one threshold to fit little speech and much."""
    certainty = space_of(speaker.embedding_space).certainty(np.array(speaker.clean_speech_s))
    return _unit(speaker.embedding) / certainty


def _unit(embedding: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """Return the vector scaled to length 1."""
    vector = np.asarray(embedding, dtype=np.float64)
    return vector / np.linalg.norm(vector)
