"""Weights on this machine: fetched, pinned, trusted, qualified."""
