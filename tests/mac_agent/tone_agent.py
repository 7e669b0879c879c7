"""`omi-agent run` with the tone engine: settings from the environment, behaviour from OMI_TEST_BEHAVIOUR."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import typer

from broker.logs import configure_logs
from broker.settings import load_settings
from mac_agent.commands.main import run_agent
from mac_agent.settings import AgentSettings
from tests.mac_agent.tone_engine import load_tone_engine


def main() -> None:
    settings = load_settings(AgentSettings, flags={}).settings
    configure_logs(as_json=True)
    run_agent(settings, partial(load_tone_engine, Path(os.environ["OMI_TEST_BEHAVIOUR"])))


if __name__ == "__main__":
    typer.run(main)
