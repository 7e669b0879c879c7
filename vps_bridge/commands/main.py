"""`omi-bridge`: run the bridge, watch it, show settings; the other commands are in the files beside this one."""

from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.program import ProgramGroup, run_program
from broker.terminal import print_json
from broker.version import VersionOption
from vps_bridge.commands.agents import agents_app
from vps_bridge.commands.backup import backup, restore
from vps_bridge.commands.conversations import conversations, show
from vps_bridge.commands.corrections import correct_app, history, redo, undo
from vps_bridge.commands.doctor import doctor
from vps_bridge.commands.export import HELP_EXPORT, export
from vps_bridge.commands.import_transcript import import_transcript
from vps_bridge.commands.jobs import cancel, failed, jobs, retry
from vps_bridge.commands.join import join
from vps_bridge.commands.omi import omi_app
from vps_bridge.commands.page import page
from vps_bridge.commands.people import people_app
from vps_bridge.commands.ping import ping
from vps_bridge.commands.publish import publish
from vps_bridge.commands.purge import purge
from vps_bridge.commands.service import install, status, uninstall
from vps_bridge.commands.spool_key import spool_key
from vps_bridge.commands.terminal import (
    AsJson,
    BrokerUrl,
    ConfigFile,
    DataDir,
    err,
    explained,
    load,
    out,
)
from vps_bridge.commands.watch import summarize, watch_messages
from vps_bridge.commands.watch_folder import HELP_WATCH_FOLDER, watch_folder
from vps_bridge.matrix_threads import use_one_matrix_thread

if TYPE_CHECKING:
    from vps_bridge.settings import BridgeSettings

HELP_RUN = """Run the bridge until SIGTERM, SIGHUP or Ctrl-C.

Examples:

  omi-bridge run

  OMI_BROKER_URL=mqtts://vps.tailnet.ts.net:8883 omi-bridge run --data-dir /var/lib/omi-diarization

Exit codes: 0 stopped, 1 failed, 2 wrong setting, 3 another bridge is already there.
"""
app = typer.Typer(
    cls=ProgramGroup,
    pretty_exceptions_enable=False,  # they print the values of variables: text, names, audio
    no_args_is_help=True,
    add_completion=False,
    help="The VPS's side: takes audio in, leases it to agents, labels conversations.",
    epilog="A first look at a running system: `omi-bridge doctor`, `omi-bridge watch`, `omi-bridge failed`.",
)


@app.callback()
def omi_bridge(*, version: VersionOption = False) -> None:
    """Take the options that stand before a command."""


@app.command(help=HELP_RUN)
def run(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    broker_url: BrokerUrl = None,
    bridge_id: Annotated[str | None, typer.Option(help="This bridge's name in topics and heartbeats.")] = None,
) -> None:
    """Run the bridge."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold audio and words
    with explained():
        settings = load(config, "bridge", data_dir=data_dir, broker_url=broker_url, bridge_id=bridge_id)
        use_one_matrix_thread()
        from broker.freed_memory import MESSAGES_BYTES, keep_freed_memory
        from vps_bridge.bridge import Bridge
        from vps_bridge.bridge_files import until_there

        keep_freed_memory(MESSAGES_BYTES)
        until_there(lambda: Bridge(settings)).run()


app.command()(publish)
app.command("import")(import_transcript)
app.command("watch-folder", help=HELP_WATCH_FOLDER)(watch_folder)
app.command()(show)
app.command()(conversations)
app.command(help=HELP_EXPORT)(export)
app.command()(jobs)
app.command()(failed)
app.command()(retry)
app.command()(cancel)
app.command()(purge)
app.add_typer(agents_app, name="agents")
app.add_typer(correct_app, name="correct")
app.add_typer(people_app, name="people")
app.add_typer(omi_app, name="omi")
app.command()(history)
app.command()(undo)
app.command()(redo)
app.command()(backup)
app.command()(restore)
app.command("spool-key")(spool_key)
app.command()(doctor)
app.command()(ping)
app.command()(install)
app.command()(uninstall)
app.command()(status)
app.command()(join)
app.command()(page)


@app.command()
def watch(
    config: ConfigFile = None, data_dir: DataDir = None, broker_url: BrokerUrl = None, as_json: AsJson = False
) -> None:
    """Watch every message of the pipeline live, a line each; with --json whole, without audio, text and embeddings.

    Example: omi-bridge watch --json | jq 'select(.kind == "failure/agent")'
    """
    with explained():
        settings = load(config, "bridge", data_dir=data_dir, broker_url=broker_url)
        try:
            for message in watch_messages(settings, lambda: _tell_silence(settings)):
                _print_message(message, as_json=as_json)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def _tell_silence(settings: BridgeSettings) -> None:
    user = settings.broker_username or "(none)"
    words = (
        f"omi-bridge: nothing is heard on {settings.broker_url} below {settings.topic_root}. Does a bridge run there "
        f"(omi-bridge doctor), and may user {user} read it? The bridge's user may, and that of watch"
    )
    err.print(words, style="yellow", highlight=False, soft_wrap=True)


def _print_message(message: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(message, indent=None)
        sys.stdout.flush()
        return
    retained = " (retained)" if message["retain"] else ""
    facts = message.get("error") or summarize(message["message"])
    line = f"{message['seen_at'][11:23]} {message['topic']}{retained} {facts}"
    out.print(line, highlight=False, no_wrap=True, overflow="ellipsis")


@app.command("config")
def show_config(config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show every setting, its value, and where the value came from; secrets are masked.

    Example: omi-bridge config --json
    """
    from broker.settings import load_settings, print_settings
    from vps_bridge.settings import BridgeSettings

    with explained():
        flags = {"data_dir": data_dir}
        loaded = load_settings(BridgeSettings, flags=flags, config_file=config, role="bridge")
        print_settings(loaded, as_json=as_json)


def main() -> None:
    """Entry point of `omi-bridge`."""
    run_program(app)
