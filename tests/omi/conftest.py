from tests.vps_bridge.conftest import backend, mosquitto

__all__ = ["backend", "mosquitto"]
