"""How true the labels are: clock, words, linking, wrong labels of people, and chunks against one upload.

    make bench-labels ARGS="--only clock --cases 2000 --first-seed 0"
    make bench-labels ARGS="--only chunks --quick"
    make bench-labels ARGS="--only chunks --engine embedded-ge2e --answers FOLDER --write benchmarks/chunks.md"

The clock is measured on real pairs and 2,000 drawn cases, chunks through the real engine (20 minutes of an idle core),
words by `benchmarks.bench_words` and in several jobs, linking by `benchmarks.bench_linking`, and the time of a
conversation of 480 jobs ("long").
Needs `shared/transcripts` and `shared/audio` beside the repository. Thresholds of the clock were chosen on the
recordings that are not kept aside. The others were looked at too, some times, and made two thresholds stricter
(docs/adr/0015-clock-by-evidence.md).
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs

from benchmarks import bench_words
from benchmarks.bench_linking import print_replayed
from benchmarks.labels.chunk_table import CHUNKS_S, deliveries, print_chunk_table, select_recordings, write_section
from benchmarks.labels.clock_cases import CAUSES, ClockCase, draw_case
from benchmarks.labels.clock_verdicts import ClockVerdict, judge_clock
from benchmarks.labels.long_conversation import print_long_conversation
from benchmarks.labels.pairs import load_pairs
from benchmarks.labels.words_in_jobs import print_words_in_jobs
from benchmarks.labels.wrong_labels import LABELLED, WordsRight, measure
from mac_agent.engines.registry import ENGINE_NAMES, load_engine
from vps_bridge.labelling.align import AlignmentRules, Stretch, find_clock

SHARED = Path(__file__).resolve().parents[2] / "shared"
WRONG, WRONG_SEEDS = 0.1, 3
QUICK = ("repair_call_40", "talk3-1")
PARTS = ("clock", "words", "linking", "long", "people", "chunks")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2_000, help="drawn cases, half of them from recordings kept aside")
    parser.add_argument("--first-seed", type=int, default=0, help="draw from this seed on")
    parser.add_argument("--only", choices=PARTS, help="only this part")
    parser.add_argument("--quick", action="store_true", help="200 cases; two recordings in chunks of 5 and 60 s")
    parser.add_argument("--engine", default="embedded", choices=ENGINE_NAMES, help="whose weights are here")
    parser.add_argument("--data-dir", type=Path, default=Path(platformdirs.user_data_dir("omi-diarization")))
    parser.add_argument("--answers", type=Path, help="keep the engine's answers here, for the next run")
    parser.add_argument("--recordings", nargs="+", help="in chunks; talk5-2 is 5 voices, seed 2 (default: five)")
    parser.add_argument("--write", type=Path, help="put the table of chunks into this page too")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder with transcripts/")
    options = parser.parse_args()
    if options.only in (None, "clock"):
        print_clock(options.shared, 200 if options.quick else options.cases, options.first_seed)
    if options.only in (None, "words"):
        print_words(options.shared)
    if options.only in (None, "linking"):
        print("\n## Linking\n")
        print_replayed()
    if options.only in (None, "long"):
        print_long_conversation()
    if options.only in (None, "people"):
        print_wrong_labels(options.shared)
    if options.only in (None, "chunks"):
        engine = load_engine(options.engine, data_dir=options.data_dir, threads=1)
        with TemporaryDirectory() as scratch:
            selected = select_recordings(options.recordings or (QUICK if options.quick else None))
            sent = deliveries(CHUNKS_S[::2] if options.quick else CHUNKS_S)
            section = print_chunk_table(engine, options.answers or Path(scratch), selected, sent)
        if options.write is not None:
            write_section(options.write, section)


def print_clock(shared: Path, n_cases: int, first_seed: int = 0) -> None:
    """Print how often the clock between audio and transcript is found, and how often a wrong one is believed."""
    pairs = load_pairs(shared)
    for kept_aside in (False, True):
        chosen = [pair for pair in pairs if pair.kept_aside == kept_aside]
        print(f"\n## Clock, recordings {'kept aside' if kept_aside else 'that thresholds were chosen on'}")
        cases = [draw_case(chosen, seed) for seed in range(first_seed, first_seed + n_cases // 2)]
        began_s = time.process_time()
        verdicts = [(case, judge_clock(case, _clock_of(case))) for case in cases]
        print_clock_table(verdicts)
        print(f"processor time a case: {(time.process_time() - began_s) / len(cases) * 1000:.0f} ms")


def print_words(shared: Path) -> None:
    """Print how many words have the right speaker, in pieces and whole, and what several jobs cost."""
    print("\n## Words with the right speaker, true turns and true voices\n")
    bench_words.main(shared)
    print("\n## Words with the right speaker, in one job and in several\n")
    print_words_in_jobs(shared)


def print_wrong_labels(shared: Path) -> None:
    """Print how many words of other segments are right where people's labels are, and where a tenth of them is not."""
    print(f"\n## Labels of people: {WRONG:.0%} of them wrong")
    for share in LABELLED:
        found = list(measure(shared, share, WRONG, range(WRONG_SEEDS)))
        right = sum((row[0] for row in found), WordsRight()).share
        wrong = sum((row[1] for row in found), WordsRight()).share
        worst = max(row[0].share - row[1].share for row in found)
        print(f"{share:.0%} of the segments labelled: {100 * right:.2f} % of the other words right, with wrong labels")
        print(f"  {100 * wrong:.2f} % (worst of {len(found)} runs: {100 * worst:.2f} points less)")


def _clock_of(case: ClockCase):  # noqa: ANN202
    stretch = Stretch(0, case.length_s, case.prior_s, case.prior_s is not None)
    heard = [(0.0, case.length_s)]
    rules = AlignmentRules()
    return find_clock(stretch, case.speech, heard, case.transcript, rules, has_word_times=case.has_word_times)


def print_clock_table(verdicts: list[tuple[ClockCase, ClockVerdict]]) -> None:
    """Print the verdicts by cause, and how many with a minute of audio and three pauses were recovered."""
    print("| cause | " + " | ".join(verdict.value for verdict in ClockVerdict) + " |")
    print("|---" * (len(ClockVerdict) + 1) + "|")
    for cause in CAUSES:
        counts = Counter(verdict for case, verdict in verdicts if case.cause == cause)
        print(f"| {cause} | " + " | ".join(str(counts[verdict]) for verdict in ClockVerdict) + " |")
    counts = Counter(verdict for _, verdict in verdicts)
    print("| **all** | " + " | ".join(str(counts[verdict]) for verdict in ClockVerdict) + " |")
    print("\nRecovered where there is a minute of audio and three pauses:")
    fit = [
        (case, verdict) for case, verdict in verdicts if case.length_s >= 60 and case.pauses >= 3 and case.has_answer
    ]
    for name, wanted in (("one offset throughout", (1,)), ("seconds or pauses left out", (2, 3, 4, 5))):
        for kind in ("word times", "cut at pauses", "a service's own", "merged blocks"):
            found = [
                verdict is ClockVerdict.RECOVERED
                for case, verdict in fit
                if len(case.knots) in wanted and kind == ("word times" if case.has_word_times else case.kind)
            ]
            if found:
                print(f"  {name}, {kind}: {sum(found)} of {len(found)} ({sum(found) / len(found):.0%})")


if __name__ == "__main__":
    main()
