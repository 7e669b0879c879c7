from tests.omi.labelled_ledger import api, counts, ledger, sender
from tests.vps_bridge.conftest import backend, mosquitto, own_backend, own_broker

__all__ = ["api", "backend", "counts", "ledger", "mosquitto", "own_backend", "own_broker", "sender"]
