"""The report of `bench_delivery`: its rows, tables and aims, and benchmarks/delivery.md."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.delivery import find_mosquitto

OURS_MQTT, OURS_HTTP, BASELINE, BARE = "ours, MQTT door", "ours, HTTP door", "HTTP design", "bare paho"
REPORT = Path(__file__).with_name("delivery.md")
# The aims, as multiples of what the HTTP design (which keeps nothing) took in the same run.
MAX_P50_RATIO = 2.2  # of our time from accepted to updated
MAX_BRIDGE_CPU_RATIO = 0.85  # of the bridge's processor time per payload through the MQTT door, to the HTTP server's


@dataclass
class DeliveryRow:
    """One design at one length of audio."""

    design: str
    seconds: float
    payload_bytes: int
    payloads: int
    overhead_ms: tuple[float, float, float]
    """p50, p95, p99 from accepted (the HTTP design: from the first byte sent) to the conversation updated."""
    whole_ms: tuple[float, float, float]
    """From the first byte sent to the conversation updated."""
    per_second: float = 0.0
    cpu_ms: dict[str, float] = field(default_factory=dict)
    """Processor milliseconds for each payload at full load, by process."""
    spans_ms: dict[str, float] = field(default_factory=dict)

    @property
    def mb_per_second(self) -> float:
        """Megabytes (10^6) of audio a second at full load."""
        return self.per_second * self.payload_bytes / 1e6


def render(rows: list[DeliveryRow], costs: Mapping[str, float]) -> str:
    """Return the tables in Markdown."""
    lines = []
    for seconds in sorted({row.seconds for row in rows}):
        group = {row.design: row for row in rows if row.seconds == seconds}
        size = next(iter(group.values())).payload_bytes / 1e6
        lines += [
            f"## {seconds:g} s of audio ({size:.2f} MB)",
            "",
            "| design | accepted to updated, ms | sent to updated, ms | payloads/s | MB/s | processor ms a payload |",
            "|---|---|---|---|---|---|",
        ]
        for row in group.values():
            accepted = _triple(row.overhead_ms) if row.design in (OURS_MQTT, OURS_HTTP) else "—"
            used = ", ".join(f"{name} {spent:.0f}" for name, spent in row.cpu_ms.items())
            total = sum(row.cpu_ms.values())
            lines.append(
                f"| {row.design} | {accepted} | {_triple(row.whole_ms)} | {row.per_second:.1f} | "
                f"{row.mb_per_second:.1f} | {total:.0f} ({used}) |"
            )
        lines += ["", *_aim_lines(group), ""]
        ours = group.get(OURS_MQTT)
        if ours is not None:
            lines += ["Where our time goes (median, from the processes' logs):", "", "| step | ms |", "|---|---|"]
            lines += [f"| {step} | {spent:.1f} |" for step, spent in ours.spans_ms.items()]
            lines.append("")
    lines += ["## What a step costs here", "", "| step | ms |", "|---|---|"]
    lines += [f"| {step} | {spent:.2f} |" for step, spent in costs.items()]
    return "\n".join(lines) + "\n"


def _aim_lines(group: Mapping[str, DeliveryRow]) -> list[str]:
    """Compare our rows of one length with the HTTP design of the same run."""
    http = group.get(BASELINE)
    if http is None:
        return []
    lines = []
    for ours in (group[door] for door in (OURS_MQTT, OURS_HTTP) if door in group):
        ratio = ours.overhead_ms[0] / http.whole_ms[0]
        verdict = _verdict(ratio, MAX_P50_RATIO)
        lines.append(f"- {ours.design}: p50 is {ratio:.2f} times the HTTP design's ({verdict}).")
    if OURS_MQTT in group:
        share = group[OURS_MQTT].cpu_ms["bridge"] / http.cpu_ms["server"]
        verdict = _verdict(share, MAX_BRIDGE_CPU_RATIO)
        lines.append(
            f"- {OURS_MQTT}: the bridge's processor time per payload is {share:.2f} of the HTTP server's ({verdict})."
        )
    return lines


def _verdict(ratio: float, max_ratio: float) -> str:
    return f"aim: at most {max_ratio:g}; {'met' if ratio <= max_ratio else 'missed'}"


def _triple(values: tuple[float, float, float]) -> str:
    return " / ".join(f"{value:.0f}" for value in values)


def write_report(tables: str, explanation: str) -> None:
    """Write the tables to `delivery.md`, with the explanation and the machine and versions they were measured on."""
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("paho-mqtt", "fastapi", "uvicorn", "httpx", "sqlalchemy")
    )
    program = find_mosquitto()
    mosquitto = subprocess.run([str(program), "-h"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    machine = f"{platform.platform(terse=True)}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
    head = [
        "# What delivery costs",
        "",
        f"Written by `make bench-delivery` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; do not edit.",
        f"{machine}; Python {platform.python_version()}, {packages}; {mosquitto}.",
        "Times are p50 / p95 / p99.",
        "",
        *explanation.splitlines(),
        "",
    ]
    REPORT.write_text("\n".join(head) + "\n" + tables, encoding="utf-8")
