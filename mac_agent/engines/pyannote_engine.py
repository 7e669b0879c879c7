"""The production engine: a pyannote.audio pipeline out of a local directory."""

from __future__ import annotations

import time
import warnings
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
import torch
from scipy.spatial.distance import pdist

from mac_agent.engines.clip import load_clip
from mac_agent.engines.engine import (
    SAMPLE_RATE_HZ,
    Diarization,
    EngineInfo,
    Hints,
    ReportProgress,
    SpeakerEvidence,
    Turn,
    Waveform,
    check_waveform,
)
from mac_agent.engines.pyannote_device import agrees_with_cpu, choose_device
from mac_agent.engines.pyannote_pipeline import EMBEDDINGS, SEGMENTATIONS, ExactDiarization, load_pipeline
from mac_agent.engines.pyannote_stretch import StretchDiarization
from mac_agent.engines.samples import SpeechSamples, sample_windows
from mac_agent.weights.manifest import content_revision, list_files
from mac_agent.weights.verdict import EXACT, ModeChoice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pyannote.core import Annotation

MODES: dict[str, type[ExactDiarization]] = {kind.mode: kind for kind in (ExactDiarization, StretchDiarization)}
DEFAULT_THREADS = 2
LEAST_EMBEDDING_S = 1.0  # an embedding of less clean speech is not reliable enough for linking
WARM_UP_S = 10.0
# Euclidean, between embeddings of unit length. In four recordings, the voices that community-1 found are at least 0.98
# apart. Where K-means split them into more voices than there are, the nearest two are at most 0.63 apart.
DISTINCT_DISTANCE = 0.8
# One window per batch takes 400 ms on two cores; in batches of 32 each window takes 740 ms: 32 do not fit the caches.
CPU_EMBEDDING_BATCH = 1
_STAGES = {"segmentation": "segmentation", "embeddings": "embedding", "discrete_diarization": "clustering"}

_log = structlog.get_logger("mac_agent.engines.pyannote")


def load_pyannote(
    directory: Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    mode: str | Callable[[str], ModeChoice] = EXACT,
) -> PyannoteEngine:
    """Load a pipeline directory, choose the device, and warm up.

    The checkpoints are pickles: loading one runs the code in it. Load only a directory whose files were verified.

    Args:
        directory: holds ``config.yaml``, ``segmentation/``, ``embedding/`` and ``plda/``.
        device: ``auto`` is mps, then cuda, then cpu; or a torch device name. A device whose turns differ from the
            CPU's is refused, and the CPU is used.
        threads: CPU threads that torch may use, 2 when None.
        mode: ``exact`` or ``stretch``; or a function that returns the mode for the device that is used in the end.

    Raises:
        PipelineUnusable: the directory cannot be loaded.
        DeviceUnavailable: torch has no such device here.
    """
    torch.set_num_threads(threads or DEFAULT_THREADS)
    chosen, cpu = choose_device(device), torch.device("cpu")

    def load(on: torch.device, choice: ModeChoice) -> PyannoteEngine:
        return PyannoteEngine(load_pipeline(directory, MODES[choice.mode]), directory, on, choice.reason)

    def choose(on: torch.device) -> ModeChoice:
        return mode(str(on)) if callable(mode) else ModeChoice(mode, "")

    if chosen.type != "cpu":
        choice = choose(chosen)
        candidate = load(chosen, choice)
        if agrees_with_cpu(load(cpu, choice), candidate, load_clip()):
            return candidate
        _log.error("device refused, using the CPU", device=str(chosen))
    engine = load(cpu, choose(cpu))
    if chosen.type != "cpu":
        engine.note_refused(chosen)
    engine.diarize(load_clip(WARM_UP_S), Hints(), lambda _stage, _done: None)
    return engine


