import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.listener import TlsFiles
from broker.session import Incoming, MqttSession
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S


def ignore(_: Incoming) -> None:
    """For a session that subscribes to nothing."""


@pytest.fixture
def connect() -> Iterator[Callable[..., MqttSession]]:
    """Connect to a broker as a role, with the subscriptions `filters`."""
    sessions: list[MqttSession] = []

    def connect_as(
        broker: RunningBroker,
        role: str,
        *filters: str,
        on_message: Callable[[Incoming], None] = ignore,
        wait: bool = True,
        settings: dict[str, Any] | None = None,
        **options: Any,
    ) -> MqttSession:
        options.setdefault("client_id", f"{role}-{len(sessions)}")
        session = MqttSession(broker.settings(role, **settings or {}), on_message=on_message, **options)
        sessions.append(session)
        for topic_filter in filters:
            session.subscribe(topic_filter)
        session.start()
        if wait:
            session.wait_connected(WAIT_S)
        return session

    yield connect_as
    for session in sessions:
        session.stop(timeout_s=2.0)


@dataclass(frozen=True)
class OwnCa:
    ca_file: Path
    server: TlsFiles


@pytest.fixture
def own_ca(tmp_path: Path) -> OwnCa:
    """A new CA and a certificate for 127.0.0.1 that it has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl is installed here")
    directory = tmp_path / "tls"
    directory.mkdir()
    (directory / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    for command in (
        f"req -x509 {new_key} -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca",
        f"req {new_key} -keyout server.key -out server.csr -subj /CN=broker",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile san",
    ):
        subprocess.run(["openssl", *command.split()], cwd=directory, check=True, capture_output=True)
    return OwnCa(directory / "ca.pem", TlsFiles(directory / "server.pem", directory / "server.key"))
