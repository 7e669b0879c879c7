"""The whole pipeline on one machine, on a real telephone call: `make demo`."""
