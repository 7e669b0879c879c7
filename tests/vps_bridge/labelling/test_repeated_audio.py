"""Chunks that begin before the one before them ends: their labels are right, and what they share is named."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.vps_bridge.labelling.test_align import chunk
from tests.vps_bridge.labelling.test_relabel import DIALOGUE, POLICY, T0, diarize, transcript
from vps_bridge.labelling.evidence import ConversationEvidence, build_audio_timeline
from vps_bridge.labelling.relabel import Relabelling, relabel
from vps_bridge.labelling.repeated_audio import describe_overlap, without_repeated
from vps_bridge.rules.assemble import AssemblyRules, ChunkInfo, plan_jobs

Spoken = Sequence[tuple[str, float, float]]
UNKNOWN = "SPEAKER_09"


def talk(seed: int) -> list[tuple[str, float, float]]:
    """Three people, with turns and pauses of every length, for about five minutes.

    All say much at the end: the last job may be short, and who says little in it has no number.
    """
    draw, spoken, at_s = random.Random(seed), [], 0.5
    for number in range(50):
        is_inner = 3 <= number < 44
        length_s = draw.uniform(1.0, 9.0) if is_inner else draw.uniform(5.0, 7.0)
        spoken.append((draw.choice("ABC") if is_inner else "ABC"[number % 3], at_s, at_s + length_s))
        at_s += length_s + draw.choice([0.2, 0.6, 1.5, 3.0])
    return spoken


def recorded(spoken: Spoken, chunk_s: float, step_s: float) -> list[ChunkInfo]:
    count = int(spoken[-1][2] / step_s) + 1
    return [ChunkInfo(f"c{n:03d}", n, n, T0 + n * step_s, chunk_s) for n in range(count)]


def evidence_of(chunks: Sequence[ChunkInfo], heard: Sequence[ChunkInfo], spoken: Spoken, text: Spoken):
    """What is known of chunks; `heard` says which seconds of the speech their samples are."""
    plans = plan_jobs(chunks, closing=True, idle_s=0.0, rules=AssemblyRules())
    jobs = tuple(diarize(heard, plan, spoken) for plan in plans)
    return ConversationEvidence("c1", tuple(chunks), jobs, transcript(text, UNKNOWN), started_at_s=T0)


def assert_all_are_right(result: Relabelling, spoken: Spoken) -> None:
    assert result.left_alone == ()
    said_by: dict[str | None, set[str]] = {}
    for label, (name, *_) in zip(result.segments, spoken, strict=True):
        said_by.setdefault(label.speaker, set()).add(name)
    assert sorted(map(sorted, said_by.values())) == [["A"], ["B"], ["C"]]


@pytest.mark.parametrize(
    ("chunk_s", "step_s"),
    [
        (10.0, 9.0),
        (10.0, 9.7),
        (10.0, 9.5),
        (10.0, 8.0),
        (10.0, 5.0),
        (5.0, 4.0),
        (30.0, 29.0),
        (30.0, 25.0),
        (60.0, 55),
    ],
)
@pytest.mark.parametrize("spoken", [DIALOGUE, talk(3), talk(5)], ids=["dialogue", "talk 3", "talk 5"])
def test_chunks_that_overlap_get_every_label_right(spoken, chunk_s, step_s):
    chunks = recorded(spoken, chunk_s, step_s)
    result = relabel(evidence_of(chunks, chunks, spoken, spoken), POLICY)
    assert_all_are_right(result, spoken)
    assert result.offsets[0] == pytest.approx(0.0, abs=0.05)
    (warning,) = result.warnings
    assert warning.startswith(f"audio.chunks_overlap: by captured_at a chunk begins {chunk_s - step_s:.1f} s before ")
    assert "send each second once" in warning


def test_every_second_of_chunks_that_overlap_counts_once_and_is_played_once():
    chunks = recorded(DIALOGUE, 10.0, 9.0)
    result = relabel(evidence_of(chunks, chunks, DIALOGUE, DIALOGUE), POLICY)
    assert result.audio_s == pytest.approx(9.0 * (len(chunks) - 1) + 10.0)
    ends_s = [part.transcript_s + part.to_s - part.from_s for part in result.audio_places]
    begins_s = [part.transcript_s for part in result.audio_places]
    assert ends_s[:-1] == pytest.approx(begins_s[1:])


def test_a_pause_between_chunks_that_overlap_stays_a_pause():
    """What is said after some minutes keeps its place."""
    later = [(name, start_s + 600.0, end_s + 600.0) for name, start_s, end_s in talk(4)]
    spoken = [*talk(3), *later]
    late = [
        replace(one, chunk_id=f"d{n:03d}", arrival=100 + n, sequence=100 + n, captured_at_s=T0 + 600.0 + 9.0 * n)
        for n, one in enumerate(recorded(talk(4), 10.0, 9.0))
    ]
    chunks = [*recorded(talk(3), 10.0, 9.0), *late]
    result = relabel(evidence_of(chunks, chunks, spoken, spoken), POLICY)
    assert_all_are_right(result, spoken)


@pytest.mark.parametrize("ratio", [0.5, 0.8, 0.85, 0.9, 0.95])
@pytest.mark.parametrize("seed", range(6))
def test_samples_that_are_read_at_a_wrong_rate_give_no_wrong_label(seed, ratio):
    """Chunks of 10 s by their header, which took less to record: nothing in them is there twice."""
    spoken = talk(seed)
    chunks = recorded(spoken, 10.0, 10.0 * ratio)
    slow = [(name, start_s / ratio, end_s / ratio) for name, start_s, end_s in spoken]
    heard = [replace(one, captured_at_s=T0 + 10.0 * n) for n, one in enumerate(chunks)]
    result = relabel(evidence_of(chunks, heard, slow, spoken), POLICY)
    said_by: dict[str | None, set[str]] = {}
    for label, (name, *_) in zip(result.segments, spoken, strict=True):
        if label.speaker not in (UNKNOWN, None):
            said_by.setdefault(label.speaker, set()).add(name)
    assert [names for names in said_by.values() if len(names) > 1] == []
    assert any(warning.startswith(("audio.chunks_overlap", "audio.rate_suspect")) for warning in result.warnings)


@pytest.mark.parametrize(
    "moves_s",
    [
        lambda n: 0.0,
        lambda n: 0.4 * (-1) ** n,
        lambda n: -0.1 * n,  # a clock that is 1 % slow
        lambda n: -7.0 * (n >= 16),  # one that was set
        lambda n: -3.0 * (n % 4 == 0),  # some that were buffered
    ],
    ids=["exact", "jitter", "slow", "set", "late"],
)
def test_chunks_that_follow_each_other_are_placed_as_they_were(moves_s):
    chunks = [chunk(n, T0 + 10.0 * n + moves_s(n)) for n in range(32)]
    assert without_repeated(chunks, ()) == tuple(chunks)


@pytest.mark.parametrize("unit_s", [1.0, 2.0], ids=["whole seconds", "times of a FAT file system"])
@pytest.mark.parametrize("chunk_s", [2.048, 4.096, 5.12, 7.3, 10.24, 30.72])
@pytest.mark.parametrize("spoken", [DIALOGUE, talk(3), talk(5)], ids=["dialogue", "talk 3", "talk 5"])
def test_rounded_times_of_chunks_that_follow_each_other_leave_nothing_out(spoken, chunk_s, unit_s):
    """Most steps are shorter than a chunk, and the others make up for it: no second is there twice."""
    heard = recorded(spoken, chunk_s, chunk_s)
    chunks = [replace(one, captured_at_s=(one.captured_at_s or 0.0) // unit_s * unit_s) for one in heard]
    result = relabel(evidence_of(chunks, heard, spoken, spoken), POLICY)
    assert_all_are_right(result, spoken)
    assert result.audio_s == pytest.approx(chunk_s * len(chunks))
    assert result.warnings == ()


def test_where_captured_at_is_when_audio_arrived_nothing_is_left_out():
    chunks = [replace(one, captured_error_s=5.0) for one in recorded(DIALOGUE, 10.0, 9.0)]
    assert without_repeated(chunks, ()) == tuple(chunks)


def test_audio_without_words_counts_once_too():
    chunks = tuple(recorded(DIALOGUE, 10.0, 9.0))
    evidence = replace(evidence_of(chunks, chunks, DIALOGUE, DIALOGUE), segments=())
    assert build_audio_timeline(evidence, AssemblyRules()).audio_s == pytest.approx(9.0 * (len(chunks) - 1) + 10.0)


@pytest.mark.parametrize(
    ("step_s", "said"),
    [(8.0, "begins 2.0 s before"), (9.7, "begins 0.3 s before"), (10.0, None), (9.9, None), (30.0, None)],
)
def test_chunks_that_share_audio_are_named_with_how_much(step_s, said):
    found = describe_overlap([chunk(n, T0 + step_s * n) for n in range(10)])
    assert (found is None) == (said is None)
    assert said is None or said in (found or "")


def test_chunks_that_were_sent_twice_are_named():
    found = describe_overlap([chunk(n, T0 + 10.0 * (n // 2)) for n in range(10)])
    assert found is not None
    assert found.startswith("audio.chunks_overlap: by captured_at a chunk begins 10.0 s before the one before it ends")
