"""The configuration of a cluster of NATS servers that speak MQTT: users, rights, routes between them, limits."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import bcrypt

from broker.access import BROKER_VERSION, Access
from broker.mosquitto import MAX_PACKET_BYTES
from broker.role_users import BrokerUser

CLUSTER_NAME = "omi"
ROUTE_USER = "route"
# A node that died leaves the consumers of its clients behind, which hold messages of QoS 1 back until they are gone.
FORGET_CONSUMERS_S = 60
MAX_ACK_PENDING = 200  # as Mosquitto's max_inflight_messages here; all filters of a session may have 65,535 together
ACK_WAIT_S = 60
MAX_STORE_BYTES = 2 * 2**30  # of messages with QoS 1 that somebody else's programs leave unacknowledged
TLS_TIMEOUT_S = 10  # NATS's own 2 s are short for fifty clients that come back at once
# The servers of a cluster find each other and elect within seconds of each other's start.
BCRYPT_ROUNDS = "04"  # the fewest: the passwords are random and cannot be guessed
_TO_BCRYPT = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
)
_SALT_BYTES = 16


@dataclass(frozen=True)
class NatsNode:
    """One server: its name, the address that it listens on and is reached at, its port for MQTT and for the others."""

    name: str
    host: str
    port: int
    route_port: int


@dataclass(frozen=True)
class NatsCluster:
    """A cluster as it is set up, with the secrets of its servers among themselves."""

    nodes: tuple[NatsNode, ...]
    tls: bool
    bridge_id: str
    topic_root: str
    route_password: str
    store_key: str
    """With which each server encrypts what it writes to its disk."""
    installed_at: str | None = None
    """Where the directory of a node lies on its machine; None: where it was written."""

    def __repr__(self) -> str:
        return f"NatsCluster({', '.join(node.name for node in self.nodes)}, tls={self.tls})"

    def home_of(self, node: NatsNode, directory: Path) -> Path:
        """Return where the files of a node are read from."""
        return Path(self.installed_at) if self.installed_at else node_directory(directory, node.name)


def node_directory(directory: Path, name: str) -> Path:
    """Return where the files of a node are written."""
    return directory.absolute() / "nodes" / name


def node_config(cluster: NatsCluster, node: NatsNode, home: Path, users: Mapping[str, BrokerUser]) -> dict[str, object]:
    """Return the configuration of one server; NATS reads JSON too.

    Args:
        cluster: all servers.
        node: this one.
        home: the directory of its files on its machine.
        users: by role.
    """
    return {
        "server_name": node.name,
        # Clients of NATS itself have no user here, so nobody gets in by this port; it cannot be turned off.
        "host": "127.0.0.1",
        "port": -1,
        "max_payload": MAX_PACKET_BYTES,
        "jetstream": {
            "store_dir": str(home / "jetstream"),
            "max_file_store": MAX_STORE_BYTES,
            "cipher": "aes",
            "key": cluster.store_key,
        },
        "mqtt": {
            "host": node.host,
            "port": node.port,
            "stream_replicas": 3,
            "ack_wait": f"{ACK_WAIT_S}s",
            "max_ack_pending": MAX_ACK_PENDING,
            "consumer_inactive_threshold": f"{FORGET_CONSUMERS_S}s",
            **({"tls": _tls_of(home)} if cluster.tls else {}),
        },
        "cluster": _routes_of(cluster, node, home),
        "authorization": {"timeout": TLS_TIMEOUT_S, "users": [_user_entry(user) for user in users.values()]},
    }


def _tls_of(home: Path, *, to_servers: bool = False) -> dict[str, object]:
    files = {"cert_file": str(home / "server.pem"), "key_file": str(home / "server.key"), "timeout": TLS_TIMEOUT_S}
    return files | ({"ca_file": str(home / "ca.pem"), "verify": True} if to_servers else {})


def _routes_of(cluster: NatsCluster, node: NatsNode, home: Path) -> dict[str, object]:
    scheme, login = "tls" if cluster.tls else "nats", f"{ROUTE_USER}:{cluster.route_password}"
    return {
        "name": CLUSTER_NAME,
        "host": node.host,
        "port": node.route_port,
        "no_advertise": True,
        "authorization": {
            "user": ROUTE_USER,
            "password": cluster.route_password,
            "timeout": TLS_TIMEOUT_S,
        },
        "routes": [
            f"{scheme}://{login}@{_in_url(other.host)}:{other.route_port}" for other in cluster.nodes if other != node
        ],
        **({"tls": _tls_of(home, to_servers=True)} if cluster.tls else {}),
    }


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _user_entry(user: BrokerUser) -> dict[str, object]:
    return {
        "user": user.credentials.username,
        "password": hash_password(user.credentials.password),
        "permissions": permissions_of(user.access),
        "allowed_connection_types": ["MQTT"],
    }


def hash_password(password: str) -> str:
    """Hash a password as NATS reads it (bcrypt), always to the same: a reload changes nobody who is the same.

    The salt comes from the password, which is random itself and no other user's.
    """
    digest = hashlib.sha256(b"omi-broker nats " + password.encode()).digest()[:_SALT_BYTES]
    salt = base64.b64encode(digest).decode().rstrip("=").translate(_TO_BCRYPT)
    return bcrypt.hashpw(password.encode(), f"$2b${BCRYPT_ROUNDS}${salt}".encode()).decode()


def permissions_of(access: Access) -> dict[str, object]:
    """Return the rights of a user in the form of NATS, which has no right to receive less than one subscribes to."""
    return {
        "publish": _subjects_of(access.publish) or {"deny": ">"},
        # NATS delivers QoS 1 by the second; no client can ask for it by that name.
        "subscribe": [*_subjects_of(access.receive), "$MQTT.sub.>"],
    }


def _subjects_of(filters: Iterable[str]) -> list[str]:
    """Topic filters as subjects of NATS; `#` matches its parent level too. The topic of Mosquitto's version is none."""
    subjects = []
    for topic_filter in filters:
        if topic_filter == BROKER_VERSION:
            continue
        subject = topic_filter.replace("/", ".").replace("+", "*")
        subjects += [subject.removesuffix("#") + ">", subject.removesuffix(".#")] if "#" in subject else [subject]
    return subjects
