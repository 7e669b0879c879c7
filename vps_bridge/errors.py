"""Errors of the bridge as a whole."""

from __future__ import annotations

import errno
from pathlib import Path

from schemas.failure import FailureCode, policy_of


class AnotherBridge(Exception):
    """A second live bridge serves the same broker and root."""


class LabellingFailed(Exception):
    """A conversation's labels could not be worked out: an error, a process that died, or too much time."""


class StoreUnavailable(Exception):
    """A store that cannot be used now; the message says why and what to do.

    What was asked of it may be done or not. Asked again, under the same key where it has one, it is done once.
    """

    asks_for_s: float = 0.0
    """How long the store asks to be left alone."""


class LedgerUnavailable(StoreUnavailable):
    """The ledger's server cannot be used now. What was to be written may be or not; nothing of it is promised."""


class CommitsInDoubt(LedgerUnavailable):
    """A connection ended before all that was written or read through it was on the server's disk: it may be undone."""


class StoreMisbehaves(StoreUnavailable):
    """A store at another side that answers what it may not: nothing of it is believed."""


class StoreConfusesConversations(StoreMisbehaves):
    """A store that takes one conversation for another: what it is told to do, it would do to that one."""


class Refusal(Exception):
    """Audio or an event that is not accepted; carries the code and words that say what to do."""

    def __init__(self, code: FailureCode, message: str) -> None:
        """Name the reason."""
        super().__init__(message)
        self.code, self.message = code, message

    @property
    def is_retryable(self) -> bool:
        """Whether the same, sent again later, may be accepted."""
        return policy_of(self.code).is_retryable


_GIVE_BACK = "give its data directory back to the user that the bridge runs as (chown -R, chmod 700)"
_DISK_REMEDIES = {
    errno.ENOENT: "restart the bridge: its spool directory is gone, and is made when it starts",
    errno.EACCES: _GIVE_BACK,
    errno.EPERM: _GIVE_BACK,
    errno.EROFS: "mount the disk of its data directory for writing",
    errno.ESTALE: "send it again then",  # `DatabaseMoved` says what to do
    errno.EIO: "look after the disk of the VPS: it fails (dmesg)",
}


def refusal_of(error: OSError) -> Refusal:
    """Return what to tell the publisher of audio that could not be written."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        msg = f"the bridge has too many files open ({error.strerror}): keep the audio, raise LimitNOFILE of its service"
        return Refusal(FailureCode.INGEST_FULL, msg)
    remedy = _DISK_REMEDIES.get(error.errno or 0, "make room on the VPS")
    msg = f"the bridge's disk refuses ({error.strerror}): keep the audio, {remedy}"
    return Refusal(FailureCode.DISK_FULL, msg)


def event_id_conflict(event_id: str) -> Refusal:
    """Return what to tell who sends another event under an id that was used."""
    msg = f"another event with the id {event_id!r} was taken already: send this one under an id of its own"
    return Refusal(FailureCode.EVENT_ID_CONFLICT, msg)


class NoAgent(Exception):
    """No agent is live and allowed, so that who asks for an answer at once gets none."""


class DatabaseMoved(OSError):
    """A file that was moved away or replaced while it is in use: nothing is promised any more."""

    def __init__(self, path: Path) -> None:
        said = "it was moved away or replaced while the bridge uses it: put it back as it was, with its -wal and -shm"
        super().__init__(errno.ESTALE, said, str(path))
