"""OMI's webhooks as the facts describe them: what is sent of a recording, when, and how it looks.

Written from documents alone: no real backend was ever recorded.
"""

import hashlib
import hmac
import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vps_bridge.omi.users import NewAccess

Span = tuple[float, float]
SAMPLE_BYTES = 2
HANGOVER_S = 0.5  # what is sent around speech
PATHS = ("audio", "transcript", "conversation")


@dataclass(frozen=True)
class OmiPost:
    """One request."""

    at: float
    """When it arrives (Unix time)."""
    url: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    is_retry: bool = False


@dataclass(frozen=True)
class Talk:
    """What a device hears."""

    samples: NDArray[np.int16]
    rate: int
    began_at: float
    speech: tuple[Span, ...]
    """When anybody speaks, in seconds of the talk."""

    def sent_spans(self, longest_gap_s: float) -> list[Span]:
        """What of it is sent: speech and a little around it, so that no gap is longer than `longest_gap_s`."""
        spans: list[Span] = []
        length_s = len(self.samples) / self.rate
        for start_s, end_s in sorted(self.speech):
            begin_s, stop_s = max(0.0, start_s - HANGOVER_S), min(length_s, end_s + HANGOVER_S)
            if spans and begin_s <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(stop_s, spans[-1][1]))
                continue
            if spans and begin_s - spans[-1][1] > longest_gap_s:
                begin_s = spans[-1][1] + longest_gap_s
            spans.append((begin_s, stop_s))
        return spans


@dataclass(frozen=True)
class OmiSender:
    """A backend of one generation."""

    access: NewAccess
    generation: str = "B"
    is_signed: bool = True
    buffer_s: float = 4.0
    late_s: float = 0.7
    """From the recording of a buffer's last sample to the arrival of its first chunk."""
    seed: int = 0
    retries: float = 0.0
    """Share of chunks that are sent again because their answer was lost."""

    def send_audio(self, talk: Talk, *, longest_gap_s: float = 14.0) -> list[OmiPost]:
        """The POSTs of a talk, in the order of arrival."""
        draw = random.Random(self.seed)
        parts = [
            (talk.samples[round(a * talk.rate) : round(b * talk.rate)], a) for a, b in talk.sent_spans(longest_gap_s)
        ]
        heard = np.concatenate([samples for samples, _ in parts])
        times_s = np.concatenate([start_s + np.arange(1, len(samples) + 1) / talk.rate for samples, start_s in parts])
        posts: list[OmiPost] = []
        step = round(self.buffer_s * talk.rate)
        for start in range(0, len(heard), step):
            block = heard[start : start + step]
            at = talk.began_at + float(times_s[min(start + step, len(heard)) - 1]) + self.late_s + draw.uniform(0, 0.4)
            posts += self._burst(block.tobytes(), talk.rate, at, draw)
        return posts

    def _burst(self, data: bytes, rate: int, at: float, draw: random.Random) -> list[OmiPost]:
        if self.generation == "A":
            return [self._post("audio", data, at, {"sample_rate": str(rate)})]
        size = SAMPLE_BYTES * rate + 1 if self.seed % 2 else SAMPLE_BYTES * rate  # some cut within a sample
        posts: list[OmiPost] = []
        for place in range(0, len(data), size):
            post = self._post("audio", data[place : place + size], at, {"sample_rate": str(rate)})
            posts.append(post)
            at += 0.03
            if draw.random() < self.retries:
                at += 1.0
                posts.append(replace(post, at=at, is_retry=True))
        return posts

    def send_live(self, rows: Sequence[dict[str, Any]], zero_at: float) -> list[OmiPost]:
        """Live segments, each some time after its end."""
        uid = self.access.user.uid
        return [
            self._post("transcript", _json({"segments": [row], "session_id": uid}), zero_at + row["end"] + 1.5, {})
            for row in rows
        ]

    def send_conversation(self, document: dict[str, Any], at: float) -> OmiPost:
        """The webhook of a conversation that was created."""
        return self._post("conversation", _json(document), at, {})

    def _post(self, path: str, body: bytes, at: float, query: dict[str, str]) -> OmiPost:
        uid = self.access.user.uid
        fields = "&".join(f"{name}={value}" for name, value in {**query, "uid": uid}.items())
        headers = {"Content-Type": "application/octet-stream" if path == "audio" else "application/json"}
        if self.generation == "A":  # it puts its query behind the user's own with a second question mark
            return OmiPost(at, f"/omi/{path}?token={self.access.token}?{fields}", body, headers)
        headers["Idempotency-Key"] = str(uuid.UUID(int=random.Random(f"{at}{path}").getrandbits(128)))
        if not self.is_signed:
            return OmiPost(at, f"/omi/{path}?token={self.access.token}&{fields}", body, headers)
        signed = hmac.new(self.access.user.secret.encode(), f"{int(at)}.{uid}.".encode() + body, hashlib.sha256)
        headers["X-Omi-Signature"] = f"t={int(at)},v1={signed.hexdigest()}"
        return OmiPost(at, f"/omi/{path}?{fields}", body, headers)


def make_document(
    conversation_id: str, started_at: float, rows: Sequence[dict[str, Any]], *, generation: str = "B"
) -> dict[str, Any]:
    """A conversation as a backend of this generation reports it; `rows` have id, start, end, text."""
    finished_at = started_at + max((row["end"] for row in rows), default=0.0)
    segments = [{"speaker": "SPEAKER_00", "speaker_id": 0, "is_user": False, "person_id": None, **row} for row in rows]
    if generation == "B":
        segments = [{**row, "stt_provider": "parakeet", "speaker_identity_status": "unknown"} for row in segments]
    return {
        "id": conversation_id,
        "created_at": _iso(finished_at + 125),
        "started_at": _iso(started_at),
        "finished_at": _iso(finished_at),
        "source": "omi",
        "language": "en",
        "structured": {"title": "", "overview": "", "action_items": []},
        "transcript_segments": segments,
        "discarded": False,
        "status": "completed",
        "photos": [],
    }


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
