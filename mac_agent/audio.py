"""Bytes of a chunk to 16 kHz mono samples. What a header says is checked against what is decoded.

Decoding runs in the worker process: a decoder that a crafted file crashes costs one attempt at one job.
FFmpeg (inside PyAV) sees a file object only, with the container chosen here from the first bytes, so that
no playlist or reference format can make it open another file or an address.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import av
import numpy as np

from mac_agent.engines.engine import SAMPLE_RATE_HZ, Waveform
from mac_agent.errors import AudioError
from mac_agent.recording_decoder import PassReport, RecordingDecoder, TooLong, undecodable
from mac_agent.recordings import RecordingSource, find_recordings
from mac_agent.sample_buffer import BLOCK_SAMPLES, SampleBuffer
from schemas.failure import FailureCode

MAX_TRACKS = 32
BUTT_S = 0.5  # chunks nearer to each other than this are contiguous (architecture.md)
CLIPPED_LEVEL = 0.99  # of full scale; resampling moves a flat top a little
# In a call of 30 s, flat tops of 0.7 % of the samples cost a line its speaker, of 4 % all of one voice.
CLIPPED_RATIO = 0.005
UNSCALED_PEAK = 4.0  # a float file that reaches this was never scaled to [-1, 1], or has samples that are no sound
STRAY_RATIO = 1e-4  # no more than so many are
STRAY_FACTOR = 4.0  # and they are so much louder than all others
SCALE_SAMPLES = 1 << 20  # enough to know the loudest ten-thousandth
QUIET_PEAK = 2.0**-8  # -48 dB: 24 bits at the lower end of 32, or 16 of 24. At -60 dB the networks hear nobody
# Speech whose rounding is nearer to it than this has noise in its pauses that moves turns: 8 bits, or 16 far too quiet.
ROUNDING_DISTANCE_DB = 40.0
# Silence that time stamps ask for. Opus sends 20 ms of every 400 of a pause, a muted track a minute of an hour.
# More than that is a damaged or made up time stamp: 841 bytes can claim hours.
MAX_SILENCE_S, MAX_SILENCE_RATIO = 60.0, 100.0


@dataclass(frozen=True, eq=False)
class DecodedChunk:
    """One chunk as samples."""

    waveform: Waveform
    """float32, shape ``(samples,)``, mono at 16 kHz, finite."""
    warnings: tuple[str, ...] = ()
    step: float = 0.0
    """The least difference of two integer samples that it came from, as a share of full scale; 0 where unknown."""
    rates_hz: frozenset[int] = frozenset()
    """At which it was sampled before it came to 16 kHz."""

    @property
    def duration_s(self) -> float:
        """Seconds of audio that really came out of the decoder."""
        return self.waveform.size / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class JoinedChunk:
    """Where a chunk came to lie in the job."""

    start_s: float
    duration_s: float


@dataclass(frozen=True)
class Quality:
    """How good the samples are, for a person who wonders why a result is poor."""

    peak: float
    clipped_ratio: float
    """Share of samples at 99 % of full scale or more."""
    rms_dbfs: float
    """Root mean square in dB of full scale; -400 for silence."""


def decode(
    stream: BinaryIO,
    *,
    encoding: str = "auto",
    sample_rate: int | None = None,
    channels: int | None = None,
    max_s: float,
    limit_s: float | None = None,
) -> DecodedChunk:
    """Decode a chunk to mono at 16 kHz: all recordings in it, joined, of each the first audio track that decodes.

    Args:
        stream: seekable; a file with a header of its own, or headerless samples.
        encoding: one of ``RAW_ENCODINGS``, or anything else for a file: the bytes decide what it is.
        sample_rate: of a raw encoding, Hz.
        channels: of a raw encoding.
        max_s: seconds of output after which decoding stops.
        limit_s: seconds that the whole job may last, for the message; default: `max_s`.

    Raises:
        AudioError: `audio.empty`, `audio.undecodable` or `audio.too_long`.
    """
    body = find_recordings(stream, encoding, sample_rate, channels)
    samples, losses = SampleBuffer(), _Losses(body.ignored_bytes, body.cut_bytes)
    error: AudioError | None = None
    try:
        for recording in body.recordings:
            try:
                _decode_recording(recording, samples, round(max_s * SAMPLE_RATE_HZ), losses)
            except AudioError as refused:
                error = error or refused
                losses.ignored_bytes += recording.size_bytes
    except TooLong as too_long:
        raise _too_long(limit_s or max_s) from too_long
    if not len(samples):
        raise error or AudioError(
            FailureCode.AUDIO_EMPTY, "The file has a header and no samples. Publish audio, or nothing at all."
        )
    waveform = samples.view()
    return DecodedChunk(waveform, (*losses.warnings(), *_clean(waveform)), losses.step, frozenset(losses.rates_hz))


def _decode_recording(recording: RecordingSource, samples: SampleBuffer, max_samples: int, losses: _Losses) -> None:
    """Decode the first track that can be, behind the samples that are there; an error leaves these as they were."""
    start = len(samples)
    report, track = _decode_a_track(recording, samples, max_samples)
    if report.is_cancelled:
        # Rare, so it pays to decode twice rather than to hold all channels of four hours at once.
        samples.cut(start)
        loudest = int(np.argmax(report.channel_energy))
        report = RecordingDecoder(recording, samples, max_samples, track=track, channel=loudest).run()
        losses.is_antiphase = True
    losses.take(recording, report)
    hole_samples = sum(hole.samples for hole in report.holes)
    heard = len(samples) - samples.silent_samples
    if samples.silent_samples + hole_samples > MAX_SILENCE_S * SAMPLE_RATE_HZ + MAX_SILENCE_RATIO * heard:
        losses.left_out_s += hole_samples / SAMPLE_RATE_HZ
    elif hole_samples:
        if len(samples) + hole_samples > max_samples:
            raise TooLong
        samples.lay_in_silence(report.holes)
        losses.filled_s += hole_samples / SAMPLE_RATE_HZ


def _decode_a_track(recording: RecordingSource, samples: SampleBuffer, max_samples: int) -> tuple[PassReport, int]:
    start = len(samples)
    error: AudioError | None = None
    report = PassReport()
    for track in range(MAX_TRACKS):
        decoder = RecordingDecoder(recording, samples, max_samples, track=track)
        try:
            report = decoder.run()
        except AudioError as refused:
            samples.cut(start)
            error = error or refused
        if len(samples) > start:
            return report, track
        if decoder.report.damaged_packets:
            error = error or undecodable("every packet is damaged")
        if track + 1 >= decoder.report.tracks:
            break
    if error is not None:
        raise error
    return report, 0


@dataclass
class _Losses:
    """What of a chunk did not become samples, and what else a person should know."""

    ignored_bytes: int
    cut_bytes: int = 0
    missing_bytes: int = 0
    missing_s: float = 0.0
    ignored_tracks: int = 0
    left_out_s: float = 0.0
    filled_s: float = 0.0
    damaged_packets: int = 0
    damaged_bytes: int = 0
    is_broken_off: bool = False
    is_antiphase: bool = False
    is_rescaled: bool = False
    header_faults: dict[str, None] = field(default_factory=dict)
    coarse_bits: dict[str, float] = field(default_factory=dict)
    step: float = 0.0
    rates_hz: set[int] = field(default_factory=set)

    def take(self, recording: RecordingSource, report: PassReport) -> None:
        """Add what a pass found."""
        self.ignored_bytes += report.ignored_bytes
        self.missing_bytes += recording.missing_bytes
        self.missing_s += 0.0 if recording.missing_bytes else report.missing_s
        self.ignored_tracks += report.tracks - 1
        self.damaged_packets += report.damaged_packets
        self.damaged_bytes += report.damaged_bytes
        self.is_broken_off |= report.is_broken_off
        self.is_rescaled |= not recording.is_shift_said
        if recording.header_fault:
            self.header_faults[recording.header_fault] = None
        self.coarse_bits |= report.coarse_bits
        self.step = max(self.step, report.step)
        self.rates_hz |= report.rates_hz

    def warnings(self) -> list[str]:
        """Return a line each: a code, and behind a colon how much where that is known."""
        cut = f"{self.cut_bytes} bytes; what goes on there in the next chunk is misread"
        lost = f": {self.damaged_packets} packets or blocks, {self.damaged_bytes} bytes" if self.damaged_bytes else ""
        lines = {
            f"audio.bytes_ignored: {self.ignored_bytes} bytes": self.ignored_bytes,
            f"audio.cut_in_sample: {cut}": self.cut_bytes,
            f"audio.truncated: {self.missing_bytes} bytes are missing": self.missing_bytes,
            f"audio.truncated: {self.missing_s:.2f} s are missing": self.missing_s,
            f"audio.tracks_ignored: {self.ignored_tracks}": self.ignored_tracks,
            f"audio.damaged{lost}": self.damaged_packets or self.is_broken_off,
            f"audio.holes_filled: {self.filled_s:.1f} s": self.filled_s,
            f"audio.holes_left_out: {self.left_out_s:.1f} s": self.left_out_s,
            "audio.antiphase": self.is_antiphase,
            "audio.rescaled": self.is_rescaled,
        } | {f"audio.low_quality: {codec}, {bits:.1f} bits a sample": True for codec, bits in self.coarse_bits.items()}
        lines |= {f"audio.header_wrong: {fault}": True for fault in self.header_faults}
        return [line for line, is_so in lines.items() if is_so]


def join_chunks(
    chunks: list[tuple[Waveform, float | None]], *, max_s: float
) -> tuple[Waveform, tuple[JoinedChunk, ...], tuple[str, ...]]:
    """Lay chunks on one timeline that starts at the job's zero.

    Args:
        chunks: samples and where they should start, in seconds; None is right after the chunk before. Emptied while
            it is joined, so that no sample of four hours is in memory twice.
        max_s: the longest timeline.

    Returns:
        The samples, where each chunk really lies, and warnings. Gaps and overlaps up to 0.5 s are butted, longer
        gaps are silence. Longer overlaps are butted as well (audio is never cut) and reported.

    Raises:
        AudioError: `audio.too_long`.
    """
    starts, cursor, warnings = [], 0, []
    for waveform, start_s in chunks:
        gap_s = 0.0 if start_s is None else start_s - cursor / SAMPLE_RATE_HZ
        if gap_s > BUTT_S:
            cursor += round(gap_s * SAMPLE_RATE_HZ)
        elif gap_s < -BUTT_S:
            warnings.append("audio.chunks_overlap")
        if (cursor + waveform.size) / SAMPLE_RATE_HZ > max_s:
            raise _too_long(max_s)
        starts.append(cursor)
        cursor += waveform.size
    placed = tuple(
        JoinedChunk(start / SAMPLE_RATE_HZ, waveform.size / SAMPLE_RATE_HZ)
        for start, (waveform, _) in zip(starts, chunks, strict=True)
    )
    if len(chunks) == 1 and starts[0] == 0:
        return chunks[0][0], placed, ()
    joined = np.zeros(cursor, dtype=np.float32)
    for start in starts:
        waveform, _ = chunks.pop(0)
        joined[start : start + waveform.size] = waveform
    return joined, placed, tuple(dict.fromkeys(warnings))


def measure_quality(waveform: Waveform) -> Quality:
    """Measure peak, clipping and level of samples of shape ``(samples,)``."""
    if waveform.size == 0:
        return Quality(0.0, 0.0, -400.0)
    peak, clipped, energy = 0.0, 0, 0.0
    for samples in _blocks(waveform):
        block = np.abs(samples)
        peak = max(peak, float(block.max()))
        clipped += int(np.count_nonzero(block >= CLIPPED_LEVEL))
        energy += float(np.dot(block, block))
    power = energy / waveform.size
    return Quality(peak, clipped / waveform.size, 10 * math.log10(power) if power > 1e-40 else -400.0)  # noqa: PLR2004


def judge_quality(quality: Quality, step: float) -> list[str]:
    """Return warnings about all samples of a job: in one chunk of it people may just be silent.

    Args:
        quality: of the job.
        step: the greatest of its chunks.
    """
    warnings: list[str] = []
    if 0 < quality.peak < QUIET_PEAK:
        warnings.append(f"audio.quiet: peak of {20 * math.log10(quality.peak):.0f} dBFS")
    if quality.clipped_ratio > CLIPPED_RATIO:
        warnings.append(f"audio.clipped: {100 * quality.clipped_ratio:.1f} % of the samples are at full scale")
    if step and quality.peak:
        distance_db = quality.rms_dbfs - 10 * math.log10(step**2 / 12)  # rounding is noise of step²/12
        if distance_db < ROUNDING_DISTANCE_DB:
            warnings.append(
                f"audio.low_quality: the noise of its coarse samples is {distance_db:.0f} dB below the sound"
            )
    return warnings


def _clean(samples: Waveform) -> list[str]:
    """Zero what is not a number and scale what never was scaled, in place; return the warnings about it."""
    peak, is_finite = 0.0, True
    for block in _blocks(samples):
        finite = np.isfinite(block)
        if not finite.all():
            block[~finite] = 0.0
            is_finite = False
        peak = max(peak, float(np.abs(block).max()))
    warnings = [] if is_finite else ["audio.not_finite"]
    return warnings + (_scale(samples, peak) if peak > UNSCALED_PEAK else [])


def _scale(samples: Waveform, peak: float) -> list[str]:
    """Bring samples of a floating point file within [-1, 1], in place, where a few that are no sound count for nothing.

    A single sample of 3e38, divided by which all others are silence, would silence them all.
    """
    heard = np.sort(np.abs(samples[:: 1 + samples.size // SCALE_SAMPLES]))
    loudest = float(heard[max(0, heard.size - 1 - max(1, int(STRAY_RATIO * heard.size)))])
    limit = STRAY_FACTOR * max(loudest, 1.0)
    strays, rest = 0, 0.0
    for block in _blocks(samples):
        sizes = np.abs(block)
        strays += int(np.count_nonzero(sizes > limit))
        rest = max(rest, float(sizes[sizes <= limit].max(initial=0.0)))
    warnings: list[str] = []
    if 0 < strays <= 1 + STRAY_RATIO * samples.size:
        np.clip(samples, -rest, rest, out=samples)
        warnings.append(f"audio.strays_cut: {strays}, of up to {peak:.3g} times full scale")
        peak = rest
    if peak > UNSCALED_PEAK:
        samples /= np.float32(peak)
        warnings.append("audio.rescaled")
    return warnings


def _blocks(samples: Waveform) -> Iterator[Waveform]:
    """Yield views, so that what is computed of four hours takes the memory of a minute."""
    for start in range(0, samples.size, BLOCK_SAMPLES):
        yield samples[start : start + BLOCK_SAMPLES]


def _too_long(max_s: float) -> AudioError:
    return AudioError(
        FailureCode.AUDIO_TOO_LONG,
        f"The audio runs past {max_s:g} s. Publish it in shorter chunks, or raise OMI_MAX_AUDIO_S of the agent.",
    )


with contextlib.suppress(AttributeError):  # FFmpeg writes to stderr past our logs; the errors are raised anyway
    av.logging.set_level(av.logging.PANIC)
