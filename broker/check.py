"""One check of `omi-agent doctor`: what was examined, what was found, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CheckState(StrEnum):
    """How a check ended. `note`: nothing is broken, or it cannot be found out from here; a person should read it."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    verdict: CheckState
    found: str
    remedy: str | None = None


def ok(name: str, found: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name, CheckState.OK, found)


def note(name: str, found: str, remedy: str | None = None) -> Check:
    """Return a check whose finding a person should read."""
    return Check(name, CheckState.NOTE, found, remedy)


def failed(name: str, found: str, remedy: str | None = None) -> Check:
    """Return a check that found why the agent cannot work. No remedy is needed where the text of an error names it."""
    return Check(name, CheckState.FAILED, found, remedy)
