"""What a backend's clients share: the connection, a publish that the broker forbids, and what a receipt means."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from broker.errors import BrokerError
from broker.receipts import PublishOutcome, Receipt
from broker.session import Incoming, MqttSession
from broker.settings import BrokerSettings
from schemas.conversation import Accepted, Verdict
from schemas.failure import policy_of
from schemas.people import PersonAccepted
from vps_bridge.client.errors import BridgeRefused, PublishForbidden

CONNECT_TIMEOUT_S = 10.0
RETRY_S = 5.0
ASK_AGAIN_S = 60.0  # whether labels that are awaited are there, or will never come


class ConnectedClient:
    """A connection under a random client id, as a context manager."""

    def __init__(
        self, settings: BrokerSettings, filters: Mapping[str, int], on_message: Callable[[Incoming], None]
    ) -> None:
        """Prepare it; `filters` are topic filters and the QoS of each, `on_message` must only store."""
        self._username, self._filters = settings.broker_username, filters
        self._session = MqttSession(settings, client_id=f"backend-{secrets.token_hex(8)}", on_message=on_message)

    def __enter__(self) -> Self:
        """Connect. Raises `BrokerUnreachable` or `BrokerRefused` (of `broker.errors`) with the reason."""
        for topic_filter, qos in self._filters.items():
            self._session.subscribe(topic_filter, qos=qos)
        self._session.start()
        try:
            self._session.wait_connected(timeout_s=CONNECT_TIMEOUT_S)
        except BrokerError:
            self._session.stop()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._session.stop()

    def _wait_sent(self, receipt: Receipt) -> None:
        """Wait until the broker has taken a message. Raises `PublishForbidden` where it says no: MQTT 5 only."""
        if receipt.wait(RETRY_S) is PublishOutcome.REFUSED:
            raise PublishForbidden(receipt.topic, self._username)


def is_taken(receipt: Accepted | PersonAccepted, see: str) -> bool:
    """Return whether the bridge has it; False: send it again later.

    Raises `BridgeRefused` where that is of no use; `see` says where to look if neither the receipt nor the code does.
    """
    if receipt.verdict in (Verdict.ACCEPTED, Verdict.DUPLICATE):
        return True
    code = receipt.reason or str(receipt.verdict)
    policy = policy_of(code)
    if not policy.is_retryable:
        remedy = see if "{job}" in policy.remedy else policy.remedy  # an operator's, of a job
        raise BridgeRefused(code, receipt.message or remedy)
    return False
