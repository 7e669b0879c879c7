"""What can go wrong; every message names the remedy."""


class OmiClientError(Exception):
    """Something that the caller can do something about; the message says what."""


class BrokerUnavailable(OmiClientError):
    """The broker cannot be reached, or does not let this user in."""


class NotAllowed(OmiClientError):
    """The broker does not let this user publish or listen there (told by brokers of MQTT 5)."""


class NoAnswer(OmiClientError):
    """No live bridge, or no answer in time."""


class AudioChanged(OmiClientError):
    """A file does not hold any more what it held when it was first read."""


class RefusedByBridge(OmiClientError):
    """The bridge refused audio or an event, and sending it again would not help."""

    def __init__(self, code: str, message: str) -> None:
        """Keep the failure code, such as `audio.undecodable`, for programs."""
        super().__init__(f"{code}: {message}")
        self.code = code
