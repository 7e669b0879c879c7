"""The HTTP door of a live bridge as its callers see it, and an agent that answers every job."""

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from schemas.agent import AgentControl
from schemas.conversation import EventType
from tests.brokers import RunningBroker, free_port
from tests.inbox import WAIT_S
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, LiveBridge
from tests.vps_bridge.scripted_agent import ScriptedAgent
from vps_bridge.ledger import Ledger

TOKEN = "a-token-of-this-test-alone"
WAV = {"Content-Type": "audio/wav"}


class Door:
    """The HTTP door of a bridge as programs on the same machine see it."""

    def __init__(self, bridge: LiveBridge, backend: Backend, token: str | None = TOKEN) -> None:
        self.bridge, self.backend = bridge, backend
        self.port = int(bridge.options["OMI_HTTP_PORT"])
        self.url = f"http://127.0.0.1:{self.port}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=WAIT_S)
        self.open = httpx.Client(base_url=self.url, timeout=WAIT_S)

    def audio(
        self, conversation_id: str, body: Any, headers: dict[str, str] | None = None, **query: Any
    ) -> httpx.Response:
        path = f"/v1/conversations/{conversation_id}/audio"
        return self.client.post(path, content=body, headers=headers or WAV, params=query)

    def event(self, conversation_id: str, kind: EventType, **fields: Any) -> httpx.Response:
        body = {"schema": "conversation-event", "version": "1.0", "event_id": f"e-{uuid.uuid4().hex}", "type": kind}
        return self.client.post(f"/v1/conversations/{conversation_id}/events", json=body | fields)

    def diarize(self, body: bytes, num_speakers: int | None = None) -> httpx.Response:
        """As the earlier backend calls it."""
        data = {} if num_speakers is None else {"num_speakers": str(num_speakers)}
        return self.open.post("/api/diarize", files={"file": ("call.wav", body, "audio/wav")}, data=data)

    @property
    def leftovers(self) -> list[str]:
        """Audio on the bridge's disk, and temporary conversations of one-off requests."""
        root = self.bridge.data_dir / "bridge"
        ledger = Ledger(root, exclusive=False)
        temporary = ledger.conversations.temporary()
        ledger.close()
        return temporary + [path.name for place in ("spool", "incoming") for path in (root / place).glob("*")]


def open_door(**options: str) -> dict[str, str]:
    return {"OMI_HTTP_PORT": str(free_port()), "OMI_HTTP_TOKEN": TOKEN} | options


def _answer(agent: ScriptedAgent, offer: AgentControl) -> None:
    agent.answer(offer, CALL_TURNS)


@contextlib.contextmanager
def answering(
    broker: RunningBroker, reply: Callable[[ScriptedAgent, AgentControl], None] = _answer
) -> Iterator[ScriptedAgent]:
    """An agent that answers every job."""
    ended = threading.Event()

    def work() -> None:
        done: set[str] = set()
        while not ended.wait(0.02):
            for (
                control
            ) in agent.settled.items:  # an offer that came twice is held twice here; a real agent holds it once
                if agent.held.get(control.job_id or "") == control.lease_id:
                    del agent.held[control.job_id or ""]
            for offer in agent.offers.items:
                if (offer.lease_id or "") not in done:
                    done.add(offer.lease_id or "")
                    reply(agent, offer)

    with ScriptedAgent(broker, "first") as agent:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield agent
        finally:
            ended.set()
            thread.join(WAIT_S)


def live(door: Door) -> bool:
    return door.open.get("/health").json()["status"] == "healthy"
