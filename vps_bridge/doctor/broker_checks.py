"""What follows from a probe of the broker: limits and rights, which bridge lives, the agents, their clocks. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

from broker.check import Check, failed, note, ok
from broker.retained import say_clearing
from broker.settings import BrokerSettings
from schemas.agent import UP_STATES, AgentHeartbeat, AgentState
from schemas.bridge import BridgeState
from vps_bridge.doctor.broker_probe import BrokerFindings, ReceivedBeat

SKEW_LIMIT_S = 5.0
OLDEST_MOSQUITTO = 2
MESSAGE_BYTES = 40_000  # of a message with a part of audio, beside the part
RIGHTS = "Give the bridge its own user: omi-broker init DIR (run again it keeps the passwords), then reload the broker."
PACKAGE = "omi-diarization"
SET_CLOCK = "Set the wrong one: `timedatectl set-ntp true` here, System Settings > General > Date & Time on a Mac."


def check_broker_limits(findings: BrokerFindings, part_bytes: int) -> list[Check]:
    """Check the connection, the largest packet, and what this user may publish and receive."""
    if findings.error is not None:
        return [failed("broker", findings.error)]
    found = f"{findings.url}, MQTT {findings.protocol}, packets of up to {findings.max_packet_bytes:,} bytes"
    found += f", {findings.version}" if findings.version else ""
    if _is_old(findings.version):
        checks = [
            failed("broker", f"{found}: older than 2.0", "Upgrade Mosquitto: its files are written for 2.0 and 2.1.")
        ]
    elif findings.max_packet_bytes < part_bytes + MESSAGE_BYTES:
        checks = [failed("broker", found, "Raise max_packet_size of the broker, or lower OMI_PART_BYTES.")]
    else:
        checks = [ok("broker", found)]
    refused = [*findings.refused_filters, *findings.refused_topics]
    if refused:
        checks.append(failed("rights", f"the broker refuses {', '.join(refused)}", RIGHTS))
    elif findings.lost_topics:
        lost = f"published, but not received again: {', '.join(findings.lost_topics)}"
        checks.append(failed("rights", lost, RIGHTS))
    else:
        checks.append(ok("rights", "what this user published came back, no subscription was refused"))
    return checks


def check_kept_messages(findings: BrokerFindings, settings: BrokerSettings) -> list[Check]:
    """Tell of messages that the broker keeps and nobody can use: it sends them with every connect."""
    kept = findings.kept_topics
    if not kept:
        return []
    others = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
    found = f"the broker keeps a message of no use on {kept[0]}{others}, and sends it with every connect"
    return [note("retained", found, f"Clear it: {say_clearing(settings, kept[0])}")]


def _is_old(version: str) -> bool:
    """Whether it is a Mosquitto that our files are not written for: `mosquitto version 1.6.12`."""
    found = re.fullmatch(r"mosquitto version (\d+)\..*", version)
    return found is not None and int(found[1]) < OLDEST_MOSQUITTO


def check_bridge_lives(findings: BrokerFindings, ledger_id: str | None, stale_s: float) -> list[Check]:
    """Check that a bridge is live on this broker, and that it is the one of these files; or several of one ledger."""
    if findings.error is not None:
        return []
    online = [heard for heard in findings.bridges.values() if heard.beat.state is BridgeState.ONLINE]
    live = [heard for heard in online if not heard.is_retained or abs(heard.age_s) <= stale_s]
    if not live:
        states = ", ".join(f"{heard.beat.bridge_id} {heard.beat.state.value}" for heard in findings.bridges.values())
        remedy = "Start it: omi-bridge run, or systemctl start omi-bridge; journalctl -u omi-bridge says why it ended."
        return [failed("bridge", f"none is live on this broker ({states or 'no heartbeat'})", remedy)]
    if len({heard.beat.ledger_id for heard in live}) > 1 or len({heard.beat.bridge_id for heard in live}) < len(live):
        names = ", ".join(f"{heard.beat.bridge_id} (ledger {heard.beat.ledger_id})" for heard in live)
        return [failed("bridge", f"two are live: {names}", "Stop one of them, or give it another OMI_TOPIC_ROOT.")]
    # Of several the one that is worst off is told of.
    beat = min((heard.beat for heard in live), key=lambda beat: (beat.accepting, not beat.last_error, beat.bridge_id))
    if ledger_id is not None and beat.ledger_id != ledger_id:
        found = f"{beat.bridge_id} on this broker has another ledger ({beat.ledger_id}) than these files ({ledger_id})"
        return [failed("bridge", found, "Name its --data-dir, or look as the user that it runs as.")]
    others = sorted({heard.beat.bridge_id for heard in live} - {beat.bridge_id})
    beside = f", beside {', '.join(others)} on the same ledger" if others else ""
    found = f"{beat.bridge_id} is online{beside}, {beat.agents_live} agents live"
    if not beat.accepting:
        return [
            failed("bridge", f"{found}, and takes no audio now", beat.last_error or "See `queue` and `disk` below.")
        ]
    if beat.last_error:
        return [note("bridge", f"{found}; last error: {beat.last_error}")]
    if beat.messages_dropped:
        dropped = (
            f"{beat.messages_dropped:,} {'message was' if beat.messages_dropped == 1 else 'messages were'} not let in"
        )
        remedy = "Its log says whose and why (messages_dropped); omi-bridge watch shows what is sent now."
        return [note("bridge", f"{found}; {dropped} since its start", remedy)]
    return [ok("bridge", found)]


def check_agents(findings: BrokerFindings, allowed: Collection[str], stale_s: float) -> list[Check]:
    """Check that an agent is live and allowed, and report every one: who it is, and its clock."""
    if findings.error is not None:
        return []
    live = {name: heard for name, heard in findings.agents.items() if _is_up(heard, stale_s)}
    waiting = sorted(name for name in live if name not in allowed)
    checks = [
        failed(f"agent {name}", "is live, and nobody has allowed it", f"omi-bridge agents allow {name}")
        for name in waiting
    ]
    checks += [_check_agent(name, findings.agents.get(name), stale_s) for name in sorted(allowed)]
    if not allowed and not waiting:
        remedy = "On the Mac: omi-agent doctor, then omi-agent run; here: omi-bridge agents allow ID"
        checks.append(failed("agents", "none is allowed, and none was heard", remedy))
    elif allowed and not any(name in live for name in allowed):
        checks.append(failed("agents", "none of those allowed is live", "On the Mac: omi-agent doctor"))
    used = {name: live[name] for name in live if name in allowed}
    return checks + _check_twins(findings) + _check_clocks(findings) + _check_models(used) + _check_versions(findings)


def _check_agent(name: str, heard: ReceivedBeat[AgentHeartbeat] | None, stale_s: float) -> Check:
    if heard is None:
        return note(f"agent {name}", "allowed, and never heard on this broker", "On that machine: omi-agent doctor")
    beat = heard.beat
    if not _is_up(heard, stale_s):
        found = "offline (asleep, or cut off)" if beat.state in (*UP_STATES, AgentState.OFFLINE) else beat.state.value
        found += f"; last error: {beat.last_error}" if beat.last_error else ""
        return note(f"agent {name}", found, "On that machine: omi-agent doctor")
    engine = f"{beat.engine.name} on {beat.engine.device}" if beat.engine else "no engine loaded"
    found = f"{beat.state.value}, {engine}, {len(beat.jobs)} jobs held, {beat.jobs_failed} failed"
    if beat.last_error:
        return note(f"agent {name}", f"{found}; last error: {beat.last_error}", "On that machine: omi-agent doctor")
    return ok(f"agent {name}", found)


def _check_clocks(findings: BrokerFindings) -> list[Check]:
    """Only a live heartbeat says how far its sender's clock is from ours."""
    ages = {name: heard.age_s for name, heard in findings.agents.items() if not heard.is_retained}
    wrong = {name: age_s for name, age_s in ages.items() if abs(age_s) > SKEW_LIMIT_S}
    if wrong:
        found = ", ".join(f"{name}'s is {-age_s:+.0f} s beside ours" for name, age_s in sorted(wrong.items()))
        return [failed("clocks", found, SET_CLOCK)]
    return [ok("clocks", f"{len(ages)} agents' clocks agree with ours")] if ages else []


