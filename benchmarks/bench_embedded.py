"""Accuracy, speed and memory of the embedded engine: `python -m benchmarks.bench_embedded --help`.

`--engine embedded-ge2e` measures its first generation, whose weights `omi-agent fetch-model embedded-ge2e` fetches.

DER without collar, overlap scored (pyannote.metrics), over the whole recording. "Oracle" gives every local speaker
of every window to the reference speaker it overlaps most: the same segmentation with perfect clustering.
"One" gives all speech to one speaker.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import platformdirs
from pyannote.core import Annotation, Segment
from pyannote.metrics.diarization import DiarizationErrorRate
from scipy.optimize import linear_sum_assignment

from benchmarks import hard_recordings, recordings
from benchmarks.recordings import AMI, Recording
from mac_agent.engines.embedded import EmbeddedEngine, NetworkOutput, StageTimer, to_diarization
from mac_agent.engines.engine import Hints, Turn
from mac_agent.engines.frames import FIRST_FRAME_START_S, FRAME_S, LOCAL_SPEAKERS
from mac_agent.engines.reconstruction import as_turns, speaking, windows_per_frame
from mac_agent.engines.registry import load_engine
from mac_agent.engines.tracks import ACTIVE
from mac_agent.weights.models import EMBEDDED, GENERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mac_agent.engines.clustering import Policy

MOVED = ("join_distance", "small_voice_distance", "contact_distance", "start_distance", "divide_gain")


@dataclass(frozen=True)
class Score:
    """Seconds of each kind of error, and of reference speech."""

    missed_s: float
    false_alarm_s: float
    confusion_s: float
    total_s: float

    @property
    def der(self) -> float:
        """Diarization error rate."""
        return (self.missed_s + self.false_alarm_s + self.confusion_s) / max(self.total_s, 1e-9)


@dataclass(frozen=True)
class AccuracyRow:
    """What was measured on one recording."""

    name: str
    score: Score
    true_speakers: int
    found_speakers: int
    speed: float
    speed_per_core: float
    """Seconds of audio per second of processor time, which does not depend on how busy the machine is."""
    oracle: Score | None
    one: Score


def main() -> None:
    """Measure the groups that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    groups = ("real", "talks", "solos", "copies", "spoiled", "hard", "hard-solos", "long")
    parser.add_argument("groups", nargs="*", default=["real"], help=f"any of: {', '.join(groups)}")
    parser.add_argument("--engine", choices=tuple(GENERATIONS), default=EMBEDDED)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("OMI_DATA_DIR"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hours", type=float, default=1.0, help="length of the recording of the group `long`")
    parser.add_argument("--first-seed", type=int, default=1, help="seed of the first made-up conversation")
    parser.add_argument("--moved", action="store_true", help="also with every threshold 15 %% up and down")
    options = parser.parse_args()
    if unknown := set(options.groups) - set(groups):
        parser.error(f"no group {', '.join(sorted(unknown))}; choose from {', '.join(groups)}")
    data_dir = options.data_dir or Path(platformdirs.user_data_dir("omi-diarization"))
    engine = load_engine(options.engine, data_dir=Path(data_dir), threads=options.threads)
    assert isinstance(engine, EmbeddedEngine)
    for group in options.groups:
        selected = select(group, options.first_seed, options.hours)
        outputs = measure(engine, group, selected, keep=options.moved)
        if options.moved:
            move(outputs, engine.policy)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
    print(f"\npeak memory {peak / (1024**2 if sys.platform == 'darwin' else 1):.0f} MiB, {options.threads} threads")


def select(group: str, seed: int, hours: float) -> Iterable[Recording]:
    """Return the recordings of a group."""
    if group == "real":
        return recordings.load_real()
    if group == "talks":
        plain = [recordings.make_conversation(n, s) for n in (2, 3, 5, 10) for s in (seed, seed + 1)]
        return plain + [recordings.make_conversation(n, seed + 6, longest_turn_s=4.0) for n in (3, 5)]
    if group == "solos":
        return [recordings.make_solo(voice) for voice in recordings.voices()]
    if group == "copies":
        originals = [recordings.load_sample(), recordings.make_conversation(3, seed)]
        originals += [recordings.make_solo(voice) for voice in recordings.voices()[::2]]
        return (copy for original in originals for copy in (original, *spoil(original)))
    if group == "spoiled":
        return spoil_solos()
    if group == "hard":
        return hard_recordings.make_hard(seed)
    if group == "hard-solos":
        return hard_recordings.make_hard_solos(seed)
    return [lengthen(hours)]


def spoil_solos() -> Iterator[Recording]:
    """Yield 140 spoiled copies of one voice alone, as docs/adr/0005-embedded-engine.md lists them."""
    solos = [recordings.make_solo(voice) for voice in recordings.voices()]
    for solo in (*solos[::2], *solos[1::2]):
        yield from spoil(solo)
    for solo in solos:
        narrow, wet = recordings.at_8_khz(solo), recordings.with_reverberation(solo)
        yield from (recordings.with_reverberation(solo, rt60_s) for rt60_s in (0.3, 0.8))
        yield recordings.with_reverberation(solo, seed=1)
        yield from (recordings.with_noise(solo, snr_db, seed=1) for snr_db in (20.0, 10.0, 5.0))
        yield recordings.with_levels(solo, 20.0)
        yield from (recordings.with_noise(copy, 15.0, seed=2) for copy in (wet, narrow))


def spoil(original: Recording) -> list[Recording]:
    """Return copies of a recording with narrower bandwidth, noise, reverberation or uneven levels."""
    return [
        recordings.at_8_khz(original),
        recordings.with_noise(original, 20.0),
        recordings.with_noise(original, 10.0),
        recordings.with_reverberation(original),
        recordings.with_levels(original),
    ]


def lengthen(hours: float) -> Recording:
    """Return conversations of five voices, one after the other, the same five throughout, cut at ``hours``."""
    wanted_s = hours * 3600
    talks: list[Recording] = []
    while sum(talk.duration_s for talk in talks) < wanted_s:
        again = recordings.make_conversation(5, 1, order_seed=len(talks))
        talks.append(again)
    joined = recordings.join(talks, f"{hours:g} h of five voices", gap_s=1.0, same_voices=True)
    reference = tuple(turn for turn in joined.reference if turn[1] <= wanted_s)
    return Recording(joined.name, joined.waveform[: int(wanted_s * recordings.SAMPLE_RATE_HZ)], reference)


def measure(
    engine: EmbeddedEngine, group: str, selected: Iterable[Recording], *, keep: bool
) -> list[tuple[Recording, NetworkOutput]]:
    """Print a row for every recording of a group, and the pooled rows."""
    print(f"\n## {group}\n")
    errors = ("DER", "miss", "false alarm", "confusion")
    columns = ("recording", *errors, "speakers true/found", "oracle", "one", "x real time", "per core")
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows: list[AccuracyRow] = []
    kept: list[tuple[Recording, NetworkOutput]] = []
    for recording in selected:
        began, began_cpu = time.perf_counter(), time.process_time()
        output = engine.run_networks(recording.waveform, lambda _stage, _done: None, StageTimer())
        turns = to_diarization(output, Hints(), engine.policy, StageTimer()).turns if output else ()
        speed = recording.duration_s / (time.perf_counter() - began)
        speed_per_core = recording.duration_s / (time.process_time() - began_cpu)
        single = to_diarization(output, Hints(num_speakers=1), engine.policy, StageTimer()).turns if output else ()
        row = AccuracyRow(
            name=recording.name,
            score=compare(recording, turns),
            true_speakers=recording.speakers,
            found_speakers=len({turn.speaker for turn in turns}),
            speed=speed,
            speed_per_core=speed_per_core,
            oracle=compare(recording, oracle(recording, output)) if output else None,
            one=compare(recording, single),
        )
        rows.append(row)
        show(row)
        if keep and output:
            kept.append((recording, output))
    show_pooled(rows)
    return kept


def show_pooled(rows: Sequence[AccuracyRow]) -> None:
    """Print the pooled row of AMI, and how many recordings of one voice became more."""
    excerpts = [row for row in rows if row.name in AMI]
    alone = [row.found_speakers for row in rows if row.true_speakers == 1]
    if alone:
        print(f"\n{sum(found > 1 for found in alone)} of {len(alone)} recordings of one voice became more than one")
    if excerpts:
        print(
            f"| **AMI pooled** | {pool(row.score for row in excerpts).der:.3f} | | | | | "
            f"{pool(row.oracle for row in excerpts if row.oracle).der:.3f} | "
            f"{pool(row.one for row in excerpts).der:.3f} | |"
        )


def move(kept: list[tuple[Recording, NetworkOutput]], policy: Policy) -> None:
    """Print DER and speakers of every recording with all thresholds, and each alone, 15 % up and down.

    The last row leaves one out: each recording has the thresholds, of these, that suit all the others best; those as
    set where they suit as well.
    """
    policies = {"as set": policy}
    for factor in (0.85, 1.15):
        policies[f"all x {factor}"] = moved(policy, MOVED, factor)
        policies |= {f"{name} x {factor}": moved(policy, (name,), factor) for name in MOVED if getattr(policy, name)}
    print("\n| thresholds | " + " | ".join(recording.name for recording, _ in kept) + " | AMI pooled | all pooled |")
    print("|---" * (len(kept) + 3) + "|")
    tried: list[list[tuple[Score, int]]] = []
    for name, own in policies.items():
        turns = [(recording, to_diarization(output, Hints(), own, StageTimer()).turns) for recording, output in kept]
        tried.append([(compare(recording, found), len({turn.speaker for turn in found})) for recording, found in turns])
        show_moved(name, kept, tried[-1])
    left_out = []
    for number in range(len(kept)):
        others = [pool(score for score, _ in row[:number] + row[number + 1 :]).der for row in tried]
        left_out.append(min(zip(others, tried, strict=True), key=lambda one: round(one[0], 6))[1][number])
    show_moved("leave one out", kept, left_out)


def show_moved(name: str, kept: list[tuple[Recording, NetworkOutput]], found: list[tuple[Score, int]]) -> None:
    """Print the row of some thresholds."""
    excerpts = [score for (recording, _), (score, _) in zip(kept, found, strict=True) if recording.name in AMI]
    cells = [f"{score.der:.3f} ({speakers})" for score, speakers in found]
    print(
        f"| {name} | {' | '.join(cells)} | {pool(excerpts).der:.3f} | {pool(s for s, _ in found).der:.4f} |", flush=True
    )


def moved(policy: Policy, names: tuple[str, ...], factor: float) -> Policy:
    """Return the policy with some thresholds multiplied."""
    set_ones = [name for name in names if getattr(policy, name) is not None]
    return replace(policy, **{name: getattr(policy, name) * factor for name in set_ones})


def show(row: AccuracyRow) -> None:
    """Print one row of the table."""
    score = row.score
    parts = [
        f"{seconds / max(score.total_s, 1e-9):.3f}"
        for seconds in (score.missed_s, score.false_alarm_s, score.confusion_s)
    ]
    best = f"{row.oracle.der:.3f}" if row.oracle else "-"
    print(
        f"| {row.name} | {score.der:.3f} | {' | '.join(parts)} | {row.true_speakers}/{row.found_speakers} | {best} | "
        f"{row.one.der:.3f} | {row.speed:.0f} | {row.speed_per_core:.0f} |",
        flush=True,
    )


def compare(recording: Recording, turns: tuple[Turn, ...]) -> Score:
    """Score turns against the reference, over the whole recording."""
    reference, hypothesis = Annotation(), Annotation()
    for number, (start_s, end_s, speaker) in enumerate(recording.reference):
        reference[Segment(start_s, end_s), number] = speaker
    for number, turn in enumerate(turns):
        hypothesis[Segment(turn.start_s, turn.end_s), number] = turn.speaker
    whole = Segment(0.0, recording.duration_s)
    detail = DiarizationErrorRate(collar=0.0, skip_overlap=False)(reference, hypothesis, uem=whole, detailed=True)
    return Score(detail["missed detection"], detail["false alarm"], detail["confusion"], detail["total"])


def pool(scores: Iterable[Score]) -> Score:
    """Add up errors and reference speech."""
    every = list(scores)
    return Score(
        sum(score.missed_s for score in every),
        sum(score.false_alarm_s for score in every),
        sum(score.confusion_s for score in every),
        sum(score.total_s for score in every),
    )


def oracle(recording: Recording, output: NetworkOutput) -> tuple[Turn, ...]:
    """Cluster perfectly: within every window, each local speaker is the reference speaker it overlaps most."""
    names = sorted({speaker for _, _, speaker in recording.reference})
    scores, grid = output.segmentation.scores, output.segmentation.grid
    n_frames = grid.covered_frames(len(scores))
    truth = np.zeros((n_frames, len(names)), dtype=np.float32)
    for start_s, end_s, speaker in recording.reference:
        first, last = (max(0, round((at_s - FIRST_FRAME_START_S) / FRAME_S)) for at_s in (start_s, end_s))
        truth[first:last, names.index(speaker)] = 1.0
    activity = np.zeros((n_frames, len(names)), dtype=np.float32)
    for window, score in enumerate(scores.astype(np.float32)):
        span = grid.frames_of(window)
        shared = (score > ACTIVE).astype(np.float32).T @ truth[span]
        given = dict(zip(*linear_sum_assignment(-shared), strict=True))
        for local in range(LOCAL_SPEAKERS):
            speaker = given[local] if local in given and shared[local, given[local]] > 0 else shared[local].argmax()
            if shared[local, speaker] > 0:
                activity[span, speaker] += score[:, local]
    activity /= windows_per_frame(len(scores), grid)[:, None]
    return as_turns(speaking(activity, output.segmentation.talkers), names, recording.duration_s)


if __name__ == "__main__":
    main()
