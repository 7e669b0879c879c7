"""Whether a bridge is alive and takes audio, as heartbeats say; of several on one ledger one is enough."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

from omi_diarization_client.errors import NoAnswer
from omi_diarization_client.wire import Message, parse_time

FRESH_S = 30.0
MAX_BRIDGES = 16  # those heard last


class BridgePulse:
    """The latest heartbeat of each bridge. Safe for every thread."""

    def __init__(self) -> None:
        """Start without one."""
        self._changed = threading.Condition()
        self._beats: dict[str, tuple[float, Message]] = {}  # the one heard last is the last

    def note(self, beat: Message, *, retained: bool) -> None:
        """Note a heartbeat. A retained one may be the last word of a dead bridge: it counts only if it is fresh."""
        sent_at = parse_time(beat.get("sent_at"))
        is_fresh = sent_at is not None and abs((datetime.now(UTC) - sent_at).total_seconds()) <= FRESH_S
        if is_fresh or not retained:
            with self._changed:
                name = str(beat.get("bridge_id"))
                self._beats.pop(name, None)
                self._beats[name] = time.monotonic(), beat
                if len(self._beats) > MAX_BRIDGES:
                    del self._beats[next(iter(self._beats))]
                self._changed.notify_all()

    def wait(self, timeout_s: float) -> Message:
        """Return the heartbeat of a bridge that is alive and takes audio. Raises `NoAnswer` where none comes."""
        with self._changed:
            found = self._changed.wait_for(self._find_accepting, timeout_s)
            if found is not None:
                return found
            kept = [beat for _, beat in self._beats.values()]
            full = [beat for beat in kept if beat.get("state") == "online" and not beat.get("accepting", True)]
            if full:
                why = full[-1].get("last_error") or "its queue is full"
                raise NoAnswer(f"the bridge takes no audio now ({why}): keep the audio, try later")
            state = f"its last heartbeat says {kept[-1]['state']}" if kept else "no heartbeat"
            raise NoAnswer(f"no live bridge on this broker ({state}): start `omi-bridge run` on the VPS")

    def _find_accepting(self) -> Message | None:
        for heard_s, beat in reversed(self._beats.values()):
            is_alive = time.monotonic() - heard_s <= FRESH_S and beat.get("state") == "online"
            if is_alive and beat.get("accepting", True):
                return beat
        return None
