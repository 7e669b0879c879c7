"""The users of our brokers: generated once, in a file that only its owner can read."""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.errors import UnsafeFile
from broker.private_files import replace_file, rewrite_file
from broker.text_files import read_text

ROLES = ("bridge", "agent", "backend", "watch")
_WORD = re.compile(r"[^\s:]+")  # in a password file they stand in one line, with a colon between them
PASSWORD_BYTES = 24  # 192 random bits: they cannot be guessed, so a fast hash is as good as a slow one

USERS_NAME = "users.json"
MADE_ANEW = (
    "Put a copy of it back, or delete it and have it made anew, with other passwords for everybody: by omi-broker run, "
    "or by omi-broker init (a cluster's: omi-broker nats) with --agent for each agent, after which everybody joins "
    "again."
)


@dataclass(frozen=True)
class Credentials:
    """A user at the broker and its password; the password stays out of `repr`."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password='********')"


def users_file(data_dir: Path) -> Path:
    """Return the file of the embedded broker's generated users."""
    return data_dir / "broker" / USERS_NAME


def generate_users(data_dir: Path) -> dict[str, Credentials]:
    """Return the users by role, generating those that are missing. Directory mode 0700, file mode 0600.

    Raises:
        UnsafeFile: the file exists and is not what this function writes, or others can read it.
    """
    path = users_file(data_dir)
    users = read_users(path)
    missing = [role for role in ROLES if role not in users]
    if missing:
        users |= {role: Credentials(role, generate_password()) for role in missing}
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.chmod(0o700)
        write_users(path, users)
    return users


def generate_password() -> str:
    """Return a new random password."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def read_credentials(data_dir: Path, role: str) -> Credentials | None:
    """Return the generated credentials of one role, or None if there are none that we can read."""
    try:
        return read_users(users_file(data_dir)).get(role)
    except PermissionError:
        return None  # another user's broker on this machine: its passwords are not for us


def read_users(path: Path) -> dict[str, Credentials]:
    """Read a users file by role; empty if there is no such file.

    Raises:
        UnsafeFile: the file is not a users file, or others than its owner can read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise UnsafeFile(
                path,
                "other users of this machine can read these passwords",
                "Delete it to have new ones generated, or `chmod 600` it if nobody else was here.",
            )
        document = json.loads(read_text(path))
        return {role: _credentials(entry["username"], entry["password"]) for role, entry in document.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsafeFile(path, "is not a users file", MADE_ANEW) from error


def require_users(path: Path) -> None:
    """Refuse to go on without a users file where a broker was set up: all passwords would be others, and nobody told.

    Raises:
        UnsafeFile: there is none.
    """
    if not path.exists():
        raise UnsafeFile(path, "is gone", MADE_ANEW.replace("delete it and ", ""))


def _credentials(username: object, password: object) -> Credentials:
    """Return a user of a file. Raises `TypeError` where a name or a password is no single word."""
    if not isinstance(username, str) or not isinstance(password, str) or not _WORD.fullmatch(username + password):
        raise TypeError("word")
    return Credentials(username, password)


def write_users(path: Path, users: Mapping[str, Credentials]) -> None:
    """Write a users file, readable by its owner only."""
    document = {role: {"username": user.username, "password": user.password} for role, user in users.items()}
    text = json.dumps(document, indent=2) + "\n"
    try:
        rewrite_file(path, text)
    except FileNotFoundError:
        replace_file(path, text)
