"""Writing the configuration of a Mosquitto: users, passwords, access, limits."""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.access import Access, access_of
from broker.errors import BrokerError
from broker.users import Credentials, generate_password, read_users, write_private, write_users
from schemas.record import is_id
from schemas.topics import Topics

# Format 7 of mosquitto's password file: PBKDF2 with HMAC-SHA512, 12 bytes of salt, 64 of hash
# (mosquitto:src/password_mosq.h). 1,000 rounds are enough: the passwords are random and cannot be guessed.
PBKDF2_ROUNDS = 1_000
SALT_BYTES = 12
AGENT_PREFIX = "agent:"  # before an agent's id, in the names of users


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a TLS listener; absolute paths that the broker's user can read."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class BrokerUser:
    """One user of the broker: its credentials and its rights."""

    credentials: Credentials
    access: Access


@dataclass(frozen=True)
class MosquittoFiles:
    """The files that Mosquitto reads."""

    config: Path
    passwords: Path
    acl: Path


@dataclass(frozen=True)
class ProvisionedMosquitto:
    """The files that were written, and the users by role (`bridge`, `backend`, `watch`, `agent:<id>`)."""

    files: MosquittoFiles
    users_file: Path
    users: Mapping[str, Credentials]


def provision_mosquitto(
    directory: Path,
    *,
    port: int,
    agent_ids: Sequence[str],
    topic_root: str,
    host: str = "127.0.0.1",
    tls: TlsFiles | None = None,
    persistence: bool = False,
) -> ProvisionedMosquitto:
    """Write a complete configuration with generated users; existing users keep their passwords.

    `users.json` beside it holds the passwords in plain text for the programs, readable by its owner only.

    Raises:
        BrokerError: an agent id cannot be part of a topic.
        UnsafeFile: `users.json` exists and is not such a file, or others can read it.
    """
    users_file = directory.absolute() / "users.json"
    known = read_users(users_file)
    known_ids = (name.removeprefix(AGENT_PREFIX) for name in known if name.startswith(AGENT_PREFIX))
    topics = Topics(topic_root)
    users: dict[str, BrokerUser] = {}
    for role in ("bridge", "backend", "watch"):
        users[role] = BrokerUser(known.get(role) or Credentials(role, generate_password()), access_of(role, topics))
    for agent_id in dict.fromkeys((*known_ids, *agent_ids)):
        if not is_id(agent_id):  # the id `+` would permit this user to publish for every agent
            raise BrokerError(f"agent id {agent_id!r} may not stand in a topic: use 1 to 128 of A-Z a-z 0-9 _ -")
        name = f"{AGENT_PREFIX}{agent_id}"
        credentials = known.get(name) or Credentials(f"agent-{agent_id}", generate_password())
        users[name] = BrokerUser(credentials, access_of("agent", topics, sender_id=agent_id))
    files = write_mosquitto_config(directory, port=port, users=users, host=host, tls=tls, persistence=persistence)
    credentials_by_name = {name: user.credentials for name, user in users.items()}
    write_users(users_file, credentials_by_name)
    return ProvisionedMosquitto(files, users_file, credentials_by_name)


def write_mosquitto_config(
    directory: Path,
    *,
    port: int,
    users: Mapping[str, BrokerUser],
    host: str = "127.0.0.1",
    tls: TlsFiles | None = None,
    persistence: bool = False,
) -> MosquittoFiles:
    """Write `mosquitto.conf`, the hashed password file and the access list into `directory`.

    Args:
        directory: is created; the paths in the configuration are absolute and point into it.
        port: TCP port of the only listener.
        users: by role; the role is written as a comment.
        host: address of the listener.
        tls: use TLS with these files.
        persistence: keep retained messages over a restart. Not needed: our programs publish theirs again.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    files = MosquittoFiles(directory / "mosquitto.conf", directory / "passwords", directory / "acl")
    write_private(
        files.passwords,
        "".join(f"{user.credentials.username}:{hash_password(user.credentials.password)}\n" for user in users.values()),
    )
    write_private(files.acl, _acl_text(users))
    files.config.write_text(_config_text(files, host, port, tls, persistence=persistence), encoding="utf-8")
    return files


def hash_password(password: str, salt: bytes | None = None) -> str:
    """Hash a password as `mosquitto_passwd` does (format 7)."""
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PBKDF2_ROUNDS)
    return f"$7${PBKDF2_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _acl_text(users: Mapping[str, BrokerUser]) -> str:
    # No `pattern` lines: they apply to every user, so with them any user could pose as an agent.
    blocks = ["# One block per user. Written by `omi-broker mosquitto`; run it again rather than editing this.\n"]
    for name, user in users.items():
        blocks.append(f"\n# {name}\nuser {user.credentials.username}\n")
        blocks += [f"topic write {topic}\n" for topic in user.access.publish]
        blocks += [f"topic read {topic}\n" for topic in user.access.receive]
    return "".join(blocks)


def _config_text(files: MosquittoFiles, host: str, port: int, tls: TlsFiles | None, *, persistence: bool) -> str:
    tls_lines = f"certfile {tls.certificate.absolute()}\nkeyfile {tls.key.absolute()}\n" if tls else ""
    return f"""\
# Written by `omi-broker mosquitto`; run it again rather than editing this.
listener {port} {host}
{tls_lines}\
allow_anonymous false
# Mosquitto 2.1 deprecates these two for plugins that read the same files; both still work there.
password_file {files.passwords}
acl_file {files.acl}

# What is queued for a subscriber that is slow for a moment. Our programs send again what is lost; this saves time.
max_queued_messages 10000
max_queued_bytes 268435456
max_inflight_messages 20
# A small message does not wait for the acknowledgement of the one before.
set_tcp_nodelay true

# Mosquitto 2.1 and later refuse packets over 2,000,000 bytes; before that there is no limit. All this
# pipeline sends is in parts of 256 KiB. To publish larger bare audio files, uncomment and raise:
#max_packet_size 2000000

# Nothing needs to survive a restart of the broker: the bridge's ledger keeps what must not get lost.
persistence {"true" if persistence else "false"}
{f"persistence_location {files.config.parent}/" if persistence else ""}
"""
