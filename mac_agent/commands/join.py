"""The command `omi-agent join`: takes an invitation of a broker into the settings, and checks that it lets us in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broker.check import CheckState, print_checks
from broker.errors import BrokerError, SettingsError
from mac_agent.commands.terminal import EXIT_FAILED, EXIT_USAGE, ConfigFile, err, fail, load, out


def join(
    invitation: Annotated[
        Path | None, typer.Argument(help="File of mode 600 with the invitation; - reads stdin. Without: asks for it.")
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to listen for the bridge.", min=0.5, max=600)] = 12.0,
    config: ConfigFile = None,
) -> None:
    """Join a broker: its address, this agent's user, password and id, and the CA go into the config file (mode 600).

    `omi-broker init` and `omi-broker add-agent` make the invitation, a secret: it is never given as an argument.

    Example: [bold]omi-agent join my-mac.invitation[/bold]
    """
    from broker.join import accept_invitation, find_overrides, take_invitation
    from broker.logs import silence_logs
    from broker.settings import default_config_file
    from mac_agent.broker_check import check_bridge, check_broker, probe_broker

    try:
        config_file = config or default_config_file()
        taken = take_invitation(invitation, roles=("agent",))
        accept_invitation(taken, config_file, table="agent", id_setting="agent_id")
    except SettingsError as error:
        fail(str(error), EXIT_USAGE)
    except BrokerError as error:
        fail(str(error), EXIT_FAILED)
    out.print(f"written into {config_file}: agent {taken.sender_id} at {taken.url}", markup=False)
    loaded = load(config)
    for source in find_overrides(loaded.sources):
        err.print(f"omi-agent: the {source} is used instead of what was written", style="yellow", markup=False)
    silence_logs()
    with err.status("asking the broker …"):
        probe = probe_broker(loaded.settings, wait)
    of_broker = check_broker(probe, loaded.settings.agent_id)
    print_checks(out, [*of_broker, *check_bridge(probe, loaded.settings.agent_id)])
    if probe.error is not None or any(check.verdict is CheckState.FAILED for check in of_broker):
        raise typer.Exit(EXIT_FAILED)
    out.print(f"next, on the bridge's machine: omi-bridge agents allow {loaded.settings.agent_id}", markup=False)
    out.print("and here: omi-agent fetch-model embedded (or pyannote), then omi-agent install, or omi-agent run")
    out.print("an agent that runs already does not read it: start it again (as a service: omi-agent install)")
