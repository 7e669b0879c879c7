"""Messages and subscriptions that the broker refused: a person must put that right, and learns of it from the log."""

import structlog

_log = structlog.get_logger("broker.session")
MAX_TOPICS = 20  # told of on one connection: each conversation has topics of its own
REMEDY = (
    "every agent and bridge has a user with rights under its own id only: run `omi-broker init DIR` again with "
    "--agent OMI_AGENT_ID or --bridge-id OMI_BRIDGE_ID as this program has it, and reload Mosquitto"
)


class RefusalLog:
    """Says once of each topic of a connection that the broker takes nothing on it from us. For the network thread."""

    def __init__(self, client_id: str) -> None:
        """Name this client in the log."""
        self._client_id = client_id
        self._topics = set[str]()

    def note(self, topic: str, reason: str) -> None:
        """Take in a refusal, with the broker's reason."""
        if topic in self._topics or len(self._topics) >= MAX_TOPICS:
            return
        self._topics.add(topic)
        _log.error("publish refused", client_id=self._client_id, topic=topic, reason=reason, remedy=REMEDY)

    def note_filter(self, topic_filter: str, reason: str) -> None:
        """Take in that a subscription was refused: each connection asks once."""
        _log.error(
            "subscription refused", client_id=self._client_id, topic_filter=topic_filter, reason=reason, remedy=REMEDY
        )

    def begin_connection(self) -> None:
        """Say it anew: rights may have changed."""
        self._topics.clear()
