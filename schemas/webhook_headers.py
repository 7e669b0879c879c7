"""The headers of the webhook's messages; their bodies are messages of the contract as they are."""

SIGNATURE = "Omi-Signature"
"""`t=UNIX_TIME,v1=HEX`: HMAC-SHA256, with the shared secret, of the time, a dot and the body."""
DELIVERY = "Idempotency-Key"
"""The same for every attempt at a message, and for no other."""
SCHEMA = "Omi-Schema"
"""Which message of the contract the body is."""
