"""Room in the queue: how much audio may wait before more of it is refused."""

from __future__ import annotations

import time

from schemas.failure import FailureCode
from vps_bridge.errors import Refusal
from vps_bridge.ledger import Ledger
from vps_bridge.rules.queue_share import QueueUse, is_kept_for_others, may_use_rest

COUNT_EVERY_S = 1.0  # the queue is counted this often, not for every chunk: its limits need not be met exactly


class QueueRoom:
    """What the queue has room for. Runs on the bridge's own thread only."""

    def __init__(self, ledger: Ledger, limit: QueueUse) -> None:
        """Count what waits in this ledger against a limit."""
        self._ledger, self._limit = ledger, limit
        self._counts, self._counted_s, self._accepted_bytes = ledger.jobs.counts(), time.monotonic(), 0
        self._may_use_rest = dict[str, bool]()  # by conversation, since the last count

    def note_accepted(self, size_bytes: int) -> None:
        """Count a chunk that was just accepted."""
        self._accepted_bytes += size_bytes

    def check(self, size_bytes: int, *, reserved_bytes: int, conversation_id: str | None) -> None:
        """Raise `Refusal` where there is no room for so many bytes of a conversation.

        Without `conversation_id`: of one that may use all of the queue. `reserved_bytes`: of chunks that arrive in
        parts.
        """
        now_s = time.monotonic()
        if now_s - self._counted_s > COUNT_EVERY_S:
            self._counts, self._counted_s, self._accepted_bytes = self._ledger.jobs.counts(), now_s, 0
            self._may_use_rest.clear()
        jobs = self._counts.jobs_ready + self._counts.jobs_leased
        used = QueueUse(jobs, self._counts.bytes + self._accepted_bytes + reserved_bytes)
        waits = f"{used.jobs} jobs wait, {used.bytes} bytes of audio are kept"
        if used.jobs >= self._limit.jobs or used.bytes + size_bytes > self._limit.bytes:
            raise Refusal(FailureCode.INGEST_FULL, f"{waits}: keep the audio and publish it later")
        if conversation_id is None or not is_kept_for_others(used, self._limit):
            return
        if conversation_id not in self._may_use_rest:
            own = self._ledger.jobs.use_of(conversation_id)
            self._may_use_rest[conversation_id] = may_use_rest(own, self._limit)
        if not self._may_use_rest[conversation_id]:
            msg = f"{waits}, the rest is for conversations that have begun and use little: publish it later"
            raise Refusal(FailureCode.INGEST_FULL, msg)
