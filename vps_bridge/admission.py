"""Which messages are let into the mailbox: decided on the network thread, by the topic alone, before they cost work."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

import structlog

from broker.session import Incoming
from schemas.errors import TopicMalformed
from schemas.topics import TopicAddress, TopicKind, Topics
from vps_bridge.ledger.agents import MAX_STRANGERS
from vps_bridge.mailbox import SMALL_BYTES, Mailbox, Quota
from vps_bridge.rules.ownership import Owns, own_all

_LOG = structlog.get_logger(__name__)
MIB = 2**20
# Conversations that were served before do not wait for new ones: ids cost whoever floods us nothing. No topic says who
# publishes, so all new ones share a short queue. One that finds it full and is offered again is treated as known:
# whoever invents ids does not come back to them.
KNOWN = Quota("known conversations", 1_000, 32 * MIB, 10_000, 64 * MIB)
NEW = Quota("new conversations", 200, 32 * MIB, 1_000, 64 * MIB)
AGENTS = Quota("agents", 200, 16 * MIB, 2_000, 32 * MIB)
STRANGERS = Quota("agents that are not allowed", 2, SMALL_BYTES, 100, MIB)
PEOPLE = Quota("people", 200, MIB, 1_000, 4 * MIB)
BRIDGES = Quota("bridges", 20, MIB, 100, MIB)
MAX_KNOWN = 10_000  # conversations, of those that last and of those that just began
LASTING_S = 10.0  # one served again after so long is not forgotten for ever new ones
MAX_TURNED_AWAY = 50_000  # more than a flood of 2,000 a second names before its victims offer again
OFFERED_AGAIN_S = 2.0  # a message that comes so long after its conversation was turned away is offered again
STRANGER_BEAT_S = 1.0  # and how often each of them is
STRANGER_FORGOTTEN_S = 60.0
MAX_NAMED = 100  # senders of dropped messages that are named in the log
OTHERS = "others"
MAX_TOPIC_CHARS = 200
TOPIC_MALFORMED = "topic_malformed"
TOPIC_REMEDY = "ids in topics are 1 to 128 of A-Z a-z 0-9 _ - and begin with a letter or digit"
LOG_EVERY_S = 60.0

NOT_ALLOWED, TOO_MANY, TOO_LARGE = "not_allowed", "too_many", "too_large"
FROM_AGENTS = (TopicKind.TURNS, TopicKind.FAILURE, TopicKind.WANT, TopicKind.AGENT_HEARTBEAT)
HEARTBEATS = (TopicKind.AGENT_HEARTBEAT, TopicKind.BRIDGE_HEARTBEAT)


def sender_of(address: TopicAddress) -> str:
    """Return whose message it is: the agent's or bridge's, or its conversation's (a backend has no name in topics)."""
    if address.sender_id is not None:
        return f"bridge {address.sender_id}" if address.kind is TopicKind.BRIDGE_HEARTBEAT else address.sender_id
    if address.person_id is not None:
        return f"person {address.person_id}"
    return f"conversation {address.conversation_id}"


def _owned_name(address: TopicAddress) -> str:
    """Return whose owner takes a message: an agent's in all that agents say, else its conversation's or person's."""
    if address.kind in FROM_AGENTS:
        return address.sender_id or ""
    return address.conversation_id or address.person_id or ""


