"""Measure how far exact and stretch differ on this machine with the installed weights, and how long each takes.

Each mode runs in its own worker process, which loads the engine and decodes audio as for a job of the agent.
"""

from __future__ import annotations

import os
import tempfile
import wave
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mac_agent.audio import decode
from mac_agent.diarize import diarize_files
from mac_agent.engines.clip import find_clip
from mac_agent.engines.engine import SAMPLE_RATE_HZ, Hints
from mac_agent.engines.registry import load_engine
from mac_agent.errors import AudioError
from mac_agent.weights.pipelines import find_pipeline
from mac_agent.weights.verdict import EXACT, STRETCH, describe_circumstances, judge, write_verdict
from mac_agent.worker import read_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mac_agent.engines.engine import Waveform
    from mac_agent.inference import JobResult
    from mac_agent.settings import AgentSettings
    from mac_agent.weights.manifest import Manifest
    from mac_agent.weights.verdict import StretchVerdict

# The latencies that docs/engines.md names for a warm engine, decoding included: (seconds of audio, limit in seconds).
LATENCY_LIMITS = ((30.0, 5.0), (60.0, 6.0), (300.0, 30.0))
_LONGEST_SAMPLES = round(max(audio_s for audio_s, _ in LATENCY_LIMITS) * SAMPLE_RATE_HZ)
_INT16_PEAK = 32_767


class RecordingRefused(Exception):
    """A recording cannot be decoded; the message names it."""


@dataclass(frozen=True)
class Clip:
    """One audio file that both modes diarize."""

    name: str
    path: Path
    audio_s: float


@dataclass(frozen=True)
class Latency:
    """How long one mode took for audio of a length with a promised latency."""

    mode: str
    audio_s: float
    took_s: float
    limit_s: float

    @property
    def is_kept(self) -> bool:
        """Whether it took less time than promised."""
        return self.took_s < self.limit_s


@dataclass(frozen=True)
class Qualification:
    """The verdict, the latencies, and where the verdict is stored."""

    verdict: StretchVerdict
    latencies: tuple[Latency, ...]
    promised_audio: tuple[str, ...]
    """For each promised length, which recordings its audio was taken from."""
    load_per_core: float
    """Load average at the start, per core. Above 1, other programs made the measured times longer."""
    file: Path


def qualify(
    settings: AgentSettings,
    files: Sequence[Path],
    *,
    report: Callable[[str, float], None],
    with_latencies: bool = True,
) -> Qualification:
    """Run both modes over pyannote's sample and these files, compare them, and store the verdict.

    Args:
        settings: those of the agent: weights, device, threads.
        files: further recordings.
        report: called with (current step, fraction 0..1 of the whole run).
        with_latencies: also measure audio of each length in `LATENCY_LIMITS`.

    Raises:
        EngineError: the pipeline is missing, changed or cannot be loaded.
        RecordingRefused: a file cannot be decoded.
        DiarizeFailed: the engine failed.
        OSError: a file cannot be read, or the verdict cannot be written.
    """
    manifest = find_pipeline(settings.weights, settings.pipeline_dir).manifest
    load_per_core = os.getloadavg()[0] / (os.cpu_count() or 1)
    with tempfile.TemporaryDirectory(prefix="omi-qualify-") as scratch:
        recordings, waveforms = read_recordings([find_clip(), *files], settings.max_audio_s, report)
        latency_clips, made_of = make_latency_clips(waveforms, Path(scratch)) if with_latencies else ([], [])
        clips = [*recordings, *latency_clips]
        exact, stretch = (_run_mode(settings, mode, clips, report) for mode in (EXACT, STRETCH))
    verdict, latencies = _evaluate(manifest, recordings, exact, stretch)
    file = write_verdict(settings.verdicts, verdict)
    return Qualification(verdict, tuple(latencies), tuple(made_of), load_per_core, file)


def read_recordings(
    paths: Sequence[Path], max_audio_s: float, report: Callable[[str, float], None]
) -> tuple[list[Clip], dict[str, Waveform]]:
    """Decode every file, so that one that cannot be decoded is refused before minutes of work.

    Returns:
        The files as clips, and by path the first samples of each, at most the longest promised length.
    """
    clips, waveforms = [], {}
    for path in paths:
        report(f"decode {path.name}", 0.0)
        try:
            with path.open("rb") as stream:
                decoded = decode(stream, max_s=max_audio_s)
        except AudioError as error:
            raise RecordingRefused(f"{path}: {error} ({error.code.value})") from error
        clips.append(Clip(path.name, path, decoded.duration_s))
        waveforms[str(path)] = decoded.waveform[:_LONGEST_SAMPLES].copy()
    return clips, waveforms


