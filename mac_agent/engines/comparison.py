"""Compare exact and stretch on one recording: diarization error, changed seconds and cosines of the embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyannote.core import Annotation, Segment
from pyannote.metrics.diarization import DiarizationErrorRate

from mac_agent.engines.agreement import changed_s
from mac_agent.weights.verdict import Comparison

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from mac_agent.engines.engine import Diarization, Turn


def compare(
    recording: str, audio_s: float, exact: Diarization, stretch: Diarization, *, exact_s: float, stretch_s: float
) -> Comparison:
    """Return how stretch differs from exact, which is the reference.

    Args:
        recording: name of the recording.
        audio_s: its duration.
        exact: its diarization in exact mode.
        stretch: its diarization in stretch mode.
        exact_s: seconds that exact took.
        stretch_s: seconds that stretch took.
    """
    reference, hypothesis = _annotate(exact.turns), _annotate(stretch.turns)
    metric = DiarizationErrorRate(collar=0.0, skip_overlap=False)
    parts = metric(reference, hypothesis, uem=Segment(0.0, audio_s), detailed=True)
    to_exact: dict[str, str] = metric.optimal_mapping(reference, hypothesis)  # the label in exact by that in stretch
    in_exact, in_stretch = _embeddings(exact), _embeddings(stretch)
    pairs = sorted((name, other) for other, name in to_exact.items())
    return Comparison(
        recording=recording,
        audio_s=audio_s,
        speech_s=parts["total"],
        error_s=parts["missed detection"] + parts["false alarm"] + parts["confusion"],
        changed_s=changed_s(exact.turns, stretch.turns),
        cosines=tuple(
            float(in_exact[name] @ in_stretch[other])
            for name, other in pairs
            if name in in_exact and other in in_stretch
        ),
        lost_speakers=len(in_exact.keys() - to_exact.values()) + len(in_stretch.keys() - to_exact.keys()),
        exact_s=exact_s,
        stretch_s=stretch_s,
    )


def _embeddings(found: Diarization) -> dict[str, NDArray[np.float32]]:
    """Return the embedding, of unit length, of each speaker that has one."""
    return {each.speaker: each.embedding for each in found.speakers if each.embedding is not None}


def _annotate(turns: Sequence[Turn]) -> Annotation:
    annotation = Annotation()
    for number, turn in enumerate(turns):
        annotation[Segment(turn.start_s, turn.end_s), number] = turn.speaker
    return annotation
