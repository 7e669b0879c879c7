"""The signature of OMI's webhooks: `X-Omi-Signature: t=<Unix time>,v1=<HMAC-SHA256 over "t.uid." and the body>`."""

from __future__ import annotations

import hashlib
import hmac

TOLERANCE_S = 300
MAX_HEADER_CHARS = 1_000


def sign_webhook(secret: str, at: int, uid: str, body: bytes) -> str:
    """Return the header's value for a body that is sent at a Unix time."""
    return f"t={at},v1={_digest(secret, str(at), uid, body)}"


def is_signed(header: str, secret: str, now: float, uid: str, body: bytes) -> bool:
    """Whether the header is the signature of this body for this user, made within `TOLERANCE_S` of `now`.

    One of several `v1` is enough: a sender that changes its secret signs with both for a while.
    """
    if len(header) > MAX_HEADER_CHARS or not header.isascii():
        return False
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    if len(times) != 1 or not times[0].isdigit() or abs(now - int(times[0])) > TOLERANCE_S:
        return False
    right = _digest(secret, times[0], uid, body)
    given = [value for name, _, value in parts if name == "v1"]
    return any(hmac.compare_digest(value, right) for value in given)


def _digest(secret: str, at: str, uid: str, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{at}.{uid}.".encode() + body, hashlib.sha256).hexdigest()
