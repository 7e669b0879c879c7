"""A whole bridge whose ledger is in PostgreSQL: what it does with a file it does with a server, and outlives it."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import vps_bridge.ledger.ledger as opening
from schemas.agent import AgentControl, OfferedChunk
from schemas.bridge import BridgeHeartbeat
from schemas.codec import encode
from schemas.conversation import ConversationEvent, EventType
from schemas.record import Message
from tests.brokers import RunningBroker
from tests.faults.proxy import TcpProxy
from tests.inbox import WAIT_S
from tests.postgres_server import PASSWORD, RunningPostgres, ledger_options, run_postgres
from tests.vps_bridge.answering_agent import AnsweringAgent
from tests.vps_bridge.live_bridge import (
    CALL_S,
    CALL_TURNS,
    STARTED_AT,
    TOPICS,
    Backend,
    LiveBridge,
    audio_payload,
    call_segments,
    run_bridge,
    wait_until,
)
from tests.vps_bridge.scripted_agent import RANGE_BYTES, ScriptedAgent, make_wav
from vps_bridge import bridge_files
from vps_bridge.bridge import Bridge
from vps_bridge.commands.earlier import find_earlier
from vps_bridge.errors import LedgerUnavailable
from vps_bridge.ledger.conversations import ConversationBook
from vps_bridge.opened import OPENED
from vps_bridge.settings import BridgeSettings

OFFER_S = 1.0
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
UNDO_JOBS = (
    "DELETE FROM omi_ledger.job_chunks",
    "DELETE FROM omi_ledger.jobs",
    "UPDATE omi_ledger.chunks SET covered = false",
    f"{CUT} AND pid <> pg_backend_pid()",
)


@pytest.fixture
def bridge(
    own_broker: RunningBroker, own_backend: Backend, postgres: RunningPostgres, tmp_path: Path
) -> Iterator[LiveBridge]:
    options = ledger_options(postgres, postgres.new_database())
    with run_bridge(own_broker, tmp_path / "data", own_backend, **options) as running:
        running.allow("first")
        yield running


def offer(backend: Backend, topic: str, message: Message, conversation_id: str, **ids: str) -> None:
    """Send it again and again until its receipt comes, as every publisher does."""
    deadline_s = time.monotonic() + WAIT_S
    while not backend.receipts(conversation_id, **ids):
        assert time.monotonic() < deadline_s, f"no receipt for {ids}"
        backend.publish(topic, message)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: backend.receipts(conversation_id, **ids), "a receipt", OFFER_S)


def offer_call(backend: Backend, name: str) -> None:
    """A whole call: started, one chunk, completed."""
    for kind, fields in (
        (EventType.STARTED, {"started_at": STARTED_AT}),
        (EventType.COMPLETED, {"chunks": 1}),
    ):
        event = ConversationEvent(event_id=f"{name}-{kind}", type=kind, **fields)
        offer(backend, TOPICS.events(name), event, name, event_id=event.event_id)
    payload = audio_payload(name, make_wav(CALL_S), chunk_id=f"{name}-k", captured_at=STARTED_AT)
    offer(backend, TOPICS.audio(name), payload, name, chunk_id=f"{name}-k")


def test_a_call_is_taken_in_worked_on_and_labelled(
    own_broker: RunningBroker, own_backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(own_broker, "first") as agent:
        own_backend.send_call("call")
        agent.answer(agent.wait_offer("call"), CALL_TURNS)
        assert own_backend.wait_updated("call").speakers == 2
    assert bridge.json("jobs")[0]["state"] == "done"
    assert not list((bridge.data_dir / "bridge").glob("ledger.sqlite3*"))
    assert (bridge.data_dir / OPENED).exists(), "what `install` waits for"
    assert len(find_earlier("call", (), None, bridge.data_dir).gone) == len(call_segments("call"))
    refused = bridge.command("backup", str(bridge.data_dir / "b.tar"), check=False)
    assert refused.returncode == 1
    assert "pg_dump" in refused.stderr
    examined = json.loads(bridge.command("doctor", "--wait", "1", "--json", check=False).stdout)
    (ledger,) = [check for check in examined if check["name"] == "ledger"]
    assert ledger["verdict"] == "ok"
    assert "syncs what it commits" in ledger["found"]
    assert bridge.json("purge", "call", "--yes")["finished"], "the running bridge erases it"
    assert bridge.is_deleted("call")


def test_it_outlives_a_broker_that_comes_back_while_its_ledger_is_away(
    own_broker: RunningBroker, own_backend: Backend, postgres: RunningPostgres, tmp_path: Path
) -> None:
    with TcpProxy(postgres.port) as way:
        options = ledger_options(postgres, database := postgres.new_database())
        options["OMI_DATABASE_URL"] = postgres.url(database, port=way.port)
        with run_bridge(own_broker, tmp_path / "data", own_backend, **options) as bridge:
            way.refuse()
            way.cut()
            own_broker.stop()
            own_backend.messages.clear()  # what comes from here on, came through the new broker
            own_broker.start()
            own_backend.session.wait_connected(WAIT_S)
            wait_until(lambda: _says_away(own_backend), "a heartbeat that says so")
            way.refuse(on=False)
            offer_call(own_backend, "call")
            assert bridge.process is not None
            assert bridge.process.poll() is None


def test_it_starts_though_its_ledger_goes_away_while_it_opens_its_files(
    own_broker: RunningBroker, postgres: RunningPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first attempt had opened, and locked, is free for the next."""
    url = postgres.url(postgres.new_database())
    settings = own_broker.settings(
        "bridge", BridgeSettings, data_dir=tmp_path, database_url=url, database_secret=PASSWORD, http_port=0
    )
    monkeypatch.setattr(bridge_files, "MIN_PAUSE_S", 0.01)
    real, tried = ConversationBook.latest_open, []

    def fail_once(book: ConversationBook, limit: int) -> list[str]:
        tried.append(limit)
        if len(tried) == 1:
            raise LedgerUnavailable("hung up")
        return real(book, limit)

    monkeypatch.setattr(ConversationBook, "latest_open", fail_once)
    with monkeypatch.context() as within:
        within.setattr(opening, "HOLD_S", 0.0)
        bridge = bridge_files.until_there(lambda: Bridge(settings))
    monkeypatch.setattr(signal, "signal", lambda *_handler: None)  # those of the tests stay as they are
    bridge.stop()
    bridge.run()
    assert len(tried) == 2


