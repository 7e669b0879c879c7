"""The command that sets a cluster of NATS servers up, and what the others do where a directory holds one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.commands.terminal import (
    NEW_USERS,
    AsJson,
    ConfigFile,
    TopicRoot,
    chosen_topic_root,
    err,
    explained,
    fail,
    out,
    print_invitation,
    roles_of,
)
from broker.terminal import print_json

if TYPE_CHECKING:
    from collections.abc import Collection

    from broker.nats import NatsNode
    from broker.nats_setup import ClusterSetup

RELOAD = "systemctl reload nats-server"
DEFAULT_ROUTE_PORT = 6222  # which NATS itself uses for routes
_NODE = re.compile(
    r"(?P<name>[^=]+)=(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d{1,5})(?:/(?P<route>\d{1,5}))?"
)
MAX_PORT = 65_535


def nats(
    directory: Annotated[Path, typer.Argument(help="Where to write the files.", file_okay=False)],
    *,
    node: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A server, as NAME=HOST:PORT; its port for the other servers, if not {DEFAULT_ROUTE_PORT}, "
            "follows as /PORT. Name them all: at least three."
        ),
    ] = None,
    agent: Annotated[list[str] | None, typer.Option(help="Id of an agent; repeat for more.")] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS where it is not the default: on loopback.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Speak no TLS, on any network.")] = False,
    installed_at: Annotated[
        Path | None, typer.Option(help="Where each node's directory will lie on its machine. Default: where it is.")
    ] = None,
    bridge_id: Annotated[str | None, typer.Option(help="Name of the bridge (OMI_BRIDGE_ID). Default: bridge.")] = None,
    config: ConfigFile = None,
    topic_root: TopicRoot = None,
    as_json: AsJson = False,
) -> None:
    """Write all a cluster of NATS servers needs: for each a directory with its configuration; and the invitations.

    It goes on when one of three is down. Run it again to change something: what you do not name stays as it is.
    `add-agent`, `rotate` and `check` work on its directory as on a Mosquitto's.

    Example: [bold]omi-broker nats /etc/omi-cluster --node a=100.64.0.1:8883 --node b=100.64.0.2:8883
    --node c=100.64.0.3:8883 --agent my-mac --installed-at /var/lib/omi-nats[/bold]
    """
    if insecure and tls:
        fail("--insecure speaks no TLS: leave it out, or --tls.")
    nodes = tuple(_parse_node(text) for text in node or ())
    with explained():
        from broker.nats_setup import WantedCluster, set_up_cluster

        wanted = WantedCluster(
            nodes=nodes,
            tls=tls,
            insecure=insecure,
            bridge_id=bridge_id,
            agent_ids=tuple(agent or ()),
            topic_root=chosen_topic_root(config, topic_root),
            installed_at=str(installed_at) if installed_at else None,
        )
        setup = set_up_cluster(directory, wanted)
    told = setup.invitations if setup.must_join else roles_of(agent)
    print_cluster(setup, told, as_json=as_json)


def is_cluster(directory: Path) -> bool:
    """Whether a directory holds a cluster, and not a Mosquitto."""
    from broker.nats_setup import state_file

    return state_file(directory).exists()


def print_cluster(setup: ClusterSetup, told: Collection[str], *, as_json: bool) -> None:
    """Say what was written, how the servers take it, and to whom the invitations of the users in `told` go."""
    from broker.nats import node_directory
    from broker.nats_setup import cluster_url

    cluster = setup.cluster
    folders = {node.name: node_directory(setup.directory, node.name) for node in cluster.nodes}
    invitations = {role: str(path) for role, path in setup.invitations.items() if role in told}
    if as_json:
        document = {"url": cluster_url(cluster), "users_file": str(setup.directory / "users.json")}
        nodes = {name: str(folder) for name, folder in folders.items()}
        print_json(
            {**document, "nodes": nodes, "users": list(setup.users), "invitations": invitations, "reload": RELOAD}
        )
        return
    out.print(f"programs reach it at {cluster_url(cluster)}", markup=False)
    _print_next_steps(setup, folders)
    for role, path in invitations.items():
        print_invitation(role, path)
    if not cluster.tls and (setup.before is None or setup.before.tls):
        words = "without TLS passwords and audio go over the network between these as they are"
        err.print(f"{', '.join(node.host for node in cluster.nodes)}: {words}", style="yellow", markup=False)


def _print_next_steps(setup: ClusterSetup, folders: dict[str, Path]) -> None:
    elsewhere = setup.cluster.installed_at
    if setup.before is not None:
        if elsewhere:
            out.print("copy the files of each node to its machine again:", markup=False)
            for node in setup.cluster.nodes:
                out.print(f"  scp {folders[node.name]}/* root@{node.host}:{elsewhere}/", markup=False)
            out.print(f"  and there: chown nats: {elsewhere}/*", markup=False)
        out.print(f"each server takes users and passwords after: {RELOAD}", markup=False)
        out.print("  (or kill -HUP its process); nobody whose password is the same is cut off", markup=False)
        if setup.before != setup.cluster or setup.has_new_certificates:
            words = "nodes, addresses, TLS and certificates it takes after: systemctl restart nats-server"
            out.print(f"{words}, one by one", markup=False)
        if setup.is_moved:
            out.print("its addresses are others: every program has to join again", style="yellow")
        if setup.has_new_users:
            out.print(NEW_USERS, style="yellow")
        return
    for node in setup.cluster.nodes:
        folder = folders[node.name]
        if elsewhere:
            out.print(f"{node.name}: scp -r {folder} root@{node.host}:{elsewhere}", markup=False)
            out.print(f"  there: chown -R nats: {elsewhere}", markup=False)
        out.print(f"{node.name}: start it with: nats-server -c {elsewhere or folder}/nats.conf", markup=False)


def _parse_node(text: str) -> NatsNode:
    from broker.nats import NatsNode

    found = _NODE.fullmatch(text)
    ports = (int(found["port"]), int(found["route"] or DEFAULT_ROUTE_PORT)) if found else (0, 0)
    if found is None or not all(1 <= port <= MAX_PORT for port in ports):
        fail(f"--node {text}: write it as NAME=HOST:PORT, such as a=100.64.0.1:8883, or NAME=HOST:PORT/OTHER_PORT")
    return NatsNode(found["name"], found["v6"] or found["host"], *ports)
