"""The command `omi-agent doctor`: finds what keeps this agent from working, and names the remedy."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from broker.check import CheckState, print_checks
from broker.terminal import print_json
from mac_agent.commands.terminal import (
    EXIT_FAILED,
    AsJson,
    ConfigFile,
    DataDir,
    EngineName,
    engine_loader,
    err,
    load,
    out,
)

if TYPE_CHECKING:
    from pathlib import Path

    from broker.check import Check
    from mac_agent.settings import AgentSettings

SPARE_BYTES = 2**30  # in addition to the largest job: the outbox, the log, the system


def doctor(
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Also load the engine and let it work: takes a minute.")] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds to listen for the bridge's next heartbeat.", min=0.5, max=600)
    ] = 12.0,
    engine: EngineName = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Look at everything an agent needs, one line each, with the remedy; exit code 1 where something is broken.

    Asks the broker, and the hub only where weights of the pyannote engine are missing. Changes nothing.

    Example: [bold]omi-agent doctor --deep[/bold]
    """
    from broker.settings import default_config_file

    settings = load(config, data_dir=data_dir, engine=engine).settings
    with err.status("looking …"):
        checks = run_checks(settings, config or default_config_file(), wait_s=wait, deep=deep)
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        print_checks(out, checks)
    if any(check.verdict is CheckState.FAILED for check in checks):
        raise typer.Exit(EXIT_FAILED)


def run_checks(settings: AgentSettings, config_file: Path, *, wait_s: float, deep: bool) -> list[Check]:
    """Examine everything; `wait_s` is how long heartbeats are listened for."""
    from broker.certificate_check import check_certificate
    from broker.file_checks import check_config_file, check_data_dir, check_disk
    from broker.logs import silence_logs
    from broker.tailnet import check_tailnet
    from broker.unit_check import check_unit
    from mac_agent import machine_check as machine
    from mac_agent.broker_check import check_agent, check_bridge, check_broker, probe_broker
    from mac_agent.service import describe_service

    silence_logs()
    checks = [
        machine.check_python(),
        machine.check_packages(),
        check_config_file(config_file, "omi-agent join INVITATION writes it."),
        check_data_dir(settings.data_dir),
        check_disk(
            settings.inbox, settings.max_job_bytes + SPARE_BYTES, "the largest job (OMI_MAX_JOB_BYTES) and the log"
        ),
        *machine.check_weights(settings),
        machine.check_device(settings.device),
        machine.check_outbox(settings.outbox, time.time()),
    ]
    if deep:
        checks.append(machine.check_engine(settings, engine_loader(settings)))
    probe = probe_broker(settings, wait_s)
    checks += [
        *check_broker(probe, settings.agent_id),
        *check_certificate(settings),
        *check_bridge(probe, settings.agent_id),
        *check_agent(probe),
        *check_tailnet(*(server.host for server in settings.addresses)),
    ]
    checks += check_unit("omi-agent", data_dir=settings.data_dir, config_file=config_file)
    for is_daemon in (False, True):
        service = describe_service(config_file=config_file, is_daemon=is_daemon)
        if service.plist_file.exists() or (sys.platform == "darwin" and not is_daemon):
            checks += machine.check_service(service)
    return checks
