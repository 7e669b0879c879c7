"""How much of the speech in OMI's audio finds its place in the transcript, by arrival alone and with true times.

No engine and no bridge: the speech is the reference's, its ends blurred. Needs `../shared/audio`; takes two minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.labels.chunk_table import select_recordings
from schemas.record import MAX_DURATION_S
from tests.omi.heard_recordings import HeardRecording, with_pauses
from tests.omi.traffic import SAMPLE_BYTES, OmiSender
from vps_bridge.labelling.align import AlignmentRules, Stretch, StretchClock, find_clock, with_found_prior
from vps_bridge.labelling.audio_clock import Span
from vps_bridge.labelling.joint_clock import find_joint_clocks
from vps_bridge.omi.cutting import CutChunk, cut_chunks
from vps_bridge.omi.placement import ERROR_S, AudioArrival, bytes_per_s, place_arrivals
from vps_bridge.omi.silence import find_quiet_point
from vps_bridge.omi.users import NewAccess, OmiUser

NAMES = (*(f"talk{speakers}-{seed}" for speakers in (2, 3, 5) for seed in range(11, 15)), "repair_call_40", "sample")
BEGAN_AT, ZERO_S = 1_780_000_000.0, 20.0
GAP_S, BLUR_S, RIGHT_S, STEP_S, SHORTEST_S, BLURRINGS = 1.0, 0.08, 0.5, 0.1, 0.3, 2
Sums = NDArray[np.float64]
Part = tuple[float, int, int]
"""Audio without a gap: when it is said to begin (Unix time), and its first and last sample of those that were sent."""


def main() -> int:
    """Print a line for each recording, and the shares of all."""
    access = NewAccess(OmiUser("u", "", "0" * 32), "token")
    kinds = {
        "true times": None,
        "older backends": OmiSender(access, "A", is_signed=False, buffer_s=5.0, seed=4),
        "newer": OmiSender(access, "B", seed=5),
    }
    sums = {kind: np.zeros(3) for kind in kinds}
    for seed, recording in enumerate(select_recordings(NAMES)):
        heard = with_pauses(recording, seed, BEGAN_AT)
        for kind, sender in kinds.items():
            parts = true_parts(heard) if sender is None else parts_by_arrival(heard, sender)
            found = sum(
                (measure(heard, parts, 0.0 if sender is None else ERROR_S, again) for again in range(BLURRINGS)),
                np.zeros(3),
            )
            sums[kind] += found
            print(f"{recording.name}, {kind}: {describe(found)}", flush=True)
    for kind, found in sums.items():
        print(f"all, {kind}: {describe(found)}")
    return 0


def describe(found: Sums) -> str:
    """Say the shares of speech that is placed rightly and wrongly."""
    return f"{found[1] / found[0]:.1%} placed rightly, {found[2] / found[0]:.1%} wrongly"


def true_parts(heard: HeardRecording) -> list[Part]:
    """Return what is sent, with the times of its recording."""
    parts, first = [], 0
    for start_s, end_s in heard.talk.sent_spans(14.0):
        last = first + round(end_s * heard.talk.rate) - round(start_s * heard.talk.rate)
        parts.append((heard.talk.began_at + start_s, first, last))
        first = last
    return parts


def parts_by_arrival(heard: HeardRecording, sender: OmiSender) -> list[Part]:
    """Return what is sent, with the times that its arrival gives."""
    arrivals, data = list[AudioArrival](), bytearray()
    for post in sender.send_audio(heard.talk):
        arrivals.append(AudioArrival(len(data), len(data) + len(post.body), heard.talk.rate, post.at))
        data += post.body

    def quiet_point(start: int, end: int) -> int | None:
        samples = np.frombuffer(data[start : end - (end - start) % SAMPLE_BYTES], "<i2")
        index = find_quiet_point(samples, heard.talk.rate)
        return None if index is None else start + SAMPLE_BYTES * index

    joined: list[CutChunk] = []
    parts: list[Part] = []
    for chunk in cut_chunks(place_arrivals(arrivals, quiet_point), (0.0, BEGAN_AT + MAX_DURATION_S), []):
        last = joined[-1] if joined else None
        length_s = 0.0 if last is None else (last.end - last.start) / bytes_per_s(heard.talk.rate)
        follows = last is not None and chunk.start == last.end
        if follows and last is not None and abs(chunk.recorded_at - last.recorded_at - length_s) < GAP_S:
            parts[-1] = (parts[-1][0], parts[-1][1], chunk.end // SAMPLE_BYTES)
        else:
            parts.append((chunk.recorded_at, chunk.start // SAMPLE_BYTES, chunk.end // SAMPLE_BYTES))
        joined.append(chunk)
    return parts


def measure(heard: HeardRecording, parts: Sequence[Part], error_s: float, seed: int) -> Sums:
    """Return seconds of speech: all, rightly placed, wrongly placed."""
    talk, draw = heard.talk, np.random.default_rng(seed)
    sent = [np.arange(round(a * talk.rate), round(b * talk.rate)) / talk.rate for a, b in talk.sent_spans(14.0)]
    times_s = np.concatenate(sent)
    stretches, speech, audio = list[Stretch](), dict[int, list[Span]](), dict[int, list[Span]]()
    for index, (recorded_at, first, last) in enumerate(parts):
        length_s = (last - first) / talk.rate
        prior_s = recorded_at - talk.began_at + ZERO_S
        stretches.append(Stretch(index, length_s, prior_s, is_timed=True, captured_s=recorded_at, error_s=error_s))
        audio[index] = [(0.0, length_s)]
        edges = [np.searchsorted(times_s[first:last], span) / talk.rate for span in talk.speech]
        speech[index] = [(float(a), float(b)) for a, b in edges if b > a]
    blurred = {
        index: [(a + draw.normal(0, BLUR_S), b + draw.normal(0, BLUR_S)) for a, b in spans if b - a > SHORTEST_S]
        for index, spans in speech.items()
    }
    clocks = find_clocks(heard, stretches, blurred, audio)
    found = np.zeros(3)
    for (_, first, last), clock, spans in zip(parts, clocks, speech.values(), strict=True):
        for moment_s in (moment for a, b in spans for moment in np.arange(a, b, STEP_S)):
            true_s = times_s[min(last - 1, first + int(moment_s * talk.rate))] + ZERO_S
            moved = clock.move(moment_s, moment_s + STEP_S / 2)
            is_right = bool(moved) and abs(moved[0][0] - true_s) < RIGHT_S
            found += STEP_S * np.array([1, is_right, bool(moved) and not is_right])
    return found


def find_clocks(
    heard: HeardRecording,
    stretches: Sequence[Stretch],
    speech: Mapping[int, Sequence[Span]],
    audio: Mapping[int, Sequence[Span]],
) -> list[StretchClock]:
    """Return the clock of each stretch, as labelling finds them."""
    transcript = [(row["start"], row["end"]) for row in heard.rows("c", ZERO_S)]

    def find(stretch: Stretch, spoken: Sequence[Span], audible: Sequence[Span]) -> StretchClock:
        return find_clock(stretch, spoken, audible, transcript, AlignmentRules())

    joint = find_joint_clocks(stretches, speech, audio, find)
    clocks = [joint.get(each.index) or find(each, speech[each.index], audio[each.index]) for each in stretches]
    found = list(zip(stretches, clocks, strict=True))
    for index, stretch in enumerate(stretches):
        again = with_found_prior(stretch, found)
        if not clocks[index].pieces and again != stretch:
            clocks[index] = find(again, speech[index], audio[index])
    return clocks


if __name__ == "__main__":
    sys.exit(main())
