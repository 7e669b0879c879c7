"""Clients of a running bridge."""