class Admission:
    """Puts messages into the mailbox within each sender's quota, and counts those that it drops.

    `take` is called on the network thread; it uses copies of what the ledger knows, which the bridge's own thread
    renews. What is dropped had no receipt: its owner offers it again.
    """

    def __init__(
        self,
        topics: Topics,
        mailbox: Mailbox,
        *,
        own_id: str,
        owns: Owns = own_all,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Let nobody in but conversations, until `set_allowed`. `own_id` is this bridge's.

        `owns`: of several bridges, whether this one takes what comes from a conversation, a person or an agent.
        """
        self._owns = owns
        self._topics, self._mailbox, self._own_id, self._clock = topics, mailbox, own_id, clock
        self._allowed: frozenset[str] = frozenset()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._begun: OrderedDict[str, float] = OrderedDict()  # the same, of conversations served since this time only
        self._turned_away: OrderedDict[str, float] = OrderedDict()  # new ones that found no room, and when
        self._strangers: dict[str, float] = {}  # when each was heard last
        self._lock = threading.Lock()  # guards what is below, `_known` and `_begun`
        self._dropped: Counter[tuple[str, str]] = Counter()  # since the last log, by sender and reason
        self._malformed_topic = ""  # the latest, as an example
        self._log_due_s = 0.0
        self.dropped = 0
        """Messages since the start that were not let in."""

    # -------------------------------------------------------------------------------- on the network thread

    def take(self, message: Incoming) -> None:
        """Put a message into the mailbox, or drop and count it; never waits."""
        try:
            address = self._topics.parse(message.topic)
        except TopicMalformed:
            self._malformed_topic = ascii(message.topic[:MAX_TOPIC_CHARS])
            self._drop(OTHERS, TOPIC_MALFORMED)
            return
        if message.retain and address.kind in HEARTBEATS:
            return  # proves no life
        if address.kind is TopicKind.FAILURE and address.sender_id == self._own_id:
            return  # our own, which operators read
        if address.kind not in HEARTBEATS and not self._owns(_owned_name(address)):
            return  # another bridge takes it; where none does yet, its owner offers it again
        sender, quota = sender_of(address), self._quota_of(address)
        if quota is STRANGERS:
            reason = self._judge_stranger(address, len(message.payload))
            if reason is not None:
                self._drop(sender, reason)
                return
        if not self._mailbox.put(message, sender, quota):
            self._drop(sender, TOO_MANY)
            if quota is NEW:
                self._turn_away(address.conversation_id or "")

    def _quota_of(self, address: TopicAddress) -> Quota:
        if address.kind is TopicKind.BRIDGE_HEARTBEAT:
            return BRIDGES
        if address.kind is TopicKind.PERSON_EVENTS:
            return PEOPLE
        if address.kind in FROM_AGENTS:
            return AGENTS if address.sender_id in self._allowed else STRANGERS
        conversation_id = address.conversation_id or ""
        with self._lock:
            is_known = conversation_id in self._known or conversation_id in self._begun
        is_known = is_known or self._is_offered_again(conversation_id)
        # Messages of a conversation stay in order: behind those that came before it was known.
        return KNOWN if is_known and not self._mailbox.holds(NEW.group, sender_of(address)) else NEW

    def _turn_away(self, conversation_id: str) -> None:
        self._turned_away.setdefault(conversation_id, self._clock())
        if len(self._turned_away) > MAX_TURNED_AWAY:
            self._turned_away.popitem(last=False)

    def _is_offered_again(self, conversation_id: str) -> bool:
        turned_away_s = self._turned_away.get(conversation_id)
        return turned_away_s is not None and self._clock() - turned_away_s >= OFFERED_AGAIN_S

    def _judge_stranger(self, address: TopicAddress, size_bytes: int) -> str | None:
        """Return why a message of an agent that is not allowed is dropped: all but a few heartbeats are."""
        if address.kind is not TopicKind.AGENT_HEARTBEAT:
            return NOT_ALLOWED
        if size_bytes > SMALL_BYTES:
            return TOO_LARGE
        now_s, agent_id = self._clock(), address.sender_id or ""
        heard_s = self._strangers.get(agent_id)
        if heard_s is None and len(self._strangers) >= MAX_STRANGERS:
            kept = {name: at_s for name, at_s in self._strangers.items() if now_s - at_s < STRANGER_FORGOTTEN_S}
            self._strangers = kept
            if len(kept) >= MAX_STRANGERS:
                return TOO_MANY
        if heard_s is not None and now_s - heard_s < STRANGER_BEAT_S:
            return TOO_MANY
        self._strangers[agent_id] = now_s
        return None

    def _drop(self, sender: str, reason: str) -> None:
        with self._lock:
            self.dropped += 1
            key = sender, reason
            if key not in self._dropped and len(self._dropped) >= MAX_NAMED:
                key = OTHERS, reason
            self._dropped[key] += 1

    # ---------------------------------------------------------------------------- on the bridge's own thread

    def set_allowed(self, agent_ids: frozenset[str]) -> None:
        """Let these agents say all that agents say."""
        self._allowed = agent_ids

    def note_known(self, conversation_ids: Iterable[str], *, lasting: bool = False) -> None:
        """Remember conversations that were served, for as long as they are among the latest.

        Those that last (`lasting`: all of these do) are remembered apart: ever new ones do not push them out.
        """
        now_s = self._clock()
        with self._lock:
            for conversation_id in conversation_ids:
                lasts = lasting or now_s - self._begun.setdefault(conversation_id, now_s) >= LASTING_S
                if lasts or conversation_id in self._known:
                    self._begun.pop(conversation_id, None)
                    self._known[conversation_id] = None
                    self._known.move_to_end(conversation_id)
            for known in (self._known, self._begun):
                while len(known) > MAX_KNOWN:
                    known.popitem(last=False)

    def log_dropped(self, now_s: float) -> None:
        """Log what was dropped, one line for each sender and reason, at most once in `LOG_EVERY_S`."""
        if now_s < self._log_due_s or not self._dropped:
            return
        self._log_due_s = now_s + LOG_EVERY_S
        with self._lock:
            dropped, self._dropped = self._dropped, Counter()
        for (sender, reason), count in dropped.items():
            example = {"topic": self._malformed_topic, "remedy": TOPIC_REMEDY} if reason == TOPIC_MALFORMED else {}
            _LOG.warning("messages_dropped", sender=sender, reason=reason, count=count, **example)
