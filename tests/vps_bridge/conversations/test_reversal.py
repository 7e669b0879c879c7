"""Undo, undo of an undo, redo, and corrections in the conversation store."""

from __future__ import annotations

import sqlite3

import pytest

from schemas.conversation import TranscriptSegment
from schemas.corrections import Correction, CorrectionKind
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.conversations.store import Applied, Conflict, HumanLabel, Label, UndoRefused


@pytest.fixture
def store(tmp_path):
    store = SqliteConversations(tmp_path / "conversations.db")
    yield store
    store.close()


def make_segment(segment_id, start_s=0.0, end_s=1.0, **fields):
    return TranscriptSegment(id=segment_id, start_s=start_s, end_s=end_s, **fields)


def read(store):
    found = store.read("c1")
    assert found is not None
    return found


def speakers_of(store):
    return {segment.id: segment.speaker for segment in read(store).segments}


def test_an_undo_of_an_earlier_version_is_undone(tmp_path):
    store = SqliteConversations(tmp_path / "c.db")
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00")])
    store.apply("c1", read(store).revision, "k1", [Label("a", 4)])
    store.undo("c1", 1)
    store.close()
    with sqlite3.connect(tmp_path / "c.db") as connection:
        for table, names in (
            ("writes", ("made_by", "undoes", "corrections")),
            ("segments", ("corrected_person", "matched_person")),
        ):
            for name in names:
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
        connection.execute("ALTER TABLE segments DROP COLUMN corrected")
        for name in ("origin_before", "origin_after"):
            connection.execute(f"ALTER TABLE changes DROP COLUMN {name}")
        connection.execute("DROP TABLE packed_conversations")
        connection.execute("UPDATE alembic_version SET version_num = '0003'")
    store = SqliteConversations(tmp_path / "c.db")
    store.undo("c1", 2)
    assert speakers_of(store) == {"a": "SPEAKER_04"}
    assert not read(store).segments[0].is_human_labelled
    store.close()


def test_an_undo_can_be_undone_and_brought_back_but_nothing_twice(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00")])
    before = read(store).segments
    store.apply("c1", read(store).revision, "k1", [Label("a", 4)])
    written = read(store).segments
    store.undo("c1", 1)
    assert read(store).segments == before
    with pytest.raises(UndoRefused, match=r"undone already, by write 2.*omi-bridge redo c1 1"):
        store.undo("c1", 1)
    store.undo("c1", 2)
    assert read(store).segments == written
    assert store.redo("c1", 2, by="anna") == Applied(4)
    assert read(store).segments == before
    assert [(write.kind, write.undoes, write.by) for write in store.history("c1")[1:]] == [
        ("undo", 1, None),
        ("undo", 2, None),
        ("redo", 3, "anna"),
    ]


def test_a_redo_brings_a_persons_label_back_though_the_machine_has_labelled_the_segment_since(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00")])
    said = (Correction(kind=CorrectionKind.SEGMENT_IS, segment_id="a", person_id="bob"),)
    store.correct("c1", "event-1", [HumanLabel("a", None, "bob")], corrections=said, by="ben")
    corrected = read(store).segments
    store.undo("c1", 1)
    store.apply("c1", read(store).revision, "k1", [Label("a", 4, matched_person="anna")])
    labelled = read(store).segments
    assert store.redo("c1", 1) == Applied(4)
    assert read(store).segments == corrected
    store.undo("c1", 4)
    assert read(store).segments == labelled, "the way back leads to what was there"


def test_a_redo_leaves_a_label_that_a_person_gave_since(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00")])
    said = (Correction(kind=CorrectionKind.SEGMENT_IS, segment_id="a", person_id="bob"),)
    store.correct("c1", "event-1", [HumanLabel("a", None, "bob")], corrections=said, by="ben")
    store.undo("c1", 1)
    store.upsert_segments("c1", 2, [make_segment("a", speaker="SPEAKER_03", label_source="manual")])
    store.redo("c1", 1)
    assert speakers_of(store) == {"a": "SPEAKER_03"}
    assert read(store).segments[0].person_id is None


def test_a_correction_is_written_once_and_holds_against_the_machine(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00")])
    said = (Correction(kind=CorrectionKind.SEGMENT_IS, segment_id="a", speaker_id=2, person_id="anna"),)
    label = [HumanLabel("a", 2, "anna")]
    assert store.correct("c1", "event-1", label, corrections=said, by="ben") == Applied(1)
    assert store.correct("c1", "event-1", label, corrections=said, by="ben") == Applied(1)
    (segment,) = read(store).segments
    assert (segment.speaker, segment.person_id, segment.label_source) == ("SPEAKER_02", "anna", "manual")
    assert isinstance(store.apply("c1", read(store).revision, "k1", [Label("a", 1)]), Conflict)
    (write,) = store.history("c1")
    assert (write.kind, write.by, write.corrections) == ("correct", "ben", said)
    store.upsert_segments("c1", 2, [make_segment("a", speaker="SPEAKER_00")])
    assert speakers_of(store) == {"a": "SPEAKER_02"}, "speech-to-text's label changes nothing"
    store.upsert_segments("c1", 3, [make_segment("a", speaker="SPEAKER_01", label_source="manual")])
    assert speakers_of(store) == {"a": "SPEAKER_01"}, "a person's later label does"


@pytest.mark.parametrize("said", [{"person_id": "ben"}, {"is_user": True}], ids=["person", "owner"])
@pytest.mark.parametrize("speaker", [{}, {"speaker": None}], ids=["no speaker named", "no speaker"])
def test_a_person_whom_the_backend_names_later_counts_more_than_the_one_named_here(store, said, speaker):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00")])
    name = (Correction(kind=CorrectionKind.SEGMENT_IS, segment_id="a", person_id="anna"),)
    store.correct("c1", "event-1", [HumanLabel("a", None, "anna")], corrections=name, by="ben")
    store.upsert_segments("c1", 2, [TranscriptSegment(id="a", person_id="zoe", label_source="auto")])
    assert read(store).segments[0].person_id == "anna", "a name of the backend's own changes nothing"
    later = TranscriptSegment(id="a", label_source="manual", **{"person_id": None} | said | speaker)
    store.upsert_segments("c1", 3, [later])
    (segment,) = read(store).segments
    wanted = ("SPEAKER_00", said.get("person_id"), "is_user" in said, "manual")
    assert (segment.speaker, segment.person_id, segment.is_user, segment.label_source) == wanted
    store.undo("c1", 1)
    assert read(store).segments[0] == segment, "what was said later stays"


def test_a_person_named_here_stays_where_the_backend_says_again_whom_it_had_before(store):
    before = make_segment("a", speaker="SPEAKER_00", person_id="ben", label_source="manual")
    store.upsert_segments("c1", 1, [before])
    name = (Correction(kind=CorrectionKind.SEGMENT_IS, segment_id="a", person_id="anna"),)
    store.correct("c1", "event-1", [HumanLabel("a", None, "anna")], corrections=name, by="ben")
    for revision, person in enumerate(("ben", "anna"), start=2):
        sent = TranscriptSegment(id="a", text="other words", person_id=person, label_source="manual")
        store.upsert_segments("c1", revision, [sent])
        assert read(store).segments[0].person_id == "anna"
