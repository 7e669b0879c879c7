"""Who does what among several bridges: all agree, it is spread evenly, and little changes hands."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vps_bridge.rules.ownership import (
    BridgePlaces,
    KnownBridge,
    choose_owner,
    choose_owners,
    find_obstacle,
)

NAMES = [f"c{number}" for number in range(2_000)]
SHARED = BridgePlaces({"spool_url": "bucket", "conversations_url": "server"})
OTHER = KnownBridge("b", "i", is_ready=True, left_s=1.0, places=SHARED)
bridges = st.sets(st.text("abcdefgh", min_size=1, max_size=3), min_size=1, max_size=6)


@given(bridges, st.text(max_size=8))
def test_every_name_has_one_owner_whatever_order_the_bridges_are_seen_in(ids: set[str], name: str) -> None:
    assert choose_owner(name, sorted(ids)) == choose_owner(name, sorted(ids, reverse=True))
    assert choose_owner(name, ids) in ids
    assert choose_owner(name, ()) is None


@given(bridges, st.text("xyz", min_size=1, max_size=3), st.text(max_size=8))
def test_when_a_bridge_goes_only_what_it_owned_changes_hands(ids: set[str], going: str, name: str) -> None:
    before = choose_owner(name, {*ids, going})
    assert before == going or choose_owner(name, ids) == before


def test_two_own_about_as_much_and_a_third_takes_a_third_from_each() -> None:
    two = {name: choose_owner(name, ("a", "b")) for name in NAMES}
    three = {name: choose_owner(name, ("a", "b", "c")) for name in NAMES}
    assert all(abs(count - len(NAMES) / 2) < len(NAMES) / 20 for count in Counter(two.values()).values())
    moved = Counter(two[name] for name in NAMES if two[name] != three[name])
    assert {three[name] for name in NAMES if two[name] != three[name]} == {"c"}
    assert all(abs(count - len(NAMES) / 6) < len(NAMES) / 20 for count in moved.values())


def test_owners_are_those_that_live_and_hear() -> None:
    found = [
        OTHER,
        replace(OTHER, bridge_id="a"),
        replace(OTHER, bridge_id="dead", left_s=-0.1),
        replace(OTHER, bridge_id="deaf", is_ready=False),
    ]
    assert choose_owners(found) == ("a", "b")


@pytest.mark.parametrize(
    ("own", "other", "words"),
    [
        (BridgePlaces({"spool_url": None}), SHARED, "set OMI_SPOOL_URL as that one has it"),
        (SHARED, BridgePlaces({"spool_url": None, "conversations_url": "server"}), "stop it and give it OMI_SPOOL_URL"),
        (SHARED, BridgePlaces({"spool_url": "another", "conversations_url": "server"}), "give both the same"),
        (
            BridgePlaces({}, frozenset({"omi_http_port"})),
            BridgePlaces({}, frozenset({"omi_http_port"})),
            "only one may",
        ),
    ],
)
def test_what_keeps_two_bridges_from_running_together_names_the_remedy(
    own: BridgePlaces, other: BridgePlaces, words: str
) -> None:
    obstacle = find_obstacle(own, [replace(OTHER, places=other)])
    assert obstacle is not None
    assert words in obstacle
    assert "bridge b" in obstacle


def test_a_dead_bridge_and_one_with_the_same_places_are_no_obstacle() -> None:
    assert find_obstacle(SHARED, [OTHER]) is None
    assert find_obstacle(SHARED, [replace(OTHER, left_s=-1.0, places=BridgePlaces({"spool_url": None}))]) is None
