"""People: who of those that are known a voice belongs to."""
