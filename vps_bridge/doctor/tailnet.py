"""Check this machine's place in the tailnet, where Tailscale is installed: connected, its key not about to expire."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.check import Check, failed, note, ok

TIMEOUT_S = 10.0
WARN_BEFORE = timedelta(days=14)
RENEW = "tailscale up --force-reauth, or switch key expiry off for this machine in the admin console"


def check_tailnet() -> list[Check]:
    """Ask `tailscale status --json`; no check where there is no such command."""
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
    return [judge_tailnet(status if isinstance(status, dict) else {}, datetime.now(UTC))]


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


def _read_time(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
