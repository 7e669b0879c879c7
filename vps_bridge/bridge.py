"""The bridge: one thread that owns the ledger and does everything; the network thread only fills its mailbox."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as package_version
from types import FrameType
from typing import TYPE_CHECKING

import structlog

from broker.session import Farewell, Incoming, MqttSession, Will
from schemas.agent import AgentHeartbeat, AgentState, AgentWant
from schemas.audio import ChunkDescription
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import decode, encode
from schemas.conversation import Accepted, ConversationEvent, EventType
from schemas.errors import SchemaError
from schemas.failure import FailureCode
from schemas.topics import TopicKind, Topics
from vps_bridge.backoff import RetryTimer
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.dispatch.dispatcher import AUDIO_GONE, Dispatcher
from vps_bridge.dispatch.results import Results
from vps_bridge.dispatch.roster import AgentView
from vps_bridge.dispatch.updates import Updater
from vps_bridge.errors import AnotherBridge
from vps_bridge.http.one_off import OneOffRequests
from vps_bridge.intake.disk_reserve import REMEDY, DiskReserve
from vps_bridge.intake.ingest import Ingest, Taken
from vps_bridge.intake.spool import SPOOL, Spool
from vps_bridge.intake.upload import Upload
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import Deleted
from vps_bridge.mailbox import Mailbox, Question
from vps_bridge.publisher import HeldPublisher
from vps_bridge.rules.assemble import plan_jobs
from vps_bridge.rules.completion import describe_end, describe_queue, has_room, is_all_here, is_final, patience_s
from vps_bridge.settings import BridgeSettings

if TYPE_CHECKING:
    from vps_bridge.http.server import HttpServer

_LOG = structlog.get_logger(__name__)
TICK_S = 0.5
BATCH_S = 0.02  # messages are taken for about this long before what they call for is done and told, with one fsync
MAX_HELD = 64  # messages that wait to be sent end a batch too
LONG_ASSIGNMENT_S = 0.05  # what waits to be sent does not wait for an assignment that took longer the last time
ASSIGN_REST = 4.0  # an assignment that took t is not repeated before 4 t have passed: never most of the bridge's time
SWEEP_S = 60.0
ASSIGN_BUDGET_S = 2.0
HTTP_DOOR = "http door"
DOOR_RETRY_S = 5.0  # a port that is taken may be given back
CLOSE_POLL_S = 0.1
DOOR_CLOSE_S = 8.0  # longer than the door gives those who are inside
SAME_AGE_S = 2.0  # two bridges that began within this long: the instance ids decide which of them stops
MAX_AGENTS_TOLD = 100  # what a heartbeat holds


class Bridge:
    """Everything the VPS does. `run` returns when `stop` is called or a signal arrives."""

    def __init__(self, settings: BridgeSettings) -> None:
        """Open ledger, spool and store. Raises `LedgerBusy` where another bridge has them."""
        self._settings = settings
        self._topics = Topics(settings.topic_root)
        self._instance_id = secrets.token_hex(8)
        self._started_at, self._started_s = datetime.now(UTC), time.monotonic()
        settings.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._ballast = DiskReserve(settings.root, settings.ballast_bytes)
        self._ballast.give_way()  # even opening a database takes some room
        self._ledger = Ledger(settings.root, exclusive=True)
        self._ballast.update()
        self._spool = Spool(settings.root / SPOOL)
        self._store = SqliteConversations(settings.root / STORE_FILE)
        strays = self._spool.sweep(self._ledger.chunks.spool_names())
        self._mailbox = Mailbox()
        self._stopping, self._connected = threading.Event(), threading.Event()
        self._errors, self._last_error = 0, ""
        self._session = MqttSession(
            settings,
            client_id=f"{settings.bridge_id}-{self._instance_id}",
            on_message=self._mailbox.put,
            will=Will(self._topics.bridge_heartbeat(settings.bridge_id), encode(self._beat(BridgeState.OFFLINE))),
            on_connect=self._note_connect,
        )
        self._publisher = HeldPublisher(self._session, self._ledger.sync)
        self._dispatcher = Dispatcher(settings, self._ledger, self._spool, self._publisher)
        self._results = Results(self._ledger, self._dispatcher)
        self._ingest = Ingest(settings, self._ledger, self._spool, self._store, self._publisher, self._ballast)
        self._updater = Updater(settings, self._ledger, self._store, self._publisher)
        self._desk = OneOffRequests(self, self._ledger)
        self._door = self._make_door()
        self._beat_due_s = self._tick_due_s = self._sweep_due_s = self._door_due_s = 0.0
        self._agents_told: tuple[list[str], list[str]] = ([], [])
        self._last_audio_s: dict[str, float] = {}
        # When to look at the chunks of a conversation that no job covers: at once, and when a pause has passed.
        self._assemble_due_s = dict.fromkeys(self._ledger.chunks.uncovered_conversations(), 0.0)
        self._assign_tries = RetryTimer(settings.retry_min_s, settings.retry_max_s)
        self._assign_rests: dict[str, tuple[float, float]] = {}  # how long it took, and until when it rests
        # Conversations that may be final, and when to look; what changes them puts them here anew.
        self._end_due_s = {end.conversation_id: 0.0 for end in self._ledger.conversations.open_ended()}
        # What the messages just taken call for.
        self._is_to_dispatch, self._to_assemble, self._to_assign = False, set[str](), set[str]()
        _LOG.info("bridge_opened", ledger=self._ledger.ledger_id, root=str(settings.root), strays=strays)

    def _note_connect(self) -> None:
        self._connected.set()
        self._mailbox.wake()

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Ask `run` to return; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Serve until stopped. Raises `AnotherBridge` where an older bridge serves the same root."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        self._survive(HTTP_DOOR, self._desk.clear)
        self._subscribe()
        self._session.start()
        try:
            while not self._stopping.is_set():
                self._turn()
        finally:
            self._close_door()
            self._survive("sending", self._publisher.flush)
            topic = self._topics.bridge_heartbeat(self._settings.bridge_id)
            self._session.stop(Farewell(topic, encode(self._beat(BridgeState.STOPPED)), retain=True))
            self._ledger.close()
            self._store.close()
            _LOG.info("bridge_stopped")

    def _make_door(self) -> HttpServer | None:
        if self._settings.http_port == 0:
            return None
        # Imported here: every command imports this file, and only `run` needs FastAPI.
        from vps_bridge.http.server import HttpServer  # noqa: PLC0415

        return HttpServer(self._settings, self._mailbox, self, self._desk)

    def _open_door(self, door: HttpServer) -> None:
        try:
            door.open()
        except OSError as error:
            where = f"{self._settings.http_host}:{self._settings.http_port}"
            words = f"{where} cannot be had ({error.strerror}): end what uses it, or set OMI_HTTP_PORT (0: no door)"
            self._note_error(HTTP_DOOR, words)
            self._beat_due_s = 0.0

    def _close_door(self) -> None:
        """Let requests that are under way end, as far as they do so soon; whoever waits for long is told to go."""
        deadline_s = time.monotonic() + DOOR_CLOSE_S
        self._survive(HTTP_DOOR, self._desk.clear)
        if self._door is not None:
            self._door.close()
            while self._door.is_open and time.monotonic() < deadline_s:
                item = self._mailbox.take(CLOSE_POLL_S)
                if isinstance(item, Question):  # a message has an owner that offers it again
                    self._take(item)
                    self._survive("sending", self._publisher.flush)
            self._survive(HTTP_DOOR, self._desk.clear)
        self._mailbox.close()

    def _subscribe(self) -> None:
        for kind in (TopicKind.EVENTS, TopicKind.AUDIO, TopicKind.TURNS, TopicKind.FAILURE, TopicKind.WANT):
            self._session.subscribe(self._topics.filter(kind), qos=1)
        for kind in (TopicKind.AGENT_HEARTBEAT, TopicKind.BRIDGE_HEARTBEAT):
            self._session.subscribe(self._topics.filter(kind), qos=0)

    def _turn(self) -> None:
        """Take the messages there are, do what they call for and what is due by the clock, then send."""
        message = self._mailbox.take(max(0.0, self._tick_due_s - time.monotonic()))
        batch_until_s = time.monotonic() + BATCH_S
        while message is not None:
            self._take(message)
            is_full = time.monotonic() >= batch_until_s or self._publisher.held >= MAX_HELD
            message = None if is_full else self._mailbox.take(0.0)
        now_s = time.monotonic()
        if self._connected.is_set():
            self._connected.clear()
            self._updater.offer_again()
            self._beat_due_s = 0.0
        self._survive("following up", partial(self._follow_up, now_s))
        if now_s >= self._tick_due_s:
            self._tick_due_s = now_s + TICK_S
            self._survive("tick", partial(self._tick, now_s))
        if self._door is not None and now_s >= self._door_due_s and not self._door.is_open:
            self._door_due_s = now_s + DOOR_RETRY_S
            self._open_door(self._door)
        if now_s >= self._sweep_due_s:
            self._sweep_due_s = now_s + SWEEP_S
            self._survive("sweep", partial(self._sweep, now_s))
        if now_s >= self._beat_due_s and self._session.connected:
            self._beat_due_s = now_s + self._settings.heartbeat_s
            self._survive("heartbeat", self._publish_beat)
        self._survive("sending", self._publisher.flush)

    def _take(self, item: Incoming | Question[object]) -> None:
        if isinstance(item, Question):
            self._is_to_dispatch = True
            self._survive(HTTP_DOOR, partial(item.settle, self._publisher.hold))
        else:
            self._survive(item.topic, partial(self._route, item))

    def _survive(self, where: str, work: Callable[[], None]) -> None:
        """Do a piece of work; whatever it raises ends that piece alone.

        Nothing promised is lost by it: receipts are sent after the ledger has what they promise, and what got no
        receipt is offered again by its owner.
        """
        try:
            work()
        except AnotherBridge:
            raise
        except SchemaError as error:
            self._note_error(where, str(error))
        except Exception as error:  # noqa: BLE001 - one bad message, file or conversation must not stop the others
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            at = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
            cause = getattr(getattr(error, "orig", error), "sqlite_errorname", type(error).__name__)
            self._note_error(where, f"{cause} at {at}")  # its text may quote a transcript

    def _note_error(self, where: str, error: str) -> None:
        self._errors += 1
        self._last_error = f"{where}: {error}"
        _LOG.error("survived", where=where, error=error, errors=self._errors)

    def _route(self, message: Incoming) -> None:
        address = self._topics.parse(message.topic)
        conversation_id, sender_id = address.conversation_id or "", address.sender_id or ""
        match address.kind:
            case TopicKind.AUDIO:
                if self._ingest.take_audio(conversation_id, message.payload).is_new:
                    self._expect_assembly(conversation_id)
            case TopicKind.EVENTS:
                self.take_event(conversation_id, message.payload)
            case TopicKind.TURNS:
                # Whether its sender is free for another job, its next beat tells.
                if self._results.take_turns(conversation_id, sender_id, message.payload):
                    self._to_assign.add(conversation_id)
            case TopicKind.FAILURE if sender_id != self._settings.bridge_id:
                self._is_to_dispatch = True
                self._results.take_failure(conversation_id, sender_id, message.payload)
            case TopicKind.WANT:
                self._dispatcher.take_want(sender_id, decode(AgentWant, message.payload))
            case TopicKind.AGENT_HEARTBEAT if not message.retain:
                beat = decode(AgentHeartbeat, message.payload)
                if beat.agent_id == sender_id:
                    # What any other beat brings about can wait for the tick.
                    self._is_to_dispatch |= beat.free_capacity > 0 or beat.state is not AgentState.ONLINE
                    self._dispatcher.take_heartbeat(beat, self._mailbox.taken_s)
            case TopicKind.BRIDGE_HEARTBEAT if not message.retain:
                self._meet_bridge(decode(BridgeHeartbeat, message.payload))

    def check_room(self, size_bytes: int) -> None:
        """Raise `Refusal` where so much more audio would be too much."""
        self._ingest.check_room(size_bytes)

    def take_upload(
        self, conversation_id: str, told: ChunkDescription, upload: Upload, sha256: str | None = None
    ) -> Taken:
        """Take a chunk that has streamed in; `sha256` is what the publisher says it has."""
        taken = self._ingest.take_upload(conversation_id, told, upload, sha256)
        if taken.is_new:
            self._expect_assembly(conversation_id)
        return taken

    def take_event(self, conversation_id: str, data: bytes) -> Accepted | None:
        """Take an event with all that follows from it, and return its receipt."""
        taken = self._ingest.take_event(conversation_id, data)
        if taken.event is None:
            return taken.receipt
        return self._follow(taken.event, conversation_id) or taken.receipt

    def live_agents(self) -> list[AgentHeartbeat]:
        """Return the last beats of the agents that are live and allowed."""
        views, allowed = self._live_views(), self._ledger.agents.allowed()
        return [view.heartbeat for view in views if view.heartbeat.agent_id in allowed]

    def _expect_assembly(self, conversation_id: str) -> None:
        self._last_audio_s[conversation_id] = time.monotonic()
        self._to_assemble.add(conversation_id)

    def _follow(self, event: ConversationEvent, conversation_id: str) -> Accepted | None:
        """Do what an accepted event asks for; a deletion has its receipt only then."""
        if event.type is EventType.DELETED:
            receipt, deleted = self._ingest.delete(event, conversation_id)
            self._forget(conversation_id, deleted)
            return receipt
        if event.type is EventType.COMPLETED:
            self._expect_assembly(conversation_id)
        elif event.type is EventType.RESYNC:
            self._updater.offer_again(conversation_id)
        if event.type not in (EventType.APPLIED, EventType.RESYNC):
            self._to_assign.add(conversation_id)
        return None

    def _finish_deletion(self, conversation_id: str) -> None:
        self._forget(conversation_id, self._ingest.erase(conversation_id))

    def _forget(self, conversation_id: str, deleted: Deleted) -> None:
        self._dispatcher.cancel(deleted.leases)
        self._desk.note_deleted(conversation_id)
        self._last_audio_s.pop(conversation_id, None)
        self._end_due_s.pop(conversation_id, None)
        self._assign_rests.pop(conversation_id, None)

    def _meet_bridge(self, beat: BridgeHeartbeat) -> None:
        """Of two live bridges the younger stops. Ages are compared, not times: two machines' clocks differ."""
        if beat.instance_id == self._instance_id:
            if beat.state is not BridgeState.ONLINE:
                self._beat_due_s = 0.0  # the will of a connection of ours that is no more
            return
        self._beat_due_s = 0.0  # the other one must hear of us, and may have covered our retained beat
        own_age_s = time.monotonic() - self._started_s
        age_s = (beat.sent_at - beat.started_at).total_seconds()
        is_older = age_s > own_age_s
        if abs(age_s - own_age_s) < SAME_AGE_S:
            is_older = beat.instance_id > self._instance_id
        if beat.state is BridgeState.ONLINE and is_older:
            msg = (
                f"bridge {beat.bridge_id} (ledger {beat.ledger_id}) already serves {self._settings.topic_root} on this "
                "broker: stop it, or give this one another --topic-root"
            )
            raise AnotherBridge(msg)

    def _follow_up(self, now_s: float) -> None:
        """Do at once what messages called for: a new chunk's job is offered with the chunk's receipt."""
        to_assemble, self._to_assemble = self._to_assemble, set()
        self._assemble_all(to_assemble, now_s)
        if self._is_to_dispatch:
            self._is_to_dispatch = False
            self._survive("dispatching", partial(self._dispatcher.tick, self._mailbox.read_until_s()))
        to_assign, self._to_assign = self._to_assign, set()
        self._assign_all(to_assign, now_s)
        self._survive("offering", partial(self._updater.offer, now_s))

    def _tick(self, now_s: float) -> None:
        """Do what time calls for, and what a command asked for by writing into the ledger."""
        if self._ballast.update():
            self._beat_due_s = self._sweep_due_s = 0.0
        for conversation_id in self._ledger.conversations.unfinished_deletions():
            self._survive(f"deleting {conversation_id}", partial(self._finish_deletion, conversation_id))
        self._assemble_all([name for name, due_s in self._assemble_due_s.items() if due_s <= now_s], now_s)
        dirty = self._ledger.conversations.dirty()
        self._assign_tries.keep_only(set(dirty))
        ending = [name for name, due_s in self._end_due_s.items() if due_s <= now_s]
        self._assign_all(dict.fromkeys([*ending, *dirty]), now_s)
        self._dispatcher.note_heartbeats()
        self._dispatcher.tick(self._mailbox.read_until_s())
        if self._live_agents() != self._agents_told:
            self._beat_due_s = 0.0

    def _assemble_all(self, conversation_ids: Iterable[str], now_s: float) -> None:
        for conversation_id in conversation_ids:
            self._assemble_due_s[conversation_id] = now_s + self._settings.pause_s
            self._survive(f"assembling {conversation_id}", partial(self._assemble, conversation_id, now_s))

    def _assign_all(self, conversation_ids: Iterable[str], now_s: float) -> None:
        for conversation_id in conversation_ids:
            if time.monotonic() - now_s > ASSIGN_BUDGET_S:
                break  # the rest is as dirty at the next tick; agents and beats do not wait for it
            self._survive(f"assigning {conversation_id}", partial(self._assign, conversation_id, now_s))

    def _idle_s(self, conversation_id: str, now_s: float) -> float:
        return now_s - self._last_audio_s.get(conversation_id, self._started_s)

    def _assign(self, conversation_id: str, now_s: float) -> None:
        took_s, rests_until_s = self._assign_rests.pop(conversation_id, (0.0, 0.0))
        if now_s < rests_until_s:
            self._assign_rests[conversation_id] = took_s, rests_until_s
            return
        final = self._is_final(conversation_id, now_s)
        if not final and not self._ledger.conversations.is_to_assign(conversation_id):
            return
        if not self._assign_tries.take(conversation_id, now_s):
            return
        if took_s > LONG_ASSIGNMENT_S:
            self._publisher.flush()
        began_s = time.monotonic()
        if self._updater.assign(conversation_id, final=final):
            self._assign_tries.reset(conversation_id)
        took_s = time.monotonic() - began_s
        if took_s > LONG_ASSIGNMENT_S:
            self._assign_rests[conversation_id] = took_s, began_s + took_s * (1 + ASSIGN_REST)
        if final:
            self._end_due_s.pop(conversation_id, None)
            self._last_audio_s.pop(conversation_id, None)
            self._sweep_due_s = min(self._sweep_due_s, now_s + self._settings.keep_audio_s)
            self._desk.look(conversation_id)

    def _is_final(self, conversation_id: str, now_s: float) -> bool:
        """Whether a conversation waits for nothing more; where time alone will tell, look again then."""
        end = self._ledger.conversations.open_end(conversation_id)
        if end is None:
            self._end_due_s.pop(conversation_id, None)
            return False
        idle_s, quiet_s = self._idle_s(conversation_id, now_s), self._settings.quiet_s
        self._end_due_s[conversation_id] = now_s + max(TICK_S, patience_s(end, quiet_s=quiet_s) - idle_s)
        return is_final(end, idle_s=idle_s, quiet_s=quiet_s)

    def _assemble(self, conversation_id: str, now_s: float) -> None:
        conversation = self._ledger.conversations.get(conversation_id)
        chunks = self._ledger.chunks.of_conversation(conversation_id) if conversation else []
        if conversation is None or all(chunk.covered for chunk in chunks):
            self._assemble_due_s.pop(conversation_id, None)
            return
        infos = [chunk.info for chunk in chunks]
        closing = conversation.completed and is_all_here(describe_end(conversation, chunks)) is not False
        idle_s = self._idle_s(conversation_id, now_s)
        plans = plan_jobs(infos, closing=closing, idle_s=idle_s, rules=self._settings.assembly_rules)
        if {chunk.chunk_id for chunk in chunks if not chunk.covered} == {name for plan in plans for name in plan.fresh}:
            self._assemble_due_s.pop(conversation_id, None)
        for job_id in self._ledger.jobs.add(conversation_id, plans) if plans else ():
            self._is_to_dispatch = True
            _LOG.info("job_ready", conversation=conversation_id, job=job_id)

    def _sweep(self, now_s: float) -> None:
        """Unlink audio that is not needed any more, and forget parts that stopped coming, and pages that were freed."""
        self._ingest.clean_up(now_s)
        self._ledger.forget_deleted_pages()
        self._store.forget_deleted_pages()
        for end in self._ledger.conversations.open_ended():  # what a command changed is in no message
            self._end_due_s.setdefault(end.conversation_id, now_s)
        now = time.time()
        self._ledger.chunks.stamp_anew(now)
        due = self._ledger.chunks.expired(
            final_before=now - (self._settings.keep_audio_s if self._ballast.is_held else 0.0),
            failed_before=now - self._settings.keep_failed_audio_s,
            accepted_before=now - self._settings.keep_audio_max_s,
        )
        if not due:
            return
        for chunk in due:
            self._spool.remove(chunk.spool_name or "")
        self._ledger.chunks.mark_unlinked([chunk.arrival for chunk in due])
        _LOG.info("audio_unlinked", chunks=len(due))
        for job_id in self._ledger.jobs.without_audio():
            self._dispatcher.give_up(job_id, FailureCode.PAYLOAD_INCOMPLETE, AUDIO_GONE)
        self._sweep_due_s = now_s  # there may be more of it

    def _live_agents(self) -> tuple[list[str], list[str]]:
        """Return the live agents: those that are allowed, and those that nobody has allowed yet."""
        live = sorted(view.heartbeat.agent_id for view in self._live_views())
        allowed = self._ledger.agents.allowed()
        return [name for name in live if name in allowed], [name for name in live if name not in allowed]

    def _live_views(self) -> list[AgentView]:
        return self._dispatcher.roster.live(self._mailbox.read_until_s(), self._settings.stale_s)

    def _publish_beat(self) -> None:
        self._agents_told = self._live_agents()
        topic = self._topics.bridge_heartbeat(self._settings.bridge_id)
        self._publisher.send(topic, self._beat(BridgeState.ONLINE), retain=True)

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
        live, waiting = self._agents_told
        problems = f"{self._last_error} (error {self._errors} since the start)" if self._errors else None
        queue = describe_queue(self._ledger.jobs.counts(), now.timestamp())
        return beat.model_copy(
            update={
                "accepting": self._ballast.is_held and has_room(queue, self._settings),
                "agents_live": len(live),
                "agents_waiting": tuple(waiting[:MAX_AGENTS_TOLD]),
                "queue": queue,
                "last_error": problems if self._ballast.is_held else REMEDY,
            }
        )
