"""Joining a broker: what an invitation holds goes into the settings of a program."""

from __future__ import annotations

import secrets
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broker.config_file import write_settings
from broker.errors import BrokerError
from broker.invitation import JOINED_BY, PREFIX, Invitation, read_invitation, read_invitation_file
from broker.private_files import replace_file
from broker.session import MqttSession
from broker.settings import BrokerSettings
from broker.text_files import read_text
from schemas.topics import DEFAULT_ROOT

STDIN = Path("-")
TRIAL_TIMEOUT_S = 10.0  # the handshake of MQTT 5, and of 3.1.1 where that is not understood
OVERRIDING = ("broker_url", "broker_username", "broker_password", "broker_ca_file")


class InvitationShown(BrokerError):
    """The invitation itself was given where its file belongs; it is not repeated."""

    def __init__(self) -> None:
        """Say what to do about a password that others may have seen."""
        super().__init__(
            "that is the invitation itself, and other users of this machine can read an argument: give the name of its "
            "file, or - to take it from standard input. It stands in your shell's history now: make another with "
            "`omi-broker rotate DIR NAME` on the broker's machine"
        )


class OtherInvitation(BrokerError):
    """An invitation is for another program."""

    def __init__(self, role: str) -> None:
        """Name the command that takes it."""
        super().__init__(f"this invitation is the {role}'s: {JOINED_BY[role]} takes it")


class InvitationFails(BrokerError):
    """An invitation does not let in, and another one that may is in use."""

    def __init__(self, reason: BrokerError, config_file: Path) -> None:
        """Say that nothing was changed, and why."""
        super().__init__(
            f"nothing was changed: {config_file} holds another login, which may work, and with this invitation "
            f"{reason} Is it an old one? To use it all the same, take that login out of the file first."
        )


def take_invitation(file: Path | None, *, roles: tuple[str, ...]) -> Invitation:
    """Read an invitation from a file of mode 600, from standard input (`-`), or, with no file, at a prompt.

    Raises:
        OtherInvitation: it is for none of these roles.
        InvitationShown: the invitation itself stood in the argument.
        BrokerError: it cannot be read, or is none.
    """
    if file is not None and str(file).startswith(PREFIX):
        raise InvitationShown
    if file is not None and file != STDIN:
        invitation = read_invitation_file(file)
    elif file == STDIN or not sys.stdin.isatty():
        invitation = read_invitation(sys.stdin.read())
    else:
        import getpass  # noqa: PLC0415 - only a prompt needs it

        invitation = read_invitation(getpass.getpass("invitation (is not shown): "))
    if invitation.role not in roles:
        raise OtherInvitation(invitation.role)
    return invitation


def accept_invitation(invitation: Invitation, config_file: Path, *, table: str, id_setting: str | None) -> None:
    """Write what an invitation holds into one table of the config file, and its CA beside that file.

    Args:
        invitation: as it was read.
        config_file: is its owner's alone afterwards; all else in it stays.
        table: `agent`, `bridge` or `backend`.
        id_setting: the setting that takes the agent's or bridge's id.

    Raises:
        InvitationFails: it would take the place of another login, and does not let in.
        BrokerError: a file cannot be written.
    """
    if _has_another_login(config_file, table, invitation):
        try:
            _try_invitation(invitation)
        except BrokerError as error:
            raise InvitationFails(error, config_file) from error
    ca_file = config_file.absolute().parent / f"{table}-broker-ca.pem" if invitation.ca else None
    if ca_file is not None and invitation.ca is not None:
        try:
            ca_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(ca_file, invitation.ca)
        except OSError as error:
            raise BrokerError(f"{ca_file} cannot be written ({error.strerror}): run this as its owner") from error
    values = {
        "broker_url": invitation.url,
        "broker_username": invitation.username,
        "broker_password": invitation.password,
        "broker_ca_file": str(ca_file) if ca_file else None,
        "mqtt_version": invitation.mqtt_version,
        "mqtt_qos": invitation.mqtt_qos,
        "topic_root": invitation.topic_root if invitation.topic_root != DEFAULT_ROOT else None,
    }
    if id_setting is not None:
        values[id_setting] = invitation.sender_id
    write_settings(config_file, table, values)


def _has_another_login(config_file: Path, table: str, invitation: Invitation) -> bool:
    try:
        document = tomllib.loads(read_text(config_file))
    except (OSError, ValueError):
        return False  # to write it says what is wrong with it
    own = document.get(table)
    found = {**document, **(own if isinstance(own, dict) else {})}
    login = (invitation.url, invitation.username, invitation.password)
    before = tuple(found.get(name) for name in ("broker_url", "broker_username", "broker_password"))
    return before != login and None not in before


def _try_invitation(invitation: Invitation) -> None:
    """Connect with it once. Raises `BrokerError` where that fails."""
    facts: dict[str, Any] = {
        "broker_url": invitation.url,
        "broker_username": invitation.username,
        "broker_password": invitation.password,
        "mqtt_version": invitation.mqtt_version,
        "mqtt_qos": invitation.mqtt_qos,
    }
    with tempfile.TemporaryDirectory() as scratch:
        if invitation.ca is not None:
            facts["broker_ca_file"] = str(Path(scratch) / "ca.pem")
            Path(facts["broker_ca_file"]).write_text(invitation.ca)
        given = {name: value for name, value in facts.items() if value is not None}
        settings = BrokerSettings(**given)
        session = MqttSession(settings, client_id=f"join-{secrets.token_hex(6)}", on_message=lambda _: None)
        session.start()
        try:
            session.wait_connected(TRIAL_TIMEOUT_S)
        finally:
            session.stop()


def find_overrides(sources: Mapping[str, str]) -> list[str]:
    """Return where settings of the broker come from instead of the config file, such as a variable."""
    return sorted({sources[name] for name in OVERRIDING if sources[name].startswith(("environment", "flag"))})
