"""The VPS: takes audio and events in, leases jobs to agents, links voices, and labels conversations."""

from vps_bridge.diarization import run_diarization

__all__ = ["run_diarization"]
