"""Limits of the bridge that contradict each other are refused, and both are named."""

import pytest

from broker.errors import SettingsError
from broker.settings import load_settings
from vps_bridge.settings import BridgeSettings


@pytest.mark.parametrize(("low", "high"), [("OMI_MIN_JOB_S", "OMI_MAX_JOB_S"), ("OMI_RETRY_MIN_S", "OMI_RETRY_MAX_S")])
def test_a_lower_limit_above_the_upper_one_is_refused(monkeypatch: pytest.MonkeyPatch, low: str, high: str) -> None:
    monkeypatch.setenv(low, "9")
    monkeypatch.setenv(high, "8")
    with pytest.raises(SettingsError, match=rf"{low[4:].lower()} \(9\) must not be above {high[4:].lower()} \(8\)"):
        load_settings(BridgeSettings, flags={})
    monkeypatch.setenv(high, "9")
    load_settings(BridgeSettings, flags={})
