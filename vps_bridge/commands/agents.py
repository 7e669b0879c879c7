"""`omi-bridge agents`: the agents, and which of them may get audio."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from broker.program import ProgramGroup
from broker.terminal import print_json
from vps_bridge.commands.terminal import (
    EXIT_FAILED,
    AsJson,
    ConfigFile,
    DataDir,
    age,
    check_id,
    err,
    explained,
    fail,
    load,
    make_table,
    opened,
    out,
)

if TYPE_CHECKING:
    from vps_bridge.ledger.records import AgentRecord

agents_app = typer.Typer(cls=ProgramGroup, invoke_without_command=True)


@agents_app.callback()
def agents(
    context: typer.Context, config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """List the agents. `agents allow ID` lets one have audio; `deny`, `forget` and `drain` take that back.

    Example: omi-bridge agents, or omi-bridge agents allow my-mac
    """
    context.obj = (config, data_dir, as_json)
    if context.invoked_subcommand is not None:
        return
    with explained(), opened(config, data_dir) as (ledger, _store, stale_s):
        records = ledger.agents.all()
        if as_json:
            print_json([asdict(record) for record in records])
            return
        table = make_table("agent", "allowed", "state", "heard", "engine", "device", "jobs")
        for record in records:
            table.add_row(*_agent_row(record, stale_s))
        if records:
            out.print(table)
            _print_errors(records)
        else:
            out.print("no agent was ever heard. On its machine: omi-agent doctor, omi-agent run", highlight=False)
        if any(not record.allowed for record in records):
            out.print("an agent that is not allowed gets no audio: omi-bridge agents allow ID")


def _agent_row(record: AgentRecord, stale_s: float) -> tuple[str, ...]:
    from schemas.agent import UP_STATES

    beat = record.heartbeat or {}
    engine, state = beat.get("engine") or {}, beat.get("state", "")
    if state in UP_STATES and time.time() - (record.last_seen_at or 0.0) > stale_s:
        state = "silent"  # as the page says: its last words were that it is up
    heard = f"{age(record.last_seen_at)} ago" if record.last_seen_at else "never"
    head = (record.agent_id, "yes" if record.allowed else "no", state, heard)
    return (*head, engine.get("name", ""), engine.get("device", ""), str(len(beat.get("jobs", ()))))


def _print_errors(records: list[AgentRecord]) -> None:
    for record in records:
        if error := (record.heartbeat or {}).get("last_error"):
            out.print(f"{record.agent_id}, last error: {error}", highlight=False, soft_wrap=True)


@agents_app.command()
def allow(context: typer.Context, agent_id: str) -> None:
    """Let an agent have audio. It may be allowed before it was ever heard of.

    Example: omi-bridge agents allow my-mac
    """
    _set_allowed(context, agent_id, allowed=True)


@agents_app.command()
def deny(context: typer.Context, agent_id: str) -> None:
    """Give an agent no more audio; what it works on goes to another.

    Example: omi-bridge agents deny my-mac
    """
    _set_allowed(context, agent_id, allowed=False)


@agents_app.command()
def forget(context: typer.Context, agent_id: str) -> None:
    """Take an agent off the list; it is denied too. One that still beats is listed again, as not allowed.

    Example: omi-bridge agents forget old-mac
    """
    config, data_dir, as_json = context.obj
    with explained(), opened(config, data_dir) as (ledger, _store, _stale_s):
        if not ledger.agents.forget(agent_id):
            fail(f"agent {agent_id} is unknown: `omi-bridge agents` lists those there are", EXIT_FAILED)
        if as_json:
            print_json({"agent_id": agent_id, "forgotten": True})
        else:
            out.print(f"{agent_id} is forgotten")


@agents_app.command()
def drain(
    context: typer.Context,
    agent_id: str,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Return once it holds no job any more.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait.", min=1)] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Have an agent finish what it holds and take nothing new, until it is started again: before an upgrade of it.

    Example: omi-bridge agents drain my-mac --wait --timeout 600
    """
    from vps_bridge.client.drain import drain_agent

    config, data_dir, all_json = context.obj
    check_id("agent", agent_id)
    with explained(), opened(config, data_dir) as (ledger, _store, _stale_s):
        settings = load(config, "bridge", data_dir=data_dir)
        beat = drain_agent(settings, ledger.ledger_id, agent_id, until_empty=wait, timeout_s=timeout_s)
    if as_json or all_json:
        print_json({"agent_id": agent_id, "state": beat.state, "jobs": len(beat.jobs)})
        return
    out.print(f"{agent_id} is {beat.state}, with {len(beat.jobs)} jobs to finish; started again it takes new ones")


def _set_allowed(context: typer.Context, agent_id: str, *, allowed: bool) -> None:
    config, data_dir, as_json = context.obj
    check_id("agent", agent_id)
    with explained(), opened(config, data_dir) as (ledger, _store, _stale_s):
        heard = any(agent.agent_id == agent_id and agent.last_seen_at for agent in ledger.agents.all())
        ledger.agents.set_allowed(agent_id, allowed=allowed)
    if as_json:
        print_json({"agent_id": agent_id, "allowed": allowed, "heard": heard})
        return
    out.print(f"{agent_id} is {'allowed' if allowed else 'denied'}; a running bridge sees it at once")
    if allowed and not heard:
        words = f"no agent {agent_id} was ever heard: is it spelt as its OMI_AGENT_ID? If not: omi-bridge agents forget"
        err.print(f"{words} {agent_id}", style="yellow", soft_wrap=True)
