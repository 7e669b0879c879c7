"""Several bridges on one ledger: they share the work, go on when one dies or leaves, and nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from schemas.codec import encode
from schemas.conversation import ConversationEvent, ConversationUpdated, EventType, TranscriptSegment, Verdict
from tests.brokers import RunningBroker, free_port, run_mosquitto
from tests.bucket_server import RunningBucket, run_bucket
from tests.faults.tone_calls import assert_labelled, call_audio, call_segments
from tests.mac_agent.agent_process import AgentProcess, start_tone_agent
from tests.postgres_server import PASSWORD, RunningPostgres, ledger_options
from tests.vps_bridge.live_bridge import (
    STARTED_AT,
    TOPICS,
    Backend,
    LiveBridge,
    audio_payload,
    run_bridge,
    wait_until,
)
from tests.vps_bridge.test_bridge_on_postgresql import offer
from vps_bridge.conversations.postgres import PostgresConversations
from vps_bridge.database_server import read_url
from vps_bridge.rules.ownership import choose_owner

BRIDGES = ("bridge", "second")
AGENTS = ("first", "other")
MORE_OFFERS = 3  # of an update: more than what the bridge that had taken over may still have sent
PITCHES = (300, 700) * 3
PACE_S = 0.1
TOKEN = "a-token-of-these-tests-alone"


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    directory = tmp_path_factory.mktemp("broker")
    with run_mosquitto(directory, agent_ids=AGENTS, further_bridges=BRIDGES[1:]) as running:
        yield running


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBucket]:
    with run_bucket(tmp_path_factory.mktemp("bucket")) as running:
        yield running


@dataclass
class Company:
    """Bridges on one ledger, and where it is."""

    backend: Backend
    options: dict[str, str]
    bridges: dict[str, LiveBridge]
    store: PostgresConversations

    def log(self, event: str, names: Sequence[str], **fields: object) -> list[dict[str, object]]:
        """What any bridge logged of these conversations."""
        lines = [line for bridge in self.bridges.values() for line in bridge.logged(event, **fields)]
        return [line for line in lines if line["conversation"] in names]

    def owned_by(self, bridge_id: str, prefix: str) -> str:
        """A conversation that one of two bridges owns."""
        return next(n for i in range(99) if choose_owner(n := f"{prefix}-{i}", BRIDGES) == bridge_id)

    def http(self, bridge_id: str) -> httpx.Client:
        url = f"http://127.0.0.1:{self.bridges[bridge_id].options['OMI_HTTP_PORT']}"
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60, trust_env=False)

    def wait_both(self) -> None:
        """Until each bridge knows that both are owners."""

        def knows_both(bridge: LiveBridge) -> bool:
            seen = bridge.logged("owners")
            return bool(seen) and tuple(seen[-1]["bridges"]) == BRIDGES

        wait_until(lambda: all(map(knows_both, self.bridges.values())), "that each knows the other")


@pytest.fixture(scope="module")
def two_bridges(
    mosquitto: RunningBroker,
    backend: Backend,
    bucket: RunningBucket,
    postgres: RunningPostgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Company]:
    with run_company(mosquitto, backend, bucket, postgres, tmp_path_factory.mktemp("company")) as company:
        yield company


@contextlib.contextmanager
def run_company(
    broker: RunningBroker, backend: Backend, bucket: RunningBucket, postgres: RunningPostgres, directory: Path
) -> Iterator[Company]:
    """Two bridges on a new ledger, and the agents that are allowed."""
    database = postgres.new_database()
    url = postgres.url(database)
    shared = ledger_options(postgres, database) | bucket.environment(directory) | {"OMI_HEARTBEAT_S": "1"}
    shared |= {"OMI_CONVERSATIONS_URL": url, "OMI_CONVERSATIONS_SECRET": PASSWORD, "OMI_HTTP_TOKEN": TOKEN}
    store = PostgresConversations(read_url("conversations", url, PASSWORD))
    with contextlib.ExitStack() as stack:
        bridges = {}
        for bridge_id in BRIDGES:
            role = "bridge" if bridge_id == "bridge" else f"bridge:{bridge_id}"
            own = {"OMI_BRIDGE_ID": bridge_id, "OMI_HTTP_PORT": str(free_port())}
            running = run_bridge(broker, directory / bridge_id, backend, role=role, **shared, **own)
            bridges[bridge_id] = stack.enter_context(running)
        bridges["bridge"].allow(*AGENTS)
        yield Company(backend, shared, bridges, store)
    store.close()


@pytest.fixture
def company(two_bridges: Company, backend: Backend) -> Company:
    """The two bridges, which know each other; whichever a test before ended runs again."""
    for bridge in two_bridges.bridges.values():
        if bridge.process is not None and bridge.process.poll() is not None:
            bridge.start(backend)
    two_bridges.wait_both()
    return two_bridges


@pytest.fixture
def agent(mosquitto: RunningBroker, tmp_path: Path) -> Iterator[AgentProcess]:
    running = start_tone_agent(mosquitto, tmp_path / "agent", agent_id="first")
    yield running
    running.end()


def offer_call(
    backend: Backend, name: str, audio: bytes, segments: tuple[TranscriptSegment, ...] | None = None
) -> None:
    """A whole call, each message repeated until its receipt comes, as every publisher does."""
    for kind, fields in (
        (EventType.STARTED, {"started_at": STARTED_AT}),
        (EventType.SEGMENTS, {"segments": segments or call_segments(name, PITCHES)}),
        (EventType.COMPLETED, {"chunks": 1}),
    ):
        event = ConversationEvent(event_id=f"{name}-{kind}", type=kind, **fields)
        offer(backend, TOPICS.events(name), event, name, event_id=event.event_id)
    payload = audio_payload(name, audio, chunk_id=f"{name}-k", captured_at=STARTED_AT)
    offer(backend, TOPICS.audio(name), payload, name, chunk_id=f"{name}-k")


def post_event(door: httpx.Client, name: str, event: ConversationEvent) -> httpx.Response:
    kind = {"Content-Type": "application/json"}
    return door.post(f"/v1/conversations/{name}/events", content=encode(event), headers=kind)


def assert_each_done_once(company: Company, names: Sequence[str]) -> None:
    """Each payload is one chunk in one job, its conversation has its labels, and they were written once."""
    for name in names:
        assert_labelled(company.backend.wait_updated(name), PITCHES)
        assert len(company.store.history(name)) == 1, name
    jobs = [job for name in names for job in company.bridges["bridge"].jobs(name)]
    assert Counter(job["conversation_id"] for job in jobs) == Counter(names)
    wait_until(
        lambda: {job["state"] for name in names for job in company.bridges["bridge"].jobs(name)} == {"done"},
        "the end of all jobs",
    )
    assert len(company.log("turns", names, verdict="stored")) == len(names)


def test_two_bridges_share_the_conversations_and_each_is_done_once(
    company: Company, backend: Backend, agent: AgentProcess
) -> None:
    audio, names = call_audio(PITCHES), [f"shared-{number}" for number in range(8)]
    for name in names:
        offer_call(backend, name, audio)
    assert_each_done_once(company, names)
    for bridge_id, bridge in company.bridges.items():
        mine = {line["conversation"] for line in bridge.logged("chunk_accepted")} & set(names)
        assert mine == {name for name in names if choose_owner(name, BRIDGES) == bridge_id}
        assert mine, "both take a part"
    granted = company.bridges[choose_owner("first", BRIDGES) or ""].logged("lease_granted")
    assert {line["conversation"] for line in granted} >= set(names), "an agent's leases are one bridge's"
    assert not any(bridge.logged("survived") for bridge in company.bridges.values())


def test_any_bridge_answers_over_http_and_the_owner_does_the_work(
    company: Company, backend: Backend, bucket: RunningBucket, agent: AgentProcess
) -> None:
    name, before = company.owned_by("second", "http"), set(bucket.audio())
    with company.http("bridge") as door:
        for kind, fields in (
            (EventType.STARTED, {"started_at": STARTED_AT}),
            (EventType.SEGMENTS, {"segments": call_segments(name, PITCHES)}),
            (EventType.COMPLETED, {"chunks": 1}),
        ):
            event = ConversationEvent(event_id=f"{name}-{kind}", type=kind, **fields)
            assert post_event(door, name, event).status_code == 200
        where = f"/v1/conversations/{name}/audio?chunk_id=k&captured_at={STARTED_AT:%Y-%m-%dT%H:%M:%SZ}"
        sent = door.post(where, content=call_audio(PITCHES), headers={"Content-Type": "audio/wav"})
        assert sent.status_code == 202, sent.text
        assert_each_done_once(company, [name])
        assert company.bridges["second"].logged("conversation_updated", conversation=name)
        answer = door.post("/api/diarize", files={"file": ("a.wav", call_audio(PITCHES), "audio/wav")})
        assert answer.status_code == 200, answer.text
        deleted = post_event(door, name, ConversationEvent(event_id="gone", type=EventType.DELETED))
        assert (deleted.status_code, deleted.json()["verdict"]) == (200, Verdict.ACCEPTED)
    wait_until(lambda: set(bucket.audio()) <= before, "that the bucket has nothing of either")
    known = {key.rsplit("/", 2)[-2] for key, _ in before}
    copies = [path for bridge in company.bridges.values() for path in (bridge.data_dir / "bridge/copies").iterdir()]
    wait_until(
        lambda: all(path.name.partition("-")[0] in known or not path.exists() for path in copies),
        "that no bridge has a copy of what was deleted",
    )


def test_when_a_bridge_is_killed_the_other_goes_on_with_its_work(
    company: Company, backend: Backend, agent: AgentProcess
) -> None:
    audio, names = call_audio(PITCHES), [f"killed-{number}" for number in range(8)]
    agent.behaviour.write_text("wait 0.3")

    def offer_all() -> None:
        for name in names:
            offer_call(backend, name, audio)

    publisher = threading.Thread(target=offer_all)
    publisher.start()
    wait_until(lambda: len(company.log("chunk_accepted", names)) >= 3, "work in flight")
    victim, other = sorted(BRIDGES, key=lambda each: each != choose_owner("first", BRIDGES))
    company.bridges[victim].kill()  # it has the agent's leases
    publisher.join()
    assert_each_done_once(company, names)
    assert company.bridges[other].logged("owners")[-1]["bridges"] == [other]


def test_a_bridge_that_hangs_is_taken_for_dead_and_does_no_harm_when_it_wakes(
    company: Company, backend: Backend, agent: AgentProcess
) -> None:
    """Its connections stay open, so neither broker nor server tells that it is gone."""
    hung = company.bridges["second"]
    assert hung.process is not None
    hung.process.send_signal(signal.SIGSTOP)
    audio, names = call_audio(PITCHES), [company.owned_by("second", f"hung-{number}") for number in range(3)]
    try:
        for name in names:
            offer_call(backend, name, audio)
        assert company.bridges["bridge"].logged("bridges_died")
        assert_each_done_once(company, names)
    finally:
        hung.process.send_signal(signal.SIGCONT)
    wait_until(lambda: hung.logged("taken_for_dead"), "that it finds itself replaced")
    company.wait_both()
    for name in names:
        told = len(backend.seen(ConversationUpdated, name))
        more = told + MORE_OFFERS
        wait_until(lambda name=name, more=more: len(backend.seen(ConversationUpdated, name)) >= more, "its offers")  # type: ignore[misc]
    assert_each_done_once(company, names)


def test_a_rolling_restart_of_both_leaves_no_message_without_an_owner(company: Company, backend: Backend) -> None:
    """Every event is sent once: whoever takes it meanwhile, somebody does, so nobody has to repeat anything."""
    restarted, sent = threading.Event(), 0

    def restart_all() -> None:
        for bridge in company.bridges.values():
            assert bridge.stop() == 0
            bridge.start(backend)
        company.wait_both()
        restarted.set()

    restarter = threading.Thread(target=restart_all)
    restarter.start()
    while not restarted.is_set() and restarter.is_alive():
        names = [company.owned_by(bridge_id, f"rolling-{sent}") for bridge_id in BRIDGES]
        for name in names:
            event = ConversationEvent(event_id=name, type=EventType.STARTED, started_at=STARTED_AT)
            backend.publish(TOPICS.events(name), event)
        for name in names:
            assert backend.wait_receipt(name, event_id=name).verdict is Verdict.ACCEPTED
        sent += len(names)
        time.sleep(PACE_S)
    restarter.join()
    assert restarted.is_set()
    assert sent > len(BRIDGES), "there was load all the while"


def test_a_bridge_that_keeps_audio_on_its_own_disk_does_not_start_beside_others(
    company: Company, mosquitto: RunningBroker, tmp_path: Path
) -> None:
    other = LiveBridge(mosquitto, tmp_path / "third", role="bridge:second")
    other.options = {**company.options, "OMI_BRIDGE_ID": "third"}
    for missing in ("OMI_SPOOL_URL", "OMI_CONVERSATIONS_URL"):
        refused = other.command("run", check=False, without=[missing])
        assert refused.returncode == 3
        assert f"set {missing} as that one has it" in " ".join(refused.stderr.split())
    refused = other.command("run", check=False, own={"OMI_BRIDGE_ID": "second"})
    assert refused.returncode == 3
    assert "OMI_BRIDGE_ID of its own" in " ".join(refused.stderr.split())
