"""The agent: it receives audio, runs the engine, and returns speaker turns."""
