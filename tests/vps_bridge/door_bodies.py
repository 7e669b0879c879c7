"""What schemathesis sends as audio: random bytes, half of them after the header of an audio file.

Schemathesis itself loads this file (SCHEMATHESIS_HOOKS), in a process without our modules: import none of them here.
"""

import struct

import schemathesis
from hypothesis import strategies as st

HEADS = (
    b"ID3\x04\x00\x00",
    b"fLaC\x00\x00\x00\x22",
    b"OggS\x00\x02",
    b"\x1aE\xdf\xa3",
    b"\x00\x00\x00\x18ftypmp42",
    b"\xff\xfb\x90",
)


def _wav(rate: int, channels: int, samples: bytes) -> bytes:
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2 % 2**32, channels * 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(samples))
        + b"WAVEfmt \x10\x00\x00\x00"
        + form
        + b"data"
        + struct.pack("<I", len(samples))
        + samples
    )


audio = st.one_of(
    st.binary(),
    st.builds(lambda head, rest: head + rest, st.sampled_from(HEADS), st.binary(max_size=200)),
    st.builds(_wav, st.integers(0, 2**32 - 1), st.integers(0, 8), st.binary(max_size=200)),
)
schemathesis.openapi.format("binary", audio)
schemathesis.openapi.media_type("application/octet-stream", audio)
