"""Looking into the streams of a NATS server, as a user that may do everything: by its API, and into its files."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

from tests.clusters import RunningCluster
from tests.inbox import WAIT_S

LOOKER, PASSWORD = "looker", "looks-into-streams"


def let_look(config: dict[str, Any]) -> None:
    """Add that user to a server's configuration."""
    config["authorization"]["users"].append({"user": LOOKER, "password": PASSWORD})


def leave_plain(config: dict[str, Any]) -> None:
    """Let a server write to its disk unencrypted, so that what it writes can be read there."""
    del config["jetstream"]["key"], config["jetstream"]["cipher"]


class Streams:
    """All streams of a cluster, asked of one of its servers."""

    def __init__(self, cluster: RunningCluster, name: str) -> None:
        found = re.findall(r"Listening for client connections on 127\.0\.0\.1:(\d+)", cluster.log(name))
        self._socket = socket.create_connection(("127.0.0.1", int(found[-1])), WAIT_S)
        self._socket.settimeout(WAIT_S)
        self._file: BinaryIO = self._socket.makefile("rb")
        self._inbox = 0
        assert self._file.readline().startswith(b"INFO")
        self._send(b"CONNECT " + json.dumps({"user": LOOKER, "pass": PASSWORD, "verbose": False}).encode())
        self._send(b"SUB _INBOX.look.* 1")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()
        self._socket.close()

    def names(self) -> list[str]:
        return list(self._ask("STREAM.NAMES").get("streams") or ())

    def info(self, stream: str) -> dict[str, Any]:
        return self._ask(f"STREAM.INFO.{stream}")

    def messages(self, stream: str) -> Iterator[tuple[str, bytes]]:
        """Subject and content of whatever the stream holds."""
        state = self.info(stream)["state"]
        for sequence in range(state["first_seq"], state["last_seq"] + 1):
            answer = self._ask(f"STREAM.MSG.GET.{stream}", {"seq": sequence})
            if "message" in answer:
                yield answer["message"]["subject"], base64.b64decode(answer["message"].get("data") or "")

    def _ask(self, name: str, body: dict[str, object] | None = None) -> dict[str, Any]:
        self._inbox += 1
        payload = json.dumps(body or {}).encode()
        self._send(f"PUB $JS.API.{name} _INBOX.look.{self._inbox} {len(payload)}".encode(), payload)
        while True:
            line = self._file.readline()
            if line.startswith(b"PING"):
                self._send(b"PONG")
            elif line.startswith(b"MSG"):
                _, subject, _, size = line.split()
                answer = json.loads(self._file.read(int(size) + 2))
                if subject == f"_INBOX.look.{self._inbox}".encode():
                    return dict(answer)
            else:
                assert not line.startswith(b"-ERR"), line
                assert line, "the server hung up"

    def _send(self, *lines: bytes) -> None:
        self._socket.sendall(b"".join(line + b"\r\n" for line in lines))


def files_with(directory: Path, content: bytes) -> list[Path]:
    """The files below a directory that hold these bytes."""
    # `os.walk` bears that directories vanish: the server deletes some.
    found = (Path(root, name) for root, _, names in os.walk(directory) for name in names)
    return [path for path in found if _holds(path, content)]


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.is_file() and content in path.read_bytes()
    except FileNotFoundError:  # the server has deleted it meanwhile
        return False
