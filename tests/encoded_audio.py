"""Audio files of every container, written as programs do that stream them and as those that do not."""

import io
from typing import Any

import av
import numpy as np

# Lengths that add up to places where no system lets a program go in a file.
BEYOND_EVERY_FILE = {
    "webm": b"\x1aE\xdf\xa3\x01" + b"\xff" * 6 + b"\xfe" + bytes(40),
    "webm, its segment": b"\x1aE\xdf\xa3\x80\x18\x53\x80\x67\x01" + b"\xff" * 6 + b"\xfe" + bytes(40),
    "webm, within it": b"\x1aE\xdf\xa3\x80\x18\x53\x80\x67\x01"
    + b"\xff" * 7
    + b"\xec\x01"
    + b"\xff" * 6
    + b"\xfe"
    + bytes(40),
    "mp4": b"\0\0\0\1ftyp" + b"\xff" * 8 + b"isom" + bytes(40),
    "mp4, behind its head": b"\0\0\0\x10ftypisom" + bytes(4) + b"\0\0\0\1free" + b"\xff" * 8 + bytes(40),
    "caf": b"caff\0\1\0\0free\x7f" + b"\xff" * 7 + bytes(40),
}


class Pipe(io.RawIOBase):
    """A file that cannot be sought in: what is written to it never learns its own length."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.written += bytes(data)
        return len(data)


def encoded(
    container: str,
    codec: str,
    seconds: float = 5.0,
    *,
    piped: bool = True,
    rate: int = 48_000,
    samples: Any = None,
    **options: str,
) -> bytes:
    """Noise, or the int16 samples given, as a file; written as into a pipe unless `piped` says otherwise."""
    target = Pipe() if piped else io.BytesIO()
    with av.open(target, "w", format=container, options=options) as output:
        stream: Any = output.add_stream(codec, rate=rate)
        stream.layout = "mono"
        if samples is None:
            samples = (np.random.default_rng(1).normal(size=round(rate * seconds)) * 3_000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate
        context = stream.codec_context
        resampler = av.AudioResampler(context.format, "mono", rate, frame_size=context.frame_size or 0)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            output.mux(stream.encode(piece))
    return bytes(target.written) if isinstance(target, Pipe) else target.getvalue()
