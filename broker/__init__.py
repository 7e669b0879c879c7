"""Reaching an MQTT broker and running one: sessions, the embedded broker, Mosquitto provisioning."""
