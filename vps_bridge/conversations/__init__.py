"""Where conversations are kept: the protocol of a store, and the stores that implement it."""
