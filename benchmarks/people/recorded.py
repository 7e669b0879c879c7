"""Voices of community-1 (WeSpeaker), whose weights are gated: from its recorded networks (../shared/golden)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.bench_linking import SAME, ReplayedRecording
from benchmarks.local_pipeline import build_pipeline_directory
from benchmarks.people.conversations import SpokenVoice
from mac_agent.engines.pyannote_engine import PyannoteEngine
from mac_agent.engines.pyannote_pipeline import ExactDiarization, load_pipeline

RECORDINGS = {"01_dialogue": 218, "02_pyannote_sample": 21, "03_dual_speaker": 51, "06_long_recording": 969}
"""And their windows, one a second."""
JOB_S = 60
LEAST_SHARE = 0.5


def recorded_voices() -> list[SpokenVoice]:
    """Return the speakers of all jobs of 60 s of the recordings, with who they are by pyannote's answer for the whole.

    Who is one person in two recordings is known from `bench_linking`; no other reference says so.
    """
    with TemporaryDirectory() as scratch:
        directory = build_pipeline_directory(Path(scratch) / "seeded")
        engine = PyannoteEngine(load_pipeline(directory, ExactDiarization), directory, torch.device("cpu"))
        return [
            voice
            for name, windows in RECORDINGS.items()
            for voice in _voices(name, ReplayedRecording(engine, [(name, 0, windows)]))
        ]


def _voices(name: str, recording: ReplayedRecording) -> list[SpokenVoice]:
    found = []
    for first_s in range(0, max(1, recording.end_s - JOB_S // 2), JOB_S):
        result = recording.diarize(first_s, min(first_s + JOB_S, recording.end_s))
        for speaker in result.speakers:
            spoken = [(t.start_s + first_s, t.end_s + first_s) for t in result.turns if t.speaker == speaker.speaker]
            shared: dict[str, float] = {}
            for start_s, end_s, who in recording.reference:
                overlap_s = sum(max(0.0, min(end_s, last_s) - max(start_s, begin_s)) for begin_s, last_s in spoken)
                shared[who] = shared.get(who, 0.0) + overlap_s
            who = max(shared, key=lambda each: shared[each])
            is_clear = shared[who] >= LEAST_SHARE * sum(end_s - start_s for start_s, end_s in spoken)
            if speaker.embedding is not None and is_clear:
                found.append(
                    SpokenVoice(f"{name}@{first_s}", SAME.get(who, who), speaker.embedding, speaker.clean_speech_s)
                )
    return found
