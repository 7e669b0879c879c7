"""Telling the trouble of whoever serves all conversations from a trouble that some conversations have of their own."""

from __future__ import annotations

COMMON_AFTER = 2  # conversations that failed, with none that was answered between


class CommonTrouble:
    """Counts which conversations failed since one was answered.

    One that fails again after another was answered has a trouble of its own: however many such there are, they say
    nothing of who serves all.
    """

    def __init__(self) -> None:
        """Begin with nothing that failed."""
        self._failed, self._suspects = set[str](), set[str]()

    @property
    def failed(self) -> frozenset[str]:
        """The conversations that failed since one was answered, without those that have a trouble of their own."""
        return frozenset(self._failed)

    @property
    def suspects(self) -> frozenset[str]:
        """The conversations that seem to have a trouble of their own."""
        return frozenset(self._suspects)

    @property
    def is_common(self) -> bool:
        """Whether so many failed that it is no trouble of theirs."""
        return len(self._failed) >= COMMON_AFTER

    def note_failed(self, conversation_id: str) -> bool:
        """Note that one failed; False where it has a trouble of its own."""
        if conversation_id in self._suspects:
            return False
        self._failed.add(conversation_id)
        return True

    def note_answered(self, conversation_id: str) -> frozenset[str]:
        """Note that one was answered; return it and, where the trouble was common, all that failed meanwhile."""
        over = frozenset({conversation_id, *(self._failed if self.is_common else ())})
        self._suspects = (self._suspects | self._failed) - {conversation_id}
        self._failed.clear()
        return over
