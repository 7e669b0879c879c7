"""What Prometheus reads: right numbers, nothing of anybody, and every name that the dashboard asks for."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from tests.brokers import REPOSITORY
from tests.vps_bridge.waiting_job import add_waiting_job
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.http.access import AccessRule, read_access_rule
from vps_bridge.http.metrics import BridgeMetrics
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.settings import BridgeSettings

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
DASHBOARD = REPOSITORY / "docs" / "grafana-dashboard.json"
HERE = {"host": "127.0.0.1:8765"}


class Scraped:
    """A ledger, and what Prometheus would read of it."""

    def __init__(self, root: Path) -> None:
        self.metrics = BridgeMetrics(stale_s=30.0, dropped=lambda: 7)
        self.ledger = Ledger(root, exclusive=True)
        self.store: ConversationStore = SqliteConversations(root / STORE_FILE)

    def text(self) -> str:
        return self.metrics.render(self.ledger, self.store).decode()

    def value(self, name: str, **labels: str) -> float:
        return read_samples(self.text())[name, tuple(sorted(labels.items()))]

    def add_job(self, name: str) -> str:
        add_waiting_job(self.ledger, name, f"{name}-chunk", audio_s=30.0, final=True)
        return self.ledger.jobs.of_conversation(name)[-1].job_id


def read_samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Scraped]:
    found = Scraped(tmp_path)
    yield found
    found.store.close()
    found.ledger.close()


def label(scraped: Scraped, conversation: str, job_id: str) -> None:
    """Let the job's result come in and stand in an update of its conversation."""
    lease = scraped.ledger.leases.grant(job_id, "anna-macbook", "i1", ("model", "1"))
    assert lease is not None
    assert scraped.ledger.jobs.store_result(lease, b"turns")
    update = AssignedUpdate(voices=None, write_key="k", payload=b"", final=True, done_jobs=(job_id,), seen=1)
    scraped.ledger.conversations.note_update(conversation, update)


def test_the_queue_and_what_failed_are_counted_and_codes_that_nobody_knows_are_one(scraped: Scraped) -> None:
    codes = ("engine.crashed", "engine.crashed", "weird.one", "weird.two", "")
    for place, code in enumerate(codes):
        assert scraped.ledger.jobs.give_up(scraped.add_job(f"secret-call-{place}"), code, "secret words")
    scraped.add_job("secret-call-waits")
    scraped.ledger.agents.set_allowed("anna-macbook", allowed=True)
    assert scraped.value("omi_bridge_jobs", state="failed") == 5
    assert scraped.value("omi_bridge_jobs", state="ready") == 1
    assert scraped.value("omi_bridge_jobs", state="done") == 0
    assert scraped.value("omi_bridge_failed_jobs", code="engine.crashed") == 2
    assert scraped.value("omi_bridge_failed_jobs", code="other") == 3
    assert scraped.value("omi_bridge_agents", allowed="yes", live="no") == 1
    assert scraped.value("omi_bridge_messages_dropped_total") == 7
    assert scraped.value("omi_bridge_disk_free_bytes") > 0
    assert scraped.value("omi_bridge_oldest_waiting_seconds") >= 0
    assert re.search("secret|anna", scraped.text()) is None


def test_what_was_labelled_since_the_start_is_counted_once_however_often_it_is_asked(scraped: Scraped) -> None:
    early = scraped.add_job("before")
    label(scraped, "before", early)
    scraped.metrics = BridgeMetrics(stale_s=30.0, dropped=lambda: 0)
    for name in ("first", "second"):
        label(scraped, name, scraped.add_job(name))
        assert scraped.value("omi_bridge_job_events_total", event="labelled") >= 1
    assert scraped.value("omi_bridge_accepted_to_updated_seconds_count") == 2
    assert scraped.value("omi_bridge_labelled_audio_seconds_total") == 60.0
    assert scraped.value("omi_bridge_job_events_total", event="labelled") == 2
    assert scraped.value("omi_bridge_job_events_total", event="granted") == 2
    assert scraped.value("omi_bridge_job_events_total", event="given_up") == 0


def test_what_was_labelled_lately_is_read_as_far_back_as_there_are_few_enough_events(
    scraped: Scraped, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.time()
    for name in ("first", "second"):
        label(scraped, name, scraped.add_job(name))
    lately = scraped.ledger.measures.labelled_lately(began)
    assert (lately.since, [chunk.audio_s for chunk in lately.labelled]) == (began, [30.0, 30.0])
    monkeypatch.setattr("vps_bridge.ledger.measures.MAX_EVENTS", 3)  # granted, stored, labelled
    lately = scraped.ledger.measures.labelled_lately(began)
    assert (lately.since > began, len(lately.labelled)) == (True, 1)
    assert scraped.ledger.measures.labelled_lately(time.time()).labelled == ()


def test_the_dashboard_asks_for_nothing_that_is_not_served(scraped: Scraped) -> None:
    scraped.ledger.jobs.give_up(scraped.add_job("one"), "engine.crashed", "")
    served = {name for name, _ in read_samples(scraped.text())}
    asked = [target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]
    names = {name for words in asked for name in re.findall(r"\b(?:omi|process)_\w+", words)}
    assert len(names) >= 15
    assert names - served == set()
    described = set(re.findall(r"`(omi_bridge_\w+)", (REPOSITORY / "docs" / "metrics.md").read_text()))
    histogram, of_omi = (
        "omi_bridge_accepted_to_updated_seconds",
        {"omi_bridge_omi_posts_total", "omi_bridge_omi_capture_bytes"},
    )
    of_bucket = {name for name in described if name.startswith("omi_bridge_bucket_")}
    assert len(of_bucket) >= 4
    absent = {histogram, *of_omi, *of_bucket}
    assert described - served == absent, "a histogram is three names; OMI's listener is off, and so is the bucket"
    assert {
        name for name in served if name.startswith("omi_bridge") and not name.endswith(("_bucket", "_created"))
    } <= (described | {"omi_bridge_accepted_to_updated_seconds_count", "omi_bridge_accepted_to_updated_seconds_sum"})


def test_promtool_finds_nothing_to_say(scraped: Scraped) -> None:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    scraped.ledger.jobs.give_up(scraped.add_job("one"), "engine.crashed", "")
    done = subprocess.run(
        [found, "check", "metrics"], input=scraped.text(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        ("127.0.0.1", HERE, None),
        ("127.0.0.1", {"host": "rebound.example"}, 403),
        ("127.0.0.1", HERE | {"origin": "http://evil.example"}, 403),
        ("127.0.0.1", HERE | {"x-forwarded-for": "1.2.3.4"}, 401),
        ("0.0.0.0", HERE, 401),
        ("0.0.0.0", HERE | {"authorization": "Bearer a-token-of-this-test"}, None),
    ],
)
def test_without_the_token_only_programs_on_this_machine_read_them(
    host: str, headers: dict[str, str], status: int | None
) -> None:
    rule: AccessRule = read_access_rule(BridgeSettings(http_host=host, http_token=SecretStr("a-token-of-this-test")))
    problem = rule.judge("/metrics", headers)
    assert (problem.status if problem else None) == status
