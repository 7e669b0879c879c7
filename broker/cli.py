"""`omi-broker`: run the embedded broker, show its users, set up a Mosquitto."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from broker.errors import BrokerError

if TYPE_CHECKING:
    from broker.address import BrokerAddress
    from broker.mosquitto import ProvisionedMosquitto
    from broker.settings import BrokerSettings

app = typer.Typer(
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
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the generated users are kept (OMI_DATA_DIR).")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with settings (default: OMI_CONFIG).", dir_okay=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def run(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.", min=0, max=65535)] = 1883,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    topic_root: Annotated[str | None, typer.Option(help="First levels of every topic.")] = None,
) -> None:
    """Run the embedded broker until it is stopped (Ctrl-C or SIGTERM).

    Users and passwords are generated once; the bridge and the agent on this machine find them by
    themselves. It is for a laptop and for tests: it keeps nothing over a restart.

    Example: [bold]omi-broker run --port 1884[/bold]
    """
    from broker.logs import configure_logs
    from broker.users import users_file

    settings = _settings(config, data_dir=data_dir, topic_root=topic_root)
    configure_logs(as_json=settings.log_json)

    def announce(address: BrokerAddress) -> None:
        if not address.is_loopback:
            err.print(f"{host} is not loopback: passwords and audio cross that network unencrypted.", style="yellow")
        out.print(f"users and passwords: {users_file(settings.data_dir)}")
        out.print(f"omi-broker ready {address.url}")
        out.file.flush()

    try:
        from broker.embedded import serve
    except ImportError as error:
        _fail(
            f"the embedded broker is not installed ({error.name} is missing): pip install 'omi-diarization\\[broker]'"
        )
    try:
        asyncio.run(
            serve(
                host=host,
                port=port,
                data_dir=settings.data_dir,
                topic_root=settings.topic_root,
                on_ready=announce,
            )
        )
    except BrokerError as error:
        _fail(str(error))


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
        out.out(json.dumps({"file": str(path), "users": rows}, indent=2))
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
    host: Annotated[str, typer.Option(help="Address to listen on, such as the one on your tailnet.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port.", min=1, max=65535)] = 1883,
    certificate: Annotated[Path | None, typer.Option(help="PEM certificate: speak TLS.", exists=True)] = None,
    key: Annotated[Path | None, typer.Option(help="PEM key of the certificate.", exists=True)] = None,
    persistence: Annotated[bool, typer.Option(help="Keep retained messages over a restart.")] = False,
    config: ConfigFile = None,
    topic_root: Annotated[str | None, typer.Option(help="First levels of every topic.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the configuration of a Mosquitto: users, hashed passwords, one access block per user.

    Run it again to add an agent: known users and their passwords stay. To remove an agent, delete its
    entry from users.json and run it again.

    Example: [bold]omi-broker mosquitto /etc/mosquitto/omi --agent studio --agent laptop --host 100.64.0.1[/bold]
    """
    from broker.mosquitto import TlsFiles, provision_mosquitto

    if (certificate is None) != (key is None):
        _fail("give --certificate and --key together.")
    tls = TlsFiles(certificate, key) if certificate is not None and key is not None else None
    settings = _settings(config, topic_root=topic_root)
    try:
        provisioned = provision_mosquitto(
            directory,
            host=host,
            port=port,
            agent_ids=tuple(agent or ()),
            topic_root=settings.topic_root,
            tls=tls,
            persistence=persistence,
        )
    except BrokerError as error:
        _fail(str(error))
    _print_provisioned(provisioned, as_json=as_json)


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


def _print_provisioned(provisioned: ProvisionedMosquitto, *, as_json: bool) -> None:
    files = provisioned.files
    if as_json:
        written = {"config": files.config, "passwords": files.passwords, "acl": files.acl}
        written["users_file"] = provisioned.users_file
        paths = {name: str(path) for name, path in written.items()}
        out.out(json.dumps({**paths, "users": list(provisioned.users)}, indent=2))
        return
    out.print(f"start it with: mosquitto -c {files.config}")
    out.print(f"passwords to hand to the programs, readable by you only: {provisioned.users_file}")
    out.print(f"users: {', '.join(provisioned.users)}")
    out.print("If Mosquitto runs as a user of its own, give it the files `passwords` and `acl`: chown mosquitto.")


def _settings(config_file: Path | None, **flags: object) -> BrokerSettings:
    from broker.settings import BrokerSettings, load_settings

    try:
        return load_settings(BrokerSettings, flags=flags, config_file=config_file).settings
    except BrokerError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    err.print(f"[red]omi-broker:[/red] {message}")
    raise typer.Exit(1)


def main() -> None:
    """Entry point of the console command."""
    app()


if __name__ == "__main__":
    main()
