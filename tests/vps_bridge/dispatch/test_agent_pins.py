"""A conversation that is a test of one agent waits for that agent, and no other conversation waits behind it."""

import time
from pathlib import Path

from schemas.conversation import ConversationEvent, EventType, Verdict
from tests.vps_bridge.ledger.test_ledger import add_job
from vps_bridge.ledger import Ledger
from vps_bridge.rules.lease import AgentCapacity, ReadyJob, match_jobs

VOICES = ("model", "1")


def test_only_the_named_agent_gets_the_job_and_the_other_goes_on_with_the_rest() -> None:
    jobs = [
        ReadyJob("test", "ping", 1, None, 1.0, only_agent="slow"),
        ReadyJob("other", "call", 2, None, 60.0),
    ]
    fast, slow = (AgentCapacity(name, 1, speed, VOICES) for name, speed in (("fast", 50.0), ("slow", 2.0)))
    assert set(match_jobs(jobs, [fast, slow], {})) == {("test", "slow"), ("other", "fast")}
    assert match_jobs(jobs, [fast], {}) == [("other", "fast")]


def test_a_test_waits_for_its_agent_alone_and_hides_nothing(ledger: Ledger) -> None:
    for name, agent_id in (("ping", "slow"), ("call", None)):
        event = ConversationEvent(
            event_id=f"e-{name}", type=EventType.STARTED, temporary=agent_id is not None, only_agent=agent_id
        )
        ledger.events.note(event, name, Verdict.ACCEPTED)
        add_job(ledger, name)

    def waiting(*agent_ids: str) -> list[tuple[str, str | None]]:
        found = ledger.jobs.ready({VOICES}, leased=set(), resting=set(), limit=9, agent_ids=agent_ids)
        return [(each.job.conversation_id, each.only_agent) for each in found]

    assert waiting("fast") == [("call", None)]
    assert waiting("slow") == [("ping", "slow"), ("call", None)]


def test_a_test_that_nobody_deleted_is_found_once_it_is_old_and_in_no_list(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, exclusive=True)
    for name, temporary in (("ping", True), ("call", False)):
        event = ConversationEvent(event_id=f"e-{name}", type=EventType.STARTED, temporary=temporary)
        ledger.events.note(event, name, Verdict.ACCEPTED)
    again = ConversationEvent(event_id="e-again", type=EventType.STARTED, temporary=True)
    ledger.events.note(again, "call", Verdict.ACCEPTED)  # a real one stays one, whatever is said of it later
    assert [record.conversation_id for record in ledger.listing.some(ledger.listing.latest_first())] == ["call"]
    assert ledger.conversations.temporary(quiet_since=time.time() - 3600) == []
    assert ledger.conversations.temporary(quiet_since=time.time() + 1) == ["ping"]
    ledger.close()
