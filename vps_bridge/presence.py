"""What the bridge says of itself in its heartbeat, and what it does when it meets another bridge."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from importlib.metadata import version as package_version

from schemas.bridge import BridgeHeartbeat, BridgeState, QueueState, WebhookState
from schemas.heartbeat import must_yield
from schemas.record import MAX_COUNT, MAX_DURATION_S
from vps_bridge.errors import AnotherBridge
from vps_bridge.ledger.records import QueueCounts
from vps_bridge.settings import BridgeSettings

MAX_LISTED_AGENTS = 100  # what a heartbeat holds


class Presence:
    """One run of the bridge: its instance id, when it began, and when its next heartbeat is due."""

    def __init__(self, settings: BridgeSettings, ledger_id: str) -> None:
        """Begin now; the first heartbeat is due at once."""
        self._settings, self._ledger_id = settings, ledger_id
        self.instance_id = secrets.token_hex(8)
        self._started_at, self.started_s = datetime.now(UTC), time.monotonic()
        # Read once: it is in a file, and a bridge that can open none any more must not fall silent.
        self._versions = {"omi-diarization": package_version("omi-diarization")}
        self._due_s = 0.0

    def is_due(self, now_s: float) -> bool:
        """Whether a heartbeat is to be sent now."""
        return now_s >= self._due_s

    def beat_soon(self) -> None:
        """Let the next heartbeat be due at once: somebody has to learn of a change."""
        self._due_s = 0.0

    def note_beat(self, now_s: float) -> None:
        """Note that a heartbeat was sent."""
        self._due_s = now_s + self._settings.heartbeat_s

    def make_beat(self, state: BridgeState) -> BridgeHeartbeat:
        """Return a heartbeat without what only a serving bridge knows: also the will and the farewell."""
        return BridgeHeartbeat(
            bridge_id=self._settings.bridge_id,
            instance_id=self.instance_id,
            ledger_id=self._ledger_id,
            state=state,
            sent_at=datetime.now(UTC),
            started_at=self._started_at,
            uptime_s=time.monotonic() - self.started_s if state is BridgeState.ONLINE else None,
            versions=self._versions,
            accepting=False,
        )

    def make_online_beat(
        self,
        *,
        live: list[str],
        waiting: list[str],
        counts: QueueCounts,
        dropped: int,
        has_room: bool,
        webhook: WebhookState | None,
        last_error: str | None,
    ) -> BridgeHeartbeat:
        """Return the heartbeat of a bridge that serves.

        Args:
            live: allowed agents that are live.
            waiting: live agents that nobody has allowed yet.
            counts: what waits.
            dropped: messages since the start that were not let in.
            has_room: whether disk and bucket have room for audio.
            webhook: what its receiver has not confirmed; None where it is off.
            last_error: what an operator should know.
        """
        queue = describe_queue(counts, time.time())
        return self.make_beat(BridgeState.ONLINE).model_copy(
            update={
                "accepting": has_room and allows_more(queue, self._settings),
                "agents_live": len(live),
                "agents_live_ids": tuple(live[:MAX_LISTED_AGENTS]),
                "agents_waiting": tuple(waiting[:MAX_LISTED_AGENTS]),
                "queue": queue,
                "messages_dropped": min(dropped, MAX_COUNT),
                "webhook": webhook,
                "last_error": last_error,
            }
        )

    def note_heartbeat(self, beat: BridgeHeartbeat) -> None:
        """Take in a live heartbeat of a bridge. Of two live bridges the younger stops: raises `AnotherBridge`.

        See `must_yield` for which of them is older.
        """
        if beat.instance_id == self.instance_id:
            if beat.state is not BridgeState.ONLINE:
                self.beat_soon()  # the will of a connection of ours that is no more
            return
        self.beat_soon()  # the other one must hear of us, and may have covered our retained beat
        uptime_s = time.monotonic() - self.started_s
        if beat.state is BridgeState.ONLINE and must_yield(uptime_s, self.instance_id, beat):
            msg = (
                f"bridge {beat.bridge_id} (ledger {beat.ledger_id}) already serves {self._settings.topic_root} on this "
                "broker: stop it, or give this one another --topic-root"
            )
            raise AnotherBridge(msg)


def describe_queue(counts: QueueCounts, now: float) -> QueueState:
    """Return what a heartbeat says of the queue. `now` is Unix time: for people only."""
    oldest_s = 0.0 if counts.oldest_at is None else now - counts.oldest_at
    return QueueState(
        chunks_waiting=counts.chunks_waiting,
        jobs_ready=counts.jobs_ready,
        jobs_leased=counts.jobs_leased,
        jobs_failed=counts.jobs_failed,
        conversations_failed=counts.conversations_failed,
        bytes=counts.bytes,
        oldest_s=min(MAX_DURATION_S, max(0.0, oldest_s)),
        chunks_refused=counts.chunks_refused,
    )


def allows_more(queue: QueueState, settings: BridgeSettings) -> bool:
    """Whether the queue's limits allow more."""
    is_full = queue.jobs_ready + queue.jobs_leased >= settings.max_queue_jobs
    return not is_full and queue.bytes < settings.max_queue_bytes
