"""The clients on one broker and bridge: as their users have them, and the two that share the rules of delivery.

The rules live in two clients, the bridge's own and the package: the same calls, the same messages. What one of them
learns the other must learn too: the tests fail where the two differ.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import omi_diarization_client.client as package
import vps_bridge.client.client as own
import vps_bridge.client.connected
import vps_bridge.client.heard_bridges
from broker.certificates import OwnCertificates, make_certificates
from integrations.omi.labels import OwnersFile
from integrations.omi.publish import PusherTap, TapPublisher
from omi_diarization_client import BrokerUnavailable, Client, NoAnswer, NotAllowed
from omi_diarization_client.heartbeat import FRESH_S
from omi_diarization_client.wire import RETRYABLE_CODES
from schemas.conversation import Accepted, Verdict
from schemas.failure import FAILURE_POLICIES
from tests.brokers import REPOSITORY, RunningBroker, free_port, require_program, run_embedded, run_mosquitto
from tests.clients.installed import MAX_BYTES, run_outside
from tests.clients.wire_calls import BOTH, TOPICS, OwnCalls, PackageCalls, has_applied, overheard, said_by_backend
from tests.faults.proxy import TcpProxy
from tests.inbox import WAIT_S
from tests.vps_bridge.http.door import TOKEN
from tests.vps_bridge.live_bridge import CALL_S, STARTED_AT, Backend, LiveBridge, call_segments, wait_until
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.ledger import Ledger


def test_it_needs_two_packages_and_takes_less_than_20_mb(environment: Path) -> None:
    (site,) = (environment / "lib").glob("python*/site-packages")
    files = [path for path in environment.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    sys.stdout.write(f"{size / 2**20:.1f} MB\n")
    assert size < MAX_BYTES
    installed = {path.name.split("-")[0] for path in site.glob("*.dist-info")}
    assert installed == {"omi_diarization_client", "msgpack", "paho_mqtt"}


def test_a_backend_outside_has_everything_by_its_calls(
    environment: Path, mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path
) -> None:
    (tmp_path / "call.wav").write_bytes(make_wav(CALL_S, tone=3))
    transcript = [{"text": part.text, "start": part.start_s, "end": part.end_s} for part in call_segments("outside")]
    said = {
        "url": mosquitto.url,
        "user": mosquitto.users["backend"].username,
        "password": mosquitto.users["backend"].password,
        "folder": str(tmp_path),
        "started_at": STARTED_AT.isoformat(),
        "transcript": transcript,
    }
    done = subprocess.run(
        [
            str(environment / "bin" / "python"),
            "-I",
            str(Path(__file__).with_name("outside_backend.py")),
            json.dumps(said),
        ],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    two_voices = ["SPEAKER_00", "SPEAKER_01"] * 3
    assert list(told["segments"].values()) == two_voices
    assert (told["speakers"], told["turns"]) == (2, 6)
    assert set(told["corrected"].values()) == {"SPEAKER_00"}
    assert list(told["undone"].values()) == two_voices
    assert (told["enrolment"]["person_id"], told["enrolment"]["outcome"]) == ("anna", "learned")
    assert bridge.people("user-1") == []
    assert (told["listened"], told["refused"]) == ("listened", "audio.undecodable")
    wait_until(lambda: bridge.is_deleted("outside"), "the deletion")
    assert set(told["modules"]) == {"__main__", "msgpack", "omi_diarization_client", "paho"}


def client_of(broker: RunningBroker, role: str = "backend") -> Client:
    user = broker.users[role]
    return Client(broker.url, user.username, user.password)


def test_labels_that_a_loop_did_not_finish_are_offered_again(mosquitto: RunningBroker, bridge: LiveBridge) -> None:
    with client_of(mosquitto) as client:
        first = client.updates(timeout_s=60.0)
        client.publish("again", make_wav(CALL_S, tone=2))
        heard = next(first)
        first.close()  # the loop's body raised
    with client_of(mosquitto) as client:
        again = next(labels for labels in client.updates(timeout_s=60.0) if labels.conversation_id == "again")
    assert (again.conversation_id, again.is_final) == (heard.conversation_id, True)


def test_a_wrong_password_and_a_user_who_may_not_publish_are_named(
    mosquitto: RunningBroker, bridge: LiveBridge
) -> None:
    with pytest.raises(BrokerUnavailable, match="password"), Client(mosquitto.url, "backend", "wrong"):
        pass
    with (
        client_of(mosquitto, "watch") as client,
        pytest.raises(NotAllowed, match=r"publish to .* use the backend's user"),
    ):
        client.start("forbidden")


def test_of_several_servers_one_that_is_down_is_passed_over(mosquitto: RunningBroker, bridge: LiveBridge) -> None:
    user = mosquitto.users["backend"]
    urls = f"mqtt://127.0.0.1:{free_port()},{mosquitto.url}"
    for _ in range(2):  # the first is one at random
        with Client(urls, user.username, user.password, mqtt_qos=0) as client:
            client.start("several")
    with pytest.raises(ValueError, match="mqtt://host:port"):
        Client(f"{mosquitto.url},elsewhere")


def test_without_a_bridge_nothing_is_sent_and_what_to_start_is_named(mosquitto: RunningBroker) -> None:
    user = mosquitto.users["backend"]
    with Client(mosquitto.url, user.username, user.password, root="another/v1") as client:
        with pytest.raises(NoAnswer, match="omi-bridge run"):
            client.send_audio("c", make_wav(1.0), timeout_s=0.5)
        with pytest.raises(NoAnswer, match="omi-bridge agents"):
            client.wait("c", timeout_s=0.1)


def node_command(example: Path, broker: RunningBroker, name: str, audio: Path) -> tuple[list[str], dict[str, str]]:
    """The example for Node with a transcript, and the environment of its process."""
    segments = audio.with_suffix(".json")
    segments.write_text(json.dumps([part.model_dump(exclude_none=True) for part in call_segments(name)]))
    access = {
        "OMI_BROKER_URL": broker.url,
        "OMI_BROKER_USERNAME": "backend",
        "OMI_BROKER_PASSWORD": broker.users["backend"].password,
        "OMI_STARTED_AT": STARTED_AT.isoformat(),
    }
    return ["node", str(example), name, str(audio), str(segments)], access


def check_node(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert [label["speaker"] for label in json.loads(done.stdout)["segments"]] == ["SPEAKER_00", "SPEAKER_01"] * 3


def test_the_example_for_node_publishes_and_prints_labels(
    node_example: Path, mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path
) -> None:
    audio = tmp_path / "call.wav"
    audio.write_bytes(make_wav(CALL_S, tone=11))
    command, access = node_command(node_example, mosquitto, "node", audio)
    check_node(run_outside(*command, **access))
    audio.write_text("this is no audio")
    refused = run_outside(*command, **access)
    assert (refused.returncode, "audio.undecodable" in refused.stderr) == (1, True)


def test_the_example_for_node_sends_parts_over_mqtt_3_1_1_and_goes_on_after_a_cut(
    node_example: Path, mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path
) -> None:
    audio = tmp_path / "call.wav"
    audio.write_bytes(make_wav(80.0, tone=12))
    with TcpProxy(mosquitto.port) as link, overheard(mosquitto) as heard, ThreadPoolExecutor(1) as pool:
        command, access = node_command(node_example, mosquitto.reached_at(link.port), "node-cut", audio)
        running = pool.submit(run_outside, *command, **access, OMI_MQTT_VERSION="3.1.1")
        wait_until(lambda: any(incoming.topic == TOPICS.audio("node-cut") for incoming in heard), "the first part")
        link.cut()
        check_node(running.result(WAIT_S))
    assert len(bridge.jobs("node-cut")) == 1


def test_the_example_for_a_shell_publishes_and_prints_labels(bridge: LiveBridge, tmp_path: Path) -> None:
    require_program("curl", "curl")
    audio, script = tmp_path / "call.wav", str(REPOSITORY / "clients" / "shell" / "publish.sh")
    audio.write_bytes(make_wav(CALL_S, tone=12))
    access = {
        "OMI_HTTP_URL": f"http://127.0.0.1:{bridge.options['OMI_HTTP_PORT']}",
        "OMI_HTTP_TOKEN": TOKEN,
        "OMI_TIMEOUT_S": "60",
    }
    for _ in range(2):  # the second time nothing is new
        done = run_outside("sh", script, "shell", str(audio), "rttm", **access)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(done.stdout.splitlines()) == len(call_segments("shell"))
    assert len(bridge.jobs("shell")) == 1
    refused = run_outside("sh", script, "shell", script, **access)
    assert (refused.returncode, "audio.undecodable" in refused.stderr) == (22, True)


def test_over_tls_the_broker_must_have_a_certificate_of_the_given_ca(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omi_diarization_client.client.CONNECT_S", 2.0)
    (tmp_path / "tls").mkdir()
    files = OwnCertificates.below(tmp_path)
    make_certificates(files, ["127.0.0.1"])
    with run_mosquitto(tmp_path, tls=files.server) as broker:
        user = broker.users["backend"]
        with Client(broker.url, user.username, user.password, files.ca) as client, pytest.raises(NoAnswer):
            client.send_audio("c", b"", timeout_s=0.1)
        with pytest.raises(BrokerUnavailable, match="certificate verify failed"), Client(broker.url, user.username):
            pass


@pytest.mark.slow
def test_a_broker_that_knows_only_mqtt_3_1_1_is_found_out_and_says_who_may_not_listen(tmp_path: Path) -> None:
    with run_embedded(tmp_path) as broker:
        with client_of(broker) as client, pytest.raises(NoAnswer, match="omi-bridge"):
            client.send_audio("c", b"", timeout_s=0.1)
        with (
            client_of(broker, "agent") as client,
            pytest.raises(NotAllowed, match=r"listen to .* use the backend's user"),
        ):
            client.start("c")


def test_what_a_pusher_of_omi_hears_is_labelled_and_known_by_its_owner(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMI_OWNERS_FILE", str(tmp_path / "owners.tsv"))
    publisher = TapPublisher(lambda: client_of(mosquitto), 8_000)
    tap = PusherTap("user-7", 8_000, publisher)
    began_s = STARTED_AT.timestamp()
    with client_of(mosquitto) as client:
        tap.frame(struct.pack("<I", 103) + b"pushed")
        for second in range(int(CALL_S)):
            tap.frame(struct.pack("<Id", 101, began_s + second) + bytes(16_000))
        tap.close()
        publisher.stop(timeout_s=WAIT_S)
        labels = client.wait("pushed", timeout_s=WAIT_S)
    assert (labels.speakers, len(labels.turns)) == (2, len(call_segments("pushed")))
    assert round(labels.message["audio_s"]) == CALL_S
    assert OwnersFile(tmp_path / "owners.tsv").find("pushed") == "user-7"


def test_a_conversation_is_the_same_on_the_wire_by_either_client(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path
) -> None:
    small, large = tmp_path / "small.wav", tmp_path / "large.wav"
    small.write_bytes(make_wav(CALL_S, tone=4))
    large.write_bytes(make_wav(80.0, tone=5))  # goes in parts
    said = []
    with overheard(mosquitto) as heard:
        for calls in (PackageCalls(mosquitto), OwnCalls(mosquitto)):
            name = f"same-{uuid.uuid4().hex}"
            calls.conversation(name, small, large)
            wait_until(lambda name=name: "DELETED" in said_by_backend(heard, name)[-1], "the last event")  # type: ignore[misc]
            said.append(said_by_backend(heard, name))
            assert has_applied(heard, name)
    assert said[0] == said[1]
    assert len(said[0]) == 13


def test_what_is_said_of_a_person_is_the_same_on_the_wire_by_either_client(
    mosquitto: RunningBroker, bridge: LiveBridge
) -> None:
    said = []
    with overheard(mosquitto) as heard:
        for calls in (PackageCalls(mosquitto), OwnCalls(mosquitto)):
            name = f"p-{uuid.uuid4().hex}"
            calls.people(name)
            wait_until(lambda name=name: "FORGOTTEN" in said_by_backend(heard, name)[-1], "the last event")  # type: ignore[misc]
            said.append(said_by_backend(heard, name))
    assert said[0] == said[1]
    assert len(said[0]) == 4


@BOTH
@pytest.mark.parametrize(("mqtt_version", "loses"), [("5", "mute"), ("3.1.1", "deafen")])
def test_what_gets_lost_on_the_way_is_sent_again_until_the_receipt_and_counts_once(  # noqa: PLR0917 - fixtures
    mosquitto: RunningBroker,
    bridge: LiveBridge,
    backend: Backend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: type[PackageCalls | OwnCalls],
    mqtt_version: str,
    loses: str,
) -> None:
    for module in (package, own, vps_bridge.client.connected):
        monkeypatch.setattr(module, "RETRY_S", 0.5)
    path, name = tmp_path / "call.wav", f"lossy-{uuid.uuid4().hex}"
    path.write_bytes(make_wav(80.0, tone=6))
    with TcpProxy(mosquitto.port) as link, overheard(mosquitto) as heard:
        client = calls(mosquitto.reached_at(link.port), mqtt_version)
        sending = threading.Thread(target=client.audio, args=(name, path))
        link.delay(0.02)
        sending.start()
        wait_until(lambda: any(name in incoming.topic for incoming in heard), "the first part")
        getattr(link, loses)()
        time.sleep(0.2)  # what happens now is lost
        link.cut()
        sending.join(WAIT_S)
    taken = [receipt for receipt in backend.seen(Accepted, name) if receipt.verdict is Verdict.ACCEPTED]
    # Each offer that came through has a receipt, the same one; the audio is there once.
    assert {receipt.sha256 for receipt in taken} == {hashlib.sha256(path.read_bytes()).hexdigest()}
    ledger = Ledger(bridge.data_dir / "bridge", exclusive=False)
    assert len(ledger.chunks.of_conversation(name)) == 1
    ledger.close()


@BOTH
def test_a_refusal_ends_it_with_its_code_and_what_to_do(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path, calls: type[PackageCalls | OwnCalls]
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("this is no audio")
    with pytest.raises(calls.refusal, match="publish one of these") as refused:
        calls(mosquitto).audio("notes", path)
    assert getattr(refused.value, "code", None) == "audio.undecodable"


def test_limits_and_codes_are_the_same_in_both() -> None:
    names = [
        "WHOLE_BYTES",
        "PART_BYTES",
        "ENVELOPE_BYTES",
        "PARTS_AT_ONCE",
        "SEGMENTS_PER_EVENT",
        "EVENT_BYTES",
        "RETRY_S",
    ]
    assert {name: getattr(package, name) for name in names} == {name: getattr(own, name) for name in names}
    assert FRESH_S == vps_bridge.client.heard_bridges.FRESH_BEAT_S
    assert {str(code) for code, policy in FAILURE_POLICIES.items() if policy.is_retryable} == RETRYABLE_CODES
