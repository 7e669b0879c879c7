"""Whatever an agent decodes is taken at every door; what only begins like audio is refused at each, with a reason."""

import hashlib
import random
from functools import partial

import pytest

from schemas.conversation import Accepted, EventType, Verdict
from tests.brokers import RunningBroker
from tests.encoded_audio import encoded
from tests.vps_bridge.http.door import Door, answering, live
from tests.vps_bridge.live_bridge import TOPICS, wait_until
from tests.vps_bridge.scripted_agent import make_wav

OCTETS = {"Content-Type": "application/octet-stream"}
CONTAINERS = {
    "wav": ("wav", "pcm_s16le"),
    "aiff": ("aiff", "pcm_s16be"),
    "caf": ("caf", "pcm_s16le"),
    "flac": ("flac", "flac"),
    "ogg": ("ogg", "libopus"),
    "mp3": ("mp3", "libmp3lame"),
    "aac": ("adts", "aac"),
    "mp4": ("ipod", "aac"),
    "webm": ("webm", "libopus"),
}


def file_of(name: str) -> bytes:
    if name in ("RIFX", "BW64"):
        return name.encode() + make_wav(1.0)[4:]
    container, codec = CONTAINERS[name]
    return encoded(container, codec, 1.0, piped=False)


def first_receipt(door: Door, conversation_id: str) -> Accepted:
    receipts = wait_until(lambda: door.backend.seen(Accepted, conversation_id), "a receipt")
    return receipts[0]


@pytest.mark.parametrize("name", [*CONTAINERS, "RIFX", "BW64"])
def test_every_container_is_taken_at_every_door(door: Door, name: str) -> None:
    audio = file_of(name)
    door.backend.publish(TOPICS.audio(f"bare-{name}"), audio)
    assert first_receipt(door, f"bare-{name}").verdict is Verdict.ACCEPTED
    assert door.backend.audio(f"payload-{name}", audio).verdict is Verdict.ACCEPTED
    assert door.audio(f"http-{name}", audio, OCTETS).status_code == 202


@pytest.mark.parametrize("name", ["aiff", "aac"])
def test_a_one_off_request_takes_them_too(mosquitto: RunningBroker, door: Door, name: str) -> None:
    with answering(mosquitto):
        wait_until(partial(live, door), "the agent")
        assert door.diarize(file_of(name)).status_code == 200


@pytest.mark.parametrize("head", [b"\xff\xfb", b"\xff\xe3", b"\xff\xf1", b"ID3\x04\x00\x00\x00\x00\x00\x10"])
def test_noise_behind_a_few_bytes_of_audio_is_refused_at_every_door(
    mosquitto: RunningBroker, door: Door, head: bytes
) -> None:
    noise = head + random.Random(head).randbytes(40_000)
    name = hashlib.sha256(head).hexdigest()[:8]
    door.backend.publish(TOPICS.audio(f"bare-{name}"), noise)
    over_http = door.audio(f"http-{name}", noise, OCTETS)
    with answering(mosquitto):
        wait_until(partial(live, door), "the agent")
        one_off = door.diarize(noise)
    assert (over_http.status_code, one_off.status_code) == (422, 422)
    bare, payload = first_receipt(door, f"bare-{name}"), door.backend.audio(f"payload-{name}", noise)
    assert {bare.reason, payload.reason} == {"audio.undecodable"}
    for message in (bare.message, payload.message, over_http.text, one_off.text):
        assert all(kind in (message or "") for kind in ("WAV", "FLAC", "AAC", "AIFF", "CAF", "WebM"))


def test_streamed_chunks_are_one_job_as_honest_ones_are(door: Door) -> None:
    """Six chunks of 5 s whose headers know no length: WAV, FLAC, WebM, AAC, MP3 without Xing, fragments of MP4."""
    chunks = [
        encoded("wav", "pcm_s16le"),
        encoded("flac", "flac"),
        encoded("webm", "libopus", live="1"),
        encoded("adts", "aac"),
        encoded("mp3", "libmp3lame", write_xing="0", id3v2_version="0"),
        encoded("mp4", "aac", movflags="frag_keyframe+empty_moov"),
    ]
    for sequence, audio in enumerate(chunks):
        assert door.audio("streamed", audio, OCTETS, sequence=sequence).status_code == 202
    assert door.event("streamed", EventType.COMPLETED, chunks=len(chunks)).status_code == 200
    (job,) = wait_until(lambda: door.bridge.jobs("streamed"), "the job")
    assert job["audio_s"] == pytest.approx(30.0, abs=0.5)
    assert not job["audio_estimated"]
