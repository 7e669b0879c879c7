"""What `omi-bridge doctor` says of the webhook."""

import pytest
from pydantic import SecretStr

from broker.check import CheckState
from vps_bridge.doctor.webhook_check import check_webhook
from vps_bridge.ledger.webhook_outbox import WebhookCounts
from vps_bridge.settings import BridgeSettings

ON = BridgeSettings(webhook_url="https://h.example/hush", webhook_secret=SecretStr("a-secret-of-these-tests"))
OFF = BridgeSettings()
NOTHING = WebhookCounts(0, None, None)


@pytest.mark.parametrize(
    ("settings", "counts", "verdict", "said"),
    [
        (ON, NOTHING, CheckState.OK, "https://h.example:443 has taken everything"),
        (ON, WebhookCounts(2, 940.0, None), CheckState.OK, "2 messages wait, the oldest for 60 s"),
        (ON, WebhookCounts(2, 940.0, "h answered 500"), CheckState.FAILED, "the oldest for 60 s; h answered 500"),
        (ON, None, CheckState.FAILED, "off in the running bridge"),
        (OFF, NOTHING, CheckState.FAILED, "off in these settings"),
        (BridgeSettings(webhook_url="https://h.example/hush"), None, CheckState.FAILED, "openssl rand"),
    ],
)
def test_what_waits_and_what_is_wrong_is_said(
    settings: BridgeSettings, counts: WebhookCounts | None, verdict: CheckState, said: str
) -> None:
    (check,) = check_webhook(settings, counts, now=1_000.0)
    assert check.verdict is verdict
    assert said in check.found
    assert "hush" not in f"{check.found}{check.remedy}"
    assert check.remedy or verdict is CheckState.OK


def test_nothing_is_said_where_there_is_none() -> None:
    assert check_webhook(OFF, None, now=1_000.0) == []
