"""What ten open pages cost the bridge: its memory, and how long the receipt of a chunk takes.

    python -m benchmarks.bench_pages
    python -m benchmarks.bench_pages --conversations 200 --rounds 1 --json

A real Mosquitto, bridge and agent (its engine answers at once), a thousand labelled conversations, and pages in
Chromium: of each ten, four show the list, three a conversation and three what happens now. Rounds with and without
pages take turns. In each round a chunk is sent every half second, each to a conversation of its own, so that every page
has something to read again. The browser stands for people's own computers: it runs at the lowest priority.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil
from playwright.sync_api import Browser
from rich.console import Console
from rich.progress import Progress

from benchmarks.delivery import (
    RunningPipeline,
    cpu_seconds,
    find_mosquitto,
    make_wav,
    percentiles_ms,
    rss_mib,
    run_pipeline,
)
from broker.logs import silence_logs
from tests.brokers import run_mosquitto
from tests.vps_bridge.http.chromium import run_chromium
from vps_bridge.http.sign_in import SignIns

REPORT = Path(__file__).with_name("pages.md")
PAGES = ("/#/conversations",) * 4 + ("/#/conversations/c-0",) * 3 + ("/#/",) * 3
CHUNK_S, PERIOD_S = 5.0, 0.5
AT_ONCE = 16
SETTLE_S = 5.0  # pages read everything when they are opened


@dataclass(frozen=True)
class Round:
    """Measurements of one round: milliseconds, MiB, and processor seconds of the bridge for each second."""

    pages: int
    accepted_p50_ms: float
    accepted_p95_ms: float
    bridge_mib: float
    bridge_cpu_share: float


def main() -> None:
    """Measure, print, and note the whole run beside this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=4, help="of each kind")
    parser.add_argument("--chunks", type=int, default=60, help="in a round")
    parser.add_argument("--json", action="store_true", help="numbers for a program instead of a table")
    options = parser.parse_args()
    silence_logs()
    if find_mosquitto() is None:
        sys.exit("mosquitto is not installed: apt-get install mosquitto, or brew install mosquitto")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        progress = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
        broker = stack.enter_context(run_mosquitto(scratch))
        pipeline = stack.enter_context(run_pipeline(broker, scratch / "data"))
        rounds = measure(pipeline, options.conversations, options.rounds, options.chunks, progress)
    if options.json:
        sys.stdout.write(json.dumps([asdict(each) for each in rounds], indent=2) + "\n")
        return
    report = render(rounds, options.conversations)
    sys.stdout.write(report)
    if options.conversations >= 1_000:
        REPORT.write_text(report, encoding="utf-8")


def measure(
    pipeline: RunningPipeline, conversations: int, rounds: int, chunks: int, progress: Progress
) -> tuple[Round, ...]:
    """Make the conversations, then measure rounds without and with pages in turn."""
    bridge = pipeline.start_bridge()
    pipeline.allow_agent()
    agent = pipeline.start_agent()
    fill(pipeline, conversations, progress)
    names, measured = (f"r-{number}" for number in itertools.count()), []
    task = progress.add_task("rounds", total=2 * rounds)
    with run_chromium() as browser:
        for _ in range(rounds):
            measured.append(run_round(pipeline, bridge.pid, names, chunks, pages=0))
            progress.advance(task)
            with opened(browser, pipeline) as pages:
                measured.append(run_round(pipeline, bridge.pid, names, chunks, pages=pages))
            progress.advance(task)
    agent.check()
    return tuple(measured)


def fill(pipeline: RunningPipeline, conversations: int, progress: Progress) -> None:
    """Make labelled conversations of one chunk and a transcript each."""
    task, backend, audio = progress.add_task("conversations", total=conversations), pipeline.backend, make_wav(CHUNK_S)
    for place in range(conversations):
        name = f"c-{place}"
        backend.begin(name, CHUNK_S)
        backend.send(name, audio, captured_at=datetime.now(UTC), sequence=0)
        if place >= AT_ONCE:
            backend.wait_updated(f"c-{place - AT_ONCE}")
        progress.advance(task)
    for place in range(max(0, conversations - AT_ONCE), conversations):
        backend.wait_updated(f"c-{place}")


@contextmanager
def opened(browser: Browser, pipeline: RunningPipeline) -> Iterator[int]:
    """Open the pages, each signed in for itself as on ten computers; yields how many."""
    url = f"http://127.0.0.1:{pipeline.backend.http_environment['OMI_HTTP_PORT']}"
    sign_ins = SignIns(pipeline.directory / "bridge")
    with ExitStack() as stack:
        for path in PAGES:
            context = stack.enter_context(browser.new_context(base_url=url))
            page = context.new_page()
            page.goto(f"/sign-in?link={sign_ins.make_link()}")
            page.goto(path)
            page.get_by_role("heading").first.wait_for()
        for process in psutil.Process().children(recursive=True):
            if "chrom" in process.name():
                process.nice(19)
        yield len(PAGES)


def run_round(pipeline: RunningPipeline, bridge_pid: int, names: Iterator[str], chunks: int, *, pages: int) -> Round:
    """Send chunks at a steady pace, and return how long their receipts took."""
    time.sleep(SETTLE_S)
    backend, audio = pipeline.backend, make_wav(CHUNK_S)
    before, began_s, sent = cpu_seconds({"bridge": bridge_pid})["bridge"], time.monotonic(), []
    for place in range(chunks):
        time.sleep(max(0.0, began_s + place * PERIOD_S - time.monotonic()))
        sent.append(next(names))
        backend.send(sent[-1], audio, captured_at=datetime.now(UTC), sequence=0)
        backend.wait_accepted(sent[-1])
    took_s, used_s = time.monotonic() - began_s, cpu_seconds({"bridge": bridge_pid})["bridge"] - before
    waits_s = [backend.times[name].accepted_s - backend.times[name].sent_s for name in sent]
    p50_ms, p95_ms, _ = percentiles_ms(waits_s)
    return Round(pages, p50_ms, p95_ms, rss_mib(bridge_pid), used_s / took_s)


def render(rounds: tuple[Round, ...], conversations: int) -> str:
    """The table, in Markdown."""
    lines = [
        f"# Ten open pages and {conversations:,} conversations",
        "",
        f"Written by `make bench-pages` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; do not edit.",
        f"{platform.platform(terse=True)}, {os.cpu_count()} cores; Python {platform.python_version()}.",
        f"Load average {os.getloadavg()[0]:.1f}, the browser's share included.",
        "",
        "| pages | receipt p50 ms | p95 ms | bridge MiB | bridge's share of a core |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.pages} | {each.accepted_p50_ms:.1f} | {each.accepted_p95_ms:.1f} | {each.bridge_mib:.0f} | "
        f"{each.bridge_cpu_share:.1%} |"
        for each in rounds
    ]
    middles = {pages: [each for each in rounds if each.pages == pages] for pages in (0, len(PAGES))}
    without, with_pages = (
        (median([each.accepted_p50_ms for each in found]), median([each.bridge_mib for each in found]))
        for found in middles.values()
    )
    lines += [
        "",
        "Medians of the rounds, without pages and with; the aim is within 10 %:",
        "",
        f"- receipts: {without[0]:.1f} and {with_pages[0]:.1f} ms ({with_pages[0] / without[0] - 1:+.0%})",
        f"- memory: {without[1]:.0f} and {with_pages[1]:.0f} MiB ({with_pages[1] / without[1] - 1:+.0%})",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
