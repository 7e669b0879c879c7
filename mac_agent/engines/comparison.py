"""Two answers to one recording, the first taken for the truth: what DER counts, what changed, how alike voices are."""

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
    """Return how stretch differs from exact.

    Args:
        recording: its name.
        audio_s: its length.
        exact: the answer taken for the truth.
        stretch: the other.
        exact_s: seconds that exact took.
        stretch_s: seconds that stretch took.
    """
    reference, hypothesis = _annotate(exact.turns), _annotate(stretch.turns)
    metric = DiarizationErrorRate(collar=0.0, skip_overlap=False)
    parts = metric(reference, hypothesis, uem=Segment(0.0, audio_s), detailed=True)
    exact_names: dict[str, str] = metric.optimal_mapping(reference, hypothesis)  # by the name in stretch
    ours, theirs = _embeddings(exact), _embeddings(stretch)
    pairs = [(name, other) for other, name in exact_names.items()]
    return Comparison(
        recording=recording,
        audio_s=audio_s,
        speech_s=parts["total"],
        error_s=parts["missed detection"] + parts["false alarm"] + parts["confusion"],
        changed_s=changed_s(exact.turns, stretch.turns),
        cosines=tuple(
            float(ours[name] @ theirs[other]) for name, other in sorted(pairs) if name in ours and other in theirs
        ),
        lost_speakers=len(ours.keys() - exact_names.values()) + len(theirs.keys() - exact_names.keys()),
        exact_s=exact_s,
        stretch_s=stretch_s,
    )


def _embeddings(found: Diarization) -> dict[str, NDArray[np.float32]]:
    """Return the speakers that have one, of unit length."""
    return {voice.speaker: voice.embedding for voice in found.speakers if voice.embedding is not None}


def _annotate(turns: Sequence[Turn]) -> Annotation:
    annotation = Annotation()
    for number, turn in enumerate(turns):
        annotation[Segment(turn.start_s, turn.end_s), number] = turn.speaker
    return annotation
