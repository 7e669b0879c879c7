"""What goes to agents and to the backend, and what comes back from agents."""
