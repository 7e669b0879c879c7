"""News from whoever else writes into a ledger: the bridge looks at once, and looks twice a second anyway."""

from __future__ import annotations

from typing import Protocol


class News(Protocol):
    """Whatever tells of what others write."""

    def close(self) -> None:
        """Tell no more."""


class NoNews:
    """A ledger in a file tells nobody: who writes into it is on the same machine, and is seen at the next look."""

    def close(self) -> None:
        """Do nothing."""
