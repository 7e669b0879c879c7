"""Opening the ledger that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vps_bridge.ledger.ledger import Ledger
    from vps_bridge.ledger.server_connection import LedgerServer
    from vps_bridge.settings import BridgeSettings


def open_ledger(
    settings: BridgeSettings, *, exclusive: bool, sync_commits: bool | None = None, bridge_id: str | None = None
) -> Ledger:
    """Open the ledger: in a file of the data directory, or on the server that `database_url` names; see `Ledger`.

    `bridge_id`: of a running bridge, whose connections others end where it hangs.

    Raises what `Ledger` does, and `SettingsError` where the settings do not describe a server.
    """
    from vps_bridge.ledger.ledger import Ledger  # noqa: PLC0415 - who names this function waits for no database

    server = find_server(settings, bridge_id)
    return Ledger(settings.root, exclusive=exclusive, sync_commits=sync_commits, server=server, bridge_id=bridge_id)


def find_server(settings: BridgeSettings, bridge_id: str | None = None) -> LedgerServer | None:
    """Return the server that keeps the ledger, or None where a file does. Raises `SettingsError`."""
    if settings.database_url is None:
        return None
    # Imported where they are needed: nearly every command has a file, and starts without them.
    from broker.secret_setting import read_secret  # noqa: PLC0415
    from vps_bridge.database_server import PROGRAM, name_connections, read_url  # noqa: PLC0415
    from vps_bridge.ledger.server_connection import LedgerServer  # noqa: PLC0415

    secret = read_secret("database_secret", settings.database_secret, settings.database_secret_file)
    name = PROGRAM if bridge_id is None else name_connections(bridge_id)
    return LedgerServer(read_url("database", settings.database_url, secret), settings.database_timeout_s, name)
