"""The samples of a chunk while they come: one array that grows in place, and silence laid into it afterwards."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mac_agent.engines.engine import Waveform

BLOCK_SAMPLES = 1 << 20


@dataclass(frozen=True)
class Hole:
    """Silence of `samples` samples that belongs in front of the sample at `position`."""

    position: int
    samples: int


class SampleBuffer:
    """Mono samples, float32. Four hours at 16 kHz are 0.92 GB, so that a list of blocks and their copy are too much."""

    def __init__(self) -> None:
        # Grows by a sixteenth with realloc, which moves pages of large blocks instead of copying them.
        self._samples = array("f")
        self.silent_samples = 0
        """How many of them were laid in as silence."""

    def __len__(self) -> int:
        return len(self._samples)

    def append(self, block: Waveform) -> None:
        """Add samples of shape ``(samples,)`` at the end."""
        self._samples.frombytes(np.ascontiguousarray(block, dtype=np.float32).data.cast("B"))

    def cut(self, samples: int) -> None:
        """Keep the first so many samples."""
        del self._samples[samples:]

    def lay_in_silence(self, holes: Sequence[Hole]) -> None:
        """Move what follows each hole to the right, in place. `holes` are in order."""
        end, shift = len(self._samples), sum(hole.samples for hole in holes)
        self.silent_samples += shift
        for start in range(0, shift, BLOCK_SAMPLES):
            self.append(np.zeros(min(BLOCK_SAMPLES, shift - start), dtype=np.float32))
        samples = self.view()
        for hole in reversed(holes):
            position = min(hole.position, end)
            _move_right(samples, position, end, shift)
            samples[position + shift - hole.samples : position + shift] = 0.0
            end, shift = position, shift - hole.samples

    def view(self) -> Waveform:
        """Return the samples, shape ``(samples,)``, without a copy. While this view lives, nothing can be added."""
        samples: NDArray[np.float32] = np.frombuffer(self._samples, dtype=np.float32)
        return samples


def _move_right(samples: Waveform, start: int, end: int, shift: int) -> None:
    """Move [start, end) by `shift` from its end on, in blocks: where both overlap, numpy copies no more than one."""
    for stop in range(end, start, -BLOCK_SAMPLES):
        first = max(start, stop - BLOCK_SAMPLES)
        samples[first + shift : stop + shift] = samples[first:stop]