def _says_away(backend: Backend) -> bool:
    return any((beat.last_error or "").startswith("the ledger") for beat in backend.seen(BridgeHeartbeat))


def test_what_a_crash_of_the_server_undid_is_done_again(
    own_backend: Backend, bridge: LiveBridge, postgres: RunningPostgres
) -> None:
    """A job that was made is on the server's disk only with the next receipt: until then a crash may undo it."""
    offer_call(own_backend, "call")
    (made,) = wait_until(lambda: bridge.jobs("call"), "its job")
    with postgres.superuser(bridge.options["OMI_DATABASE_URL"].rpartition("/")[2]) as connection:
        for statement in UNDO_JOBS:
            connection.exec_driver_sql(statement)
    (again,) = wait_until(lambda: bridge.jobs("call"), "its job, made anew")
    assert again["job_id"] != made["job_id"]


class PatientAgent(AnsweringAgent):
    """It asks again for parts, and offers its result, until they come and it is settled, as an agent does."""

    def _do(self, offer: AgentControl) -> None:
        for chunk in offer.chunks:
            while not self._has(offer, chunk) and self.held.get(offer.job_id or "") == offer.lease_id:
                for start in range(0, chunk.bytes, RANGE_BYTES):
                    self.want(offer, chunk.chunk_id, start, min(start + RANGE_BYTES, chunk.bytes))
                with contextlib.suppress(AssertionError):
                    wait_until(lambda chunk=chunk: self._has(offer, chunk), "the parts", OFFER_S)  # type: ignore[misc]
        result = encode(self.result(offer, CALL_TURNS))
        while self.held.get(offer.job_id or "") == offer.lease_id and not self._is_settled(offer):
            self.send_raw(offer.conversation_id or "", result)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: self._is_settled(offer), "the receipt of a result", OFFER_S)
        self.held.pop(offer.job_id or "", None)

    def _is_settled(self, offer: AgentControl) -> bool:
        return any(settled.lease_id == offer.lease_id for settled in self.settled.items)

    def _has(self, offer: AgentControl, chunk: OfferedChunk) -> bool:
        of_it = [p for p in self.parts.items if (p.lease_id, p.chunk_id) == (offer.lease_id, chunk.chunk_id)]
        return sum(len(part.audio) for part in {part.byte_offset: part for part in of_it}.values()) == chunk.bytes


@pytest.mark.slow
def test_neither_a_killed_server_nor_a_killed_bridge_loses_or_doubles_what_was_accepted(
    own_broker: RunningBroker, own_backend: Backend, tmp_path: Path
) -> None:
    """Both are killed again and again while calls come in, are worked on and are labelled."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(run_postgres())
        options = ledger_options(server, "postgres")
        bridge = stack.enter_context(run_bridge(own_broker, tmp_path / "data", own_backend, **options))
        bridge.allow("first")
        stack.enter_context(PatientAgent(own_broker, "first"))
        names = [f"call-{number}" for number in range(24)]

        def offer_all() -> None:
            for name in names:
                offer_call(own_backend, name)

        publisher = threading.Thread(target=offer_all)
        publisher.start()
        for number, name in enumerate(names[2::4]):
            wait_until(lambda name=name: own_backend.receipts(name), f"some of {name}")  # type: ignore[misc]
            if number % 3 == 2:
                bridge.kill()
                bridge.start(own_backend)
            else:
                server.kill()
                server.start()
        publisher.join()
        for name in names:
            own_backend.wait_updated(name)
        jobs = [job for name in names for job in bridge.jobs(name)]
        assert len(jobs) == len(names), "each call is one job"
        assert {job["state"] for job in jobs} == {"done"}
        assert not bridge.logged("bridge_stopped")
        wait_until(lambda: len(list(bridge.spool.iterdir())) == len(names), "only audio that the ledger knows")
