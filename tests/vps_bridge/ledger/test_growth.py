"""What is asked of a ledger costs the same however many conversations ended: counted in rows and steps, not in time.

A server is asked for its plans as a large ledger gets them. A question whose index is missing, or whose condition an
index does not serve, reads twice as much in a ledger of twice the size, and is named here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from benchmarks.asked_of_ledger import list_questions
from benchmarks.grown_ledger import count_rows, fill, noted
from tests.postgres_server import RunningPostgres
from tests.vps_bridge.ledger.sqlite_steps import count_steps
from tests.vps_bridge.ledger_server import server_of
from vps_bridge.http import metrics, reading
from vps_bridge.ledger import Ledger

SMALL, LARGE = 2_700, 5_400  # `Listing.marks` tells of 2,000
OPEN, FAILED = 30, 10
GROWTH, LITTLE_ROWS, LITTLE_STEPS = 1.3, 200, 2_000
STEPS_AT_ONCE = 100
Grown = dict[int, Ledger]


@pytest.fixture(autouse=True)
def count_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that are done are counted up to fewer than there are here."""
    for module in (reading, metrics):
        monkeypatch.setattr(module, "MAX_COUNTED", 1_000)


@pytest.fixture(scope="module")
def on_server(postgres: RunningPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grown]:
    """Ledgers of both sizes on a server."""
    grown: Grown = {}
    for size in (SMALL, LARGE):
        database = postgres.new_database()
        grown[size] = Ledger(tmp_path_factory.mktemp("on-server"), exclusive=True, server=server_of(postgres, database))
        with postgres.superuser(database) as connection:
            connection.exec_driver_sql("SET search_path TO omi_ledger")
            fill(connection, size, is_open=OPEN, failed=FAILED)
    yield grown
    for ledger in grown.values():
        ledger.close()


@pytest.fixture(scope="module")
def in_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grown]:
    """Ledgers of both sizes in files."""
    grown: Grown = {}
    for size in (SMALL, LARGE):
        grown[size] = Ledger(tmp_path_factory.mktemp("in-file"), exclusive=True)
        with grown[size]._database.writing() as connection:
            fill(connection, size, is_open=OPEN, failed=FAILED)
    yield grown
    for ledger in grown.values():
        ledger.close()


def rows_of(ledger: Ledger, work: Callable[[], object]) -> int:
    """How many rows of large tables a server reads for it."""
    with noted(ledger) as statements:
        work()
    return sum(count_rows(ledger, *one) for one in statements)


def steps_of(ledger: Ledger, work: Callable[[], object]) -> int:
    """How many steps of SQLite's machine it takes."""
    return count_steps(ledger, work, at_once=STEPS_AT_ONCE)


def find_growing(
    grown: Grown, cost_of: Callable[[Ledger, Callable[[], object]], int], little: int, only: str = ""
) -> dict[str, str]:
    """The questions that cost more in the larger ledger, and how much."""
    costs = [
        {what: cost_of(ledger, work) for what, work in list_questions(ledger).items() if only in ("", what)}
        for ledger in grown.values()
    ]
    return {
        what: f"{small:,} and {large:,}"
        for (what, small), large in zip(costs[0].items(), costs[1].values(), strict=True)
        if large > GROWTH * small + little
    }


def test_no_question_costs_a_server_more_with_the_years(on_server: Grown) -> None:
    assert find_growing(on_server, rows_of, LITTLE_ROWS) == {}


def test_no_question_costs_a_file_more_with_the_years(in_files: Grown) -> None:
    assert find_growing(in_files, steps_of, LITTLE_STEPS) == {}


def test_an_index_that_is_missing_is_noticed(on_server: Grown, in_files: Grown) -> None:
    for grown, cost_of, little in ((on_server, rows_of, LITTLE_ROWS), (in_files, steps_of, LITTLE_STEPS)):
        for ledger in grown.values():
            with ledger._database.writing() as connection:
                connection.execute(text("DROP INDEX conversations_enrolments"))
        assert find_growing(grown, cost_of, little, only="enrolments")
