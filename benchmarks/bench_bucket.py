"""What keeping audio in a bucket costs beside the directory: time to put and to read, memory, and what a client takes.

    .venv/bin/python -m benchmarks.bench_bucket

The bucket is moto's server on this machine, by loopback: the numbers are those of our side and of its Python, not of a
network or of somebody's store. Each size is done several times; the median is printed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.bucket_server import RunningBucket, run_bucket
from vps_bridge.bucket.audio import BucketAudio
from vps_bridge.bucket.encryption import ChunkNames, encrypt
from vps_bridge.bucket.keys import make_key_file
from vps_bridge.bucket.objects import BucketObjects
from vps_bridge.intake.spool import Spool

SIZES_BYTES = (32_000, 960_000, 10 * 2**20, 128 * 2**20)  # a second of Opus, 30 s and 5 min of 16 kHz, an hour
CLIENTS = {
    "nothing": "",
    "boto3": "import boto3; boto3.client('s3', 'us-east-1', aws_access_key_id='a', aws_secret_access_key='b')",
}


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        print(f"{'bytes':>12} {'directory: write':>17} {'encrypt':>9} {'bucket: put':>12} {'fetch':>9} {'memory':>9}")
        with run_bucket(directory) as bucket:
            for size in SIZES_BYTES:
                print(f"{size:>12,} {measure(bucket, directory, size)}")
    for client, code in CLIENTS.items():
        print(f"a process with {client}: {memory_of(code):.0f} MiB")


def measure(bucket: RunningBucket, directory: Path, size: int) -> str:
    """Return a row's cells."""
    times = 1 if size > 2**26 else 5
    file, came = directory / "audio", directory / "came"
    with file.open("wb") as target:
        for _ in range(0, size, 2**20):
            target.write(os.urandom(min(size, 2**20)))
        target.truncate(size)
    scratch = directory / "scratch"
    scratch.mkdir(exist_ok=True)
    keys = make_key_file(directory / f"keys-{secrets.token_hex(4)}")
    audio = BucketAudio(BucketObjects(bucket.address(timeout_s=120)), keys, secrets.token_hex(16), scratch)
    audio.check()
    names = ChunkNames("ledger", "call", "chunk", audio.new_name("call"))
    with file.open("rb") as source:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
    spool = Spool(directory / "spool")

    def write() -> None:
        copy = directory / "incoming"
        copy.write_bytes(file.read_bytes())
        spool.remove(spool.adopt(copy))

    def seal() -> None:
        with file.open("rb") as source, came.open("wb") as target:
            encrypt(source, target, keys.newest, names)

    cells = [median_ms(work, times) for work in (write, seal)]
    before = psutil.Process().memory_info().rss
    cells += [median_ms(lambda: audio.put(file, names), times)]
    grown = (psutil.Process().memory_info().rss - before) / 2**20
    cells += [median_ms(lambda: audio.fetch(came, names, sha256), times)]
    audio.erase([names.name])
    widths = (17, 9, 12, 9)
    return (
        " ".join(f"{cell:>{width - 3}.1f} ms" for cell, width in zip(cells, widths, strict=True))
        + f" {grown:>+5.0f} MiB"
    )


def median_ms(work: Callable[[], object], times: int) -> float:
    """Return how long a piece of work takes."""
    took = []
    for _ in range(times):
        began_s = time.perf_counter()
        work()
        took.append(time.perf_counter() - began_s)
    return 1_000 * statistics.median(took)


def memory_of(code: str) -> float:
    """Return the memory of a Python that has run this."""
    tail = "\nimport psutil; print(psutil.Process().memory_info().rss)"
    done = subprocess.run([sys.executable, "-c", code + tail], check=True, capture_output=True, text=True)
    return int(done.stdout) / 2**20


if __name__ == "__main__":
    main()
