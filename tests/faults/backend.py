"""The backend of a chaos run: the product's own client, which keeps audio until it is accepted and sends it again."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from broker.errors import BrokerError
from broker.session import Incoming, MqttSession
from broker.settings import BrokerSettings
from schemas.codec import decode, encode
from schemas.conversation import ConversationEvent, ConversationUpdated, EventType, TranscriptSegment
from schemas.errors import SchemaError
from schemas.failure import FailureCode
from schemas.topics import TopicKind, Topics
from tests.faults.plan import CHUNK_S, STARTED_AT, ChunkPlan, ConversationPlan, Plan
from tests.faults.sounds import make_audio
from vps_bridge.client.client import BridgeClient
from vps_bridge.client.errors import BridgeRefused, BridgeSilent

TOPICS = Topics()
SENDERS = 8
TRY_S = 20.0
DOOR_PAUSE_S = 0.5
AGAIN = (429, 502, 503, 504, 507)  # HTTP statuses after which a backend tries again
GATE_STEP_S = 0.05
STT_LABEL = "SPEAKER_00"  # the label of every segment from speech-to-text


def segment_id(chunk: ChunkPlan, place: int) -> str:
    return f"{chunk.chunk_id}-t{place}"


def transcript_of(conversation: ConversationPlan) -> tuple[TranscriptSegment, ...]:
    """One segment for each turn."""
    return tuple(
        TranscriptSegment(
            id=segment_id(chunk, place),
            start_s=round(chunk.sequence * CHUNK_S + turn.start_s, 1),
            end_s=round(chunk.sequence * CHUNK_S + turn.end_s, 1),
            text="word",
            speaker=STT_LABEL,
        )
        for chunk in conversation.chunks
        for place, turn in enumerate(chunk.turns)
    )


class ChaosBackend:
    """Sends all conversations of a plan, several at a time, and confirms every update.

    Args:
        settings: of the broker, through the backend's link.
        door: client of the bridge's HTTP server, for the payloads that are sent over HTTP.
        plan: what to send.
        directory: where audio is kept until it is accepted.
        may_send: whether the n-th payload may be sent yet, so that work is left for later faults.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        door: httpx.Client,
        plan: Plan,
        directory: Path,
        may_send: Callable[[int], bool],
    ) -> None:
        self._settings, self._door, self._directory, self._may_send = settings, door, directory, may_send
        self._lock = threading.Lock()
        self._todo: queue.SimpleQueue[ConversationPlan] = queue.SimpleQueue()
        for conversation in plan.conversations:
            self._todo.put(conversation)
        self._left = len(plan.conversations)
        self._begun = 0
        self._stopping = threading.Event()
        self.accepted: dict[str, str] = {}
        """chunk id -> sha256"""
        self.deleted: dict[str, int] = {}
        """conversation -> how many payloads it had"""
        self.updates: dict[str, ConversationUpdated] = {}
        """conversation -> its latest update"""
        self.completed_s: dict[str, float] = {}
        """conversation -> when its end was accepted (monotonic seconds)"""
        self.final_s: dict[str, float] = {}
        """conversation -> when its first final update came"""
        self.longest_receipt_s = 0.0
        self.tries = 0
        self.problems: list[str] = []
        self._arrived: queue.SimpleQueue[Incoming | None] = queue.SimpleQueue()
        self._confirmer = MqttSession(
            settings, client_id=f"backend-confirms-{uuid.uuid4().hex[:8]}", on_message=self._arrived.put
        )
        self._confirmer.subscribe(TOPICS.filter(TopicKind.UPDATED))
        self._threads = [threading.Thread(target=self._work, name=f"sender {n}", daemon=True) for n in range(SENDERS)]
        self._threads.append(threading.Thread(target=self._confirm, name="confirmer", daemon=True))

    def start(self) -> None:
        directory = self._directory
        directory.mkdir(parents=True, exist_ok=True)
        self._confirmer.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._arrived.put(None)
        self._confirmer.stop()
        for thread in self._threads:
            thread.join(2 * TRY_S)

    @property
    def is_done(self) -> bool:
        """Whether everything was accepted or deleted."""
        return self._left == 0

    # ---------------------------------------------------------------------------------------- sending

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                conversation = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                self._send(conversation)
            except Exception as error:  # noqa: BLE001 - nobody would notice that the thread ended: the error is reported
                self.problems.append(f"{conversation.conversation_id}: sending ended with {error!r}")
            with self._lock:
                self._left -= 1

    def _send(self, conversation: ConversationPlan) -> None:
        with contextlib.ExitStack() as stack:
            clients: list[BridgeClient] = []
            self._insist(
                lambda: clients.append(stack.enter_context(BridgeClient(self._settings, conversation.conversation_id)))
            )
            client = clients[0]
            self._insist(lambda: client.start(STARTED_AT, timeout_s=TRY_S))
            self._insist(lambda: client.send_segments(transcript_of(conversation), revision=1, timeout_s=TRY_S))
            until = conversation.delete_after
            for chunk in conversation.chunks[:until]:
                self._send_chunk(client, chunk)
            if until is None:
                self._insist(lambda: client.complete(chunks=len(conversation.chunks), timeout_s=TRY_S))
                self.completed_s[conversation.conversation_id] = time.monotonic()
                return
            self._insist(lambda: client.delete(timeout_s=TRY_S))
            try:
                self._send_chunk(client, conversation.chunks[until])
                self.problems.append(f"{conversation.conversation_id}: audio was accepted after the deletion")
            except BridgeRefused as refusal:
                if refusal.code != FailureCode.CONVERSATION_DELETED:
                    raise
            with self._lock:
                for chunk in conversation.chunks:
                    self.accepted.pop(chunk.chunk_id, None)
                self.deleted[conversation.conversation_id] = len(conversation.chunks)

    def _send_chunk(self, client: BridgeClient, chunk: ChunkPlan) -> None:
        with self._lock:
            number, self._begun = self._begun, self._begun + 1
        while not self._may_send(number) and not self._stopping.is_set():
            time.sleep(GATE_STEP_S)
        path = self._directory / chunk.chunk_id
        audio = make_audio(chunk)
        path.write_bytes(audio)
        facts: dict[str, Any] = {
            "chunk_id": chunk.chunk_id,
            "sequence": chunk.sequence,
            "captured_at": STARTED_AT + timedelta(seconds=chunk.sequence * CHUNK_S),
        }
        if chunk.is_for_door:
            self._insist(lambda: self._post(client.conversation_id, audio, facts))
        else:
            self._insist(lambda: client.send_file(path, timeout_s=TRY_S, **facts))
        path.unlink()
        with self._lock:
            self.accepted[chunk.chunk_id] = hashlib.sha256(audio).hexdigest()

    def _post(self, conversation_id: str, audio: bytes, facts: dict[str, Any]) -> None:
        """Send a payload over HTTP; raises the errors of the MQTT client."""
        query = facts | {"captured_at": facts["captured_at"].isoformat()}
        try:
            answer = self._door.post(
                f"/v1/conversations/{conversation_id}/audio",
                content=audio,
                params=query,
                headers={"Content-Type": "audio/wav"},
            )
        except httpx.HTTPError as error:
            time.sleep(DOOR_PAUSE_S)
            raise BridgeSilent(str(error)) from error
        if answer.status_code in AGAIN:
            time.sleep(DOOR_PAUSE_S)
            raise BridgeSilent(f"the door answered {answer.status_code}")
        if answer.status_code not in (200, 202):
            raise BridgeRefused(answer.json()["code"], answer.text)

    def _insist(self, work: Callable[[], object]) -> None:
        """Repeat `work` until it is answered, as a backend does that must not lose anything."""
        began_s = time.monotonic()
        while not self._stopping.is_set():
            self.tries += 1
            try:
                work()
            except (BridgeSilent, BrokerError):
                continue
            self.longest_receipt_s = max(self.longest_receipt_s, time.monotonic() - began_s)
            return
        raise InterruptedError("the run was ended before this was answered")

    # ------------------------------------------------------------------------------------- confirming

    def _confirm(self) -> None:
        while (message := self._arrived.get()) is not None:
            with contextlib.suppress(SchemaError, BrokerError):  # it is offered again
                update = decode(ConversationUpdated, message.payload)
                known = self.updates.get(update.conversation_id)
                if known is None or known.updated_version <= update.updated_version:
                    self.updates[update.conversation_id] = update
                if update.state == "final":
                    self.final_s.setdefault(update.conversation_id, time.monotonic())
                event = ConversationEvent(
                    event_id=f"e-{uuid.uuid4().hex}", type=EventType.APPLIED, updated_version=update.updated_version
                )
                self._confirmer.publish(TOPICS.events(update.conversation_id), encode(event))
