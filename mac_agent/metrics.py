"""`/metrics` of the agent for Prometheus, where `metrics_port` is set: what its heartbeat says, as numbers.

No ids of jobs or conversations, and no id of the agent: the place that is asked says which it is.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from schemas.agent import AgentState, HeldJobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.core import Metric

    from schemas.agent import AgentHeartbeat

HOST, PATH = "127.0.0.1", "/metrics"
PATIENCE_S = 5.0  # how long a client may take to ask
_NAMES = ("127.0.0.1", "localhost")
_log = structlog.get_logger("mac_agent")


class AgentMetrics:
    """Serves what the latest heartbeat said, to programs on this machine only."""

    def __init__(self, port: int, *, is_connected: Callable[[], bool], dropped: Callable[[], int]) -> None:
        """Note where; both functions may be called from any thread."""
        self._port, self._is_connected, self._dropped = port, is_connected, dropped
        self._beat: AgentHeartbeat | None = None
        self._beat_s = time.monotonic()
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Serve. A port that is taken is logged, and the agent works without: audio counts for more."""
        try:
            self._server = ThreadingHTTPServer((HOST, self._port), self._make_handler())
        except OSError as error:
            _log.warning(
                "no metrics", port=self._port, reason=error.strerror, remedy="set OMI_METRICS_PORT to a free one"
            )
            return
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def stop(self) -> None:
        """Serve no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def note_beat(self, beat: AgentHeartbeat) -> None:
        """Keep the heartbeat that was just sent."""
        self._beat, self._beat_s = beat, time.monotonic()

    def render(self) -> bytes:
        """Return all of it in the text format of Prometheus."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics, as a registry of prometheus_client asks for them."""
        yield _gauge("connected", "Whether it is connected to the broker.", float(self._is_connected()))
        yield CounterMetricFamily("omi_agent_messages_dropped", "Messages that came too fast.", value=self._dropped())
        age_s = time.monotonic() - self._beat_s
        yield _gauge("last_beat_age_seconds", "Since its last heartbeat was sent, or since it started.", age_s)
        if self._beat is not None:
            yield from _describe(self._beat)

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        metrics = self

        class MetricsHandler(BaseHTTPRequestHandler):
            """Answers one path, and no web page: a browser can be led to loopback by a name of another's."""

            timeout = PATIENCE_S

            def do_GET(self) -> None:
                """Send the metrics."""
                host = self.headers.get("Host", "").partition(":")[0].lower()
                if host not in _NAMES or "Origin" in self.headers:
                    self.send_error(HTTPStatus.FORBIDDEN)
                elif self.path != PATH:
                    self.send_error(HTTPStatus.NOT_FOUND)
                else:
                    body = metrics.render()
                    self.send_response(HTTPStatus.OK)
                    self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing: whoever asks does so every few seconds."""

        return MetricsHandler


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"omi_agent_{name}", words, value=value)


def _describe(beat: AgentHeartbeat) -> Iterable[Metric]:
    states = GaugeMetricFamily("omi_agent_state", "1 for the state it is in.", labels=["state"])
    for state in AgentState:
        states.add_metric([state], float(beat.state is state))
    jobs = GaugeMetricFamily("omi_agent_jobs", "Jobs it holds, by state.", labels=["state"])
    held = Counter(job.state for job in beat.jobs)
    for job_state in HeldJobState:
        jobs.add_metric([job_state], held[job_state])
    memory = GaugeMetricFamily("omi_agent_memory_bytes", "Memory it uses.", labels=["of"])
    memory.add_metric(["agent"], beat.memory.agent_rss_bytes)
    memory.add_metric(["worker"], beat.memory.worker_rss_bytes)
    memory.add_metric(["device"], beat.memory.device_bytes)
    yield from (states, jobs, memory)
    yield CounterMetricFamily("omi_agent_jobs_done", "Jobs with a result since it started.", value=beat.jobs_done)
    yield CounterMetricFamily("omi_agent_jobs_failed", "Jobs that failed since it started.", value=beat.jobs_failed)
    yield _gauge("free_places", "Jobs that the bridge may offer it.", beat.free_capacity)
    yield _gauge("speed_ratio", "Seconds of audio that it diarizes in a second.", beat.speed_x_real_time)
