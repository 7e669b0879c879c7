"""The weights of the engines: fetching, pinning and verifying them, and the verdict on the stretch mode."""
