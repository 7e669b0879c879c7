"""Counting what a ledger in a file does in SQLite's own steps: they are the same on every machine, times are not."""

from __future__ import annotations

from collections.abc import Callable

from vps_bridge.ledger import Ledger


def count_steps(ledger: Ledger, work: Callable[[], object], *, at_once: int) -> int:
    """How many steps of SQLite's machine `work` takes, to the nearest `at_once`."""
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    with ledger._database.reading() as connection:
        driver = connection.connection.driver_connection
    assert driver is not None
    driver.set_progress_handler(tick, at_once)
    try:
        work()
    finally:
        driver.set_progress_handler(None, 0)
    return ticks * at_once
