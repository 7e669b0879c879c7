"""An example of every message, for people: docs/messages.md shows them, and a test decodes each.

An event has an example of each type. Times, ids and numbers are made up, and fit each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_CORRECTIONS = [
    {"kind": "same_voice", "speaker_ids": [0, 3]},
    {"kind": "other_voice", "segment_ids": ["s-17", "s-21"]},
    {"kind": "segment_is", "segment_id": "s-4", "speaker_id": 1},
    {"kind": "voice_is", "speaker_id": 0, "person_id": "anna"},
    {"kind": "voice_is_not", "speaker_id": 1, "person_id": "anna"},
]
_WORDS = [{"text": "Hello", "start_s": 0.4, "end_s": 0.8}, {"text": "there.", "start_s": 0.8, "end_s": 1.3}]
_SEGMENT = {"id": "s-1", "text": "Hello there.", "start_s": 0.4, "end_s": 1.3, "speaker": "SPEAKER_00", "words": _WORDS}
_ENGINE = {
    "name": "pyannote",
    "model": "pyannote/speaker-diarization-community-1",
    "revision": "3533c8cf8e369892e6b79ff1bf80f7b0286a54ee",
    "device": "mps",
    "mode": "exact",
    "embedding_model": "pyannote/wespeaker-voxceleb-resnet34-LM",
    "embedding_revision": "837717ddb9ff5507820346191109dc79c958d614",
}
_BEAT = {"instance_id": "i-7c1e", "sent_at": "2026-05-04T10:00:10Z", "started_at": "2026-05-04T10:00:00Z"}

CONVERSATION_EVENTS: Mapping[str, Mapping[str, Any]] = {
    "started": {"started_at": "2026-05-04T10:00:00Z", "owner": "user-1", "language": "en", "max_speakers": 4},
    "segments": {"revision": 2, "segments": [_SEGMENT], "removed": ["s-0"]},
    "completed": {"chunks": 12, "last_audio_at": "2026-05-04T10:06:00Z"},
    "deleted": {},
    "applied": {"updated_version": 3},
    "resync": {},
    "corrected": {"corrections": _CORRECTIONS, "by": "anna"},
    "undone": {"target_event_id": "e-7", "by": "anna"},
    "redone": {"target_write": 4, "by": "anna"},
}
"""What each event has beside `schema`, `version`, `event_id` and `type`."""

PERSON_EVENTS: Mapping[str, Mapping[str, Any]] = {
    "named": {"owner": "user-1", "revision": 1, "name": "Anna"},
    "consented": {"owner": "user-1", "revision": 2, "consent_date": "2026-05-04"},
    "owner": {"owner": "user-1", "revision": 3, "is_owner": True},
    "confirmed": {"owner": "user-1", "conversation_id": "call-1", "speaker_id": 0, "by": "anna"},
    "forgotten": {"owner": "user-1"},
}
"""The same of a person's events."""

