"""`omi-broker`: run the embedded broker, show its users, set up a Mosquitto."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.table import Table

from broker.errors import BrokerError
from broker.program import ProgramGroup, run_program
from broker.terminal import SafeConsole, print_json
from broker.version import VersionOption

if TYPE_CHECKING:
    from broker.address import BrokerAddress
    from broker.mosquitto import ProvisionedMosquitto
    from broker.settings import BrokerSettings

app = typer.Typer(
    cls=ProgramGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""The MQTT broker between the bridge and the agents.

    Without one of your own, run the embedded one beside the bridge and the agent:

        omi-broker run

    On a VPS use Mosquitto, set up for one agent called studio:

        omi-broker mosquitto ./mosquitto --agent studio
        mosquitto -c ./mosquitto/mosquitto.conf
    """,
)
out = SafeConsole(highlight=False, soft_wrap=True)
err = SafeConsole(stderr=True, highlight=False, soft_wrap=True)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the generated users are kept (OMI_DATA_DIR).")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with settings (default: OMI_CONFIG).", dir_okay=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.callback()
def omi_broker(*, version: VersionOption = False) -> None:
    """Take the options that stand before a command."""


@app.command()
def run(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.", min=0, max=65535)] = 1883,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen on any network, without TLS.")] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    topic_root: Annotated[str | None, typer.Option(help="First levels of every topic.")] = None,
) -> None:
    """Run the embedded broker until it is stopped (Ctrl-C or SIGTERM).

    Users and passwords are generated once; the bridge and the agent on this machine find them by
    themselves. It is for a laptop and for tests: it keeps nothing over a restart.

    Example: [bold]omi-broker run --port 1884[/bold]
    """
    from broker.listener import Listener, check_listener
    from broker.logs import configure_logs

    settings = _settings(config, data_dir=data_dir, topic_root=topic_root)
    configure_logs(as_json=settings.log_json)
    try:
        from broker.embedded import serve
    except ImportError as error:
        _fail(f"the embedded broker is not installed ({error.name} is missing): pip install 'omi-diarization[broker]'")
    try:
        check_listener(Listener(host), insecure=insecure)
        serving = serve(
            host=host,
            port=port,
            data_dir=settings.data_dir,
            topic_root=settings.topic_root,
            on_ready=partial(_announce, settings.data_dir),
        )
        asyncio.run(serving)
    except BrokerError as error:
        _fail(str(error))


def _announce(data_dir: Path, address: BrokerAddress) -> None:
    from broker.listener import is_private
    from broker.users import users_file

    if not is_private(address.host):
        words = "is neither loopback nor on a tailnet: passwords and audio cross that network unencrypted."
        err.print(f"{address.host} {words}", style="yellow", markup=False)
    out.print(f"users and passwords: {users_file(data_dir)}")
    out.print(f"omi-broker ready {address.url}")
    out.file.flush()


@app.command()
def users(
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Show the passwords.")] = False,
) -> None:
    """List the users of the embedded broker.

    Example: [bold]omi-broker users --show-secrets[/bold]
    """
    from broker.settings import MASK
    from broker.users import read_users, users_file

    path = users_file(_settings(config, data_dir=data_dir).data_dir)
    try:
        known = read_users(path)
    except (BrokerError, PermissionError) as error:
        _fail(str(error))
    if not known:
        _fail(f"no users at {path} yet: `omi-broker run` generates them when it starts.")
    rows = {
        role: {"username": user.username, "password": user.password if show_secrets else MASK}
        for role, user in known.items()
    }
    if as_json:
        print_json({"file": str(path), "users": rows})
        return
    table = Table("role", "username", "password", title=str(path))
    for role, row in rows.items():
        table.add_row(role, row["username"], row["password"])
    out.print(table)


