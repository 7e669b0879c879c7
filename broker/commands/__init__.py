"""The commands of `omi-broker` that set a Mosquitto up, and what all its commands share."""
