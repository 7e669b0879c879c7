"""Errors of the bridge as a whole."""

from __future__ import annotations


class AnotherBridge(Exception):
    """A second live bridge serves the same broker and root."""
