"""Beside a self-hosted OMI backend: what its pusher hears goes to the bridge, in the conversation it belongs to.

The pusher is the only place where samples, their times and the conversation's id meet. In `backend/routers/pusher.py`,
where a WebSocket's binary messages are read, three lines are added (one file, nothing else is patched):

    from omi_publish import PusherTap                       # this file, beside it
    tap = PusherTap.from_environment(uid, sample_rate)      # where the socket is accepted
    tap.frame(data)                                         # for each message, before it is dealt with
    tap.close()                                             # where the socket ends

It fails open: nothing of it raises, waits or grows, whatever broker and bridge do; what cannot be kept is dropped and
counted in the log, and the backend goes on as without it. Off unless OMI_BROKER_URL is set. It never met a real
backend: it is written from the frames that the pusher's source describes, and tested on frames made so.
"""

from __future__ import annotations

import logging
import os
import queue
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from omi_diarization_client import Client, OmiClientError, RefusedByBridge

LOG = logging.getLogger("omi_diarization.publish")
AUDIO_FRAME, CONVERSATION_FRAME = (
    101,
    103,
)  # of the others none says where audio belongs, a transcript's id least of all
SAMPLE_BYTES = 2
CHUNK_S = 15.0
GAP_S = 0.5  # a longer one begins a chunk of its own, with its own time
UNPLACED_S = 60.0  # audio before the first conversation id is kept so long
MAX_WAITING = 64  # chunks and events that wait for the bridge, 30 MB; further ones are dropped
SEND_TIMEOUT_S, RETRY_S = 120.0, 5.0
MAX_BEGUN = 100


@dataclass
class HeardStretch:
    """Samples without a gap, and when the first was heard (Unix seconds)."""

    began_s: float
    samples: bytearray = field(default_factory=bytearray)

    def seconds(self, sample_rate: int) -> float:
        """Return how long it is."""
        return len(self.samples) / SAMPLE_BYTES / sample_rate


@dataclass(frozen=True)
class TapJob:
    """Something to tell the bridge: a chunk, or without samples that the conversation is complete."""

    conversation_id: str
    uid: str
    began_s: float
    samples: bytes | None


class PusherFrames:
    """Turns a socket's frames into jobs, by conversation. Pure: it is given frames, and hands jobs on."""

    def __init__(self, uid: str, sample_rate: int, hand_on: Callable[[TapJob], None]) -> None:
        """Start without a conversation."""
        self._uid, self._rate, self._hand_on = uid, sample_rate, hand_on
        self._conversation: str | None = None
        self._stretches: list[HeardStretch] = []

    def frame(self, data: bytes) -> None:
        """Take one binary message. Raises `struct.error` or `UnicodeDecodeError` where it is shorter or other."""
        (kind,) = struct.unpack_from("<I", data)
        if kind == AUDIO_FRAME:
            (heard_s,) = struct.unpack_from("<d", data, 4)
            self._take_audio(heard_s, data[12:])
        elif kind == CONVERSATION_FRAME:
            self._switch(data[4:].decode().strip())

    def close(self) -> None:
        """Hand on what is left, and that the conversation is complete: the socket is closed."""
        self._end_conversation()

    def _take_audio(self, heard_s: float, samples: bytes) -> None:
        last = self._stretches[-1] if self._stretches else None
        expected_s = last.began_s + last.seconds(self._rate) if last is not None else heard_s
        if last is None or abs(heard_s - expected_s) > GAP_S:
            if self._conversation is not None:
                self._flush()
            self._stretches.append(HeardStretch(heard_s))
        self._stretches[-1].samples += samples
        if self._conversation is not None and self._stretches[-1].seconds(self._rate) >= CHUNK_S:
            self._flush()
        if self._conversation is None:
            while self._stretches and self._kept_s() > UNPLACED_S:
                self._stretches.pop(0)

    def _kept_s(self) -> float:
        return sum(stretch.seconds(self._rate) for stretch in self._stretches)

    def _switch(self, conversation_id: str) -> None:
        """Go to another conversation: what was heard before belongs to the one before, to the last sample."""
        if conversation_id != self._conversation:
            self._end_conversation()
            self._conversation = conversation_id or None

    def _end_conversation(self) -> None:
        if self._conversation is not None:
            self._flush()
            self._hand_on(TapJob(self._conversation, self._uid, 0.0, None))
            self._conversation = None

    def _flush(self) -> None:
        assert self._conversation is not None  # noqa: S101 - of the callers above
        for stretch in self._stretches:
            self._hand_on(TapJob(self._conversation, self._uid, stretch.began_s, bytes(stretch.samples)))
        self._stretches.clear()


