"""A person's word about one line joins no two voices heard beside each other, and no later job ends it."""

import numpy as np
import pytest

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.labelling.corrected_conversation import CorrectedConversation
from tests.vps_bridge.labelling.test_corrections import ALL, EARLY, conversation, said_by
from tests.vps_bridge.labelling.test_relabel import PEOPLE, chunks_of, diarize
from vps_bridge.rules.assemble import AssemblyRules, plan_jobs

LINES = [("A", 0.5, 6.0), ("B", 7.0, 8.5), ("A", 9.0, 14.0), ("B", 15.0, 27.0), ("A", 28.0, 33.0), ("B", 34.0, 37.0)]
ALIKE = 0.7  # far above the threshold of linking


def test_one_line_moved_does_not_make_one_voice_of_two_alike_ones(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEOPLE, "B", ALIKE * PEOPLE["A"] + np.sqrt(1 - ALIKE**2) * PEOPLE["B"])
    chunks = chunks_of(40.0, 10.0)
    (plan,) = plan_jobs(chunks, closing=True, idle_s=0.0, rules=AssemblyRules())
    segments = tuple(
        TranscriptSegment(id=f"s{place}", start_s=start_s, end_s=end_s, text="word", speaker="SPEAKER_00")
        for place, (_, start_s, end_s) in enumerate(LINES)
    )
    made = CorrectedConversation(tmp_path, segments)
    made.hear(tuple(chunks), (diarize(chunks, plan, LINES),))
    before = made.speakers
    assert list(before.values()) == ["SPEAKER_00", "SPEAKER_01"] * 3
    made.correct(kind="segment_is", segment_id="s3", speaker_id=0)
    assert made.speakers == before | {"s3": "SPEAKER_00"}, "it is most of what that voice says, and still one line"
    assert made.found.corrections[-1].outcome == "alone"
    made.close()


@pytest.mark.parametrize("segment", said_by("A")[:8])
def test_a_name_stays_on_its_voice_when_a_later_job_decides_the_end_of_the_line(segment: str) -> None:
    with conversation(EARLY) as found:
        found.correct(kind="segment_is", segment_id=segment, person_id="ben")
        found.correct(kind="segment_is", segment_id="s003", speaker_id=2)
        found.hear(*ALL)
        persons = {one["id"]: one["person_id"] for one in found.segments}
        assert {persons[one] for one in said_by("A")} == {"ben"}
        assert found.found.corrections[0].outcome == "spread"
