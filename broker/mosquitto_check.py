"""Checking a Mosquitto that we set up: its files, its certificate, and every user at the running broker."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from pathlib import Path

from broker.certificate_check import check_certificate_end
from broker.certificates import OwnCertificates, ends_at
from broker.check import Check, failed, ok
from broker.file_checks import check_private_files
from broker.listener import Listener
from broker.mosquitto import MosquittoFiles, acl_text
from broker.mosquitto_setup import make_invitation, require_setup
from broker.role_users import make_users
from broker.text_files import read_text
from broker.user_check import UNREACHABLE, check_user, settings_of
from broker.users import USERS_NAME, Credentials, read_users
from schemas.topics import Topics

RELOAD = "It reads its files again after: systemctl reload mosquitto (or kill -HUP its process)."
START = "Is it started? journalctl -u mosquitto, or /var/log/mosquitto/mosquitto.log, says why not."


def check_mosquitto(directory: Path) -> list[Check]:
    """Check the files, the certificate, and that the running broker takes every user.

    Raises:
        NotSetUp: the directory holds none.
        BrokerError: its files cannot be read.
    """
    listener = require_setup(directory)
    users = read_users(directory / USERS_NAME)
    own = OwnCertificates.below(directory)
    ca_file = own.ca if listener.tls == own.server else None
    checks = [_check_modes(directory, own, listener), _check_rights(directory, listener, users)]
    if listener.tls is not None:
        checks.append(check_certificate_end(ends_at(listener.tls.certificate)))
    if ca_file is not None:
        checks.append(check_certificate_end(ends_at(ca_file), name="CA"))
    for role, user in users.items():
        url = make_invitation(role, user, listener, ca=None).url
        settings = settings_of(url, user, ca_file, mqtt_version="5")
        found = check_user(role, settings, reload=RELOAD, start=START)
        checks.append(found)
        if found.name == UNREACHABLE:
            break  # it is not there: that is said once
    return checks


def find_bind_problem(listener: Listener) -> str | None:
    """Say why a broker could not listen there at this moment; None where it could."""
    address = f"{listener.host}:{listener.port}"
    try:
        family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
        with socket.create_server((listener.host, listener.port), family=family):
            return None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return (
                f"{address} is taken, perhaps by Debian's own Mosquitto: have that read this configuration (the line "
                "with ln -s) instead of starting another, or give --port"
            )
        if error.errno == errno.EADDRNOTAVAIL:
            return f"{address}: this machine has no such address now; --host is its own, not that of an agent"
        return f"{address}: {error.strerror}"


def _check_modes(directory: Path, own: OwnCertificates, listener: Listener) -> Check:
    files = MosquittoFiles.below(directory)
    private = [files.passwords, files.acl, directory.absolute() / USERS_NAME]
    if listener.tls == own.server:
        private += [own.ca_key, own.server.key]
    return check_private_files(directory, private, f"omi-broker init {directory}")


def _check_rights(directory: Path, listener: Listener, users: Mapping[str, Credentials]) -> Check:
    """Check that the access list gives every user what `init` would: a broker is silent about what it drops."""
    file = MosquittoFiles.below(directory).acl
    try:
        given = _rights_of(read_text(file))
    except OSError as error:
        return failed("rights", f"{file}: {error.strerror}", "Run this as root, or as the user whose file it is.")
    wanted = _rights_of(acl_text(make_users(users, (), Topics(listener.topic_root), listener.bridge_id)))
    missing = [f"{user}: {line}" for user, line in wanted if (user, line) not in given]
    if missing:
        return failed("rights", f"{file} lacks {'; '.join(missing)}", f"omi-broker init {directory}. {RELOAD}")
    return ok("rights", "every user has its own")


def _rights_of(access_list: str) -> dict[tuple[str, str], None]:
    """Return each right by its user, in the order of the file."""
    found: dict[tuple[str, str], None] = {}
    user = ""
    for line in access_list.splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind == "user":
            user = rest
        elif kind == "topic":
            found[user, line.strip()] = None
    return found
