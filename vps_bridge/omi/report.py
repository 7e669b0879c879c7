"""A conversation that OMI reports becomes one of the bridge's: events in its name, and a note that it wants audio."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from schemas.codec import encode
from schemas.conversation import ConversationEvent, EventType, TranscriptSegment, Verdict
from schemas.failure import FailureCode
from vps_bridge.conversations.segment_rows import find_other_lines
from vps_bridge.conversations.store import ConversationStore, StoredSegment
from vps_bridge.errors import Refusal
from vps_bridge.intake.intake import Intake
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.omi_conversations import OmiConversationRecord
from vps_bridge.ledger.told_segment import ELSEWHERE, ToldSegment
from vps_bridge.moments import to_moment
from vps_bridge.omi.api import OWNER
from vps_bridge.omi.documents import OmiConversation
from vps_bridge.omi.lines_before import NOBODY, KnownLines, LinesBefore, find_known
from vps_bridge.omi.live import LiveConversations

_LOG = structlog.get_logger(__name__)
_LABEL = {"speaker", "is_user", "person_id", "label_source"}
CLOCK_TOLERANCE_S = 5.0
"""Live reports place second 0 of the transcript to about this; a started_at within it is believed."""


@dataclass(frozen=True)
class Report:
    """A conversation, whose it is, and what came with it."""

    uid: str
    conversation: OmiConversation
    body_sha256: str
    arrived_at: float
    zero_at: float | None = None
    """When second 0 of the transcript was, as live reports say (Unix time)."""

    def with_segments(self, segments: Iterable[TranscriptSegment]) -> Report:
        """Return it with these segments."""
        return replace(self, conversation=replace(self.conversation, segments=tuple(segments)))

    @property
    def span(self) -> tuple[float, float]:
        """When the conversation was; live reports win over what OMI says where they are far apart."""
        started_at, ended_at = self.conversation.span(self.arrived_at)
        if self.zero_at is None or abs(self.zero_at - started_at) <= CLOCK_TOLERANCE_S:
            return started_at, ended_at
        return self.zero_at, self.zero_at + self.conversation.length_s


def hash_body(body: bytes) -> str:
    """Return what tells one report from another."""
    return hashlib.sha256(body).hexdigest()


class Reporter:
    """Takes reports. Runs on the bridge's own thread only."""

    def __init__(self, intake: Intake, ledger: Ledger, store: ConversationStore, live: LiveConversations) -> None:
        """Write through `intake`, as if a backend had published it; `live` shows no more what was reported."""
        self._intake, self._ledger, self._store, self._live = intake, ledger, store, live

    def take(self, report: Report) -> None:
        """Take a report; the same one again, or of a deleted conversation, changes nothing. Raises `Refusal`."""
        name = report.conversation.conversation_id
        if self._ledger.conversations.is_deleted(name):
            self.end_live(report)
            return
        known = self._ledger.omi.find(name)
        self._check_owner(report, known)
        stored = self._store.read(name)
        lines = stored.segments if stored else ()
        now = time.time()
        lines_known = self._find_known(report, lines, now)
        report, told = _without_ours(report, lines_known.told, now)
        if known is not None and known.body_sha256 == report.body_sha256:
            self._ledger.omi.put(replace(known, waits=True), {}, told)  # its audio may have come, or labels from here
            return
        posts, heard = 1 if known is None else known.posts + 1, _words_of(report)
        moved = {one: who for one, who in lines_known.by_hand.items() if one not in heard} | lines_known.corrected
        taken_away = lines_known.find_taken_away(told) & {one.id for one in report.conversation.segments}
        old = self._find_old_words(name, lines, heard, taken_away) - _find_other_lines(report, lines)
        report = _with_words(_without_labels(self._as_known_here(report, heard), old), moved)
        for event in _make_events(report, posts, lines):
            receipt = self._intake.take_event(name, encode(event))
            if receipt is not None and receipt.verdict is Verdict.REFUSED:
                raise Refusal(FailureCode(receipt.reason or FailureCode.PAYLOAD_MALFORMED), receipt.message or "")
        started_at, ended_at = report.span
        labels = {ELSEWHERE: sorted(lines_known.named)} if lines_known.named else {}
        for segment_id, person in heard.items():
            labels.setdefault(person, []).append(segment_id)
        record = OmiConversationRecord(name, report.uid, started_at, ended_at, posts, report.body_sha256, waits=True)
        left_out = _find_left_out(report, lines)
        self._ledger.omi.put(record, labels, told, dict.fromkeys(taken_away, NOBODY) | heard, left_out)
        self.end_live(report)
        _LOG.info("omi_conversation", conversation=name, posts=posts, segments=len(report.conversation.segments))

    def _find_known(self, report: Report, lines: Sequence[StoredSegment], now: float) -> KnownLines:
        """Return what is known of a report's lines, of which the last report had these."""
        name, omi = report.conversation.conversation_id, self._ledger.omi
        has = {segment.id: segment.person_id for segment in report.conversation.segments}
        told = omi.told_near(name, report.uid, report.span, has, now)
        own = omi.told(name)
        # OMI has another person from us than this conversation told it: what was said in the other one came later.
        overtaken = {one for one, said in told.items() if _is_from_another(said, own.get(one), has.get(one), now)}
        elsewhere, heard = self._find_elsewhere(report, {one.id for one in lines} - overtaken)
        heard |= omi.heard_last(name)
        before = LinesBefore(lines, told, omi.named_near(report.uid, report.span), heard, elsewhere)
        return find_known(report.conversation.segments, before, now)

    def _find_elsewhere(
        self, report: Report, known: Collection[str]
    ) -> tuple[dict[str, StoredSegment], dict[str, str]]:
        """Return lines of a report as another conversation of that time has them, and whom OMI had there by itself.

        Those that are not `known`. Lines that were shown live keep their ids, and so do those of conversations that OMI
        merges and takes apart.
        """
        new = {one.id for one in report.conversation.segments} - set(known)
        lines, heard, omi = dict[str, StoredSegment](), dict[str, str](), self._ledger.omi
        if not new:
            return lines, heard
        live = [name for name, owner in omi.live() if owner == report.uid]
        for name in [*live, *omi.others_near(report.conversation.conversation_id, report.uid, report.span)]:
            stored = self._store.read(name)
            lines |= {one.id: one for one in (stored.segments if stored else ()) if one.id in new}
            lines |= self._find_left_out(name, report, new)
            heard |= {one: who for one, who in omi.heard_last(name).items() if one in new}
        return lines, heard

    def _find_left_out(self, name: str, report: Report, new: Collection[str]) -> dict[str, StoredSegment]:
        """Return new lines of a report as another conversation had them that was reported without them first."""
        now, told = time.time(), self._ledger.omi.told(name)
        return {
            one.id: StoredSegment(one.id, one.start_s, one.end_s, person_id=said.by_hand, label_source="manual")
            for one in report.conversation.segments
            if one.id in new and (said := told.get(one.id)) and said.by_hand and said.may_be(one.person_id, now)
        }

    def _as_known_here(self, report: Report, heard: Mapping[str, str]) -> Report:
        """Return a report that names ours by their own ids where OMI names them by those that it was told for them."""
        is_named = not {OWNER}.issuperset(heard.values())  # all of a user's conversations are read to find them
        here = {one.person_id for one in self._ledger.people.of_owner(report.uid)} if is_named else set[str]()
        ours = self._ledger.omi.people_told(report.uid, here) if here else {}
        return report.with_segments(
            one.model_copy(update={"person_id": ours[one.person_id]}) if one.person_id in ours else one
            for one in report.conversation.segments
        )

    def _find_old_words(
        self, name: str, lines: Sequence[StoredSegment], heard: Mapping[str, str], taken_away: Collection[str]
    ) -> set[str]:
        """Return the segments whose label the last report had too: what was said here since stays.

        So does what was said here of a line of which OMI never had a word, unless what it had from us is `taken_away`
        and was not so before.
        """
        last = self._ledger.omi.heard_last(name)
        known_away = {one for one, said in last.items() if said == NOBODY}
        old = {one.id for one in lines if one.id in heard and last.get(one.id) == heard[one.id]}
        worded = {*heard, *(last.keys() - known_away), *(set(taken_away) - known_away)}
        wordless = [one for one in lines if one.id not in worded]
        return old | {one.id for one in wordless if one.is_human_labelled}

    def end_live(self, report: Report) -> None:
        """Show no more what came live of a conversation: it was reported, or thrown away."""
        self._live.end(report.uid, {segment.id for segment in report.conversation.segments}, report.span)

    def _check_owner(self, report: Report, known: OmiConversationRecord | None) -> None:
        """Raise `Refusal` where the id is of somebody else's conversation."""
        name = report.conversation.conversation_id
        conversation = self._ledger.conversations.get(name) if known is None else None
        owner = known.uid if known is not None else conversation and conversation.owner
        if owner != report.uid and (known is not None or conversation is not None):
            msg = f"the id {name} belongs to a conversation of another user: nothing was taken"
            raise Refusal(FailureCode.EVENT_ID_CONFLICT, msg)


