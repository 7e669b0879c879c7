"""Check this machine's place in the tailnet, where Tailscale is installed: connected, its key not about to expire."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.check import Check, CheckState, failed, note, ok

TIMEOUT_S = 10.0
WARN_BEFORE = timedelta(days=14)
SHARED_ADDRESSES = ipaddress.ip_network("100.64.0.0/10")  # what Tailscale gives out (RFC 6598)
MOVED = "It has another one now: omi-broker init DIR --host ADDRESS there, and set OMI_BROKER_URL here"
RENEW = "tailscale up --force-reauth, or switch key expiry off for this machine in the admin console"


def check_tailnet(*broker_hosts: str) -> list[Check]:
    """Ask `tailscale status --json`; no check where there is no such command. `broker_hosts`: where it is."""
    program = shutil.which("tailscale")
    if program is None:
        return []
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            [program, "status", "--json"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        status = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        return [failed("tailnet", f"no answer of tailscale ({type(error).__name__})", "systemctl restart tailscaled")]
    status = status if isinstance(status, dict) else {}
    checks = [judge_tailnet(status, datetime.now(UTC))]
    if checks[0].verdict is not CheckState.FAILED:
        for host in dict.fromkeys(broker_hosts):
            checks += judge_broker_host(status, host)
    return checks


def judge_tailnet(status: dict[str, Any], now: datetime) -> Check:
    """Judge the answer of `tailscale status --json` (fields BackendState and Self; an expiry that is off is absent)."""
    state, own = status.get("BackendState"), status.get("Self") or {}
    if state != "Running":
        return failed("tailnet", f"tailscale is {state or 'in an unknown state'}", "tailscale up")
    address = ", ".join(own.get("TailscaleIPs") or ()) or "no address"
    expires = _read_time(own.get("KeyExpiry"))
    if expires is not None and expires <= now:
        return failed("tailnet", f"the key of this machine expired on {expires:%Y-%m-%d}", RENEW)
    if expires is not None and expires - now < WARN_BEFORE:
        return note("tailnet", f"{address}; the key of this machine expires on {expires:%Y-%m-%d}", RENEW)
    return ok("tailnet", address if expires is None else f"{address}; key valid until {expires:%Y-%m-%d}")


def judge_broker_host(status: dict[str, Any], host: str) -> list[Check]:
    """Judge whether the broker's machine is in the tailnet and connected; nothing of a host that belongs to none."""
    machines = [status.get("Self") or {}, *(status.get("Peer") or {}).values()]
    found = next((machine for machine in machines if host in _names_of(machine)), None)
    if found is None and not _is_of_tailnet(host):
        return []
    name = "broker's machine"
    if found is None:
        words = f"no machine of this tailnet has the address {host}"
        return [failed(name, words, f"{MOVED}; tailscale status shows those there are")]
    if found.get("Expired"):
        return [failed(name, f"the key of {host} has expired", f"On that machine: {RENEW}")]
    if found.get("Online") is False:
        return [failed(name, f"{host} is not connected to the tailnet", "On that machine: tailscale up")]
    return [ok(name, f"{host} is in the tailnet")]


def _names_of(machine: dict[str, Any]) -> set[str]:
    return {*(machine.get("TailscaleIPs") or ()), str(machine.get("DNSName") or "").rstrip(".").lower()}


def _is_of_tailnet(host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in SHARED_ADDRESSES
    except ValueError:
        return host.lower().endswith(".ts.net")


def _read_time(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
