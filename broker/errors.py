"""The errors between a program and its broker. Every message ends with the remedy."""

from pathlib import Path


class BrokerError(Exception):
    """Base of every error this room raises."""


class BrokerUnreachable(BrokerError):
    """No connection to the broker could be made in time."""

    def __init__(self, url: str, reason: str) -> None:
        """Name the broker (`url`, without credentials) and why the last attempt failed.

        A reason that ends as a sentence names its remedy itself (`broker/failures.py`).
        """
        self.url = url
        self.reason = reason
        if url.startswith("mqtts://"):
            start = "There: systemctl status mosquitto, omi-broker check DIR. Or is OMI_BROKER_URL wrong?"
        else:
            start = "Join a broker with an invitation, start one with `omi-broker run`, or set OMI_BROKER_URL."
        remedy = f". Is it running and reachable from here? {start}"
        super().__init__(f"no connection to the broker at {url}: {reason}{'' if reason.endswith('.') else remedy}")


class BrokerRefused(BrokerError):
    """The broker refused the connection (user, password, client id, access)."""

    def __init__(self, url: str, reason: str) -> None:
        """Name the broker (`url`, without credentials) and the reason it gave."""
        self.url = url
        self.reason = reason
        super().__init__(
            f"the broker at {url} refused the connection: {reason}. Check OMI_BROKER_USERNAME and "
            "OMI_BROKER_PASSWORD. At a Mosquitto of ours `omi-broker rotate DIR NAME` makes new ones, with an "
            "invitation to join; `omi-broker users` lists those of the embedded broker."
        )


class NotConnected(BrokerError):
    """A publish was tried while no connection exists; nothing was queued."""

    def __init__(self, url: str, reason: str | None) -> None:
        """Name the broker (`url`, without credentials) and why there is no connection, if known."""
        self.url = url
        self.reason = reason
        because = f" ({reason})" if reason else ""
        super().__init__(
            f"not connected to the broker at {url}{because}: nothing was sent or queued. "
            "Offer the message again after the next connect."
        )


class PayloadTooLarge(BrokerError):
    """A message is larger than the broker takes; nothing of it was sent."""

    def __init__(self, *, limit_bytes: int, size_bytes: int) -> None:
        """Give the largest payload this topic may carry and the size of the one refused."""
        self.limit_bytes = limit_bytes
        self.size_bytes = size_bytes
        super().__init__(
            f"the payload has {size_bytes:,} bytes and the broker takes {limit_bytes:,} on this topic: send it in "
            "parts, or raise max_packet_size of the broker (and OMI_ASSUMED_MAX_PACKET_BYTES if it announces none)."
        )


class PortInUse(BrokerError):
    """Another program already listens where the embedded broker should."""

    def __init__(self, host: str, port: int) -> None:
        """Name the address that is taken."""
        self.host = host
        self.port = port
        super().__init__(
            f"{host}:{port} is already in use, perhaps by another broker. Stop that one, or choose another "
            "port with `omi-broker run --port`."
        )


class UnsafeFile(BrokerError):
    """A file that holds secrets can be read by other users, or is not what it should be."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        """Name the file, what is wrong with it and what to do."""
        self.path = path
        super().__init__(f"{path}: {problem}. {remedy}")


class SettingsError(BrokerError):
    """A setting has a wrong value or an unknown name."""

    def __init__(self, name: str, source: str, allowed: str) -> None:
        """Name the setting, where its value came from and what is allowed there."""
        self.name = name
        self.source = source
        self.allowed = allowed
        super().__init__(f"setting {name} (from {source}): {allowed}")
