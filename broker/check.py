"""One check of a `doctor` command: what was examined, what was found, and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class CheckState(StrEnum):
    """How a check ended. `note`: nothing is broken, or it cannot be found out from here; a person should read it."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


STYLES = {CheckState.OK: "green", CheckState.NOTE: "yellow", CheckState.FAILED: "red"}
VERDICT_CHARS = 6  # of the longest verdict: on a terminal they stand in one column


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    verdict: CheckState
    found: str
    remedy: str | None = None

    @property
    def words(self) -> str:
        """What a person reads of it beside the verdict."""
        return f"{self.name}: {self.found}" + (f" → {self.remedy}" if self.remedy else "")


def ok(name: str, found: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name, CheckState.OK, found)


def note(name: str, found: str, remedy: str | None = None) -> Check:
    """Return a check whose finding a person should read."""
    return Check(name, CheckState.NOTE, found, remedy)


def failed(name: str, found: str, remedy: str | None = None) -> Check:
    """Return a check that found what is broken. No remedy is needed where the text of an error names it."""
    return Check(name, CheckState.FAILED, found, remedy)


def print_checks(console: Console, checks: Iterable[Check]) -> None:
    """Print a line for each check: its verdict in colour, then what a person reads of it."""
    for check in checks:
        console.print(f"{check.verdict:{VERDICT_CHARS}}", style=STYLES[check.verdict], end=" ")
        console.print(check.words, markup=False, highlight=False, soft_wrap=True)
