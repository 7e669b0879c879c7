"""Bytes of a chunk to 16 kHz mono samples. What a header says is checked against what is decoded.

Decoding runs in the worker process: a decoder that a crafted file crashes costs one attempt at one job.
FFmpeg (inside PyAV) sees a file object only, with the container chosen here from the first bytes, so that
no playlist or reference format can make it open another file or an address.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from mac_agent.audio_container import choose_container, missing_wav_ratio
from mac_agent.engines.engine import SAMPLE_RATE_HZ, Waveform
from mac_agent.errors import AudioError
from schemas.failure import FailureCode

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray

MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 1_000, 768_000  # as in the contract; a 1 Hz header would be a bomb
MAX_CHANNELS = 16
MAX_PLANES = 8  # FFmpeg's AV_NUM_DATA_POINTERS
MAX_DAMAGED_PACKETS = 1_000  # past this a file is noise with a header
BUTT_S = 0.5  # chunks nearer to each other than this are contiguous (architecture.md)
HOLE_S = 0.1  # a jump of timestamps inside a file larger than this is a hole, not rounding
PROMISE_FACTOR = 1.1  # a header that promised 10 % more than came is reported
# Of n channels with one in use, the mean keeps 1/n of their mean energy. A fifth of that: they were in anti-phase.
CANCELLED_RATIO = 0.2
CLIPPED_LEVEL = 0.99  # of full scale; resampling moves a flat top a little
UNSCALED_PEAK = 4.0  # a float file that reaches this was never scaled to [-1, 1]
BLOCK_SAMPLES = 1 << 20

# Without an index these estimate their length from the bit rate: no promise to hold them to.
_GUESSED_DURATION = {"mp3", "aac"}


@dataclass(frozen=True, eq=False)
class DecodedChunk:
    """One chunk as samples."""

    waveform: Waveform
    """float32, shape ``(samples,)``, mono at 16 kHz, finite."""
    warnings: tuple[str, ...] = ()

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
) -> DecodedChunk:
    """Decode a chunk to mono at 16 kHz.

    Args:
        stream: seekable; a file with a header of its own, or headerless samples.
        encoding: one of ``RAW_ENCODINGS``, or anything else for a file: the bytes decide what it is.
        sample_rate: of a raw encoding, Hz.
        channels: of a raw encoding.
        max_s: seconds of output after which decoding stops.

    Raises:
        AudioError: `audio.empty`, `audio.undecodable` or `audio.too_long`.
    """
    container, options = choose_container(stream, encoding, sample_rate, channels)
    mixed = _Decoding(stream, container, options, max_s)
    samples = mixed.run(channel=None)
    if mixed.is_cancelled:
        # Rare, so it pays to decode twice rather than to hold all channels of four hours at once.
        loudest = int(np.argmax(mixed.channel_energy))
        mixed = _Decoding(stream, container, options, max_s)
        samples = mixed.run(channel=loudest)
        mixed.warnings.append("audio.antiphase")
    if samples.size == 0:
        raise _empty_or_undecodable(mixed)
    return DecodedChunk(_clean(samples, mixed.warnings), tuple(dict.fromkeys(mixed.warnings)))


def join_chunks(
    chunks: Sequence[tuple[Waveform, float | None]], *, max_s: float
) -> tuple[Waveform, tuple[JoinedChunk, ...], tuple[str, ...]]:
    """Lay chunks on one timeline that starts at the job's zero.

    Args:
        chunks: samples and where they should start, in seconds; None is right after the chunk before.
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
    for start, (waveform, _) in zip(starts, chunks, strict=True):
        joined[start : start + waveform.size] = waveform
    return joined, placed, tuple(dict.fromkeys(warnings))


def measure_quality(waveform: Waveform) -> Quality:
    """Measure peak, clipping and level of samples of shape ``(samples,)``."""
    if waveform.size == 0:
        return Quality(0.0, 0.0, -400.0)
    peak, clipped, energy = 0.0, 0, 0.0
    for start in range(0, waveform.size, BLOCK_SAMPLES):
        block = np.abs(waveform[start : start + BLOCK_SAMPLES])
        peak = max(peak, float(block.max()))
        clipped += int(np.count_nonzero(block >= CLIPPED_LEVEL))
        energy += float(np.dot(block, block))
    power = energy / waveform.size
    return Quality(peak, clipped / waveform.size, 10 * math.log10(power) if power > 1e-40 else -400.0)  # noqa: PLR2004


