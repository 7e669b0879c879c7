"""The cookie that carries a session, and what a request that it lets in may do."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from vps_bridge.http.messages import HttpProblem

_READING = ("GET", "HEAD")


def cookie_name(port: int) -> str:
    """Return the session cookie's name: cookies are shared by all ports of a host, so each bridge has its own."""
    return f"omi_page_{port}"


def read_session(headers: Headers, port: int) -> str:
    """Return the session's secret from a request's cookies; empty where it has none."""
    cookies = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        return ""
    found = cookies.get(cookie_name(port))
    return found.value if found else ""


def judge_origin(method: str, headers: Headers) -> HttpProblem | None:
    """Return why a request that a cookie lets in is refused: a change that another page's script asks for.

    The scheme is not compared: a proxy that ends TLS changes it.
    """
    if method in _READING:
        return None
    host, origin = headers.get("host", ""), urlsplit(headers.get("origin", ""))
    if host and origin.netloc == host and headers.get("sec-fetch-site", "same-origin") == "same-origin":
        return None
    return HttpProblem(
        403, "http.forbidden", "changes are taken from this page alone: its Origin is to be the bridge's"
    )
