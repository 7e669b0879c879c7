"""The agent: takes leases, pulls audio, lets the worker diarize, and offers results until they are settled.

One thread does all of it. MQTT callbacks only put what arrived into a bounded queue, and the worker reports through
its own. So a heartbeat proves that this loop runs, and nothing else needs a lock.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time
from collections import deque
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from filelock import FileLock, Timeout

from broker.errors import NotConnected, PayloadTooLarge
from broker.receipts import PublishOutcome, Receipt
from broker.retained import say_clearing
from broker.session import Farewell, Incoming, MqttSession, Will
from mac_agent.heartbeat import AgentCounters, AgentIdentity, make_will
from mac_agent.held_jobs import HeldJobs
from mac_agent.inbox import Inbox
from mac_agent.inference import EngineLoaded, EngineNotLoaded
from mac_agent.log_file import LogFile
from mac_agent.outbox import EntryKind, Outbox
from mac_agent.own_heartbeat import OwnHeartbeat
from mac_agent.recycling import GB, RecycleLimits
from mac_agent.wakefulness import Wakefulness, default_program
from mac_agent.worker import Worker, read_limits
from schemas.agent import UP_STATES, AgentControl, AgentHeartbeat, AgentState, ControlType
from schemas.audio import AudioPart
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import decode, encode
from schemas.errors import SchemaError
from schemas.heartbeat import must_yield
from schemas.topics import TopicKind, Topics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mac_agent.inference import LoadEngine
    from mac_agent.settings import AgentSettings
    from schemas.record import Message

QUEUE_MESSAGES = 256  # beyond this something floods us; what is dropped is asked for, or offered, again
TICK_S = 0.25
FAREWELL_TIMEOUT_S = 5.0
LOCK_NAME = "agent.lock"

_log = structlog.get_logger("mac_agent")


class AgentError(Exception):
    """Why the agent cannot run; the message names the remedy."""


class SecondInstance(AgentError):
    """Another process already works under this agent id, or in this data directory."""


class EngineUnavailable(AgentError):
    """The engine cannot be loaded, and trying again will not help."""


def is_running(data_dir: Path) -> bool:
    """Say whether an agent works in a data directory at this moment."""
    path = data_dir / LOCK_NAME
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


class Agent:
    """One agent process.

    Args:
        settings: all of them.
        load: makes the engine in the worker.
        engine_reason: why that engine; part of the log and of heartbeats.
    """

    def __init__(self, settings: AgentSettings, load: LoadEngine, engine_reason: str = "") -> None:
        self._settings, self._load, self._engine_reason = settings, load, engine_reason
        self._topics = Topics(settings.topic_root)
        self._identity = AgentIdentity(
            settings.agent_id, f"i-{secrets.token_hex(6)}", datetime.now(UTC), time.monotonic()
        )
        self._counters = AgentCounters()
        self._arrived: queue.Queue[Incoming | None] = queue.Queue(QUEUE_MESSAGES)
        self._dropped = 0
        self._dropped_logged = 0
        self._receipts: deque[Receipt] = deque(maxlen=QUEUE_MESSAGES)
        self._connected = threading.Event()
        self._stop = threading.Event()
        self._bridges: dict[str, str] = {}
        self._is_waiting = False
        self._note_beat: Callable[[AgentHeartbeat], None] | None = None

    def request_stop(self) -> None:
        """Ask the loop to end soon; safe in a signal handler and from any thread."""
        self._stop.set()

    def run(self) -> None:
        """Work until asked to stop.

        Raises:
            SecondInstance: another process already runs under this agent id.
            EngineUnavailable: there is nothing to work with.
            InboxError, OutboxError: a directory or file cannot be used.
        """
        with ExitStack() as stack:
            stack.callback(self._lock_data_dir().release)
            self._open(stack)
            yields = False
            try:
                while not self._stop.is_set():
                    self._run_once()
            except SecondInstance:
                yields = True  # the other one's state stands; ours must not cover it
                raise
            except EngineUnavailable as error:
                self._counters.last_error = str(error)
                raise
            finally:
                self._heartbeat.state = AgentState.STOPPED
                self._worker.stop()
                self._held_jobs.hand_back()
                beat = None if yields else Farewell(self._beat_topic, encode(self._heartbeat.make()))
                self._session.stop(beat, FAREWELL_TIMEOUT_S)
                _log.info("stopped", waiting_results=len(self._outbox.entries()))

    def _lock_data_dir(self) -> FileLock:
        """Take the lock of the data directory: two agents would wipe each other's inbox."""
        self._settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(self._settings.data_dir / LOCK_NAME)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise SecondInstance(
                f"Another agent works in {self._settings.data_dir}. Stop it, or give this one its own OMI_DATA_DIR."
            ) from error
        return lock

    def _open(self, stack: ExitStack) -> None:
        settings = self._settings
        self._log_file = LogFile(settings.log_file) if settings.log_file is not None else None
        if self._log_file is not None:
            self._log_file.take_output()
        self._wakefulness = Wakefulness(default_program())
        stack.callback(self._wakefulness.release)
        self._inbox = Inbox(settings.inbox)
        stack.callback(self._inbox.close)
        self._outbox = Outbox(settings.outbox, retry_s=settings.offer_retry_s, retry_max_s=settings.retry_max_s)
        stack.callback(self._outbox.close)
        recycle = RecycleLimits(settings.recycle_jobs, round(settings.recycle_gb * GB))
        self._worker = Worker(self._load, read_limits(settings), recycle=recycle, wake=self._wake)
        self._held_jobs = HeldJobs(settings, self._inbox, self._outbox, self._worker, self._counters)
        self._heartbeat = OwnHeartbeat(
            self._identity, self._counters, self._held_jobs, self._worker,
            engine_reason=self._engine_reason, heartbeat_s=settings.heartbeat_s,
        )  # fmt: skip
        self._beat_topic = self._topics.agent_heartbeat(settings.agent_id)
        self._session = MqttSession(
            settings,
            # In no message: a connection can be taken over by whoever knows its client id.
            client_id=f"{settings.agent_id}-{secrets.token_hex(8)}",
            on_message=self._keep_message,
            will=Will(self._beat_topic, encode(make_will(self._identity))),
            on_connect=self._note_connect,
        )
        self._session.subscribe(self._topics.control(settings.agent_id))
        self._session.subscribe(self._topics.filter(TopicKind.PARTS, sender_id=settings.agent_id))
        self._session.subscribe(self._topics.filter(TopicKind.BRIDGE_HEARTBEAT), qos=0)
        self._session.subscribe(self._beat_topic)
        _log.info(
            "starting", agent=settings.agent_id, instance=self._identity.instance_id, engine=settings.engine,
            why=self._engine_reason, waiting_results=len(self._outbox.entries()),
        )  # fmt: skip
        self._serve_metrics(stack)
        self._worker.start()
        self._session.start()

    def _serve_metrics(self, stack: ExitStack) -> None:
        if self._settings.metrics_port != 0:
            from mac_agent.metrics import AgentMetrics  # noqa: PLC0415 - few want it

            metrics = AgentMetrics(
                self._settings.metrics_port,
                is_connected=lambda: self._session.connected,
                dropped=lambda: self._dropped,
            )
            metrics.start()
            stack.callback(metrics.stop)
            self._note_beat = metrics.note_beat

    def _note_connect(self) -> None:
        self._connected.set()
        self._wake()

    def _keep_message(self, incoming: Incoming) -> None:
        """Keep what arrived; the callback of the network thread does nothing else."""
        try:
            self._arrived.put_nowait(incoming)
        except queue.Full:
            self._dropped += 1  # parts are asked for again, and the bridge repeats its messages

    def _wake(self) -> None:
        """Let the loop run at once: there is something to do that is no message."""
        with contextlib.suppress(queue.Full):  # then it is awake
            self._arrived.put_nowait(None)

    # ------------------------------------------------------------------------------------------ the loop

    def _run_once(self) -> None:
        """Do everything there is to do, and wait a little where there is nothing."""
        self._take_messages()
        if self._connected.is_set():
            self._connected.clear()
            self._bridges.clear()  # which of them are on this broker, their next live heartbeats show
            self._offer_everything("connected")
        self._take_reports()
        self._held_jobs.start_next()
        self._held_jobs.drop_stale()
        self._outbox.tidy()
        self._send_wants()
        self._offer_results()
        self._heartbeat.send_if_due(self._send_heartbeat, is_connected=self._session.connected)
        self._log_losses()
        self._wakefulness.update(is_busy=self._held_jobs.is_busy)
        if self._log_file is not None:
            self._log_file.rotate_if_due()

    def _take_messages(self) -> None:
        try:
            self._take_message(self._arrived.get(timeout=TICK_S))
            for _ in range(QUEUE_MESSAGES):
                self._take_message(self._arrived.get_nowait())
        except queue.Empty:
            return

    def _take_message(self, incoming: Incoming | None) -> None:
        if incoming is None or not incoming.payload:  # an empty one clears what the broker kept on its topic
            return
        try:
            kind = self._topics.parse(incoming.topic).kind
            if kind is TopicKind.PARTS:
                self._held_jobs.take_part(decode(AudioPart, incoming.payload))
            elif kind is TopicKind.CONTROL:
                self._take_control(decode(AgentControl, incoming.payload))
            elif kind is TopicKind.BRIDGE_HEARTBEAT:
                self._take_bridge_heartbeat(decode(BridgeHeartbeat, incoming.payload), retained=incoming.retain)
            elif kind is TopicKind.AGENT_HEARTBEAT:
                self._take_own_heartbeat(decode(AgentHeartbeat, incoming.payload), retained=incoming.retain)
        except SchemaError as error:
            kept = f"; the broker keeps it: {say_clearing(self._settings, incoming.topic)}" if incoming.retain else ""
            self._counters.last_error = f"a message on {incoming.topic} was refused: {error}{kept}"
            _log.warning("message refused", topic=incoming.topic, code=error.code, reason=f"{error}{kept}")

    def _take_control(self, control: AgentControl) -> None:
        match control.type:
            case ControlType.OFFER:
                action = self._held_jobs.take_offer(control, ready=self._heartbeat.state is AgentState.ONLINE)
                _log.info(
                    "offer", job=control.job_id, conversation=control.conversation_id, action=action.name.lower(),
                    expected_s=round(control.expected_s, 1),
                )  # fmt: skip
            case ControlType.SETTLED | ControlType.CANCEL:
                ended = self._held_jobs.end_job(control)
                _log.info(
                    str(control.type), job=control.job_id, verdict=control.verdict, reason=control.reason, ended=ended
                )
            case ControlType.DRAIN:
                self._heartbeat.state = AgentState.DRAINING
                _log.info("draining: no new jobs until the next start")
            case ControlType.PING:
                self._heartbeat.send_soon()

    def _take_bridge_heartbeat(self, beat: BridgeHeartbeat, *, retained: bool) -> None:
        """Offer and ask for everything again where a bridge is new or back: what was sent to it meanwhile is lost."""
        if retained:
            return
        is_waiting, own = self._settings.agent_id in beat.agents_waiting, self._settings.agent_id
        if is_waiting and not self._is_waiting:
            _log.warning("nobody has allowed this agent", remedy=f"on the VPS: omi-bridge agents allow {own}")
        self._is_waiting = is_waiting
        is_known = self._bridges.get(beat.bridge_id) == beat.instance_id
        if beat.state is not BridgeState.ONLINE:
            if is_known:  # the will of an instance before it may come late
                del self._bridges[beat.bridge_id]
        elif not is_known:
            self._bridges[beat.bridge_id] = beat.instance_id
            self._offer_everything("bridge is there")

    def _take_own_heartbeat(self, beat: AgentHeartbeat, *, retained: bool) -> None:
        """Correct a heartbeat that says we are offline, and stop where another process runs under our agent id."""
        if beat.instance_id == self._identity.instance_id:
            if beat.state is AgentState.OFFLINE:  # the will of a connection that is no more
                self._heartbeat.send_soon()
            return
        own = self._identity
        if not retained and beat.state in UP_STATES and must_yield(own.uptime_s(), own.instance_id, beat):
            raise SecondInstance(
                f"Another agent named {self._settings.agent_id} has been running since {beat.started_at:%F %T} UTC. "
                "Stop one of the two, or give this one another OMI_AGENT_ID."
            )
        self._heartbeat.send_soon()

    def _offer_everything(self, reason: str) -> None:
        """Send a heartbeat, offer every result and ask for all missing audio again: the other side may be new."""
        _log.info(reason, waiting_results=len(self._outbox.entries()))
        self._heartbeat.send_soon()
        self._outbox.make_due()
        self._held_jobs.forget_asked()

    def _take_reports(self) -> None:
        for report in self._worker.poll():
            if isinstance(report, EngineNotLoaded):
                self._counters.last_error = report.message
                _log.error("engine not loaded", reason=report.message, permanent=report.permanent)
                if report.permanent:
                    raise EngineUnavailable(report.message)
            self._held_jobs.take_report(report)
            if isinstance(report, EngineLoaded):
                engine = self._heartbeat.note_engine(report.info)
                _log.info(
                    "engine loaded", engine=engine.name, device=engine.device, mode=engine.mode,
                    why=report.info.mode_reason,
                )  # fmt: skip

    # ------------------------------------------------------------------------------------- what is sent

    def _send_wants(self) -> None:
        if not self._session.connected:
            return
        for want in self._held_jobs.next_wants():
            self._publish(self._topics.want(self._settings.agent_id), want, job_id=want.job_id)

    def _offer_results(self) -> None:
        for entry in self._outbox.due():
            if not self._session.connected:
                return
            topic = self._topics.turns if entry.kind is EntryKind.TURNS else self._topics.failure
            try:
                receipt = self._session.publish(
                    topic(entry.conversation_id, self._settings.agent_id),
                    entry.payload,
                    content_type="application/msgpack" if entry.kind is EntryKind.TURNS else "application/json",
                    user_properties={"job_id": entry.job_id, "lease_id": entry.lease_id},
                )
            except NotConnected:
                return
            except PayloadTooLarge as error:
                self._held_jobs.replace_too_large(entry, str(error))
                continue
            self._receipts.append(receipt)
            self._outbox.note_offered(entry.job_id)

    def _log_losses(self) -> None:
        """Tell what an operator must put right: an ACL in our way (the session logs it), or a flood."""
        while self._receipts and self._receipts[0].outcome is not None:
            receipt = self._receipts.popleft()
            if receipt.outcome is PublishOutcome.REFUSED:
                self._counters.last_error = f"the broker refused {receipt.topic}: {receipt.reason}"
        if self._dropped != self._dropped_logged:
            _log.warning("messages dropped: they came too fast", count=self._dropped - self._dropped_logged)
            self._dropped_logged = self._dropped

    def _send_heartbeat(self, heartbeat: AgentHeartbeat) -> bool:
        is_sent = self._publish(self._beat_topic, heartbeat, retain=True)
        if is_sent and self._note_beat is not None:
            self._note_beat(heartbeat)
        return is_sent

    def _publish(self, topic: str, message: Message, *, retain: bool = False, job_id: str | None = None) -> bool:
        properties = {"schema": message.SCHEMA} | ({"job_id": job_id} if job_id else {})
        try:
            receipt = self._session.publish(
                topic, encode(message), retain=retain, content_type="application/json", user_properties=properties
            )
        except NotConnected:
            return False  # said again on the next connect
        except PayloadTooLarge as error:
            _log.error("message larger than the broker takes", topic=topic, reason=str(error))
            return False
        self._receipts.append(receipt)
        return True
