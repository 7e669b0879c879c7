"""How long a frame of the page takes with three hours of 5,000 segments and 10,000 turns, in Chromium.

    python -m benchmarks.bench_frames
    python -m benchmarks.bench_frames --acts 20 --json

A real bridge serves the page; what it answers for one conversation is replaced by a long one. A frame is from the act
to after what it changed is painted, so that it is never shorter than one of the screen's own, 17 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, Route
from rich.console import Console
from rich.progress import Progress

from benchmarks.bench_pages import fill
from benchmarks.delivery import RunningPipeline, find_mosquitto, run_pipeline
from broker.logs import silence_logs
from tests.brokers import run_mosquitto
from tests.vps_bridge.http.chromium import run_chromium
from vps_bridge.http.sign_in import SignIns

REPORT = Path(__file__).with_name("frames.md")
LONG_S, SEGMENTS, TURNS_OF_EACH = 3 * 3_600.0, 5_000, 2
AIM_MS = 100
ACTS = {
    "scroll by two rows": "list.scrollTop += 128",
    "jump anywhere": "list.scrollTop = (count * 7919 % 5000) / 5000 * list.scrollHeight",
    "zoom in, to 2 s": "press('+')",
    "move": "press('ArrowRight')",
    "all three hours, again and again": "press(count % 2 ? 'Home' : '+')",
}
MEASURE = """async ([act, times]) => {
  const list = document.querySelector(".transcript");
  const track = document.querySelector(".track");
  const press = (key) => track.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const painted = () => new Promise((done) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
  }));
  const took = [];
  for (let count = 0; count < times; count += 1) {
    await painted();
    const began = performance.now();
    %s;
    await painted();
    took.push(performance.now() - began);
  }
  return took;
}"""


@dataclass(frozen=True)
class Frames:
    """How long the frames after one kind of act took, in milliseconds."""

    act: str
    median_ms: float
    slowest_ms: float


def main() -> None:
    """Measure, print, and note the whole run beside this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acts", type=int, default=100, help="of each kind")
    parser.add_argument("--json", action="store_true", help="numbers for a program instead of a table")
    options = parser.parse_args()
    silence_logs()
    if find_mosquitto() is None:
        sys.exit("mosquitto is not installed: apt-get install mosquitto, or brew install mosquitto")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        progress = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
        pipeline = stack.enter_context(run_pipeline(stack.enter_context(run_mosquitto(scratch)), scratch / "data"))
        pipeline.start_bridge()
        pipeline.allow_agent()
        pipeline.start_agent()
        fill(pipeline, 1, progress)
        with run_chromium() as browser:
            measured = measure(browser.new_page(base_url=address(pipeline)), pipeline, options.acts)
    if options.json:
        sys.stdout.write(json.dumps([asdict(each) for each in measured], indent=2) + "\n")
        return
    report = render(measured)
    sys.stdout.write(report)
    REPORT.write_text(report, encoding="utf-8")


def address(pipeline: RunningPipeline) -> str:
    """Where the page is."""
    return f"http://127.0.0.1:{pipeline.backend.http_environment['OMI_HTTP_PORT']}"


def measure(page: Page, pipeline: RunningPipeline, acts: int) -> tuple[Frames, ...]:
    """Open the conversation and do each kind of act so many times."""
    page.route("**/v1/conversations/c-0", make_long)
    page.goto(f"/sign-in?link={SignIns(pipeline.directory / 'bridge').make_link()}")
    page.goto("/#/conversations/c-0")
    page.locator(".segment").first.wait_for()
    found = []
    for act, script in ACTS.items():
        took_ms = page.evaluate(MEASURE % script, [act, acts])
        found.append(Frames(act, round(median(took_ms), 1), round(max(took_ms), 1)))
    return tuple(found)


def make_long(route: Route) -> None:
    """Answer with three hours in which two people take turns, a fifth of the time both at once."""
    whole = json.loads(route.fetch().text())
    model, step_s = whole["segments"][0], LONG_S / SEGMENTS
    whole["segments"] = [
        model
        | {"id": f"s-{place}", "start_s": place * step_s, "end_s": place * step_s + 2, "text": "word " * (place % 60)}
        for place in range(SEGMENTS)
    ]
    turn_s = step_s / TURNS_OF_EACH
    whole["turns"] = [
        {"start_s": place * turn_s, "end_s": (place + 1.2) * turn_s, "speaker_id": place % 2}
        for place in range(SEGMENTS * TURNS_OF_EACH)
    ]
    route.fulfill(json=whole)


def render(measured: tuple[Frames, ...]) -> str:
    """The table, in Markdown."""
    lines = [
        f"# Frames of the page, with three hours of {SEGMENTS:,} segments",
        "",
        f"Written by `make bench-frames` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; do not edit.",
        f"{platform.platform(terse=True)}, {os.cpu_count()} cores, no graphics card.",
        f"Load average {os.getloadavg()[0]:.1f}, the browser's share included.",
        "",
        f"| act | median ms | slowest ms (aim: {AIM_MS}) |",
        "|---|---|---|",
    ]
    lines += [f"| {each.act} | {each.median_ms:.0f} | {each.slowest_ms:.0f} |" for each in measured]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
