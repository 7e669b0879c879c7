"""Updates: a conversation's labels are worked out anew, written with a compare-and-set, and sent to the backend."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import structlog

from broker.backoff import Backoff
from broker.errors import SettingsError
from schemas.codec import decode, encode
from schemas.conversation import (
    MAX_FAILURES,
    MAX_PEOPLE,
    MAX_SEGMENTS,
    ConversationUpdated,
    LabelChange,
    LeftAlone,
)
from schemas.errors import MessageTooLarge
from schemas.record import MAX_DURATION_S
from schemas.topics import Topics
from schemas.turns import MAX_TURNS
from vps_bridge.conversations.store import AlreadyWritten, Applied, Change, ConversationStore, StoredConversation
from vps_bridge.dispatch.failed_audio import describe_failures
from vps_bridge.dispatch.labelling_work import LabellingWork, work_out
from vps_bridge.dispatch.learning import keep_prints
from vps_bridge.labelling.relabel import Relabelling, RelabelPolicy
from vps_bridge.labelling.vote import AssignmentRules
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.people import NOBODY, OwnersPeople
from vps_bridge.ledger.records import ConversationRecord, JobRecord
from vps_bridge.people.match import MatchRules
from vps_bridge.people.rules_file import PeopleRulesUnreadable, read_rules
from vps_bridge.publisher import Encoded, Publisher
from vps_bridge.rules.ownership import Owns, own_all
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
WRITE_TRIES = 3
MAX_OFFERS_AT_ONCE = 20
MAX_WARNINGS, MAX_VOICE_CHANGES, MAX_OUTCOMES = 50, 1_000, 1_000
TOO_LARGE = "too_large: run `omi-bridge show`, or raise the broker's packet limit and send `resync`"


@dataclass(frozen=True, order=True)
class _UpdateOffer:
    """When an update is offered next (monotonic seconds), and the pause after that."""

    due_s: float
    number: int
    conversation_id: str
    backoff: Backoff = field(compare=False)


class Updater:
    """Assigns dirty conversations and offers each update until the backend says `applied`."""

    def __init__(
        self,
        settings: BridgeSettings,
        ledger: Ledger,
        store: ConversationStore,
        publisher: Publisher,
        *,
        owns: Owns = own_all,
    ) -> None:
        """Read evidence from the ledger, write labels to the store, offer updates of what this bridge owns.

        Raises `SettingsError` where the operator's own rules of who is who cannot be read.
        """
        self._ledger, self._store, self._publisher, self._owns = ledger, store, publisher, owns
        self._topics = Topics(settings.topic_root)
        self._policy = RelabelPolicy(
            assembly=settings.assembly_rules,
            assignment=AssignmentRules(removes_stale=settings.remove_stale_labels),
            people=_read_own_rules(settings),
        )
        self._first_pause = Backoff.start(settings.retry_min_s, settings.retry_max_s)
        self._latest: dict[str, int] = {}  # the number of the latest offer of each conversation
        self._numbers = itertools.count()
        self._offers: list[_UpdateOffer] = []  # a heap: only those that are due cost time

    @property
    def policy(self) -> RelabelPolicy:
        """Every threshold of labelling."""
        return self._policy

    def read(self, conversation: ConversationRecord, *, final: bool) -> LabellingWork:
        """Return what a conversation's labels are worked out of."""
        conversation_id = conversation.conversation_id
        stored, known = self._store.read(conversation_id), self._ledger.evidence.of_conversation(conversation_id)
        return LabellingWork(
            conversation,
            stored,
            known.jobs,
            known.chunks,
            known.results,
            known.corrections,
            self._read_people(conversation),
            # A late result of a job that was given up changes a conversation that is final already: it stays final.
            is_final=final or conversation.final_at is not None,
        )

    def _read_people(self, conversation: ConversationRecord) -> OwnersPeople:
        """Return whom a conversation's owner knows; nobody while its `started` event may still name the owner."""
        is_owner_known = conversation.started_revision >= 0 or conversation.completed
        return self._ledger.people.known_to(conversation.owner or NOBODY) if is_owner_known else OwnersPeople()

    def assign(self, work: LabellingWork, *, final: bool) -> bool:
        """Work out a conversation's labels; where they changed, write them and offer an update.

        A write that meets a conversation somebody changed meanwhile is worked out again from what is there now.
        Returns whether that came to an end; if not, ask again a little later.
        """
        for _ in range(WRITE_TRIES):
            if self._note(work, work.conversation, work_out(work, self._policy), final=final):
                return True
            conversation = self._ledger.conversations.get(work.name)
            if conversation is None:
                return True
            work = self.read(conversation, final=final)
        _LOG.warning("assignment_postponed", conversation=work.name, reason="changed while it was worked out")
        return False

    def note(self, work: LabellingWork, labelling: Relabelling, *, final: bool) -> bool:
        """Write labels that were worked out beside the bridge, whose ledger may say something else by now.

        Offers an update. Returns False where the conversation changed meanwhile.
        """
        conversation = self._ledger.conversations.get(work.name)
        return conversation is None or self._note(work, conversation, labelling, final=final)

    def _note(
        self, work: LabellingWork, conversation: ConversationRecord, labelling: Relabelling, *, final: bool
    ) -> bool:
        name, jobs = work.name, work.jobs
        # A late result of a job that was given up changes a conversation that is final already: it stays final.
        final = final or conversation.final_at is not None
        seen = work.conversation.dirty
        done = tuple(job.job_id for job in jobs if job.state is JobState.TURNS_STORED)
        is_new = (labelling.write_key, final) != (conversation.write_key, conversation.final_at is not None)
        is_new = is_new or not _tells_failures(conversation.updated_payload, jobs)
        if conversation.stripped:  # its results are thrown away already
            self._ledger.conversations.note_nothing_new(name, final=final, done_jobs=done, seen=seen)
            return True
        written = self._write(conversation, work.stored, labelling)
        if written is None:
            return False
        changed, write = written
        keep_prints(self._ledger, work, labelling, dict(self._policy.people))
        if not is_new and not changed:
            self._ledger.conversations.note_nothing_new(name, final=final, done_jobs=done, seen=seen)
            return True
        version = conversation.updated_version + 1
        payload = _describe(name, version, labelling, changed, jobs, write=write, final=final)
        voices, write_key = labelling.voices.to_json(), labelling.write_key
        places = [place.to_row() for place in labelling.audio_places]
        made = AssignedUpdate(voices, write_key, payload, final, done, seen, audio_places=places)
        self._ledger.conversations.note_update(name, made)
        self._offer_now(name)
        _LOG.info(
            "conversation_updated",
            conversation=name,
            version=version,
            final=final,
            changed=len(changed),
            left_alone=len(labelling.left_alone),
            speakers=labelling.speakers,
        )
        return True

    def _write(
        self, conversation: ConversationRecord, stored: StoredConversation | None, labelling: Relabelling
    ) -> tuple[tuple[Change, ...], int] | None:
        """Write the labels; return what changed and the number of the latest write.

        None where somebody changed the conversation meanwhile.
        """
        name = conversation.conversation_id
        if stored is None or not stored.segments:
            return (), stored.version if stored else 0
        if not labelling.labels:
            # Where nothing was written, or this is reported already, the whole history need not be read.
            if stored.version == 0 or conversation.write_key == labelling.write_key:
                return (), stored.version
            latest = [write for write in self._store.history(name) if write.version == stored.version]
            is_ours = bool(latest) and latest[0].write_key == labelling.write_key
            return latest[0].changes if is_ours else (), stored.version
        outcome = self._store.apply(name, stored.revision, labelling.write_key, labelling.labels)
        match outcome:
            case Applied():
                return labelling.changed, outcome.version
            case AlreadyWritten():
                return (), stored.version
            case _:
                return None

    def offer(self, now_s: float) -> None:
        """Offer what is due of the updates that the backend has not confirmed, each on its own timer."""
        for _ in range(MAX_OFFERS_AT_ONCE):
            if not self._offers or self._offers[0].due_s > now_s:
                return
            offer = self._offers[0]
            name = offer.conversation_id
            if self._latest.get(name) != offer.number:
                heapq.heappop(self._offers)
                continue  # a later one took its place
            update = self._ledger.conversations.unapplied_update(name) if self._owns(name) else None
            heapq.heappop(self._offers)  # only now: where the ledger is away, it is as due as before
            if update is None:
                del self._latest[name]
                continue
            forms = _kept_forms(update.payload, is_open=update.is_open)
            self._publisher.send_largest(self._topics.updated(name), forms)
            due_s, backoff = now_s + offer.backoff.pause_s, offer.backoff.longer()
            heapq.heappush(self._offers, _UpdateOffer(due_s, offer.number, name, backoff))

    def offer_again(self, conversation_id: str | None = None) -> None:
        """Make the update of a conversation due, or all: the connection is new."""
        if conversation_id is not None:
            self._offer_now(conversation_id)
            return
        unapplied = self._ledger.conversations.unapplied()
        self._offers.clear()
        self._latest.clear()
        for name, _ in filter(self._is_ours, unapplied):
            self._offer_now(name)

    def offer_missed(self) -> None:
        """Offer what this bridge owns and does not offer: another one made it, before or after it knew of that."""
        for name, _ in filter(self._is_ours, self._ledger.conversations.unapplied()):
            if name not in self._latest:
                self._offer_now(name)

    def _is_ours(self, unapplied: tuple[str, int]) -> bool:
        return self._owns(unapplied[0])

    def _offer_now(self, name: str) -> None:
        number = self._latest[name] = next(self._numbers)
        heapq.heappush(self._offers, _UpdateOffer(0.0, number, name, self._first_pause))