class PyannoteEngine:
    """A pyannote pipeline on a device."""

    def __init__(
        self, pipeline: ExactDiarization, directory: Path, device: torch.device, mode_reason: str = ""
    ) -> None:
        self._pipeline = pipeline
        self._device = device
        if device.type == "cpu":
            pipeline.embedding_batch_size = CPU_EMBEDDING_BATCH
        pipeline.to(device)
        embedding: Any = pipeline.embedding  # in the form that `read_config` gave it
        files = list_files(directory)
        checkpoint = next(file for file in files if file.path == f"{embedding['subfolder']}/pytorch_model.bin")
        is_wespeaker = pipeline.is_wespeaker
        self._info = EngineInfo(
            name="pyannote",
            model=directory.resolve().name,
            revision=content_revision(files)[:12],
            device=str(device),
            mode=pipeline.mode if is_wespeaker else "stock",
            embedding_model=f"pyannote/{type(pipeline._embedding.model_).__name__}",  # noqa: SLF001 - it has no other name
            embedding_revision=checkpoint.sha256[:12],
            mode_reason=mode_reason if is_wespeaker else "the speaker network is not of the WeSpeaker family",
        )

    @property
    def info(self) -> EngineInfo:
        """Name, mode, device and weights of this engine."""
        return self._info

    def diarize(self, waveform: Waveform, hints: Hints, report: ReportProgress) -> Diarization:
        """Find who speaks when; see ``Engine.diarize``.

        Raises:
            InvalidWaveform: wrong type, shape, or samples that are not finite.
        """
        check_waveform(waveform)
        if not waveform.size:
            return Diarization((), (), (), 0.0, {}, ("no speech was heard",))
        file = {"waveform": torch.from_numpy(waveform)[None], "sample_rate": SAMPLE_RATE_HZ, "uri": "recording"}
        hook = _ProgressHook(report)
        try:
            output, notes = self._apply(file, hints, hook)
        finally:
            if self._device.type == "mps":  # its driver does not free memory by itself, and RSS does not include it
                torch.mps.empty_cache()
        found = to_diarization(output, len(waveform) / SAMPLE_RATE_HZ)
        notes += () if found.turns else ("no speech was heard",)
        return replace(found, timings_ms=hook.timings_ms(), warnings=notes, samples=self._samples(file))

    def note_refused(self, device: torch.device) -> None:
        """State in ``info`` that another device was requested and failed the comparison with the CPU."""
        self._info = replace(self._info, device=f"{self._device} ({device.type} refused)")

    def _apply(self, file: dict[str, Any], hints: Hints, hook: _ProgressHook) -> tuple[Any, tuple[str, ...]]:
        """Diarize with the hints, and again without the lower bound where the audio has fewer speakers.

        If the lower bound is more than the speakers it finds, pyannote splits voices by K-means, or fails where there
        are fewer embeddings than that. Two speakers nearer than ``DISTINCT_DISTANCE`` are one voice that was split.
        """
        least, most = read_hints(hints)
        if least is not None:
            try:
                output = self._run(file, hook, min_speakers=least, max_speakers=most)
            except ValueError:
                _log.info("speaker count does not fit the audio", asked=least)
            else:
                if least_distance(output.speaker_embeddings) >= DISTINCT_DISTANCE:
                    return output, ()
        output = self._run(file, hook, max_speakers=most)
        found = len(output.speaker_diarization.labels())
        if least is not None and found < least:
            return output, (f"{least} speakers were expected, {found} could be told apart",)
        return output, ()

    def _samples(self, file: dict[str, Any]) -> SpeechSamples | None:
        """Return the embeddings that were clustered, in the space of the pipeline's PLDA too; None without one."""
        plda = getattr(self._pipeline.clustering, "plda", None)
        if EMBEDDINGS not in file or plda is None:
            return None
        window = file[SEGMENTATIONS].sliding_window
        samples = sample_windows(
            file[SEGMENTATIONS].data, file[EMBEDDINGS], window_s=window.duration, hop_s=window.step
        ).thin()
        if not len(samples):
            return None
        return replace(samples, plda=plda(samples.embeddings), phi=plda.phi)

    def _run(self, file: dict[str, Any], hook: _ProgressHook, **bounds: int | None) -> Any:  # noqa: ANN401 - pyannote's
        with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
            warnings.simplefilter("ignore")  # of bounds that cannot be met, and of means of no values: both are handled
            return self._pipeline.apply(file, hook=hook, **bounds)