def make_latency_clips(waveforms: dict[str, Waveform], directory: Path) -> tuple[list[Clip], list[str]]:
    """Write a file of each length in `LATENCY_LIMITS`, and describe where its audio was taken from."""
    clips, made_of = [], []
    for audio_s, _ in LATENCY_LIMITS:
        waveform, source = cut_or_repeat(waveforms, audio_s)
        clip = Clip(f"{audio_s:.0f} s", directory / f"{audio_s:.0f}.wav", audio_s)
        write_wav(clip.path, waveform)
        clips.append(clip)
        made_of.append(f"{clip.name}: {source}")
    return clips, made_of


def cut_or_repeat(waveforms: dict[str, Waveform], audio_s: float) -> tuple[Waveform, str]:
    """Return audio of this length and a description of its source.

    The source is the first recording that is long enough, else all recordings joined, and repeated where even they are
    too short.
    """
    samples = round(audio_s * SAMPLE_RATE_HZ)
    for path, waveform in waveforms.items():
        if waveform.size >= samples:
            return waveform[:samples], f"the beginning of {Path(path).name}"
    joined = np.concatenate(list(waveforms.values()))
    if joined.size >= samples:
        return joined[:samples], "all recordings, one after the other"
    return np.resize(joined, samples), "all recordings, one after the other and repeated"


def write_wav(path: Path, waveform: Waveform) -> None:
    """Write a waveform as a mono 16-bit WAV at ``SAMPLE_RATE_HZ``."""
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(SAMPLE_RATE_HZ)
        stream.writeframes((np.clip(waveform, -1.0, 1.0) * _INT16_PEAK).astype("<i2").tobytes())


def _run_mode(
    settings: AgentSettings, mode: str, clips: Sequence[Clip], report: Callable[[str, float], None]
) -> list[JobResult]:
    load = partial(
        load_engine,
        "pyannote",
        data_dir=settings.weights,
        device=settings.device,
        threads=settings.threads,
        pipeline_dir=settings.pipeline_dir,
        mode=mode,
    )
    total_s = sum(clip.audio_s for clip in clips)
    results: list[JobResult] = []

    def show(stage: str, fraction: float) -> None:
        done_s = sum(clip.audio_s for clip in clips[: len(results)])
        if len(results) < len(clips) and stage == "embedding":  # this stage takes nearly all of the time
            done_s += fraction * clips[len(results)].audio_s
        name = clips[len(results)].name if len(results) < len(clips) else ""
        report(f"{mode}: {name} {stage}", (done_s / total_s + (mode == STRETCH)) / 2)

    paths = [clip.path for clip in clips]
    for result in diarize_files(
        paths, load, hints=Hints(), limits=read_limits(settings), max_audio_s=settings.max_audio_s, report=show
    ):
        results.append(result)  # noqa: PERF402 - `show` reads the list between two results
    return results


def _evaluate(
    manifest: Manifest,
    recordings: Sequence[Clip],
    exact: Sequence[JobResult],
    stretch: Sequence[JobResult],
) -> tuple[StretchVerdict, list[Latency]]:
    from mac_agent.engines.comparison import compare  # noqa: PLC0415 - its library takes a second to import

    comparisons = [
        compare(
            clip.name, in_exact.duration_s, in_exact.diarization, in_stretch.diarization,
            exact_s=_took_s(in_exact), stretch_s=_took_s(in_stretch),
        )
        for clip, in_exact, in_stretch in zip(recordings, exact, stretch, strict=False)
    ]  # fmt: skip
    latencies = [
        Latency(mode, audio_s, _took_s(result), limit_s)
        for mode, results in ((EXACT, exact), (STRETCH, stretch))
        for (audio_s, limit_s), result in zip(LATENCY_LIMITS, results[len(recordings) :], strict=False)
    ]
    verdict = judge(
        comparisons,
        ran=[(results[0].info.mode, results[0].info.device) for results in (exact, stretch)],
        circumstances=describe_circumstances(manifest, exact[0].info.device),
        manifest=manifest,
        measured_at=datetime.now(UTC),
    )
    return verdict, latencies


def _took_s(result: JobResult) -> float:
    return result.timings_ms["total"] / 1000
