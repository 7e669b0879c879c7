"""Signing in to the page: a one-time link, exchanged for a session that a cookie carries.

Links and sessions are files named by the sha256 of a random secret, so neither secret can be read from the disk, a
command can make a link beside a running bridge or before it starts, and a restart of the bridge signs nobody out. A
link is used by unlinking its file, which succeeds once.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

SIGN_INS = "sign-ins"
"""The directory below the bridge's root."""
LINK_S = 600.0
SESSION_S = 12 * 3_600.0
SECRET_BYTES = 32
CLOCK_STEP_S = 60.0  # by so much a clock may be set back before what was made is void
_LINK, _SESSION = "link", "session"


class SignIns:
    """Links that were not used yet, and the sessions of those who used one. Times are wall clock: a restart passes."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Keep them below the bridge's root."""
        self._directory, self._clock = root / SIGN_INS, clock

    def make_link(self) -> str:
        """Return the secret of a new link, valid for `LINK_S`."""
        self._sweep()
        return self._make(_LINK)

    def redeem(self, link: str) -> str | None:
        """Use a link: return the secret of a new session, or None where the link is unknown, used or too old."""
        path = self._path(link, _LINK)
        is_valid = self._is_valid(path, LINK_S)
        try:
            path.unlink()
        except FileNotFoundError:
            return None
        return self._make(_SESSION) if is_valid else None

    def is_signed_in(self, session: str) -> bool:
        """Whether a session exists and is not too old."""
        return bool(session) and self._is_valid(self._path(session, _SESSION), SESSION_S)

    def sign_out(self, session: str) -> None:
        """End a session; an unknown one is no error."""
        self._path(session, _SESSION).unlink(missing_ok=True)

    def sign_everybody_out(self) -> int:
        """End all sessions, make all links void, and return how many sessions there were."""
        sessions = list(self._directory.glob(f"*.{_SESSION}"))
        for path in (*sessions, *self._directory.glob(f"*.{_LINK}")):
            path.unlink(missing_ok=True)
        return len(sessions)

    def _make(self, kind: str) -> str:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = secrets.token_urlsafe(SECRET_BYTES)
        handle = os.open(self._path(secret, kind), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(repr(self._clock()))
        return secret

    def _path(self, secret: str, kind: str) -> Path:
        return self._directory / f"{hashlib.sha256(secret.encode()).hexdigest()}.{kind}"

    def _is_valid(self, path: Path, lasts_s: float) -> bool:
        try:
            made_at = float(path.read_text())
        except (FileNotFoundError, ValueError):
            return False
        return -CLOCK_STEP_S <= self._clock() - made_at < lasts_s

    def _sweep(self) -> None:
        for kind, lasts_s in ((_LINK, LINK_S), (_SESSION, SESSION_S)):
            for path in self._directory.glob(f"*.{kind}"):
                if not self._is_valid(path, lasts_s):
                    path.unlink(missing_ok=True)
