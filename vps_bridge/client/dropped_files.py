"""The recordings in a folder into which people and programs drop files, and which of them are written to their end."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

AUDIO_SUFFIXES = frozenset(
    {
        ".wav",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".m4a",
        ".m4b",
        ".mp4",
        ".qta",
        ".mov",
        ".3gp",
        ".aac",
        ".webm",
        ".aiff",
        ".aif",
        ".aifc",
        ".caf",
    }
)
TRANSCRIPT_SUFFIXES = (".json", ".srt", ".vtt", ".tsv", ".stm")  # of several the first one counts: it has words


@dataclass(frozen=True)
class DroppedRecording:
    """A recording, the transcript beside it, and what their sizes and times of change were when they were looked at."""

    audio: Path
    transcript: Path | None
    signature: tuple[int, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is made of."""
        return (self.audio,) if self.transcript is None else (self.audio, self.transcript)

    def digest(self) -> str:
        """Return a hash of its content, by which it is known under every name."""
        digests = [_digest(path) for path in self.files]
        return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def digest_without_transcript(self) -> str:
        """Return the hash by which its audio alone is known."""
        return _digest(self.audio)


def find_recordings(folder: Path, is_result: Callable[[str], bool] = lambda _name: False) -> list[DroppedRecording]:
    """Return the recordings in a folder, by name. Hidden files, links and files without a byte are none.

    The transcript of `call.wav` is `call.json`, `call.srt`, `call.vtt`, `call.tsv` or `call.stm`. Endings may be
    capitals, and the names composed (NFC) or not: what was copied from a Mac is not, and looks the same.

    Args:
        folder: where they are.
        is_result: whether a file of this name was written beside a recording: what was found out about `call.wav`,
            `call.wav.json`, is no transcript of `call.wav.mp3`.
    """
    files = sorted(path for path in folder.iterdir() if _is_file(path))
    by_name = {_plain(path.stem, path.suffix): path for path in files if not is_result(path.name)}
    found = []
    for audio in files:
        if audio.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        names = (_plain(audio.stem, suffix) for suffix in TRANSCRIPT_SUFFIXES)
        transcript = next((by_name[name] for name in names if name in by_name), None)
        try:
            signature = _sign((audio,) if transcript is None else (audio, transcript))
        except FileNotFoundError:
            continue  # it went away meanwhile
        if signature[0] > 0:
            found.append(DroppedRecording(audio, transcript, signature))
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(stem: str, suffix: str) -> str:
    return unicodedata.normalize("NFC", stem) + suffix.lower()


def _is_file(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_file() and not path.is_symlink()


def _sign(files: Iterable[Path]) -> tuple[int, ...]:
    return tuple(number for path in files for number in (path.stat().st_size, path.stat().st_mtime_ns))


class SettledFiles:
    """Tells which recordings have not changed for a while: nobody writes them any more."""

    def __init__(self, settle_s: float) -> None:
        """Wait so long after the last change that was seen."""
        self._settle_s = settle_s
        self._seen: dict[Path, tuple[DroppedRecording, float]] = {}

    def look(self, recordings: Iterable[DroppedRecording], now_s: float) -> list[DroppedRecording]:
        """Return those that are settled, given what is there at a moment of the monotonic clock."""
        before, self._seen = self._seen, {}
        settled = []
        for recording in recordings:
            known, since_s = before.get(recording.audio, (recording, now_s))
            self._seen[recording.audio] = (recording, since_s if known == recording else now_s)
            if now_s - self._seen[recording.audio][1] >= self._settle_s:
                settled.append(recording)
        return settled
