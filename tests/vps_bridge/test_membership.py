"""Which bridges of a ledger are live, as each of them sees it: one that hung, and a server that was away."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vps_bridge.ledger_server import empty
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.server_connection import LedgerServer
from vps_bridge.membership import Membership
from vps_bridge.rules.ownership import BridgePlaces, choose_owner
from vps_bridge.settings import BridgeSettings

IDS = ("a", "b")
NAMES = [f"c{number}" for number in range(20)]
PLACES = BridgePlaces({"spool_url": "bucket"})


@pytest.fixture
def ledgers(ledger_server: LedgerServer, tmp_path: Path) -> Iterator[list[Ledger]]:
    empty(ledger_server, tmp_path)
    opened = [Ledger(tmp_path / name, exclusive=True, server=ledger_server, bridge_id=name) for name in IDS]
    yield opened
    for ledger in opened:
        ledger.close()


def join_both(ledgers: list[Ledger], tmp_path: Path) -> list[Membership]:
    both = [
        Membership(BridgeSettings(data_dir=tmp_path, bridge_id=name), ledger, f"instance-{name}", PLACES)
        for name, ledger in zip(IDS, ledgers, strict=True)
    ]
    for _ in range(2):
        for each in both:
            each.look(0.0, is_ready=True, at_once=True)
    for name in NAMES:
        assert [each.owns(name) for each in both] == [choose_owner(name, IDS) == own_id for own_id in IDS]
    return both


def expire(ledger: Ledger, where: str) -> None:
    """As if the beats had ceased long ago."""
    with ledger._database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE bridges SET live_until = 0 WHERE {where}")


def ids_in(ledger: Ledger) -> list[str]:
    return [bridge.bridge_id for bridge in ledger.bridges.all()]


def test_one_that_hung_takes_up_anew_what_others_did_in_its_place(ledgers: list[Ledger], tmp_path: Path) -> None:
    hung, live = join_both(ledgers, tmp_path)
    expire(ledgers[1], "bridge_id = 'a'")
    assert live.look(1.0, is_ready=True)
    assert all(live.owns(name) for name in NAMES)
    assert ids_in(ledgers[1]) == ["b"]
    assert not hung.look(0.1, is_ready=True), "it sees nothing before its next look"
    assert hung.look(60.0, is_ready=True), "it owns nothing any more, and so leaves everything"
    assert not any(hung.owns(name) for name in NAMES)
    assert hung.look(60.0, is_ready=True), "and takes its part up"
    assert live.look(1.0, is_ready=True, at_once=True)
    for name in NAMES:
        assert hung.owns(name) != live.owns(name)


def test_when_the_server_was_away_for_all_nobody_is_taken_for_dead_who_comes_back_in_time(
    ledgers: list[Ledger], tmp_path: Path
) -> None:
    first, second = join_both(ledgers, tmp_path)
    expire(ledgers[0], "true")
    first.look(1.0, is_ready=True)  # before its beat is due: the server's clock was set
    assert ids_in(ledgers[0]) == list(IDS)
    first.look(60.0, is_ready=True)
    assert ids_in(ledgers[0]) == list(IDS), "and its connection is left alone"
    second.look(60.0, is_ready=True)
    for each in (first, second):
        each.look(60.0, is_ready=True)
    for name in NAMES:
        assert first.owns(name) != second.owns(name)
    expire(ledgers[0], "bridge_id = 'b'")
    first.look(90.0, is_ready=True)
    assert ids_in(ledgers[0]) == ["a"], "later it is judged again"
