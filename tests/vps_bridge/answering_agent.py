"""An agent that answers every offer at once: one voice from start to end, after so much work as the test says."""

import threading
from typing import Self

from schemas.agent import AgentControl
from schemas.codec import encode
from tests.brokers import RunningBroker
from tests.vps_bridge.scripted_agent import ScriptedAgent

POLL_S = 0.05


class AnsweringAgent(ScriptedAgent):
    """`with` starts and ends it. `worker_ms` is what it says that its worker took."""

    def __init__(self, broker: RunningBroker, agent_id: str, *, worker_ms: float = 1.0) -> None:
        super().__init__(broker, agent_id)
        self.worker_ms = worker_ms
        self._leaves = threading.Event()
        self._worker = threading.Thread(target=self._answer_all, daemon=True)

    def __enter__(self) -> Self:
        super().__enter__()
        self._worker.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._leaves.set()
        self._worker.join()
        super().__exit__(*error)

    def _answer_all(self) -> None:
        answered: set[str] = set()
        while not self._leaves.wait(POLL_S):
            for offer in self.offers.items:
                if offer.lease_id is not None and offer.lease_id not in answered:
                    answered.add(offer.lease_id)
                    self._do(offer)

    def _do(self, offer: AgentControl) -> None:
        self.pull(offer)
        turns = self.result(offer, [(0.1, 0.9, "a")]).model_copy(update={"timings_ms": {"total": self.worker_ms}})
        self.send_raw(offer.conversation_id or "", encode(turns))
        self.held.pop(offer.job_id or "", None)
