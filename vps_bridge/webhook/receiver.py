"""Where the webhook's messages go and how they are signed, as the settings say."""

from __future__ import annotations

from broker.secret_setting import read_secret
from vps_bridge.settings import BridgeSettings
from vps_bridge.signed_endpoint import SignedEndpoint, read_endpoint


def read_receiver(settings: BridgeSettings) -> SignedEndpoint | None:
    """Return the receiver, or None where the webhook is off. Raises `SettingsError`."""
    secret = read_secret("webhook_secret", settings.webhook_secret, settings.webhook_secret_file)
    if settings.webhook_url is None:
        return None
    return read_endpoint(
        "webhook",
        "the webhook",
        settings.webhook_url,
        secret,
        is_insecure=settings.webhook_insecure,
        timeout_s=settings.webhook_timeout_s,
    )
