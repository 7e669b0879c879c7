"""What is worth knowing of a server that keeps a ledger."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerFacts:
    """A server, its version, and the settings by which it may lose what it has told us is safe."""

    shown: str
    version: str
    risks: tuple[str, ...]
