"""Lines that lie in each other, as a listener's do: what is said of one is not said of the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.labelling.corrected_conversation import CorrectedConversation, open_conversation
from tests.vps_bridge.labelling.test_relabel import chunks_of, diarize
from vps_bridge.rules.assemble import AssemblyRules, plan_jobs

Spoken = Sequence[tuple[str, float, float]]
INNER, OUTER = "s1", "s0"
LINES = [(0.5, 8.0), (3.0, 4.5), (9.0, 15.0), (16.0, 20.0), (21.0, 24.0)]
"""The second lies in the first."""


@contextmanager
def talk(spoken: Spoken, lines: Sequence[tuple[float, float]]) -> Iterator[CorrectedConversation]:
    """One job that heard this, and a transcript of these lines."""
    chunks = chunks_of(40.0, 10.0)
    (plan,) = plan_jobs(chunks, closing=True, idle_s=0.0, rules=AssemblyRules())
    segments = tuple(
        TranscriptSegment(id=f"s{place}", start_s=start_s, end_s=end_s, text=f"words {place}", speaker="SPEAKER_00")
        for place, (start_s, end_s) in enumerate(lines)
    )
    with open_conversation(segments) as made:
        made.hear(tuple(chunks), (diarize(chunks, plan, spoken),))
        yield made


@pytest.mark.parametrize(
    "named",
    [[OUTER], [INNER], ["s2", "s3", "s4", INNER], ["s2", "s3", "s4", OUTER], [OUTER, "s2"], [INNER, "s2"]],
    ids=" ".join,
)
def test_only_the_line_that_was_split_off_leaves_a_voice_and_not_the_one_around_it_or_in_it(named: list[str]) -> None:
    with talk([("A", start_s, end_s) for start_s, end_s in LINES if start_s != LINES[1][0]], LINES) as found:
        assert set(found.speakers.values()) == {"SPEAKER_00"}, "the job took two people for one"
        found.correct(kind="voice_is", speaker_id=0, person_id="anna")
        write = found.correct(kind="other_voice", segment_ids=named)
        off = {found.speakers[line] for line in named}
        assert len(off) == 1
        assert {found.speakers[line] for line in found.speakers if line not in named}.isdisjoint(off)
        assert {found.persons[line] for line in named} == {None}
        found.undo(write)
        assert set(found.speakers.values()) == {"SPEAKER_00"}


def test_a_name_reaches_the_only_line_of_a_voice_in_which_a_listener_says_all_that_he_says() -> None:
    spoken = [("A", 0.5, 6.5), ("B", 6.7, 7.7), ("A", 8.5, 18.0), ("C", 18.2, 27.0)]
    with talk(spoken, [(0.5, 8.0), (8.5, 27.0)]) as found:
        assert found.speakers["s0"] == "SPEAKER_00"
        write = found.correct(kind="voice_is", speaker_id=0, person_id="anna")
        assert found.outcomes == [(write, "spread", None)]
        assert found.persons["s0"] == "anna"


def test_a_label_by_hand_is_void_where_its_id_is_the_line_that_lay_within_it() -> None:
    with talk([("A", 0.5, 3.0), ("B", 3.0, 4.5), ("A", 4.5, 15.0), ("B", 16.0, 20.0)], LINES) as found:
        write = found.correct(kind="segment_is", segment_id=OUTER, person_id="anna")
        found.transcribe_anew(tuple(sent(f"s{place}", place + 1) for place in range(4)))
        assert found.outcomes == [(write, "void", "overridden")]
        assert found.persons[OUTER] is None


@pytest.mark.parametrize("later_s", [0.0, 1.3])
def test_a_line_within_one_that_was_split_off_stays_where_the_outer_one_is_cut_later(later_s: float) -> None:
    with talk([("A", start_s, end_s) for start_s, end_s in LINES if start_s != LINES[1][0]], LINES) as found:
        write = found.correct(kind="other_voice", segment_ids=[OUTER])
        first, second = (sent(name, 0, text=f"words {name}", later_s=later_s) for name in (OUTER, "new"))
        halves = [
            first.model_copy(update={"end_s": 2.5 + later_s}),
            second.model_copy(update={"start_s": 2.5 + later_s}),
        ]
        found.transcribe_anew((*halves, *(sent(f"s{place}", place, later_s=later_s) for place in range(1, 5))))
        off = {found.speakers[line] for line in (OUTER, "new")}
        assert len(off) == 1
        assert found.speakers[INNER] not in off
        assert found.outcomes[0][:1] == (write,)


def test_a_line_of_two_people_that_shows_a_voices_number_is_split_off_it() -> None:
    spoken = [("A", 0.5, 5.0), ("B", 5.0, 8.0), ("A", 9.0, 11.0), ("B", 16.0, 20.0)]
    with talk(spoken, [(0.5, 8.0), (9.0, 11.0), (16.0, 20.0)]) as found:
        assert ("s0", "two_speakers") in found.found.left_alone
        assert found.speakers == {"s0": "SPEAKER_00", "s1": "SPEAKER_00", "s2": "SPEAKER_01"}
        write = found.correct(kind="other_voice", segment_ids=["s0"])
        assert found.speakers["s0"] not in (found.speakers["s1"], found.speakers["s2"])
        found.undo(write)
        assert found.speakers == {"s0": "SPEAKER_00", "s1": "SPEAKER_00", "s2": "SPEAKER_01"}


def test_a_merge_that_is_taken_back_leaves_no_number_on_a_line_of_two_people() -> None:
    spoken = [("A", 0.5, 6.0), ("B", 7.0, 9.0), ("A", 9.0, 15.0), ("B", 16.0, 36.0)]
    with talk(spoken, [(0.5, 6.0), (7.0, 15.0), (16.0, 36.0)]) as found:
        before = found.speakers
        assert before == {"s0": "SPEAKER_00", "s1": "SPEAKER_00", "s2": "SPEAKER_01"}
        write = found.correct(kind="same_voice", speaker_ids=[1, 0])
        assert set(found.speakers.values()) == {"SPEAKER_01"}
        found.undo(write)
        assert found.speakers == before


def test_whom_a_person_denies_is_not_named_by_the_backend_that_sends_the_name_back() -> None:
    with talk([("A", 0.5, 8.0), ("B", 9.0, 15.0)], [(0.5, 8.0), (9.0, 15.0)]) as found:
        found.correct(kind="voice_is", speaker_id=0, person_id="anna")
        found.send_back()
        write = found.correct(kind="voice_is_not", speaker_id=0, person_id="anna")
        assert found.outcomes[-1] == (write, "spread", None)
        assert found.persons["s0"] is None


def test_a_label_by_hand_says_that_its_line_was_cut_and_the_other_part_has_another() -> None:
    with talk([("A", start_s, end_s) for start_s, end_s in LINES], LINES) as found:
        found.correct(kind="voice_is", speaker_id=0, person_id="anna")
        write = found.correct(kind="segment_is", segment_id="s2", person_id="ben")
        assert found.outcomes[-1][:2] == (write, "alone")
        before = [sent(f"s{place}", place) for place in (0, 1, 3, 4)]
        half = sent("s2", 2, text="half").model_copy(update={"end_s": 12.0})
        rest = sent("new", 2, text="rest").model_copy(update={"start_s": 12.0})
        found.transcribe_anew((*before, half, rest))
        assert (found.persons["s2"], found.persons["new"]) == ("ben", "anna")
        assert found.outcomes[-1] == (write, "alone", "cut")
        found.correct(kind="segment_is", segment_id="new", person_id="ben")
        assert ("alone", "cut") not in [outcome[1:] for outcome in found.outcomes]


def test_a_label_by_hand_is_void_where_all_lines_moved_and_its_id_is_its_neighbours() -> None:
    lines = [(10.0, 12.0), (12.2, 13.7), (15.0, 20.0), (21.0, 26.0), (27.0, 32.0)]
    texts = ["here it is", "Yeah.", "one two three", "four five six", "seven eight nine"]
    with talk([("A", start_s, end_s) for start_s, end_s in lines], lines) as found:

        def send(names: list[str], said: list[str], moved_s: float) -> None:
            found.transcribe_anew(
                tuple(
                    TranscriptSegment(id=name, start_s=a + moved_s, end_s=b + moved_s, text=text, speaker="SPEAKER_00")
                    for name, text, (a, b) in zip(names, said, lines, strict=True)
                )
            )

        send(["s0", "s1", "s2", "s3", "s4"], texts, 0.0)
        write = found.correct(kind="segment_is", segment_id="s0", person_id="ben")
        send(["new", "s0", "s2", "s3", "s4"], ["there it was", *texts[1:]], -1.3)
        assert found.outcomes == [(write, "void", "overridden")]
        assert "ben" not in found.persons.values()


def sent(name: str, place: int, *, text: str | None = None, later_s: float = 0.0) -> TranscriptSegment:
    """Return one of the lines under an id, as a backend sends it anew."""
    start_s, end_s = LINES[place]
    said = f"words {place}" if text is None else text
    return TranscriptSegment(id=name, start_s=start_s + later_s, end_s=end_s + later_s, text=said, speaker="SPEAKER_00")
