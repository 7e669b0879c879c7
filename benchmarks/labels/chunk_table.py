"""The table of `bench-labels` that compares a recording sent in chunks with one upload, through the real engine."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import recordings
from benchmarks.labels.chunked_talk import ONE_UPLOAD, KeptAnswers, deliver, deliveries, true_steps
from benchmarks.recordings import Recording
from mac_agent.engines.engine import Engine
from vps_bridge.labelling.relabel import RelabelPolicy

CHUNKS_S = (5.0, 15.0, 60.0)
FINAL_AIM, LIVE_AIM, CHANGED_AIM, EXTRA_SPEAKERS_AIM = 0.02, 0.05, 0.02, 1


def select_recordings(*, quick: bool) -> list[Recording]:
    """Return the recordings: a call, the sample again and again, and made-up conversations of LibriSpeech voices."""
    call = next(found for found in recordings.load_real() if found.name.startswith("repair_call"))
    talks = [recordings.make_conversation(n_voices, 1) for n_voices in ((3,) if quick else (3, 5, 10))]
    if quick:
        return [call, *talks]
    sample = recordings.join([recordings.load_sample()] * 4, "sample x 4", gap_s=0.5, same_voices=True)
    return [call, sample, *talks]


def print_chunk_table(engine: Engine, answers: Path, *, quick: bool) -> None:
    """Print a row for every recording and way to send it."""
    kept, policy = KeptAnswers(engine, answers), RelabelPolicy()
    print(f"\n## Chunks against one upload, engine {engine.info.name} ({engine.info.embedding_model})\n")
    columns = (
        "recording | sent as | jobs | DER final | one upload | live | labels changed | speakers true / one / found"
    )
    print(f"| {columns} | misses |")
    print("|---|---|---|---|---|---|---|---|---|")
    missed = rows = largest = 0
    began_s = time.process_time()
    for recording in select_recordings(quick=quick):
        truth, one = true_steps(recording), deliver(recording, ONE_UPLOAD, kept, policy)
        for delivery in deliveries(CHUNKS_S[::2] if quick else CHUNKS_S):
            found = deliver(recording, delivery, kept, policy)
            final, live = found.final_error(truth, found.heard), found.live_error(truth, found.heard)
            upload, changed = one.final_error(truth, found.heard), found.shown.changed_share
            misses = [
                name
                for name, is_missed in (
                    ("final", final > upload + FINAL_AIM),
                    ("live", live > upload + LIVE_AIM),
                    ("changed", changed > CHANGED_AIM),
                    ("speakers", found.speakers > recording.speakers + EXTRA_SPEAKERS_AIM),
                )
                if is_missed
            ]
            rows, missed, largest = rows + 1, missed + bool(misses), max(largest, found.message_bytes)
            print(
                f"| {recording.name} ({recording.duration_s:.0f} s) | {delivery} | {found.jobs} | {final:.3f} "
                f"| {upload:.3f} | {live:.3f} | {changed:.1%} "
                f"| {recording.speakers} / {one.speakers} / {found.speakers} | {', '.join(misses)} |",
                flush=True,
            )
    print(f"\n{rows - missed} of {rows} rows meet every aim; the largest result has {largest / 1000:.0f} kB;")
    print(f"{time.process_time() - began_s:.0f} s of processor time.")
