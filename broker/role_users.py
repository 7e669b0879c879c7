"""The users of a broker that we set up: one for each role and each agent, with its password and its rights."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.access import Access, access_of
from broker.errors import BrokerError
from broker.users import Credentials, generate_password, read_users, write_users
from schemas.record import is_id
from schemas.topics import Topics

AGENT_PREFIX = "agent:"  # before an agent's id, in the names of users
BRIDGE_PREFIX = "bridge:"  # before the id of a further bridge, beside the first one
_USERNAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.@-]*")


@dataclass(frozen=True)
class BrokerUser:
    """One user of the broker: its credentials and its rights."""

    credentials: Credentials
    access: Access


def make_users(
    known: Mapping[str, Credentials],
    agent_ids: Iterable[str],
    topics: Topics,
    bridge_id: str,
    *,
    further_bridges: Iterable[str] = (),
) -> dict[str, BrokerUser]:
    """Return all users by role (`bridge`, `backend`, `watch`, `agent:<id>`); known ones keep their passwords.

    Further bridges on the ledger of the first are `bridge:<id>`, each with its own heartbeat.

    Raises:
        BrokerError: an id or a username that would change the meaning of a configuration.
    """
    known_ids = (name.removeprefix(AGENT_PREFIX) for name in known if name.startswith(AGENT_PREFIX))
    known_bridges = (name.removeprefix(BRIDGE_PREFIX) for name in known if name.startswith(BRIDGE_PREFIX))
    users: dict[str, BrokerUser] = {}
    for role in ("bridge", "backend", "watch"):
        access = access_of(role, topics, sender_id=_checked_id("bridge", bridge_id))
        users[role] = BrokerUser(known.get(role) or Credentials(role, generate_password()), access)
    bridges = dict.fromkeys((bridge_id, *known_bridges, *further_bridges))
    for further in list(bridges)[1:]:
        name = f"{BRIDGE_PREFIX}{further}"
        access = access_of("bridge", topics, sender_id=_checked_id("bridge", further))
        users[name] = BrokerUser(known.get(name) or Credentials(f"bridge-{further}", generate_password()), access)
    for agent_id in dict.fromkeys((*known_ids, *agent_ids)):
        if _checked_id("agent", agent_id) in bridges:
            raise BrokerError(
                f"{agent_id!r} would name an agent and a bridge: their failures would be one topic. Name another."
            )
        name = f"{AGENT_PREFIX}{agent_id}"
        credentials = known.get(name) or Credentials(f"agent-{agent_id}", generate_password())
        users[name] = BrokerUser(credentials, access_of("agent", topics, sender_id=agent_id))
    _check_usernames(user.credentials.username for user in users.values())
    return users


def find_role(users: Mapping[str, Credentials], name: str) -> str:
    """Return the role of a user that is named by its role or by the agent's id alone.

    Raises:
        BrokerError: there is no such user.
    """
    role = name if name in users else f"{AGENT_PREFIX}{name}"
    if role not in users:
        names = ", ".join(known.removeprefix(AGENT_PREFIX) for known in users)
        raise BrokerError(f"no user {name} here; there are {names}")
    return role


def renew_password(users_file: Path, name: str) -> None:
    """Give a user, named as `find_role` takes it, a new password in `users.json`.

    Raises:
        BrokerError: there is no such user, or the file cannot be read.
    """
    users = read_users(users_file)
    role = find_role(users, name)
    users[role] = Credentials(users[role].username, generate_password())
    write_users(users_file, users)


def _checked_id(kind: str, text: str) -> str:
    if not is_id(text):  # the id `+` would permit this user to publish for every agent
        raise BrokerError(f"{kind} id {text!r} may not stand in a topic: use 1 to 128 of A-Z a-z 0-9 _ -")
    return text


def _check_usernames(usernames: Iterable[str]) -> None:
    """Check the names in `users.json`, which people edit: a line break or a colon there would make another user."""
    for username, count in Counter(usernames).items():
        if not _USERNAME.fullmatch(username):
            raise BrokerError(
                f"username {username!r} in users.json: use A-Z a-z 0-9 _ . @ - and begin with none of these"
            )
        if count > 1:
            raise BrokerError(f"username {username!r} stands twice in users.json: give each role a user of its own")
