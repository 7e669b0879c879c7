"""Backends that know nothing of this repository: the Python package installed in an environment of its own."""

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from uv import find_uv_bin

from broker.certificates import OwnCertificates, make_certificates
from integrations.omi.labels import OwnersFile
from integrations.omi.publish import PusherTap, TapPublisher
from omi_diarization_client import BrokerUnavailable, Client, NoAnswer, NotAllowed
from tests.brokers import REPOSITORY, RunningBroker, require_program, run_embedded, run_mosquitto
from tests.inbox import WAIT_S
from tests.vps_bridge.http.door import TOKEN
from tests.vps_bridge.live_bridge import CALL_S, STARTED_AT, LiveBridge, call_segments, wait_until
from tests.vps_bridge.scripted_agent import make_wav

PACKAGE = REPOSITORY / "clients" / "python"
MAX_BYTES = 20 * 2**20
NEEDED = ("msgpack", "paho-mqtt")


def pinned(name: str) -> str:
    """The pin of one package with its digests, as every environment of this repository has it."""
    pins = (REPOSITORY / "requirements" / "bridge.txt").read_text()
    found = re.search(rf"^{name}==.*?[^\\]$", pins, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[0]


def build_wheel(directory: Path) -> Path:
    """Build the package with the build tool that is installed here, from a copy: building leaves files behind."""
    source = directory / "source"
    subprocess.run(["cp", "-r", str(PACKAGE), str(source)], check=True)
    script = f"from setuptools.build_meta import build_wheel; print(build_wheel({str(directory)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=source, capture_output=True, check=True, text=True, timeout=WAIT_S
    )
    return directory / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the package and what it needs."""
    directory = tmp_path_factory.mktemp("outside")
    wheel, home = build_wheel(directory), directory / "env"
    requirements = directory / "requirements.txt"
    requirements.write_text("\n".join(map(pinned, NEEDED)) + "\n")
    uv, python = find_uv_bin(), str(home / "bin" / "python")
    began_s = time.monotonic()
    for command in (
        ("venv", "--quiet", "--python", sys.executable, str(home)),
        ("pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", str(requirements)),
        ("pip", "install", "--quiet", "--python", python, "--no-deps", str(wheel)),
    ):
        subprocess.run([uv, *command], check=True, timeout=WAIT_S)
    sys.stdout.write(f"installed in {time.monotonic() - began_s:.1f} s\n")
    return home


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


def test_without_a_bridge_nothing_is_sent_and_what_to_start_is_named(mosquitto: RunningBroker) -> None:
    user = mosquitto.users["backend"]
    with Client(mosquitto.url, user.username, user.password, root="another/v1") as client:
        with pytest.raises(NoAnswer, match="omi-bridge run"):
            client.send_audio("c", make_wav(1.0), timeout_s=0.5)
        with pytest.raises(NoAnswer, match="omi-bridge agents"):
            client.wait("c", timeout_s=0.1)


@pytest.fixture(scope="module")
def node_example() -> Path:
    """The example for Node with what its lock file names, installed once for each lock file."""
    require_program("node", "nodejs")
    npm, source = require_program("npm", "npm"), REPOSITORY / "clients" / "node"
    digest = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()
    home = REPOSITORY / "build" / f"node-example-{digest[:16]}"
    with FileLock(f"{home}.lock"):
        if not (home / "node_modules" / ".package-lock.json").is_file():
            home.mkdir(parents=True, exist_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(source / name, home)
            quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--silent")
            subprocess.run([npm, "ci", *quiet], cwd=home, check=True, timeout=WAIT_S)
        shutil.copy(source / "publish.mjs", home)
    return home / "publish.mjs"


def run_outside(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        check=False,
        env={"PATH": os.environ["PATH"], **environment},
        text=True,
        timeout=WAIT_S,
    )


@pytest.mark.parametrize(("mqtt_version", "seconds"), [("5", CALL_S), ("3.1.1", 80.0)], ids=["5-whole", "3.1.1-parts"])
def test_the_example_for_node_publishes_and_prints_labels(
    node_example: Path, mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path, mqtt_version: str, seconds: float
) -> None:
    name, audio, segments = f"node-{seconds:.0f}", tmp_path / "call.wav", tmp_path / "segments.json"
    audio.write_bytes(make_wav(seconds, tone=11))
    segments.write_text(json.dumps([part.model_dump(exclude_none=True) for part in call_segments(name)]))
    access = {
        "OMI_BROKER_URL": mosquitto.url,
        "OMI_BROKER_USERNAME": "backend",
        "OMI_BROKER_PASSWORD": mosquitto.users["backend"].password,
        "OMI_MQTT_VERSION": mqtt_version,
        "OMI_STARTED_AT": STARTED_AT.isoformat(),
    }
    done = run_outside("node", str(node_example), name, str(audio), str(segments), **access)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [label["speaker"] for label in told["segments"]] == ["SPEAKER_00", "SPEAKER_01"] * 3
    if mqtt_version == "5":
        refused = run_outside("node", str(node_example), name, str(segments), **access)
        assert (refused.returncode, "audio.undecodable" in refused.stderr) == (1, True)


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
