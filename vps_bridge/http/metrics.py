"""`/metrics` for Prometheus: numbers about queue, agents, latency and disk; no ids, names, words or audio."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from fastapi import FastAPI, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from schemas.failure import FailureCode
from vps_bridge.bucket.counts import BucketCounts
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.http.messages import Problem
from vps_bridge.http.own_connection import OwnConnection
from vps_bridge.http.reading import list_agents
from vps_bridge.http.routes import answers
from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.job_states import JobEvent, JobState
from vps_bridge.ledger.jobs import MAX_COUNTED
from vps_bridge.ledger.measures import MAX_EVENTS

PATH = "/metrics"
OTHER = "other"
"""The label of failures whose code this bridge does not know: an agent may send any."""
LATENCY_BUCKETS_S = (1, 2.5, 5, 10, 20, 30, 60, 90, 120, 180, 300, 600, 1_800, 3_600, 14_400, 86_400)


class BridgeMetrics:
    """The bridge's metrics. Counters begin when the bridge starts; the rest is as the ledger has it when asked.

    Nothing is counted on the bridge's own thread: what happened since the last answer is read from the ledger.
    """

    def __init__(
        self,
        *,
        stale_s: float,
        dropped: Callable[[], int],
        captured: Callable[[], CaptureCounts | None] = lambda: None,
        bucket: Callable[[], BucketCounts | None] = lambda: None,
    ) -> None:
        """Count from now on.

        An agent silent for `stale_s` is taken for dead, `dropped` counts dropped messages, `captured` returns what
        OMI's webhooks brought, and `bucket` how the bucket does.
        """
        self._stale_s, self._dropped, self._captured, self._bucket = stale_s, dropped, captured, bucket
        self._started_at, self._last_event = time.time(), -1
        self._counts = CollectorRegistry()
        self._events = Counter("omi_bridge_job_events", "What happened to jobs.", ["event"], registry=self._counts)
        self._audio = Counter(
            "omi_bridge_labelled_audio_seconds", "Audio whose labels were worked out.", registry=self._counts
        )
        self._latency = Histogram(
            "omi_bridge_accepted_to_updated_seconds",
            "From the acceptance of a chunk to the update of its conversation that has it.",
            buckets=LATENCY_BUCKETS_S,
            registry=self._counts,
        )
        for event in JobEvent:
            self._events.labels(event)
        ProcessCollector(registry=self._counts)

    def render(self, ledger: Ledger, _store: ConversationStore) -> bytes:
        """Return all of it in the text format of Prometheus."""
        self._catch_up(ledger)
        now = CollectorRegistry()
        families = [*_describe_queue(ledger), *_describe_agents(ledger, self._stale_s), self._describe()]
        now.register(_Families([*families, *_describe_capture(self._captured()), *_describe_bucket(self._bucket())]))
        return generate_latest(now) + generate_latest(self._counts)

    def _catch_up(self, ledger: Ledger) -> None:
        if self._last_event < 0:
            self._last_event = ledger.measures.last_event_before(self._started_at)
        before = -MAX_EVENTS
        while self._last_event - before >= MAX_EVENTS:
            before, progress = self._last_event, ledger.measures.progress_since(self._last_event)
            self._last_event = progress.last_event
            for event, times in progress.events.items():
                self._events.labels(event).inc(times)
            for chunk in progress.labelled:
                self._latency.observe(chunk.latency_s)
                self._audio.inc(chunk.audio_s)

    def _describe(self) -> Metric:
        words = "Messages that were not let in: too many of one sender, or of agents that are not allowed."
        return CounterMetricFamily("omi_bridge_messages_dropped", words, value=self._dropped())


class _Families:
    """A collector of metrics that are worked out already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"omi_bridge_{name}", words, value=value)


