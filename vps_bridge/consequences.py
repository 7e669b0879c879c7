"""What a change of a conversation brings about: here, where this bridge owns it, else at the bridge that does.

A bridge that owns something is told of it in a word (`Ledger.tell`), and finds it in the ledger anyway.
"""

from __future__ import annotations

import queue
from collections.abc import Collection
from typing import NamedTuple

from schemas.bridge import BridgeHeartbeat
from schemas.conversation import Accepted, ConversationEvent, EventType
from schemas.failure import FailureCode, JobFailure
from schemas.topics import Topics
from vps_bridge.admission import MAX_KNOWN, Admission
from vps_bridge.compaction import Compaction
from vps_bridge.dispatch.dispatcher import Dispatcher
from vps_bridge.dispatch.updates import Updater
from vps_bridge.errors import CommitsInDoubt
from vps_bridge.http.one_off import OneOffRequests
from vps_bridge.intake.ingest import Ingest
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import Deleted
from vps_bridge.membership import MEMBERS, Membership
from vps_bridge.presence import Presence
from vps_bridge.publisher import Publisher
from vps_bridge.retention import Retention
from vps_bridge.schedule import ConversationSchedule
from vps_bridge.settings import BridgeSettings

MISSED_S = 5.0  # so often it is looked for what other bridges told and nobody heard
HELP_S = 2.0  # so long after a word a bridge looks for jobs of others, which they tell twice as often
JOBS = "jobs"
AUDIO, LATE, CHANGED, FINAL, DELETED, RESYNC = "audio", "late", "changed", "final", "deleted", "resync"
"""Each is told with a conversation's id behind it. An empty word: look at everything."""


class ConsequenceParts(NamedTuple):
    """Who does it."""

    ledger: Ledger
    admission: Admission
    ingest: Ingest
    dispatcher: Dispatcher
    updater: Updater
    schedule: ConversationSchedule
    retention: Retention
    compaction: Compaction
    one_offs: OneOffRequests


class NewsOutcome(NamedTuple):
    """What the news of others call for: that there may be jobs for our agents, or that everything is to be looked at.

    `helps`: other bridges have had more jobs than agents lately, or it is time to look whether they have.
    """

    is_to_dispatch: bool
    is_to_look: bool
    helps: bool


