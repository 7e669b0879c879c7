"""Check the webhook's settings, and what its receiver has not taken."""

from __future__ import annotations

from broker.check import Check, failed, ok
from broker.errors import SettingsError
from vps_bridge.durations import seconds
from vps_bridge.ledger.webhook_outbox import WebhookCounts
from vps_bridge.settings import BridgeSettings
from vps_bridge.webhook.receiver import read_receiver

REMEDY = "Look at the receiver, docs/webhook.md says what it has to do; nothing is lost meanwhile."


def check_webhook(settings: BridgeSettings, counts: WebhookCounts | None, now: float) -> list[Check]:
    """Check the webhook, if there is one. `counts` is None where the bridge ran without it; `now` is Unix time."""
    try:
        receiver = read_receiver(settings)
    except SettingsError as error:
        return [failed("webhook", str(error), "Correct the setting and restart the bridge.")]
    if receiver is None and counts is None:
        return []
    if receiver is None or counts is None:
        found = "on in these settings, off in the running bridge" if receiver else "off in these settings, on before"
        return [failed("webhook", found, "Restart the bridge, or look with its settings: omi-bridge config")]
    if counts.oldest_at is None:
        return [ok("webhook", f"{receiver.shown} has taken everything")]
    found = f"{counts.waiting} messages wait, the oldest for {seconds(now - counts.oldest_at)}"
    if counts.last_error is None:
        return [ok("webhook", found)]
    return [failed("webhook", f"{found}; {counts.last_error}", REMEDY)]
