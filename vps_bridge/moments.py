"""Times of the calendar, made of the seconds that the ledger keeps."""

from __future__ import annotations

from datetime import UTC, datetime

_FIRST_S = datetime.min.replace(tzinfo=UTC).timestamp()
_LAST_S = datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()


def to_moment(unix_s: float) -> datetime:
    """Return what so many seconds since 1970 stand for; beyond the years 1 to 9999 the first or last second of them.

    Programs send 9999-12-31T23:59:59.999999 where they have no time: as seconds it is rounded up to the year 10000.
    """
    return datetime.fromtimestamp(min(max(unix_s, _FIRST_S), _LAST_S), UTC)
