"""Values are looked up as Arrow does, integers by NumPy."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsoftmax.data.lookup import joined, positions_in

KINDS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@settings(deadline=None)
@given(st.data(), st.sampled_from(KINDS), st.booleans())
def test_integers_are_found_as_arrow_finds_them(data, kind, near):
    limits = np.iinfo(kind)
    low = data.draw(st.integers(int(limits.min), int(limits.max)))
    numbers = (
        st.integers(low, min(low + 300, int(limits.max)))
        if near
        else st.integers(int(limits.min), int(limits.max))
    )
    known = pa.array(data.draw(st.lists(numbers, max_size=20, unique=True)), kind)
    everywhere = st.integers(int(limits.min), int(limits.max))
    values = pa.array(data.draw(st.lists(numbers | everywhere, max_size=40)), kind)
    found = pc.fill_null(pc.index_in(values, value_set=known), -1)
    assert positions_in(known, values).tolist() == found.to_pylist()
    both = pc.unique(pa.concat_arrays([known, values]))
    assert joined(known, values).to_pylist() == both.to_pylist()


@pytest.mark.parametrize("values", [["b", "a", "b", "c"], [True, False, True]])
def test_other_values_are_found_too(values):
    known, asked = pa.array(values[:1]), pa.array(values)
    assert positions_in(known, asked).tolist() == [0 if v == values[0] else -1 for v in values]
    assert joined(known, asked).to_pylist() == list(dict.fromkeys(values))
