"""Recognising people: how often a voice is given the right name, a wrong one, or none."""
