"""A backend in an environment of its own: it imports the client package and nothing of this repository.

python outside_backend.py '{"url": …, "user": …, "password": …, "folder": …, "started_at": …, "transcript": […]}'
"""

import json
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any

from omi_diarization_client import Client, RefusedByBridge


def main() -> None:
    said = json.loads(sys.argv[1])
    began = datetime.fromisoformat(said["started_at"])
    call = Path(said["folder"]) / "call.wav"
    told: dict[str, Any] = {}
    with Client(said["url"], said["user"], said["password"]) as client:
        client.publish("outside", call, captured_at=began, transcript=said["transcript"])
        first = client.wait("outside")
        told["segments"], told["speakers"], told["turns"] = first.segments, first.speakers, len(first.turns)
        correction = client.correct("outside", {"kind": "same_voice", "speaker_ids": [0, 1]}, by="anna")
        told["corrected"] = client.wait("outside", final=False).segments
        client.undo("outside", correction)
        told["undone"] = client.wait("outside", final=False).segments
        told["enrolment"] = client.enrol("anna", call, owner="user-1", name="Anna", consent_date=date(2026, 5, 4))
        client.forget("anna", owner="user-1")
        listened = client.updates(timeout_s=60)
        client.publish("listened", call.read_bytes())
        told["listened"] = next(labels.conversation_id for labels in listened if labels.is_final)
        try:
            client.publish("refused", b"this is no audio")
        except RefusedByBridge as error:
            told["refused"] = error.code
        client.delete("outside")
    from_files = [name for name, module in sys.modules.items() if getattr(module, "__file__", None)]
    told["modules"] = sorted({name.split(".")[0] for name in from_files} - sys.stdlib_module_names)
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