class _Decoding:
    """One pass over one file. Not reused."""

    def __init__(self, stream: BinaryIO, container: str, options: dict[str, str], max_s: float) -> None:
        self.warnings: list[str] = []
        self.channel_energy: NDArray[np.float64] = np.zeros(0)
        self.damaged_packets = 0
        self._stream, self._container, self._options, self._max_s = stream, container, options, max_s
        self._mix_energy = 0.0
        self._blocks: list[Waveform] = []
        self._samples = 0
        self._decoded_s = 0.0

    @property
    def is_cancelled(self) -> bool:
        """Whether mixing the channels lost most of what is in them."""
        if self.channel_energy.size < 2:  # noqa: PLR2004
            return False
        limit = CANCELLED_RATIO / self.channel_energy.size
        # Not a number compares false: a file with such samples is mixed as any other.
        return self._mix_energy < limit * float(self.channel_energy.mean())

    def run(self, channel: int | None) -> Waveform:
        """Decode all, as the mean of the channels or as one of them."""
        self._stream.seek(0)
        try:
            with av.open(self._stream, mode="r", format=self._container, options=self._options) as container:
                promised_s = self._promise(container)
                for block in self._resampled(container, channel):
                    self._keep(block)
        except (av.FFmpegError, ValueError, IndexError, EOFError) as error:
            if self._samples == 0:
                raise _undecodable(type(error).__name__) from error
            self.warnings.append("audio.damaged")
            promised_s = 0.0
        if promised_s > PROMISE_FACTOR * self._decoded_s and self._samples:
            self.warnings.append("audio.truncated")
        if self.damaged_packets:
            self.warnings.append("audio.damaged")
        return np.concatenate(self._blocks) if self._blocks else np.zeros(0, dtype=np.float32)

    def _promise(self, container: InputContainer) -> float:
        """Return the seconds the header promises; 0 where it promises nothing."""
        if not container.streams.audio:
            raise _undecodable("no audio stream")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise _undecodable("an unknown codec")
        if not (MIN_SAMPLE_RATE_HZ <= (stream.rate or 0) <= MAX_SAMPLE_RATE_HZ):
            raise _undecodable(f"a sample rate of {stream.rate} Hz")
        if not 1 <= stream.channels <= MAX_CHANNELS:
            raise _undecodable(f"{stream.channels} channels")
        if self._container in _GUESSED_DURATION:
            return 0.0
        if self._container == "wav":  # FFmpeg corrects the header's length by the size of the file
            missing_ratio = missing_wav_ratio(self._stream)
            self.warnings += ["audio.truncated"] if missing_ratio > PROMISE_FACTOR else []
            return 0.0
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return container.duration / av.time_base if container.duration else 0.0

    def _resampled(self, container: InputContainer, channel: int | None) -> Iterator[Waveform]:
        """Yield mono blocks at 16 kHz, holes between timestamps filled with silence."""
        resampler: AudioResampler | None = None
        rate = 0
        origin_s: float | None = None
        for frame, samples in self._frames(container):
            if resampler is None or rate != frame.sample_rate:
                if resampler is not None:  # a chained stream: what follows is another recording
                    yield from _planes(resampler.resample(None))
                    origin_s = None
                rate = frame.sample_rate
                resampler = AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ)
            if frame.pts is not None and frame.time_base is not None:
                time_s = float(frame.pts * frame.time_base)
                origin_s = time_s - self._decoded_s if origin_s is None else origin_s
                hole_s = time_s - origin_s - self._decoded_s
                if hole_s > HOLE_S:
                    yield from _planes(resampler.resample(None))
                    resampler = AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ)
                    yield self._silence(hole_s)
            self._decoded_s += samples / rate
            yield from _planes(resampler.resample(self._mix(frame, samples, channel)))
        if resampler is not None:
            yield from _planes(resampler.resample(None))

    def _frames(self, container: InputContainer) -> Iterator[tuple[AudioFrame, int]]:
        """Yield each frame and how many of its samples were encoded: a codec fills the last one of a file up."""
        waiting: AudioFrame | None = None
        for frame in self._decoded(container):
            if waiting is not None:
                yield waiting, waiting.samples
            waiting = frame
        if waiting is not None:
            yield waiting, _encoded_samples(waiting) if self._container == "mov" else waiting.samples

    def _decoded(self, container: InputContainer) -> Iterator[AudioFrame]:
        stream = container.streams.audio[0]
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except (av.InvalidDataError, av.PatchWelcomeError) as error:
                self.damaged_packets += 1
                if self.damaged_packets > MAX_DAMAGED_PACKETS:
                    raise _undecodable("damaged throughout") from error

    def _mix(self, frame: AudioFrame, count: int, channel: int | None) -> AudioFrame:
        """Return one channel, or the mean of all, of the first samples as a mono frame; counts what mixing loses.

        Mixing happens before resampling and not in FFmpeg, which crashes on layouts of 8 unnamed channels or more.
        """
        samples = _channels(frame)[:, :count]
        if channel is not None:
            mono = samples[min(channel, len(samples) - 1)]
        else:
            mono = samples.mean(axis=0, dtype=np.float32)
            if len(samples) > 1:
                self._count_energy(samples, mono)
        mixed = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono)[None], format="fltp", layout="mono")
        mixed.sample_rate = frame.sample_rate
        return mixed

    def _count_energy(self, samples: NDArray[np.float32], mono: Waveform) -> None:
        energy = np.einsum("cs,cs->c", samples, samples, dtype=np.float64)
        if self.channel_energy.size != energy.size:
            self.channel_energy = np.zeros(energy.size)
        self.channel_energy += energy
        self._mix_energy += float(np.einsum("s,s->", mono, mono, dtype=np.float64))

    def _silence(self, hole_s: float) -> Waveform:
        if self._samples / SAMPLE_RATE_HZ + hole_s > self._max_s:
            raise _too_long(self._max_s)
        self.warnings.append("audio.holes_filled")
        self._decoded_s += hole_s
        return np.zeros(round(hole_s * SAMPLE_RATE_HZ), dtype=np.float32)

    def _keep(self, block: Waveform) -> None:
        self._samples += block.size
        if self._samples / SAMPLE_RATE_HZ > self._max_s:
            raise _too_long(self._max_s)
        self._blocks.append(block)


