"""Rows of tables as a few compressed bytes, and back: column by column, since neighbours in a column are alike.

Nothing is lost: `unpack_rows(pack_rows(rows)) == rows`. Lists of records within a column (words of a segment, turns of
a result) are columns of their own. Only values that SQLite, JSON and msgpack know occur.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import msgpack

Rows = dict[str, list[dict[str, Any]]]
"""Rows by table; all rows of a table have the same columns."""

FORMAT = 1
MAX_BYTES = 2**30  # of one conversation, unpacked; what is damaged must not fill the memory
_PRESET = 1  # zlib's result is a third larger, in as long; preset 6 gains 6 % and takes seven times as long
_MILLI = 1_000
_HEX = set("0123456789abcdef")
_SEPARATORS = (" ", "\n", "\0")


class PackedRowsDamaged(Exception):
    """Packed rows that cannot be read; the message names the remedy."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"packed rows cannot be read ({reason}): restore a backup (`omi-bridge restore`), "
            "or install the newest omi-diarization"
        )


def pack_rows(rows: Rows) -> bytes:
    """Return the rows of some tables as compressed bytes."""
    packed = {table: [len(found), _pack_records(found)] for table, found in rows.items()}
    return lzma.compress(bytes(msgpack.packb([FORMAT, packed])), preset=_PRESET)


def unpack_rows(data: bytes) -> Rows:
    """Return the rows that `pack_rows` was given. Raises `PackedRowsDamaged`."""
    try:
        inflate = lzma.LZMADecompressor()
        plain = inflate.decompress(data, MAX_BYTES)
        if not inflate.eof:
            raise PackedRowsDamaged("cut off, or too large")
        form, packed = msgpack.unpackb(plain, strict_map_key=False)
        if form != FORMAT:
            raise PackedRowsDamaged(f"format {form}")
        return {table: _unpack_records(count, columns) for table, (count, columns) in packed.items()}
    except (lzma.LZMAError, EOFError, ValueError, TypeError, KeyError, struct.error, msgpack.UnpackException) as error:
        raise PackedRowsDamaged(type(error).__name__) from error


def _pack_records(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: _pack_column([record[name] for record in records]) for name in (records[0] if records else ())}


def _unpack_records(count: int, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    values = {name: _unpack_column(packed) for name, packed in columns.items()}
    return [{name: column[place] for name, column in values.items()} for place in range(count)]


def _pack_column(values: list[Any]) -> list[Any]:
    """Return a column as [kind, facts...]; the first kind that fits is taken, and the last one always does."""
    there = [value for value in values if value is not None]
    if not there:
        return ["none", len(values)]
    if len(there) < len(values):
        return ["some", bytes(value is not None for value in values), _pack_column(there)]
    kinds = {type(value) for value in values}
    if kinds == {list} and all(type(item) is dict for value in values for item in value):
        return _pack_lists(values)
    if kinds == {dict}:
        return ["records", _pack_lists([[value] for value in values])]
    if kinds == {float}:
        return _pack_floats(values)
    if kinds == {int}:
        return ["ints", *_differences(values)]
    if kinds == {str}:
        return _pack_texts(values)
    return ["values", *values]


def _pack_lists(values: list[list[dict[str, Any]]]) -> list[Any]:
    """Pack lists of records: how long each is, and all their records as one table for each set of fields."""
    items = [item for value in values for item in value]
    shapes = list(dict.fromkeys(tuple(item) for item in items))
    tables = [_pack_table([item for item in items if tuple(item) == shape]) for shape in shapes]
    place_of = {shape: place for place, shape in enumerate(shapes)}
    which = [] if len(shapes) == 1 else [place_of[tuple(item)] for item in items]
    return ["lists", _differences([len(value) for value in values]), which, tables]


def _pack_table(records: list[dict[str, Any]]) -> list[Any]:
    return [len(records), _pack_records(records)]


def _unpack_lists(lengths: list[int], which: list[int], tables: list[Any]) -> list[list[dict[str, Any]]]:
    sources = [iter(_unpack_records(count, columns)) for count, columns in tables]
    order = iter(which)
    return [[next(sources[next(order) if which else 0]) for _ in range(length)] for length in _sums(lengths)]


def _pack_floats(values: list[float]) -> list[Any]:
    """Times with at most three decimals as differences in thousandths; others as they are, first bytes together."""
    if all(abs(value) < 2**40 for value in values):
        thousandths = [round(value * _MILLI) for value in values]
        if all(part / _MILLI == value for part, value in zip(thousandths, values, strict=True)) and not any(
            value == 0.0 and str(value) == "-0.0" for value in values
        ):
            return ["milli", *_differences(thousandths)]
    data = struct.pack(f"<{len(values)}d", *values)
    return ["floats", b"".join(data[place::8] for place in range(8))]


def _unpack_floats(data: bytes) -> list[float]:
    count = len(data) // 8
    whole = bytearray(len(data))
    for place in range(8):
        whole[place::8] = data[place * count : (place + 1) * count]
    return list(struct.unpack(f"<{count}d", whole))


def _pack_texts(values: list[str]) -> list[Any]:
    (size, *others) = {len(value) for value in values}
    if not others and size and size % 2 == 0 and all(_HEX.issuperset(value) for value in values):
        return ["hex", size // 2, bytes.fromhex("".join(values))]
    for separator in _SEPARATORS:
        if not any(separator in value for value in values):
            return ["texts", separator, separator.join(values)]
    return ["values", *values]


def _differences(values: list[int]) -> list[int]:
    return [] if not values else [values[0], *(after - before for before, after in pairwise(values))]


def _sums(differences: Sequence[int]) -> list[int]:
    return list(accumulate(differences))


def _unpack_column(packed: list[Any]) -> list[Any]:
    kind, *facts = packed
    match kind:
        case "none":
            return [None] * facts[0]
        case "some":
            there = iter(_unpack_column(facts[1]))
            return [next(there) if flag else None for flag in facts[0]]
        case "lists":
            return _unpack_lists(*facts)
        case "records":
            return [record for (record,) in _unpack_column(facts[0])]
        case "floats":
            return _unpack_floats(facts[0])
        case "milli":
            return [part / _MILLI for part in _sums(facts)]
        case "ints":
            return _sums(facts)
        case "hex":
            text, size = facts[1].hex(), 2 * facts[0]
            return [text[start : start + size] for start in range(0, len(text), size)]
        case "texts":
            found: list[Any] = facts[1].split(facts[0])
            return found
        case "values":
            return facts
    raise PackedRowsDamaged(f"kind {kind!r}")