OTHER_MESSAGES: Mapping[str, Mapping[str, Any]] = {
    "audio-payload": {
        "conversation_id": "call-1",
        "chunk_id": "call-1-0",
        "sequence": 0,
        "captured_at": "2026-05-04T10:00:00Z",
        "encoding": "pcm_s16le",
        "sample_rate": 16_000,
        "channels": 1,
        "sha256": _SHA256,
        "audio": b"\x00\x00\x01\x00",
    },
    "accepted": {
        "conversation_id": "call-1",
        "chunk_id": "call-1-0",
        "sha256": _SHA256,
        "bytes": 960_000,
        "verdict": "accepted",
    },
    "conversation-updated": {
        "conversation_id": "call-1",
        "updated_version": 3,
        "write": 5,
        "state": "final",
        "segments": [
            {"id": "s-1", "speaker": "SPEAKER_00", "speaker_id": 0, "coverage": 0.97},
            {
                "id": "s-2",
                "speaker": "SPEAKER_01",
                "speaker_id": 1,
                "pieces": [
                    {"start_s": 4.1, "end_s": 5.0, "first_word": 0, "last_word": 2, "speaker": "SPEAKER_00"},
                    {"start_s": 5.0, "end_s": 8.2, "first_word": 3, "last_word": 9, "speaker": "SPEAKER_01"},
                ],
            },
        ],
        "changed": [{"id": "s-2", "before": "SPEAKER_00", "after": "SPEAKER_01"}],
        "left_alone": [{"id": "s-3", "reason": "low_coverage"}],
        "left_alone_counts": {"low_coverage": 1},
        "people": [{"speaker_id": 0, "person_id": "anna", "identity": "matched", "similarity": 0.81, "needed": 0.62}],
        "speakers": 2,
        "audio_s": 360.0,
    },
    "job-failure": {
        "conversation_id": "call-1",
        "job_id": "j-52",
        "lease_id": "l-9b",
        "attempt": 1,
        "code": "audio.undecodable",
        "message": "the file ends in the middle of its header",
    },
    "person-accepted": {"person_id": "anna", "event_id": "e-1", "verdict": "accepted"},
    "agent-want": {
        "job_id": "j-52",
        "lease_id": "l-9b",
        "chunk_id": "call-1-0",
        "ranges": [{"start": 0, "end": 262_144}, {"start": 262_144, "end": 524_288}],
    },
    "audio-part": {
        "job_id": "j-52",
        "lease_id": "l-9b",
        "chunk_id": "call-1-0",
        "byte_offset": 0,
        "total_bytes": 960_000,
        "part_sha256": _SHA256,
        "audio": b"\x00\x00\x01\x00",
    },
    "agent-control": {
        "type": "offer",
        "ledger_id": "led-1",
        "job_id": "j-52",
        "lease_id": "l-9b",
        "conversation_id": "call-1",
        "attempt": 1,
        "expected_s": 42.0,
        "chunks": [{"chunk_id": "call-1-0", "bytes": 960_000, "sha256": _SHA256, "encoding": "auto", "start_s": 0.0}],
    },
    "speaker-turns": {
        "conversation_id": "call-1",
        "job_id": "j-52",
        "lease_id": "l-9b",
        "attempt": 1,
        "agent_id": "my-mac",
        "engine": _ENGINE,
        "turns": [{"start_s": 0.4, "end_s": 3.9, "speaker": "SPEAKER_00"}],
        "exclusive_turns": [{"start_s": 0.4, "end_s": 3.9, "speaker": "SPEAKER_00"}],
        "speakers": [{"speaker": "SPEAKER_00", "clean_speech_s": 3.5, "embedding": b"\x00\x00\x80?"}],
    },
    "agent-heartbeat": {
        **_BEAT,
        "agent_id": "my-mac",
        "state": "online",
        "engine": _ENGINE,
        "jobs": [{"job_id": "j-52", "lease_id": "l-9b", "state": "running", "progress": 0.4}],
        "free_capacity": 1,
        "speed_x_real_time": 24.0,
    },
    "bridge-heartbeat": {
        **_BEAT,
        "bridge_id": "bridge",
        "ledger_id": "led-1",
        "state": "online",
        "accepting": True,
        "agents_live": 1,
        "agents_live_ids": ["my-mac"],
        "queue": {"jobs_ready": 0, "jobs_leased": 1},
    },
}
"""One example of each other message, without `schema` and `version`."""


def examples_of(schema: str, version: str) -> list[dict[str, Any]]:
    """Return whole payloads of a message; of an event one for each type."""
    events = {"conversation-event": CONVERSATION_EVENTS, "person-event": PERSON_EVENTS}
    envelope = {"schema": schema, "version": version}
    if schema not in events:
        return [envelope | dict(OTHER_MESSAGES[schema])]
    return [
        {**envelope, "event_id": f"e-{number}", "type": kind, **fields}
        for number, (kind, fields) in enumerate(events[schema].items(), 1)
    ]