def _check_twins(findings: BrokerFindings) -> list[Check]:
    """Two processes under one agent id take each other's work, until one of them notices and stops."""
    twins = sorted(name for name, instances in findings.agent_instances.items() if len(instances) > 1)
    if not twins:
        return []
    remedy = "Stop one of them, or give it an id and a user of its own: omi-broker add-agent DIR OTHER-ID"
    return [failed("twins", f"more than one process beats as {', '.join(twins)}", remedy)]


def _check_versions(findings: BrokerFindings) -> list[Check]:
    """Bridge and agents understand each other across versions; somebody who wonders should see them all the same."""
    beats = {heard.beat.bridge_id: heard.beat for heard in findings.bridges.values()}
    agents = {name: heard.beat for name, heard in findings.agents.items() if heard.beat.state in UP_STATES}
    versions = {name: beat.versions.get(PACKAGE, "") for name, beat in (beats | agents).items()}
    if len({version for version in versions.values() if version}) <= 1:
        return []
    found = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if version)
    return [note("versions", found, "Bring all to the newest: the bridge first, then the agents.")]


def _check_models(live: dict[str, ReceivedBeat[AgentHeartbeat]]) -> list[Check]:
    """Voices of two models are never compared: a conversation stays with agents of the model it began with."""
    engines = {name: heard.beat.engine for name, heard in live.items() if heard.beat.engine is not None}
    models = {name: f"{engine.embedding_model}@{engine.embedding_revision}" for name, engine in engines.items()}
    if len(set(models.values())) > 1:
        found = "; ".join(f"{name} has {model}" for name, model in sorted(models.items()))
        remedy = (
            "Give all the same engine (omi-agent fetch-model): until then each conversation stays with some of them."
        )
        return [note("models", found, remedy)]
    return []


def _is_up(heard: ReceivedBeat[AgentHeartbeat], stale_s: float) -> bool:
    return heard.beat.state in UP_STATES and (not heard.is_retained or abs(heard.age_s) <= stale_s)