def _encoded_samples(frame: AudioFrame) -> int:
    """Return how many samples a frame lasts by the clock of its container, where these are fewer than it holds."""
    if not frame.duration or frame.time_base is None:
        return frame.samples
    return min(frame.samples, max(1, round(frame.duration * frame.time_base * frame.sample_rate)))


def _planes(frames: Iterable[AudioFrame]) -> Iterator[Waveform]:
    """Yield the samples of mono frames."""
    for frame in frames:
        yield frame.to_ndarray()[0].astype(np.float32)


def _channels(frame: AudioFrame) -> NDArray[np.float32]:
    """Return a frame's samples as float32 of shape ``(channels, samples)``, nominally within [-1, 1]."""
    count = frame.layout.nb_channels
    if not 1 <= count <= MAX_CHANNELS or (frame.format.is_planar and count > MAX_PLANES):
        raise _undecodable(f"{count} channels")
    if not MIN_SAMPLE_RATE_HZ <= frame.sample_rate <= MAX_SAMPLE_RATE_HZ:
        raise _undecodable(f"a sample rate of {frame.sample_rate} Hz")
    raw = frame.to_ndarray()
    samples = raw if frame.format.is_planar else raw.reshape(-1, count).T
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return samples.astype(np.float32)
    full_scale = float(2 ** (8 * samples.dtype.itemsize - 1))
    centre = full_scale if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - centre) / full_scale).astype(np.float32)


def _clean(samples: Waveform, warnings: list[str]) -> Waveform:
    """Zero what is not a number and scale what never was scaled, saying so."""
    finite = np.isfinite(samples)
    if not finite.all():
        samples = np.where(finite, samples, np.float32(0.0))
        warnings.append("audio.not_finite")
    peak = float(np.abs(samples).max())
    if peak > UNSCALED_PEAK:
        samples = (samples / np.float32(peak)).astype(np.float32)
        warnings.append("audio.rescaled")
    return samples


def _empty_or_undecodable(decoding: _Decoding) -> AudioError:
    if decoding.damaged_packets:
        return _undecodable("every packet is damaged")
    return AudioError(
        FailureCode.AUDIO_EMPTY, "The file has a header and no samples. Publish audio, or nothing at all."
    )


def _undecodable(what: str) -> AudioError:
    return AudioError(
        FailureCode.AUDIO_UNDECODABLE,
        f"The chunk cannot be decoded ({what}): it is damaged, cut off, or not audio. Check what the publisher "
        "wrote; the same bytes will fail again.",
    )


def _too_long(max_s: float) -> AudioError:
    return AudioError(
        FailureCode.AUDIO_TOO_LONG,
        f"The audio runs past {max_s:g} s. Publish it in shorter chunks, or raise OMI_MAX_AUDIO_S of the agent.",
    )


with contextlib.suppress(AttributeError):  # FFmpeg writes to stderr past our logs; the errors are raised anyway
    av.logging.set_level(av.logging.PANIC)
