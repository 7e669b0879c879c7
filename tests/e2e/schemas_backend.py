"""A backend that knows the published schemas and MQTT, and imports nothing of this repository.

python schemas_backend.py '{"host": …, "port": …, "user": …, "password": …, "schemas": …, "folder": …}'

Where a message goes is read from `asyncapi.json`; what is sent and what comes is checked against the JSON Schemas. It
corrects, confirms, enrols and forgets people in the recordings of a folder, and prints what it heard.
"""

import hashlib
import json
import queue
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import msgpack
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

WAIT_S, AGAIN_S = 150.0, 15.0
OWNER, STARTED_AT = "user-1", datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
Fields = dict[str, Any]
WITH_BYTES = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "string", lambda _, value: isinstance(value, str | bytes)
    ),
)
"""JSON has no bytes: in msgpack they stand where a schema says string."""


class SchemasBackend:
    """Sends until a receipt comes, confirms every update, and keeps all that it heard."""

    def __init__(self, said: Fields) -> None:
        folder = Path(said["schemas"])
        channels = json.loads((folder / "asyncapi.json").read_text())["channels"]
        self.topic_of = {name: channel["address"] for name, channel in channels.items()}
        self.schema_of = {path.stem: json.loads(path.read_text()) for path in (folder / "json").glob("*.json")}
        self.heard: list[Fields] = []
        self._incoming: queue.Queue[MQTTMessage] = queue.Queue()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=f"backend-{uuid.uuid4().hex}")
        self._client.username_pw_set(said["user"], said["password"])
        self._client.on_message = lambda _client, _data, message: self._incoming.put(message)
        self._client.on_subscribe = lambda *_: self._incoming.put(MQTTMessage())
        self._client.connect(said["host"], said["port"])
        self._client.loop_start()
        for name in ("accepted", "updated", "people-accepted"):
            address = self.topic_of[name].replace("{conversation_id}", "+").replace("{person_id}", "+")
            self._client.subscribe(address, qos=1)
            self._incoming.get(timeout=WAIT_S)  # what was there before the subscription is heard, too

    def send(self, channel: str, name: str, fields: Fields) -> Fields:
        """Send an event of a conversation or a person until it is answered; return the receipt."""
        kind = "person-event" if channel.startswith("people") else "conversation-event"
        event = {"schema": kind, "version": "1.0", "event_id": f"e-{uuid.uuid4().hex}", **fields}
        jsonschema.validate(event, self.schema_of[kind])
        return self._until_accepted(channel, name, json.dumps(event).encode(), event_id=event["event_id"])

    def audio(self, name: str, sequence: int, captured_at: datetime, data: bytes) -> Fields:
        """Send a chunk."""
        about = {"chunk_id": f"c-{uuid.uuid4().hex}", "sha256": hashlib.sha256(data).hexdigest()}
        about |= {"conversation_id": name, "captured_at": captured_at.isoformat()}
        payload = {"schema": "audio-payload", "version": "1.0", "audio": data, "sequence": sequence, **about}
        WITH_BYTES(self.schema_of["audio-payload"]).validate(payload)
        return self._until_accepted("audio", name, msgpack.packb(payload), chunk_id=about["chunk_id"])

    def updated(self, name: str, after: Fields | None = None, *, final: bool = True) -> Fields:
        """Return the update of a conversation, and confirm it; one later than another that was heard."""
        version = after["updated_version"] + 1 if after else 0

        def is_it(message: Fields) -> bool:
            is_update = message["schema"] == "conversation-updated" and message["conversation_id"] == name
            return is_update and message["updated_version"] >= version and (message["state"] == "final" or not final)

        found = self._wait(is_it, WAIT_S)
        if found is None:
            raise TimeoutError(f"no update of {name} after version {version}; heard last: {self.heard[-3:]}")
        self.send("events", name, {"type": "applied", "updated_version": found["updated_version"]})
        return found

    def _until_accepted(self, channel: str, name: str, payload: bytes, **ids: str | None) -> Fields:
        topic = self.topic_of[channel].replace("{conversation_id}", name).replace("{person_id}", name)
        before = len(self.heard)

        def is_it(message: Fields) -> bool:
            is_receipt = message["schema"] in ("accepted", "person-accepted")
            of_it = name in (message.get("conversation_id"), message.get("person_id"))
            return is_receipt and of_it and all(message.get(key) == value for key, value in ids.items())

        for _ in range(int(WAIT_S / AGAIN_S)):
            self._client.publish(topic, payload, qos=1)
            receipt = self._wait(is_it, AGAIN_S, before)
            if receipt is not None:
                return receipt
        raise TimeoutError(f"no receipt on {topic}")

    def _wait(self, is_it: Any, timeout_s: float, first: int = 0) -> Fields | None:
        ends_at = time.monotonic() + timeout_s
        while time.monotonic() < ends_at:
            found = [message for message in self.heard[first:] if is_it(message)]
            if found:
                return found[-1]
            try:
                self._take(self._incoming.get(timeout=0.5))
            except queue.Empty:
                continue
        return None

    def _take(self, message: MQTTMessage) -> None:
        if message.payload:
            fields = json.loads(message.payload)
            jsonschema.validate(fields, self.schema_of[fields["schema"]])
            self.heard.append(fields)


