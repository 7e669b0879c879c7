"""A line is split off while a talk goes on: two jobs have heard a line before it, and most of the later is the line."""

from __future__ import annotations

import random

import pytest

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.labelling.corrected_conversation import open_conversation
from tests.vps_bridge.labelling.test_relabel import chunks_of, diarize
from vps_bridge.rules.assemble import AssemblyRules, plan_jobs

CHUNK_S = 10.0


def draw_talk(seed: int) -> list[tuple[str, float, float]]:
    draw, at_s, spoken = random.Random(seed), 0.5, list[tuple[str, float, float]]()
    for _ in range(30):
        who = draw.choice([one for one in "AABC" if not spoken or one != spoken[-1][0]])
        length_s = draw.choice([draw.uniform(1, 4), draw.uniform(4, 9)])
        spoken.append((who, at_s, at_s + length_s))
        at_s += length_s + draw.uniform(0.2, 2.5)
    return spoken


@pytest.mark.parametrize(("seed", "named"), [(1, 24), (2, 19), (8, 25)])
def test_the_lines_of_the_earlier_job_stay_and_so_does_the_line_that_both_jobs_heard(seed: int, named: int):
    spoken = draw_talk(seed)
    lines = [
        TranscriptSegment(id=str(n), start_s=start_s, end_s=end_s, text=f"line {n}")
        for n, (_, start_s, end_s) in enumerate(spoken[: named + 2])
    ]
    chunks = tuple(chunks_of((int(spoken[-1][2]) // CHUNK_S + 1) * CHUNK_S, CHUNK_S))
    plans = plan_jobs(chunks, closing=True, idle_s=0.0, rules=AssemblyRules())
    with open_conversation(tuple(lines)) as found:
        found.hear(chunks, tuple(diarize(chunks, plan, spoken) for plan in plans))
        before = found.speakers
        write = found.correct(kind="other_voice", segment_ids=[str(named)])
        ends_s = chunks[len(plans[0].chunks) - 1].captured_at_s - chunks[0].captured_at_s + CHUNK_S
        early = [n for n in range(named) if spoken[n][0] == spoken[named][0] and spoken[n][1] < ends_s]
        assert len(early) > 5
        assert {found.speakers[str(n)] for n in early} == {before["0"]}
        assert found.speakers[str(named)] != before["0"]
        found.undo(write)
        assert found.speakers == before