def _without_ours(
    report: Report, known: Mapping[str, ToldSegment], now: float
) -> tuple[Report, dict[str, ToldSegment]]:
    """Return a report without the labels that OMI has from us, and these: they come back as no person's word.

    Where OMI has somebody else by now, it is a person's word, and stays one: of those it returns nothing told.
    """
    segments = report.conversation.segments
    told = [one for one in segments if one.id in known]
    echoes = [one for one in told if not one.is_user and known[one.id].may_be(one.person_id, now)]
    ours = {one.id: known[one.id].reported(one.person_id) for one in echoes}
    said = [one.id for one in told if one.person_id is not None or one.is_user]
    theirs = {one: ToldSegment() for one in said if one not in ours}
    blank = {"person_id": None, "label_source": None}
    blanked = (one.model_copy(update=blank) if one.id in ours else one for one in segments)
    return report.with_segments(blanked), ours | theirs


def _is_from_another(told: ToldSegment, own: ToldSegment | None, theirs: str | None, now: float) -> bool:
    """Whether OMI has whom it has of a line from what another conversation told it, and not from its `own`."""
    return own is not None and theirs is not None and told.may_be(theirs, now) and not own.may_be(theirs, now)


def _make_events(report: Report, posts: int, lines: Sequence[StoredSegment]) -> list[ConversationEvent]:
    conversation = report.conversation
    theirs = {segment.id: segment.person_id for segment in conversation.segments if segment.person_id is not None}
    content = hash_body(f"{report.body_sha256} {theirs}".encode())  # what is ours of it may be another day

    def make(kind: EventType, **fields: Any) -> ConversationEvent:  # noqa: ANN401 - the event's fields
        event_id = f"omi-{posts}-{kind.value}-{content[:16]}"
        return ConversationEvent(event_id=event_id, type=kind, revision=posts, **fields)

    started = to_moment(report.span[0])
    sent = {segment.id for segment in conversation.segments}
    gone = tuple(one.id for one in lines if one.id not in sent)
    return [
        make(EventType.STARTED, started_at=started, owner=report.uid, language=conversation.language),
        make(EventType.SEGMENTS, segments=conversation.segments, removed=gone),
        make(EventType.COMPLETED),
    ]


