"""The page itself: its files, and signing in and out."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from importlib.resources import files
from typing import Annotated

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from vps_bridge.http.messages import HttpProblem
from vps_bridge.http.session_cookie import cookie_name, read_session
from vps_bridge.http.sign_in import SESSION_S, SignIns

FIRST_FILE = "index.html"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_REFUSED = "this link was used, is older than ten minutes, or was never made: `omi-bridge page` prints a new one"


def add_page_routes(app: FastAPI, sign_ins: SignIns, port: int) -> None:
    """Add the paths. They are for people, so the OpenAPI document does not list them."""
    content = _read_files()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return _to_response(content, FIRST_FILE)

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: Annotated[str, Path(max_length=100)]) -> Response:
        return _to_response(content, name)

    @app.get("/sign-in", include_in_schema=False)
    async def sign_in(link: Annotated[str, Query(max_length=200)], request: Request) -> Response:
        session = await asyncio.to_thread(sign_ins.redeem, link)
        if session is None:
            raise HttpProblem(401, "http.link_refused", _REFUSED)
        answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        is_tls = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
        answer.set_cookie(
            cookie_name(port), session, max_age=round(SESSION_S), httponly=True, samesite="strict", secure=is_tls
        )
        return answer

    @app.post("/sign-out", include_in_schema=False)
    async def sign_out(request: Request) -> Response:
        await asyncio.to_thread(sign_ins.sign_out, read_session(request.headers, port))
        answer = Response(status_code=HTTPStatus.NO_CONTENT)
        answer.delete_cookie(cookie_name(port), httponly=True, samesite="strict")
        return answer


def _read_files() -> dict[str, bytes]:
    """Return the page's files by name: they are few and small, and no path is ever made of what a request says."""
    return {entry.name: entry.read_bytes() for entry in files("vps_bridge.http").joinpath("page").iterdir()}


def _to_response(content: dict[str, bytes], name: str) -> Response:
    kind = _TYPES.get(name[name.rfind(".") :])
    if name not in content or kind is None:
        raise HttpProblem(404, "http.error", "no such file of the page")
    return Response(content[name], media_type=kind)
