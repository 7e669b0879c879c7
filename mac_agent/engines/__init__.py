"""Diarization engines behind one interface. torch and pyannote are imported only in this package."""
