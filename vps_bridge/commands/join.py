"""The command `omi-bridge join`: takes an invitation of a broker into the settings, and checks that it lets us in."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vps_bridge.commands.terminal import EXIT_FAILED, ConfigFile, err, explained, fail, out

if TYPE_CHECKING:
    from vps_bridge.settings import BridgeSettings

CONNECT_TIMEOUT_S = 10.0  # the handshake of MQTT 5, and of 3.1.1 where that is not understood


def join(
    invitation: Annotated[
        Path | None, typer.Argument(help="File of mode 600 with the invitation; - reads stdin. Without: asks for it.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Join a broker as the bridge, or as a backend: what the invitation holds goes into the config file (mode 600).

    Run it as the user that the bridge or the backend runs as. With a backend's invitation `omi-bridge publish` and the
    Python client speak to the bridge as that backend. The invitation is a secret: it is never given as an argument.

    Example: omi-bridge join /etc/mosquitto/omi/invitations/bridge
    """
    from broker.join import accept_invitation, find_overrides, take_invitation
    from broker.logs import silence_logs
    from broker.settings import default_config_file, load_settings
    from vps_bridge.settings import BridgeSettings

    with explained():
        config_file = config or default_config_file()
        taken = take_invitation(invitation, roles=("bridge", "backend"))
        id_setting = "bridge_id" if taken.role == "bridge" else None
        accept_invitation(taken, config_file, table=taken.role, id_setting=id_setting)
        out.print(f"written into {config_file}: {taken.role} at {taken.url}", highlight=False, soft_wrap=True)
        loaded = load_settings(BridgeSettings, flags={}, config_file=config, role=taken.role)
        for source in find_overrides(loaded.sources):
            words = f"omi-bridge: the {source} is used instead of what was written"
            err.print(words, style="yellow", highlight=False, soft_wrap=True)
        silence_logs()
        problems = _try_rights(loaded.settings, taken.role)
    if problems:
        fail(f"the broker lets the {taken.role} in, but refuses {', '.join(problems)}", EXIT_FAILED)
    out.print("the broker lets it in", highlight=False)
    after = "omi-bridge run (or restart its service), then omi-bridge doctor" if taken.role == "bridge" else ""
    out.print(f"next: {after or 'omi-bridge publish call.wav --conversation call-1 --wait'}", highlight=False)


def _try_rights(settings: BridgeSettings, role: str) -> list[str]:
    """Connect as this user and return the filters that it asks for and may not have.

    Raises:
        BrokerError: there is no connection, with what to do.
    """
    from broker.access import access_of
    from broker.session import MqttSession
    from schemas.topics import Topics

    session = MqttSession(settings, client_id=f"join-{secrets.token_hex(6)}", on_message=lambda _: None)
    for topic_filter in access_of(role, Topics(settings.topic_root), sender_id=settings.bridge_id).subscribe:
        session.subscribe(topic_filter, qos=0)
    session.start()
    try:
        session.wait_connected(CONNECT_TIMEOUT_S)
        return list(session.refused_filters)
    finally:
        session.stop()
