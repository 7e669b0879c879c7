"""Alembic runs this for the ledger."""

from vps_bridge.database import run_migrations

run_migrations()
