"""Whose the number is that a line carries which was left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.vps_bridge.labelling.test_relabel import DIALOGUE, POLICY, evidence_of, transcript
from vps_bridge.labelling.relabel import relabel


@pytest.mark.parametrize(
    ("start_s", "end_s", "reason", "numbers"),
    [
        (0.5, 15.0, "two_speakers", {"A": 0, "B": 1, "C": 2}),
        (8.0, 23.4, "two_speakers", {"A": 1, "B": 0, "C": 2}),
        (40.0, 30.0, "times.impossible", {"A": 1, "B": 2, "C": 3}),
    ],
    ids=["mostly of A", "mostly of B", "of nobody"],
)
def test_a_line_left_alone_keeps_its_number_for_whom_it_is_of(start_s, end_s, reason, numbers):
    """The voice that speaks most in it has the number; where none does, no new voice takes it."""
    line = replace(transcript(DIALOGUE)[0], id="alone", start_s=start_s, end_s=end_s)
    result = relabel(evidence_of(DIALOGUE, segments=(*transcript(DIALOGUE), line)), POLICY)
    assert result.left_alone == (("alone", reason),)
    found = {who: segment.speaker_id for segment, (who, *_) in zip(result.segments, DIALOGUE, strict=False)}
    assert found == numbers
