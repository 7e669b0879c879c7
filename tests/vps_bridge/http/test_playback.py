"""Hearing what was said: which audio covers a span of the transcript, and what is sent of it."""

import io
import struct
import wave
from pathlib import Path
from typing import Any

import pytest

from schemas.conversation import EventType
from tests.brokers import RunningBroker
from tests.vps_bridge.http.door import Door, answering
from tests.vps_bridge.live_bridge import STARTED_AT, call_segments
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.http.audio_cut import cut_wav, find_samples
from vps_bridge.labelling.align import StretchClock
from vps_bridge.labelling.audio_clock import ClockPiece
from vps_bridge.labelling.placed_audio import place_audio
from vps_bridge.rules.assemble import PlacedChunk

RATE_HZ = 1_000


def counting(count: int) -> bytes:
    """Samples that tell their own place."""
    return b"".join(place.to_bytes(2, "little") for place in range(count))


def wav_of(samples: bytes, *, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples)
    return buffer.getvalue()


def test_samples_are_cut_at_whole_frames_and_never_past_their_end(tmp_path: Path) -> None:
    raw, file = tmp_path / "raw", tmp_path / "file.wav"
    raw.write_bytes(counting(4_000) + b"\0")
    file.write_bytes(wav_of(counting(4_000)) + b"LIST\4\0\0\0rest")
    for path, encoding in ((raw, "pcm_s16le"), (file, "auto")):
        samples = find_samples(path, encoding, RATE_HZ, 1)
        assert samples is not None
        for span, expected in (((1.0, 1.5), range(1_000, 1_500)), ((3.9, 99.0), range(3_900, 4_000)), ((9.0, 1.0), ())):
            with wave.open(io.BytesIO(cut_wav(path, samples, *span))) as cut:
                assert (cut.getframerate(), cut.getnchannels(), cut.getsampwidth()) == (RATE_HZ, 1, 2)
                assert cut.readframes(9_999) == b"".join(place.to_bytes(2, "little") for place in expected)


def test_what_holds_no_plain_samples_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "audio"
    whole = wav_of(counting(10))
    compressed = whole[:20] + b"\x11\0" + whole[22:]  # IMA ADPCM
    for content in (b"", b"RIFF", b"OggS" + bytes(60), compressed, whole[:30], whole[:12] + b"data\0\0\0\0"):
        path.write_bytes(content)
        assert find_samples(path, "auto", None, None) is None


def test_a_place_is_where_the_clock_of_its_stretch_puts_it() -> None:
    placed = (PlacedChunk("a", 0, 0.0, 10.0), PlacedChunk("b", 0, 10.0, 10.0), PlacedChunk("c", 1, 0.0, 5.0))
    clocks = (StretchClock((ClockPiece(0.0, 12.0, 100.0),), None), StretchClock((), None))
    first, second = place_audio(placed, clocks)
    assert [place.to_row() for place in (first, second)] == [("a", 0.0, 10.0, 100.0), ("b", 0.0, 2.0, 110.0)]
    part = first.within(104.0, 111.0)
    assert part is not None
    assert part.to_row() == ("a", 4.0, 10.0, 104.0)
    assert first.within(110.0, 111.0) is None


def ask(door: Door, name: str, **query: Any) -> Any:
    answer = door.client.get(f"/v1/conversations/{name}/playback", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_span_is_heard_across_its_chunks_until_the_audio_is_gone(mosquitto: RunningBroker, door: Door) -> None:
    name = "heard"
    with answering(mosquitto):
        door.backend.event(name, EventType.STARTED, started_at=STARTED_AT)
        door.backend.event(name, EventType.SEGMENTS, segments=call_segments(name))
        for sequence in range(3):
            captured_at = STARTED_AT.replace(second=sequence * 10).isoformat()
            body = make_wav(10.0, tone=sequence)
            assert door.audio(name, body, captured_at=captured_at, sequence=sequence).status_code == 202
        door.backend.event(name, EventType.COMPLETED, chunks=3)
        door.backend.wait_updated(name)
    found = ask(door, name, from_s=9.0, to_s=12.5)
    assert (found["reason"], [part["duration_s"] for part in found["parts"]]) == (None, [1.0, 2.5])
    for part, frames, sample in zip(found["parts"], (8_000, 20_000), (b"\0\0", b"\1\0"), strict=True):
        with wave.open(io.BytesIO(door.client.get(part["path"]).content)) as cut:
            assert cut.readframes(99_999) == frames * sample
    assert door.open.get(found["parts"][0]["path"]).status_code == 401
    assert "is not known" in ask(door, name, from_s=100.0, to_s=101.0)["reason"]
    assert door.client.get("/v1/conversations/none/playback", params={"from_s": 0, "to_s": 1}).status_code == 404
    for path in door.bridge.spool.iterdir():
        path.unlink()
    gone = ask(door, name, from_s=9.0, to_s=12.5)
    assert (gone["parts"], gone["reason"]) == ([], "its audio is not kept any more")
    assert door.client.get(found["parts"][0]["path"]).status_code == 404


@pytest.mark.parametrize("path", ["..%2F..%2Fledger.sqlite3", "none"])
def test_nothing_but_a_chunk_is_sent(door: Door, path: str) -> None:
    assert door.client.get(f"/v1/conversations/heard/chunks/{path}/audio").status_code in (404, 422)


@pytest.mark.parametrize(
    ("channels", "rate_hz", "frame_bytes"),
    [(1, 2**32 - 1, 2), (1, 16_000, 65_535), (200, 16_000, 2), (3, 16_000, 4), (16, 2**31, 32)],
)
def test_a_file_whose_header_no_other_could_repeat_is_sent_whole(
    door: Door, channels: int, rate_hz: int, frame_bytes: int
) -> None:
    whole = wav_of(counting(1_000))
    odd = whole[:22] + struct.pack("<HIIH", channels, rate_hz, 0, frame_bytes) + whole[34:]
    name = f"odd-{channels}-{rate_hz}-{frame_bytes}"
    assert door.audio(name, odd, sequence=0).status_code == 202
    for query in ({}, {"from_s": 0.0, "to_s": 0.5}, {"from_s": -5.0, "to_s": -1.0}):
        answer = door.client.get(f"/v1/conversations/{name}/chunks/s-0/audio", params=query)
        assert (answer.status_code, answer.content) == (200, odd), answer.text
