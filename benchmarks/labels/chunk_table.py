"""The table of `bench-labels` that compares a recording sent in chunks with one upload, through the real engine."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks import recordings
from benchmarks.labels.chunked_talk import ONE_UPLOAD, DeliveredLabels, Delivery, KeptAnswers, deliver, true_steps
from benchmarks.recordings import Recording
from mac_agent.engines.engine import Engine
from vps_bridge.labelling.relabel import RelabelPolicy

CHUNKS_S = (5.0, 15.0, 60.0)
FINAL_AIM, LIVE_AIM, CHANGED_AIM, EXTRA_SPEAKERS_AIM = 0.02, 0.05, 0.02, 1
HEADING = "## Chunks against one upload, engine "
COLUMNS = (
    "recording", "sent as", "jobs", "DER final", "linked rightly", "one upload", "live", "labels changed",
    "speakers true / one / found", "misses",
)  # fmt: skip


def select_recordings(names: Iterable[str] | None = None) -> list[Recording]:
    """Return the recordings: a call, the sample again and again, and made-up conversations of LibriSpeech voices.

    Args:
        names: only these; also `talkN-SEED` of other voices and seeds, and the recordings of `load_real`.
    """
    return [_make(name) for name in names or ("repair_call_40", "sample", "talk3-1", "talk5-1", "talk10-1")]


def _make(name: str) -> Recording:
    if name == "sample":
        return recordings.join([recordings.load_sample()] * 4, "sample x 4", gap_s=0.5, same_voices=True)
    if talk := re.fullmatch(r"talk(\d+)-(\d+)", name):
        return recordings.make_conversation(*map(int, talk.groups()))
    return next(found for found in recordings.load_real() if found.name == name)


def deliveries(chunks_s: Iterable[float]) -> list[Delivery]:
    """Return the ways to send: for each length of chunk in order, shuffled, and with 5 % of the chunks lost."""
    return [
        delivery
        for chunk_s in chunks_s
        for delivery in (Delivery(chunk_s), Delivery(chunk_s, is_shuffled=True), Delivery(chunk_s, lost_share=0.05))
    ]


def print_chunk_table(engine: Engine, answers: Path, selected: Iterable[Recording], sent: Iterable[Delivery]) -> str:
    """Print a row for every recording and way to send it; return all that was printed."""
    kept, policy, printed = KeptAnswers(engine, answers), RelabelPolicy(), list[str]()
    sent = list(sent)

    def show(line: str) -> None:
        print(line, flush=True)
        printed.append(line)

    show(f"{HEADING}{engine.info.name} ({engine.info.embedding_model})\n")
    show(f"| {' | '.join(COLUMNS)} |")
    show("|---" * len(COLUMNS) + "|")
    missed, largest, began_s = list[bool](), 0, time.process_time()
    for recording in selected:
        one = deliver(recording, ONE_UPLOAD, kept, policy)
        for delivery in sent:
            found = deliver(recording, delivery, kept, policy)
            cells = list(_cells(recording, delivery, found, one))
            missed.append(bool(cells[-1]))
            largest = max(largest, found.message_bytes)
            show(f"| {' | '.join(cells)} |")
    show(f"\n{missed.count(False)} of {len(missed)} rows meet every aim; the largest result has {largest // 1000} kB.")
    print(f"{time.process_time() - began_s:.0f} s of processor time.")
    return "\n".join(printed) + "\n"


def _cells(recording: Recording, delivery: Delivery, found: DeliveredLabels, one: DeliveredLabels) -> Iterator[str]:
    """Yield the cells of a row; the last names the aims that it misses."""
    truth, heard = true_steps(recording), found.heard
    final, live, changed = found.final_error(truth, heard), found.live_error(truth, heard), found.shown.changed_share
    upload = one.final_error(truth, heard)
    misses = {
        "final": final > upload + FINAL_AIM,
        "live": live > upload + LIVE_AIM,
        "changed": changed > CHANGED_AIM,
        "speakers": found.speakers > recording.speakers + EXTRA_SPEAKERS_AIM,
    }
    yield f"{recording.name} ({recording.duration_s:.0f} s)"
    yield from (str(delivery), str(found.jobs), f"{final:.3f}", f"{found.best_error(truth, heard):.3f}")
    yield from (f"{upload:.3f}", f"{live:.3f}", f"{changed:.1%}")
    yield f"{recording.speakers} / {one.speakers} / {found.speakers}"
    yield ", ".join(name for name, is_missed in misses.items() if is_missed)


def write_section(path: Path, section: str) -> None:
    """Write the table of an engine into a page, instead of the one that the page had of it; the rest stays."""
    heading = section.splitlines()[0]
    parts = re.split(r"(?m)^(?=## )", path.read_text())
    at = next((number for number, part in enumerate(parts) if part.startswith(f"{heading}\n")), len(parts))
    parts[at : at + 1] = [f"{section}\n"]
    path.write_text("\n\n".join(part.rstrip("\n") for part in parts) + "\n")
