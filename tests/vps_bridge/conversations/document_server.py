"""A backend that keeps conversations with the router of `integrations/fastapi_store.py`: a real process on loopback.

python -m tests.vps_bridge.conversations.document_server PORT FILE
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from integrations.fastapi_store import SqliteDocuments, conversation_router
from tests.brokers import free_port
from tests.inbox import WAIT_S
from vps_bridge.conversations.http_store import HttpConversations
from vps_bridge.signed_endpoint import SignedEndpoint, read_endpoint

ROOT = Path(__file__).resolve().parents[3]
SECRET = "a-secret-of-these-tests-alone"


def endpoint_at(port: int, *, secret: str = SECRET, timeout_s: float = WAIT_S) -> SignedEndpoint:
    url = f"http://127.0.0.1:{port}/omi/conversations?key=hush"
    return read_endpoint("conversations", "it", url, secret, is_insecure=False, timeout_s=timeout_s)


def make_app(path: Path) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.include_router(conversation_router(SqliteDocuments(path), SECRET), prefix="/omi/conversations")
    return app


@dataclass
class DocumentServer:
    """The backend's process. `kill` is SIGKILL; `start` brings it back on the same port, with the same file."""

    path: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/omi/conversations"

    def open_store(self, *, port: int | None = None, timeout_s: float = WAIT_S) -> HttpConversations:
        return HttpConversations(endpoint_at(port or self.port, timeout_s=timeout_s))

    def start(self) -> None:
        command = [sys.executable, "-m", __name__, str(self.port), str(self.path)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            assert self.process.poll() is None
            with contextlib.suppress(Exception):
                self.open_store().check()
                return
            time.sleep(0.03)
        raise AssertionError("the backend did not start")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def run_documents(path: Path) -> Iterator[DocumentServer]:
    server = DocumentServer(path)
    server.start()
    try:
        yield server
    finally:
        server.kill()


if __name__ == "__main__":
    uvicorn.run(make_app(Path(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
