"""Lines that OMI makes anew and that carry a label from here: no person's word, however they were cut before."""

import random
from dataclasses import replace

import pytest

from tests.omi.labelled_talk import open_talk
from tests.omi.simulated_omi import OmiLine, SimulatedOmi
from tests.vps_bridge.labelling.drawn_conversation import DrawnConversation


@pytest.mark.parametrize(("parts", "has_length"), [(1, True), (2, True), (3, True), (1, False)])
def test_a_line_that_was_several_before_can_be_mended(parts: int, *, has_length: bool) -> None:
    drawn = DrawnConversation(3)
    long, *others = [OmiLine(f"new-{one.id}", one.start_s, one.end_s, one.text) for one in drawn.segments]
    part_s = (long.end_s - long.start_s) / parts
    starts = [(f"old-{place}", long.start_s + place * part_s) for place in range(parts)]
    short = {one: replace(long, id=one, start_s=start_s, end_s=start_s + part_s) for one, start_s in starts}
    omi = SimulatedOmi(short | {one.id: one for one in others}, {"anna": "Anna", "bert": "Bert"}, random.Random(1))
    with open_talk(omi, drawn) as talk:

        def report() -> None:
            talk.report([one.row(names_its_source=True) for one in omi.lines.values()], 0)

        report()
        talk.hear(drawn.jobs)
        assert talk.correct(kind="voice_is", speaker_id=talk.numbers["old-0"], person_id="anna")
        assert talk.send()
        assert {omi.lines[one].person for one in short} == {"anna"}
        rest = [one for one in omi.lines.values() if one.id not in short]
        end_s = long.end_s if has_length else long.start_s
        omi.lines = {one.id: one for one in (replace(long, end_s=end_s, person="anna", is_manual=True), *rest)}
        number = talk.numbers["old-0"]
        report()
        assert talk.correct(kind="voice_is", speaker_id=number, person_id="bert")
        assert talk.send()
        assert (talk.persons[long.id], omi.lines[long.id].person) == ("bert", "bert")
