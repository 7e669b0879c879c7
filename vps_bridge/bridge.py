"""The bridge: one thread that owns the ledger and does everything; the network thread only fills its mailbox."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from types import FrameType

import structlog

from broker.logs import MESSAGE_FROM, sender_limit
from broker.session import Farewell, Incoming, MqttSession, Will
from broker.stop_signals import call_on_stop
from schemas.agent import AgentHeartbeat, AgentState, AgentWant
from schemas.audio import ChunkDescription
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import decode, encode
from schemas.conversation import Accepted
from schemas.topics import TopicAddress, TopicKind, Topics
from vps_bridge.admission import MAX_KNOWN, Admission, sender_of
from vps_bridge.beats import BeatSources, BridgeBeats
from vps_bridge.bridge_files import closed_on_error, name_places, open_files
from vps_bridge.compaction import Compaction
from vps_bridge.consequences import ConsequenceParts, Consequences
from vps_bridge.dispatch.dispatcher import Dispatcher
from vps_bridge.dispatch.results import Results
from vps_bridge.dispatch.updates import Updater
from vps_bridge.error_guard import ErrorGuard
from vps_bridge.errors import LedgerUnavailable, Refusal
from vps_bridge.http.door import HttpDoor
from vps_bridge.http.one_off import OneOffRequests
from vps_bridge.intake.counts import BridgeCounts
from vps_bridge.intake.history import ConversationHistory, read_history
from vps_bridge.intake.ingest import Ingest
from vps_bridge.intake.person_events import PersonEvents
from vps_bridge.intake.taken import Taken
from vps_bridge.intake.upload import ArrivedFile
from vps_bridge.interpreter import set_up_interpreter
from vps_bridge.kept_messages import INPUT_KINDS, KeptMessages
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import ChunkRecord
from vps_bridge.mailbox import Mailbox, WorkRequest
from vps_bridge.membership import HOUSEKEEPING, Membership
from vps_bridge.omi.door import OmiDoor
from vps_bridge.presence import Presence
from vps_bridge.publisher import HeldPublisher
from vps_bridge.retention import Retention
from vps_bridge.schedule import ConversationSchedule
from vps_bridge.settings import BridgeSettings
from vps_bridge.webhook.sender import Webhook

_LOG = structlog.get_logger(__name__)
TICK_S = 0.5
LEAVE_S = 1.2  # two ticks: by then the other bridges know that this one leaves
HAND_OVER_S = 10.0  # and it ends so late at most, while audio is on its way into the bucket
NEWS_REST_S = 0.05  # of many who write into the ledger at once, not each has it looked at
BATCH_S = 0.02  # messages are taken for about this long before what they call for is done and sent, with one fsync
MAX_HELD = 64  # messages that wait to be sent end a batch too
MAX_UNACKNOWLEDGED = 100  # messages that wait for the broker's answer
MAX_PACKET_BYTES = 65 * 2**20  # an `AudioPayload` of the largest size, or a bare file as large


class Bridge:
    """Everything the VPS does. `run` returns when `stop` is called or a signal arrives."""

    def __init__(self, settings: BridgeSettings, *, omi_clock: Callable[[], float] = time.time) -> None:
        """Open ledger, spool and store. Raises `LedgerBusy` where another bridge has them.

        `omi_clock` is the Unix time by which OMI's audio is placed and erased.
        """
        self._settings, self._topics, self._omi_clock = settings, Topics(settings.topic_root), omi_clock
        self._mailbox, self._guard, self._kept = Mailbox(), ErrorGuard(), KeptMessages(settings)
        self._stopping, self._connected = threading.Event(), threading.Event()
        files = open_files(settings, self._mailbox.ask, self._join)
        self._disk_reserve, self._ledger, self._spool, self._store = files
        with closed_on_error(files):
            self._set_up(settings)

    def _set_up(self, settings: BridgeSettings) -> None:
        self._admission = Admission(self._topics, self._mailbox, own_id=settings.bridge_id, owns=self._membership.owns)
        self._admission.set_allowed(self._ledger.agents.allowed())
        self._admission.note_known(self._ledger.conversations.latest_open(MAX_KNOWN), lasting=True)
        self._beat_topic = self._topics.bridge_heartbeat(settings.bridge_id)
        self._session = MqttSession(
            settings,
            # In no message: a connection can be taken over by whoever knows its client id.
            client_id=f"{settings.bridge_id}-{secrets.token_hex(8)}",
            on_message=self._admission.take,
            max_packet_bytes=MAX_PACKET_BYTES,
            will=Will(self._beat_topic, encode(self._presence.make_beat(BridgeState.OFFLINE))),
            on_connect=self._note_connect,
        )
        self._publisher = HeldPublisher(self._session, self._sync)
        self._consequences = Consequences(settings, self._membership, self._presence, self._publisher)
        self._make_parts(settings)
        sources = self._dispatcher, self._admission, self._webhook, self._guard, self._disk_reserve, self._spool
        told = BeatSources(*sources, self._mailbox.read_until_s)
        self._beats = BridgeBeats(settings, self._ledger, self._presence, self._publisher, told)
        self._tick_due_s = self._ticked_s = 0.0
        self._is_to_dispatch = self._is_for_all = False  # whether what just came calls for it, and other bridges do
        self._hears = False  # what is published: every subscription of this connection was answered

    def _join(self, ledger: Ledger) -> None:
        self._presence = Presence(self._settings, ledger.ledger_id)
        self._membership = Membership(self._settings, ledger, self._presence.instance_id, name_places(self._settings))

    def _make_parts(self, settings: BridgeSettings) -> None:
        owns = self._membership.owns
        self._dispatcher = Dispatcher(settings, self._ledger, self._spool, self._publisher, owns=owns)
        self._results = Results(self._ledger, self._dispatcher, settings.max_audio_s)
        self._ingest = Ingest(settings, self._ledger, self._spool, self._store, self._publisher, self._disk_reserve)
        self._ingest.bring_into(self._spool, ask=self._mailbox.ask, take=self.take_upload)
        self._updater = Updater(settings, self._ledger, self._store, self._publisher, owns=owns)
        self._webhook = Webhook(settings, self._ledger, is_alone=not self._membership.others)
        self._one_offs = OneOffRequests(self, self._ledger, is_alone=lambda: not self._membership.others)
        self._make_doors(settings)
        self._make_keepers(settings)
        parts = self._ledger, self._admission, self._ingest, self._dispatcher, self._updater, self._schedule
        self._consequences.use(ConsequenceParts(*parts, self._retention, self._compaction, self._one_offs))

    def _make_doors(self, settings: BridgeSettings) -> None:
        self._http_door = HttpDoor(
            settings, self._mailbox, self, self._one_offs, publisher=self._publisher, guard=self._guard
        )
        self._omi_door = OmiDoor(
            settings, self._mailbox, self, self._ledger, self._store, guard=self._guard, clock=self._omi_clock
        )
        told = self._publisher, self._consequences.note_change
        self.people = PersonEvents(self._topics, self._ledger, self._store, *told)

    def _make_keepers(self, settings: BridgeSettings) -> None:
        owns = self._membership.owns
        self._schedule = ConversationSchedule(
            settings,
            self._ledger,
            self._updater,
            self._guard,
            before_long_work=self._publisher.flush,
            on_final=self._consequences.note_final,
            on_failed=self._consequences.note_failed,
            wake=self._mailbox.wake,
            awaits_audio=self._ingest.awaits_audio,
            owns=owns,
        )
        kept = settings, self._ledger, self._spool, self._store
        self._retention = Retention(
            *kept, ingest=self._ingest, dispatcher=self._dispatcher, disk_reserve=self._disk_reserve, owns=owns
        )
        self._compaction = Compaction(settings, self._ledger, self._store)

    def _sync(self) -> None:
        """Have all that was written survive a power cut; where it may not, nothing that was held is sent."""
        try:
            self._ledger.sync()
        except (OSError, LedgerUnavailable) as error:
            self._ingest.left_strays = True
            self._consequences.note_unsynced(error)
            raise

    def _note_news(self, words: Collection[str]) -> None:
        """Look at once: somebody else has written into the ledger. Called from another thread."""
        self._consequences.receive_news(words)
        self._mailbox.wake()

    def _note_connect(self) -> None:
        self._connected.set()
        self._mailbox.wake()

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Ask `run` to return; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Serve until stopped. Raises `AnotherBridge` where an older bridge serves the same root."""
        call_on_stop(self.stop)
        self._http_door.end_one_offs()
        self._subscribe()
        set_up_interpreter()
        self._session.start()
        self._webhook.start()
        news = self._ledger.listen(self._note_news)
        try:
            while not self._stopping.is_set():
                self._run_once()
            self._hand_over()
        finally:
            self._omi_door.close()
            self._http_door.close()
            self._omi_door.join()
            self._webhook.close()
            news.close()
            self._guard.run("noting refusals", partial(self._ledger.refusals.write, math.inf))
            self._guard.run("sending", self._publisher.flush)
            self._guard.run("ending labelling", self._schedule.close)
            self._spool.close()
            last_beat = encode(self._presence.make_beat(BridgeState.STOPPED))
            self._session.stop(Farewell(self._beat_topic, last_beat, retain=True))
            self._ledger.close()
            self._store.close()
            _LOG.info("bridge_stopped")

    def _hand_over(self) -> None:
        """Let other bridges go on with what this one owned, before it ends: at no moment does nobody take a message."""
        self._guard.run("leaving", self._membership.leave)
        left_s = time.monotonic()
        while self._membership.others and time.monotonic() - left_s < HAND_OVER_S:
            self._run_once()
            if time.monotonic() - left_s > LEAVE_S and not self._ingest.is_bringing:
                break

    def _subscribe(self) -> None:
        for kind in (*INPUT_KINDS, TopicKind.TURNS, TopicKind.FAILURE, TopicKind.WANT):
            self._session.subscribe(self._topics.filter(kind), qos=1)
        for kind in (TopicKind.AGENT_HEARTBEAT, TopicKind.BRIDGE_HEARTBEAT):
            self._session.subscribe(self._topics.filter(kind), qos=0)

    # ------------------------------------------------------------------------------------------ the loop

    def _run_once(self) -> None:
        """Take the messages there are, do what they call for and what is due by the clock, then send."""
        self._take_batch()
        now_s = time.monotonic()
        if self._connected.is_set():
            self._connected.clear()
            self._hears = True
            self._consequences.note_connected()
            self._presence.beat_soon()
        self._guard.run("taking up", partial(self._act_on_news, now_s))
        self._guard.run("following up", partial(self._follow_up, now_s))
        if now_s >= self._tick_due_s:
            self._ticked_s = now_s
            self._tick_due_s = now_s + TICK_S
            self._guard.run("tick", partial(self._tick, now_s))
        self._http_door.keep_open(now_s, self._presence.beat_soon)
        self._omi_door.keep_open(now_s, self._presence.beat_soon)
        if self._retention.is_due(now_s):
            self._guard.run("sweep", partial(self._sweep, now_s))
        if self._presence.is_due(now_s) and self._session.connected:
            self._presence.note_beat(now_s)
            self._guard.run("heartbeat", self._beats.publish)
        self._guard.run("noting refusals", partial(self._ledger.refusals.write, now_s))
        self._guard.run("sending", self._publisher.flush)
        if self._ledger.is_sync_due:
            self._guard.run("telling", self._sync)
        if self._mailbox.is_empty and self._membership.owns(HOUSEKEEPING):
            self._guard.run("packing", partial(self._compaction.step, now_s))

    def _act_on_news(self, now_s: float) -> None:
        self._hears = self._hears and self._session.connected
        found = self._consequences.act_on_news(now_s, is_ready=self._hears)
        self._is_to_dispatch |= found.is_to_dispatch
        self._is_for_all |= found.is_to_dispatch or found.helps
        if found.is_to_look:
            self._tick_due_s = min(self._tick_due_s, self._ticked_s + NEWS_REST_S)

    def _take_batch(self) -> None:
        """Wait for a message until the next tick, then take what there is for a moment.

        Not while much that was sent waits for the broker: receipts of a flood would queue before everybody else's.
        """
        self._session.wait_acknowledged(MAX_UNACKNOWLEDGED, TICK_S)
        message = self._mailbox.take(max(0.0, self._tick_due_s - time.monotonic()))
        batch_until_s = time.monotonic() + BATCH_S
        while message is not None:
            self._take(message)
            is_full = time.monotonic() >= batch_until_s or self._publisher.held >= MAX_HELD
            message = None if is_full else self._mailbox.take(0.0)

    def _take(self, item: Incoming | WorkRequest[object]) -> None:
        if isinstance(item, WorkRequest):
            self._is_to_dispatch = True
            self._http_door.take(item)
        else:
            address = self._topics.parse(item.topic)
            if self._kept.is_old(item, address.kind):
                return
            MESSAGE_FROM.set(sender_of(address))
            self._guard.run(item.topic, partial(self._kept.use, item, partial(self._route, item, address)))
            MESSAGE_FROM.set(None)

    def _route(self, message: Incoming, address: TopicAddress) -> None:
        conversation_id, sender_id = address.conversation_id or "", address.sender_id or ""
        match address.kind:
            case TopicKind.AUDIO:
                taken = self._ingest.take_audio(conversation_id, message.payload)
                self._admission.note_known([conversation_id])
                if taken.is_new:
                    self._consequences.note_audio(conversation_id, is_late=taken.is_late)
            case TopicKind.EVENTS:
                self.take_event(conversation_id, message.payload)
                self._admission.note_known([conversation_id])
            case TopicKind.PERSON_EVENTS:
                self.people.take_event(address.person_id or "", message.payload)
            case TopicKind.TURNS:
                # Whether its sender is free for another job, its next beat tells.
                if self._results.take_turns(conversation_id, sender_id, message.payload):
                    self._consequences.note_change(conversation_id)
            case TopicKind.FAILURE if sender_id != self._settings.bridge_id:
                self._is_to_dispatch = True
                self._results.take_failure(conversation_id, sender_id, message.payload)
            case TopicKind.WANT:
                self._dispatcher.take_want(sender_id, decode(AgentWant, message.payload))
            case TopicKind.AGENT_HEARTBEAT if not message.retain:
                beat = decode(AgentHeartbeat, message.payload)
                if beat.agent_id == sender_id:
                    # What any other beat brings about can wait for the tick.
                    calls = beat.free_capacity > 0 or beat.state is not AgentState.ONLINE
                    self._is_to_dispatch |= calls and self._membership.owns(sender_id)
                    self._dispatcher.take_heartbeat(beat, self._mailbox.taken_s)
            case TopicKind.BRIDGE_HEARTBEAT if not message.retain:
                self._consequences.note_heartbeat(decode(BridgeHeartbeat, message.payload))

    def _follow_up(self, now_s: float) -> None:
        """Do at once what messages called for: a new chunk's job is offered with the chunk's receipt."""
        self._is_to_dispatch |= self._schedule.assemble_new(now_s)
        if self._is_to_dispatch:
            self._is_to_dispatch = False
            self._guard.run("dispatching", partial(self._dispatch, now_s))
        self._schedule.assign_new(now_s)
        self._guard.run("offering", partial(self._updater.offer, now_s))

    def _tick(self, now_s: float) -> None:
        """Do what time calls for, and what a command asked for by writing into the ledger."""
        if self._disk_reserve.update():
            self._presence.beat_soon()
            self._retention.sweep_by(now_s)
        self._spool.probe(now_s)
        self._guard.run("copying erasures", self._ledger.copy_erasures)
        for name in filter(self._membership.owns, self._ledger.conversations.unfinished_deletions()):
            if self._spool.may_erase(name):
                self._guard.run(f"deleting {name}", partial(self._consequences.finish_deletion, name))
        self._schedule.assemble_due(now_s)
        self._schedule.assign_due(now_s)
        self._admission.log_dropped(now_s)
        sender_limit.report()
        self._dispatcher.note_heartbeats()
        self._dispatch(now_s)
        if self._beats.has_news():
            self._presence.beat_soon()

    def _dispatch(self, now_s: float) -> None:
        """Grant jobs. Whoever gets one is let in before its offer leaves: it asks for the audio at once."""
        is_for_all, self._is_for_all = self._is_for_all, False
        self._admission.set_allowed(self._dispatcher.tick(self._mailbox.read_until_s(), is_for_all=is_for_all))
        self._consequences.note_jobs(now_s)

    def _sweep(self, now_s: float) -> None:
        self._schedule.find_work(now_s)
        self._retention.sweep(now_s)

    # ------------------------------------------------------------------------- what comes in: see `Intake`

    def check_room(self, size_bytes: int) -> None:
        """Raise `Refusal` where so much more audio would be too much."""
        self._ingest.check_room(size_bytes)

    def take_upload(
        self, conversation_id: str, description: ChunkDescription, upload: ArrivedFile, sha256: str | None = None
    ) -> Taken:
        """Take a chunk that has streamed in; `sha256` is what the publisher says it has."""
        taken = self._ingest.take_upload(conversation_id, description, upload, sha256)
        if taken.is_new:
            self._consequences.note_audio(conversation_id, is_late=taken.is_late)
        return taken

    def audio_file(self, chunk: ChunkRecord) -> Path:
        """Return a chunk's file; see `Spool.fetch`."""
        return self._spool.fetch(chunk)

    def note_refused(self, conversation_id: str, chunk_id: str | None, refusal: Refusal, size_bytes: int) -> None:
        """Note audio that was refused before it was read."""
        self._ingest.note_refused(conversation_id, chunk_id, refusal, sha256="", size_bytes=size_bytes)

    def take_event(self, conversation_id: str, data: bytes) -> Accepted | None:
        """Take an event with all that follows from it, and return its receipt."""
        taken = self._ingest.take_event(conversation_id, data)
        receipt = self._consequences.act_on_event(taken.event, conversation_id) if taken.event else None
        return receipt or taken.receipt

    def read_history(self, conversation_id: str) -> ConversationHistory | None:
        """Return every change of a conversation's labels."""
        return read_history(conversation_id, self._ledger, self._store)

    @property
    def counts(self) -> BridgeCounts:
        """What was counted since the start."""
        return BridgeCounts(self._admission.dropped, self._omi_door.counts, self._ingest.count_bucket())

    def live_agents(self) -> list[AgentHeartbeat]:
        """Return the last beats of the agents that are live and allowed."""
        return self._beats.live_agents()