def _describe_queue(ledger: Ledger) -> Iterable[Metric]:
    by_state, counts = ledger.jobs.by_state(at_most=MAX_COUNTED), ledger.jobs.counts()
    jobs = GaugeMetricFamily("omi_bridge_jobs", "Jobs by state, up to 10,000 of each.", labels=["state"])
    for state in JobState:
        jobs.add_metric([state], by_state.get(state, 0))
    failed = GaugeMetricFamily("omi_bridge_failed_jobs", "Jobs that stand failed, by the code.", labels=["code"])
    codes: dict[str, int] = {}
    for code, number in ledger.measures.failed_by_code().items():
        shown = code if code in set(FailureCode) else OTHER
        codes[shown] = codes.get(shown, 0) + number
    for shown, number in sorted(codes.items()):
        failed.add_metric([shown], number)
    oldest_s = 0.0 if counts.oldest_at is None else max(0.0, time.time() - counts.oldest_at)
    return [
        jobs,
        failed,
        _gauge("chunks_waiting", "Chunks that are being gathered to jobs.", counts.chunks_waiting),
        _gauge("chunks_refused", "Chunks that were refused in the last 7 days.", counts.chunks_refused),
        _gauge(
            "conversations_failed", "Conversations whose labels could not be worked out.", counts.conversations_failed
        ),
        _gauge("oldest_waiting_seconds", "How long the oldest of what waits has waited.", oldest_s),
        _gauge("kept_audio_bytes", "Audio that is kept on the disk.", counts.bytes),
        _gauge("disk_free_bytes", "Room on the disk of the bridge's data.", ledger.free_bytes()),
    ]


def _describe_capture(counts: CaptureCounts | None) -> Iterable[Metric]:
    """Return what OMI's webhooks brought; nothing where the listener is off."""
    if counts is None:
        return []
    posts = CounterMetricFamily("omi_bridge_omi_posts", "POSTs of OMI's webhooks.", labels=["answer"])
    posts.add_metric(["taken"], counts.taken)
    posts.add_metric(["unauthorized"], counts.unauthorized)
    posts.add_metric(["malformed"], counts.malformed)
    posts.add_metric(["turned_away"], counts.turned_away)
    return [posts, _gauge("omi_capture_bytes", "What is kept of OMI's audio and live segments.", counts.kept_bytes)]


def _describe_bucket(counts: BucketCounts | None) -> Iterable[Metric]:
    """Return how the bucket does; nothing where audio is in a directory."""
    if counts is None:
        return []
    calls = CounterMetricFamily("omi_bridge_bucket_calls", "Calls of the bucket that audio is kept in.")
    calls.add_metric([], counts.calls)
    failed = CounterMetricFamily("omi_bridge_bucket_failures", "Calls of the bucket that failed.")
    failed.add_metric([], counts.failures)
    return [
        calls,
        failed,
        _gauge("bucket_outgoing_chunks", "Chunks on their way into the bucket, not accepted yet.", counts.outgoing),
        _gauge("bucket_reachable", "Whether the bucket did what it was asked last: 0 or 1.", counts.is_reachable),
    ]


def _describe_agents(ledger: Ledger, stale_s: float) -> Iterable[Metric]:
    """Count the agents: their ids are names of people's machines."""
    agents = list_agents(ledger, stale_s=stale_s).agents
    counted = GaugeMetricFamily("omi_bridge_agents", "Agents ever heard of.", labels=["allowed", "live"])
    for is_allowed in (True, False):
        for is_live in (True, False):
            number = sum((agent.allowed, agent.is_live) == (is_allowed, is_live) for agent in agents)
            counted.add_metric([_word(is_allowed), _word(is_live)], number)
    working = [agent for agent in agents if agent.allowed and agent.is_live]
    now = time.time()
    ages = [now - (agent.last_seen_at or now) for agent in working]
    speed = sum(agent.speed_x_real_time or 0.0 for agent in working)
    return [
        counted,
        _gauge(
            "agents_last_beat_age_seconds", "Age of the oldest last heartbeat of a live agent.", max(ages, default=0.0)
        ),
        _gauge("agents_speed_ratio", "Seconds of audio that all live agents diarize in a second.", speed),
    ]


def _word(is_so: bool) -> str:  # noqa: FBT001 - the value of a label
    return "yes" if is_so else "no"


def add_metrics_route(app: FastAPI, connection: OwnConnection, metrics: BridgeMetrics) -> None:
    """Add the path."""

    @app.get(
        PATH,
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **answers((401, 403, 500, 503), Problem)},
    )
    async def read_metrics() -> Response:
        """Send the bridge's metrics in the text format of Prometheus."""
        return Response(await connection.use(metrics.render), media_type=CONTENT_TYPE_PLAIN_0_0_4)
