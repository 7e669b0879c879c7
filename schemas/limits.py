"""Bounds of the contract that are needed without its messages: commands name them in their help."""

MAX_SPEAKER_NUMBER = 10_000
"""Of a voice of a conversation: 1 is SPEAKER_01."""
