"""Find the access token for the hub: in the environment, a private file or the macOS keychain, never in a plist."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from broker.private_files import say_private
from broker.text_files import read_text
from mac_agent.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES = ("HF_TOKEN", "HUGGINGFACE_TOKEN")
KEYCHAIN_SERVICE = "omi-diarization-hub"
KEYCHAIN_TIMEOUT_S = 30.0  # the keychain may show its owner a dialog
SETTINGS_PAGE = "https://huggingface.co/settings/tokens"
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}")


class TokenUnusable(EngineError):
    """A token file cannot be read, can be read by others, or holds no token; or the keychain does not answer."""


@dataclass(frozen=True)
class HubToken:
    """A token and where it was found. `repr` and `str` do not show the token."""

    secret: str
    source: str

    def __repr__(self) -> str:
        return f"HubToken(source={self.source!r})"


def default_token_file() -> Path:
    """Return the file that is read when the user names none."""
    return platformdirs.user_config_path("omi-diarization") / "hub-token"


def find_token(
    token_file: Path | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    security: str | None = None,
) -> HubToken | None:
    """Return the first token found: in the named file, the environment, the default file, the macOS keychain.

    Args:
        token_file: a file that the user named, which must exist; None where the user named none.
        environment: variables of this process.
        security: path of the `security` program; None searches PATH, where only a Mac has it.

    Raises:
        TokenUnusable: a token file is missing or others can read it, or the text found is not a token of the hub.
    """
    if token_file is not None:
        return _checked(_read_private(token_file), f"the file {token_file}")
    for name in VARIABLES:
        if environment.get(name, "").strip():
            return _checked(environment[name], f"the variable {name}")
    if default_token_file().exists():
        return _checked(_read_private(default_token_file()), f"the file {default_token_file()}")
    program = security if security is not None else shutil.which("security")
    found = _read_keychain(program) if program else None
    return _checked(found, f"the keychain item {KEYCHAIN_SERVICE}") if found else None


def how_to_give_a_token() -> str:
    """Return instructions for creating a token and storing it where `find_token` looks."""
    return (
        f"Create a token with read access on {SETTINGS_PAGE} and keep it in the keychain "
        f'(security add-generic-password -U -a "$USER" -s {KEYCHAIN_SERVICE} -w), in {default_token_file()} '
        f"(chmod 600), or in {VARIABLES[0]} for one command."
    )


def _read_private(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise TokenUnusable(
                f"{path} can be read by other users of this machine and was not used. Run: "
                f"{say_private(path)} (and replace the token on {SETTINGS_PAGE} if others were here)"
            )
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise TokenUnusable(f"the token file {path} cannot be read: {reason}. {how_to_give_a_token()}") from error


def _read_keychain(security: str) -> str | None:
    command = [security, "find-generic-password", "-s", KEYCHAIN_SERVICE, "-a", getpass.getuser(), "-w"]
    try:
        finished = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            command, capture_output=True, text=True, timeout=KEYCHAIN_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise TokenUnusable(
            "the keychain did not answer: it is locked, or waits for its owner on the screen. Unlock it "
            f"(security unlock-keychain), or use {default_token_file()} (chmod 600)."
        ) from error
    return finished.stdout.strip() or None if finished.returncode == 0 else None


def _checked(text: str, source: str) -> HubToken:
    secret = text.strip()
    if not _TOKEN.fullmatch(secret):
        # pyannote silently ignores a token that does not begin with hf_, and the download then fails as without one.
        raise TokenUnusable(
            f"what {source} holds is not an access token of the hub: those are one word that begins with hf_. "
            f"{how_to_give_a_token()}"
        )
    return HubToken(secret, source)
