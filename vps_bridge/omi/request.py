"""One request to the listener for OMI's webhooks: its query, its headers, its body, and whose it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote_plus

from starlette.types import Receive, Scope

from vps_bridge.omi.signature import is_signed
from vps_bridge.omi.users import OmiUser, UserFile

MAX_QUERY_BYTES = 8_192
MAX_BODY_BYTES = 32 * 2**20
BODY_TIMEOUT_S = 60.0
MAX_READING_BYTES = 256 * 2**20
"""Of all bodies that are being read."""


class WebhookProblem(Exception):
    """A request that is answered with an error; the words say what to do, and never what was sent."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        """Name the reason."""
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class WebhookRequest:
    """What is known before the body is read."""

    query: dict[str, str]
    headers: dict[bytes, bytes]

    @property
    def uid(self) -> str:
        """The user that it names; older transcripts name it `session_id`."""
        return self.query.get("uid") or self.query.get("session_id") or ""

    @property
    def key(self) -> str:
        """Its Idempotency-Key; empty where it has none."""
        return self.headers.get(b"idempotency-key", b"").decode("latin-1")


def read_request(scope: Scope) -> WebhookRequest:
    """Return what a request says before its body. Raises `WebhookProblem`."""
    raw = scope["query_string"]
    if len(raw) > MAX_QUERY_BYTES:
        raise WebhookProblem(HTTPStatus.BAD_REQUEST, "the query is too long")
    request = WebhookRequest(parse_query(raw.decode("latin-1")), dict(scope["headers"]))
    if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        msg = "send the body as it is, without Content-Encoding: packed samples would be heard as noise"
        raise WebhookProblem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, msg)
    return request


def parse_query(raw: str) -> dict[str, str]:
    """Return the fields of a query. Older backends put `?…` behind a URL that has a query: that mark parts fields too.

    Of a field that stands twice the first counts: what the user pasted stands before what OMI adds.
    """
    found: dict[str, str] = {}
    for part in raw.replace("?", "&").split("&"):
        name, _, value = part.partition("=")
        found.setdefault(unquote_plus(name), unquote_plus(value))
    return found


def find_user(request: WebhookRequest, users: UserFile) -> OmiUser:
    """Return whose request it may be. Raises `WebhookProblem` where it cannot be a known user's."""
    user = users.find(request.uid)
    is_told = b"x-omi-signature" in request.headers
    if user is None or not (is_told or user.has_token(request.query.get("token", ""))):
        raise _unauthorized()
    return user


def check_signature(request: WebhookRequest, user: OmiUser, body: bytes, now: float) -> None:
    """Raise `WebhookProblem` where neither the signature nor, without one, the token is right.

    A token that is right is enough beside a signature with a secret that only OMI knows.
    """
    header = request.headers.get(b"x-omi-signature")
    if header is not None and is_signed(header.decode("latin-1"), user.secret, now, user.uid, body):
        return
    if not user.has_token(request.query.get("token", "")):
        raise _unauthorized()


def _unauthorized() -> WebhookProblem:
    msg = "unknown uid, or wrong token or signature: paste the URLs that `omi-bridge omi add UID` prints"
    return WebhookProblem(HTTPStatus.UNAUTHORIZED, msg)


async def read_body(receive: Receive, on_bytes: Callable[[int], None]) -> bytes:
    """Return a body; `on_bytes` is told of what came, and may raise.

    Raises `WebhookProblem` where it is too large or too slow, `ConnectionError` where it breaks off.
    """
    parts: list[bytes] = []
    total_bytes = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ConnectionError
                parts.append(message.get("body", b""))
                total_bytes += len(parts[-1])
                on_bytes(len(parts[-1]))
                if total_bytes > MAX_BODY_BYTES:
                    msg = f"more than {MAX_BODY_BYTES} bytes: have OMI send every few seconds"
                    raise WebhookProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, msg)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        msg = f"the body did not come within {BODY_TIMEOUT_S:.0f} s: send it again"
        raise WebhookProblem(HTTPStatus.REQUEST_TIMEOUT, msg) from None
