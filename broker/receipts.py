"""What became of a published message, as far as the broker can know."""

import threading
from enum import StrEnum


class PublishOutcome(StrEnum):
    """The end of a publish. None of them says that a subscriber processed the message."""

    ACKNOWLEDGED = "acknowledged"
    """The broker took it (QoS 0: it was written to the socket)."""
    NO_SUBSCRIBERS = "no_subscribers"
    """The broker took it and had nobody to give it to. Only MQTT 5 says so."""
    REFUSED = "refused"
    """The broker would not have it, for example by ACL. Only MQTT 5 says so."""
    LOST = "lost"
    """The connection ended before the broker's answer: it may or may not have arrived."""
    TIMEOUT = "timeout"
    """`wait` ran out of time; the answer may still come."""


class Receipt:
    """The broker's answer to one publish, now or later. Safe to share between threads."""

    def __init__(self, topic: str, network_thread_id: int | None = None) -> None:
        """Start without an answer. `network_thread_id` is the thread that must never wait."""
        self.topic = topic
        self._network_thread_id = network_thread_id
        self._settled = threading.Event()
        self._outcome: PublishOutcome | None = None
        self._reason = ""

    @property
    def outcome(self) -> PublishOutcome | None:
        """The answer, or None while there is none."""
        return self._outcome

    @property
    def reason(self) -> str:
        """The broker's words, or why there were none."""
        return self._reason

    def wait(self, timeout_s: float) -> PublishOutcome:
        """Block until the answer is known, at most `timeout_s` seconds.

        Raises:
            RuntimeError: called from a session callback, where the answer could never arrive.
        """
        if threading.get_ident() == self._network_thread_id and self._outcome is None:
            msg = "a session callback must not wait for a receipt: keep it and wait in a thread of your own"
            raise RuntimeError(msg)
        self._settled.wait(timeout_s)
        return self._outcome or PublishOutcome.TIMEOUT

    def settle(self, outcome: PublishOutcome, reason: str) -> None:
        """Record the answer; the first one stays. For the session only."""
        if self._outcome is None:
            self._reason = reason
            self._outcome = outcome
            self._settled.set()
