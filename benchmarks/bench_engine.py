"""Stock pyannote beside ours on the same audio, weights and threads: `python -m benchmarks.bench_engine --help`.

Every run has its own process, warmed up by 10 s of other audio, so that its peak memory is its own. The machine may
be busy with other things: compare rows of one table, by the processor seconds they used rather than by the clock.
The speaker network's weights are seeded, not trained (`benchmarks.local_pipeline`), unless --pipeline gives real ones:
what *stretch* changes is then the worst case, not what to expect.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from benchmarks import recordings
from broker.freed_memory import keep_freed_memory
from mac_agent.engines.agreement import changed_s
from mac_agent.engines.engine import Hints, Turn
from mac_agent.inference import SAMPLES_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from mac_agent.engines.engine import Waveform

ONE_FRAME_S = 0.016875
WARM_UP_S = 10
STOCK_AS_SHIPPED, STOCK_BEST = "stock, batch 32 (as shipped)", "stock, batch 1"
EXACT = "exact, batch 1"
# The engine, its batch of the speaker network, and the longest audio it is run on when nothing else is asked for.
KINDS: dict[str, tuple[str, int, float]] = {
    STOCK_AS_SHIPPED: ("stock", 32, 300.0),
    STOCK_BEST: ("stock", 1, 300.0),
    "exact, batch 32": ("exact", 32, 300.0),
    EXACT: ("exact", 1, 3600.0),
    "stretch": ("stretch", 1, 3600.0),
    "embedded": ("embedded", 1, 3600.0),
}


@dataclass(frozen=True)
class EngineRun:
    """What one engine needed for one recording."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    turns: tuple[Turn, ...]


def main() -> None:
    """Print one table per length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", nargs="*", type=float, default=[30.0, 60.0], help="lengths of audio (300, 3600)")
    parser.add_argument("--pipeline", type=Path, help="a trusted pipeline directory; a seeded one is built without it")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("OMI_DATA_DIR"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without", nargs="*", default=[], choices=[kind for kind, _, _ in KINDS.values()])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.data_dir = Path(options.data_dir or platformdirs.user_data_dir("omi-diarization"))
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        if options.pipeline is None:
            command = [sys.executable, "-m", "benchmarks.local_pipeline", scratch]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            options.pipeline = Path(scratch)
        cpu_count = os.cpu_count()
        print(f"{platform.platform(terse=True)}, {cpu_count} cores, {options.threads} threads, device {options.device}")
        for seconds in options.seconds:
            compare(seconds, options)


def compare(seconds: float, options: argparse.Namespace) -> None:
    """Run every engine on one recording and print the table."""
    load = f", load average before {os.getloadavg()[0]:.1f}"
    print(f"\n## {seconds:g} s of conversation{load}\n", flush=True)
    print("| engine | wall s | processor s | x real time | vs stock as shipped | vs stock batch 1 | peak MiB | turns |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    runs: dict[str, EngineRun] = {}
    for name, (kind, _, longest_s) in KINDS.items():
        if kind in options.without or seconds > longest_s:
            continue
        command = [sys.executable, "-m", "benchmarks.bench_engine", f"{seconds:g}", "--one", name]
        command += ["--pipeline", str(options.pipeline), "--data-dir", str(options.data_dir)]
        command += ["--device", options.device, "--threads", str(options.threads)]
        finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(finished.stdout.strip().splitlines()[-1])
        runs[name] = EngineRun(
            found["wall_s"], found["cpu_s"], found["peak_mib"], tuple(Turn(*turn) for turn in found["turns"])
        )
        run = runs[name]
        cells = [f"{run.wall_s:.1f}", f"{run.cpu_s:.1f}", f"{seconds / run.wall_s:.1f}"]
        cells += [faster(runs.get(base), run) for base in (STOCK_AS_SHIPPED, STOCK_BEST)]
        print(f"| {name} | {' | '.join(cells)} | {run.peak_mib:.0f} | {len(run.turns)} |", flush=True)
    reference = next((name for name in (STOCK_AS_SHIPPED, STOCK_BEST, EXACT) if name in runs), None)
    if reference:
        print(f"\nSpeaker seconds that differ from {reference}, by more than a frame:")
        for name, run in runs.items():
            if name != reference:
                changed = changed_s(runs[reference].turns, run.turns, tolerance_s=ONE_FRAME_S)
                print(f"- {name}: {changed:.2f} s")


def faster(base: EngineRun | None, run: EngineRun) -> str:
    """Return how many times less processor time, and clock time, than another run."""
    return f"{base.cpu_s / run.cpu_s:.1f}x ({base.wall_s / run.wall_s:.1f}x by the clock)" if base else "—"


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one engine in this process."""
    import torch  # noqa: PLC0415 - the parent process does not need it

    torch.set_num_threads(options.threads)
    kind, batch, _ = KINDS[name]
    if kind != "stock":
        keep_freed_memory(SAMPLES_BYTES)  # as the worker does; stock is measured as it is shipped
    run = load(kind, batch, options)
    waveform = make_audio(options.seconds[0])
    run(recordings.load_sample().waveform[: WARM_UP_S * recordings.SAMPLE_RATE_HZ])
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    turns = run(waveform)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    rows = [(turn.start_s, turn.end_s, turn.speaker) for turn in turns]
    return {"wall_s": wall_s, "cpu_s": cpu_s, "peak_mib": peak, "turns": rows}


def load(kind: str, batch: int, options: argparse.Namespace) -> Callable[[Waveform], tuple[Turn, ...]]:
    """Return a function from audio to turns."""
    import torch  # noqa: PLC0415 - the parent process does not need it

    from mac_agent.engines.pyannote_engine import MODES, PyannoteEngine, to_diarization  # noqa: PLC0415 - it imports torch
    from mac_agent.engines.pyannote_pipeline import load_pipeline  # noqa: PLC0415 - it imports torch
    from mac_agent.engines.registry import load_engine  # noqa: PLC0415 - it imports torch

    device = torch.device(options.device)
    if kind == "stock":
        from pyannote.audio import Pipeline  # noqa: PLC0415 - it imports torch

        stock: Any = Pipeline.from_pretrained(options.pipeline)
        stock.embedding_batch_size = batch
        stock.to(device)

        def run_stock(waveform: Waveform) -> tuple[Turn, ...]:
            file = {"waveform": torch.from_numpy(waveform)[None], "sample_rate": 16_000, "uri": "recording"}
            return to_diarization(stock.apply(file), len(waveform) / recordings.SAMPLE_RATE_HZ).turns

        return run_stock
    if kind == "embedded":
        engine = load_engine("embedded", data_dir=options.data_dir, threads=options.threads)
    else:
        pipeline = load_pipeline(options.pipeline, MODES[kind])
        engine = PyannoteEngine(pipeline, options.pipeline, device)
        pipeline.embedding_batch_size = batch
    return lambda waveform: engine.diarize(waveform, Hints(), lambda _stage, _done: None).turns


def make_audio(seconds: float) -> Waveform:
    """Return conversations of three LibriSpeech voices, one after the other, cut at a length."""
    talks: list[recordings.Recording] = []
    while sum(talk.duration_s for talk in talks) < seconds:
        talks.append(recordings.make_conversation(3, 1, order_seed=len(talks)))
    joined = recordings.join(talks, "talk", gap_s=1.0, same_voices=True).waveform
    return joined[: int(seconds * recordings.SAMPLE_RATE_HZ)]


if __name__ == "__main__":
    main()
