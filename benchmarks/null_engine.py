"""An engine that computes nothing: its answer is one turn over the whole job. What remains is the cost of delivery."""

from __future__ import annotations

import os
import time

import numpy as np
import typer

from broker.logs import configure_logs
from broker.settings import load_settings
from mac_agent.commands.main import run_agent
from mac_agent.engines.engine import (
    SAMPLE_RATE_HZ,
    Diarization,
    EngineInfo,
    Hints,
    ReportProgress,
    SpeakerEvidence,
    Turn,
    Waveform,
)
from mac_agent.settings import AgentSettings

INFO = EngineInfo("null", "nothing", "1", "cpu", "benchmark", "nothing", "1")
EMBEDDING = np.full(256, 1 / 16, dtype=np.float32)
SLEEP_ENV = "OMI_BENCH_SLEEP_S"


class InstantEngine:
    """Answers at once, or after `sleep_s` seconds."""

    def __init__(self, sleep_s: float) -> None:
        self._sleep_s = sleep_s

    @property
    def info(self) -> EngineInfo:
        """The description of the engine in every result."""
        return INFO

    def diarize(self, waveform: Waveform, hints: Hints, report: ReportProgress) -> Diarization:  # noqa: ARG002 - the protocol of engines
        """Return one turn of one speaker."""
        report("nothing", 0.5)
        time.sleep(self._sleep_s)
        length_s = waveform.size / SAMPLE_RATE_HZ
        turns = (Turn(0.0, length_s, "VOICE"),)
        return Diarization(
            turns=turns,
            exclusive_turns=turns,
            speakers=(SpeakerEvidence("VOICE", length_s, EMBEDDING),),
            speech_s=length_s,
            timings_ms={"nothing": 1000 * self._sleep_s},
            warnings=(),
        )


def load_null_engine() -> InstantEngine:
    """Return the engine; called in the worker process."""
    return InstantEngine(float(os.environ.get(SLEEP_ENV, "0")))


def run() -> None:
    """Run `omi-agent run` with this engine and settings from the environment."""
    settings = load_settings(AgentSettings, flags={}).settings
    configure_logs(as_json=True)
    run_agent(settings, load_null_engine)


if __name__ == "__main__":
    from benchmarks import null_engine  # the worker imports the engine by this name, not as `__main__`

    typer.run(null_engine.run)
