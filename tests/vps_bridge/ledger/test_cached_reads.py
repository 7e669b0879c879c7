"""What the ledger remembers between two questions is never older than what any process has written."""

from collections.abc import Callable

import pytest

from schemas.conversation import Verdict
from schemas.people import PersonEvent, PersonEventType
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.deleted_people import FROM_ENROLMENT
from vps_bridge.ledger.people import PrintRecord

ANNA = PersonEvent(event_id="e1", type=PersonEventType.NAMED, owner="one", name="Anna")


@pytest.fixture
def command(ledger: Ledger, open_ledger: Callable[..., Ledger]) -> Ledger:
    """The same ledger as a command opens it while the bridge runs."""
    del ledger
    return open_ledger(exclusive=False)


def test_an_agent_that_a_command_allows_or_forbids_is_so_for_the_bridge_at_once(
    ledger: Ledger, command: Ledger
) -> None:
    assert ledger.agents.allowed() == frozenset()
    command.agents.set_allowed("mac", allowed=True)
    assert ledger.agents.allowed() == {"mac"}
    command.agents.set_allowed("mac", allowed=False)
    assert ledger.agents.allowed() == frozenset()
    command.agents.set_allowed("mac", allowed=True)
    assert ledger.agents.allowed() == {"mac"}
    command.agents.forget("mac")
    assert ledger.agents.allowed() == frozenset()


def test_what_the_bridge_itself_writes_it_knows_at_once(ledger: Ledger) -> None:
    assert ledger.agents.allowed() == frozenset()
    ledger.agents.set_allowed("mac", allowed=True)
    assert ledger.agents.allowed() == {"mac"}
    ledger.agents.forget("mac")
    assert ledger.agents.allowed() == frozenset()


@pytest.mark.parametrize("how", ["added", "named", "enrolled", "named by another process"])
def test_the_first_person_is_known_at_once(ledger: Ledger, command: Ledger, how: str) -> None:
    assert not ledger.people.known_to("one").people
    match how:
        case "added":
            ledger.people.add("one", "anna")
        case "named":
            ledger.people.note("anna", ANNA, Verdict.ACCEPTED)
        case "enrolled":
            ledger.people.enrol("one", PrintRecord("anna", FROM_ENROLMENT, "c1", "space", b"\x01\x02\x03\x04", 9.0))
        case _:
            command.people.note("anna", ANNA, Verdict.ACCEPTED)
    assert ledger.people.known_to("one").people == {"anna"}
