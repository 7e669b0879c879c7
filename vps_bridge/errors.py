"""Errors of the bridge as a whole."""

from __future__ import annotations

from schemas.failure import FailureCode


class AnotherBridge(Exception):
    """A second live bridge serves the same broker and root."""


class Refusal(Exception):
    """Audio or an event that is not accepted; carries the code and words that say what to do."""

    def __init__(self, code: FailureCode, message: str, *, retryable: bool = False) -> None:
        """Name the reason."""
        super().__init__(message)
        self.code, self.message, self.retryable = code, message, retryable
