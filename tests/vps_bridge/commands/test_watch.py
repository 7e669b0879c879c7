"""`omi-bridge watch` says so where nothing can be seen."""

import pytest

from tests.brokers import RunningBroker
from vps_bridge.commands import watch


class SilenceTold(Exception):
    pass


def tell() -> None:
    raise SilenceTold


@pytest.mark.parametrize(("role", "root"), [("watch", "another/root"), ("agent", "omi/v1")])
def test_that_nothing_is_heard_is_told(
    mosquitto: RunningBroker, monkeypatch: pytest.MonkeyPatch, role: str, root: str
) -> None:
    monkeypatch.setattr(watch, "SILENCE_S", 0.5)
    with pytest.raises(SilenceTold):
        next(watch.watch_messages(mosquitto.settings(role, topic_root=root), tell))
