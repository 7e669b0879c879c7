"""The page faults of a process that handles message after message."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from broker import freed_memory

# Each message is copied a few times, as paho and msgpack do, and all copies are freed before the next message.
MESSAGE_AFTER_MESSAGE = """
import resource
from broker.freed_memory import MESSAGES_BYTES, keep_freed_memory
assert {keep} is False or keep_freed_memory(MESSAGES_BYTES)
def pass_on():
    copies = [bytearray(960_000) for _ in range(4)]
for _ in range(20):
    pass_on()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    pass_on()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 100)
"""
PAGES = 4 * 960_000 // 4096


def faults_of_a_message(*, keep: bool) -> float:
    command = [sys.executable, "-c", MESSAGE_AFTER_MESSAGE.format(keep=keep)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc gives the memory of each message back at once"
)
def test_memory_of_a_message_serves_the_next_one() -> None:
    assert faults_of_a_message(keep=False) > PAGES / 2
    assert faults_of_a_message(keep=True) < PAGES / 100


def test_a_c_library_without_the_switch_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.freed_memory.ctypes.CDLL", lambda _name: object())
    assert not freed_memory.keep_freed_memory(freed_memory.MESSAGES_BYTES)
