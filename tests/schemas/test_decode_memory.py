"""No 2 MB of bytes may cost the decoder more than 64 MiB, whatever they hold.

Measured as peak resident memory of a fresh process: tracemalloc does not see what the parsers allocate.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest

from tests.inbox import WAIT_S

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).parents[2]
INPUT_BYTES = 2_000_000
MAX_GROWTH_MIB = 64

# VmHWM, as Linux passes ru_maxrss of the parent on through exec, so that a big pytest would hide everything.
MEASURE = """
import resource, sys
from pathlib import Path
import psutil
from schemas.codec import decode
from schemas.errors import SchemaError
from schemas.messages import MESSAGE_BY_SCHEMA

def peak_bytes():
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

kind = MESSAGE_BY_SCHEMA[sys.argv[2]]
data = Path(sys.argv[1]).read_bytes()
before = psutil.Process().memory_info().rss
try:
    message = decode(kind, data)
    outcome = "decoded"
except SchemaError as error:
    outcome = type(error).__name__
print((peak_bytes() - before) / 2**20, outcome)
"""

RESULT: dict[str, object] = {
    "schema": "speaker-turns",
    "version": "1.0",
    "conversation_id": "c" * 36,
    "job_id": "j" * 36,
    "lease_id": "l" * 32,
    "agent_id": "mac",
    "engine": {"name": "pyannote"},
    "turns": [],
    "exclusive_turns": [],
}
EVENT: dict[str, object] = {"schema": "conversation-event", "version": "1.0", "event_id": "e", "type": "segments"}
UPDATE: dict[str, object] = {
    "schema": "conversation-updated",
    "version": "1.0",
    "conversation_id": "c",
    "updated_version": 1,
    "state": "live",
}


def packed(field: str, body: bytes, message: dict[str, object]) -> bytes:
    """Return the msgpack of `message` with one more field whose bytes are given."""
    fields = {name: value for name, value in message.items() if name != field}
    pairs = b"".join(msgpack.packb(name) + msgpack.packb(value) for name, value in fields.items())
    return b"\xde" + struct.pack(">H", len(fields) + 1) + pairs + msgpack.packb(field) + body


def packed_array(item: bytes, *, count: int) -> bytes:
    count = min(count, (INPUT_BYTES - 1_000) // len(item))
    return b"\xdd" + struct.pack(">I", count) + item * count


def packed_map(value: bytes, *, count: int) -> bytes:
    pairs = [msgpack.packb(f"é{number:x}") + value for number in range(count)]
    return b"\xdf" + struct.pack(">I", count) + b"".join(pairs)


def written(field: str, body: str, message: dict[str, object]) -> bytes:
    return (json.dumps(message)[:-1] + f', "{field}": {body}' + "}").encode()


def written_array(item: str, *, count: int) -> str:
    count = min(count, (INPUT_BYTES - 1_000) // (len(item.encode()) + 1))
    return "[" + ",".join([item] * count) + "]"


def written_map(value: str, *, count: int) -> str:
    pairs: list[str] = []
    size = 1_000
    for number in range(count):
        pairs.append(f'"é{number:x}":{value}')
        size += len(pairs[-1].encode()) + 1
        if size > INPUT_BYTES - 100:
            pairs.pop()
            break
    return "{" + ",".join(pairs) + "}"


def turns(count: int) -> list[dict[str, object]]:
    return [{"start_s": 0.7211 * i, "end_s": 0.7211 * i + 0.6, "speaker": f"S{i % 100:02d}"} for i in range(count)]


def wrong_turn() -> bytes:
    return msgpack.packb({"start_s": "x", "end_s": "x", "speaker": ""})


OBJECTS, MAPS = 349_900, 59_990  # just below the decoder's own limits
SHORT = msgpack.packb("éé")  # becomes a new string at each occurrence: the most memory per byte
WIDE = msgpack.packb("a" * 90_000 + "\U0001f600")  # one wide character makes four bytes of each
CASES: dict[str, tuple[str, bytes]] = {
    "turns of a long conversation": (
        "speaker-turns",
        msgpack.packb(RESULT | {"turns": turns(20_000), "exclusive_turns": turns(20_000)}),
    ),
    "strings": ("speaker-turns", packed("x", packed_array(SHORT, count=OBJECTS), RESULT)),
    "strings as turns": ("speaker-turns", packed("turns", packed_array(SHORT, count=OBJECTS), RESULT)),
    "strings as warnings": ("speaker-turns", packed("warnings", packed_array(SHORT, count=OBJECTS), RESULT)),
    "wide strings": ("speaker-turns", packed("x", packed_array(WIDE, count=OBJECTS), RESULT)),
    "floats": ("speaker-turns", packed("x", packed_array(msgpack.packb(1.5), count=OBJECTS), RESULT)),
    "big integers": ("speaker-turns", packed("x", packed_array(msgpack.packb(70_000), count=OBJECTS), RESULT)),
    "empty arrays": ("speaker-turns", packed("x", packed_array(b"\x90", count=OBJECTS), RESULT)),
    "arrays of one array": ("speaker-turns", packed("x", packed_array(b"\x91\x90", count=OBJECTS // 2), RESULT)),
    "nested arrays": ("speaker-turns", packed("x", packed_array(b"\x91" * 8 + b"\x90", count=38_800), RESULT)),
    "empty maps": ("speaker-turns", packed("x", packed_array(b"\x80", count=MAPS), RESULT)),
    "empty maps past the limit": ("speaker-turns", packed("x", packed_array(b"\x80", count=1_900_000), RESULT)),
    "maps of one": ("speaker-turns", packed("x", packed_array(b"\x81" + SHORT * 2, count=MAPS), RESULT)),
    "maps of two": (
        "speaker-turns",
        packed("x", packed_array(b"\x82" + (SHORT + b"\xa3\xc3\xa9a") * 2, count=MAPS), RESULT),
    ),
    "maps of two numbers": (
        "speaker-turns",
        packed("x", packed_array(b"\x82\xa1a\xce\x10\x00\x00\x00\xa1b\xce\x10\x00\x00\x00", count=MAPS), RESULT),
    ),
    "maps as turns": ("speaker-turns", packed("turns", packed_array(b"\x80", count=MAPS), RESULT)),
    "maps as speakers": ("speaker-turns", packed("speakers", packed_array(b"\x80", count=MAPS), RESULT)),
    "wrong turns": ("speaker-turns", packed("turns", packed_array(wrong_turn(), count=49_900), RESULT)),
    "one wide map": ("speaker-turns", packed("x", packed_map(b"\xce\x10\x00\x00\x00", count=130_000), RESULT)),
    "a wide map of wrong timings": (
        "speaker-turns",
        packed("timings_ms", packed_map(b"\xa1x", count=170_000), RESULT),
    ),
    "a wide map as turns": ("speaker-turns", packed("turns", packed_map(b"\xa1x", count=170_000), RESULT)),
    "one huge string": (
        "speaker-turns",
        packed("x", b"\xdb" + struct.pack(">I", 1_990_000) + b"a" * 1_990_000, RESULT),
    ),
    "one huge binary": (
        "speaker-turns",
        packed("x", b"\xc6" + struct.pack(">I", 1_990_000) + b"a" * 1_990_000, RESULT),
    ),
    "a huge array that is not there": ("speaker-turns", packed("x", b"\xdd\xff\xff\xff\xff", RESULT)),
    "JSON: segments": (
        "conversation-event",
        written("segments", written_array('{"id":"éé","start_s":1.25,"end_s":2.5}', count=MAPS), EVENT),
    ),
    "JSON: segments within the count": (
        "conversation-event",
        written(
            "segments", written_array('{"id":"éé","text":"éééééé","start_s":1.25,"end_s":2.5}', count=20_000), EVENT
        ),
    ),
    "JSON: words": (
        "conversation-event",
        written(
            "segments",
            written_array(
                '{"id":"éé","start_s":1.25,"end_s":2.5,"words":'
                + written_array('{"text":"éé","start_s":1.25,"end_s":2.5}', count=4_990)
                + "}",
                count=9,
            ),
            EVENT,
        ),
    ),
    "JSON: short words": (
        "conversation-event",
        written(
            "segments",
            written_array(
                '{"id":"é","start_s":1,"end_s":2,"words":'
                + written_array('{"text":"","start_s":1,"end_s":2}', count=4_990)
                + "}",
                count=11,
            ),
            EVENT,
        ),
    ),
    "JSON: every list of an update": (
        "conversation-updated",
        written(
            "segments",
            written_array('{"id":"éé","speaker":"éé"}', count=20_000),
            json.loads(written("changed", written_array('{"id":"éé"}', count=20_000), UPDATE))
            | {"left_alone": [{"id": "é", "reason": ""}] * (MAPS - 40_010)},
        ),
    ),
    "JSON: removed": ("conversation-event", written("removed", written_array('"éé"', count=OBJECTS), EVENT)),
    "JSON: strings": ("conversation-event", written("x", written_array('"éé"', count=OBJECTS), EVENT)),
    "JSON: escapes": ("conversation-event", written("x", written_array(r'"\n\n"', count=OBJECTS), EVENT)),
    "JSON: floats": ("conversation-event", written("x", written_array("1.5", count=OBJECTS), EVENT)),
    "JSON: integers": ("conversation-event", written("x", written_array("70000", count=OBJECTS), EVENT)),
    "JSON: long integers": ("conversation-event", written("x", written_array("9" * 4_000, count=OBJECTS), EVENT)),
    "JSON: long integers as times": (
        "conversation-event",
        written("segments", written_array('{"start_s":' + "9" * 4_000 + "}", count=OBJECTS), EVENT),
    ),
    "JSON: empty arrays": ("conversation-event", written("x", written_array("[]", count=MAPS), EVENT)),
    "JSON: empty arrays past the limit": (
        "conversation-event",
        written("x", written_array("[]", count=600_000), EVENT),
    ),
    "JSON: empty maps": ("conversation-event", written("x", written_array("{}", count=MAPS), EVENT)),
    "JSON: maps of two": (
        "conversation-event",
        written("x", written_array('{"éa":70000,"éb":70000}', count=MAPS), EVENT),
    ),
    "JSON: maps as segments": ("conversation-event", written("segments", written_array("{}", count=MAPS), EVENT)),
    "JSON: one wide map": ("conversation-event", written("x", written_map("70000", count=OBJECTS), EVENT)),
    "JSON: one wide map of strings": ("conversation-event", written("x", written_map('"éé"', count=OBJECTS), EVENT)),
    "JSON: wide map of wrong counts": (
        "conversation-updated",
        written("left_alone_counts", written_map('"x"', count=OBJECTS), UPDATE),
    ),
    "JSON: deep": ("conversation-event", written("x", "[" * 50_000 + "]" * 50_000, EVENT)),
    "JSON: one huge string": ("conversation-event", written("x", '"' + "é" * 990_000 + '"', EVENT)),
    "JSON: one wide string": (
        "conversation-event",
        written("x", '"' + "a" * 1_900_000 + "\U0001f600" + '"', EVENT),
    ),
}


def growth(kind: str, data: bytes, folder: Path) -> tuple[float, str]:
    """Return (MiB that decoding added to a fresh process, the outcome)."""
    file = folder / "payload"
    file.write_bytes(data)
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, str(file), kind],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT_S,
    )
    grown, outcome = process.stdout.split()
    return float(grown), outcome


@pytest.mark.parametrize("case", CASES)
def test_no_input_costs_more_than_its_bound(case: str, tmp_path: Path) -> None:
    kind, data = CASES[case]
    grown, outcome = growth(kind, data, tmp_path)
    print(f"{case}: {len(data)} bytes, {grown:.1f} MiB, {outcome}")  # noqa: T201 - shown with -s and on failure
    assert grown < MAX_GROWTH_MIB


def test_the_measurement_sees_what_a_parser_allocates(tmp_path: Path) -> None:
    small = growth("speaker-turns", msgpack.packb(RESULT), tmp_path)
    large = growth("speaker-turns", msgpack.packb(RESULT | {"turns": turns(18_000)}), tmp_path)
    assert small[1] == large[1] == "decoded"
    assert small[0] < 5 < large[0]
