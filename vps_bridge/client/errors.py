"""What goes wrong between a backend and the bridge; every message names the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class ClientError(Exception):
    """The bridge could not be reached, or refused; the message names the remedy."""


class BridgeSilent(ClientError):
    """No live bridge, or no answer in time."""


class PublishForbidden(ClientError):
    """The broker does not let this user publish there."""

    def __init__(self, topic: str, username: str | None) -> None:
        """Name the user to be changed."""
        who = f"user {username!r}" if username else "a client without a user name"
        super().__init__(
            f"the broker does not let {who} publish to {topic}: join with the backend's invitation (omi-bridge "
            "join), or set OMI_BROKER_USERNAME and OMI_BROKER_PASSWORD to the backend's user, OMI_TOPIC_ROOT to its "
            "topics"
        )


class BridgeRefused(ClientError):
    """The bridge refused audio or an event."""

    def __init__(self, code: str, message: str) -> None:
        """Keep the failure code for programs."""
        super().__init__(f"{code}: {message}")
        self.code = code


class FileChanged(ClientError):
    """A file does not hold any more what it held when it was first read."""

    def __init__(self, path: Path) -> None:
        """Name the file."""
        super().__init__(f"{path} changed while it was sent: wait until it is written, then publish it again")


class FolderUnreadable(ClientError):
    """What a watched folder remembers of a recording cannot be read."""

    def __init__(self, path: Path) -> None:
        """Name the file."""
        super().__init__(f"{path} is damaged: delete it, and its recording is looked at again")
