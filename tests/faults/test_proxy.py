"""The proxy does to a link what its methods say; all fault tests rely on it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import TcpProxy


class Echo:
    """A server that answers every byte with the same byte, and counts the connections that ended."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ended = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.listener.accept()
                threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            while data := peer.recv(4096):
                peer.sendall(data)
        self.ended += 1


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.listener.close()


@pytest.fixture
def link(echo) -> Iterator[TcpProxy]:
    with TcpProxy(echo.port) as proxy:
        yield proxy


def connect(link: TcpProxy) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", link.port), 10)
    peer.settimeout(10)
    return peer


def says(peer: socket.socket, word: bytes, *, within_s: float = 10.0) -> bool:
    """Whether the echo of a few bytes comes back."""
    peer.settimeout(within_s)
    with contextlib.suppress(TimeoutError, ConnectionError):
        peer.sendall(word)
        return peer.recv(64) == word
    return False


def test_a_good_link_passes_everything(link):
    with connect(link) as peer:
        assert says(peer, b"hello")


def test_a_cut_connection_ends_and_a_new_one_passes(link):
    with connect(link) as peer:
        assert says(peer, b"a")
        link.cut()
        assert not says(peer, b"b")
    with connect(link) as peer:
        assert says(peer, b"c")


def test_a_frozen_connection_is_silent_but_open_on_both_sides(link, echo):
    with connect(link) as peer:
        assert says(peer, b"a")
        link.freeze()
        assert not says(peer, b"b", within_s=0.5)
        with connect(link) as other:
            assert says(other, b"c")
    time.sleep(0.3)
    assert echo.ended <= 1, "the server must not notice that the frozen client has gone"
    link.cut()


def test_a_held_link_delivers_late(link):
    with connect(link) as peer:
        link.hold()
        assert not says(peer, b"late", within_s=0.5)
        link.release()
        peer.settimeout(10)
        assert peer.recv(64) == b"late"


def test_a_deaf_link_loses_answers_and_a_mute_one_questions(link, echo):
    with connect(link) as peer:
        assert says(peer, b"a")
        link.deafen()
        assert not says(peer, b"b", within_s=0.5)
    with connect(link) as peer:
        assert says(peer, b"a")
        link.mute()
        assert not says(peer, b"b", within_s=0.5)


def test_a_refusing_link_takes_no_new_connection(link):
    link.refuse()
    with contextlib.suppress(OSError), connect(link) as peer:
        assert not says(peer, b"a", within_s=1.0)
    link.refuse(on=False)
    with connect(link) as peer:
        assert says(peer, b"b")


def test_a_slow_link_is_slow(link):
    with connect(link) as peer:
        link.delay(0.2)
        began_s = time.monotonic()
        assert says(peer, b"a")
        assert time.monotonic() - began_s >= 0.4


def test_without_a_target_a_connection_closes(echo):
    echo.listener.close()
    with TcpProxy(1) as link, contextlib.suppress(OSError), connect(link) as peer:
        assert peer.recv(1) == b""
