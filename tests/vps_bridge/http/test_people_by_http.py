"""People over HTTP: said as over MQTT, and read, which no topic allows."""

import uuid

import pytest

from schemas.conversation import EventType
from tests.brokers import RunningBroker
from tests.vps_bridge.http.door import Door, answering
from tests.vps_bridge.live_bridge import STARTED_AT


def say(door: Door, person_id: str, kind: str, **fields: object) -> tuple[int, dict[str, object]]:
    event = {"schema": "person-event", "version": "1.0", "event_id": f"e-{uuid.uuid4().hex}", "type": kind}
    answer = door.client.post(f"/v1/people/{person_id}/events", json=event | fields)
    return answer.status_code, answer.json()


def test_a_person_is_named_confirmed_read_exported_and_forgotten(mosquitto: RunningBroker, door: Door) -> None:
    mine = {"owner": "user-1"}
    with answering(mosquitto):
        door.event("call", EventType.STARTED, started_at=STARTED_AT.isoformat(), **mine)
        door.backend.send_call("call")
        before = door.backend.wait_updated("call")
    assert say(door, "ben", "named", name="Ben", revision=3, **mine)[0] == 200
    status, refused = say(door, "ben", "named", name="Old", revision=2, **mine)
    assert (status, refused["code"]) == (409, "event.revision_stale")
    status, refused = say(door, "ben", "confirmed", conversation_id="call", speaker_id=7, **mine)
    assert (status, refused["code"]) == (422, "correction.refused")
    assert say(door, "ben", "confirmed", conversation_id="call", speaker_id=1, **mine)[0] == 200
    told = door.backend.wait_updated("call", version=before.updated_version + 1)
    assert [(each.person_id, each.voiceprint) for each in told.people] == [("ben", "learned")]
    assert [each["name"] for each in door.client.get("/v1/people", params=mine).json()["people"]] == ["Ben"]
    exported = door.client.get("/v1/people/ben/export", params=mine).json()
    assert exported["heard_in"] == [{"conversation_id": "call", "speaker_id": 1, "identity": "confirmed"}]
    assert len(exported["voiceprints"]) == 1
    ((heard,), (said,)) = exported["heard_voices"], exported["said_of"]
    assert (heard["conversation_id"], heard["speaker_id"], len(heard["vector"])) == ("call", 1, 64)
    assert heard["vector"] == pytest.approx(exported["voiceprints"][0]["vector"], abs=1e-6), "it is forgotten with it"
    assert (said["conversation_id"], said["in_force"]) == ("call", True)
    assert [(one["kind"], one["person_id"]) for one in said["corrections"]] == [("voice_is", "ben")]
    assert door.client.get("/v1/people").json() == {"owner": None, "people": []}
    assert door.client.get("/v1/people/ben").status_code == 404
    assert door.open.get("/v1/people/ben", params=mine).status_code == 401
    assert door.client.delete("/v1/people/ben").status_code == 200, "nobody's person of that id: nothing to forget"
    assert door.client.get("/v1/people/ben", params=mine).json()["consent_date"] is None
    assert door.client.delete("/v1/people/ben", params=mine).status_code == 200
    assert door.client.get("/v1/people/ben", params=mine).status_code == 404
    assert say(door, "ben", "consented", consent_date=20260504)[0] == 422


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("named", {"name": " \u200b\u202e"}, "no character that can be seen"),
        ("consented", {"consent_date": "2999-01-01"}, "still to come"),
        ("named", {"name": "Ada", "consent_date": "2024-02-29"}, "says nothing of consent_date: send it in an event"),
        ("owner", {"name": "Ada"}, "says nothing of name"),
    ],
)
def test_what_would_be_taken_and_mean_nothing_is_refused(
    door: Door, kind: str, fields: dict[str, object], words: str
) -> None:
    status, refused = say(door, "ada", kind, **fields)
    assert (status, words in str(refused["message"])) == (422, True), refused
    assert door.client.get("/v1/people/ada").status_code == 404


@pytest.mark.parametrize("query", ["?ownr=user-2", "?owner=user-2&owner=user-3", "?owner=user-2&Owner=user-3"])
def test_an_owner_that_is_mistyped_or_named_twice_erases_nobody(door: Door, query: str) -> None:
    assert say(door, "ida", "named", name="Ida", owner="user-2")[0] == 200
    refused = door.client.delete(f"/v1/people/ida{query}")
    assert (refused.status_code, "owner" in refused.json()["message"]) == (422, True)
    for path in ("/v1/people", "/v1/people/ida", "/v1/people/ida/export"):
        assert door.client.get(f"{path}{query}").status_code == 422
    assert door.client.get("/v1/people/ida?owner=user-2").status_code == 200


def test_an_owner_whose_plus_sign_the_query_lost_is_not_told_that_all_is_erased(door: Door) -> None:
    assert say(door, "ida", "named", name="Ida", owner="ann+work@example.com")[0] == 200
    assert say(door, "ida", "named", name="Ida", owner="Ann Work")[0] == 200
    refused = door.client.delete("/v1/people/ida?owner=ann+work@example.com")
    assert (refused.status_code, "%2B" in refused.json()["message"]) == (422, True)
    assert door.client.delete("/v1/people/ida?owner=ann%2Bwork@example.com").status_code == 200
    assert door.client.delete("/v1/people/ida?owner=Ann+Work").status_code == 200
    for owner in ("ann+work@example.com", "Ann Work"):
        assert door.client.get("/v1/people/ida", params={"owner": owner}).status_code == 404
