"""An event and a result with little in them, as the objects that JSON and msgpack hold."""

from __future__ import annotations

EVENT = {"schema": "conversation-event", "version": "1.0", "event_id": "e", "type": "segments"}
RESULT = {
    "schema": "speaker-turns",
    "version": "1.0",
    "conversation_id": "c",
    "job_id": "j",
    "lease_id": "l",
    "agent_id": "mac",
    "engine": {"name": "pyannote"},
    "turns": [{"start_s": 0.5, "end_s": 1.5, "speaker": "S0"}],
    "exclusive_turns": [],
}
