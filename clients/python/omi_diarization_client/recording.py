"""Audio to be sent: a file or bytes, of which the hash is known before the first part goes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from omi_diarization_client.errors import AudioChanged

Audio = bytes | str | os.PathLike[str]


class AudioSource:
    """One chunk's audio. A file is read anew for every attempt, so that its size does not matter."""

    def __init__(self, audio: Audio) -> None:
        """Measure and hash it. Raises `OSError` where a file cannot be read."""
        self._audio = audio if isinstance(audio, bytes) else Path(audio)
        self._name = "the audio" if isinstance(self._audio, bytes) else str(self._audio)
        if isinstance(self._audio, Path) and not self._audio.is_file():
            raise FileNotFoundError(f"{self._audio} is no regular file: write the audio into one first")
        self.size = len(self._audio) if isinstance(self._audio, bytes) else self._audio.stat().st_size
        digest = hashlib.sha256()
        for _, part in self._read(1_000_000):
            digest.update(part)
        self.sha256 = digest.hexdigest()

    def parts(self, part_bytes: int) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) of each part; what is written behind the end meanwhile is not this chunk's.

        Raises:
            AudioChanged: the file does not hold any more what it held.
        """
        digest = hashlib.sha256()
        for offset, part in self._read(part_bytes):
            digest.update(part)
            if offset + len(part) == self.size and digest.hexdigest() != self.sha256:
                raise AudioChanged(f"{self._name} changed while it was sent: wait until it is written, then send it")
            yield offset, part

    def _read(self, part_bytes: int) -> Iterator[tuple[int, bytes]]:
        if isinstance(self._audio, bytes):
            for offset in range(0, max(1, self.size), part_bytes):
                yield offset, self._audio[offset : offset + part_bytes]
            return
        with self._audio.open("rb") as file:
            offset = 0
            while offset < self.size or offset == 0:
                part = file.read(min(part_bytes, self.size - offset))
                if not part and self.size:
                    raise AudioChanged(f"{self._audio} became shorter: wait until it is written, then send it")
                yield offset, part
                offset += len(part)
                if not self.size:
                    return
