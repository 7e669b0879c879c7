"""Whatever numbers and times a message may hold, the bridge lives, stays small, and everybody else has their labels."""

from __future__ import annotations

import math
import struct
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import psutil
from pydantic import ValidationError

from schemas.agent import AgentControl, AgentHeartbeat, AgentState
from schemas.audio import ChunkDescription
from schemas.codec import encode
from schemas.conversation import ConversationEvent, EventType, TranscriptSegment, Word
from schemas.topics import TopicKind
from schemas.turns import ChunkSpan, SpeakerTurn, SpeakerTurns, SpeakerVoice
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.extremes import TIMES, list_extremes
from tests.vps_bridge.http.door import answering
from tests.vps_bridge.live_bridge import (
    CALL_S,
    CALL_TURNS,
    STARTED_AT,
    TOPICS,
    Backend,
    LiveBridge,
    audio_payload,
    call_segments,
    wait_until,
)
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav

MAX_RSS_BYTES = 1 << 30
HALF = timedelta(seconds=CALL_S / 2)
HONEST = "afterwards"
ODD_RESULTS = 40
LOOKS_EVERY = 5
OF_STARTED = ("started_at", "num_speakers", "min_speakers", "max_speakers")
OF_COMPLETED = ("revision", "chunks", "last_audio_at")
NEVER_COMES = (("last_audio_at", TIMES[-1]), ("chunks", 10_000_000))  # audio that is waited for


def answer(agent: ScriptedAgent, offer: AgentControl) -> None:
    agent.answer(offer, CALL_TURNS if offer.conversation_id == HONEST else [(0.1, 0.9, "a")])


class OddCalls:
    """Calls in two chunks, each with one odd value; none waits for another."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.odd = backend, dict[str, object]()

    def send(
        self,
        *,
        chunks: tuple[dict[str, Any], dict[str, Any]] = ({}, {}),
        started: dict[str, Any] | None = None,
        segment: dict[str, Any] | None = None,
        word: dict[str, Any] | None = None,
        completed: dict[str, Any] | None = None,
    ) -> None:
        """Send one, unless the schema refuses it."""
        name = f"odd-{uuid.uuid4().hex[:12]}"
        segments = list(call_segments(name))
        words = [{"text": "word", "start_s": 0.6, "end_s": 1.0}, {"text": "word", "start_s": 1.1, "end_s": 2.0}]
        first = segments[0].model_dump(mode="json") | ({"words": [words[0], words[1] | word]} if word else {})
        try:
            payloads = [
                audio_payload(name, make_wav(CALL_S / 2, tone=place), **self._describe(place) | odd)
                for place, odd in enumerate(chunks)
            ]
            segments[0] = TranscriptSegment.model_validate(first | (segment or {}))
            events = [
                self._event(EventType.STARTED, {"started_at": STARTED_AT} | (started or {})),
                self._event(EventType.SEGMENTS, {"segments": tuple(segments)}),
                self._event(EventType.COMPLETED, {"chunks": 2} | (completed or {})),
            ]
        except ValidationError:
            return
        self.odd[name] = [odd for odd in (*chunks, started, segment, word, completed) if odd]
        for event in events[:2]:
            self.backend.publish(TOPICS.events(name), event)
        for payload in payloads:
            self.backend.publish(TOPICS.audio(name), payload)
        self.backend.publish(TOPICS.events(name), events[2])

    @staticmethod
    def _describe(place: int) -> dict[str, Any]:
        return {"chunk_id": f"c-{place}", "sequence": place, "captured_at": STARTED_AT + place * HALF}

    @staticmethod
    def _event(kind: EventType, fields: dict[str, Any]) -> ConversationEvent:
        return ConversationEvent.model_validate({"event_id": f"e-{uuid.uuid4().hex}", "type": kind, **fields})


@contextmanager
def measured(bridge: LiveBridge) -> Iterator[list[int]]:
    """Memory of the bridge while it works; it is ended where it takes too much, before the machine is full."""
    assert bridge.process is not None
    process, most, ended = psutil.Process(bridge.process.pid), [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.05) and process.is_running():
            most[0] = max(most[0], process.memory_info().rss)
            if most[0] > 2 * MAX_RSS_BYTES:
                process.kill()
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def wait_for_all(bridge: LiveBridge, backend: Backend, calls: OddCalls) -> None:
    """Wait until nothing of any call is at work, and everybody else's calls have labels."""

    def unfinished() -> list[object]:
        final = {
            TOPICS.parse(message.topic).conversation_id
            for message in list(backend.messages)
            if TOPICS.parse(message.topic).kind is TopicKind.UPDATED and b'"final"' in message.payload
        }
        return [odd for name, odd in calls.odd.items() if name not in final]

    with suppress(AssertionError):
        wait_until(lambda: not unfinished(), "the end of all calls", timeout_s=WAIT_S / 3)
    assert unfinished() == []
    backend.send_call(HONEST, tone=7)
    assert {segment.speaker for segment in backend.wait_updated(HONEST).segments} == {"SPEAKER_00", "SPEAKER_01"}
    states = {(job["state"], job["failure_code"]) for name in calls.odd for job in bridge.jobs(name)}
    assert states <= {("done", None)}
    assert bridge.logged("survived") == []


