"""The bridge: one thread that owns the ledger and does everything; the network thread only fills its queue."""

from __future__ import annotations

import queue
import secrets
import signal
import threading
import time
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from types import FrameType

import structlog

from broker.session import Farewell, Incoming, MqttSession, Will
from schemas.agent import AgentHeartbeat, AgentWant
from schemas.bridge import BridgeHeartbeat, BridgeState, QueueState
from schemas.codec import decode, encode
from schemas.conversation import ConversationEvent, EventType
from schemas.errors import SchemaError, TopicMalformed
from schemas.topics import TopicAddress, TopicKind, Topics
from vps_bridge.assemble import ChunkInfo, plan_jobs
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.dispatch import Dispatcher
from vps_bridge.ingest import Ingest
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import ConversationRecord, ConversationState, JobState
from vps_bridge.publisher import Publisher
from vps_bridge.results import Results
from vps_bridge.settings import BridgeSettings
from vps_bridge.spool import Spool
from vps_bridge.updates import Updater

_LOG = structlog.get_logger(__name__)
QUEUE_MESSAGES = 2_000
POLL_S = 0.1
TICK_S = 0.5
SWEEP_S = 60.0
MISSING_CHUNKS_PATIENCE = 10  # times `quiet_s` that chunks which were named and never came are waited for
STORE_FILE = "conversations.sqlite3"


class AnotherBridge(Exception):
    """A second live bridge serves the same broker and root."""


