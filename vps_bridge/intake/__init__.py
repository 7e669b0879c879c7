"""From bytes that arrive to audio and events that are accepted."""
