"""Which columns are features, and which lists of columns are refused, by what sentence."""

from __future__ import annotations

import pyarrow as pa
import pytest

from fastsoftmax.data.column_choice import ColumnRequest, choose_columns
from fastsoftmax.data.schemas import check_same
from fastsoftmax.data.source import Column
from fastsoftmax.errors import DataError

SCHEMA = pa.schema(
    {
        "age": pa.float32(),
        "pixels": pa.list_(pa.uint8(), 4),
        "member": pa.bool_(),
        "label": pa.string(),
        "w": pa.float64(),
    }
)


def choose(schema=SCHEMA, peek=lambda name: 3, **asked):
    return choose_columns(
        schema, ColumnRequest(**{"target": "label", "weight": "w"} | asked), peek, "a table"
    )


def test_features_are_all_columns_but_target_and_weight_in_the_data_s_order():
    layout = choose()
    got = [feature.column for feature in layout.features]
    assert got == [Column("age"), Column("pixels", 4), Column("member")]
    assert layout.n_features == 6
    assert layout.row_bytes == 4 + 4 + 1


def test_features_listed_keep_their_own_order():
    layout = choose(features=("member", "age"))
    assert [feature.column.name for feature in layout.features] == ["member", "age"]


def test_a_list_of_no_fixed_size_is_as_wide_as_the_first_there_is():
    layout = choose(pa.schema({"v": pa.list_(pa.float32()), "label": pa.int8()}), weight=None)
    assert layout.features[0].column == Column("v", 3)


def test_lists_of_no_length_or_one_that_nobody_knows_are_refused():
    schema = pa.schema({"v": pa.list_(pa.float32()), "label": pa.int8()})
    with pytest.raises(DataError, match='column "v" holds lists of no numbers'):
        choose(schema, peek=lambda name: 0, weight=None)
    with pytest.raises(DataError, match='a table: column "v" is null in all rows'):
        choose(schema, peek=lambda name: None, weight=None)
    like = (Column("v", 3, fill=(0.0, 1.0, 2.0)),)  # a model fills what is null
    layout = choose(schema, peek=lambda name: None, weight=None, like=like)
    assert layout.features[0].column == like[0]


def test_a_tensor_is_as_wide_as_its_shape():
    tensor = pa.fixed_shape_tensor(pa.float32(), [2, 3])
    layout = choose(pa.schema({"v": tensor, "label": pa.int8()}), weight=None)
    assert layout.features[0].column == Column("v", 6, shape=(2, 3))


def test_the_index_that_pandas_wrote_is_no_feature():
    pandas = pytest.importorskip("pandas")
    index = pandas.Index([7, 8], name="id")
    schema = pa.Schema.from_pandas(pandas.DataFrame({"a": [1.0, 2.0]}, index=index))
    assert schema.names == ["a", "id"]
    layout = choose(schema, target=None, weight=None)
    assert [feature.column.name for feature in layout.features] == ["a"]


def test_columns_handed_on_are_no_features():
    layout = choose(keep=("age",))
    assert [feature.column.name for feature in layout.features] == ["pixels", "member"]
    assert layout.names(labelled=False) == ("pixels", "member", "age")


def test_a_model_s_columns_are_found_by_name_and_others_ignored():
    like = (Column("member"), Column("age"))
    layout = choose(target=None, weight=None, like=like, like_width=2)
    assert tuple(feature.column for feature in layout.features) == like


def test_a_nameless_model_takes_the_numeric_columns_if_they_are_as_many():
    layout = choose(target=None, like_width=6)
    assert layout.n_features == 6
    with pytest.raises(DataError, match="there are 6 features, the model takes 5"):
        choose(target=None, like_width=5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"target": "lable"}, 'a table: there is no column "lable"; did you mean "label"?'),
        ({"weight": "zzz"}, 'a table: there is no column "zzz".'),
        ({"target": None}, 'column "label" is of type string, which is no number. Leave it out'),
        ({"features": ("age", "age")}, 'features= lists "age" 2 times; list it once.'),
        ({"features": ("label",)}, 'features= lists "label", which is the target; leave it out.'),
        ({"features": ("pixel",)}, 'there is no column "pixel"; did you mean "pixels"?'),
        ({"features": ()}, "a table: there are no features"),
        ({"keep": ("id",)}, 'there is no column "id".'),
        ({"like": (Column("agee"),)}, 'there is no column "agee"; did you mean "age"?'),
        ({"like": (Column("a"), Column("b"))}, 'there are no columns "a", "b"'),
        (
            {"like": (Column("pixels", 5),)},
            'column "pixels" holds a list of 4 numbers a row, the model takes a list of 5 numbers.',
        ),
        ({"like": (Column("age", 2),)}, "holds one number a row, the model takes a list of 2"),
    ],
)
def test_columns_that_will_not_do_are_named(asked, message):
    with pytest.raises(DataError) as caught:
        choose(**asked)
    assert message in str(caught.value)


def test_more_than_ten_missing_columns_are_counted():
    like = tuple(Column(f"x{j}") for j in range(13))
    with pytest.raises(DataError, match='"x9" and 3 more'):
        choose(like=like)


def test_two_columns_of_one_name_are_refused():
    schema = pa.schema([("a", pa.int8()), ("a", pa.int8()), ("label", pa.int8())])
    with pytest.raises(DataError, match='2 columns are called "a"; rename all but one'):
        choose(schema, weight=None)


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.list_(pa.string()), pa.struct({"a": pa.int8()})]
)
def test_features_of_no_number_are_refused(kind):
    with pytest.raises(DataError, match=r'column "a" is of type .*, which is no number'):
        choose(pa.schema({"a": kind, "label": pa.int8()}), weight=None)


def test_a_further_file_must_have_the_same_types():
    layout = choose()
    other = pa.schema([f.with_type(pa.float64()) if f.name == "age" else f for f in SCHEMA])
    with pytest.raises(
        DataError, match='b: column "age" is of type double, but float in the first'
    ):
        check_same(SCHEMA, [("b", other)], layout)
    with pytest.raises(DataError, match='b: there is no column "age"'):
        check_same(SCHEMA, [("b", SCHEMA.remove(0))], layout)


def test_a_further_file_may_order_and_call_things_otherwise():
    items = pa.field("pixels", pa.list_(pa.field("element", pa.uint8(), nullable=False), 4))
    other = pa.schema([SCHEMA.field(4), SCHEMA.field(3), SCHEMA.field(2), items, SCHEMA.field(0)])
    check_same(SCHEMA, [("b", other)], choose())
