"""Where each chunk's audio lies in the transcript, so that a person can hear what a label was made of. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vps_bridge.labelling.align import StretchClock
from vps_bridge.rules.assemble import PlacedChunk

PlaceRow = tuple[str, float, float, float]
"""As it is kept: chunk id, from and to in seconds of the chunk, and where `from` is in seconds of the transcript."""


@dataclass(frozen=True)
class PlacedAudio:
    """A part of a chunk that has a place in the transcript."""

    chunk_id: str
    from_s: float
    """In seconds of the chunk, as is `to_s`."""
    to_s: float
    transcript_s: float
    """Where `from_s` is in the transcript."""

    def to_row(self) -> PlaceRow:
        """Return it as it is kept."""
        return (self.chunk_id, round(self.from_s, 3), round(self.to_s, 3), round(self.transcript_s, 3))

    def within(self, start_s: float, end_s: float) -> PlacedAudio | None:
        """Return what of it a span of the transcript covers; None where that is nothing."""
        first_s, last_s = max(start_s, self.transcript_s), min(end_s, self.transcript_s + self.to_s - self.from_s)
        if last_s <= first_s:
            return None
        shift_s = self.from_s - self.transcript_s
        return PlacedAudio(self.chunk_id, first_s + shift_s, last_s + shift_s, first_s)


def place_audio(placed: Iterable[PlacedChunk], clocks: Sequence[StretchClock]) -> tuple[PlacedAudio, ...]:
    """Return the parts of all chunks that have a place in the transcript, in its order."""
    found = [
        PlacedAudio(chunk.chunk_id, start_s - chunk.start_s, end_s - chunk.start_s, start_s + piece.offset_s)
        for chunk in placed
        for piece in clocks[chunk.stretch].pieces
        for start_s, end_s in [
            (max(chunk.start_s, piece.start_s), min(chunk.start_s + chunk.duration_s, piece.end_s)),
        ]
        if end_s > start_s
    ]
    return tuple(sorted(found, key=lambda part: (part.transcript_s, part.chunk_id)))
