"""Who may use the HTTP server, and how a request is answered that is refused, fails or is interrupted."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.errors import SettingsError
from broker.secret_setting import read_secret
from vps_bridge.error_guard import describe_error
from vps_bridge.http.messages import HttpProblem, problem_response
from vps_bridge.http.outages import explain_failure
from vps_bridge.http.session_cookie import judge_origin, read_session
from vps_bridge.http.sign_in import SignIns
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
OPEN_PATHS = ("/health", "/metrics", "/api/diarize")
PAGE_PATHS = ("/", "/page/")  # nothing in the page's files is secret: they say how to sign in
SIGN_IN_PATH = "/sign-in"  # its link is proof enough
MIN_TOKEN_CHARS = 16
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_PROXY_HEADERS = ("forwarded", "via", "x-real-ip")
_PROXY_PREFIX = "x-forwarded"


@dataclass(frozen=True)
class AccessRule:
    """Which requests are let in: those with the token; on a loopback address a few paths need none."""

    host: str
    token: str | None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return _is_loopback(self.host)

    def judge(self, path: str, headers: Mapping[str, str]) -> HttpProblem | None:
        """Return why a request without a session is refused, or None where it is let in."""
        if path == SIGN_IN_PATH or self._has_token(headers.get("authorization", "")):
            return None
        is_page = path == PAGE_PATHS[0] or path.startswith(PAGE_PATHS[1])
        if not self.is_loopback or not (is_page or path in OPEN_PATHS):
            how = "send `Authorization: Bearer TOKEN`, or sign a browser in by the link that `omi-bridge page` prints"
            if self.token is None:
                how = "set OMI_HTTP_TOKEN (or http_token_file) for the bridge, then send it as `Authorization: Bearer`"
            return HttpProblem(401, "http.unauthorized", how)
        # A web page in this machine's browser can reach loopback: by a host name of its own that resolves to it (DNS
        # rebinding, seen by `Host`), or by a form (seen by `Origin`).
        # Browsers send `Origin` with the page's own scripts too.
        origin, host = headers.get("origin"), headers.get("host", "")
        is_foreign = origin is not None and not (is_page and urlsplit(origin).netloc == host)
        if _host_name(host) not in (*_LOOPBACK_NAMES, self.host) or is_foreign:
            msg = "only programs on this machine come in without a token: call it 127.0.0.1, and not from a browser"
            return HttpProblem(403, "http.forbidden", msg)
        if any(name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIX) for name in headers):
            msg = "this came through a proxy, so it may come from anybody: send `Authorization: Bearer TOKEN`"
            return HttpProblem(401, "http.unauthorized", msg)
        return None

    def _has_token(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        if self.token is None or scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), self.token.encode())


def read_access_rule(settings: BridgeSettings) -> AccessRule:
    """Return the rule. Raises `SettingsError` for an unusable token, and for an address that needs one and has none."""
    token = read_secret("http_token", settings.http_token, settings.http_token_file)
    name = "http_token" if settings.http_token_file is None else "http_token_file"
    if token is not None and (len(token) < MIN_TOKEN_CHARS or not token.isascii() or not token.isprintable()):
        words = (
            f"a token has at least {MIN_TOKEN_CHARS} characters of printable ASCII: `openssl rand -hex 32` makes one"
        )
        raise SettingsError(name, "the settings", words)
    rule = AccessRule(settings.http_host, token)
    if token is None and not rule.is_loopback:
        words = (
            f"{settings.http_host} is not loopback, so a token is needed: set OMI_HTTP_TOKEN or http_token_file, "
            "or leave http_host at 127.0.0.1"
        )
        raise SettingsError("http_host", "the settings", words)
    return rule


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host_name(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


class AccessCheck:
    """ASGI middleware: refuses requests by the rule, and answers those whose handler fails or is cancelled."""

    def __init__(self, app: ASGIApp, rule: AccessRule, sign_ins: SignIns, port: int) -> None:
        """Check every request before `app` gets it."""
        self._app, self._rule, self._sign_ins, self._port = app, rule, sign_ins, port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        path, is_answered = scope["path"], False

        async def watched_send(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            problem = await self._judge(path, scope["method"], Headers(scope=scope))
            if problem is None:
                await self._app(scope, receive, watched_send)
        except ClientDisconnect:
            _LOG.info("client_gone", path=path)
            return
        except asyncio.CancelledError:  # the bridge stops, and the time for requests in progress is over
            problem = HttpProblem(503, "bridge.stopping", "the bridge is stopping: send it again in a moment")
        except Exception as error:  # noqa: BLE001 - one request that fails must not stop the server
            _LOG.error("request_failed", path=path, error=describe_error(error))
            problem = explain_failure(error)
        if problem is not None and not is_answered:
            await problem_response(path, problem)(scope, receive, send)

    async def _judge(self, path: str, method: str, headers: Headers) -> HttpProblem | None:
        """Return why a request is refused: it has neither a token nor a session, or another page's script sent it."""
        problem = self._rule.judge(path, headers)
        session = read_session(headers, self._port) if problem is not None else ""
        if not session:
            return problem
        is_signed_in = await asyncio.to_thread(self._sign_ins.is_signed_in, session)
        return judge_origin(method, headers) if is_signed_in else problem
