"""A new transcription gives ids that are numbers of lines to other lines: what people said stays with the voices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.labelling.corrected_conversation import NAME, CorrectedConversation, open_conversation
from tests.vps_bridge.labelling.test_corrections import ALL, SPOKEN
from tests.vps_bridge.labelling.test_relabel import diarize
from vps_bridge.rules.assemble import AssemblyRules, plan_jobs

LINES = len(SPOKEN)
LONG_S = 6.8
UPDATED, REMOVED = "sent as an update", "removed and sent anew"


def line(name: int, spoken: int, moved_s: float = 0.0) -> TranscriptSegment:
    """The line that is spoken at a place of `SPOKEN`, under an id that is a number."""
    _, start_s, end_s = SPOKEN[spoken]
    return TranscriptSegment(id=str(name), text=f"line {spoken}", start_s=start_s + moved_s, end_s=end_s + moved_s)


@contextmanager
def labelled_call() -> Iterator[CorrectedConversation]:
    with open_conversation(tuple(line(n, n) for n in range(LINES))) as made:
        made.hear(*ALL)
        yield made


def transcribe_anew(call: CorrectedConversation, way: str) -> None:
    """Send what a transcription without the first line gives: each id is now that of the line after."""
    ids = [str(n) for n in range(LINES)]
    if way == REMOVED:
        call.store.upsert_segments(NAME, 2, (), removed=ids)
    call.store.upsert_segments(NAME, 3, tuple(line(n, n + 1) for n in range(LINES - 1)), removed=ids[LINES - 1 :])
    call.relabel()


def ids_of(voice: str, dropped: int = 0) -> list[str]:
    return [str(n - dropped) for n in range(dropped, LINES) if SPOKEN[n][0] == voice]


def named(call: CorrectedConversation, person: str) -> list[str]:
    return [name for name, is_called in call.persons.items() if is_called == person]


@pytest.mark.parametrize("way", [UPDATED, REMOVED])
def test_a_name_stays_with_the_voice_that_it_was_given_to(way: str):
    with labelled_call() as call:
        number = call.speakers[ids_of("B")[0]]
        call.correct(kind="voice_is", speaker_id=int(str(number)[-2:]), person_id="anna")
        assert sorted(named(call, "anna")) == sorted(ids_of("B"))
        transcribe_anew(call, way)
        assert sorted(named(call, "anna")) == sorted(ids_of("B", dropped=1))
        assert call.outcomes == [(call.outcomes[0][0], "spread", None)]
        assert {call.speakers[name] for name in ids_of("B", dropped=1)} == {number}


@pytest.mark.parametrize("way", [UPDATED, REMOVED])
def test_two_numbers_that_were_said_to_be_one_voice_stay_so_and_take_nobody_else_along(way: str):
    with labelled_call() as call:
        call.correct(kind="same_voice", speaker_ids=[1, 2])
        transcribe_anew(call, way)
        joined = {call.speakers[name] for name in ids_of("B", dropped=1) + ids_of("C", dropped=1)}
        assert len(joined) == 1
        assert joined.isdisjoint({call.speakers[name] for name in ids_of("A", dropped=1)})


@pytest.mark.parametrize("way", [UPDATED, REMOVED])
@pytest.mark.parametrize(
    "said",
    [
        {"kind": "segment_is", "segment_id": ids_of("A")[0], "person_id": "anna"},
        {"kind": "segment_is", "segment_id": ids_of("A")[0], "speaker_id": 1},
    ],
    ids=["person", "number"],
)
def test_what_was_said_of_one_line_whose_id_is_another_s_now_is_void(said: dict[str, object], way: str):
    with labelled_call() as call:
        call.correct(**said)
        transcribe_anew(call, way)
        assert [outcome for _, outcome, _ in call.outcomes] == ["void"]
        assert named(call, "anna") == []
        voices = [{call.speakers[name] for name in ids_of(voice, dropped=1)} for voice in "ABC"]
        assert [len(numbers) for numbers in voices] == [1, 1, 1], "no line has a label that another line was given"
        assert len(set.union(*voices)) == 3


@pytest.mark.parametrize("way", [UPDATED, REMOVED])
@pytest.mark.parametrize("said", [{"person_id": "anna"}, {"speaker_id": 1}], ids=["person", "number"])
def test_a_label_that_was_undone_does_not_come_back_to_another_line_that_has_its_id_now(
    said: dict[str, object], way: str
):
    segment = ids_of("A")[1]
    with labelled_call() as call:
        label = call.correct(kind="segment_is", segment_id=segment, **said)
        call.undo(label)
        transcribe_anew(call, way)
        before = call.speakers
        redo = call.redo(label)
        assert [outcome for _, outcome, _ in call.outcomes] == ["void"]
        assert (call.speakers, named(call, "anna")) == (before, [])
        call.undo(redo)
        assert (call.speakers, named(call, "anna"), call.outcomes) == (before, [], [])


@pytest.mark.parametrize("said", [{"person_id": "anna"}, {"speaker_id": 1}], ids=["person", "number"])
def test_a_label_that_was_undone_comes_back_to_its_line_whose_times_and_words_are_others_now(said: dict[str, object]):
    with labelled_call() as call:
        label = call.correct(kind="segment_is", segment_id=ids_of("A")[1], **said)
        before = call.persons, call.speakers, call.outcomes
        call.undo(label)
        trimmed = [line(n, n, moved_s=0.3).model_copy(update={"text": f"line {n}, I think"}) for n in range(LINES)]
        call.store.upsert_segments(NAME, 2, tuple(trimmed))
        call.redo(label)
        assert (call.persons, call.speakers, call.outcomes) == before


@pytest.mark.parametrize("way", [UPDATED, REMOVED])
def test_a_number_that_a_line_has_by_itself_is_none_that_a_person_gave_to_the_line_before(way: str):
    with labelled_call() as call:
        number = int(str(call.speakers[ids_of("A", dropped=1)[1]])[-2:])
        gone = next(name for name in ids_of("B") if name in ids_of("A", dropped=1))
        call.correct(kind="segment_is", segment_id=gone, speaker_id=number)
        transcribe_anew(call, way)
        assert [outcome for _, outcome, _ in call.outcomes] == ["void"]


@pytest.mark.parametrize("cut", ["as it was", "long ones in halves"])
@pytest.mark.parametrize("way", [UPDATED, REMOVED, "under new ids"])
def test_a_split_stays_with_its_lines_whatever_ids_a_new_transcription_gives_them(way: str, cut: str):
    mixed = [("A" if who == "C" else who, start_s, end_s) for who, start_s, end_s in SPOKEN]
    plans = plan_jobs(ALL[0], closing=True, idle_s=0.0, rules=AssemblyRules())
    with open_conversation(tuple(line(n, n) for n in range(LINES))) as call:
        call.hear(ALL[0], tuple(diarize(ALL[0], plan, mixed) for plan in plans))
        call.correct(kind="other_voice", segment_ids=ids_of("C"))
        assert call.outcomes[0][1] != "void"
        first = 0 if way == "under new ids" else 1
        new = recut([(SPOKEN[n][0], line(n, n)) for n in range(first, LINES)], cut)
        letter = "n" if way == "under new ids" else ""
        segments = [one.model_copy(update={"id": f"{letter}{n}"}) for n, (_, one) in enumerate(new)]
        ids = [str(n) for n in range(LINES)]
        if way == UPDATED:
            kept = {one.id for one in segments}
            call.store.upsert_segments(NAME, 2, tuple(segments), removed=[name for name in ids if name not in kept])
        else:
            call.store.upsert_segments(NAME, 2, (), removed=ids)
            call.store.upsert_segments(NAME, 3, tuple(segments))
        call.relabel()
        assert call.outcomes[0][1] != "void"
        whose = [(who, call.speakers[one.id]) for (who, _), one in zip(new, segments, strict=True)]
        of = {who: {speaker for one, speaker in whose if one == who} for who in "ABC"}
        assert [len(numbers) for numbers in of.values()] == [1, 1, 1]
        assert len(set.union(*of.values())) == 3


def recut(lines: list[tuple[str, TranscriptSegment]], cut: str) -> list[tuple[str, TranscriptSegment]]:
    """Return who speaks and the line; those longer than most are cut in halves."""
    found: list[tuple[str, TranscriptSegment]] = []
    for who, one in lines:
        start_s, end_s = one.start_s or 0.0, one.end_s or 0.0
        if cut == "as it was" or end_s - start_s < LONG_S:
            found.append((who, one))
            continue
        middle_s = (start_s + end_s) / 2
        found.append((who, one.model_copy(update={"end_s": middle_s, "text": f"{one.text} a"})))
        found.append((who, one.model_copy(update={"start_s": middle_s, "text": f"{one.text} b"})))
    return found


def test_what_was_said_stays_with_lines_that_a_new_transcription_only_cuts_otherwise():
    with labelled_call() as call:
        call.correct(kind="segment_is", segment_id=ids_of("A")[1], person_id="anna")
        call.correct(kind="other_voice", segment_ids=ids_of("B")[:1])
        before = call.persons, call.speakers, call.outcomes
        trimmed = [line(n, n) for n in range(LINES)]
        call.store.upsert_segments(
            NAME,
            2,
            tuple(
                one.model_copy(update={"start_s": (one.start_s or 0.0) + 0.4, "text": f"{one.text} again"})
                for one in trimmed
            ),
        )
        call.relabel()
        assert (call.persons, call.speakers, call.outcomes) == before


@pytest.mark.parametrize("moved_s", [-100.0, 20.0])
@pytest.mark.parametrize(
    "said",
    [
        {"kind": "other_voice", "segment_ids": ids_of("A")[:3]},
        {"kind": "voice_is", "speaker_id": 1, "person_id": "anna"},
    ],
    ids=["other_voice", "voice_is"],
)
def test_what_was_said_stays_with_lines_that_only_have_other_times(said: dict[str, object], moved_s: float):
    with labelled_call() as call:
        call.correct(**said)
        before = call.persons, call.speakers, call.outcomes
        call.store.upsert_segments(NAME, 2, tuple(line(n, n, moved_s) for n in range(LINES)))
        call.relabel()
        assert (call.persons, call.speakers, call.outcomes) == before


def test_a_line_that_lies_elsewhere_because_the_transcript_begins_elsewhere_keeps_what_a_person_said():
    with labelled_call() as call:
        call.correct(kind="segment_is", segment_id=ids_of("A")[0], person_id="anna")
        call.store.upsert_segments(NAME, 2, tuple(line(n, n, moved_s=-100.0) for n in range(LINES)))
        assert [one["speaker"] for one in call.segments if one["id"] == ids_of("A")[0]] == ["SPEAKER_00"]
        call.relabel()
        assert call.persons[ids_of("A")[0]] == "anna"


@pytest.mark.parametrize("named_are", ["AC", "CA"], ids=["the rest was named", "who was split off was named"])
@pytest.mark.parametrize("way", [UPDATED, REMOVED, "under new ids"])
def test_a_name_does_not_go_to_whoever_was_split_off_when_a_new_transcription_has_none_of_the_lines(
    named_are: str, way: str
):
    own, other = named_are[0], named_are[1]
    mixed = [("A" if who == "C" else who, start_s, end_s) for who, start_s, end_s in SPOKEN]
    plans = plan_jobs(ALL[0], closing=True, idle_s=0.0, rules=AssemblyRules())
    with open_conversation(tuple(line(n, n) for n in range(LINES))) as call:
        call.hear(ALL[0], tuple(diarize(ALL[0], plan, mixed) for plan in plans))
        call.correct(kind="other_voice", segment_ids=ids_of("C"))
        number = call.speakers[ids_of(own)[0]]
        call.correct(kind="voice_is", speaker_id=int(str(number)[-2:]), person_id="anna")
        assert sorted(named(call, "anna")) == sorted(ids_of(own))
        if way == "under new ids":
            ids = [str(n) for n in range(LINES)]
            call.store.upsert_segments(NAME, 2, tuple(line(n + LINES, n) for n in range(LINES)), removed=ids)
            call.relabel()
            others = [str(int(name) + LINES) for name in ids_of(other)]
        else:
            transcribe_anew(call, way)
            others = ids_of(other, dropped=1)
        assert set(named(call, "anna")).isdisjoint(others)


@pytest.mark.parametrize("span", [(260.0, 262.0), (7.6, 8.3)], ids=["no audio", "no voice"])
def test_a_line_that_nobody_is_heard_in_has_not_the_number_and_name_of_the_line_whose_id_it_has(
    span: tuple[float, float],
):
    default = {"speaker": "SPEAKER_00"}  # of speech-to-text, on every line; as it happens, also a voice's number
    lines = [line(n, n).model_dump(exclude_unset=True) | default for n in range(LINES)]
    with open_conversation(tuple(TranscriptSegment.model_validate(one) for one in lines)) as call:
        call.hear(*ALL)
        assert call.speakers["0"] == "SPEAKER_00"
        call.correct(kind="voice_is", speaker_id=0, person_id="anna")
        front = {"id": "0", "text": "Hm.", "start_s": span[0], "end_s": span[1], **default}
        later = [one | {"id": str(n)} for n, one in enumerate(lines, 1)]
        call.store.upsert_segments(NAME, 2, tuple(TranscriptSegment.model_validate(one) for one in (front, *later)))
        call.relabel()
        assert "0" not in named(call, "anna")
        assert {name for name, speaker in call.speakers.items() if speaker is None} == {"0"}
        assert sorted(named(call, "anna")) == sorted(str(int(name) + 1) for name in ids_of("A"))


@pytest.mark.parametrize("said", ["voice_is", "same_voice"])
def test_what_is_said_of_a_voice_before_the_labels_show_the_new_transcription_is_of_the_voice_it_was(said: str):
    with labelled_call() as call:
        numbers = {who: int(str(call.speakers[ids_of(who)[0]])[-2:]) for who in "ABC"}
        moved = tuple(line(n, n + 1) for n in range(LINES - 1))
        call.store.upsert_segments(NAME, 3, moved, removed=[str(LINES - 1)])
        if said == "voice_is":
            call.correct_unseen({"kind": said, "speaker_id": numbers["A"], "person_id": "anna"})
            assert sorted(named(call, "anna")) == sorted(ids_of("A", dropped=1))
        else:
            call.correct_unseen({"kind": said, "speaker_ids": [numbers["B"], numbers["C"]]})
            joined = {call.speakers[name] for name in ids_of("B", dropped=1) + ids_of("C", dropped=1)}
            assert len(joined) == 1
            assert joined.isdisjoint({call.speakers[name] for name in ids_of("A", dropped=1)})


@pytest.mark.parametrize("way", [UPDATED, REMOVED, "under new ids"])
def test_an_undo_of_a_merge_gives_numbers_back_to_the_lines_that_had_them_and_not_to_their_ids(way: str):
    """Where no vote is clear, such as with times in milliseconds, what was written is all that is known of lines."""
    with labelled_call() as call:
        numbers = {who: call.speakers[ids_of(who)[0]] for who in "ABC"}
        write = call.correct(kind="same_voice", speaker_ids=[0, 1])
        letter = "n" if way == "under new ids" else ""
        lines = [line(n, n + 1).model_copy(update={"id": f"{letter}{n}"}) for n in range(LINES - 1)]
        if letter:
            call.transcribe_anew(tuple(lines))
        else:
            transcribe_anew(call, way)
        times = [{"start_s": 1000 * (one.start_s or 0.0), "end_s": 1000 * (one.end_s or 0.0)} for one in lines]
        moved = [one.model_copy(update=time) for one, time in zip(lines, times, strict=True)]
        call.store.upsert_segments(NAME, 4, tuple(moved))
        call.relabel()
        assert len(call.found.left_alone) == LINES - 1
        call.undo(write)
        for who in "ABC":
            assert {call.speakers[f"{letter}{name}"] for name in ids_of(who, dropped=1)} == {numbers[who]}


def test_a_name_that_the_backend_sends_back_as_its_own_does_not_hide_the_one_that_a_person_gives_later():
    with labelled_call() as call:
        number = int(str(call.speakers[ids_of("B")[0]])[-2:])
        call.correct(kind="voice_is", speaker_id=number, person_id="anna")
        sent_back = [
            line(n, n).model_dump(exclude_unset=True) | {"person_id": call.persons[str(n)], "label_source": "auto"}
            for n in range(LINES)
        ]
        call.store.upsert_segments(NAME, 2, tuple(map(TranscriptSegment.model_validate, sent_back)))
        call.correct(kind="voice_is", speaker_id=number, person_id="ben")
        assert sorted(named(call, "ben")) == sorted(ids_of("B"))
        assert named(call, "anna") == []


@pytest.mark.parametrize("way", [UPDATED, REMOVED])
def test_a_write_of_the_bridge_that_is_taken_back_gives_no_label_to_lines_that_have_its_ids_now(way: str):
    with labelled_call() as call:
        call.correct(kind="same_voice", speaker_ids=[0, 1])
        joined = call.store.history(NAME)[-1]
        assert joined.kind == "apply"
        transcribe_anew(call, way)
        before = call.speakers
        call.undo(joined.version)
        assert call.speakers == before
        call.redo(joined.version)
        assert call.speakers == before


@pytest.mark.parametrize("left", [0, 4], ids=["all lines of one", "all but four of them"])
@pytest.mark.parametrize("way", ["ids of the line before", "new ids"])
def test_lines_that_are_split_off_before_the_labels_show_the_new_transcription_leave_the_others_behind(
    way: str, left: int
):
    mixed = [("A" if who == "C" else who, start_s, end_s) for who, start_s, end_s in SPOKEN]
    plans = plan_jobs(ALL[0], closing=True, idle_s=0.0, rules=AssemblyRules())
    first = 100 if way == "new ids" else 0
    ids = {n: str(first + n - 1) for n in range(1, LINES)}
    with open_conversation(tuple(line(n, n) for n in range(LINES))) as call:
        call.hear(ALL[0], tuple(diarize(ALL[0], plan, mixed) for plan in plans))
        moved = tuple(line(int(name), n) for n, name in ids.items())
        gone = {str(n) for n in range(LINES)}.difference(ids.values())
        call.store.upsert_segments(NAME, 3, moved, removed=sorted(gone))
        split = [name for n, name in ids.items() if SPOKEN[n][0] == "A"]
        split = split[: len(split) - left]
        call.correct_unseen({"kind": "other_voice", "segment_ids": split})
        others = {name for n, name in ids.items() if SPOKEN[n][0] != "B"}.difference(split)
        numbers = {call.speakers[name] for name in split}
        assert len(numbers) == 1
        assert numbers.isdisjoint({call.speakers[name] for name in others})
        assert [outcome for _, outcome, _ in call.outcomes] == ["alone"]


@pytest.mark.parametrize("said", [{"person_id": "anna"}, {"speaker_id": 1}], ids=["person", "number"])
def test_a_label_that_held_while_words_and_then_times_of_all_lines_changed_is_taken_back(said: dict[str, object]):
    """Each change alone leaves the line what it was; of both together nobody could tell that it is the same one."""
    with labelled_call() as call:
        before = call.persons, call.speakers, call.outcomes
        label = call.correct(kind="segment_is", segment_id=ids_of("A")[1], **said)
        labelled = call.persons, call.speakers, call.outcomes
        for moved_s in (0.0, -100.0):
            lines = [line(n, n, moved_s).model_copy(update={"text": f"line {n}, I think."}) for n in range(LINES)]
            call.store.upsert_segments(NAME, call.store.history(NAME)[-1].version + 10, tuple(lines))
            call.relabel()
            assert (call.persons, call.speakers, call.outcomes) == labelled
        call.undo(label)
        assert (call.persons, call.speakers, call.outcomes) == before


def test_a_split_holds_where_lines_have_other_ids_first_and_then_other_words_and_nearly_the_same_times():
    mixed = [("A" if who == "C" else who, start_s, end_s) for who, start_s, end_s in SPOKEN]
    plans = plan_jobs(ALL[0], closing=True, idle_s=0.0, rules=AssemblyRules())
    with open_conversation(tuple(line(n, n) for n in range(LINES))) as call:
        call.hear(ALL[0], tuple(diarize(ALL[0], plan, mixed) for plan in plans))
        call.correct(kind="other_voice", segment_ids=ids_of("C"))
        call.transcribe_anew(lines := tuple(line(n, n + 1) for n in range(LINES - 1)))
        written_better = tuple(
            one.model_copy(update={"text": f"{one.text}!", "start_s": one.start_s + 0.2}) for one in lines
        )
        call.transcribe_anew(written_better)
        numbers = [{call.speakers[name] for name in ids_of(voice, dropped=1)} for voice in "AC"]
        assert [len(found) for found in numbers] == [1, 1]
        assert numbers[0].isdisjoint(numbers[1])