def _find_left_out(report: Report, lines: Sequence[StoredSegment]) -> dict[str, str]:
    """Return whom a person had named here in lines that a report leaves out: OMI may have split them off."""
    sent = {one.id for one in report.conversation.segments}
    by_hand = {one.id: one.person_id for one in lines if one.label_source == "manual" and one.id not in sent}
    return {one: person for one, person in by_hand.items() if person is not None}


def _find_other_lines(report: Report, lines: Sequence[StoredSegment]) -> set[str]:
    """Return the ids that a report gives to other lines: what OMI says of them was not said before."""
    before = {one.id: {**vars(one), "segment_id": one.id, "removed": False} for one in lines}
    return find_other_lines(report.conversation.segments, before)


def _words_of(report: Report) -> dict[str, str]:
    """Return by segment whom OMI has by itself: a person's id, or `OWNER`."""
    said = {one.id: OWNER if one.is_user else one.person_id for one in report.conversation.segments}
    return {segment_id: person for segment_id, person in said.items() if person is not None}


def _with_words(report: Report, persons: Mapping[str, str]) -> Report:
    """Return a report in which a person named these, by segment."""
    manual = {"label_source": "manual", "is_user": False}
    return report.with_segments(
        one.model_copy(update={"person_id": persons[one.id], **manual}) if one.id in persons else one
        for one in report.conversation.segments
    )


def _without_labels(report: Report, segment_ids: Collection[str]) -> Report:
    """Return a report that says nothing of who speaks in these segments: what is missing is no change."""

    def without_label(segment: TranscriptSegment) -> TranscriptSegment:
        return TranscriptSegment.model_validate(segment.model_dump(exclude=_LABEL, exclude_unset=True))

    return report.with_segments(
        without_label(one) if one.id in segment_ids else one for one in report.conversation.segments
    )
