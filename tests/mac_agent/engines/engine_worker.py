"""A real engine in a real worker process, as in an agent: it reads the bytes of a chunk and reports the result."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mac_agent.engines.engine import Hints
from mac_agent.inference import ChunkSource, EngineLoaded, EngineNotLoaded, JobFailed, JobResult, WorkerJob
from mac_agent.result import to_speaker_turns
from mac_agent.worker import Worker
from schemas.agent import AgentControl, ControlType, OfferedChunk
from schemas.codec import decode, encode
from schemas.turns import SpeakerTurns
from tests.inbox import WAIT_S

MAX_AUDIO_S = 600.0


@dataclass
class EngineWorker:
    """A worker with a loaded engine, and a directory for its files."""

    name: str
    worker: Worker
    directory: Path
    _token: int = 0

    @property
    def pid(self) -> int | None:
        return self.worker.pid

    def start(self) -> None:
        self.worker.start()
        report = self.wait_for(EngineLoaded, EngineNotLoaded)
        assert isinstance(report, EngineLoaded), report

    def submit(
        self, data: bytes, *, hints: Hints | None = None, max_audio_s: float = MAX_AUDIO_S, **source: Any
    ) -> int:
        """Submit a job of one chunk with these bytes; `source` is the declared encoding of the chunk."""
        path = self.directory / f"{self._token + 1}.audio"
        path.write_bytes(data)
        return self.submit_file(path, hints=hints, max_audio_s=max_audio_s, **source)

    def submit_file(
        self, path: Path, *, hints: Hints | None = None, max_audio_s: float = MAX_AUDIO_S, **source: Any
    ) -> int:
        self._token += 1
        self.worker.submit(WorkerJob(self._token, (ChunkSource(path, **source),), hints or Hints(), max_audio_s))
        return self._token

    def run(self, data: bytes, **options: Any) -> JobResult | JobFailed:
        return self.wait(self.submit(data, **options))

    def wait(self, token: int) -> JobResult | JobFailed:
        """The result or the failure of a job."""
        report = self.wait_for(JobResult, JobFailed)
        assert isinstance(report, JobResult | JobFailed)
        assert report.token == token
        return report

    def wait_for(self, *kinds: type) -> object:
        """The next report of one of these types."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            for report in self.worker.poll():
                if isinstance(report, kinds):
                    return report
            time.sleep(0.01)
        raise AssertionError(f"no {kinds} within {WAIT_S} s")


def as_message(result: JobResult) -> SpeakerTurns:
    """The result as the bridge decodes it from the message. Encoding fails for numbers that are not finite."""
    offer = AgentControl(
        type=ControlType.OFFER,
        ledger_id="ledger-1",
        job_id="job-1",
        lease_id="lease-1",
        conversation_id="conversation-1",
        chunks=(OfferedChunk(chunk_id="chunk-1", bytes=1, sha256="0" * 64, encoding="auto"),),
    )
    return decode(SpeakerTurns, encode(to_speaker_turns(offer, "lease-1", "studio", result)))