@app.command()
def mosquitto(
    directory: Annotated[Path, typer.Argument(help="Where to write the files.", file_okay=False)],
    *,
    agent: Annotated[list[str] | None, typer.Option(help="Id of an agent; repeat for more.")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, such as the one on your tailnet. Default: 127.0.0.1.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="TCP port. Default: 1883.", min=1, max=65535)] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM certificate: speak TLS.", exists=True)] = None,
    key: Annotated[Path | None, typer.Option(help="PEM key of the certificate.", exists=True)] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen without TLS on any network.")] = False,
    persistence: Annotated[bool | None, typer.Option(help="Keep retained messages over a restart.")] = None,
    bridge_id: Annotated[str | None, typer.Option(help="Name of the bridge (OMI_BRIDGE_ID). Default: bridge.")] = None,
    config: ConfigFile = None,
    topic_root: Annotated[str | None, typer.Option(help="First levels of every topic.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the configuration of a Mosquitto: users, hashed passwords, one access block per user.

    Run it again to add an agent: known users and their passwords, the address and all else that you do not name stay as
    they are, and so do owner and mode of the files. To remove an agent, delete its entry from users.json and run it
    again; to begin anew, delete mosquitto.conf.

    Example: [bold]omi-broker mosquitto /etc/mosquitto/omi --agent studio --agent laptop --host 100.64.0.1[/bold]
    """
    from broker.listener import Listener, TlsFiles
    from broker.mosquitto import known_listener, provision_mosquitto

    if (certificate is None) != (key is None):
        _fail("give --certificate and --key together.")
    root = _settings(config, topic_root=topic_root).topic_root
    try:
        known = known_listener(directory, root)
        before = known or Listener()
        listener = Listener(
            host=before.host if host is None else host,
            port=port or before.port,
            tls=TlsFiles(certificate, key) if certificate and key else before.tls,
            persistence=before.persistence if persistence is None else persistence,
            bridge_id=before.bridge_id if bridge_id is None else bridge_id,
        )
        provisioned = provision_mosquitto(
            directory, listener, agent_ids=tuple(agent or ()), topic_root=root, insecure=insecure
        )
    except BrokerError as error:
        _fail(str(error))
    _print_provisioned(provisioned, is_new=known is None, as_json=as_json)


@app.command("config")
def show_config(
    data_dir: DataDir = None,
    config: ConfigFile = None,
    topic_root: Annotated[str | None, typer.Option(help="First levels of every topic.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show every setting, its value, where it came from and what it means; secrets are masked.

    Example: [bold]omi-broker config --json[/bold]
    """
    from broker.settings import BrokerSettings, load_settings, print_settings

    try:
        loaded = load_settings(
            BrokerSettings, flags={"data_dir": data_dir, "topic_root": topic_root}, config_file=config
        )
    except BrokerError as error:
        _fail(str(error))
    print_settings(loaded, as_json=as_json)


def _print_provisioned(provisioned: ProvisionedMosquitto, *, is_new: bool, as_json: bool) -> None:
    from broker.private_files import is_roots_alone

    files, listener = provisioned.files, provisioned.listener
    reload = "systemctl reload mosquitto (or: kill -HUP $(pidof mosquitto))"
    if as_json:
        written = {"config": files.config, "passwords": files.passwords, "acl": files.acl}
        written["users_file"] = provisioned.users_file
        paths = {name: str(path) for name, path in written.items()}
        print_json({**paths, "users": list(provisioned.users), "reload": reload})
        return
    out.print(f"listens on {listener.host} port {listener.port}{', TLS' if listener.tls else ''}", markup=False)
    out.print(f"start it with: mosquitto -c {files.config}", markup=False)
    if not is_new:
        out.print(f"a Mosquitto that runs takes the users after: {reload}", markup=False)
        out.print("another address, port or certificate it takes only after a restart: systemctl restart mosquitto")
    out.print(f"passwords to hand to the programs, readable by you only: {provisioned.users_file}", markup=False)
    out.print(f"users: {', '.join(provisioned.users)}; the bridge's id (OMI_BRIDGE_ID): {listener.bridge_id}")
    if any(is_roots_alone(path) for path in (files.passwords, files.acl)):
        out.print(
            f"Only root can read these two. If Mosquitto runs as a user of its own: chown mosquitto: {files.passwords} "
            f"{files.acl}",
            style="yellow",
            markup=False,
        )


def _settings(config_file: Path | None, **flags: object) -> BrokerSettings:
    from broker.settings import BrokerSettings, load_settings

    try:
        loaded = load_settings(BrokerSettings, flags=flags, config_file=config_file)
    except BrokerError as error:
        _fail(str(error))
    for warning in loaded.warnings:
        err.print(f"omi-broker: {warning}", style="yellow", markup=False)
    return loaded.settings


def _fail(message: str) -> NoReturn:
    err.print("[red]omi-broker:[/red]", end=" ")
    err.print(message, markup=False)
    raise typer.Exit(1)


def main() -> None:
    """Entry point of the console command."""
    run_program(app)


if __name__ == "__main__":
    main()
