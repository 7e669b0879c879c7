"""News from whoever else writes into a ledger: the bridge looks at once, and looks twice a second anyway."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

OnNews = Callable[[Collection[str]], None]
"""Called with what others announce: what a bridge tells the others (`Ledger.tell`), or an empty word: look at all."""


class News(Protocol):
    """Whatever tells of what others write."""

    def close(self) -> None:
        """Tell no more."""


class NoNews:
    """A ledger in a file tells nobody: who writes into it is on the same machine, and is seen at the next look."""

    def close(self) -> None:
        """Do nothing."""