def _read_own_rules(settings: BridgeSettings) -> tuple[tuple[str, MatchRules], ...]:
    try:
        return tuple(sorted(read_rules(settings.people_rules).items(), key=itemgetter(0)))
    except PeopleRulesUnreadable as error:
        raise SettingsError("people_rules", str(settings.people_rules), str(error)) from error


def _tells_failures(payload: bytes | None, jobs: Iterable[JobRecord]) -> bool:
    """Whether the last update told of as many failed jobs as there are now. No update tells of none."""
    told = 0 if payload is None else decode(ConversationUpdated, payload).failed_jobs
    return told == sum(job.state is JobState.FAILED for job in jobs)


def _kept_forms(payload: bytes, *, is_open: bool) -> Iterator[ConversationUpdated | Encoded]:
    """Yield an update as it is kept in the ledger, then smaller forms of it for brokers that refuse that.

    Of a conversation that was opened again since, what was final is told as live: nobody waits for less than there is.
    """
    if is_open and (kept := decode(ConversationUpdated, payload)).state == "final":
        yield from smaller_forms(kept.model_copy(update={"state": "live"}))
        return
    yield Encoded(ConversationUpdated, payload)
    yield from itertools.islice(smaller_forms(decode(ConversationUpdated, payload)), 1, None)


