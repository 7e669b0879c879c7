"""What decoding may take: memory, silence that nobody recorded, and time; and what a job that is too long is told."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mac_agent.audio import decode
from mac_agent.errors import AudioError
from mac_agent.inference import JobDecoded, JobFailed
from mac_agent.sample_buffer import BLOCK_SAMPLES, Hole, SampleBuffer
from mac_agent.settings import AgentSettings
from schemas.failure import FailureCode
from tests.mac_agent.live_worker import job, next_report, ready
from tests.mac_agent.sounds import as_wav, encode_file, tone

ROOT = Path(__file__).parents[2]
MEASURE = """
import resource, sys
from mac_agent.audio import decode
unit = 1 if sys.platform == "darwin" else 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
with open(sys.argv[1], "rb") as stream:
    chunk = decode(stream, max_s=14_400)
print(chunk.waveform.nbytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before)
"""


def peak_memory(body: bytes, path: Path) -> tuple[int, int]:
    """Bytes of the samples, and by how much decoding them raised the most that a process of its own ever held."""
    path.write_bytes(body)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, path], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    samples, peak = done.stdout.split()
    return int(samples), int(peak)


@pytest.mark.parametrize("kind", ["slow samples", "many files", "a pause"])
def test_decoding_holds_the_samples_once(kind, tmp_path):
    minutes = tone(440, 60)
    body = {
        "slow samples": lambda: as_wav(tone(100, 3_500, rate_hz=1_000), rate_hz=1_000),
        "many files": lambda: as_wav(minutes) * 60,
        "a pause": lambda: as_wav(minutes) * 10 + ogg_with_a_jump(seconds=40.0, jump_s=3_000.0),
    }[kind]()
    samples, peak = peak_memory(body, tmp_path / "audio")
    assert samples > 200_000_000
    assert peak < 1.2 * samples + 40_000_000


def test_a_jump_of_the_clock_in_a_small_ogg_does_not_become_hours_of_silence():
    body = ogg_with_a_jump(seconds=3.5, jump_s=14_003.0)
    chunk = decode(io.BytesIO(body), max_s=4 * 3600.0)
    assert chunk.duration_s == pytest.approx(3.5, abs=0.1)
    assert chunk.warnings == ("audio.holes_left_out: 14003.0 s",)


def ogg_with_a_jump(*, seconds: float, jump_s: float) -> bytes:
    """Opus whose pages, from the second with sound on, have a later time than they should."""
    body = encode_file(tone(440, seconds, rate_hz=48_000), "ogg", "libopus", rate_hz=48_000)
    changed = b""
    for number, page in enumerate(body.split(b"OggS")[1:]):
        later = bytearray(b"OggS" + page)
        if number > 2:  # the first two describe the stream
            granule = struct.unpack("<q", later[6:14])[0] + round(48_000 * jump_s)
            later[6:14], later[22:26] = struct.pack("<q", granule), bytes(4)
            later[22:26] = struct.pack("<I", ogg_checksum(bytes(later)))
        changed += later
    return changed


def ogg_checksum(page: bytes) -> int:
    """CRC-32 with polynomial 0x04c11db7, no reflection (RFC 3533)."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def test_silence_is_laid_in_where_it_belongs():
    buffer = SampleBuffer()
    samples = np.arange(1, 2 * BLOCK_SAMPLES + 1, dtype=np.float32)
    buffer.append(samples)
    holes = (Hole(0, 3), Hole(5, BLOCK_SAMPLES), Hole(BLOCK_SAMPLES + 7, 11), Hole(2 * BLOCK_SAMPLES, 2))
    expected, last = [], 0
    for hole in holes:
        expected += [samples[last : hole.position], np.zeros(hole.samples, dtype=np.float32)]
        last = hole.position
    buffer.lay_in_silence(holes)
    np.testing.assert_array_equal(buffer.view(), np.concatenate([*expected, samples[last:]]))


def test_a_file_whose_sample_rate_changes_all_the_time_is_refused():
    first, second = (
        adts_frames(encode_file(tone(440, 60, rate_hz=r), "adts", "aac", rate_hz=r)) for r in (32_000, 44_100)
    )
    body = b"".join(frame for pair in zip(first, second, strict=False) for frame in pair)
    with pytest.raises(AudioError) as caught:
        decode(io.BytesIO(body), max_s=600.0)
    assert caught.value.code is FailureCode.AUDIO_UNDECODABLE


def adts_frames(body: bytes) -> list[bytes]:
    frames, at = [], 0
    while at + 7 <= len(body):
        size = (body[at + 3] & 3) << 11 | body[at + 4] << 3 | body[at + 5] >> 5
        frames.append(body[at : at + size])
        at += size
    return frames


def test_a_job_too_long_in_its_second_chunk_is_told_the_limit_of_the_job(start_worker, tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(as_wav(tone(300, 3)))
    worker = start_worker()
    ready(worker)
    worker.submit(job(1, *paths, max_audio_s=5.0))
    failure = next_report(worker, JobFailed)
    assert (failure.code, failure.chunk_index) == (FailureCode.AUDIO_TOO_LONG, 1)
    assert "past 5 s" in failure.message


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["four hours of FLAC", "200,000 frames of MP3"])
def test_the_longest_audio_is_decoded_within_the_time_that_every_job_has(kind, start_worker, tmp_path):
    container, codec, rate_hz, seconds, times = {
        "four hours of FLAC": ("flac", "flac", 16_000, 300, 48),
        "200,000 frames of MP3": ("mp3", "libmp3lame", 8_000, 300, 48),
    }[kind]
    path = tmp_path / "audio"
    path.write_bytes(encode_file(tone(440, seconds, rate_hz=rate_hz), container, codec, rate_hz=rate_hz) * times)
    worker = start_worker(floor_s=AgentSettings().job_timeout_floor_s)
    ready(worker)
    worker.submit(job(1, path, max_audio_s=14_500.0))
    report = next_report(worker, JobDecoded, JobFailed)
    assert isinstance(report, JobDecoded), report
    assert report.duration_s == pytest.approx(seconds * times, rel=0.01)
