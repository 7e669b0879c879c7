"""Whose webhooks are taken: a private file with a token and a secret for each of OMI's user ids."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from broker.private_files import replace_file

OMI = "omi"  # the directory of OMI's files, below the bridge's root
USERS_FILE = "users.json"
MAX_UID_CHARS = 128
MIN_SECRET_CHARS = 16


class UsersFileBroken(Exception):
    """The file of users cannot be read; the message says which and what to do."""


@dataclass(frozen=True)
class OmiUser:
    """A user of OMI. Of the token only its hash is kept; the secret is needed as it is, to check signatures."""

    uid: str
    token_sha256: str
    secret: str = field(repr=False)

    def has_token(self, given: str) -> bool:
        """Whether this is the user's token."""
        return hmac.compare_digest(hash_token(given), self.token_sha256)


_USERS = TypeAdapter(list[OmiUser])


@dataclass(frozen=True)
class NewAccess:
    """What a user's webhooks carry from now on; shown once."""

    user: OmiUser
    token: str = field(repr=False)


class UserFile:
    """The file. Commands write it; the running bridge sees that at once."""

    def __init__(self, root: Path) -> None:
        """Use the file below the bridge's root."""
        self._path = root / OMI / USERS_FILE
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._users: dict[str, OmiUser] = {}

    def find(self, uid: str) -> OmiUser | None:
        """Return a user, as the file has it now. Raises `UsersFileBroken`."""
        return self.all().get(uid)

    def all(self) -> dict[str, OmiUser]:
        """Return all users by their ids. Raises `UsersFileBroken`."""
        with self._lock:
            try:
                known = self._path.stat()
            except FileNotFoundError:
                self._seen, self._users = None, {}
                return self._users
            except OSError as error:
                raise UsersFileBroken(f"{self._path} cannot be read: {error.strerror}") from error
            mark = known.st_ino, known.st_mtime_ns, known.st_size
            if mark != self._seen:
                self._users = self._read()
                self._seen = mark
            return self._users

    def _read(self) -> dict[str, OmiUser]:
        try:
            return {user.uid: user for user in _USERS.validate_json(self._path.read_bytes())}
        except OSError as error:
            raise UsersFileBroken(f"{self._path} cannot be read: {error.strerror}") from error
        except ValidationError:  # its text would quote secrets
            msg = f"{self._path} is not what this program wrote: delete it, then `omi-bridge omi add UID` for each user"
            raise UsersFileBroken(msg) from None

    def put(self, uid: str, secret: str | None = None) -> NewAccess:
        """Add a user, or give one a new token and secret; `secret` is the one that OMI signs with, if it has its own.

        Raises `UsersFileBroken`, `OSError`.
        """
        token = secrets.token_urlsafe(24)
        user = OmiUser(uid, hash_token(token), secret or secrets.token_hex(32))
        with self._changing():
            self._write({**self.all(), uid: user})
        return NewAccess(user, token)

    def remove(self, uid: str) -> bool:
        """Take a user out; return whether there was one. Raises `UsersFileBroken`, `OSError`."""
        with self._changing():
            users = dict(self.all())
            is_there = users.pop(uid, None) is not None
            if is_there:
                self._write(users)
            return is_there

    def _changing(self) -> FileLock:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock(self._path.with_suffix(".lock"), mode=0o600)

    def _write(self, users: dict[str, OmiUser]) -> None:
        replace_file(self._path, json.dumps([asdict(user) for user in users.values()], indent=1) + "\n")


def hash_token(token: str) -> str:
    """Return what is kept of a token. It has 192 random bits: nobody finds it by trying."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
