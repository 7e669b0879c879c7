"""The design that this pipeline replaces: the backend posts a file to the Mac and waits for the answer.

Nothing is kept: a restart, a broken connection or a Mac that sleeps loses the request. The server does only what is
needed (a temporary file, the decoder that we use, the null engine), and its client writes the labels to the same store
of conversations as the bridge does. `bench_delivery` compares our delivery with it.

    python -m benchmarks.http_baseline 8085
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import uvicorn
from fastapi import FastAPI, Form, UploadFile

from benchmarks.null_engine import InstantEngine
from mac_agent.audio import decode
from mac_agent.engines.engine import Hints
from schemas.conversation import TranscriptSegment
from vps_bridge.conversations.store import ConversationStore, Label

MAX_AUDIO_S = 4 * 3600.0
TIMEOUT_S = 60.0

app = FastAPI()
engine = InstantEngine(0.0)


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok", "service": "diarization", "device": "cpu", "model": "nothing"}


@app.post("/api/diarize")
def diarize(file: UploadFile, num_speakers: Annotated[int | None, Form()] = None) -> dict[str, Any]:
    """Answer with who spoke when in the uploaded file."""
    began_s = time.perf_counter()
    with tempfile.NamedTemporaryFile(suffix=".wav") as kept:
        shutil.copyfileobj(file.file, kept)
        kept.flush()
        with Path(kept.name).open("rb") as stream:
            waveform = decode(stream, max_s=MAX_AUDIO_S).waveform
        found = engine.diarize(waveform, Hints(max_speakers=num_speakers), lambda _stage, _fraction: None)
    turns = [{"speaker_id": turn.speaker, "start": turn.start_s, "end": turn.end_s} for turn in found.turns]
    took_ms = round(1000 * (time.perf_counter() - began_s))
    return {
        "speakers": turns,
        "num_speakers": len({turn["speaker_id"] for turn in turns}),
        "processing_time_ms": took_ms,
    }


class HttpBackend:
    """The backend of that design: posts a file, assigns the speakers to its segments, stores the labels."""

    def __init__(self, url: str, store: ConversationStore) -> None:
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S)
        self._store = store

    def wait_up(self, timeout_s: float = 30.0) -> None:
        """Wait until the server answers."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                self._client.get("/health").raise_for_status()
            except httpx.TransportError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.05)
            else:
                return

    def begin(self, conversation_id: str, segments: tuple[TranscriptSegment, ...]) -> None:
        """Store the transcript that will be labelled."""
        self._store.upsert_segments(conversation_id, 0, segments, ())

    def deliver(self, conversation_id: str, audio: Path) -> float:
        """Post the file and update the conversation; return when it was (monotonic seconds)."""
        with audio.open("rb") as stream:
            answer = self._client.post("/api/diarize", files={"file": (audio.name, stream, "audio/wav")})
        answer.raise_for_status()
        turns = answer.json()["speakers"]
        conversation = self._store.read(conversation_id)
        assert conversation is not None, "the conversation was begun before"
        numbers = {name: place for place, name in enumerate(sorted({turn["speaker_id"] for turn in turns}))}
        labels = [
            Label(segment.id, numbers[max(turns, key=lambda turn: _shared_s(turn, segment))["speaker_id"]])
            for segment in conversation.segments
        ]
        self._store.apply(conversation_id, conversation.revision, datetime.now(UTC).isoformat(), labels)
        return time.monotonic()


def _shared_s(turn: dict[str, Any], segment: Any) -> float:  # noqa: ANN401 - a stored segment
    return float(min(turn["end"], segment.end_s) - max(turn["start"], segment.start_s))


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
