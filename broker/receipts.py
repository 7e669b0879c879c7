"""The broker's answer to a published message."""

import threading
from enum import StrEnum

from paho.mqtt.reasoncodes import ReasonCode

NO_MATCHING_SUBSCRIBERS = 0x10  # MQTT 5.0, section 2.4


class PublishOutcome(StrEnum):
    """How a publish ended. None of these means that a subscriber processed the message."""

    ACKNOWLEDGED = "acknowledged"
    """The broker accepted it (QoS 0: it was written to the socket)."""
    NO_SUBSCRIBERS = "no_subscribers"
    """The broker accepted it, and no client subscribes to its topic. Reported by MQTT 5 only."""
    REFUSED = "refused"
    """The broker refused it, for example by its ACL. Reported by MQTT 5 only."""
    LOST = "lost"
    """The connection ended before the broker's answer: it may or may not have arrived."""
    TIMEOUT = "timeout"
    """`wait` ran out of time; the answer may still come."""


def outcome_of(reason: ReasonCode) -> PublishOutcome:
    """Return what the broker's answer says."""
    if reason.value == NO_MATCHING_SUBSCRIBERS:
        return PublishOutcome.NO_SUBSCRIBERS
    return PublishOutcome.REFUSED if reason.is_failure else PublishOutcome.ACKNOWLEDGED


class Receipt:
    """The broker's answer to one publish, now or later. Safe to share between threads."""

    def __init__(self, topic: str, network_thread_id: int | None = None) -> None:
        """Start without an answer. `network_thread_id` is the thread that must never call `wait`."""
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
        """The broker's reason, or why there was no answer."""
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
        """Record the answer; only the first one counts. Called by the session."""
        if self._outcome is None:
            self._reason = reason
            self._outcome = outcome
            self._settled.set()
