"""The command `omi-bridge doctor`: finds what keeps conversations from being labelled, and names the remedy."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.check import CheckState, print_checks
from broker.terminal import print_json
from vps_bridge.commands.terminal import (
    EXIT_FAILED,
    AsJson,
    BrokerUrl,
    ConfigFile,
    DataDir,
    err,
    explained,
    load,
    out,
)

if TYPE_CHECKING:
    from broker.check import Check
    from vps_bridge.ledger import Ledger
    from vps_bridge.settings import BridgeSettings

SHOWN_CONVERSATIONS = 3


def doctor(
    wait: Annotated[
        float, typer.Option(help="Seconds to listen for heartbeats: more than one of theirs.", min=0.5, max=600)
    ] = 12.0,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    broker_url: BrokerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Look at everything the bridge needs, one line each, with the remedy. Run it as the user the bridge runs as.

    Looks at files, bucket, broker, bridge, agents and their clocks, what waits and why, what failed, and the tailnet.
    Sends the broker two messages that concern nobody, and the bucket an object that it deletes; changes nothing.

    Example: omi-bridge doctor --json | jq '.[] | select(.verdict == "failed")'

    Exit codes: 0 nothing is broken, 1 something is, 2 wrong setting.
    """
    from broker.logs import silence_logs
    from broker.settings import default_config_file

    with explained():
        settings = load(config, "bridge", data_dir=data_dir, broker_url=broker_url)
        silence_logs()
        with err.status("looking …"):
            checks = run_checks(settings, config or default_config_file(), wait)
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        print_checks(out, checks)
    if any(check.verdict is CheckState.FAILED for check in checks):
        raise typer.Exit(EXIT_FAILED)


def run_checks(settings: BridgeSettings, config_file: Path, wait_s: float) -> list[Check]:
    """Examine everything; `wait_s` is how long heartbeats are listened for."""
    from broker.certificate_check import check_certificate
    from broker.file_checks import check_config_file, check_data_dir, check_disk
    from broker.tailnet import check_tailnet
    from broker.unit_check import check_unit
    from vps_bridge.doctor import broker_checks, file_checks
    from vps_bridge.doctor.broker_probe import probe_broker_as_bridge
    from vps_bridge.doctor.bucket_check import check_bucket
    from vps_bridge.doctor.omi_check import check_omi
    from vps_bridge.doctor.webhook_check import check_webhook

    checks = [
        check_config_file(config_file, "Settings come from the environment, or are the defaults: omi-bridge config"),
        check_data_dir(settings.root),
        check_disk(settings.root, 2 * settings.ballast_bytes, "audio and the reserve (OMI_BALLAST_BYTES)"),
    ]
    found, ledger = file_checks.check_files(settings)
    checks += [*found, *file_checks.check_spool(settings), *file_checks.check_erasures(settings.root)]
    try:
        checks += check_bucket(settings, ledger)
        findings = probe_broker_as_bridge(settings, wait_s)
        checks += broker_checks.check_broker_limits(findings, settings.part_bytes)
        checks += broker_checks.check_kept_messages(findings, settings)
        checks += check_certificate(settings)
        ledger_id = ledger.ledger_id if ledger else None
        checks += broker_checks.check_bridge_lives(findings, ledger_id, settings.stale_s)
        if ledger is not None:
            checks += broker_checks.check_agents(findings, ledger.agents.allowed(), settings.stale_s)
            counts, now = ledger.jobs.counts(), time.time()
            waits_long = file_checks.longest_wait_s(counts, now) > file_checks.LONG_WAIT_S
            reasons = _find_reasons(ledger, settings.stale_s) if waits_long else []
            checks += file_checks.check_queue(counts, reasons, now, settings.queue_limit)
            checks += check_webhook(settings, ledger.webhook.counts(), now)
        checks += check_omi(settings, time.time())
    finally:
        if ledger is not None:
            ledger.close()
    checks += file_checks.check_door(settings)
    checks += check_tailnet(*(server.host for server in settings.addresses))
    return [*checks, *check_unit("omi-bridge", data_dir=settings.data_dir, config_file=config_file)]


def _find_reasons(ledger: Ledger, stale_s: float) -> list[str]:
    """Say of the conversations that have waited longest what they wait for."""
    from vps_bridge.dispatch.status import describe_status
    from vps_bridge.ledger.job_states import UNFINISHED

    jobs = ledger.jobs.all(states=tuple(UNFINISHED))
    names = list(dict.fromkeys(job.conversation_id for job in jobs))[:SHOWN_CONVERSATIONS]
    agents, reasons = ledger.agents.all(), []
    for name in names:
        record = ledger.conversations.get(name)
        if record is not None:
            chunks, own = ledger.chunks.of_conversation(name), ledger.jobs.of_conversation(name)
            state, reason = describe_status(record, chunks, own, agents, now=time.time(), stale_s=stale_s)
            reasons.append(f"{name}: {reason or state.value}")
    return reasons
