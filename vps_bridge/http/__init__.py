"""The HTTP door: one server, its routes, and what they do."""
