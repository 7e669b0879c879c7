"""`omi-agent run` with the null engine: settings from the environment, the engine's from OMI_CHAOS_…"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from broker.logs import configure_logs
from broker.settings import load_settings
from mac_agent.commands.main import run_agent
from mac_agent.settings import AgentSettings
from tests.faults.faked_clock import mend_sleep
from tests.faults.null_engine import load_null_engine

mend_sleep()  # here, and not in `main`: the worker process imports this module too


def main() -> None:
    settings = load_settings(AgentSettings, flags={}).settings
    configure_logs(as_json=True)
    run_log, max_nap_s = Path(os.environ["OMI_CHAOS_RUN_LOG"]), float(os.environ["OMI_CHAOS_MAX_NAP_S"])
    run_agent(settings, partial(load_null_engine, run_log, max_nap_s))


if __name__ == "__main__":
    import typer

    typer.run(main)
