"""Whether a bridge is alive and takes audio, as its heartbeats say."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

from omi_diarization_client.errors import NoAnswer
from omi_diarization_client.wire import Message, parse_time

FRESH_S = 30.0


class BridgePulse:
    """The latest heartbeat of the bridge. Safe for every thread."""

    def __init__(self) -> None:
        """Start without one."""
        self._changed = threading.Condition()
        self._beat: Message = {}
        self._heard_s = 0.0

    def note(self, beat: Message, *, retained: bool) -> None:
        """Note a heartbeat. A retained one may be the last word of a dead bridge: it counts only if it is fresh."""
        sent_at = parse_time(beat.get("sent_at"))
        is_fresh = sent_at is not None and abs((datetime.now(UTC) - sent_at).total_seconds()) <= FRESH_S
        if is_fresh or not retained:
            with self._changed:
                self._beat, self._heard_s = beat, time.monotonic()
                self._changed.notify_all()

    def wait(self, timeout_s: float) -> Message:
        """Return the heartbeat of a bridge that is alive and takes audio. Raises `NoAnswer` where none comes."""
        with self._changed:
            if self._changed.wait_for(self._takes_audio, timeout_s):
                return self._beat
            if self._beat.get("state") == "online" and not self._beat.get("accepting", True):
                why = self._beat.get("last_error") or "its queue is full"
                raise NoAnswer(f"the bridge takes no audio now ({why}): keep the audio, try later")
            state = f"its last heartbeat says {self._beat['state']}" if self._beat else "no heartbeat"
            raise NoAnswer(f"no live bridge on this broker ({state}): start `omi-bridge run` on the VPS")

    def _takes_audio(self) -> bool:
        is_alive = time.monotonic() - self._heard_s <= FRESH_S and self._beat.get("state") == "online"
        return is_alive and bool(self._beat.get("accepting", True))
