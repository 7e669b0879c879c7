"""One pass of FFmpeg over one recording: its packets to mono samples at 16 kHz."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.codec.context import Flags2

from mac_agent.engines.engine import SAMPLE_RATE_HZ
from mac_agent.errors import AudioError
from mac_agent.sample_buffer import Hole, SampleBuffer
from schemas.failure import FailureCode

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from numpy.typing import NDArray

    from mac_agent.engines.engine import Waveform
    from mac_agent.recordings import RecordingSource

MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 1_000, 768_000  # as in the contract; a 1 Hz header would be a bomb
MAX_CHANNELS = 16
# PyAV counts planes up to a null pointer, and from 8 on reads past FFmpeg's array of them (AV_NUM_DATA_POINTERS).
MAX_PLANES = 7
MAX_DAMAGED_PACKETS = 1_000  # past this a file is noise with a header
MAX_RATE_CHANGES = 1_000  # each takes a new resampler, 0.1 ms; a stream changes between its songs
HOLE_S = 0.1  # a jump of timestamps inside a file larger than this is a hole, not rounding
BATCH_SAMPLES = 1 << 16  # mixed and resampled at once: 25 µs a frame of 20 ms instead of 200
# Of n channels with one in use, the mean keeps 1/n of their mean energy. A fifth of that: they were in anti-phase.
CANCELLED_RATIO = 0.2
# A header's length is exact in FLAC, and by a packet or a delay elsewhere. Of a film it is that of the pictures.
PROMISE_MARGINS_S = {"flac": 0.02}
PROMISE_MARGIN_S, FILM_PROMISE_FACTOR = 0.25, 1.1
OPUS_GRANULE_HZ = 48_000  # whatever rate was encoded (RFC 7845, section 4)
# What LAME and a decoder put in front: 576 and 529. A WAV has no place to say so, and always begins with it; MP3
# without one may be cut out of a stream, where as much is sound.
WAV_MP3_LATE_SAMPLES = 1_105
FLAC_FRAME_EXTRA_BYTES = 1_024  # of a frame beyond its samples as they are
_FRAGMENT_BOXES = (b"moof", b"styp", b"sidx")  # what a fragment of a stream begins with (ISO/IEC 14496-12)
# FFmpeg's own decoders of these break off at the frames of a pause (DTX), which others fill with quiet noise.
_PAUSE_DECODERS = {"amrnb": "libopencore_amrnb", "amrwb": "libopencore_amrwb"}
# Codecs of telephones and dictation machines, of at most 4 bits a sample: what they add is heard in the pauses.
_COARSE_CODECS = ("adpcm_", "g726", "g723", "gsm", "truespeech")


def undecodable(what: str) -> AudioError:
    """Return the error for bytes that nothing can be made of."""
    return AudioError(
        FailureCode.AUDIO_UNDECODABLE,
        f"The chunk cannot be decoded ({what}): it is damaged, cut off, or not audio. Check what the publisher "
        "wrote; the same bytes will fail again.",
    )


class TooLong(Exception):
    """There is no room left for what a recording holds."""


@dataclass
class PassReport:
    """What one pass found beside samples."""

    tracks: int = 1
    damaged_packets: int = 0
    damaged_bytes: int = 0
    """Of these packets, and of MP3 and AAC also what FFmpeg did not come to."""
    is_broken_off: bool = False
    """FFmpeg could not go on to the end."""
    missing_s: float = 0.0
    """Seconds that the header promised and that did not come."""
    ignored_bytes: int = 0
    """That FFmpeg skipped without a word."""
    holes: list[Hole] = field(default_factory=list)
    coarse_bits: dict[str, float] = field(default_factory=dict)
    """How many bits a sample has, by FFmpeg's name of the codec, where that adds much noise."""
    step: float = 0.0
    """The least difference of two integer samples, as a share of full scale; 0 where they were no integers."""
    rates_hz: set[int] = field(default_factory=set)
    """At which it was sampled."""
    channel_energy: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    mix_energy: float = 0.0

    @property
    def is_cancelled(self) -> bool:
        """Whether mixing the channels lost most of what is in them."""
        if self.channel_energy.size < 2:  # noqa: PLR2004
            return False
        limit = CANCELLED_RATIO / self.channel_energy.size
        # Not a number compares false: a file with such samples is mixed as any other.
        return self.mix_energy < limit * float(self.channel_energy.mean())


