"""Voice samples as a result message carries them: in columns, and as many of them as there is room for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schemas.codec import encode
from schemas.errors import MessageTooLarge
from schemas.turns import MAX_SAMPLES, SpeakerTurns, VoiceSamples

if TYPE_CHECKING:
    from mac_agent.engines.samples import SpeechSamples

_HEADS_BYTES = 1_000  # more than the names and lengths of the columns take


def add_samples(message: SpeakerTurns, found: SpeechSamples) -> SpeakerTurns:
    """Return the result with as many of the samples as a message may hold; in an hour of many turns it is every n-th.

    Where there is no room for any, or none is usable, the result stays as it is: linking then uses its speakers.
    """
    usable = _usable(found, message.duration_s)
    if not len(usable):
        return message
    try:
        room = SpeakerTurns.MAX_ENCODED_BYTES - len(encode(message)) - _HEADS_BYTES
    except MessageTooLarge:
        return message
    kept = usable.thin(max(0, min(MAX_SAMPLES, room // _row_bytes(usable))))
    if not len(kept):
        return message
    return message.model_copy(update={"voice_samples": _to_columns(kept, message.duration_s)})


def _usable(found: SpeechSamples, duration_s: float) -> SpeechSamples:
    """Return the samples that start within the job and whose numbers float16 can hold."""
    numbers = found.embeddings if found.plda is None else np.hstack([found.embeddings, found.plda])
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(numbers.astype(np.float16)).all(axis=1)
    return found.keep(is_finite & (found.start_s < duration_s))


def _row_bytes(samples: SpeechSamples) -> int:
    """Return how many bytes one sample takes."""
    speech = 0 if samples.speech is None else -(-samples.speech.shape[1] // 8)
    plda = 0 if samples.plda is None else samples.plda.shape[1]
    return int(12 + speech + 2 * (samples.embeddings.shape[1] + plda))


def _to_columns(samples: SpeechSamples, duration_s: float) -> VoiceSamples:
    end_s = np.minimum(samples.end_s, duration_s)
    times_s = np.column_stack([samples.start_s, np.maximum(end_s, samples.start_s), samples.clean_s]).astype("<f4")
    return VoiceSamples(
        count=len(samples),
        every=samples.every,
        times_s=times_s.tobytes(),
        speech=b"" if samples.speech is None else np.packbits(samples.speech, axis=1).tobytes(),
        embeddings=samples.embeddings.astype("<f2").tobytes(),
        plda=b"" if samples.plda is None else samples.plda.astype("<f2").tobytes(),
        phi=b"" if samples.phi is None else samples.phi.astype("<f4").tobytes(),
    )
