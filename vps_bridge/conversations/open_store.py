"""Opening the conversation store that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import SettingsError
from broker.secret_setting import read_secret
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.gone_database import refuse_gone

if TYPE_CHECKING:
    from vps_bridge.conversations.http_store import HttpConversations
    from vps_bridge.conversations.postgres import PostgresConversations
    from vps_bridge.settings import BridgeSettings

    Store = SqliteConversations | PostgresConversations | HttpConversations


def open_store(settings: BridgeSettings) -> Store:
    """Open the store. One beyond this machine is not asked yet: whether it answers, each use of it tells.

    Raises:
        SettingsError: the settings do not describe a store, or its driver is not installed.
        vps_bridge.database.DatabaseError: the file cannot be used.
    """
    # Imported where they are needed: nearly every command has a file, and starts without them.
    url = settings.conversations_url
    secret = read_secret("conversations_secret", settings.conversations_secret, settings.conversations_secret_file)
    if url is None:
        refuse_gone(settings.root / STORE_FILE)
        return SqliteConversations(settings.root / STORE_FILE)
    scheme = url.partition("://")[0]
    if scheme in ("postgresql", "postgres"):
        from vps_bridge.conversations.postgres import PostgresConversations  # noqa: PLC0415
        from vps_bridge.database_server import read_url  # noqa: PLC0415

        timeout_s = settings.conversations_timeout_s
        return PostgresConversations(read_url("conversations", url, secret), statement_timeout_s=timeout_s)
    if scheme in ("http", "https"):
        from vps_bridge.conversations.http_store import HttpConversations  # noqa: PLC0415
        from vps_bridge.signed_endpoint import read_endpoint  # noqa: PLC0415

        endpoint = read_endpoint(
            "conversations",
            "what is asked of a backend's store",
            url,
            secret,
            is_insecure=settings.conversations_insecure,
            timeout_s=settings.conversations_timeout_s,
        )
        return HttpConversations(endpoint)
    words = "postgresql://user@host/database or https://host/path; without it, a file in data_dir"
    raise SettingsError("conversations_url", "the settings", words)