class RecordingDecoder:
    """One pass over one track of one recording. Not reused.

    Args:
        recording: what to decode.
        samples: where the samples go, behind what is there.
        max_samples: how many the buffer may hold at last.
        track: which of the audio tracks.
        channel: one channel instead of the mean of all.
    """

    def __init__(
        self,
        recording: RecordingSource,
        samples: SampleBuffer,
        max_samples: int,
        *,
        track: int,
        channel: int | None = None,
    ) -> None:
        self._recording, self._samples, self._max_samples = recording, samples, max_samples
        self._track, self._channel = track, channel
        self._first = len(samples)
        self._clock_s = 0.0
        """Seconds decoded and holes, since the first frame."""
        self._reached_s = 0.0
        self._packet_bytes, self._first_packet, self._read_bytes = 0, -1, 0
        self._batch = _Batch()
        self._used_bits = 0
        self._late_samples = 0
        """At 16 kHz, of what comes next, that no microphone heard."""
        self._resampler: AudioResampler | None = None
        self.report = PassReport()

    def run(self) -> PassReport:
        """Decode all of the track.

        Raises:
            AudioError: nothing of it can be decoded.
            TooLong: it has more samples than there is room for.
        """
        self._recording.stream.seek(0)
        try:
            # Tags are of no use here, and those of older programs are not UTF-8.
            with av.open(
                self._recording.stream,
                mode="r",
                format=self._recording.container,
                options=self._recording.options,
                metadata_errors="replace",
            ) as container:
                self.report.tracks = len(container.streams.audio)
                stream = self._usable_stream(container)
                promised_s, margin_s = self._promise(container, stream)
                self._resample_all(container, stream)
                self._note_coarseness(stream)
        except (av.FFmpegError, ValueError, IndexError, EOFError) as error:
            self._flush_resampler()
            if len(self._samples) == self._first:
                raise undecodable(self._name_failure(error)) from error
            self.report.is_broken_off = True
            if self._recording.container in ("mp3", "aac"):
                self.report.damaged_bytes += max(0, self._recording.size_bytes - self._read_bytes)
            return self.report
        missing_s = promised_s - max(self._clock_s, self._reached_s)
        if missing_s > margin_s:
            self.report.missing_s = missing_s
        if self._recording.container == "aac" and self._first_packet >= 0:
            self.report.ignored_bytes += self._recording.size_bytes - self._first_packet - self._packet_bytes
        return self.report

    def _usable_stream(self, container: InputContainer) -> AudioStream:
        if not container.streams.audio:
            raise undecodable("no audio stream")
        stream = container.streams.audio[self._track]
        if stream.codec_context is None:
            raise undecodable("an unknown codec")
        _check_rate(stream.rate or 0)
        if not 1 <= stream.channels <= MAX_CHANNELS:
            raise undecodable(f"{stream.channels} channels")
        if stream.codec_context.name == "alac" and self._recording.container == "caf":
            # Its last frame knows how short it is; FFmpeg would take what the file says is filled up off it again.
            stream.codec_context.flags2 |= Flags2.skip_manual
        return stream

    def _promise(self, container: InputContainer, stream: AudioStream) -> tuple[float, float]:
        """Return the seconds the header promises, 0 where it promises nothing, and how far off it may be."""
        name = self._recording.container
        if self._recording.granules:
            is_opus = stream.codec_context.name in ("opus", "libopus")
            return self._recording.granules / (OPUS_GRANULE_HZ if is_opus else stream.rate or 1), PROMISE_MARGIN_S
        if not self._recording.states_length:
            return 0.0, 0.0
        promised_s, margin_s = 0.0, PROMISE_MARGINS_S.get(name, PROMISE_MARGIN_S)
        if stream.duration is not None and stream.time_base is not None:
            promised_s = float(stream.duration * stream.time_base)
        elif container.duration:
            promised_s = container.duration / av.time_base
            if container.streams.video:
                margin_s = promised_s * (1 - 1 / FILM_PROMISE_FACTOR)
        return promised_s, margin_s

    def _note_coarseness(self, stream: AudioStream) -> None:
        name = stream.codec_context.name
        if name.startswith(_COARSE_CODECS):
            samples = self._clock_s * (stream.rate or 0) * stream.channels
            self.report.coarse_bits[name] = 8 * self._packet_bytes / max(1.0, samples)
        elif self._used_bits:
            self.report.step = (self._used_bits & -self._used_bits) / 2**31

    def _resample_all(self, container: InputContainer, stream: AudioStream) -> None:
        """Decode, mix and resample; note the holes between timestamps."""
        rate, changes, in_samples, base, tick_s = 0, -1, 0, 0, 0.0
        origin_s: float | None = None
        for frame, count in self._frames(container, stream):
            if rate != frame.sample_rate:
                self._flush_resampler()  # a chained stream: what follows is another recording
                changes += 1
                if changes > MAX_RATE_CHANGES:
                    raise undecodable("its sample rate changes throughout")
                rate, origin_s, in_samples, base = frame.sample_rate, None, 0, len(self._samples)
                self._resampler = AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ)
                self.report.rates_hz.add(rate)
                if changes == 0 and self._recording.container == "wav" and stream.codec_context.name.startswith("mp3"):
                    self._late_samples = round(WAV_MP3_LATE_SAMPLES * SAMPLE_RATE_HZ / rate)
                tick_s = float(frame.time_base or 0)  # once: a fraction takes longer than its frame
            if self._batch.key != _key(frame) or self._batch.samples >= BATCH_SAMPLES:
                self._flush()
                self._batch = _Batch(_key(frame))
            if frame.pts is not None and tick_s:
                time_s = frame.pts * tick_s
                origin_s = time_s - self._clock_s if origin_s is None else origin_s
                hole_s = time_s - origin_s - self._clock_s
                if hole_s > HOLE_S:
                    self._clock_s += hole_s
                    position = base + round(in_samples * SAMPLE_RATE_HZ / rate)
                    self.report.holes.append(Hole(position, round(hole_s * SAMPLE_RATE_HZ)))
                self._reached_s = max(self._reached_s, time_s + count / rate)
            self._clock_s += count / rate
            in_samples += count
            if base + in_samples * SAMPLE_RATE_HZ / rate > self._max_samples + SAMPLE_RATE_HZ:
                raise TooLong  # before it is resampled
            self._batch.add(frame, count)
        self._flush_resampler()

    def _name_failure(self, error: Exception) -> str:
        """Return what is wrong: the pieces of a stream that a browser or a phone records have one beginning."""
        self._recording.stream.seek(4)
        if self._recording.container == "mov" and self._recording.stream.read(4) in _FRAGMENT_BOXES:
            return "a fragment of an MP4 without its beginning, ftyp and moov, which must be put in front of each"
        return type(error).__name__

    def _frames(self, container: InputContainer, stream: AudioStream) -> Iterator[tuple[AudioFrame, int]]:
        """Yield each frame and how many of its samples were encoded: a codec fills the last one of a file up."""
        waiting: AudioFrame | None = None
        for frame in self._decoded(container, stream):
            if waiting is not None:
                yield waiting, waiting.samples
            waiting = frame
        if waiting is not None:
            is_exact = self._recording.container == "mov"
            yield waiting, _encoded_samples(waiting) if is_exact else waiting.samples

    def _decoded(self, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
        is_flac, decode = self._recording.container == "flac", _choose_decoder(stream)
        for packet in container.demux(stream):
            self._packet_bytes += packet.size
            if self._first_packet < 0:
                self._first_packet = packet.pos or 0
            self._read_bytes = max(self._read_bytes, (packet.pos or 0) + packet.size)
            try:
                frames = decode(packet)
            except (av.InvalidDataError, av.PatchWelcomeError) as error:
                self.report.damaged_packets += 1
                self.report.damaged_bytes += packet.size
                if self.report.damaged_packets > MAX_DAMAGED_PACKETS:
                    raise undecodable("damaged throughout") from error
                continue
            if is_flac and frames:  # its parser takes what follows the last frame for a part of it
                frame = frames[-1]
                most_bytes = frame.samples * frame.layout.nb_channels * frame.format.bytes + FLAC_FRAME_EXTRA_BYTES
                self.report.ignored_bytes += max(0, packet.size - most_bytes)
            yield from frames

    def _flush(self) -> None:
        """Mix and resample the frames of a batch, which have all one format.

        Mixing happens before resampling and not in FFmpeg, which crashes on layouts of 8 unnamed channels or more.
        """
        batch, self._batch = self._batch, _Batch()
        if not batch.samples or self._resampler is None:
            return
        self._used_bits |= batch.used_bits() << self._recording.shift_bits
        samples = batch.join(self._recording.shift_bits)
        if self._channel is not None:
            mono = samples[min(self._channel, len(samples) - 1)]
        else:
            mono = samples[0] if len(samples) == 1 else samples.mean(axis=0, dtype=np.float32)
            if len(samples) > 1:
                self._count_energy(samples, mono)
        mixed = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono)[None], format="fltp", layout="mono")
        mixed.sample_rate = batch.key[0]
        self._keep(self._resampler.resample(mixed))

    def _flush_resampler(self) -> None:
        self._flush()
        resampler, self._resampler = self._resampler, None
        if resampler is not None:
            self._keep(resampler.resample(None))

    def _keep(self, frames: list[AudioFrame]) -> None:
        for frame in frames:
            block = frame.to_ndarray()[0]
            self._samples.append(block[self._late_samples :])
            self._late_samples = max(0, self._late_samples - block.size)
        if len(self._samples) > self._max_samples:
            raise TooLong

    def _count_energy(self, samples: NDArray[np.float32], mono: Waveform) -> None:
        report = self.report
        energy = np.einsum("cs,cs->c", samples, samples, dtype=np.float64)
        if report.channel_energy.size != energy.size:
            report.channel_energy = np.zeros(energy.size)
        report.channel_energy += energy
        report.mix_energy += float(np.einsum("s,s->", mono, mono, dtype=np.float64))


