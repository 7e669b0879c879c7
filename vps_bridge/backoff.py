"""When a message or a job may be tried again, by its id."""

from __future__ import annotations

from dataclasses import dataclass

from broker.backoff import Backoff


@dataclass(frozen=True)
class _Attempt:
    due_s: float
    backoff: Backoff


class RetryTimer:
    """When each key is due again: after `min_s`, doubling to `max_s`. Monotonic seconds."""

    def __init__(self, min_s: float, max_s: float) -> None:
        """Start with no key: each is due at once."""
        self._start = Backoff.start(min_s, max_s)
        self._attempts: dict[str, _Attempt] = {}

    def take(self, key: str, now_s: float) -> bool:
        """Whether `key` is due; if so, the next time is set."""
        if not self.is_due(key, now_s):
            return False
        attempt = self._attempts.get(key)
        backoff = self._start if attempt is None else attempt.backoff.longer()
        self._attempts[key] = _Attempt(now_s + backoff.pause_s, backoff)
        return True

    def is_due(self, key: str, now_s: float) -> bool:
        """Whether `take` would say yes."""
        attempt = self._attempts.get(key)
        return attempt is None or now_s >= attempt.due_s

    def resting(self, now_s: float) -> set[str]:
        """Return the keys that are not due."""
        return {key for key, attempt in self._attempts.items() if now_s < attempt.due_s}

    def keep_only(self, keys: set[str]) -> None:
        """Drop every key that is not in `keys`."""
        self._attempts = {key: attempt for key, attempt in self._attempts.items() if key in keys}

    def reset(self, key: str | None = None) -> None:
        """Make a key due at once, or all: a new connection, or a new partner on the other side."""
        if key is None:
            self._attempts.clear()
        else:
            self._attempts.pop(key, None)
