"""Who may use the HTTP door: with the token, or from the same machine on a few paths."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from broker.errors import SettingsError
from tests.brokers import RunningBroker, free_port
from tests.vps_bridge.http.door import TOKEN, Door
from tests.vps_bridge.live_bridge import Backend, LiveBridge, run_bridge
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.http.access import read_access_rule
from vps_bridge.settings import BridgeSettings


def test_without_the_token_only_the_earlier_calls_are_open_and_only_to_this_machine(door: Door) -> None:
    for path in ("/v1/conversations/c1/audio", "/v1/conversations/c1/events", "/nothing"):
        answer = door.open.post(path, content=b"x")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert door.open.get("/openapi.json").status_code == 401
    for wrong in ("Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", ""):
        assert door.open.get("/openapi.json", headers={"Authorization": wrong}).status_code == 401
    assert door.open.get("/health").status_code == 200
    assert door.open.get("/health", headers={"Host": "localhost:1"}).status_code == 200
    for foreign in ({"Host": "rebound.example"}, {"Origin": "http://evil.example"}, {"Host": "[::2]"}):
        assert door.open.get("/health", headers=foreign).status_code == 403
        assert door.client.get("/health", headers=foreign).status_code == 200, "a token says enough"


def test_a_door_that_others_reach_needs_a_token(own_broker: RunningBroker, tmp_path: Path) -> None:
    bridge = LiveBridge(own_broker, tmp_path / "data", {"OMI_HTTP_HOST": "0.0.0.0", "OMI_HTTP_PORT": str(free_port())})
    done = bridge.command("run", check=False)
    assert done.returncode == 2
    assert "http_token_file" in done.stderr


def test_a_token_that_is_none_or_that_others_can_read_is_refused(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    token_file.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_access_rule(BridgeSettings(http_token_file=token_file))
    token_file.chmod(0o600)
    assert read_access_rule(BridgeSettings(http_token_file=token_file)).token == TOKEN
    with pytest.raises(SettingsError, match="give the token once"):
        read_access_rule(BridgeSettings(http_token_file=token_file, http_token=SecretStr(TOKEN)))
    for bad in ("short", "spaced\nand more than sixteen", "ünprintable-in-a-header"):
        with pytest.raises(SettingsError, match="openssl rand") as refused:
            read_access_rule(BridgeSettings(http_token=SecretStr(bad)))
        assert bad not in str(refused.value)
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        assert read_access_rule(BridgeSettings(http_host=host)).is_loopback
    for host in ("0.0.0.0", "::", "100.64.0.1", "vps.tailnet.ts.net"):
        with pytest.raises(SettingsError, match="not loopback"):
            read_access_rule(BridgeSettings(http_host=host))


def test_a_door_that_others_reach_is_open_to_nobody_without_the_token(
    own_broker: RunningBroker, own_backend: Backend, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    token_file.chmod(0o600)
    options = {"OMI_HTTP_HOST": "0.0.0.0", "OMI_HTTP_PORT": str(free_port()), "OMI_HTTP_TOKEN_FILE": str(token_file)}
    with run_bridge(own_broker, tmp_path / "data", own_backend, **options) as bridge:
        door = Door(bridge, own_backend)
        assert door.open.get("/health").status_code == 401
        assert door.diarize(make_wav(1.0)).status_code == 401
        assert door.client.get("/health").status_code == 200
        assert TOKEN not in bridge.log_file.read_text()
        assert TOKEN not in bridge.command("config", "--json").stdout
