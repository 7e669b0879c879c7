"""Times, digests and hints that other programs write in their own way are read as meant, or refused by name."""

from datetime import UTC, datetime

import pytest

from schemas.audio import AudioPayload, ChunkDescription
from schemas.codec import decode, encode
from schemas.conversation import ConversationEvent, EventType
from schemas.errors import MessageMalformed
from schemas.record import Message
from tests.schemas.test_refusals import raw

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2017-01-01T01:59:60.250+02:00", datetime(2017, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)),
        ("2016-12-31 23:59:60-00:00", datetime(2017, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_leap_second_is_the_first_second_after_it_as_computers_count(written: str, meant: datetime) -> None:
    described = ChunkDescription.model_validate({"captured_at": written})
    assert described.captured_at == meant


@pytest.mark.parametrize("wrong", ["2016-12-31T23:59:61Z", "2016-12-31T23:60:00Z", "2016-12-31T24:59:60Z", ":60"])
def test_a_second_that_never_was_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="captured_at"):
        ChunkDescription.model_validate({"captured_at": wrong})


def test_a_digest_in_capitals_is_the_same_digest() -> None:
    kept = AudioPayload(conversation_id="c", sha256=DIGEST.upper(), audio=b"x")
    assert kept.sha256 == DIGEST
    assert decode(AudioPayload, encode(kept)).sha256 == DIGEST


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (ConversationEvent, {"event_id": "e", "type": EventType.STARTED}),
        (AudioPayload, {"conversation_id": "c", "sha256": DIGEST, "audio": b"x"}),
    ],
)
def test_at_least_more_speakers_than_at_most_is_refused_with_both(
    kind: type[Message], fields: dict[str, object]
) -> None:
    fields = fields | {"schema": kind.SCHEMA, "version": "1.0"}
    decode(kind, raw(kind, fields | {"min_speakers": 2, "max_speakers": 2}))
    with pytest.raises(MessageMalformed, match="min_speakers is 3 and max_speakers 2"):
        decode(kind, raw(kind, fields | {"min_speakers": 3, "max_speakers": 2}))
