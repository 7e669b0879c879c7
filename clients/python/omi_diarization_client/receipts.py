"""The bridge's receipts, matched to what waits for them."""

from __future__ import annotations

import threading
import time

from omi_diarization_client.errors import RefusedByBridge
from omi_diarization_client.wire import RETRYABLE_CODES, Message


class AwaitedReceipt:
    """The receipt of one chunk or event, under the names by which the bridge may call it."""

    def __init__(self) -> None:
        """Start without one."""
        self.message: Message | None = None
        self.heard = threading.Event()

    def take(self, timeout_s: float) -> Message | None:
        """Return the receipt once, or None where none came in time."""
        if not self.heard.wait(max(0.0, timeout_s)):
            return None
        self.heard.clear()
        return self.message


class AwaitedReceipts:
    """All receipts that somebody waits for. Safe for every thread."""

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self._awaited: dict[str, AwaitedReceipt] = {}

    def expect(self, name: str, awaited: AwaitedReceipt) -> None:
        """Wait for the receipt with this id of an event or a chunk or, where no id can be read, sha256 of a payload."""
        with self._lock:
            self._awaited[name] = awaited

    def forget(self, awaited: AwaitedReceipt) -> None:
        """Stop waiting."""
        with self._lock:
            for name in [name for name, held in self._awaited.items() if held is awaited]:
                del self._awaited[name]

    def settle(self, message: Message) -> bool:
        """Hand a receipt to who waits for it. Returns whether it says that new audio or a new event is taken."""
        name = message.get("event_id") or message.get("chunk_id") or message.get("sha256")
        with self._lock:
            awaited = self._awaited.get(str(name))
        if awaited is None:
            return False
        awaited.message = message
        awaited.heard.set()
        return message.get("verdict") in ("accepted", "duplicate")


def is_taken(receipt: Message) -> bool:
    """Return whether the bridge has it; False: send it again later.

    Raises `RefusedByBridge` where sending again is of no use.
    """
    verdict = str(receipt.get("verdict"))
    if verdict in ("accepted", "duplicate"):
        return True
    code = str(receipt.get("reason") or verdict)
    if code not in RETRYABLE_CODES:
        remedy = "on the VPS `omi-bridge failed` lists what was refused"
        raise RefusedByBridge(code, str(receipt.get("message") or remedy))
    return False


def left_s(deadline_s: float) -> float:
    """Return the seconds until a moment of the monotonic clock."""
    return max(0.0, deadline_s - time.monotonic())
