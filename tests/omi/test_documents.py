"""What OMI's webhooks say, of both generations, and what is no such thing."""

import json
from datetime import UTC, datetime

import pytest

from vps_bridge.omi.documents import LiveSegment, WebhookDocumentWrong, read_conversation, read_live, transcript_zero

AT = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)


def body(**fields: object) -> bytes:
    return json.dumps({"id": "c1", "started_at": AT.isoformat(), "transcript_segments": [], **fields}).encode()


def test_a_segment_of_the_earliest_generation_has_no_id_and_gets_the_same_one_each_time() -> None:
    row = {"text": "hello", "speaker": "SPEAKER_01", "speaker_id": 1, "is_user": False, "start": 1.5, "end": 3.0}
    first, second = (read_conversation(body(transcript_segments=[row])).segments for _ in range(2))
    assert first == second
    assert (first[0].start_s, first[0].end_s, first[0].speaker, first[0].text) == (1.5, 3.0, "SPEAKER_01", "hello")


def test_a_label_of_which_nobody_says_where_it_comes_from_counts_as_a_persons() -> None:
    rows = [
        {"id": "a", "start": 0, "end": 1, "person_id": "p1", "speaker_label_source": "auto"},
        {"id": "b", "start": 1, "end": 2, "person_id": "p1", "speaker_label_source": "manual"},
        {"id": "c", "start": 2, "end": 3, "person_id": "p1"},
        {"id": "d", "start": 3, "end": 4, "person_id": "p1", "speaker_label_source": "carried"},
    ]
    found = read_conversation(body(transcript_segments=rows)).segments
    assert [one.label_source for one in found] == ["auto", "manual", None, None]


def test_times_without_a_zone_are_utc_and_missing_ones_follow_from_the_others() -> None:
    naive = read_conversation(body(started_at="2026-05-04T10:00:00", finished_at="2026-05-04T10:05:00"))
    assert naive.span(0.0) == (AT.timestamp(), AT.timestamp() + 300)
    rows = [{"id": "a", "start": 0, "end": 40}]
    late = read_conversation(body(started_at=None, created_at=AT.isoformat(), transcript_segments=rows))
    assert late.span(0.0) == (AT.timestamp() - 40, AT.timestamp())
    nothing = read_conversation(body(started_at="soon", finished_at=12, transcript_segments=rows))
    assert nothing.span(1_000.0)[1] - nothing.span(1_000.0)[0] >= 40


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b"{",
        b'{"id": "a", "id": "b"}',
        body(id="has.dot"),
        body(transcript_segments=[1]),
        body(transcript_segments=[{"id": "a", "start": "secret", "end": 2}]),
        b"[" * 100_000,
    ],
)
def test_what_is_no_conversation_is_refused_without_quoting_it(wrong: bytes) -> None:
    with pytest.raises(WebhookDocumentWrong) as caught:
        read_conversation(wrong)
    assert "secret" not in str(caught.value)


def test_live_segments_come_in_an_object_or_as_a_bare_list() -> None:
    rows = [{"id": "a", "end": 2.5}, {"end": 3}, {"id": "b", "end": True}, "odd"]
    assert read_live(json.dumps(rows).encode()) == (LiveSegment("a", 2.5),)
    assert read_live(json.dumps({"segments": rows, "session_id": "u1"}).encode()) == (LiveSegment("a", 2.5),)
    with pytest.raises(WebhookDocumentWrong):
        read_live(b'{"session_id": "u1"}')


def test_the_earliest_report_tells_where_the_transcript_begins() -> None:
    reports = [(110.0, LiveSegment("a", 5.0)), (112.0, LiveSegment("b", 8.5)), (125.0, LiveSegment("c", 20.0))]
    assert transcript_zero(reports, {"a", "b", "c"}) == 102.0
    assert transcript_zero(reports, {"a", "b"}) is None
