from __future__ import annotations

from dataclasses import dataclass

from vps_bridge.speakers import LocalSpeaker


@dataclass(frozen=True)
class Voice:
    """A published number and the local speakers it stands for."""

    speaker_id: int
    members: tuple[LocalSpeaker, ...]


@dataclass(frozen=True)
class VoiceBook:
    """The numbers a conversation has published; `to_json` and `from_json` keep it anywhere."""

    voices: tuple[Voice, ...] = ()
    retired: tuple[int, ...] = ()
