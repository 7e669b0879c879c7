"""Bounds of the contract that are needed without its messages: commands name them in their help."""

MAX_SPEAKER_NUMBER = 10_000
"""Of a voice of a conversation: 1 is SPEAKER_01."""
MAX_NAME_CHARS = 200
"""Of a name or an id of people's making, composed (NFC)."""
