"""The files of the invitations of a broker's users, one for each user that a program of ours has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from broker.invitation import Invitation, write_invitation
from broker.private_files import replace_file
from broker.users import Credentials

UNINVITED = "watch"  # its user is for a person with a tool like mosquitto_sub


def write_invitations(directory: Path, invitations: Mapping[str, Invitation]) -> dict[str, Path]:
    """Write the invitations of all roles into the directory of their broker; return their files by role.

    Files of users that are no more are taken away, and one that holds the same already is left alone.

    Raises:
        OSError: they cannot be written.
    """
    folder = directory.absolute() / "invitations"
    folder.mkdir(mode=0o700, exist_ok=True)
    written = {}
    for role, invitation in invitations.items():
        path = folder / invitation.username  # no two users have one name, and it was checked
        text = write_invitation(invitation) + "\n"
        if not path.exists() or path.read_text() != text:
            replace_file(path, text)
        written[role] = path
    for path in set(folder.iterdir()) - set(written.values()):
        path.unlink()
    return written


def invited(users: Mapping[str, Credentials]) -> dict[str, Credentials]:
    """Return the users that are handed an invitation, by role."""
    return {role: user for role, user in users.items() if role != UNINVITED}
