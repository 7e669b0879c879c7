"""Bringing a SQLite file to the newest schema with Alembic, which is imported only where a file is not at it yet."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from alembic import command, context
from alembic.config import Config

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

_MIGRATING = threading.Lock()  # Alembic keeps its environment in module globals: one migration at a time per process


def migrate(connection: Connection, migrations: Path) -> None:
    """Bring a file to the newest schema, within the transaction that the connection is in.

    `migrations` is an Alembic script directory: `env.py` that calls `run_migrations`, and `versions/`.
    """
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _MIGRATING:
        command.upgrade(config, "head")


def run_migrations() -> None:
    """Run the migrations on the connection that `migrate` was given. Called by the `env.py` of each directory."""
    connection: Connection = context.config.attributes["connection"]
    context.configure(connection=connection)
    context.run_migrations()
