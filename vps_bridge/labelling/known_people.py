"""Whom a conversation's owner knows: what labelling compares its voices with."""

from __future__ import annotations

from dataclasses import dataclass

from vps_bridge.people.match import Print


@dataclass(frozen=True)
class KnownPeople:
    """The people of one owner, and their voiceprints."""

    people: frozenset[str] = frozenset()
    """Everybody, with a voiceprint or without."""
    prints: tuple[Print, ...] = ()
    """From elsewhere: a conversation's own voiceprints say nothing about its voices."""
    taught: frozenset[str] = frozenset()
    """The people who have a voiceprint from this conversation already. It stays while its confirmation stands."""
    enrols: str | None = None
    """The person whose one voice this conversation is to teach; nobody is recognised in it."""
