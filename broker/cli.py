"""`omi-broker`: run the embedded broker, show its users; the modules in `commands` set up a Mosquitto."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from broker.commands.mosquitto import add_agent, add_bridge, check, init, rotate
from broker.commands.nats import nats
from broker.commands.terminal import AsJson, ConfigFile, DataDir, TopicRoot, err, fail, load, out
from broker.errors import BrokerError
from broker.program import ProgramGroup, run_program
from broker.terminal import print_json
from broker.version import VersionOption

if TYPE_CHECKING:
    from broker.address import BrokerAddress

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

        omi-broker init /etc/mosquitto/omi --host 100.64.0.1 --agent studio

    Where one machine is not enough: three NATS servers, see omi-broker nats --help.
    """,
)


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
    topic_root: TopicRoot = None,
) -> None:
    """Run the embedded broker until it is stopped (Ctrl-C or SIGTERM).

    Users and passwords are generated once; the bridge and the agent on this machine find them by
    themselves. It is for a laptop and for tests: it keeps nothing over a restart.

    Example: [bold]omi-broker run --port 1884[/bold]
    """
    from broker.listener import Listener, check_listener
    from broker.logs import configure_logs

    settings = load(config, data_dir=data_dir, topic_root=topic_root)
    configure_logs(as_json=settings.log_json)
    try:
        from broker.embedded import serve
    except ImportError as error:
        fail(f"the embedded broker is not installed ({error.name} is missing): pip install 'omi-diarization[broker]'")
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
        fail(str(error))


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

    path = users_file(load(config, data_dir=data_dir).data_dir)
    try:
        known = read_users(path)
    except (BrokerError, PermissionError) as error:
        fail(str(error))
    if not known:
        fail(f"no users at {path} yet: `omi-broker run` generates them when it starts.")
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


@app.command("config")
def show_config(
    data_dir: DataDir = None,
    config: ConfigFile = None,
    topic_root: TopicRoot = None,
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
        fail(str(error))
    print_settings(loaded, as_json=as_json)


app.command()(init)
app.command()(nats)
app.command("add-agent")(add_agent)
app.command("add-bridge")(add_bridge)
app.command()(rotate)
app.command()(check)


def main() -> None:
    """Entry point of the console command."""
    run_program(app)


if __name__ == "__main__":
    main()