def _choose_decoder(stream: AudioStream) -> Callable[[Packet[AudioStream]], list[AudioFrame]]:
    """Return what decodes a packet of this track."""
    name = _PAUSE_DECODERS.get(stream.codec_context.name)
    if name is None or name not in av.codecs_available:
        return stream.codec_context.decode
    decoder = cast("AudioCodecContext", av.CodecContext.create(name, "r"))
    decoder.sample_rate, decoder.layout = stream.rate, stream.layout.name
    return decoder.decode


_Key = tuple[int, str, int]


def _key(frame: AudioFrame) -> _Key:
    return frame.sample_rate, frame.format.name, frame.layout.nb_channels


class _Batch:
    """Frames of one sample rate, format and number of channels."""

    def __init__(self, key: _Key = (0, "", 0)) -> None:
        self.key, self.samples = key, 0
        self.arrays: list[NDArray[np.generic]] = []
        self._is_planar = True
        self._interleave: AudioResampler | None = None

    def add(self, frame: AudioFrame, count: int) -> None:
        """Take the first `count` samples of a frame."""
        if not self.arrays:
            rate_hz, _, channels = self.key
            self._is_planar = frame.format.is_planar
            if not 1 <= channels <= MAX_CHANNELS:
                raise undecodable(f"{channels} channels")
            _check_rate(rate_hz)
            if self._is_planar and channels > MAX_PLANES:
                self._interleave = AudioResampler(format=frame.format.packed, layout=frame.layout, rate=rate_hz)
                self._is_planar = False
        raw = (frame if self._interleave is None else self._interleave.resample(frame)[0]).to_ndarray()
        self.arrays.append(raw[:, : count if self._is_planar else count * self.key[2]])
        self.samples += count

    def used_bits(self) -> int:
        """Return every bit that is set in one of the samples, as if they had 32; 0 for floating point."""
        if self.arrays[0].dtype.kind == "f":
            return 0
        used = 0
        for array in self.arrays:
            used |= int(np.bitwise_or.reduce(array, axis=None))
        return used << (32 - 8 * self.arrays[0].dtype.itemsize)

    def join(self, shift_bits: int) -> NDArray[np.float32]:
        """Return all as float32 of shape ``(channels, samples)``, nominally within [-1, 1]."""
        raw = np.concatenate(self.arrays, axis=1)
        samples = raw if self._is_planar else raw.reshape(-1, self.key[2]).T
        if samples.dtype.kind == "f":
            with np.errstate(over="ignore"):
                return samples.astype(np.float32)
        full_scale = float(2 ** (8 * samples.dtype.itemsize - 1))
        centre = full_scale if samples.dtype.kind == "u" else 0.0
        return (((samples << shift_bits).astype(np.float64) - centre) / full_scale).astype(np.float32)


def _check_rate(rate_hz: int) -> None:
    if not MIN_SAMPLE_RATE_HZ <= rate_hz <= MAX_SAMPLE_RATE_HZ:
        raise undecodable(f"a sample rate of {rate_hz} Hz")


def _encoded_samples(frame: AudioFrame) -> int:
    """Return how many samples a frame lasts by the clock of its container, where these are fewer than it holds."""
    if not frame.duration or frame.time_base is None:
        return frame.samples
    return min(frame.samples, max(1, round(frame.duration * frame.time_base * frame.sample_rate)))