class Consequences:
    """Does what a change brings about, or tells who does it. For the bridge's own thread only."""

    def __init__(
        self,
        settings: BridgeSettings,
        membership: Membership,
        presence: Presence,
        publisher: Publisher,
    ) -> None:
        """Do nothing until `use`: those who do it call this when they have something to tell."""
        self._topics, self._bridge_id = Topics(settings.topic_root), settings.bridge_id
        self._membership, self._presence, self._publisher = membership, presence, publisher
        self._news: queue.SimpleQueue[Collection[str]] = queue.SimpleQueue()
        self._missed_due_s = self._helps_until_s = self._told_jobs_s = 0.0
        self._is_to_take_up = self._is_to_offer = False  # until it could be done

    def use(self, parts: ConsequenceParts) -> None:
        """Have these do it."""
        self._of = parts

    # ------------------------------------------------------------------------------------- one conversation

    def note_audio(self, conversation_id: str, *, is_late: bool = False) -> None:
        """Note that audio came, `is_late` after the end, or that no more will."""
        if self._membership.owns(conversation_id):
            self._of.schedule.note_audio(conversation_id, is_late=is_late)
        else:
            self._of.ledger.tell(f"{LATE if is_late else AUDIO} {conversation_id}")

    def note_change(self, conversation_id: str) -> None:
        """Note that labels may be out of date."""
        if self._membership.owns(conversation_id):
            self._of.schedule.note_change(conversation_id)
        else:
            self._of.ledger.tell(f"{CHANGED} {conversation_id}")

    def act_on_event(self, event: ConversationEvent, conversation_id: str) -> Accepted | None:
        """Do what an accepted event asks for; a deletion has its receipt only then."""
        if event.type is EventType.DELETED:
            if not self._membership.owns(conversation_id):
                return self._ask_deletion(event, conversation_id)
            receipt, deleted = self._of.ingest.delete(event, conversation_id)
            self._forget(conversation_id, deleted)
            return receipt
        if event.type is EventType.COMPLETED:
            self.note_audio(conversation_id)
        elif event.type is EventType.APPLIED:
            self._of.retention.note_applied(conversation_id)
        elif event.type is EventType.RESYNC:
            self._offer_again(conversation_id)
        if event.type not in (EventType.APPLIED, EventType.RESYNC):
            self.note_change(conversation_id)
        return None

    def _offer_again(self, conversation_id: str) -> None:
        if self._membership.owns(conversation_id):
            self._of.updater.offer_again(conversation_id)
        else:
            self._of.ledger.tell(f"{RESYNC} {conversation_id}")

    def _ask_deletion(self, event: ConversationEvent, conversation_id: str) -> Accepted | None:
        """Have the owner delete a conversation; return the receipt once that is done, which whoever asks again gets."""
        book = self._of.ledger.conversations
        if not book.is_deleted(conversation_id):
            book.mark_deleted(conversation_id)
            self._of.ledger.tell("")
        elif conversation_id not in book.unfinished_deletions():
            return self._of.ingest.confirm_deletion(event, conversation_id)
        return None

    def finish_deletion(self, conversation_id: str) -> None:
        """Go on with a deletion that a command, another bridge or an earlier run began."""
        self._forget(conversation_id, self._of.ingest.erase(conversation_id))

    def _forget(self, conversation_id: str, deleted: Deleted) -> None:
        self._of.dispatcher.cancel(deleted.leases)
        self._of.one_offs.note_deleted(conversation_id)
        self._of.schedule.forget(conversation_id)
        if self._membership.others:
            self._of.ledger.tell(f"{DELETED} {conversation_id}")

    def note_final(self, conversation_id: str, now_s: float) -> None:
        """Note that a conversation became final."""
        self._of.retention.note_final(conversation_id, now_s)
        self._of.compaction.note_final(now_s)
        self._of.one_offs.answer_if_final(conversation_id)
        if self._membership.others:
            self._of.ledger.tell(f"{FINAL} {conversation_id}")

    def note_failed(self, conversation_id: str, reason: str) -> None:
        """Note that a conversation's labels could not be worked out."""
        self._of.one_offs.fail(conversation_id, reason)
        failure = JobFailure(conversation_id=conversation_id, code=FailureCode.LABELS_FAILED, message=reason)
        self._publisher.send(self._topics.failure(conversation_id, self._bridge_id), failure)
        self._presence.beat_soon()

    # -------------------------------------------------------------------------------------- several bridges

    def note_jobs(self, now_s: float) -> None:
        """Note that jobs were dispatched: agents of other bridges may be free for what is left."""
        is_due = now_s - self._told_jobs_s >= HELP_S / 2
        if self._membership.others and self._of.dispatcher.leaves_jobs and is_due:
            self._told_jobs_s = now_s
            self._of.ledger.tell(JOBS)

    def note_heartbeat(self, beat: BridgeHeartbeat) -> None:
        """Take in a live heartbeat of a bridge. Raises `AnotherBridge` where this one must stop for it."""
        if self._membership.is_of_peer(beat):
            self._membership.note_beat(beat)
        else:
            self._presence.note_heartbeat(beat)

    def note_connected(self) -> None:
        """Note that the connection to the broker is new: what is offered is offered again."""
        self._is_to_offer = True

    def note_unsynced(self, error: Exception) -> None:
        """Note why nothing could be promised: of commits in doubt all that is to be done is looked for anew."""
        self._is_to_take_up |= isinstance(error, CommitsInDoubt)

    def receive_news(self, words: Collection[str]) -> None:
        """Take what others tell to `act_on_news`. May be called from any thread."""
        self._news.put(words)

    def act_on_news(self, now_s: float, *, is_ready: bool) -> NewsOutcome:
        """Take in what others told, and who of them is there; `is_ready`: this bridge hears what is published."""
        words = set[str]()
        while not self._news.empty():
            words.update(self._news.get())
        self._take_words(words, now_s)
        is_due = now_s >= self._missed_due_s
        has_new_owners = self._membership.look(now_s, is_ready=is_ready, at_once=MEMBERS in words)
        self._is_to_take_up |= has_new_owners
        self._take_up()
        if is_due:
            self._missed_due_s = now_s + MISSED_S
            self._look_for_missed()
        is_to_dispatch = has_new_owners or JOBS in words
        if is_to_dispatch:
            self._helps_until_s = now_s + HELP_S
        return NewsOutcome(is_to_dispatch, "" in words, helps=is_due or now_s < self._helps_until_s)

    def _take_up(self) -> None:
        """Take up what other bridges owned until now, and leave what this one owns no more; or offer again.

        Where the ledger is away in the middle of it, all of it is done again.
        """
        if self._is_to_take_up:
            self._of.admission.note_known(self._of.ledger.conversations.latest_open(MAX_KNOWN), lasting=True)
            self._of.schedule.take_up()
            self._presence.beat_soon()
        if self._is_to_take_up or self._is_to_offer:
            self._of.updater.offer_again()
        self._is_to_take_up = self._is_to_offer = False

    def _look_for_missed(self) -> None:
        """Look for what other bridges left to this one, in case their words did not come."""
        self._of.one_offs.look()
        if self._membership.others:
            self._of.schedule.find_work()
            self._of.updater.offer_missed()

    def _take_words(self, words: Collection[str], now_s: float) -> None:
        for word in words:
            kind, _, name = word.partition(" ")
            if kind == FINAL:
                self._of.one_offs.answer_if_final(name)
                self._of.retention.note_final_elsewhere(now_s)
            elif kind == DELETED:
                self._of.ingest.forget(name)
                self._of.one_offs.note_deleted(name)
            elif kind in (AUDIO, LATE) and self._membership.owns(name):
                self._of.schedule.note_audio(name, is_late=kind == LATE)
            elif kind == CHANGED and self._membership.owns(name):
                self._of.schedule.note_change(name)
            elif kind == RESYNC and self._membership.owns(name):
                self._of.updater.offer_again(name)
