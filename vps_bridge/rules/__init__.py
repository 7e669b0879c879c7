"""Decisions without I/O: how chunks become jobs, who may work on a job, when a conversation is complete."""
