"""The audio of one job on its way in: what has been asked for, what is here, what to ask for next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.backoff import Backoff
from mac_agent.byte_ranges import Range, split_ranges
from mac_agent.inference import ChunkSource
from schemas.agent import MAX_WANT_PARTS, AgentWant, ByteRange, HeldJobState

if TYPE_CHECKING:
    from mac_agent.inbox import Inbox, InboxFile
    from schemas.agent import AgentControl, OfferedChunk
    from schemas.audio import AudioPart

MAX_CORRUPT_CHUNKS = 2  # complete chunks with a wrong sha256: after that the source is wrong, not the transfer


@dataclass(frozen=True)
class WantPolicy:
    """How much to ask for at once, and when to ask again."""

    window: int
    """Parts asked for and not yet here, of all jobs together."""
    part_bytes: int
    pause: Backoff
    """How long to wait for parts that were asked for; doubles while none comes."""


@dataclass
class _IncomingChunk:
    offered: OfferedChunk
    handle: int
    verified: bool = False
    corrupt: int = 0
    asked: dict[Range, float] = field(default_factory=dict)
    """Parts asked for and not yet here, and when (monotonic seconds)."""


@dataclass
class ActiveJob:
    """A job from its offer until its result is in the outbox."""

    offer: AgentControl
    job_id: str
    lease_id: str
    conversation_id: str
    state: HeldJobState = HeldJobState.RECEIVING
    token: int | None = None
    """The worker's name for the run of this job."""
    last_bytes_s: float = 0.0
    """When the last new bytes came."""
    pause: Backoff | None = None
    refused_parts: int = 0
    chunks: list[_IncomingChunk] = field(default_factory=list)

    @property
    def total_bytes(self) -> int:
        """How much audio the job is."""
        return sum(chunk.bytes for chunk in self.offer.chunks)

    def open_files(self, inbox: Inbox, now_s: float, policy: WantPolicy) -> None:
        """Make room for every chunk. Raises OSError where the disk is full; what was made is then dropped."""
        self.last_bytes_s, self.pause = now_s, policy.pause
        try:
            for offered in self.offer.chunks:
                self.chunks.append(_IncomingChunk(offered, inbox.open_file(offered.bytes, offered.sha256)))
        except OSError:
            self.drop_files(inbox)
            raise

    def drop_files(self, inbox: Inbox) -> None:
        """Unlink all audio of this job."""
        for chunk in self.chunks:
            inbox.drop(chunk.handle)
        self.chunks = []

    def outstanding(self) -> int:
        """Return how many parts were asked for and are not here."""
        return sum(len(chunk.asked) for chunk in self.chunks)

    def forget_asked(self) -> None:
        """Take every part asked for as lost: the connection or the bridge is a new one."""
        for chunk in self.chunks:
            chunk.asked.clear()

    def next_wants(self, inbox: Inbox, room: int, now_s: float, policy: WantPolicy) -> list[AgentWant]:
        """Return what to ask for now, of at most `room` parts, and take it as asked.

        What did not come within the pause is asked for again, each time after twice the pause.
        """
        asked_s = [moment for chunk in self.chunks for moment in chunk.asked.values()]
        pause = self.pause or policy.pause
        if asked_s and now_s - max(min(asked_s), self.last_bytes_s) > pause.pause_s:
            room += len(asked_s)
            self.forget_asked()
            self.pause = pause.longer()
        wants = []
        for chunk in self.chunks:
            if room <= 0:
                break
            missing = _without(inbox.file(chunk.handle).missing, chunk.asked)
            parts = split_ranges(missing, policy.part_bytes, min(room, MAX_WANT_PARTS))
            if parts:
                room -= len(parts)
                chunk.asked |= dict.fromkeys(parts, now_s)
                wants.append(self._want(chunk.offered.chunk_id, parts))
        return wants

    def take_part(self, inbox: Inbox, part: AudioPart, now_s: float, policy: WantPolicy) -> None:
        """Write a part of this job's audio.

        Raises:
            PartRefused: it is not what was asked for; it is missing still, and asked for again at once.
            OSError: the disk is full.
        """
        for chunk in self.chunks:
            if chunk.offered.chunk_id != part.chunk_id or chunk.verified:
                continue
            # Arrived, right or wrong: it is not on its way any more.
            end = part.byte_offset + len(part.audio)
            chunk.asked = {asked: at for asked, at in chunk.asked.items() if not _touches(asked, part.byte_offset, end)}
            if inbox.write_part(chunk.handle, part.byte_offset, part.audio, part.part_sha256):
                self.last_bytes_s, self.pause = now_s, policy.pause
            return

    def verify_complete(self, inbox: Inbox) -> OfferedChunk | None:
        """Check the chunks that have all their bytes; the job is queued when all are right.

        Returns:
            A chunk that came whole and wrong too often, if there is one.
        """
        for chunk in self.chunks:
            if chunk.verified or not inbox.file(chunk.handle).is_complete:
                continue
            chunk.verified = inbox.verify(chunk.handle)
            if not chunk.verified:
                chunk.corrupt += 1
                chunk.asked.clear()
                if chunk.corrupt >= MAX_CORRUPT_CHUNKS:
                    return chunk.offered
        if self.chunks and all(chunk.verified for chunk in self.chunks):
            self.state = HeldJobState.QUEUED
        return None

    def received_ratio(self, inbox: Inbox) -> float:
        """Return the share of the job's bytes that is here."""
        files: list[InboxFile] = [inbox.file(chunk.handle) for chunk in self.chunks]
        total = sum(entry.total_bytes for entry in files)
        return sum(entry.received_bytes for entry in files) / total if total else 1.0

    def sources(self, inbox: Inbox) -> tuple[ChunkSource, ...]:
        """Return what the worker needs to read the chunks."""
        return tuple(
            ChunkSource(
                path=inbox.file(chunk.handle).path,
                encoding=chunk.offered.encoding,
                sample_rate=chunk.offered.sample_rate,
                channels=chunk.offered.channels,
                start_s=chunk.offered.start_s,
            )
            for chunk in self.chunks
        )

    def _want(self, chunk_id: str, parts: list[Range]) -> AgentWant:
        return AgentWant(
            job_id=self.job_id,
            lease_id=self.lease_id,
            chunk_id=chunk_id,
            ranges=tuple(ByteRange(start=start, end=end) for start, end in parts),
        )


def _touches(asked: Range, start: int, end: int) -> bool:
    """Whether the part at [start, end) settles the range asked for: it reaches its end."""
    return start < asked[1] <= end


def _without(missing: list[Range], asked: dict[Range, float]) -> list[Range]:
    """Return `missing` minus what is already on its way."""
    left = []
    for start, end in missing:
        cursor = start
        for asked_start, asked_end in sorted(asked):
            if asked_end <= cursor or asked_start >= end:
                continue
            if asked_start > cursor:
                left.append((cursor, asked_start))
            cursor = max(cursor, asked_end)
        if cursor < end:
            left.append((cursor, end))
    return left
