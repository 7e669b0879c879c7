"""Chunks whose headers do not tell their length, through the real path: same jobs and labels as with honest ones."""

import io
import json
import struct
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from schemas.conversation import ConversationUpdated, EventType, TranscriptSegment
from tests.e2e.system import MqttBackend, System
from tests.encoded_audio import encoded

pytestmark = [pytest.mark.shared, pytest.mark.long]
RATE_HZ = 48_000
CHUNK_S = 5


@pytest.fixture(scope="module")
def case(shared_dir: Path) -> Path:
    return shared_dir / "cases" / "streamed_chunks_webm"


@pytest.fixture(scope="module")
def samples(case: Path) -> list[Any]:
    """What the six WebM chunks hold, decoded."""
    found = []
    for place in range(6):
        with av.open(str(case / f"chunk{place}.webm")) as container:
            resampler = av.AudioResampler("s16", "mono", RATE_HZ)
            frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        found.append(np.concatenate([frame.to_ndarray()[0] for frame in frames])[: CHUNK_S * RATE_HZ])
    return found


def wav(samples: Any, claimed_bytes: int | None = None) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    audio = bytearray(buffer.getvalue())
    if claimed_bytes is not None:
        struct.pack_into("<I", audio, 40, claimed_bytes)
    return bytes(audio)


def as_streamed(name: str, samples: Any) -> bytes:
    kinds: dict[str, tuple[str, str, dict[str, Any]]] = {
        "flac": ("flac", "flac", {}),
        "aac": ("adts", "aac", {}),
        "mp3": ("mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}),
        "mp4": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    }
    if name in kinds:
        container, codec, options = kinds[name]
        return encoded(container, codec, samples=samples, rate=RATE_HZ, **options)
    return wav(samples, None if name == "honest" else int(name))


def labels(
    system: System, backend: MqttBackend, name: str, case: Path, chunks: list[bytes], **described: Any
) -> tuple[int, int]:
    """Send the chunks and the transcript of the case; return the number of jobs and of right lines."""
    rows = json.loads((case / "segs.json").read_text())
    fields = ("id", "text", "start_s", "end_s")
    segments = tuple(TranscriptSegment(**{field: row[field] for field in fields}) for row in rows)
    backend.event(name, EventType.STARTED)
    backend.event(name, EventType.SEGMENTS, segments=segments)
    for sequence, audio in enumerate(chunks):
        backend.audio(name, audio, sequence=sequence, **described)
    backend.event(name, EventType.COMPLETED, chunks=len(chunks))
    update = backend.updated(name)
    true = json.loads((case / "true.json").read_text())
    found = {segment.id: segment.speaker for segment in update.segments}
    # Which of two voices has number 0 is by who is found first: what counts is that each has one of its own.
    names = [("SPEAKER_00", "SPEAKER_01"), ("SPEAKER_01", "SPEAKER_00")]
    right = max(
        sum(found[line] == dict(zip(names[0], order, strict=True))[who] for line, who in true.items())
        for order in names
    )
    shown = system.show(name)
    assert not any(job["audio_estimated"] for job in shown["jobs"])
    return len(shown["jobs"]), right


@pytest.mark.parametrize(
    "name", ["honest", "webm", "flac", "aac", "mp3", "mp4", "0", "2000000000", "2147483647", "4294967295"]
)
def test_chunks_of_unknown_length_have_the_labels_of_honest_ones(
    working_system: System, backend: MqttBackend, case: Path, samples: list[Any], name: str
) -> None:
    if name == "webm":
        chunks = [(case / f"chunk{place}.webm").read_bytes() for place in range(6)]
    else:
        chunks = [as_streamed(name, chunk) for chunk in samples]
    jobs, right = labels(working_system, backend, f"chunks-{name}", case, chunks)
    assert jobs == 1
    assert right >= 12


@pytest.mark.parametrize(("law", "named"), [("alaw", "pcm_mulaw"), ("mulaw", "pcm_alaw")])
def test_telephone_samples_named_by_the_other_law_have_the_labels_of_rightly_named_ones(
    working_system: System, backend: MqttBackend, case: Path, samples: list[Any], law: str, named: str
) -> None:
    at_8_khz = [chunk.reshape(-1, 6).mean(axis=1).astype(np.int16) for chunk in samples]
    chunks = [encoded(law, f"pcm_{law}", samples=chunk, rate=8_000) for chunk in at_8_khz]
    described = {"sample_rate": 8_000, "channels": 1}
    honest = labels(working_system, backend, f"right-{law}", case, chunks, encoding=f"pcm_{law}", **described)
    assert labels(working_system, backend, f"wrong-{law}", case, chunks, encoding=named, **described) == honest
    for name, told in ((f"right-{law}", 0), (f"wrong-{law}", 1)):
        warnings = backend.seen(ConversationUpdated, name)[-1].warnings
        assert sum("audio.header_wrong: it says" in warning for warning in warnings) == told


def test_files_with_a_wrong_length_in_the_header_are_published_whole(working_system: System, shared_dir: Path) -> None:
    """One file after another over the command line: each job is as long as the samples are."""
    files = {"wav_data_size_2e9/a.wav": 10.0, "streamed_chunks_webm/chunk0.webm": 5.0}
    for name, seconds in files.items():
        conversation = f"cli-{name[:4]}"
        path = str(shared_dir / "cases" / name)
        working_system.command("omi-bridge", "publish", path, "--conversation", conversation, "--wait")
        (job,) = working_system.show(conversation)["jobs"]
        assert job["state"] == "done"
        assert job["audio_s"] == pytest.approx(seconds, abs=0.1)
