"""Checking a cluster of NATS servers that we set up: its files, its certificates, and every user at every server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from broker.certificate_check import check_certificate_end
from broker.certificates import OwnCertificates, ends_at
from broker.check import Check, failed, note, ok
from broker.file_checks import check_private_files
from broker.nats import NatsCluster, NatsNode, node_directory
from broker.nats_setup import node_url, require_cluster
from broker.user_check import UNREACHABLE, check_user, settings_of
from broker.users import USERS_NAME, Credentials, read_users

RELOAD = "Copy its nats.conf to its machine again, and there: systemctl reload nats-server (or kill -HUP its process)."
START = "Is it started there, and can it reach the others? journalctl -u nats-server says why not."
CONNECT_TIMEOUT_S = 15.0  # after a leader's death the others take some 8 s until they let anybody in


def check_cluster(directory: Path) -> list[Check]:
    """Check the files, the certificates, and that each running server takes every user.

    A server that has lost the others takes nobody, since sessions are kept by a majority: so this tells that too.

    Raises:
        NoCluster: the directory holds none.
        BrokerError: its files cannot be read.
    """
    cluster = require_cluster(directory)
    users = read_users(directory / USERS_NAME)
    own = OwnCertificates.below(directory)
    checks = [_check_modes(directory, cluster)]
    if cluster.tls:
        checks.append(check_certificate_end(ends_at(own.ca), name="CA"))
    down = 0
    for node in cluster.nodes:
        found = _check_node(directory, cluster, node, users, own.ca if cluster.tls else None)
        down += any(check.name == f"{node.name} {UNREACHABLE}" for check in found)
        checks += found
    checks += _judge_majority(len(cluster.nodes), down)
    return checks


def _check_node(
    directory: Path, cluster: NatsCluster, node: NatsNode, users: dict[str, Credentials], ca_file: Path | None
) -> list[Check]:
    checks = []
    if cluster.tls:
        end = ends_at(node_directory(directory, node.name) / "server.pem")
        checks.append(check_certificate_end(end, name=f"certificate of {node.name}"))
    for role, user in users.items():
        settings = settings_of(node_url(cluster, node), user, ca_file, mqtt_version="3.1.1")
        found = check_user(role, settings, reload=RELOAD, start=START, timeout_s=CONNECT_TIMEOUT_S)
        checks.append(replace(found, name=f"{node.name} {found.name}"))
        if found.name == UNREACHABLE:
            break  # it is not there: that is said once
    return checks


def _judge_majority(nodes: int, down: int) -> list[Check]:
    if not down:
        return [ok("cluster", f"{nodes} of {nodes} servers answer")]
    found = f"{nodes - down} of {nodes} servers answer"
    if nodes - down > nodes // 2:
        return [note("cluster", found, "it goes on; with one less it may not. Start the others.")]
    return [failed("cluster", found, "without a majority nobody gets in: start the others")]


def _check_modes(directory: Path, cluster: NatsCluster) -> Check:
    folders = [node_directory(directory, node.name) for node in cluster.nodes]
    private = [directory / USERS_NAME, directory / "cluster.json", *(folder / "nats.conf" for folder in folders)]
    if cluster.tls:
        private += [OwnCertificates.below(directory).ca_key, *(folder / "server.key" for folder in folders)]
    return check_private_files(directory, private, f"omi-broker nats {directory}")