class Bridge:
    """Everything the VPS does. `run` returns when `stop` is called or a signal arrives."""

    def __init__(self, settings: BridgeSettings) -> None:
        """Open ledger, spool and store. Raises `LedgerBusy` where another bridge has them."""
        self._settings = settings
        self._topics = Topics(settings.topic_root)
        self._instance_id = secrets.token_hex(8)
        self._started_at = datetime.now(UTC)
        self._ledger = Ledger(settings.root, exclusive=True)
        self._spool = Spool(settings.root / "spool")
        self._store = SqliteConversations(settings.root / STORE_FILE)
        strays = self._spool.sweep(self._ledger.chunks.spool_names())
        self._inbox: queue.Queue[Incoming] = queue.Queue(QUEUE_MESSAGES)
        self._dropped, self._poked = 0, False
        self._stopping, self._connected = threading.Event(), threading.Event()
        self._last_error: str | None = None
        self._session = MqttSession(
            settings,
            client_id=f"{settings.bridge_id}-{self._instance_id}",
            on_message=self._enqueue,
            will=Will(self._topics.bridge_heartbeat(settings.bridge_id), encode(self._beat(BridgeState.OFFLINE))),
            on_connect=self._connected.set,
        )
        self._publisher = Publisher(self._session)
        self._dispatcher = Dispatcher(settings, self._ledger, self._spool, self._publisher)
        self._results = Results(self._ledger, self._dispatcher)
        self._ingest = Ingest(settings, self._ledger, self._spool, self._store, self._publisher)
        self._updater = Updater(settings, self._ledger, self._store, self._publisher)
        now_s = time.monotonic()
        self._started_s, self._last_audio_s = now_s, dict.fromkeys(self._ledger.chunks.uncovered_conversations(), now_s)
        _LOG.info("bridge_opened", ledger=self._ledger.ledger_id, root=str(settings.root), strays=strays)

    def _enqueue(self, message: Incoming) -> None:
        try:
            self._inbox.put_nowait(message)
        except queue.Full:  # its owner offers it again; a full queue must not stop the network thread
            self._dropped += 1

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Ask `run` to return; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Serve until stopped. Raises `AnotherBridge` where an older bridge serves the same root."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        self._subscribe()
        self._session.start()
        try:
            self._serve()
        finally:
            topic = self._topics.bridge_heartbeat(self._settings.bridge_id)
            self._session.stop(Farewell(topic, encode(self._beat(BridgeState.STOPPED)), retain=True))
            self._ledger.close()
            self._store.close()
            _LOG.info("bridge_stopped")

    def _subscribe(self) -> None:
        for kind in (TopicKind.EVENTS, TopicKind.AUDIO, TopicKind.TURNS, TopicKind.FAILURE, TopicKind.WANT):
            self._session.subscribe(self._topics.filter(kind), qos=1)
        for kind in (TopicKind.AGENT_HEARTBEAT, TopicKind.BRIDGE_HEARTBEAT):
            self._session.subscribe(self._topics.filter(kind), qos=0)

    def _serve(self) -> None:
        next_tick_s = next_beat_s = next_sweep_s = 0.0
        while not self._stopping.is_set():
            try:
                message: Incoming | None = self._inbox.get(timeout=POLL_S)
            except queue.Empty:
                message = None
            if message is not None:
                self._handle(message)
            now_s = time.monotonic()
            if self._connected.is_set():
                self._connected.clear()
                self._updater.offer_all_again()
                next_beat_s = 0.0
            if now_s >= next_tick_s or (message is None and self._poked):
                self._tick(now_s)
                next_tick_s = now_s + TICK_S
            if now_s >= next_beat_s and self._session.connected:
                beat = self._beat(BridgeState.ONLINE)
                self._publisher.send(self._topics.bridge_heartbeat(self._settings.bridge_id), beat, retain=True)
                next_beat_s = now_s + self._settings.heartbeat_s
            if now_s >= next_sweep_s:
                self._sweep(now_s)
                next_sweep_s = now_s + SWEEP_S

    def _handle(self, message: Incoming) -> None:
        try:
            address = self._topics.parse(message.topic)
        except TopicMalformed as error:
            _LOG.warning("topic_unknown", error=str(error))
            return
        try:
            self._route(address, message)
        except SchemaError as error:
            self._last_error = f"{address.kind} from {address.sender_id}: {error}"
            _LOG.warning("unreadable", kind=address.kind, sender=address.sender_id, error=str(error))

    def _route(self, address: TopicAddress, message: Incoming) -> None:
        conversation_id, sender_id = address.conversation_id or "", address.sender_id or ""
        self._poked = True
        match address.kind:
            case TopicKind.AUDIO:
                if self._ingest.take_audio(conversation_id, message.payload):
                    self._last_audio_s[conversation_id] = time.monotonic()
                    self._assemble(conversation_id)
            case TopicKind.EVENTS:
                event = self._ingest.take_event(conversation_id, message.payload)
                if event is not None:
                    self._take_event(event, conversation_id)
            case TopicKind.TURNS:
                self._results.take_turns(conversation_id, sender_id, message.payload)
            case TopicKind.FAILURE if sender_id != self._settings.bridge_id:
                self._results.take_failure(conversation_id, sender_id, message.payload)
            case TopicKind.WANT:
                self._dispatcher.take_want(sender_id, decode(AgentWant, message.payload))
            case TopicKind.AGENT_HEARTBEAT if not message.retain:
                beat = decode(AgentHeartbeat, message.payload)
                if beat.agent_id == sender_id:
                    self._dispatcher.take_heartbeat(beat, time.monotonic())
            case TopicKind.BRIDGE_HEARTBEAT if not message.retain:
                self._meet_bridge(decode(BridgeHeartbeat, message.payload))
            case _:
                self._poked = False

    def _take_event(self, event: ConversationEvent, conversation_id: str) -> None:
        if event.type is EventType.DELETED:
            deleted = self._ingest.delete(event, conversation_id)
            self._dispatcher.cancel(deleted.leases)
            self._last_audio_s.pop(conversation_id, None)
        elif event.type is EventType.SEGMENTS:
            self._ledger.conversations.reopen(conversation_id)
        elif event.type is EventType.COMPLETED:
            self._last_audio_s.setdefault(conversation_id, time.monotonic())
            self._assemble(conversation_id)
        elif event.type is EventType.RESYNC:
            self._updater.offer_all_again()

    def _meet_bridge(self, beat: BridgeHeartbeat) -> None:
        mine = beat.instance_id == self._instance_id
        if mine or beat.state is not BridgeState.ONLINE or beat.started_at > self._started_at:
            return
        msg = (
            f"bridge {beat.bridge_id} (ledger {beat.ledger_id}) already serves {self._settings.topic_root} on this "
            "broker: stop it, or give this one another --topic-root"
        )
        raise AnotherBridge(msg)

    def _tick(self, now_s: float) -> None:
        self._poked = False
        for conversation_id in self._ledger.chunks.uncovered_conversations():
            self._assemble(conversation_id)
        for conversation_id in self._ledger.conversations.dirty():
            self._updater.assign(conversation_id, final=self._is_final(conversation_id, now_s))
        for conversation_id in self._ledger.conversations.open_ended():
            if self._is_final(conversation_id, now_s):
                self._updater.assign(conversation_id, final=True)
        self._dispatcher.tick(now_s)
        self._updater.offer(now_s)

    def _assemble(self, conversation_id: str) -> None:
        conversation = self._ledger.conversations.get(conversation_id)
        if conversation is None:
            return
        chunks = self._ledger.chunks.of_conversation(conversation_id)
        infos = [
            ChunkInfo(
                chunk_id=chunk.chunk_id,
                arrival=chunk.arrival,
                sequence=chunk.sequence,
                captured_at_s=chunk.captured_at_s,
                duration_s=chunk.duration_s,
                covered=chunk.covered,
                available=chunk.spool_name is not None,
            )
            for chunk in chunks
        ]
        idle_s = time.monotonic() - self._last_audio_s.get(conversation_id, self._started_s)
        named = conversation.completed_chunks
        closing = conversation.completed and (named is None or len(chunks) >= named)
        plans = plan_jobs(infos, closing=closing, idle_s=idle_s, rules=self._settings.assembly_rules)
        for job_id in self._ledger.jobs.add(conversation_id, plans) if plans else ():
            _LOG.info("job_ready", conversation=conversation_id, job=job_id)

    def _is_final(self, conversation_id: str, now_s: float) -> bool:
        """Whether all that was named has come and been worked on, or it has been quiet for long enough."""
        conversation = self._ledger.conversations.get(conversation_id)
        if conversation is None or not conversation.completed:
            return False
        chunks = self._ledger.chunks.of_conversation(conversation_id)
        quiet_s = now_s - self._last_audio_s.get(conversation_id, self._started_s)
        patience_s = self._settings.quiet_s
        if conversation.completed_chunks is not None:
            complete = len(chunks) >= conversation.completed_chunks
            patience_s = 0.0 if complete else MISSING_CHUNKS_PATIENCE * self._settings.quiet_s
        jobs = self._ledger.jobs.all(conversation_id=conversation_id)
        busy = any(job.state in (JobState.READY, JobState.LEASED) for job in jobs)
        settled = not busy and all(chunk.covered for chunk in chunks)
        if not settled:
            self._say_why_waiting(conversation, busy=busy)
        return settled and quiet_s >= patience_s

    def _say_why_waiting(self, conversation: ConversationRecord, *, busy: bool) -> None:
        if conversation.state is ConversationState.WAITING:
            live = self._dispatcher.roster.workers(
                time.monotonic(), self._settings.stale_s, self._ledger.agents.allowed()
            )
            reason = "audio to come" if not busy else "diarization" if live else "no agent that is live and allowed"
            self._ledger.conversations.set_state(conversation.conversation_id, ConversationState.WAITING, reason)

    def _sweep(self, now_s: float) -> None:
        """Unlink audio that is not needed any more, and forget parts that stopped coming."""
        self._ingest.drop_stale_parts(now_s)
        now = time.time()
        due = self._ledger.chunks.expired(
            final_before=now - self._settings.keep_audio_s, accepted_before=now - self._settings.keep_audio_max_s
        )
        for chunk in due:
            self._spool.remove(chunk.spool_name or "")
        if due:
            self._ledger.chunks.mark_unlinked([chunk.arrival for chunk in due])
            _LOG.info("audio_unlinked", chunks=len(due))

    def _beat(self, state: BridgeState) -> BridgeHeartbeat:
        now = datetime.now(UTC)
        beat = BridgeHeartbeat(
            bridge_id=self._settings.bridge_id,
            instance_id=self._instance_id,
            ledger_id=self._ledger.ledger_id,
            state=state,
            sent_at=now,
            started_at=self._started_at,
            versions={"omi-diarization": package_version("omi-diarization")},
        )
        if state is not BridgeState.ONLINE:
            return beat.model_copy(update={"accepting": False})
        counts = self._ledger.jobs.counts()
        views = self._dispatcher.roster.live(time.monotonic(), self._settings.stale_s)
        live = [view.heartbeat.agent_id for view in views]
        allowed = self._ledger.agents.allowed()
        full = counts.jobs_ready + counts.jobs_leased >= self._settings.max_queue_jobs
        return beat.model_copy(
            update={
                "accepting": not full and counts.bytes < self._settings.max_queue_bytes,
                "agents_live": sum(agent_id in allowed for agent_id in live),
                "agents_waiting": tuple(agent_id for agent_id in live if agent_id not in allowed)[:100],
                "queue": QueueState(
                    chunks_waiting=counts.chunks_waiting,
                    jobs_ready=counts.jobs_ready,
                    jobs_leased=counts.jobs_leased,
                    jobs_failed=counts.jobs_failed,
                    bytes=counts.bytes,
                    oldest_s=0.0 if counts.oldest_at is None else max(0.0, now.timestamp() - counts.oldest_at),
                ),
                "last_error": self._last_error,
            }
        )
