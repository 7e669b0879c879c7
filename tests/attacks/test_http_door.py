"""Whoever holds connections of the HTTP door open, drips, or sends what nobody asked for, keeps nobody else out."""

import contextlib
import resource
import select
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import psutil
import pytest

from broker.errors import BrokerUnreachable
from broker.session import MqttSession
from broker.settings import BrokerSettings
from schemas.bridge import BridgeHeartbeat
from schemas.conversation import Verdict
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.http.door import WAV, Door, answering, live, open_door
from tests.vps_bridge.live_bridge import Backend, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.http.connections import MAX_CONNECTIONS
from vps_bridge.http.handlers import MAX_UPLOADS

OTHER_FILES = 200  # that the bridge has open, beside connections


@pytest.fixture(scope="module")
def door(broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    backend = Backend(broker)
    with run_bridge(broker, tmp_path_factory.mktemp("data"), backend, **open_door()) as bridge:
        bridge.allow("first")
        yield Door(bridge, backend)
    backend.stop()


@pytest.mark.parametrize(
    ("first", "protocol"),
    [(bytes.fromhex("16030100a5010000a10303"), "TLS"), (bytes.fromhex("101000044d515454050200") + b"\0" * 7, "MQTT")],
)
def test_who_speaks_another_protocol_is_told_so_and_the_log_says_what_to_do(
    door: Door, first: bytes, protocol: str
) -> None:
    with connect(door, first) as connection:
        answer = b"".join(iter(lambda: connection.recv(4_096), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert f"You speak {protocol}: ".encode() in answer
    (line,) = wait_until(lambda: door.bridge.logged("wrong_port", speaks=protocol), "the line in the log")
    assert line["peer"].startswith("127.0.0.1:")
    assert line["remedy"] in answer.decode()
    assert door.open.get("/health").status_code == 200


def test_a_client_of_the_broker_that_is_given_the_port_of_the_door_says_so(door: Door) -> None:
    settings = BrokerSettings(broker_url=f"mqtt://127.0.0.1:{door.port}", broker_username="u")
    session = MqttSession(settings, client_id="lost", on_message=lambda _: None)
    session.start()
    with pytest.raises(BrokerUnreachable, match=r"a web server answers there.*OMI_BROKER_URL names another program's"):
        session.wait_connected(1.0)
    session.stop()


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """Let this process open as many files as it may: it is the attacker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4_096)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(door: Door, head: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", door.port), WAIT_S)
    connection.sendall(head)
    return connection


def upload_head(door: Door, conversation_id: str, length_bytes: int = 100_000) -> bytes:
    token = door.client.headers["Authorization"]
    lines = (
        f"POST /v1/conversations/{conversation_id}/audio HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: {token}",
        "Content-Type: audio/wav",
        f"Content-Length: {length_bytes}",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("head", [b"", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "], ids=["idle", "slow"])
def test_idle_connections_take_no_files_from_audio(door: Door, head: bytes) -> None:
    """1,100 of them used up all 1,024 files of the process, and audio over MQTT was refused as `disk.full`."""
    assert door.bridge.process is not None
    process, name = psutil.Process(door.bridge.process.pid), f"beside-{len(head)}"
    with many_files(), contextlib.ExitStack() as held:
        for _ in range(1_100):
            with contextlib.suppress(OSError):
                held.enter_context(connect(door, head))
        wait_until(lambda: process.num_fds() < MAX_CONNECTIONS + OTHER_FILES, "those beyond the cap to be ended")
        assert door.backend.audio(name, make_wav(1.0)).verdict is Verdict.ACCEPTED
        assert door.audio(f"{name}-http", make_wav(1.0, tone=2)).status_code == 202
        wait_until(lambda: process.num_fds() < OTHER_FILES, "the end of connections that ask for nothing")


def test_connections_that_never_read_their_answers_keep_nobody_out(door: Door) -> None:
    """Each sends half a megabyte of requests, without a token, and then only stays."""
    requests = b"GET /v1/conversations HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 12_000
    with many_files(), contextlib.ExitStack() as held:
        for _ in range(MAX_CONNECTIONS):
            connection = held.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.connect(("127.0.0.1", door.port))
            connection.sendall(requests)
        for number in range(3):
            with httpx.Client(base_url=door.url, headers=door.client.headers, timeout=WAIT_S) as client:
                answer = client.post(f"/v1/conversations/unread-{number}/audio", content=make_wav(1.0), headers=WAV)
            assert answer.status_code == 202


def test_a_file_that_cannot_be_opened_is_no_full_disk(door: Door) -> None:
    """The bridge is left no file to open: what it says names the limit, it lives on, and with some it goes on."""
    assert door.bridge.process is not None
    process = psutil.Process(door.bridge.process.pid)
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (3, before[1]))
    try:
        receipt = door.backend.audio("no-files", make_wav(1.0), chunk_id="c1")
        refused_at = datetime.now(UTC)
        wait_until(
            lambda: any(beat.sent_at > refused_at for beat in door.backend.seen(BridgeHeartbeat)),
            "a heartbeat of a bridge that can open nothing",
        )
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, before)
    assert (receipt.verdict, receipt.reason) == (Verdict.REFUSED, "ingest.full")
    assert "LimitNOFILE" in (receipt.message or "")
    assert door.backend.audio("no-files", make_wav(1.0), chunk_id="c1").verdict is Verdict.ACCEPTED


@pytest.mark.long
def test_bodies_that_drip_end_and_let_others_in(door: Door) -> None:
    answers: list[bytes] = []
    ended = threading.Event()
    dripping = [connect(door, upload_head(door, f"drip-{number}")) for number in range(MAX_UPLOADS + 8)]

    def drip() -> None:
        while not ended.wait(1.0):
            for connection in dripping:
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        assert door.audio("not-kept-out", make_wav(1.0, tone=3)).status_code == 202
        for connection in dripping[:MAX_UPLOADS]:
            assert select.select([connection], [], [], WAIT_S)[0], "a dripping body was never ended"
            with contextlib.suppress(OSError):
                answers.append(connection.recv(12))
    finally:
        ended.set()
        thread.join(WAIT_S)
        for connection in dripping:
            connection.close()
    assert answers
    assert set(answers) <= {b"HTTP/1.1 408", b""}
    assert b"HTTP/1.1 408" in answers


def test_a_body_that_pauses_and_goes_on_is_taken_whole(door: Door) -> None:
    """What came before a pause, and what comes after it, is one body."""
    audio = make_wav(60.0, tone=4)

    def with_pauses() -> Iterator[bytes]:
        for start in range(0, len(audio), len(audio) // 2 + 1):
            yield audio[start : start + len(audio) // 2 + 1]
            time.sleep(3.0)

    answer = door.audio("pauses", with_pauses())
    assert (answer.status_code, answer.json()["bytes"]) == (202, len(audio))


def test_a_body_that_is_refused_for_its_size_is_not_read_and_its_sender_hears_why(door: Door) -> None:
    """The answer comes at once and then the end of the connection, and not a reset, though the body is still sent."""
    with connect(door, upload_head(door, "too-large", 2**40)) as connection:
        connection.settimeout(WAIT_S)
        answer = b""
        while not answer.endswith(b"}"):
            connection.sendall(bytes(1_000))
            answer += connection.recv(4_096)
        assert answer.startswith(b"HTTP/1.1 413")
        connection.sendall(bytes(1_000))
        assert connection.recv(1) == b""
    assert door.audio("after-it", make_wav(1.0, tone=6)).status_code == 202


def test_a_part_that_nobody_asked_for_is_refused_early(broker: RunningBroker, door: Door) -> None:
    """It is no audio, so nothing asks for room for it: only a few bytes may come beside the file."""
    form = b'--b\r\nContent-Disposition: form-data; name="extra"\r\n\r\n' + bytes(20 * 2**20) + b"\r\n--b--\r\n"
    with answering(broker):
        wait_until(lambda: live(door), "the agent")
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        refused = door.open.post("/api/diarize", content=form, headers=headers)
        assert (refused.status_code, "no part is named `file`" in refused.text) == (422, True)
        assert door.diarize(make_wav(30.0, tone=5), num_speakers=2).status_code == 200


@pytest.mark.parametrize(
    "header", ["Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP"]
)
def test_what_came_through_a_proxy_needs_the_token_on_loopback_too(door: Door, header: str) -> None:
    assert door.open.get("/health").status_code == 200
    assert door.open.get("/health", headers={header: "for=203.0.113.9"}).status_code == 401
    assert door.client.get("/health", headers={header: "for=203.0.113.9"}).status_code == 200