def smaller_forms(update: ConversationUpdated) -> Iterator[ConversationUpdated]:
    """Yield an update whole, then smaller forms of it: one of them is within every broker's limit.

    Left out first are the turns, then what changed and what was left alone (the counts stay), then of each label all
    but the speaker, its pieces too. The last form has no segments and no reasons of failures, and says so in `reason`.
    """
    yield update
    update = update.model_copy(update={"turns": None})
    yield update
    update = update.model_copy(update={"changed": (), "left_alone": ()})
    yield update
    bare = tuple(
        label.model_copy(update={"coverage": None, "runner_up": None, "pieces": None}) for label in update.segments
    )
    update = update.model_copy(update={"segments": bare})
    yield update
    rest: dict[str, Any] = {"segments": (), "voices": (), "corrections": (), "people": (), "failures": ()}
    yield update.model_copy(update=rest | {"reason": TOO_LARGE})


def _list_changed(changed: Sequence[Change]) -> tuple[LabelChange, ...]:
    listed = changed[:MAX_SEGMENTS]
    return tuple(
        LabelChange(
            id=item.segment_id,
            before=item.before,
            after=item.after,
            matched_before=item.origin_before.matched_person,
            matched_after=item.origin_after.matched_person,
        )
        for item in listed
    )


def _list_left_alone(labelling: Relabelling) -> tuple[LeftAlone, ...]:
    listed = labelling.left_alone[:MAX_SEGMENTS]
    return tuple(LeftAlone(id=segment, reason=reason) for segment, reason in listed)


def _describe(
    name: str,
    version: int,
    labelling: Relabelling,
    changed: tuple[Change, ...],
    jobs: Sequence[JobRecord],
    *,
    write: int,
    final: bool,
) -> bytes:
    """Return the update as the ledger keeps it: as much of it as one message may hold."""
    turns = labelling.turns if len(labelling.turns) <= MAX_TURNS else None
    fits = len(labelling.segments) <= MAX_SEGMENTS
    update = ConversationUpdated(
        conversation_id=name,
        updated_version=version,
        write=write or None,
        state="final" if final else "live",
        reason=None if fits else TOO_LARGE,
        segments=labelling.segments if fits else (),
        changed=_list_changed(changed),
        left_alone=_list_left_alone(labelling),
        left_alone_counts=dict(Counter(reason for _, reason in labelling.left_alone)),
        voices=labelling.voice_changes[:MAX_VOICE_CHANGES],
        corrections=labelling.corrections[-MAX_OUTCOMES:],
        people=labelling.people.told[:MAX_PEOPLE],
        enrolment=labelling.people.enrolment,
        speakers=labelling.speakers,
        turns=turns,
        warnings=labelling.warnings[:MAX_WARNINGS],
        failed_jobs=sum(job.state is JobState.FAILED for job in jobs),
        failures=describe_failures(jobs)[:MAX_FAILURES],
        audio_s=min(labelling.audio_s, MAX_DURATION_S),
    )
    for form in smaller_forms(update):
        try:
            return encode(form)
        except MessageTooLarge as error:
            _LOG.warning("update_shortened", conversation=name, version=version, reason=str(error))
    msg = f"the update of {name} does not fit a message even without its segments"
    raise MessageTooLarge(msg)