def test_audio_with_any_number_and_time_that_its_schema_allows_harms_nobody(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    calls = OddCalls(own_backend)
    with measured(own_bridge) as most, answering(own_broker, answer):
        for field, value in list_extremes(ChunkDescription):
            calls.send(chunks=({field: value}, {}))
            calls.send(chunks=({}, {field: value}))
            calls.send(chunks=({field: value}, {field: value}))
        estimate = {"captured_error_s": 604_800.0}
        for shift in (timedelta(), timedelta(seconds=20), -timedelta(days=7), timedelta(days=7)):
            calls.send(chunks=(estimate, estimate | {"captured_at": STARTED_AT + HALF + shift}))
        for moment in (*TIMES, STARTED_AT - timedelta(days=12), STARTED_AT + timedelta(days=300)):
            calls.send(chunks=({"captured_error_s": 1.0}, {"captured_error_s": 1.0, "captured_at": moment}))
        wait_for_all(own_bridge, own_backend, calls)
    assert most[0] < MAX_RSS_BYTES
    assert len(calls.odd) >= 40


def test_events_with_any_number_and_time_that_their_schema_allows_harm_nobody(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    calls = OddCalls(own_backend)
    with measured(own_bridge) as most, answering(own_broker, answer):
        for field, value in list_extremes(ConversationEvent):
            if field in OF_STARTED:
                calls.send(started={field: value})
            elif field in OF_COMPLETED and (field, value) not in NEVER_COMES:
                calls.send(completed={field: value})
        for field, value in list_extremes(TranscriptSegment):
            calls.send(segment={field: value})
        for field, value in list_extremes(Word):
            calls.send(word={field: value})
        for start_s, end_s in ((-604_800.0, 604_800.0), (604_800.0, -604_800.0), (604_800.0, 604_800.0)):
            calls.send(segment={"start_s": start_s, "end_s": end_s})
            calls.send(word={"start_s": start_s, "end_s": end_s})
        wait_for_all(own_bridge, own_backend, calls)
    assert most[0] < MAX_RSS_BYTES
    assert len(calls.odd) >= 40


class OddBeats(ScriptedAgent):
    """An agent whose beats have one odd value."""

    odd: dict[str, Any] | None = None

    def _make_beat(self, state: AgentState) -> AgentHeartbeat:
        beat = super()._make_beat(state)
        return AgentHeartbeat.model_validate(beat.model_dump(by_alias=True) | (self.odd or {}))


def test_beats_with_any_number_and_time_that_their_schema_allows_harm_nobody(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    with measured(own_bridge) as most:
        with OddBeats(own_broker, "second") as agent:
            own_backend.send_call("waits", tone=3)
            for place, (field, value) in enumerate(list_extremes(AgentHeartbeat)):
                with suppress(ValidationError):
                    agent.odd = {field: value}
                    agent.beat()
                if place % LOOKS_EVERY == 0:  # a command takes as long to start as all beats to send
                    assert own_bridge.command("agents").returncode == 0
        with answering(own_broker, answer):
            own_backend.wait_updated("waits")
            wait_for_all(own_bridge, own_backend, OddCalls(own_backend))
    assert most[0] < MAX_RSS_BYTES


def list_odd_results(right: SpeakerTurns) -> list[SpeakerTurns]:
    """One result for each extreme of each of its parts; those that its schema refuses are left out."""
    plain = right.model_dump(by_alias=True)
    odd = [plain | {field: value} for field, value in list_extremes(SpeakerTurns)]
    for name, kind in (("turns", SpeakerTurn), ("speakers", SpeakerVoice), ("chunks", ChunkSpan)):
        first, *others = plain[name]
        for field, value in list_extremes(kind):
            odd.append(plain | {name: (first | {field: value}, *others)})
            if name == "turns":
                odd.append(odd[-1] | {"exclusive_turns": odd[-1]["turns"]})
    first, *others = plain["speakers"]
    numbers = len(first["embedding"]) // 4
    for value in (0.0, 1e-44, 3e38, math.inf, math.nan):
        vector = struct.pack(f"<{numbers}f", *[value] * numbers)
        odd.append(plain | {"speakers": (first | {"embedding": vector}, *others)})
    made = []
    for fields in odd:
        with suppress(ValidationError):
            made.append(SpeakerTurns.model_validate(fields))
    return made


def test_results_with_any_number_that_their_schema_allows_harm_no_job_but_their_own(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    sent = set[str]()

    def answer_oddly(agent: ScriptedAgent, offer: AgentControl) -> None:
        name = offer.conversation_id or ""
        if not name.startswith("odd-"):
            agent.answer(offer, CALL_TURNS)
            return
        results = list_odd_results(agent.result(offer, CALL_TURNS))
        assert len(results) <= ODD_RESULTS
        place = int(name.removeprefix("odd-")) % len(results)
        sent.add(name)
        agent.send_raw(name, encode(results[place]))
        agent.held.pop(offer.job_id or "", None)

    with measured(own_bridge) as most, answering(own_broker, answer_oddly):
        for place in range(ODD_RESULTS):
            own_backend.send_call(f"odd-{place}", tone=place)
        for place in range(ODD_RESULTS):
            own_backend.wait_updated(f"odd-{place}")
        wait_for_all(own_bridge, own_backend, OddCalls(own_backend))
    assert most[0] < MAX_RSS_BYTES
    assert len(sent) == ODD_RESULTS
