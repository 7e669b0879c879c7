"""Whom OMI was told for a segment, and what it may have of it. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

ELSEWHERE = ""
OLD_REPORT_S = 300.0
"""OMI makes a report of what it read up to so long ago: a summary is written in between, and it tries for 36 s."""


class ToldSegment(NamedTuple):
    """Whom OMI was told for a segment: a person of ours, and who that is in OMI; None for nobody.

    `ours` is None too where the person has another name by now, and `ELSEWHERE` where only a conversation that OMI
    merged or split into this one told it. `tried`: whom else OMI may have got from us, where no answer came, or may
    have again. `before`: whom it had before, where that changed not long before `changed_at` (Unix time), or then.
    """

    ours: str | None = None
    theirs: str | None = None
    tried: tuple[str | None, ...] = ()
    before: tuple[str | None, ...] = ()
    changed_at: float = 0.0
    by_hand: str | None = None
    """Whom a person had named here in the line when a report left it out: another conversation may get it."""

    @property
    def is_somebody(self) -> bool:
        """Whether OMI was told that somebody speaks, or may have been, for this conversation."""
        return (self.theirs, self.tried) != (None, ()) and (self.ours != ELSEWHERE or bool(self.tried))

    def may_be(self, theirs: str | None, now: float) -> bool:
        """Whether OMI may have whom it reports from us, or from before we told it another, just before the report.

        Nobody, where it was told so, or had nobody then: it has written what it had read over what it was told.
        """
        if theirs is not None:
            return theirs in (self.theirs, *self.tried, *self.had(now))
        may_have = (*self.tried, *self.had(now))  # tried: it reported nobody before, and was not told again since
        is_told = theirs in may_have if self.theirs is not None else bool(self.tried or self.changed_at)
        return is_told and self.ours != ELSEWHERE

    def had(self, now: float) -> tuple[str | None, ...]:
        """Return whom OMI had so short a time ago that it may still write, or report, that it has them."""
        is_fresh = abs(now - self.changed_at) < OLD_REPORT_S  # not for a day where the clock was ahead by one
        return self.before if is_fresh else ()

    def and_tried(self, tried: tuple[str | None, ...]) -> ToldSegment:
        """Return it, where OMI may have these from us too."""
        return self._replace(tried=tuple({*self.tried, *tried}))

    def reported(self, theirs: str | None) -> ToldSegment:
        """Return it, where OMI reports a person whom it has from us, or has had: it may have that one again."""
        if self.ours == ELSEWHERE:
            return self._replace(theirs=theirs, tried=())
        return self if theirs == self.theirs else self.and_tried((theirs,))

    def or_from(self, elsewhere: ToldSegment | None, theirs: str | None, now: float) -> ToldSegment:
        """Return it, where OMI may have whom it reports from what another conversation told it of the same segment."""
        is_known = theirs is None or self == ToldSegment() or self.may_be(theirs, now)
        if elsewhere is None or is_known or not elsewhere.may_be(theirs, now):
            return self
        return self.and_tried((theirs,))

    def may_have(self, reported: ToldSegment) -> tuple[str | None, ...]:
        """Return whom OMI may have where it is told another just now, or has one again whom it was told before."""
        return (*reported.tried, *self.tried, reported.theirs) if self.tried else reported.tried

    def then(self, ours: str | None, theirs: str | None, had: str | None, now: float) -> ToldSegment:
        """Return what OMI was told once it is told this, where it `had` somebody.

        What was tried and not answered OMI may still do, after this: a proxy gave up waiting for it.
        """
        late = set(self.tried) - set(self.had(now))
        others = {self.theirs, had, *late} - {theirs}
        if not others:
            return ToldSegment(ours, theirs, (), self.before, self.changed_at)
        return ToldSegment(ours, theirs, (), tuple({*self.had(now), *others}), now)


def read_told(said: list[Any]) -> ToldSegment:
    """Return what was told, as the ledger keeps it; it was its first two fields until 2026-11-30."""
    tried, before = (tuple(said[place]) if said[place:] else () for place in (2, 3))
    return ToldSegment(said[0], said[1], tried, before, *said[4:])


def choose_told(told: list[ToldSegment], theirs: str | None, now: float) -> ToldSegment:
    """Return which of several conversations' words on a segment counts: a person's, else the one that fits."""
    fitting = [said for said in told if said == ToldSegment()] or [said for said in told if said.may_be(theirs, now)]
    return (fitting or told)[-1]._replace(ours=ELSEWHERE)
