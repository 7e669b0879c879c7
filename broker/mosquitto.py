"""Writing the configuration of a Mosquitto: users, passwords, access, limits."""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.errors import BrokerError
from broker.listener import NAME_COMMENT, Listener, check_listener, check_path, read_listener
from broker.mosquitto_files import make_directory, write_public, write_secret
from broker.role_users import BrokerUser, make_users
from broker.users import USERS_NAME, Credentials, read_users, write_users
from schemas.topics import Topics

# Format 7 of mosquitto's password file: PBKDF2 with HMAC-SHA512, 12 bytes of salt, 64 of hash
# (mosquitto:src/password_mosq.h). 1,000 rounds are enough: the passwords are random and cannot be guessed.
PBKDF2_ROUNDS = 1_000
SALT_BYTES = 12

# The largest packet. Ours are smaller: audio goes in parts of 256 KiB, and sessions send nothing larger than
# `assumed_max_packet_bytes`. Mosquitto 2.1 has the same limit by default (mosquitto:ChangeLog.txt); 2.0 has none, and
# there a message of 250 MiB goes to everybody who may read its topic.
MAX_PACKET_BYTES = 2_000_000


@dataclass(frozen=True)
class MosquittoFiles:
    """The files that Mosquitto reads."""

    config: Path
    passwords: Path
    acl: Path

    @classmethod
    def below(cls, directory: Path) -> "MosquittoFiles":
        """Return the files of a directory; the configuration names them with absolute paths."""
        directory = directory.absolute()
        return cls(directory / "mosquitto.conf", directory / "passwords", directory / "acl")


@dataclass(frozen=True)
class ProvisionedMosquitto:
    """The files that were written, and the users by role (`bridge`, `backend`, `watch`, `agent:<id>`)."""

    files: MosquittoFiles
    users_file: Path
    listener: Listener
    users: Mapping[str, Credentials]


def known_listener(directory: Path) -> Listener | None:
    """Return how a directory was set up before, so that it can stay so; None where it was not.

    Raises:
        BrokerError: its files cannot be read.
    """
    files = MosquittoFiles.below(directory)
    return read_listener(files.config, files.acl)


def provision_mosquitto(
    directory: Path,
    listener: Listener,
    *,
    agent_ids: Sequence[str],
    further_bridges: Sequence[str] = (),
    insecure: bool = False,
) -> ProvisionedMosquitto:
    """Write a complete configuration with generated users; existing users keep their passwords.

    `users.json` beside it holds the passwords in plain text for the programs, readable by its owner only. Files that
    are there already keep owner, group and mode: a Mosquitto that runs must be able to read them again.

    Raises:
        UnencryptedListener: others could listen in, and `insecure` was not given.
        BrokerError: an id, a host, a name or a path that would change the meaning of the configuration, or a file that
            cannot be written.
        UnsafeFile: `users.json` exists and is not such a file, or others can read it.
    """
    check_path(directory.absolute())
    check_listener(listener, insecure=insecure)
    users_file = directory.absolute() / USERS_NAME
    topics, known = Topics(listener.topic_root), read_users(users_file)
    users = make_users(known, agent_ids, topics, listener.bridge_id, further_bridges=further_bridges)
    credentials = {name: user.credentials for name, user in users.items()}
    try:
        make_directory(directory)
        write_users(users_file, credentials)  # first: what a crash leaves can be completed by running it again
        files = write_mosquitto_config(directory, listener, users)
    except OSError as error:
        raise BrokerError(
            f"{error.filename or directory} cannot be written ({error.strerror}). Run this as root, or as the user the "
            "files belong to."
        ) from error
    return ProvisionedMosquitto(files, users_file, listener, credentials)


def write_mosquitto_config(directory: Path, listener: Listener, users: Mapping[str, BrokerUser]) -> MosquittoFiles:
    """Write `mosquitto.conf`, the hashed password file and the access list into `directory`, which must exist.

    Args:
        directory: the paths in the configuration are absolute and point into it.
        listener: the only one; `check_listener` has passed it.
        users: by role; the role is written as a comment.
    """
    files = MosquittoFiles.below(directory)
    hashed = ((user.credentials.username, hash_password(user.credentials.password)) for user in users.values())
    write_secret(files.passwords, "".join(f"{username}:{digest}\n" for username, digest in hashed))
    write_secret(files.acl, acl_text(users))
    text = _config_text(files, listener)
    write_public(files.config, text)
    return files


def hash_password(password: str, salt: bytes | None = None) -> str:
    """Hash a password as `mosquitto_passwd` does (format 7)."""
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PBKDF2_ROUNDS)
    return f"$7${PBKDF2_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def acl_text(users: Mapping[str, BrokerUser]) -> str:
    """Return the access list: a block of rights for each user."""
    # No `pattern` lines: they apply to every user, so with them any user could pose as an agent.
    blocks = ["# One block per user. Written by `omi-broker init`; run it again rather than editing this.\n"]
    for name, user in users.items():
        blocks.append(f"\n# {name}\nuser {user.credentials.username}\n")
        blocks += [f"topic write {topic}\n" for topic in user.access.publish]
        blocks += [f"topic read {topic}\n" for topic in user.access.receive]
    return "".join(blocks)


def _config_text(files: MosquittoFiles, listener: Listener) -> str:
    tls = listener.tls
    tls_lines = f"certfile {tls.certificate.absolute()}\nkeyfile {tls.key.absolute()}\n" if tls else ""
    name_line = f"{NAME_COMMENT}{listener.name}\n" if listener.name else ""
    return f"""\
# Written by `omi-broker init`; run it again rather than editing this.
{name_line}\
listener {listener.port} {listener.host}
{tls_lines}\
allow_anonymous false
# Mosquitto 2.1 deprecates these two for plugins that read the same files; both still work there.
password_file {files.passwords}
acl_file {files.acl}

# What is queued for a subscriber that is slow for a moment. Our programs send again what is lost; this saves time.
max_queued_messages 10000
max_queued_bytes 268435456
# A client has so much to acknowledge at once: with less, one that gets the processor seldom is sent little.
max_inflight_messages 200
max_inflight_bytes 67108864
# A small message does not wait for the acknowledgement of the one before.
set_tcp_nodelay true

# The largest packet; all this pipeline sends is in parts of 256 KiB. Mosquitto 2.1 has the same limit unless it is told
# another, 2.0 has none. To publish larger bare audio files, send them with `omi-bridge publish`.
max_packet_size {MAX_PACKET_BYTES}

# Nothing needs to survive a restart of the broker: the bridge's ledger keeps what must not get lost.
persistence {"true" if listener.persistence else "false"}
{f"persistence_location {files.config.parent}/" if listener.persistence else ""}
"""
