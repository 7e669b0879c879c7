"""Rows that are packed come back as they were, whatever is in them; damaged ones are told."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vps_bridge.packed_rows import PackedRowsDamaged, pack_rows, unpack_rows

TEXTS = st.text(max_size=12) | st.sampled_from(["0" * 32, "abcdef12", "SPEAKER_00", "a b", "a\nb", "a\0b", "", "é"])
FLOATS = st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, 12.345, 1e300, 0.1 + 0.2])
PLAIN = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | FLOATS | TEXTS | st.binary(max_size=9)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=12
)


@settings(max_examples=60)
@given(st.lists(st.tuples(JSON, PLAIN, FLOATS, TEXTS), max_size=8))
def test_rows_come_back_as_they_were(drawn):
    rows = [dict(zip("abcd", row, strict=True)) for row in drawn]
    found = unpack_rows(pack_rows({"some": rows, "none": []}))
    assert found == {"some": rows, "none": []}
    assert repr(found["some"]) == repr(rows), "1 is not 1.0, and 0.0 is not -0.0"


def test_what_is_damaged_is_an_error_that_names_the_remedy():
    packed = pack_rows({"rows": [{"a": "text", "b": 1.5}] * 50})
    for wrong in (b"", packed[:-9], packed[:20] + b"\0" + packed[21:], b"no xz"):
        with pytest.raises(PackedRowsDamaged, match="omi-bridge restore"):
            unpack_rows(wrong)


def test_words_of_a_transcript_take_a_few_bytes_each():
    words = [{"text": f"w{place % 300}", "start_s": place / 4, "end_s": place / 4 + 0.2} for place in range(3_000)]
    assert len(pack_rows({"segments": [{"words": words[at : at + 12]} for at in range(0, 3_000, 12)]})) < 3 * 3_000
