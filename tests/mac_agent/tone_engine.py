"""An engine for tests: each tone is a voice. What it finds depends on the samples; how it behaves, on a file.

The worker loads it by import, as any engine. The behaviour file lets a test make the next job crash, hang, raise
or wait, in the real worker process.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

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
from mac_agent.errors import DeviceUnavailable
from mac_agent.inference import PR_SET_PDEATHSIG

FRAME_S = 0.1
KEPT: list[np.ndarray] = []
BOMB_BYTES, BOMB_STEP_BYTES = 1 << 30, 1 << 26
INFO = EngineInfo("tone", "pitch", "1", "cpu", "test", "pitch", "1")


class ToneEngine:
    """Finds tones, and misbehaves as its behaviour file says."""

    def __init__(self, behaviour_file: Path) -> None:
        self._behaviour_file = behaviour_file

    @property
    def info(self) -> EngineInfo:
        return INFO

    def diarize(self, waveform: Waveform, hints: Hints, report: ReportProgress) -> Diarization:
        report("listen", 0.1)
        turns = find_tones(waveform)
        suffer(self._behaviour_file, report, {turn.speaker for turn in turns})
        behave(self._behaviour_file, report)
        report("listen", 1.0)
        labels = sorted({turn.speaker for turn in turns})
        nan = "nan" in read_behaviour(self._behaviour_file)
        vector = np.full(4, np.nan if nan else 0.5, dtype=np.float32)
        return Diarization(
            turns=turns,
            exclusive_turns=turns,
            speakers=tuple(
                SpeakerEvidence(label, sum(t.end_s - t.start_s for t in turns if t.speaker == label), vector)
                for label in labels
            ),
            speech_s=sum(turn.end_s - turn.start_s for turn in turns),
            timings_ms={"listen": 1.0},
            warnings=(),
        )


def load_tone_engine(behaviour_file: Path) -> ToneEngine:
    if read_behaviour(behaviour_file) == "cannot-load":
        raise DeviceUnavailable("There is no such device. Set OMI_DEVICE=cpu.")
    if os.environ.get("OMI_TEST_NO_PDEATHSIG"):  # as on a Mac, whose kernel does not end orphans
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0)
    return ToneEngine(behaviour_file)


def read_behaviour(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def suffer(path: Path, report: ReportProgress, tones: set[str]) -> None:
    """`poison TONE_900`: crash where that tone is found. `hold`: wait until the file says something else."""
    if read_behaviour(path).removeprefix("poison ") in tones:
        os.kill(os.getpid(), signal.SIGSEGV)
    while read_behaviour(path) == "hold":
        report("hold", 0.5)
        time.sleep(0.05)


def behave(path: Path, report: ReportProgress) -> None:
    """Crash, hang, raise or wait; "once" behaviours are forgotten as they begin."""
    behaviour = read_behaviour(path)
    if behaviour.startswith("once "):
        path.write_text("")
        behaviour = behaviour.removeprefix("once ")
    if behaviour in SUDDEN:
        SUDDEN[behaviour]()
    elif behaviour == "raise":
        raise ValueError("the words of a conversation")
    elif behaviour == "memory":
        raise MemoryError
    elif behaviour.startswith("keep"):  # as an allocator or a driver does: more with every job
        KEPT.append(np.ones(int(behaviour.split()[1]) * 125_000))
    elif behaviour.startswith("spin"):  # as a library does that never lets go of the interpreter for long
        until_s = time.monotonic() + float(behaviour.split()[1])
        while time.monotonic() < until_s:
            sum(range(1000))
    elif behaviour == "hold":  # until the test writes something else
        while read_behaviour(path) == "hold":
            report("hold", 0.5)
            time.sleep(0.02)
    elif behaviour.startswith("wait"):
        until_s = time.monotonic() + float(behaviour.split()[1])
        while time.monotonic() < until_s:
            report("wait", 0.5)
            time.sleep(0.02)


def fill_memory() -> None:
    """Take as much memory as a machine of any size can spare, touch it, and keep it."""
    held = [b"\1" * BOMB_STEP_BYTES for _ in range(BOMB_BYTES // BOMB_STEP_BYTES)]
    time.sleep(600)
    held.clear()


def fill_memory_until_refused() -> None:
    """The same where the system says no before memory is short; macOS never does."""
    most_bytes = psutil.Process().memory_info().vms + BOMB_BYTES // 4
    resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
    fill_memory()


SUDDEN: dict[str, Callable[[], object]] = {
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "bomb": fill_memory,
    "bomb refused": fill_memory_until_refused,
}


def find_tones(waveform: Waveform) -> tuple[Turn, ...]:
    """One turn per stretch of one pitch; the label is the pitch, to the nearest 100 Hz."""
    frame = round(FRAME_S * SAMPLE_RATE_HZ)
    turns: list[Turn] = []
    for index in range(waveform.size // frame):
        block = waveform[index * frame : (index + 1) * frame]
        if float(np.abs(block).max()) < 0.01:
            continue
        crossings = np.count_nonzero(np.diff(np.signbit(block)))
        label = f"TONE_{round(crossings / 2 / FRAME_S / 100) * 100}"
        start_s, end_s = index * FRAME_S, (index + 1) * FRAME_S
        if turns and turns[-1].speaker == label and start_s - turns[-1].end_s < FRAME_S / 2:
            turns[-1] = Turn(turns[-1].start_s, end_s, label)
        else:
            turns.append(Turn(start_s, end_s, label))
    return tuple(turns)
