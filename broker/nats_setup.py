"""Setting up a cluster of NATS servers and changing it: nodes, TLS, users, and the invitation each user is handed."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from broker.address import BrokerAddress
from broker.certificates import OwnCertificates, make_certificates, names_of
from broker.errors import BrokerError, UnsafeFile
from broker.invitation import Invitation
from broker.invitation_files import invited, write_invitations
from broker.listener import Listener, TlsFiles, check_listener, check_path, is_every_address, is_loopback
from broker.mosquitto_files import make_directory
from broker.nats import NatsCluster, NatsNode, node_config, node_directory
from broker.private_files import replace_file, rewrite_file
from broker.role_users import BrokerUser, make_users, renew_password
from broker.text_files import read_text
from broker.users import USERS_NAME, Credentials, generate_password, read_users, require_users, write_users
from schemas.record import is_id
from schemas.topics import Topics

NATS_USER = "nats"  # as which Debian's service runs
FEWEST_NODES = 3  # of which one may be down: two of two are needed for a majority
PRIVATE_DIRECTORY = 0o700


class NoCluster(BrokerError):
    """A directory holds no cluster of ours."""

    def __init__(self, directory: Path) -> None:
        """Name the directory."""
        super().__init__(
            f"{directory} holds no cluster: omi-broker nats {directory} --node NAME=HOST:PORT (three times)"
        )


@dataclass(frozen=True)
class WantedCluster:
    """What a person asked for; what is None or empty stays as it was, or is the default."""

    nodes: tuple[NatsNode, ...] = ()
    """All of them, where any is named."""
    tls: bool = False
    """TLS on loopback too."""
    insecure: bool = False
    bridge_id: str | None = None
    agent_ids: tuple[str, ...] = ()
    further_bridges: tuple[str, ...] = ()
    """Bridges beside the first, on the same ledger."""
    topic_root: str | None = None
    installed_at: str | None = None


@dataclass(frozen=True)
class ClusterSetup:
    """A cluster as it is set up now, and where the invitation of each user lies, by role."""

    directory: Path
    cluster: NatsCluster
    users: dict[str, Credentials]
    invitations: dict[str, Path]
    before: NatsCluster | None
    has_new_certificates: bool
    has_new_users: bool
    """Whether its users were gone, and every password is another than before."""

    @property
    def is_moved(self) -> bool:
        """Whether clients reach it at other addresses than before, or with TLS and not without."""
        return self.before is not None and cluster_url(self.before) != cluster_url(self.cluster)

    @property
    def must_join(self) -> bool:
        """Whether every program has to join, for the first time or again."""
        return self.before is None or self.is_moved or self.has_new_users


def state_file(directory: Path) -> Path:
    """Return the file that tells what the cluster of a directory is; it holds secrets."""
    return directory.absolute() / "cluster.json"


def known_cluster(directory: Path) -> NatsCluster | None:
    """Return how a directory was set up before; None where it was not.

    Raises:
        UnsafeFile: its file is there and holds something else.
        BrokerError: it cannot be read.
    """
    path = state_file(directory)
    try:
        document = json.loads(read_text(path))
        nodes = tuple(NatsNode(**node) for node in document.pop("nodes"))
        return NatsCluster(nodes=nodes, **document)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BrokerError(f"{path} cannot be read ({error.strerror}): run this as the user that wrote it") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnsafeFile(path, "is not what `omi-broker nats` writes", "Restore it from a backup.") from error


def require_cluster(directory: Path) -> NatsCluster:
    """Return the cluster of a directory that was set up.

    Raises:
        NoCluster: it was not.
        UnsafeFile: its users are gone.
    """
    cluster = known_cluster(directory)
    if cluster is None:
        raise NoCluster(directory)
    require_users(directory / USERS_NAME)
    return cluster


def choose_cluster(before: NatsCluster | None, wanted: WantedCluster) -> NatsCluster:
    """Decide what the cluster is: what was not named stays, TLS is spoken everywhere but on loopback.

    Raises:
        BrokerError: fewer than three nodes, two with one name or address, or a value that may not stand there.
        UnencryptedListener: `insecure` would be needed.
    """
    nodes = wanted.nodes or (before.nodes if before else ())
    _check_nodes(nodes)
    is_here = all(is_loopback(node.host) for node in nodes)
    stays = before.tls if before is not None and before.nodes == nodes else not is_here
    tls = not wanted.insecure and (wanted.tls or stays)
    for node in nodes:
        check_listener(Listener(node.host, node.port), insecure=True)
    if wanted.installed_at is not None:
        check_path(Path(wanted.installed_at))
    installed_at = wanted.installed_at or (before.installed_at if before else None)
    return NatsCluster(
        nodes=nodes,
        tls=tls,
        bridge_id=wanted.bridge_id or (before.bridge_id if before else Listener.bridge_id),
        topic_root=wanted.topic_root or (before.topic_root if before else Listener.topic_root),
        route_password=before.route_password if before else generate_password(),
        store_key=before.store_key if before else generate_password(),
        installed_at=installed_at,
    )


def _check_nodes(nodes: Sequence[NatsNode]) -> None:
    if len(nodes) < FEWEST_NODES:
        raise BrokerError(
            f"{len(nodes)} nodes are no cluster that goes on when one is down: name at least three, each with "
            "--node NAME=HOST:PORT. For one machine set up a Mosquitto: omi-broker init"
        )
    for node in nodes:
        if not is_id(node.name):
            raise BrokerError(f"node name {node.name!r}: use 1 to 128 of A-Z a-z 0-9 _ -")
        if is_every_address(node.host):
            raise BrokerError(
                f"{node.host} is every address of a machine: name the one by which others reach {node.name}"
            )
    places = [(node.host, port) for node in nodes for port in (node.port, node.route_port)]
    for what, count in Counter([*(node.name for node in nodes), *places]).items():
        if count > 1:
            words = what if isinstance(what, str) else f"{what[0]}:{what[1]}"
            raise BrokerError(
                f"{words} stands twice: each node has a name, a port for MQTT and a port for the others of its own; "
                "on one machine say --node NAME=HOST:PORT/OTHER_PORT"
            )


def set_up_cluster(directory: Path, wanted: WantedCluster, *, renew_certificates: bool = False) -> ClusterSetup:
    """Write the directory of each node and an invitation for each user that a program of ours has.

    Known users, the secrets of the cluster and what is not named stay as they are.

    Raises:
        BrokerError: a value that would change the meaning of a configuration, or a file that cannot be written.
        UnsafeFile: `users.json` or `cluster.json` exists and is none, or others can read it.
    """
    if (directory / "mosquitto.conf").exists():
        raise BrokerError(f"{directory} holds a Mosquitto: give the cluster a directory of its own")
    before = known_cluster(directory)
    cluster = choose_cluster(before, wanted)
    check_path(directory.absolute())
    if renew_certificates and not cluster.tls:
        raise BrokerError(
            "this cluster speaks no TLS: omi-broker nats DIR --tls gives it certificates, and invitations"
        )
    users_file = directory.absolute() / USERS_NAME
    has_new_users = before is not None and not users_file.exists()
    topics, known = Topics(cluster.topic_root), read_users(users_file)
    users = make_users(known, wanted.agent_ids, topics, cluster.bridge_id, further_bridges=wanted.further_bridges)
    credentials = {role: user.credentials for role, user in users.items()}
    try:
        make_directory(directory.absolute() / "nodes")  # the servers' own user enters it
        write_users(users_file, credentials)  # first: what a crash leaves can be completed by running it again
        _write_private(state_file(directory), json.dumps(asdict(cluster), indent=2) + "\n")
        for node in cluster.nodes:
            _write_node(directory, cluster, node, users, renew=renew_certificates)
        ca = OwnCertificates.below(directory).ca.read_text() if cluster.tls else None
        invitations = {role: make_invitation(role, user, cluster, ca=ca) for role, user in invited(credentials).items()}
        written = write_invitations(directory, invitations)
    except OSError as error:
        raise BrokerError(
            f"{error.filename or directory} cannot be written ({error.strerror}). Run this as root, or as the user the "
            "files belong to."
        ) from error
    return ClusterSetup(directory.absolute(), cluster, credentials, written, before, renew_certificates, has_new_users)


def change_password(directory: Path, user: str) -> ClusterSetup:
    """Give one user a new password: with the old one nobody gets in once every server has read its file again.

    Raises:
        BrokerError: there is no such user.
    """
    require_cluster(directory)
    renew_password(directory / USERS_NAME, user)
    return set_up_cluster(directory, WantedCluster())


def cluster_url(cluster: NatsCluster) -> str:
    """Return the URL that clients are given: that of every node."""
    return ",".join(node_url(cluster, node) for node in cluster.nodes)


def node_url(cluster: NatsCluster, node: NatsNode) -> str:
    """Return the URL of one node."""
    return BrokerAddress(node.host, node.port, tls=cluster.tls).url


def make_invitation(role: str, user: Credentials, cluster: NatsCluster, *, ca: str | None) -> Invitation:
    """Return the invitation of one user, by its role at the broker (`bridge`, `backend`, `agent:<id>`)."""
    kind, _, agent_id = role.partition(":")
    return Invitation(
        role=kind,
        url=cluster_url(cluster),
        username=user.username,
        password=user.password,
        sender_id=agent_id or (cluster.bridge_id if kind == "bridge" else None),
        ca=ca,
        topic_root=cluster.topic_root,
        mqtt_version="3.1.1",
        mqtt_qos="0",  # what is sent with 1 is written to the disks of three servers: docs/adr/0035
    )


def _write_node(
    directory: Path, cluster: NatsCluster, node: NatsNode, users: dict[str, BrokerUser], *, renew: bool
) -> None:
    folder = node_directory(directory, node.name)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(PRIVATE_DIRECTORY)
    if cluster.tls:
        shared = OwnCertificates.below(directory)
        shared.ca.parent.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        server = TlsFiles(folder / "server.pem", folder / "server.key")
        is_there = all(path.exists() for path in (server.certificate, server.key, shared.ca))
        if renew or not is_there or node.host not in names_of(server.certificate):
            own = OwnCertificates(shared.ca, shared.ca_key, server)
            make_certificates(own, (node.host,), also_as_client=True, owner=NATS_USER)
        _write_private(folder / "ca.pem", shared.ca.read_text())
    config = node_config(cluster, node, cluster.home_of(node, directory), users)
    _write_private(folder / "nats.conf", json.dumps(config, indent=2) + "\n")
    if os.geteuid() == 0:
        with suppress(LookupError):  # no such user here: NATS is installed elsewhere
            for path in (folder, *folder.glob("*")):
                shutil.chown(path, NATS_USER, NATS_USER)


def _write_private(path: Path, text: str) -> None:
    try:
        rewrite_file(path, text)
    except FileNotFoundError:
        replace_file(path, text)
