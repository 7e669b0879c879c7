"""A split always leaves the lines that were not named behind, whoever the jobs and linking took for one."""

from __future__ import annotations

import pytest

from tests.vps_bridge.labelling.test_corrections import ALL, EARLY, conversation, labels, said_by


@pytest.mark.parametrize("heard", [EARLY, ALL], ids=["then more audio", "all audio"])
def test_most_lines_of_a_voice_that_are_another_leave_the_other_lines_behind(heard):
    """Where every job took two people for one, whoever says more is split off as whoever says less is."""
    with conversation(heard) as found:
        lines = [line for line in said_by("A") if found.speakers[line] is not None]
        rest = lines[2::4]
        named = [line for line in lines if line not in rest]
        before = found.speakers
        write = found.correct(kind="other_voice", segment_ids=named)
        assert found.outcomes == [(write, "alone", "sounds_different")]
        for chunks_and_jobs in (heard, ALL):
            found.hear(*chunks_and_jobs)
            now = found.speakers
            assert len({now[line] for line in named}) == len({now[line] for line in rest}) == 1
            assert now[named[0]] != now[rest[0]]
            assert now[named[0]] is not None is not now[rest[0]]
            assert (labels(found, "B"), len(labels(found, "A") & labels(found, "C"))) == ({"SPEAKER_01"}, 0)
        later = {now[line] for line in said_by("A") if before[line] is None}
        assert later <= {now[named[0]]}, "what the voice says later sounds like most of it"
        found.undo(write)
        assert {line: found.speakers[line] for line in lines} == {line: before[line] for line in lines}


def test_a_split_of_all_that_one_job_heard_of_a_voice_leaves_what_another_heard():
    """Two people who sound alike, each in a job of their own: that is why they were taken for one."""
    with conversation() as found:
        early = [line for line in said_by("C") if int(line[1:]) < 12]
        late = [line for line in said_by("C") if line not in early]
        for named, rest in ((late, early), (early, late)):
            before = found.speakers
            write = found.correct(kind="other_voice", segment_ids=named)
            assert {found.speakers[line] for line in named}.isdisjoint({found.speakers[line] for line in rest})
            found.undo(write)
            assert found.speakers == before


def test_a_split_whose_new_number_has_more_speech_is_undone_under_the_old_number():
    with conversation() as found:
        before = found.segments
        write = found.correct(kind="other_voice", segment_ids=["s003", "s011", "s015", "s019"])
        assert found.segments != before
        found.undo(write)
        assert found.segments == before


@pytest.mark.parametrize("at_once", [True, False], ids=["in one event", "before the labels show the split"])
@pytest.mark.parametrize("n_split", [1, 2, 5, 11])
def test_a_voice_that_lines_were_split_off_is_joined_without_them_however_soon(n_split, at_once):
    split = {"kind": "other_voice", "segment_ids": said_by("A")[:n_split]}
    merge = {"kind": "same_voice", "speaker_ids": [0, 1]}
    with conversation() as found:
        before = found.speakers
        write = found.correct(**split)
        off = {line for line in said_by("A") if found.speakers[line] == found.speakers[said_by("A")[0]]}
        found.undo(write)
        write = found.correct_at_once(split, merge) if at_once else found.correct_unseen(split, merge)
        rest = {found.speakers[line] for line in said_by("A") if line not in off}
        assert rest == labels(found, "B")
        assert len(rest) == len({found.speakers[line] for line in off}) == 1
        assert rest.isdisjoint({found.speakers[line] for line in off})
        assert "void" not in [outcome for _, outcome, _ in found.outcomes]
        found.undo(write)
        assert found.speakers == before or not at_once


@pytest.mark.parametrize("at_once", [True, False], ids=["in one event", "before the labels show the split"])
def test_a_split_of_all_lines_of_a_voice_keeps_it_from_no_other(at_once):
    split = {"kind": "other_voice", "segment_ids": said_by("A")}
    merge = {"kind": "same_voice", "speaker_ids": [0, 1]}
    with conversation() as found:
        (found.correct_at_once if at_once else found.correct_unseen)(split, merge)
        assert labels(found, "A") == labels(found, "B")
        assert len(labels(found, "A")) == 1


def test_a_name_stays_with_the_lines_that_a_split_left_when_the_others_get_another():
    with conversation() as found:
        found.correct(kind="voice_is", speaker_id=0, person_id="anna")
        lines = [line for line in said_by("A") if found.speakers[line] == "SPEAKER_00"]
        left = lines[2:4]
        found.correct(kind="other_voice", segment_ids=[line for line in lines if line not in left])
        number = int(found.speakers[lines[0]][-2:])
        assert {found.persons[line] for line in left} == {"anna"}
        found.correct(kind="voice_is", speaker_id=number, person_id="ben")
        assert {found.persons[line] for line in left} == {"anna"}
        assert {found.persons[line] for line in lines if line not in left} == {"ben"}
