"""The commands of `omi-bridge`."""
