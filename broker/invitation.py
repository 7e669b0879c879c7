"""An invitation: one string with all that a program needs to reach a broker.

It holds the broker's URL, a user, its password and the broker's CA, so it is a secret: it is handed on in a file of
mode 600, by standard input or at a prompt, never as an argument of a command, which every user of a machine can read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ssl
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgpack

from broker.address import parse_broker_urls
from broker.errors import BrokerError, UnsafeFile
from broker.private_files import say_private
from broker.text_files import read_text
from schemas.errors import SchemaError
from schemas.record import is_id
from schemas.topics import DEFAULT_ROOT, Topics

PREFIX = "omi-invitation-1:"
CHECK_BYTES = 4  # of a digest, so that a string that was copied in part is noticed
MAX_CHARS = 20_000
JOINED_BY = {"agent": "omi-agent join", "bridge": "omi-bridge join", "backend": "omi-bridge join"}


class InvitationMalformed(BrokerError):
    """What was given is no invitation."""

    def __init__(self, problem: str) -> None:
        """Say what is wrong with it; the text itself is a secret, and is not repeated."""
        super().__init__(
            f"that is no invitation ({problem}): it is one line that begins with {PREFIX}. `omi-broker init` and "
            "`omi-broker add-agent` write it into DIR/invitations, on the broker's machine."
        )


@dataclass(frozen=True)
class Invitation:
    """All that one program needs to reach a broker as one user."""

    role: str
    """`agent`, `bridge` or `backend`."""
    url: str
    username: str
    password: str
    sender_id: str | None = None
    """The id of the agent or of the bridge, under which alone this user may publish."""
    ca: str | None = None
    """The broker's CA as PEM; None where its certificate needs none of its own."""
    topic_root: str = DEFAULT_ROOT
    mqtt_version: str | None = None
    mqtt_qos: str | None = None
    """The highest that this broker should be asked for; None: the default of the program."""

    def __repr__(self) -> str:
        return f"Invitation({self.role!r}, {self.url!r}, username={self.username!r})"


def write_invitation(invitation: Invitation) -> str:
    """Return the invitation as one string without spaces.

    Short: some terminals take no more than 1,024 characters in a line.
    """
    fields = {name: value for name, value in asdict(invitation).items() if value is not None}
    if invitation.ca is not None:
        fields["ca"] = ssl.PEM_cert_to_DER_cert(invitation.ca)
    packed: bytes = msgpack.packb(fields)
    return PREFIX + base64.urlsafe_b64encode(packed + _check(packed)).decode().rstrip("=")


def read_invitation(text: str) -> Invitation:
    """Read an invitation; spaces and line breaks in it do not matter.

    Raises:
        InvitationMalformed: it is none, or not a whole one.
    """
    line = "".join(text.split())
    if not line.startswith(PREFIX) or len(line) > MAX_CHARS:
        raise InvitationMalformed("it begins otherwise" if line else "it is empty")
    encoded = line.removeprefix(PREFIX)
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvitationMalformed("it was not copied whole") from error
    packed, check = decoded[:-CHECK_BYTES], decoded[-CHECK_BYTES:]
    if not packed or check != _check(packed):
        raise InvitationMalformed("it was not copied whole")
    try:
        return _checked(msgpack.unpackb(packed, strict_map_key=True))
    except (ValueError, TypeError, msgpack.UnpackException, SchemaError) as error:
        raise InvitationMalformed("a later version made it") from error


def read_invitation_file(path: Path) -> Invitation:
    """Read an invitation from a file that only its owner can read.

    Raises:
        UnsafeFile: others can read it.
        InvitationMalformed: it holds none.
        BrokerError: it cannot be read.
    """
    try:
        if path.is_dir():
            raise BrokerError(f"{path} is a directory: name the file of one invitation in it")
        if path.stat().st_mode & 0o077:
            raise UnsafeFile(path, "other users of this machine can read the password in it", say_private(path))
        return read_invitation(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        words = f"the invitation {path} cannot be read ({reason}): copy it from the broker's machine"
        raise BrokerError(words) from error


def _check(packed: bytes) -> bytes:
    return hashlib.sha256(packed).digest()[:CHECK_BYTES]


def _checked(unpacked: Any) -> Invitation:  # noqa: ANN401 - whatever was unpacked
    """Return the invitation of unpacked fields. Raises ValueError or TypeError where they make none."""
    fields = dict(unpacked)
    ca = fields.pop("ca", None)
    if not all(isinstance(value, str) and value.isprintable() for value in fields.values()):
        raise TypeError("text")
    invitation = Invitation(**fields, ca=ssl.DER_cert_to_PEM_cert(ca) if ca is not None else None)
    parse_broker_urls(invitation.url)
    Topics(invitation.topic_root)
    if invitation.mqtt_version not in (None, "5", "3.1.1") or invitation.mqtt_qos not in (None, "0", "1"):
        raise ValueError("version")
    if invitation.role not in JOINED_BY or not (invitation.sender_id is None or is_id(invitation.sender_id)):
        raise ValueError("role")
    return invitation
