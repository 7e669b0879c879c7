"""Alembic runs this for the ledger."""

from vps_bridge.migrations import run_migrations

run_migrations()
