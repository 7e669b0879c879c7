"""What `omi-bridge doctor` examines: the bridge's files, its broker, its agents, its queue, and the tailnet."""
