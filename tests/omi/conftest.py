from tests.vps_bridge.conftest import backend, mosquitto, own_backend, own_broker

__all__ = ["backend", "mosquitto", "own_backend", "own_broker"]
