"""`omi-bridge ping`: whether a second of speech comes back, how long each leg of its way takes, and where it stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from broker.terminal import print_json
from vps_bridge.commands.terminal import (
    EXIT_FAILED,
    AsJson,
    BrokerUrl,
    ConfigFile,
    DataDir,
    check_id,
    err,
    explained,
    load,
    out,
)

if TYPE_CHECKING:
    from vps_bridge.client.round_trip import RoundTrip


AN_UNSEEN_AGENT = "an agent (its name and the legs in between are seen with the bridge's user only)"


def ping(
    agent: Annotated[str | None, typer.Argument(help="The agent that is to do it; without one, any.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for it to come back.", min=1, max=3600)] = 60.0,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    broker_url: BrokerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Send a second of speech through broker, bridge and agent and back; print the milliseconds of each leg.

    It speaks with the rights of the backend and listens with those of the bridge. Nothing of it stays.

    Example: omi-bridge ping my-mac

    Exit codes: 0 it came back, 1 it did not.
    """
    from broker.logs import silence_logs
    from vps_bridge.client.ping import Ping
    from vps_bridge.client.round_trip import describe

    if agent is not None:
        check_id("agent", agent)
    with explained():
        speaks = load(config, "backend", data_dir=data_dir, broker_url=broker_url)
        listens = load(config, "bridge", data_dir=data_dir, broker_url=broker_url)
    silence_logs()
    with err.status("waiting for it to come back …"):
        trip = Ping(speaks, listens, agent_id=agent, timeout_s=timeout).run()
    if as_json:
        print_json(describe(trip))
    else:
        print_trip(trip)
    if not trip.ok:
        raise typer.Exit(EXIT_FAILED)


def print_trip(trip: RoundTrip) -> None:
    """Print each leg, what is slow, and where it stopped."""
    from vps_bridge.client.round_trip import MENDS

    for leg in trip.legs():
        out.print(f"{leg.leg:<32}{leg.ms:>9,.0f} ms{'  slow' if leg.slow else ''}", highlight=False)
    if trip.total_ms is not None and trip.ok:
        who = f"{trip.agent_id} ({trip.engine})" if trip.engine else trip.agent_id or AN_UNSEEN_AGENT
        out.print(f"{'there and back':<32}{trip.total_ms:>9,.0f} ms, by {who}", highlight=False, soft_wrap=True)
    for link in trip.slow_links():
        out.print(f"slow {link}. {MENDS[link]}", highlight=False, soft_wrap=True)
    if not trip.ok:
        words = f"stopped at `{trip.stopped_at}`: {trip.problem} → {trip.remedy}"
        out.print(words, style="red", highlight=False, soft_wrap=True)
