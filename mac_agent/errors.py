"""The errors that the engines and their weights share."""

from __future__ import annotations

from schemas.failure import FailureCode


class EngineError(Exception):
    """An engine cannot be loaded or cannot run, and a person can put that right; the message names the remedy."""


class UnknownEngine(EngineError):
    """No engine has this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"There is no engine {name!r}. Choose one of: {', '.join(known)}.")
        self.name = name


class ModelMissing(EngineError):
    """The weights of an engine are not on this machine."""

    def __init__(self, engine: str, path: str) -> None:
        super().__init__(f"{path} is missing. Run: omi-agent fetch-model {engine}")
        self.path = path


class ModelChanged(EngineError):
    """A weights file differs from the pinned one, so it is never opened."""

    def __init__(self, engine: str, path: str, *, expected_sha256: str, found_sha256: str) -> None:
        super().__init__(
            f"{path} has sha256 {found_sha256[:16]}…, expected {expected_sha256[:16]}…; it was not opened. "
            f"Delete it and run: omi-agent fetch-model {engine}"
        )
        self.path = path


class DeviceUnavailable(EngineError):
    """The requested device cannot be used on this machine."""


class InvalidWaveform(EngineError):
    """The samples do not have the type, shape or values that ``Engine.diarize`` takes."""


class AudioError(Exception):
    """A chunk that cannot be diarized. `code` is what the failure carries; the message names the remedy."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code
