"""One attempt at a message: a signed POST, within a time, that follows no redirect and reads nothing of the answer."""

from __future__ import annotations

from http import HTTPStatus

from schemas.webhook_headers import DELIVERY, SCHEMA, SIGNATURE
from vps_bridge.ledger.webhook_outbox import WebhookMessage
from vps_bridge.signed_endpoint import SignedEndpoint, sign
from vps_bridge.timed_calls import CLIENT_ERROR, OK, REDIRECT, CallFailed, TimedCalls


class NotDelivered(Exception):
    """The receiver did not take a message; its words say why, and never what was sent or answered."""


class Post:
    """Sends messages, one at a time. `abort`, from another thread, ends the attempt that is under way."""

    def __init__(self, receiver: SignedEndpoint) -> None:
        """Send to this receiver."""
        self._receiver, self._calls = receiver, TimedCalls(receiver)

    def send(self, message: WebhookMessage, now: int) -> None:
        """Send a message; `now` is Unix time, for the signature. Raises `NotDelivered`."""
        receiver = self._receiver
        headers = {
            "Content-Type": "application/json",
            DELIVERY: message.delivery_id,
            SIGNATURE: sign(receiver.secret, now, message.body),
            SCHEMA: message.schema_name,
        }
        try:
            status = self._calls.call("POST", receiver.target, headers, message.body).status
        except CallFailed as error:
            raise NotDelivered(str(error)) from error
        if not OK <= status < REDIRECT:
            raise NotDelivered(f"{receiver.shown} answered {status}{_advise(status)}")

    def abort(self) -> None:
        """End the attempt that is under way, if any: it counts as not delivered."""
        self._calls.abort()


def _advise(status: int) -> str:
    if REDIRECT <= status < CLIENT_ERROR:
        return ": redirects are not followed, set OMI_WEBHOOK_URL to where it leads"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return ": has it the same secret (OMI_WEBHOOK_SECRET), and the right time?"
    return ""