class Calls:
    """The recordings of a folder, each a conversation: `<name>-<n>.wav`, and who says which line in `<name>.json`."""

    def __init__(self, backend: SchemasBackend, said: Fields) -> None:
        self._backend, self._folder, self._chunk_s = backend, Path(said["folder"]), said["chunk_s"]
        self.speaker_of: dict[str, list[str]] = {}

    def send(self, name: str, **started: Any) -> Fields:
        """Send a whole call; return its final update."""
        lines = json.loads((self._folder / f"{name}.json").read_text())
        self.speaker_of[name] = [who for _, _, who in lines]
        segments = [
            {"id": f"{name}-{place}", "start_s": start_s, "end_s": end_s, "text": "words", "speaker": "SPEAKER_00"}
            for place, (start_s, end_s, _) in enumerate(lines)
        ]
        about = {"type": "started", "started_at": STARTED_AT.isoformat(), "owner": OWNER, **started}
        self._backend.send("events", name, about)
        if "enrols" not in started:
            self._backend.send("events", name, {"type": "segments", "segments": segments})
        chunks = sorted(self._folder.glob(f"{name}-*.wav"))
        for place, file in enumerate(chunks):
            captured_at = STARTED_AT + timedelta(seconds=self._chunk_s * place)
            self._backend.audio(name, place, captured_at, file.read_bytes())
        self._backend.send("events", name, {"type": "completed", "chunks": len(chunks)})
        return self._backend.updated(name)

    def named(self, update: Fields) -> dict[str, list[Any]]:
        """Return by real speaker: what their lines are labelled with, and who the pipeline says that is."""
        found: dict[str, list[Any]] = {}
        by_number = {person["speaker_id"]: person for person in update.get("people", ())}
        for who, label in zip(self.speaker_of[update["conversation_id"]], update["segments"], strict=True):
            known = by_number.get(label.get("speaker_id"), {})
            said = [label.get("speaker"), label.get("person_id"), label.get("identity"), known.get("similarity")]
            found.setdefault(who, []).append(said)
        return found

    def number_of(self, update: Fields, who: str) -> int:
        """Return the number that most lines of a speaker have."""
        numbers = [
            label.get("speaker_id")
            for speaker, label in zip(self.speaker_of[update["conversation_id"]], update["segments"], strict=True)
            if speaker == who and label.get("speaker_id") is not None
        ]
        if not numbers:
            raise ValueError(f"{who} has no voice: {update}")
        return max(set(numbers), key=numbers.count)


def main() -> None:
    said = json.loads(sys.argv[1])
    backend = SchemasBackend(said)
    calls, told = Calls(backend, said), dict[str, Any]()
    known = said["known"]

    first = calls.send("first")
    told["first"] = calls.named(first)
    about = {"owner": OWNER, "conversation_id": "first", "speaker_id": calls.number_of(first, known)}
    receipts = [
        backend.send("people-events", "anna", {"type": "confirmed", "by": "me", **about}),
        backend.send("people-events", "anna", {"type": "named", "owner": OWNER, "name": said["name"]}),
        backend.send("people-events", "anna", {"type": "consented", "owner": OWNER, "consent_date": "2026-05-04"}),
    ]
    told["confirmed"] = calls.named(backend.updated("first", first))

    second = calls.send("second")
    told["second"] = calls.named(second)
    wrong = {"kind": "voice_is_not", "speaker_id": calls.number_of(second, known), "person_id": "anna"}
    receipts.append(
        backend.send("events", "second", {"type": "corrected", "event_id": "e-not", "corrections": [wrong]})
    )
    corrected = backend.updated("second", second)
    told["corrected"], told["outcomes"] = calls.named(corrected), corrected.get("corrections")
    receipts.append(backend.send("events", "second", {"type": "undone", "target_event_id": "e-not"}))
    undone = backend.updated("second", corrected)
    told["undone_is_as_before"] = undone["segments"] == second["segments"]

    told["enrolment"] = calls.send("alone", enrols="ben")["enrolment"]
    told["third"] = calls.named(calls.send("third"))

    receipts.append(backend.send("people-events", "anna", {"type": "forgotten", "owner": OWNER}))
    without_anna = backend.updated("second", undone)
    told["without_anna"] = calls.named(without_anna)
    receipts.append(backend.send("people-events", "ben", {"type": "forgotten", "owner": OWNER}))
    told["without_both"] = calls.named(backend.updated("second", without_anna))
    told["refused"] = backend.send("people-events", "anna", {"type": "confirmed", **about, "owner": "somebody-else"})
    told["verdicts"] = [receipt["verdict"] for receipt in receipts]
    sys.stdout.write(json.dumps(told | {"modules": imported()}))


def imported() -> list[str]:
    """Return the packages that this process has loaded from files, without those of Python itself."""
    from_files = [name for name, module in sys.modules.items() if getattr(module, "__file__", None)]
    return sorted({name.split(".")[0] for name in from_files} - sys.stdlib_module_names)


if __name__ == "__main__":
    main()
