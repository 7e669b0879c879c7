from vps_bridge.migrations import run_migrations

run_migrations()