class TapPublisher:
    """Sends jobs from a thread of its own. One serves all sockets of a process."""

    def __init__(self, connect: Callable[[], Client], sample_rate: int) -> None:
        """Connect when the first job comes; `connect` makes a client."""
        self._connect, self._rate = connect, sample_rate
        self._jobs: queue.Queue[TapJob | None] = queue.Queue(MAX_WAITING)
        self.dropped = 0
        self._client: Client | None = None
        self._ended = threading.Event()
        self._begun: list[str] = []  # the latest conversations
        self._thread = threading.Thread(target=self._work, name="omi-diarization", daemon=True)
        self._thread.start()

    def put(self, job: TapJob) -> None:
        """Take a job, or drop it where too many wait."""
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self.dropped += 1
            LOG.warning(
                "dropped audio of %s: the bridge does not keep up; %d so far", job.conversation_id, self.dropped
            )

    def stop(self, timeout_s: float = 10.0) -> None:
        """Send what waits, if it can be sent in time, and end."""
        with suppress(queue.Full):
            self._jobs.put(None, timeout=timeout_s)
            self._thread.join(timeout_s)
        self._ended.set()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            while not self._is_dealt_with(job):  # what comes meanwhile waits, up to `MAX_WAITING`
                if self._ended.wait(RETRY_S):
                    return
        if self._client is not None:
            self._client.__exit__(None, None, None)

    def _is_dealt_with(self, job: TapJob) -> bool:
        try:
            if self._client is None:
                self._client = self._connect().__enter__()
            self._send(self._client, job)
        except (RefusedByBridge, ValueError) as error:
            LOG.warning("not published, %s: %s", job.conversation_id, error)
        except (OmiClientError, OSError) as error:
            LOG.warning("waits, %s: %s", job.conversation_id, error)
            return False
        return True

    def _send(self, client: Client, job: TapJob) -> None:
        if job.conversation_id not in self._begun:
            # Without a time: only the backend knows where its transcript begins, and the bridge searches for it.
            client.start(job.conversation_id, owner=job.uid, timeout_s=SEND_TIMEOUT_S)
            note_owner(job.conversation_id, job.uid)
            self._begun = [*self._begun[-MAX_BEGUN:], job.conversation_id]
        if job.samples is None:
            client.complete(job.conversation_id, timeout_s=SEND_TIMEOUT_S)
            return
        client.send_audio(
            job.conversation_id,
            job.samples,
            captured_at=datetime.fromtimestamp(job.began_s, UTC),
            encoding="pcm_s16le",
            sample_rate=self._rate,
            channels=1,
            timeout_s=SEND_TIMEOUT_S,
        )


def note_owner(conversation_id: str, uid: str) -> None:
    """Append whose conversation it is to the file of OMI_OWNERS_FILE, where `labels.py` looks it up."""
    path = os.environ.get("OMI_OWNERS_FILE")
    if path:
        with open(path, "a", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(f"{conversation_id}\t{uid}\n")


class PusherTap:
    """What the pusher calls, for one socket. Nothing here raises."""

    _publishers: dict[int, TapPublisher] = {}  # noqa: RUF012 - shared by all sockets, on purpose
    _lock = threading.Lock()

    def __init__(self, uid: str, sample_rate: int, publisher: TapPublisher | None) -> None:
        """Listen to one socket; without a publisher, to nothing."""
        self._frames = PusherFrames(uid, sample_rate, publisher.put) if publisher is not None else None

    @classmethod
    def from_environment(cls, uid: str, sample_rate: int) -> PusherTap:
        """Return a tap with the broker of OMI_BROKER_URL, _USERNAME, _PASSWORD, _CA_FILE; off where there is none."""
        if not os.environ.get("OMI_BROKER_URL"):
            return cls(uid, sample_rate, None)
        with cls._lock:
            publisher = cls._publishers.get(sample_rate)
            if publisher is None:
                publisher = cls._publishers[sample_rate] = TapPublisher(client_of_environment, sample_rate)
        return cls(uid, sample_rate, publisher)

    def frame(self, data: bytes) -> None:
        """Take one binary message of the socket."""
        self._guarded(lambda frames: frames.frame(data))

    def close(self) -> None:
        """The socket is closed."""
        self._guarded(lambda frames: frames.close())

    def _guarded(self, use: Callable[[PusherFrames], Any]) -> None:
        if self._frames is None:
            return
        try:
            use(self._frames)
        except Exception as error:  # noqa: BLE001 - whatever it is, the backend must go on
            LOG.warning("a frame was not understood: %s", type(error).__name__)


def client_of_environment() -> Client:
    """Return a client of the broker that the environment names."""
    get = os.environ.get
    return Client(
        os.environ["OMI_BROKER_URL"],
        get("OMI_BROKER_USERNAME"),
        get("OMI_BROKER_PASSWORD"),
        get("OMI_BROKER_CA_FILE"),
        root=get("OMI_TOPIC_ROOT", "omi/v1"),
    )
