"""One attempt at a message: what counts as delivered, and how long it may take."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from broker.errors import SettingsError
from tests.brokers import free_port
from tests.docs.pages import all_blocks
from tests.inbox import WAIT_S, eventually
from tests.vps_bridge.webhook.hook_receiver import SECRET, HookReceiver, Manner
from vps_bridge.ledger.webhook_outbox import WebhookMessage
from vps_bridge.settings import BridgeSettings
from vps_bridge.signed_endpoint import SignedEndpoint, is_near
from vps_bridge.webhook.post import NotDelivered, Post
from vps_bridge.webhook.receiver import read_receiver

MESSAGE = WebhookMessage(1, "d-1", "c1", "job-failure", b'{"conversation_id": "c1"}')


@pytest.fixture(scope="module")
def hook() -> Iterator[HookReceiver]:
    receiver = HookReceiver()
    with receiver.listening():
        yield receiver


def receiver_of(url: str, *, secret: str = SECRET, timeout_s: float = WAIT_S, insecure: bool = False) -> SignedEndpoint:
    settings = BridgeSettings(webhook_url=url, webhook_secret=SecretStr(secret), webhook_insecure=insecure)
    found = read_receiver(settings)
    assert found is not None
    return replace(found, timeout_s=timeout_s)


def test_a_message_comes_whole_signed_and_under_its_id(hook: HookReceiver) -> None:
    hook.manner = Manner.TAKE
    Post(receiver_of(hook.url)).send(MESSAGE, int(time.time()))
    came = hook.came.items[-1]
    assert (came.path, came.delivery, came.schema, came.body) == ("/hook?key=hush", "d-1", "job-failure", MESSAGE.body)
    assert came.is_signed_with(SECRET)
    assert not came.is_signed_with(SECRET + "x")


@pytest.mark.parametrize(
    ("manner", "said"),
    [
        (Manner.FAIL, "answered 500"),
        (Manner.REDIRECT, "redirects are not followed"),
        (Manner.OTHER_SECRET, "answered 401: has it the same secret"),
        (Manner.TAKE_AND_HANG_UP, "hung up"),
        (Manner.HANG, "no answer within"),
        (Manner.DRIP, "no answer within"),
    ],
)
def test_anything_but_a_2xx_in_time_is_not_delivered(hook: HookReceiver, manner: Manner, said: str) -> None:
    hook.manner = manner
    waits = manner in (Manner.HANG, Manner.DRIP)
    with pytest.raises(NotDelivered, match=said) as refused:
        Post(receiver_of(hook.url, timeout_s=0.3 if waits else WAIT_S)).send(MESSAGE, 1)
    assert "hush" not in str(refused.value)
    assert "/elsewhere" not in [request.path for request in hook.came.items]


def test_an_attempt_is_ended_from_another_thread(hook: HookReceiver) -> None:
    hook.manner = Manner.HANG
    post, before = Post(receiver_of(hook.url)), len(hook.came.items)
    ended: list[Exception] = []

    def send() -> None:
        with pytest.raises(NotDelivered) as error:
            post.send(MESSAGE, 1)
        ended.append(error.value)

    thread = threading.Thread(target=send)
    thread.start()
    hook.came.wait_count(before + 1)
    post.abort()
    thread.join(WAIT_S)
    assert len(ended) == 1


def test_nobody_there_is_said_with_the_address_alone() -> None:
    port = free_port()
    with pytest.raises(NotDelivered, match=f"http://127.0.0.1:{port}: Connection refused"):
        Post(receiver_of(f"http://127.0.0.1:{port}/hook?key=hush")).send(MESSAGE, 1)


def test_without_tls_nothing_is_sent_beyond_loopback_and_tailnet(hook: HookReceiver, monkeypatch) -> None:
    named = receiver_of(f"http://localhost:{hook.port}/hook")  # the address is known only once it is connected
    monkeypatch.setattr("vps_bridge.signed_endpoint.is_near", lambda _address: False)
    came = len(hook.came.items)
    with pytest.raises(NotDelivered, match="use https://"):
        Post(named).send(MESSAGE, 1)
    assert len(hook.came.items) == came
    hook.manner = Manner.TAKE
    Post(replace(named, is_insecure=True)).send(MESSAGE, 1)


def test_which_addresses_are_near() -> None:
    near = ("127.0.0.1", "127.3.0.1", "::1", "100.64.0.7", "100.127.255.1", "fd7a:115c:a1e0::7", "::ffff:100.64.0.1")
    far = ("100.128.0.1", "10.0.0.1", "192.168.1.4", "8.8.8.8", "fe80::1%eth0", "fd00::1", "::ffff:8.8.8.8")
    assert [is_near(address) for address in near] == [True] * len(near)
    assert [is_near(address) for address in far] == [False] * len(far)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://127.0.0.1/x", "an absolute URL"),
        ("file:///etc/passwd", "an absolute URL"),
        ("127.0.0.1:9000/hush", "an absolute URL"),
        ("https:///hush", "an absolute URL"),
        ("https://h.example/hush#a", "an absolute URL"),
        ("https://h.example/hu sh", "an absolute URL"),
        ("https://h.example/hush\r\nX: y", "an absolute URL"),
        ("https://h.example:99999/hush", "an absolute URL"),
        ("https://me:hush@h.example/", "without user and password"),
        ("http://8.8.8.8/hush", "use https://"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_without_saying_it(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)) as refused:
        receiver_of(url)
    assert "hush" not in str(refused.value)


def test_the_secret_is_needed_and_may_be_in_a_file_of_its_own(tmp_path: Path) -> None:
    for short in (None, SecretStr("short")):
        with pytest.raises(SettingsError, match="openssl rand"):
            read_receiver(BridgeSettings(webhook_url="https://h.example", webhook_secret=short))
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o644)
    settings = BridgeSettings(webhook_url="https://h.example", webhook_secret_file=file)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_receiver(settings)
    file.chmod(0o600)
    receiver = read_receiver(settings)
    assert receiver is not None
    assert (receiver.secret, receiver.shown, receiver.target) == (SECRET, "https://h.example:443", "/")
    assert SECRET not in repr(receiver)


def test_the_receiver_of_the_documentation_takes_what_is_signed_and_nothing_else(tmp_path: Path) -> None:
    (program,) = (block.text for block in all_blocks("python", run="webhook"))
    assert program.count("\n") <= 22, "ten lines, and those that a formatter puts between"
    port, said = free_port(), tmp_path / "said"
    (tmp_path / "receiver.py").write_text(program.replace("9000", str(port)))
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, tmp_path / "receiver.py"], env={"OMI_WEBHOOK_SECRET": SECRET}, stdout=out, stderr=out
        )
    try:
        post = Post(receiver_of(f"http://127.0.0.1:{port}/"))
        eventually(lambda: delivers(post, int(time.time())))
        assert "d-1" in said.read_text()
        assert MESSAGE.body.decode() in said.read_text()
        with pytest.raises(NotDelivered, match="answered 401"):
            Post(receiver_of(f"http://127.0.0.1:{port}/", secret="another-secret-altogether")).send(
                MESSAGE, int(time.time())
            )
        with pytest.raises(NotDelivered, match="answered 401"):
            post.send(MESSAGE, int(time.time()) - 3_600)
    finally:
        process.kill()
        process.wait()


def delivers(post: Post, now: int) -> bool:
    try:
        post.send(MESSAGE, now)
    except NotDelivered as error:
        if "refused" in str(error):  # it is not up yet
            return False
        raise
    return True
