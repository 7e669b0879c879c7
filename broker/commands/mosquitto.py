"""The commands that set a Mosquitto up, add agents to it, change its secrets, and check it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.commands.nats import is_cluster, print_cluster
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

    from broker.mosquitto_setup import Setup

DEBIANS = Path("/etc/mosquitto/conf.d")  # where the configuration of Debian's service takes further files from
RELOAD = "systemctl reload mosquitto"
Directory = Annotated[Path, typer.Argument(help="Where its files are.", file_okay=False)]


def init(
    directory: Annotated[Path, typer.Argument(help="Where to write the files.", file_okay=False)],
    *,
    agent: Annotated[list[str] | None, typer.Option(help="Id of an agent; repeat for more.")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, such as the one on your tailnet. Default: 127.0.0.1.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Default: 8883, without TLS 1883.", min=1, max=65535)] = None,
    name: Annotated[str | None, typer.Option(help="By which others reach it, if not by --host.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM certificate of your own.", exists=True)] = None,
    key: Annotated[Path | None, typer.Option(help="PEM key of that certificate.", exists=True)] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS where it is not the default: on loopback.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Speak no TLS, on any network.")] = False,
    persistence: Annotated[bool | None, typer.Option(help="Keep retained messages over a restart.")] = None,
    bridge_id: Annotated[str | None, typer.Option(help="Name of the bridge (OMI_BRIDGE_ID). Default: bridge.")] = None,
    config: ConfigFile = None,
    topic_root: TopicRoot = None,
    as_json: AsJson = False,
) -> None:
    """Write all a Mosquitto needs: TLS, users, passwords, one block of rights each; and an invitation for each program.

    Run it again to change something: what you do not name stays as it is, known users, passwords and the owner and
    mode of files too. To remove an agent, delete its entry from users.json and run it again.

    Example: [bold]omi-broker init /etc/mosquitto/omi --host 100.64.0.1 --agent my-mac[/bold]
    """
    _check_init(directory, certificate, key, tls=tls, insecure=insecure)
    with explained():
        from broker.listener import TlsFiles
        from broker.mosquitto_setup import Wanted, set_up_mosquitto

        own_tls = TlsFiles(certificate.absolute(), key.absolute()) if certificate and key else None
        wanted = Wanted(
            host=host,
            port=port,
            name=name,
            own_tls=own_tls,
            tls=tls,
            insecure=insecure,
            persistence=persistence,
            bridge_id=bridge_id,
            agent_ids=tuple(agent or ()),
            topic_root=chosen_topic_root(config, topic_root),
        )
        setup = set_up_mosquitto(directory, wanted)
    told = setup.invitations if setup.must_join else roles_of(agent)
    _print_setup(setup, told, as_json=as_json)


def add_agent(
    directory: Directory,
    agent_id: Annotated[list[str], typer.Argument(help="Its id (OMI_AGENT_ID); several are added at once.")],
    as_json: AsJson = False,
) -> None:
    """Add an agent: a user of its own, and its invitation. Nobody who is connected is cut off.

    Example: [bold]omi-broker add-agent /etc/mosquitto/omi my-mac[/bold]
    """
    _add(directory, "agent", agent_id, as_json=as_json)


def add_bridge(
    directory: Directory,
    bridge_id: Annotated[list[str], typer.Argument(help="Its id (OMI_BRIDGE_ID); several are added at once.")],
    as_json: AsJson = False,
) -> None:
    """Add a bridge beside the first, on the same ledger: a user of its own, and its invitation. Nobody is cut off.

    Example: [bold]omi-broker add-bridge /etc/mosquitto/omi second[/bold]
    """
    _add(directory, "bridge", bridge_id, as_json=as_json)


def rotate(
    directory: Directory,
    name: Annotated[str | None, typer.Argument(help="A user: an agent's id, bridge, backend or watch.")] = None,
    *,
    certificates: Annotated[bool, typer.Option("--certificates", help="Renew the broker's certificate.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a user a new password and a new invitation; or renew the broker's certificate, which nobody notices.

    Example: [bold]omi-broker rotate /etc/mosquitto/omi my-mac[/bold]
    """
    if (name is None) != certificates:
        fail("name a user, such as my-mac or bridge, or say --certificates.")
    if is_cluster(directory):
        _rotate_in_cluster(directory, name, as_json=as_json)
        return
    with explained():
        from broker.mosquitto_setup import Wanted, change_password, require_setup, set_up_mosquitto

        require_setup(directory)
        if name is None:
            setup = set_up_mosquitto(directory, Wanted(), renew_certificate=True)
        else:
            setup = change_password(directory, name)
    _print_setup(setup, () if name is None else (name, *roles_of([name])), as_json=as_json)
    if name == "watch" and not as_json:
        out.print(f"its new password is in {setup.mosquitto.users_file}", markup=False)


def check(directory: Directory, as_json: AsJson = False) -> None:
    """Look at the files and the certificate, and try every user at the running broker; exit code 1 where one fails.

    Example: [bold]omi-broker check /etc/mosquitto/omi[/bold]
    """
    with explained():
        from broker.logs import silence_logs
        from broker.mosquitto_check import check_mosquitto
        from broker.nats_check import check_cluster

        silence_logs()
        checks = check_cluster(directory) if is_cluster(directory) else check_mosquitto(directory)
    from broker.check import CheckState, print_checks

    if as_json:
        print_json([asdict(found) for found in checks])
    else:
        print_checks(out, checks)
    if any(found.verdict is CheckState.FAILED for found in checks):
        raise typer.Exit(1)


