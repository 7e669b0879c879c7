"""The topic filters of a session, and what the broker answered to each."""

from collections.abc import Mapping

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.matcher import MQTTMatcher
from paho.mqtt.reasoncodes import ReasonCode


class Subscriptions:
    """The filters that a session asks for on every connection. The lock of the session guards it."""

    def __init__(self) -> None:
        self._qos_of: dict[str, int] = {}  # by filter
        self._matcher = MQTTMatcher()  # type: ignore[no-untyped-call]  # paho has no types for it
        self._refused: dict[str, str] = {}  # filter -> the broker's reason
        self._unanswered: dict[int, str] = {}  # message id -> filter

    @property
    def is_answered(self) -> bool:
        """Whether the broker has answered every SUBSCRIBE of this connection."""
        return not self._unanswered

    @property
    def refused(self) -> Mapping[str, str]:
        """Filters that the broker did not grant on the latest connection, with its reason."""
        return dict(self._refused)

    def add(self, topic_filter: str, qos: int) -> None:
        """Ask for `topic_filter` from the next connection on."""
        self._qos_of[topic_filter] = qos
        self._matcher[topic_filter] = True

    def request(self, client: Client, topic_filter: str) -> None:
        """Send the SUBSCRIBE of one filter."""
        result, mid = client.subscribe(topic_filter, self._qos_of[topic_filter])
        if result == MQTTErrorCode.MQTT_ERR_SUCCESS and mid is not None:
            self._unanswered[mid] = topic_filter

    def request_all(self, client: Client) -> None:
        """Send a SUBSCRIBE for each filter on a new connection."""
        self._refused.clear()
        for topic_filter in self._qos_of:
            self.request(client, topic_filter)

    def answer(self, mid: int, reasons: list[ReasonCode]) -> str | None:
        """Note the broker's answer to one SUBSCRIBE (each has one filter); return its filter, if it was waited for."""
        topic_filter = self._unanswered.pop(mid, None)
        if topic_filter is not None and reasons[0].is_failure:
            self._refused[topic_filter] = reasons[0].getName()
        return topic_filter

    def forget_unanswered(self) -> None:
        """Expect no more answers: the connection has ended."""
        self._unanswered.clear()

    def match(self, topic: str) -> bool:
        """Say whether any filter matches `topic`."""
        return any(self._matcher.iter_match(topic))  # type: ignore[no-untyped-call]  # as above
