"""Publish a conversation's audio to omi-diarization over MQTT, and hear who spoke when.

from omi_diarization_client import Client

with Client("mqtts://vps.example:8883", "backend", password, ca="ca.pem") as client:
    client.publish("call-1", "call.wav", captured_at=began, transcript=segments)
    final = client.wait("call-1")
"""

from omi_diarization_client.client import Client
from omi_diarization_client.errors import (
    AudioChanged,
    BrokerUnavailable,
    NoAnswer,
    NotAllowed,
    OmiClientError,
    RefusedByBridge,
)
from omi_diarization_client.labels import ConversationLabels

__all__ = [
    "AudioChanged",
    "BrokerUnavailable",
    "Client",
    "ConversationLabels",
    "NoAnswer",
    "NotAllowed",
    "OmiClientError",
    "RefusedByBridge",
]