class _ProgressHook:
    """The hook that pyannote calls: passes progress on, and records when each stage ended."""

    def __init__(self, report: ReportProgress) -> None:
        self._report = report
        self._began_s = time.perf_counter()
        self._ended_s: dict[str, float] = {}

    def __call__(
        self, step: str, _artifact: object, *, total: int | None = None, completed: int | None = None, **_: object
    ) -> None:
        """Handle one call of pyannote's hook."""
        stage = _STAGES.get(step)
        if stage is None:
            return
        if total is not None and completed is not None:
            self._report(stage, min(1.0, completed / max(total, 1)))
        else:
            self._ended_s[stage] = time.perf_counter()
            self._report(stage, 1.0)

    def timings_ms(self) -> dict[str, float]:
        """Return how long every finished stage took, in milliseconds."""
        marks = [self._began_s, *self._ended_s.values()]
        return {stage: 1000 * (end - start) for stage, start, end in zip(self._ended_s, marks, marks[1:], strict=False)}


def read_hints(hints: Hints) -> tuple[int | None, int | None]:
    """Return the least and the most speakers; hints that contradict each other or are not positive are ignored."""

    def positive(count: int | None) -> int | None:
        return count if count is not None and count > 0 else None

    exact = positive(hints.num_speakers)
    most = exact or positive(hints.max_speakers)
    least = exact or positive(hints.min_speakers)
    if least is not None and most is not None:
        least = min(least, most)
    return (least if least != 1 else None), most


def least_distance(embeddings: NDArray[np.float64] | None) -> float:
    """Return the Euclidean distance of the two nearest embeddings, at unit length; infinity for fewer than two."""
    if embeddings is None or len(embeddings) < 2:  # noqa: PLR2004 - two make a distance
        return np.inf
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return float(np.min(pdist(embeddings / np.maximum(lengths, np.finfo(np.float64).tiny))))


def to_diarization(output: Any, duration_s: float) -> Diarization:  # noqa: ANN401 - pyannote's
    """Convert pyannote's output: speakers are named in order of first speech, turns lie within the recording."""
    annotation: Annotation = output.speaker_diarization
    first_s = {label: annotation.label_timeline(label)[0].start for label in annotation.labels()}
    names = {label: f"SPEAKER_{n:02d}" for n, label in enumerate(sorted(first_s, key=lambda label: first_s[label]))}
    turns = _turns(annotation, names, duration_s)
    alone_s, speech_s = clean_seconds(turns)
    rows = dict(zip(annotation.labels(), output.speaker_embeddings, strict=True)) if first_s else {}
    return Diarization(
        turns=turns,
        exclusive_turns=_turns(output.exclusive_speaker_diarization, names, duration_s),
        speakers=tuple(
            SpeakerEvidence(name, alone_s[name], as_embedding(rows[label], alone_s[name]))
            for label, name in names.items()
        ),
        speech_s=speech_s,
        timings_ms={},
        warnings=(),
    )


def as_embedding(row: NDArray[np.float64], clean_s: float) -> NDArray[np.float32] | None:
    """Return an embedding of unit length; None where there is too little clean speech for one."""
    length = float(np.linalg.norm(row))
    if clean_s < LEAST_EMBEDDING_S or not np.isfinite(length) or length == 0.0:
        return None
    return (row / length).astype(np.float32)


def clean_seconds(turns: Sequence[Turn]) -> tuple[defaultdict[str, float], float]:
    """Return how long each speaker speaks alone, and how long at least one speaker speaks."""
    starts, ends = ((t.start_s, 1, t.speaker) for t in turns), ((t.end_s, -1, t.speaker) for t in turns)
    edges = sorted((*starts, *ends))
    alone_s: defaultdict[str, float] = defaultdict(float)
    active: Counter[str] = Counter()
    speech_s = last_s = 0.0
    for at_s, change, speaker in edges:
        speaking = [name for name, count in active.items() if count]
        speech_s += at_s - last_s if speaking else 0.0
        if len(speaking) == 1:
            alone_s[speaking[0]] += at_s - last_s
        active[speaker] += change
        last_s = at_s
    return alone_s, speech_s


def _turns(annotation: Annotation, names: dict[Any, str], duration_s: float) -> tuple[Turn, ...]:
    found = (
        Turn(max(0.0, segment.start), min(segment.end, duration_s), names[label])
        for segment, _, label in annotation.itertracks(yield_label=True)
    )
    kept = (turn for turn in found if turn.end_s > turn.start_s)
    return tuple(sorted(kept, key=lambda turn: (turn.start_s, turn.end_s, turn.speaker)))
