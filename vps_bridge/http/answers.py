"""Events as they come over HTTP, and receipts as they are answered there: the same as over MQTT."""

from __future__ import annotations

from fastapi import Request, Response

from schemas.codec import encode
from schemas.conversation import Accepted, Verdict
from schemas.failure import FailureCode, policy_of
from schemas.people import PersonAccepted
from schemas.record import Message
from vps_bridge.http.bodies import is_encoded, read_small
from vps_bridge.http.messages import HttpProblem

_DISCARDED = {
    FailureCode.CONVERSATION_DELETED: "the conversation is deleted: nothing is taken for it any more",
    FailureCode.REVISION_STALE: "an event of a higher revision came before: send what is true now",
}


async def json_event(request: Request, kind: type[Message]) -> bytes:
    """Return the body that is to be an event of this kind."""
    if not request.headers.get("content-type", "").lower().startswith("application/json"):
        msg = f"send a {kind.__name__} with `Content-Type: application/json`"
        raise HttpProblem(415, "payload.malformed", msg)
    if is_encoded(request):
        raise HttpProblem(415, "payload.malformed", "send the JSON as it is, without Content-Encoding")
    return await read_small(request, kind.MAX_ENCODED_BYTES)


def to_response(receipt: Accepted | PersonAccepted, status: int) -> Response:
    """Return a receipt as it is sent over MQTT. Raises `HttpProblem` where it is a refusal."""
    if receipt.verdict is Verdict.ACCEPTED:
        return Response(encode(receipt), status, media_type="application/json")
    code = FailureCode(receipt.reason) if receipt.reason in set(FailureCode) else FailureCode.PAYLOAD_MALFORMED
    raise HttpProblem(policy_of(code).http_status, code, receipt.message or _DISCARDED.get(code, code))
