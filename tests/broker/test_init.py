"""A broker that `omi-broker init` set up with TLS: who gets in, and what happens when something is changed."""

import getpass
import json
import os
import signal
import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from broker.certificate_check import check_certificate, check_certificate_end
from broker.certificates import OwnCertificates, make_certificates
from broker.check import CheckState
from broker.cli import app
from broker.errors import BrokerError, BrokerRefused, BrokerUnreachable
from broker.invitation import read_invitation_file
from broker.listener import Listener, TlsFiles
from broker.mosquitto_setup import Wanted, choose_listener
from broker.receipts import PublishOutcome
from broker.session import Incoming
from broker.settings import BrokerSettings
from broker.users import read_users
from schemas.topics import Topics
from tests.brokers import RunningBroker, free_port, require_program
from tests.inbox import WAIT_S, MessageLog, eventually

TOPICS = Topics()


def omi_broker(*words: str | Path) -> Result:
    environment = {"OMI_CONFIG": "", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


@dataclass(frozen=True)
class Home:
    """The directory of a broker that runs with TLS on loopback."""

    directory: Path
    broker: RunningBroker

    @property
    def ca(self) -> Path:
        return self.directory / "tls" / "ca.pem"

    def reload(self) -> None:
        os.kill(self.broker.pid, signal.SIGHUP)

    def settings(self, role: str, **changed: object) -> BrokerSettings:
        user = read_users(self.directory / "users.json")[role]
        values: dict[str, object] = {"broker_url": self.broker.url, "broker_ca_file": self.ca, "mqtt_version": "5"}
        values |= {"broker_username": user.username, "broker_password": user.password, "reconnect_min_s": 0.05}
        return BrokerSettings(**{**values, **changed})  # type: ignore[arg-type] # as each test says


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    program = require_program("mosquitto", "mosquitto")
    directory, port = tmp_path_factory.mktemp("init") / "omi", free_port()
    assert omi_broker("init", directory, "--tls", "--port", str(port), "--agent", "first").exit_code == 0
    config = directory / "mosquitto.conf"
    own = directory.parent / "own.conf"  # it must not become another user, who could not read these files
    own.write_text(f"{config.read_text()}\nuser {getpass.getuser()}\n")
    url = f"mqtts://127.0.0.1:{port}"
    broker = RunningBroker(url, {}, directory.parent / "log", "5", (program, "-c", str(own)), port)
    broker.start()
    yield Home(directory, broker)
    broker.kill()


@pytest.fixture
def enter(home, connect):
    """Connect as a role with some settings changed."""

    def enter_as(role: str, *filters: str, on_message=None, **changed: object):
        users = read_users(home.directory / "users.json")
        broker = replace(home.broker, users=users, _ca_file=home.ca)
        session = connect(broker, role, *filters, on_message=on_message, wait=False, settings=changed)
        eventually(lambda: session.connected or session.last_error is not None)
        session.wait_connected(WAIT_S if session.connected else 0.01)
        return session

    return enter_as


def test_files_are_private_and_invitations_name_everything(home):
    private = ("users.json", "passwords", "acl", "tls/ca.key", "tls/server.key", "invitations/agent-first")
    for name in private:
        assert stat.S_IMODE((home.directory / name).stat().st_mode) == 0o600, name
    for role in ("bridge", "backend", "agent:first"):
        user = read_users(home.directory / "users.json")[role]
        invitation = read_invitation_file(home.directory / "invitations" / user.username)
        assert (invitation.url, invitation.username, invitation.password) == (
            home.broker.url,
            user.username,
            user.password,
        )
        assert invitation.ca == home.ca.read_text()
        assert invitation.sender_id == {"bridge": "bridge", "agent:first": "first"}.get(role)


def test_every_user_gets_in_and_check_says_so(home):
    done = omi_broker("check", home.directory)
    assert done.exit_code == 0, done.output
    assert "certificate: ends on" in done.output
    assert {f"user {role}" for role in ("bridge", "backend", "watch", "agent:first")} <= {
        line.split(":")[0].removeprefix("ok").strip() if "agent" not in line else "user agent:first"
        for line in done.output.splitlines()
    }


def test_check_names_every_right_that_the_access_list_lacks_and_init_brings_it_back(home):
    acl = home.directory / "acl"
    whole = acl.read_text()
    rights = [line for line in whole.splitlines() if line.startswith("topic ")]
    for right in dict.fromkeys(rights):
        acl.write_text(whole.replace(f"{right}\n", "", 1))
        found = json.loads(omi_broker("check", home.directory, "--json").stdout)
        [rights_check] = [check for check in found if check["name"] == "rights"]
        assert rights_check["verdict"] == "failed", right
        assert right in rights_check["found"]
        assert f"omi-broker init {home.directory}" in rights_check["remedy"]
    assert omi_broker("init", home.directory).exit_code == 0
    assert acl.read_text() == whole
    assert omi_broker("check", home.directory).exit_code == 0


def test_a_right_that_one_of_two_bridges_lacks_is_told_of_that_one_and_init_changes_no_id(tmp_path):
    directory = tmp_path / "omi"
    named = ("--bridge-id", "main", "--topic-root", "spoken/v1")
    assert omi_broker("init", directory, "--port", "1", *named).exit_code == 0
    assert omi_broker("add-bridge", directory, "standby").exit_code == 0
    acl = directory / "acl"
    whole = acl.read_text()
    blocks = {block.splitlines()[1].removeprefix("user "): block for block in whole.split("\n# ")[1:]}
    beat = "topic write spoken/v1/bridge/main/heartbeat"
    for user in ("bridge", "bridge-standby"):
        for right in [line for line in blocks[user].splitlines() if line.startswith("topic ")]:
            acl.write_text(whole.replace(blocks[user], blocks[user].replace(f"{right}\n", "", 1)))
            if right == beat:  # only one: a check waits for a broker that is not there
                found = json.loads(omi_broker("check", directory, "--json").stdout)
                [rights_check] = [check for check in found if check["name"] == "rights"]
                assert rights_check["found"] == f"{acl} lacks bridge: {beat}"
            assert omi_broker("init", directory).exit_code == 0
            assert acl.read_text() == whole, right


def test_a_stranger_does_not_get_in_and_learns_which_setting_is_wrong(home, enter, tmp_path):
    other = OwnCertificates.below(tmp_path)
    other.ca.parent.mkdir()
    make_certificates(other, ("127.0.0.1",))
    port = home.broker.port
    (tmp_path / "empty.pem").write_text("")
    for changed, words in (
        ({"broker_ca_file": None}, "this machine knows.*OMI_BROKER_CA_FILE"),
        ({"broker_ca_file": other.ca}, r"OMI_BROKER_CA_FILE \(.*\) knows"),
        ({"broker_ca_file": tmp_path / "none.pem"}, r"OMI_BROKER_CA_FILE \(.*\) cannot be read"),
        ({"broker_ca_file": tmp_path / "empty.pem"}, r"OMI_BROKER_CA_FILE \(.*\) holds no certificate"),
        ({"broker_url": f"mqtts://localhost:{port}"}, "is not for localhost.*OMI_BROKER_URL.*--name localhost"),
        ({"broker_url": f"mqtt://127.0.0.1:{port}"}, "OMI_BROKER_URL begins with mqtts://"),
    ):
        with pytest.raises(BrokerUnreachable, match=words):
            enter("agent:first", **changed)
    for changed in ({"broker_password": "wrong"}, {"broker_username": None, "broker_password": None}):
        with pytest.raises(BrokerRefused, match="OMI_BROKER_PASSWORD"):
            enter("agent:first", **changed)


def test_with_the_old_password_nobody_gets_in_after_rotate_and_others_stay(home, enter):
    bridge = enter("bridge", TOPICS.want("first"))
    old = read_users(home.directory / "users.json")["agent:first"].password
    cut_off = enter("agent:first")
    done = omi_broker("rotate", home.directory, "first")
    assert done.exit_code == 0, done.output
    new = read_users(home.directory / "users.json")["agent:first"].password
    assert read_invitation_file(home.directory / "invitations" / "agent-first").password == new != old
    assert old not in done.output
    assert new not in done.output
    home.reload()
    eventually(lambda: not cut_off.connected)
    with pytest.raises(BrokerRefused):
        enter("agent:first", broker_password=old)
    enter("agent:first")
    assert bridge.connected
    assert bridge.counters.reconnects == 0
    wrong = omi_broker("rotate", home.directory, "typo")
    assert wrong.exit_code == 1
    assert "there are bridge, backend, watch, first" in wrong.output


def test_an_agent_is_added_while_traffic_runs_and_nobody_is_cut_off(home, enter):
    """All that the backend sends meanwhile arrives, on the connections there were, and the new agent gets in."""
    heard: MessageLog[Incoming] = MessageLog()
    bridge = enter("bridge", TOPICS.events("c-1"), TOPICS.want("newcomer"), on_message=heard.put)
    backend, first = enter("backend", TOPICS.accepted("c-1")), enter("agent:first", TOPICS.control("first"))
    sent: list[PublishOutcome] = []
    stop = threading.Event()

    def speak() -> None:
        while not stop.is_set():
            receipt = backend.publish(TOPICS.events("c-1"), str(len(sent)).encode())
            sent.append(receipt.wait(WAIT_S))

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        eventually(lambda: len(sent) > 50)
        done = omi_broker("add-agent", home.directory, "newcomer")
        assert done.exit_code == 0, done.output
        assert "systemctl reload mosquitto" in done.output
        assert "omi-bridge agents allow newcomer" in done.output
        home.reload()
        added_at = len(sent)
        newcomer = enter_once_known(enter, "agent:newcomer")
        assert newcomer.publish(TOPICS.want("newcomer"), b"hello").wait(WAIT_S) is PublishOutcome.ACKNOWLEDGED
        eventually(lambda: len(sent) > added_at + 50)
    finally:
        stop.set()
        speaker.join()
    assert set(sent) == {PublishOutcome.ACKNOWLEDGED}
    events = [str(number).encode() for number in range(len(sent))]
    eventually(lambda: len([one for one in heard.items if one.topic == TOPICS.events("c-1")]) == len(sent))
    assert [one.payload for one in heard.items if one.topic == TOPICS.events("c-1")] == events
    heard.wait_for(lambda one: one.topic == TOPICS.want("newcomer"), WAIT_S)
    assert [(each.connected, each.counters.reconnects) for each in (bridge, backend, first)] == 3 * [(True, 0)]


def test_a_further_bridge_beats_under_its_own_id_and_not_under_the_first_ones(home, enter):
    done = omi_broker("add-bridge", home.directory, "standby")
    assert done.exit_code == 0, done.output
    assert "omi-bridge join" in done.output
    home.reload()
    standby = enter_once_known(enter, "bridge:standby")
    beat = standby.publish(TOPICS.bridge_heartbeat("standby"), b"{}").wait(WAIT_S)
    foreign = standby.publish(TOPICS.bridge_heartbeat("bridge"), b"{}").wait(WAIT_S)
    assert foreign is PublishOutcome.REFUSED
    assert beat is not PublishOutcome.REFUSED
    assert omi_broker("add-agent", home.directory, "standby").exit_code == 1, "their failures would be one topic"
    omi_broker("init", home.directory)
    assert "bridge:standby" in read_users(home.directory / "users.json"), "what is not named stays"


def enter_once_known(enter, role: str):
    """Connect as a role that the broker reads of with its next look at its files."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            return enter(role)
        except BrokerRefused:
            if time.monotonic() > deadline_s:
                raise


def test_a_new_certificate_is_taken_without_a_restart_and_its_ca_is_the_known_one(home, enter):
    first, ca = serial_number(home), home.ca.read_bytes()
    bridge = enter("bridge")
    assert omi_broker("rotate", home.directory, "--certificates").exit_code == 0
    home.reload()
    eventually(lambda: serial_number(home) != first)
    assert home.ca.read_bytes() == ca
    assert bridge.connected
    enter("bridge", broker_ca_file=home.ca)
    [found] = check_certificate(home.settings("bridge"))
    assert found.verdict is CheckState.OK


def serial_number(home: Home) -> object:
    context = ssl.create_default_context(cafile=str(home.ca))
    with (
        socket.create_connection(("127.0.0.1", home.broker.port), WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as encrypted,
    ):
        return (encrypted.getpeercert() or {})["serialNumber"]


def test_check_tells_of_a_user_that_the_running_broker_does_not_know_yet(home):
    assert omi_broker("add-agent", home.directory, "second").exit_code == 0
    found = json.loads(omi_broker("check", home.directory, "--json").stdout)
    assert [check["name"] for check in found if check["verdict"] == "failed"] == ["user agent:second"]
    assert "systemctl reload mosquitto" in next(check["remedy"] for check in found if check["verdict"] == "failed")
    home.reload()
    eventually(lambda: omi_broker("check", home.directory).exit_code == 0)


@pytest.mark.parametrize(
    ("before", "wanted", "expected"),
    [
        (None, {}, ("127.0.0.1", 1883, False)),
        (None, {"tls": True}, ("127.0.0.1", 8883, True)),
        (None, {"host": "100.64.0.1"}, ("100.64.0.1", 8883, True)),
        (None, {"host": "192.168.1.2", "insecure": True}, ("192.168.1.2", 1883, False)),
        (("127.0.0.1", 1883, False), {"host": "100.64.0.1"}, ("100.64.0.1", 8883, True)),
        (("127.0.0.1", 1900, False), {"host": "100.64.0.1"}, ("100.64.0.1", 1900, True)),
        (("100.64.0.1", 1883, False), {}, ("100.64.0.1", 1883, False)),
        (("100.64.0.1", 1883, False), {"tls": True}, ("100.64.0.1", 8883, True)),
        (("100.64.0.1", 8883, True), {}, ("100.64.0.1", 8883, True)),
        (("100.64.0.1", 8883, True), {"insecure": True}, ("100.64.0.1", 1883, False)),
        (("100.64.0.1", 8883, True), {"host": "127.0.0.1"}, ("127.0.0.1", 8883, True)),
    ],
)
def test_tls_is_the_default_where_others_can_listen_and_nobody_who_is_in_is_locked_out(before, wanted, expected):
    made = TlsFiles(Path("/tls/server.pem"), Path("/tls/server.key"))
    known = Listener(before[0], before[1], made if before[2] else None) if before else None
    chosen = choose_listener(known, Wanted(**wanted), made)
    assert (chosen.host, chosen.port, chosen.tls is not None) == expected


def test_every_address_needs_a_name_and_keeps_it():
    made = TlsFiles(Path("/tls/server.pem"), Path("/tls/server.key"))
    with pytest.raises(BrokerError, match="--name"):
        choose_listener(None, Wanted(host="0.0.0.0"), made)
    first = choose_listener(None, Wanted(host="0.0.0.0", name="vps.example"), made)
    assert choose_listener(first, Wanted(port=9000), made) == replace(first, port=9000)


def test_a_certificate_that_ends_is_told_of_in_time():
    now = datetime(2030, 1, 1, tzinfo=UTC)
    found = [check_certificate_end(now + timedelta(days=days), now=now) for days in (90, 40, 5, -1)]
    assert [check.verdict for check in found] == [CheckState.OK, CheckState.NOTE, CheckState.FAILED, CheckState.FAILED]
    assert "omi-broker rotate DIR --certificates" in (found[-1].remedy or "")


def test_who_takes_the_port_is_said_at_once(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = omi_broker("init", tmp_path / "omi", "--port", str(port))
    assert done.exit_code == 0
    assert f"127.0.0.1:{port} is taken, perhaps by Debian's own Mosquitto" in done.output
    assert "only programs on this machine reach it" in done.output


def test_commands_for_a_directory_that_was_not_set_up_say_what_to_type(tmp_path):
    for words in (("add-agent", tmp_path, "x"), ("rotate", tmp_path, "x"), ("check", tmp_path)):
        done = omi_broker(*words)
        assert done.exit_code == 1
        assert f"omi-broker init {tmp_path}" in done.output


def test_without_its_users_only_init_goes_on_and_it_hands_everybody_a_new_invitation(tmp_path):
    directory, users = tmp_path / "home", tmp_path / "home" / "users.json"
    omi_broker("init", directory, "--agent", "my-mac")
    passwords = (directory / "passwords").read_text()
    users.unlink()
    for words in (("add-agent", directory, "second"), ("rotate", directory, "bridge"), ("check", directory)):
        refused = omi_broker(*words)
        assert refused.exit_code == 1
        assert f"{users}: is gone. Put a copy of it back" in refused.output
    assert (directory / "passwords").read_text() == passwords
    made = omi_broker("init", directory, "--agent", "my-mac")
    assert "every program has to join again" in made.output
    for name in ("bridge", "backend", "agent-my-mac"):
        assert str(directory / "invitations" / name) in made.output
    again = omi_broker("init", directory)
    assert "join again" not in again.output
    assert str(directory / "invitations") not in again.output


def test_a_certificate_that_no_broker_could_start_with_changes_nothing(tmp_path):
    home, other = tmp_path / "home", tmp_path / "other"
    omi_broker("init", home, "--tls")
    omi_broker("init", other, "--tls")
    before = (home / "mosquitto.conf").read_text()
    sound, of_another = other / "tls" / "server.pem", home / "tls" / "server.key"
    no_pem = tmp_path / "call.pem"
    no_pem.write_bytes(b"RIFF")
    for certificate, key in ((no_pem, no_pem), (sound, no_pem), (sound, of_another)):
        refused = omi_broker("init", home, "--certificate", certificate, "--key", key)
        assert refused.exit_code == 1
        assert "are no PEM certificate and its key" in refused.output
    assert (home / "mosquitto.conf").read_text() == before
    assert omi_broker("init", home, "--certificate", sound, "--key", sound.with_name("server.key")).exit_code == 0


def test_at_another_address_every_program_is_to_join_again(tmp_path):
    home = tmp_path / "omi"
    assert omi_broker("init", home, "--agent", "first").exit_code == 0
    again = omi_broker("init", home, "--agent", "second").output
    assert "join again" not in again
    assert ("invitation of second" in again, "invitation of first" in again) == (True, False)
    moved = omi_broker("init", home, "--tls").output
    assert "every program has to join again" in moved
    assert all(f"invitation of {name}" in moved for name in ("bridge", "backend", "first", "second"))
    assert "systemctl restart mosquitto" in moved
    first = read_invitation_file(home / "invitations" / "agent-first")
    assert first.url == "mqtts://127.0.0.1:8883"
