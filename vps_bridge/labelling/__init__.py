"""Labelling: from the speaker turns of a conversation's jobs to the label of each transcript segment, without I/O."""
