"""A cluster under bridge and agents: its servers are killed, the leader too, and all are restarted in turn."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from broker.errors import BrokerUnreachable
from schemas.conversation import ConversationUpdated, TranscriptSegment
from tests.clusters import NAMES, RunningCluster, run_cluster
from tests.faults.conftest import AGENTS, StartAgent
from tests.faults.tone_calls import TWO_VOICES, assert_labelled, call_audio, spoken_spans
from tests.inbox import WAIT_S
from tests.jetstream import Streams, let_look
from tests.vps_bridge.live_bridge import Backend, LiveBridge, run_bridge, wait_until
from vps_bridge.client.client import BridgeClient

SENDERS = 3
PAUSE_S = 0.3  # of a sender between two conversations


class TalkStream:
    """Conversations that are sent one after the other by real clients, until there are enough."""

    def __init__(self, cluster: RunningCluster, path: Path) -> None:
        self._cluster, self._path = cluster, path
        self.names: list[str] = []
        self.accepted = 0
        self.problems: list[BaseException] = []
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._send_on, args=(place,), daemon=True) for place in range(SENDERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(WAIT_S)

    def wait_more(self, count: int) -> None:
        """Wait until so many more were accepted."""
        wanted = self.accepted + count
        wait_until(lambda: self.problems or self.accepted >= wanted, f"{count} more receipts", WAIT_S)
        assert self.problems == []

    def _send_on(self, place: int) -> None:
        number = 0
        try:
            while not self._enough.is_set():
                name = f"talk-{place}-{number}"
                number += 1
                self.names.append(name)
                while not self._has_sent(name):
                    pass
                self.accepted += 1
                self._enough.wait(PAUSE_S)
        except BaseException as error:  # noqa: BLE001 - told by the test
            self.problems.append(error)

    def _has_sent(self, name: str) -> bool:
        """Send a conversation, unless no server lets anybody in: for some seconds after a leader's death."""
        try:
            self._send(name)
        except BrokerUnreachable:
            return False
        return True

    def _send(self, name: str) -> None:
        with BridgeClient(self._cluster.settings("backend"), name) as client:
            client.start(timeout_s=WAIT_S)
            client.send_segments(
                [
                    TranscriptSegment(id=f"{name}-{turn}", start_s=start, end_s=end, text="word", speaker="X")
                    for turn, (start, end) in enumerate(spoken_spans(len(TWO_VOICES)))
                ],
                timeout_s=WAIT_S,
            )
            client.send_file(self._path, chunk_id="c1", timeout_s=WAIT_S)
            client.complete(chunks=1, timeout_s=WAIT_S)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RunningCluster]:
    with run_cluster(tmp_path / "cluster", agent_ids=AGENTS, change=let_look) as running:
        yield running


@pytest.fixture
def backend(cluster: RunningCluster) -> Iterator[Backend]:
    peer = Backend(cluster)  # type: ignore[arg-type] # it takes what it needs of a broker
    yield peer
    peer.stop()


@pytest.fixture
def bridge(cluster: RunningCluster, backend: Backend, tmp_path: Path) -> Iterator[LiveBridge]:
    with run_bridge(cluster, tmp_path / "bridge", backend) as running:  # type: ignore[arg-type] # as above
        running.allow(*AGENTS)
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "call.wav"
    path.write_bytes(call_audio())
    return path


def leader_of(cluster: RunningCluster, stream: str) -> str:
    """The server that leads the group of a stream."""
    for name in cluster.processes:
        with Streams(cluster, name) as streams:
            return str(streams.info(stream)["cluster"]["leader"])
    raise AssertionError("no server runs")


def meta_leader(cluster: RunningCluster) -> str:
    """The server that leads the whole cluster, by what the servers say themselves."""
    said = [
        (line[:40], found[1])
        for name in NAMES
        for line in cluster.log(name).splitlines()
        if (found := re.search(r"JetStream cluster new metadata leader: (\w+)", line))
    ]
    return max(said)[1] if said else NAMES[0]


def assert_all_once(bridge: LiveBridge, backend: Backend, talk: TalkStream) -> None:
    """Every conversation that was accepted is labelled, by one job that was stored once and written once."""
    names = set(talk.names)

    def are_labelled() -> bool:
        updates = backend.seen(ConversationUpdated)
        return names <= {update.conversation_id for update in updates if update.state == "final"}

    wait_until(are_labelled, "the last update", WAIT_S)
    for name in names:
        assert_labelled(backend.wait_updated(name))
        (job,) = bridge.jobs(name)
        assert (job["state"], job["attempts"]) == ("done", 0)
    stored = Counter(str(line["job"]) for line in bridge.logged("turns", verdict="stored"))
    assert sorted(stored.values()) == [1] * len(names)
    assert len(bridge.json("history", talk.names[0])) == 1


def test_a_leader_is_killed_and_comes_back_and_nothing_is_lost_or_doubled(
    cluster: RunningCluster, backend: Backend, bridge: LiveBridge, path: Path, start_agent: StartAgent
) -> None:
    for agent_id in AGENTS:
        start_agent(cluster, agent_id)
    with TalkStream(cluster, path) as talk:
        talk.wait_more(3)
        name = leader_of(cluster, "$MQTT_rmsgs")
        cluster.kill(name)
        talk.wait_more(4)
        cluster.start(name)
        cluster.wait_ready(name)
        talk.wait_more(1)
    assert_all_once(bridge, backend, talk)


@pytest.mark.slow
def test_every_server_is_killed_and_restarted_in_turn_and_nothing_is_lost_or_doubled(
    cluster: RunningCluster, backend: Backend, bridge: LiveBridge, path: Path, start_agent: StartAgent
) -> None:
    for agent_id in AGENTS:
        start_agent(cluster, agent_id)
    with TalkStream(cluster, path) as talk:
        talk.wait_more(3)
        for end in (cluster.kill, cluster.stop):
            for name in (meta_leader(cluster), *NAMES):
                end(name)
                talk.wait_more(3)
                cluster.start(name)
                cluster.wait_ready(name)
        talk.wait_more(3)
    assert_all_once(bridge, backend, talk)
