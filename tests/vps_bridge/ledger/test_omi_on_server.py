"""What OMI was told is noted on a server as in a file."""

from typing import Any

import pytest

from schemas.codec import encode
from schemas.conversation import ConversationEvent, ConversationUpdated, EventType, SegmentLabel, Verdict
from schemas.people import PersonEvent, PersonEventType
from tests.vps_bridge.ledger_server import KINDS, server_of
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.ledger.omi_conversations import OmiConversationRecord
from vps_bridge.ledger.told_segment import ToldSegment

NAME, UID = "c1", "u1"


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_told_is_told_again_where_a_name_or_a_report_changes_meanwhile(kind, tmp_path, request):
    server = None
    if kind != "sqlite":
        postgres = request.getfixturevalue("postgres")
        server = server_of(postgres, postgres.new_database())
    ledger: Any = Ledger(tmp_path / "bridge", exclusive=True, server=server)
    event = ConversationEvent(event_id="e", type=EventType.STARTED, owner=UID)
    ledger.events.note(event, NAME, Verdict.ACCEPTED)
    record = OmiConversationRecord(NAME, UID, 0.0, 10.0, 1, "", waits=False)
    ledger.omi.put(record, {"known": ["s9"]})
    label = SegmentLabel(id="s1", person_id="anna", identity="matched")
    update = ConversationUpdated(conversation_id=NAME, updated_version=1, state="final", segments=(label,))
    made = AssignedUpdate([], "key", encode(update), final=True, done_jobs=(), seen=0)
    ledger.conversations.note_update(NAME, made)
    found = ledger.omi.next_untold(())
    ledger.omi.note_assigned(found, {"s1": ToldSegment("anna", "a-1")})
    ledger.people.add(UID, "anna")
    named = PersonEvent(event_id="p", type=PersonEventType.NAMED, owner=UID, revision=1, name="Anna")
    ledger.people.note("anna", named, Verdict.ACCEPTED)
    ledger.omi.note_told(found)  # it was on its way when she was named
    again = ledger.omi.next_untold(())
    assert again.told.assigned["s1"] == ToldSegment(None, "a-1")
    ledger.omi.note_told(again)
    assert ledger.omi.next_untold(()) is None
    assert ledger.omi.told_near(NAME, UID, (0.0, 10.0), {}, 0.0)["s1"].theirs == "a-1"
    ledger.omi.put(record, {}, {"s1": ToldSegment("anna", "a-1", ("b-1",))})
    last = ledger.omi.next_untold(())
    assert set(last.told.assigned["s1"].tried) == {"b-1"}
    assert ledger.omi.count_untold() == 1
    ledger.close()
