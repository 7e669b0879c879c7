"""Corrections over HTTP: taken, refused and taken back as over MQTT, and read in the history."""

from schemas.conversation import EventType
from tests.brokers import RunningBroker
from tests.vps_bridge.http.door import Door, answering


def test_a_correction_over_http_is_in_the_history_and_undone_over_mqtt(mosquitto: RunningBroker, door: Door) -> None:
    name, history = "by-http", "/v1/conversations/by-http/history"
    assert door.client.get(history).status_code == 404
    with answering(mosquitto):
        door.backend.send_call(name)
        before = door.backend.wait_updated(name)
    said = [{"kind": "same_voice", "speaker_ids": [0, 1]}, {"kind": "voice_is", "speaker_id": 0, "person_id": "anna"}]
    fields = {"event_id": "e-http", "corrections": said, "by": "anna"}
    assert door.event(name, EventType.CORRECTED, **fields).status_code == 200
    merged = door.backend.wait_updated(name, version=before.updated_version + 1)
    assert {(label.speaker, label.person_id) for label in merged.segments} == {("SPEAKER_00", "anna")}
    written = door.client.get(history).json()["writes"]
    assert [(write["kind"], write["by"], write["because_of"]) for write in written[-2:]] == [
        ("correct", "anna", None),
        ("apply", "bridge", written[-2]["version"]),
    ]
    assert [one["outcome"] for one in written[-2]["outcomes"]] == ["spread", "spread"]
    assert door.backend.event(name, EventType.UNDONE, target_event_id="e-http").reason is None
    assert door.backend.wait_updated(name, version=merged.updated_version + 1).segments == before.segments
    refused = door.event(name, EventType.UNDONE, target_event_id="e-http")
    assert (refused.status_code, refused.json()["code"]) == (409, "undo.refused")
    refused = door.event(name, EventType.CORRECTED, corrections=[{"kind": "same_voice", "speaker_ids": [0]}])
    assert (refused.status_code, "two different speakers" in refused.json()["message"]) == (422, True)
    assert door.open.get(history).status_code == 401


def test_true_is_no_number_of_a_speaker(door: Door) -> None:
    named = {"kind": "voice_is", "speaker_id": True, "person_id": "p"}
    for said in (named, {"kind": "same_voice", "speaker_ids": [0, True]}):
        refused = door.event("odd-number", EventType.CORRECTED, corrections=[said])
        assert (refused.status_code, "plain decimal digits" in refused.json()["message"]) == (422, True)
