"""The VPS: takes audio and events in, leases jobs to agents, links voices, and labels conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vps_bridge.client.run_diarization import run_diarization

__all__ = ["run_diarization"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module holds
    """Bring in the whole pipeline when it is asked for: a command that lists jobs answers without it."""
    if name != "run_diarization":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from vps_bridge.client.run_diarization import run_diarization  # noqa: PLC0415 - see above

    return run_diarization