def _add(directory: Path, kind: str, ids: list[str], *, as_json: bool) -> None:
    agents, bridges = (tuple(ids), ()) if kind == "agent" else ((), tuple(ids))
    if is_cluster(directory):
        with explained():
            from broker.nats_setup import WantedCluster, require_cluster, set_up_cluster

            require_cluster(directory)
            cluster = set_up_cluster(directory, WantedCluster(agent_ids=agents, further_bridges=bridges))
        print_cluster(cluster, roles_of(ids, kind), as_json=as_json)
        return
    with explained():
        from broker.mosquitto_setup import Wanted, require_setup, set_up_mosquitto

        require_setup(directory)
        setup = set_up_mosquitto(directory, Wanted(agent_ids=agents, further_bridges=bridges))
    _print_setup(setup, roles_of(ids, kind), as_json=as_json)


def _rotate_in_cluster(directory: Path, name: str | None, *, as_json: bool) -> None:
    with explained():
        from broker.nats_setup import WantedCluster, change_password, require_cluster, set_up_cluster

        if name is None:
            require_cluster(directory)
            setup = set_up_cluster(directory, WantedCluster(), renew_certificates=True)
        else:
            setup = change_password(directory, name)
    print_cluster(setup, () if name is None else (name, *roles_of([name])), as_json=as_json)


def _check_init(directory: Path, certificate: Path | None, key: Path | None, *, tls: bool, insecure: bool) -> None:
    if is_cluster(directory):
        fail(f"{directory} holds a cluster, which omi-broker nats changes: give a Mosquitto a directory of its own.")
    if (certificate is None) != (key is None):
        fail("give --certificate and --key together.")
    if insecure and (tls or certificate):
        fail("--insecure speaks no TLS: leave it out, or --tls and --certificate.")


def _print_setup(setup: Setup, told: Collection[str], *, as_json: bool) -> None:
    """Say what was written, how Mosquitto takes it, and to whom the invitations of the users in `told` go."""
    files, listener = setup.mosquitto.files, setup.mosquitto.listener
    invitations = {role: str(path) for role, path in setup.invitations.items() if role in told}
    if as_json:
        written = {"config": files.config, "passwords": files.passwords, "acl": files.acl}
        written["users_file"] = setup.mosquitto.users_file
        document = {name: str(path) for name, path in written.items()}
        users = list(setup.mosquitto.users)
        print_json({**document, "users": users, "invitations": invitations, "reload": RELOAD})
        return
    tls = "with TLS" if listener.tls else "without TLS"
    out.print(f"listens on {listener.host} port {listener.port}, {tls}", markup=False)
    _print_next_steps(setup)
    for role, path in invitations.items():
        print_invitation(role, path)
    if setup.before != listener:
        _print_warnings(setup)
    _print_owner(setup)


def _print_next_steps(setup: Setup) -> None:
    config, before = setup.mosquitto.files.config, setup.before
    if before is not None:
        out.print(f"a Mosquitto that runs takes users, passwords and certificates after: {RELOAD}", markup=False)
        out.print("  (or kill -HUP its process); nobody whose password is the same is cut off", markup=False)
        if before != setup.mosquitto.listener:
            out.print("another address, port or TLS it takes only after: systemctl restart mosquitto", markup=False)
        if setup.is_moved:
            out.print("its address is another: every program has to join again, with these invitations", style="yellow")
        if setup.has_new_users:
            out.print(NEW_USERS, style="yellow")
        return
    out.print(f"start it with: mosquitto -c {config}", markup=False)
    if DEBIANS.is_dir():
        out.print(f"  or by Debian's service: ln -s {config} {DEBIANS}/omi.conf", markup=False)
        out.print("  and then: systemctl restart mosquitto", markup=False)


def _print_warnings(setup: Setup) -> None:
    from broker.certificates import OwnCertificates
    from broker.listener import is_loopback
    from broker.mosquitto_check import find_bind_problem

    listener = setup.mosquitto.listener
    if is_loopback(listener.host):
        words = "only programs on this machine reach it: for others give --host ADDRESS (tailscale ip -4)"
        err.print(f"{listener.host}: {words}", style="yellow", markup=False)
    elif listener.tls is None:
        words = "passwords and audio go over this network as they are; --tls encrypts them, and all join again"
        err.print(f"{listener.host} without TLS: {words}", style="yellow", markup=False)
    if listener.tls is not None and listener.tls != OwnCertificates.below(setup.mosquitto.files.config.parent).server:
        words = "give each program OMI_BROKER_CA_FILE too, unless a public CA signed it"
        err.print(f"{listener.tls.certificate} is yours: {words}", style="yellow", markup=False)
    problem = find_bind_problem(listener) if setup.before is None else None
    if problem is not None:
        err.print(problem, style="yellow", markup=False)


def _print_owner(setup: Setup) -> None:
    from broker.private_files import is_roots_alone

    files = setup.mosquitto.files
    if any(is_roots_alone(path) for path in (files.passwords, files.acl)):
        words = f"If Mosquitto runs as a user of its own: chown mosquitto: {files.passwords} {files.acl}"
        out.print(f"Only root can read these two. {words}", style="yellow", markup=False)
