"""OMI's API of a self-hosted backend, as far as labels need it: people, and whom segments are assigned to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

from broker.errors import SettingsError
from broker.secret_setting import read_secret
from vps_bridge.settings import BridgeSettings
from vps_bridge.signed_endpoint import SignedEndpoint, is_near
from vps_bridge.timed_calls import CLIENT_ERROR, REDIRECT, CallFailed, TimedCalls

TIMEOUT_S = 20.0
MAX_ANSWER_BYTES = 32 * 2**20
OWNER = "the owner of the device"
"""Whom OMI has for a segment that it says its owner spoke; no id of a person."""
NO_ROUTE = "Not Found"
"""What a backend of OMI's kind says of a path that it does not know at all."""
_PORTS = {"http": 80, "https": 443}
_PASSING = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.PAYMENT_REQUIRED,  # a conversation that is locked, until its user's plan opens it
    HTTPStatus.FORBIDDEN,
)


class ApiRefused(Exception):
    """The API will not do it, now or later."""


class ApiGone(ApiRefused):
    """OMI itself says that it has no such thing (any more)."""


class ApiFailed(Exception):
    """The API did not do it, and may later; the words never quote what was sent or answered."""


@dataclass(frozen=True)
class OmiApi:
    """Where the API is, and the key that may act for every user of that backend."""

    scheme: str
    host: str
    port: int
    prefix: str
    admin_key: str = field(repr=False)

    def list_people(self, uid: str) -> dict[str, str]:
        """Return the ids of a user's people, with their names. Raises `ApiFailed`, `ApiRefused`."""
        answer = self._ask("GET", "/v1/users/people", uid, None)
        if not isinstance(answer, list):  # of nobody known, labels would be taken back
            raise ApiFailed("OMI's answer is no list of people")
        return {str(row["id"]): str(row.get("name") or "") for row in answer if isinstance(row, dict) and row.get("id")}

    def add_person(self, uid: str, name: str) -> str:
        """Add a person, or find the one of that name; return its id. Raises `ApiFailed`, `ApiRefused`."""
        answer = self._ask("POST", "/v1/users/people", uid, {"name": name})
        if not isinstance(answer, dict) or not answer.get("id"):
            raise ApiFailed("OMI's answer names no person")
        return str(answer["id"])

    def read_labels(self, uid: str, conversation_id: str) -> dict[str, str | None]:
        """Return whom OMI has for each segment of a conversation: a person, `OWNER` or None. Raises as the others."""
        answer = self._ask("GET", f"/v1/conversations/{quote(conversation_id, safe='')}", uid, None)
        rows = answer.get("transcript_segments") if isinstance(answer, dict) else None
        if not isinstance(rows, list):
            raise ApiFailed("OMI's answer has no transcript_segments")
        known = [row for row in rows if isinstance(row, dict) and row.get("id")]
        return {str(row["id"]): OWNER if row.get("is_user") else _read_person(row) for row in known}

    def assign(self, uid: str, conversation_id: str, segment_ids: Sequence[str], person_id: str | None) -> None:
        """Assign segments to a person or nobody: never the owner, it would teach the owner's voice. Raises as above."""
        body = {"segment_ids": list(segment_ids), "assign_type": "person_id", "value": person_id}
        self._ask("PATCH", f"/v1/conversations/{quote(conversation_id, safe='')}/segments/assign-bulk", uid, body)

    def _ask(self, method: str, path: str, uid: str, body: object) -> Any:  # noqa: ANN401 - any JSON
        headers = {"Authorization": f"Bearer {self.admin_key}{uid}"}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        endpoint = SignedEndpoint(
            "omi_api", self.scheme, self.host, self.port, path, self.admin_key, is_insecure=False, timeout_s=TIMEOUT_S
        )
        try:
            answer = TimedCalls(endpoint).call(method, self.prefix + path, headers, data, max_bytes=MAX_ANSWER_BYTES)
        except CallFailed as error:
            raise ApiFailed(f"{method} {error}") from error
        status, content = answer.status, answer.body
        if REDIRECT <= status < CLIENT_ERROR:
            words = f"{method} {self.host} answered {status}: set OMI_OMI_API_URL to where it leads"
            raise ApiFailed(words)
        if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ApiFailed(f"{method} {self.host} answered {status}")
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            refused = ApiGone if status == HTTPStatus.NOT_FOUND and _says_what_is_gone(content) else ApiRefused
            raise refused(f"{method} {self.host} answered {status}")
        try:
            return json.loads(content) if content else None
        except (ValueError, RecursionError) as error:
            raise ApiFailed(f"{method} {self.host}: its answer is no JSON") from error


def _says_what_is_gone(content: bytes) -> bool:
    """Whether a 404 is OMI's word on what was asked for: a proxy has a page of its own, an unknown path NO_ROUTE."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return False
    detail = answer.get("detail") if isinstance(answer, dict) else None
    return isinstance(detail, str) and detail != NO_ROUTE


def _read_person(row: dict[str, Any]) -> str | None:
    return str(row["person_id"]) if row.get("person_id") else None


def read_api(settings: BridgeSettings) -> OmiApi | None:
    """Return the API, None where no labels go back. Raises `SettingsError`."""
    key = read_secret("omi_admin_key", settings.omi_admin_key, settings.omi_admin_key_file)
    if settings.omi_api_url is None:
        return None
    if not key:
        words = "labels go to OMI with its ADMIN_KEY: set OMI_OMI_ADMIN_KEY (or omi_admin_key_file)"
        raise SettingsError("omi_admin_key", "the settings", words)
    words = "https://host, or http://ADDRESS:port of this machine or the tailnet"
    try:
        parts = urlsplit(settings.omi_api_url)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and (host == "localhost" or is_near(host)))
    except ValueError:
        raise SettingsError("omi_api_url", "the settings", words) from None
    if not is_safe or not host or parts.query or parts.username is not None:
        raise SettingsError("omi_api_url", "the settings", words)
    return OmiApi(parts.scheme, host, port, parts.path.rstrip("/"), key)
