"""The commands of `omi-agent`."""
