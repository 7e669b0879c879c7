"""Where conversations are kept: the protocol every store speaks, and the stores."""
