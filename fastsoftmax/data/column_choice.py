"""The only place that chooses which columns are features, label and weight.

One layout is chosen from the first schema, and every further file is held to it.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import pyarrow as pa

from fastsoftmax.data.column_names import nearest, places_of, refuse_missing, require
from fastsoftmax.data.columns import NOTE, Feature, Layout, is_partition
from fastsoftmax.data.encode import is_label
from fastsoftmax.data.in_use import InUse
from fastsoftmax.data.layouts import (
    fixed_width,
    is_number,
    is_text,
    is_vector,
    item_type,
    remedy,
    tensor_shape,
)
from fastsoftmax.data.packed import packing_of
from fastsoftmax.data.source import Column
from fastsoftmax.data.sparse_columns import (
    EMPTY,
    NO_SPARSE,
    SparseRequest,
    check_hashed,
    check_type,
    is_svmlight,
)
from fastsoftmax.data.vocabulary import NO_TEXTS, TextColumns, empty_vocabulary
from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass
from fastsoftmax.labels import Classes

NO_CATEGORIES = Classes("string", ())  # until they are learnt
Peek = Callable[[str], int | None]  # the length of the first list in a column; None: all are null


@dataclass(frozen=True)
class ColumnRequest:
    """What the caller asked of the columns.

    target, weight: names of columns, or None. features: names in order; None means all others.
    like: the columns of the model that the rows are for. like_width: how many features it has.
    categorical: names of columns whose values are categories. nulls: what becomes of nulls.
    packed: those that a packed column is made of; None where there is none. What stands beside it
    is no feature. texts: columns of texts, and how they become numbers. sparse: columns of which
    most numbers are 0.
    """

    target: str | None = None
    weight: str | None = None
    features: tuple[str, ...] | None = None
    like: tuple[Column, ...] | None = None
    like_width: int | None = None
    keep: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    nulls: str = "error"
    packed: tuple[str, ...] | None = None
    texts: TextColumns = NO_TEXTS
    sparse: SparseRequest = NO_SPARSE


def _index_columns(schema: pa.Schema) -> set[str]:
    """Return the columns that pandas wrote for its index: no features."""
    facts = schema.pandas_metadata or {}
    named = {name for name in facts.get("index_columns", ()) if isinstance(name, str)}
    return named | {name for name in schema.names if name.startswith("__index_level_")}


def _default_names(schema: pa.Schema, request: ColumnRequest, origin: str) -> tuple[str, ...]:
    """Return all columns but label, weight, index and those only handed on."""
    left_out = {request.target, request.weight, *request.keep, *_index_columns(schema)}
    fields = [f for f in schema if f.name not in left_out and not is_partition(f)]
    if request.packed is not None:
        fields = [f for f in fields if f.name in request.packed]
    if request.like_width is not None:  # a nameless model: its features are the numeric columns
        fields = [f for f in fields if is_number(item_type(f.type))]
    names = [f.name for f in fields]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        require(schema, twice[0], origin)
    return tuple(names)


def _listed_names(schema: pa.Schema, request: ColumnRequest, origin: str) -> tuple[str, ...]:
    """Return the columns that features= names, fits with a pattern, or leaves when others go."""
    assert request.features is not None
    there = set(schema.names)
    others = [name for name in request.features if name in there or not name.startswith("!")]
    excluded = [name[1:] for name in request.features if name not in others]
    names = [name for name in others if name in there or not has_magic(name)]
    _check_listed(schema, request, names, origin)
    # Names alone do not ask what else there is: a name that two other columns have does no harm.
    is_plain = names == list(request.features)
    candidates = () if is_plain else _default_names(schema, request, origin)
    wanted: dict[str, None] = dict.fromkeys(candidates if excluded and not others else ())
    for name in others:
        found = (name,) if name in names else _matching(name, candidates, origin)
        wanted |= dict.fromkeys(found)
    for pattern in excluded:
        for name in _matching(pattern, tuple(wanted), origin, "!"):
            wanted.pop(name)
    return tuple(wanted)


def has_magic(name: str) -> bool:
    """Return whether a name is a pattern."""
    return any(sign in name for sign in "*?[")


def _matching(pattern: str, names: tuple[str, ...], origin: str, sign: str = "") -> tuple[str, ...]:
    """Return the names that a pattern, or a name, fits; none is an error."""
    found = (pattern,) if pattern in names else tuple(fnmatch.filter(names, pattern))
    if not found:
        raise DataError(
            f'{origin}: features= has "{sign}{pattern}", which fits no feature'
            f"{nearest(pattern, names)}"
        )
    return found


def _check_listed(schema: pa.Schema, request: ColumnRequest, names: list[str], origin: str) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError(f'features= lists "{name}" {count} times; list it once.')
        if name in (request.target, request.weight):
            part = "target" if name == request.target else "weight"
            raise DataError(f'features= lists "{name}", which is the {part}; leave it out.')
        require(schema, name, origin)


def _wanted_names(schema: pa.Schema, request: ColumnRequest, origin: str) -> tuple[str, ...]:
    """Return the feature columns that the model, the caller or else the schema names."""
    if request.like is not None:
        stored = [name for column in request.like for name in column.stored_in]
        refuse_missing(schema, stored, origin)
        return tuple(column.name for column in request.like)
    if request.features is not None:
        return _listed_names(schema, request, origin)
    return _default_names(schema, request, origin)


def _feature(
    schema: pa.Schema, name: str, request: ColumnRequest, peek: Peek, origin: str
) -> Feature:
    few = _feature_of_few(schema, name, request, origin)
    if few is not None:
        return few
    kind = stored = require(schema, name, origin)
    if pa.types.is_null(stored):  # all is null: it is what the model knows
        kind = _known_kind(name, request) or stored
    fills = request.nulls != "error"
    if name in request.texts.names:
        if not is_text(kind) and not pa.types.is_null(kind):
            raise DataError(
                f'{origin}: column "{name}" is of type {kind}, which is no text: text= is for'
                " strings."
            )
        text = empty_vocabulary(request.texts.recipe)
        return Feature(Column(name, fill=(0.0,) if fills else None, text=text), kind, stored)
    if name in request.categorical:
        if is_vector(kind):
            raise DataError(f'{origin}: column "{name}" holds lists, which are no categories.')
        if not pa.types.is_null(kind) and not is_label(kind):
            raise DataError(
                f'{origin}: column "{name}" is of type {kind}, which is no category. Categories are'
                " strings, integers or booleans: cast it, or leave it out."
            )
        return Feature(Column(name, None, NO_CATEGORIES, (0.0,) if fills else None), kind, stored)
    if not is_number(item_type(kind)):
        note = (schema.field(*places_of(schema, [name])).metadata or {}).get(NOTE, b"").decode()
        why = f" ({note})" if note else ""
        raise DataError(
            f'{origin}: column "{name}" is of type {kind}, which is no number{why}. {remedy(kind)}'
        )
    if not is_vector(kind):
        return Feature(Column(name, fill=(0.0,) if fills else None), kind, stored)
    width = _width(name, kind, request, peek, origin)
    shape, axes = tensor_shape(kind) or (None, None)
    fill = (0.0,) * width if fills else None
    return Feature(Column(name, width, fill=fill, shape=shape, axes=axes), kind, stored)


def _feature_of_few(
    schema: pa.Schema, name: str, request: ColumnRequest, origin: str
) -> Feature | None:
    """Return a column whose rows tell what they have of many features; None for others."""
    if name in request.sparse.hashed:
        return _hashed_feature(schema, name, request, origin)
    asked = dict(request.sparse.columns)
    if name in asked or is_svmlight(require(schema, name, origin)):
        return _sparse_feature(schema, name, asked.get(name), request, origin)
    return None


def _sparse_feature(
    schema: pa.Schema,
    name: str,
    pair: tuple[str, str] | None,
    request: ColumnRequest,
    origin: str,
) -> Feature:
    kinds = [require(schema, stored, origin) for stored in pair or (name,)]
    try:
        check_type(kinds[0], kinds[1] if pair else None)
    except ValueError as odd:
        raise DataError(f'{origin}: column "{name}" is to be sparse, but {odd}.') from None
    if request.nulls == "mean":
        raise DataError(
            f'{origin}: column "{name}" is sparse, of which nulls have no mean: use nulls=zero, or'
            " drop."
        )
    width = request.sparse.width_of(name) or EMPTY.width
    fill = (0.0,) if request.nulls != "error" else None
    first = request.sparse.first if is_svmlight(kinds[0]) else None
    if is_svmlight(kinds[0]) and request.like is not None:
        first = next(c.sparse.base for c in request.like if c.name == name and c.sparse is not None)
        if first is None:
            raise DataError(
                f"{origin}: the model was not trained on svmlight files, so that nobody knows where"
                " their indices begin: give a SciPy matrix."
            )
    if is_svmlight(kinds[0]) and first is None:
        width = min(width + 1, EMPTY.width)  # until it is known where indices begin
    in_use = InUse(width, EMPTY.index, base=first)
    return Feature(Column(name, fill=fill, sparse=in_use, pair=pair), kinds[0])


def _hashed_feature(schema: pa.Schema, name: str, request: ColumnRequest, origin: str) -> Feature:
    kind = stored = require(schema, name, origin)
    try:
        check_hashed(kind)
    except ValueError as odd:
        raise DataError(f'{origin}: column "{name}" is to be hashed, but {odd}.') from None
    if pa.types.is_null(kind):
        kind = pa.string()
    fill = (0.0,) if request.nulls != "error" else None
    in_use = InUse(1 << request.sparse.bits, EMPTY.index, is_hashed=True)
    return Feature(Column(name, fill=fill, sparse=in_use), kind, stored)


def _sparse_names(names: tuple[str, ...], request: ColumnRequest, origin: str) -> tuple[str, ...]:
    """Return the features' names, those of lists of indices and values in pairs as one."""
    found = list(names)
    for name, pair in request.sparse.columns:
        if pair is None:
            if name not in found:
                raise DataError(
                    f'{origin}: sparse= lists "{name}", which is no feature{nearest(name, names)}'
                )
            continue
        at = min([found.index(stored) for stored in pair if stored in found], default=len(found))
        found = [other for other in found if other not in (*pair, name)]
        found.insert(min(at, len(found)), name)
    return tuple(found)


def _is_listed(schema: pa.Schema, column: Column) -> bool:
    """Return whether a sparse column is not one of categories that are many."""
    if column.sparse is None or column.pair is not None:
        return column.sparse is not None
    if column.sparse.is_hashed:
        return False
    at = schema.get_field_index(column.name)
    return column.categories is None or at < 0 or not is_label(schema.field(at).type)


def _known_kind(name: str, request: ColumnRequest) -> pa.DataType | None:
    """Return the type in which a column of nulls is read, as the model knows the column."""
    for column in request.like or ():
        is_word = column.categories is not None or column.text is not None
        if column.name == name and is_word:
            return pa.string()
        if column.name == name:
            return pa.float64() if column.width is None else pa.list_(pa.float64(), column.width)
    return None


def _width(name: str, kind: pa.DataType, request: ColumnRequest, peek: Peek, origin: str) -> int:
    """Return how many numbers a row of a column of lists holds."""
    width = fixed_width(kind)
    width = peek(name) if width is None else width
    if width is None:  # the model will fill them, if it has learnt how
        width = next((column.width for column in request.like or () if column.name == name), None)
    if not width:
        what = "is null in all rows" if width is None else "holds lists of no numbers"
        raise DataError(
            f'{origin}: column "{name}" {what}. Leave it out (features= lists the others).'
        )
    return width


def _check_like(features: Sequence[Feature], like: Sequence[Column], origin: str) -> None:
    for feature, column in zip(features, like, strict=True):
        if not feature.column.lies_as(column):
            has, wants = feature.column.layout, column.layout
            raise DataError(
                f'{origin}: column "{column.name}" holds {has} a row, the model takes {wants}.'
            )


def _refuse_no_features(request: ColumnRequest, names: Sequence[str], origin: str) -> None:
    asked = {
        "categorical": request.categorical,
        "text": request.texts.names,
        "hashed": request.sparse.hashed,
        "sparse": tuple(name for name, _ in request.sparse.columns),
    }
    for option, listed in asked.items():
        for name in listed:
            if name not in names:
                raise DataError(
                    f'{origin}: {option}= lists "{name}", which is no feature{nearest(name, names)}'
                )
    for (one, some), (other, more) in combinations(asked.items(), 2):
        for name in sorted(set(some) & set(more)):
            raise DataError(f'{origin}: column "{name}" is listed in {one}= and in {other}=.')


def _refuse_packed(features: Sequence[Feature], request: ColumnRequest, origin: str) -> None:
    """Raise DataError where a feature is no number that stands in a packed row, or another is."""
    packed = request.packed or ()
    for name in (request.target, request.weight, *request.keep):
        if name in packed:
            raise DataError(
                f'{origin}: column "{name}" is packed among the features, and cannot be read alone.'
                " Pack the data again with it as target=, weight= or keep=."
            )
    for feature in features:
        column = feature.column
        if column.name not in packed:
            raise DataError(
                f'{origin}: the features are packed, and column "{column.name}", which stands'
                " beside them, is none. Pack the data again with it among the features."
            )
        if column.categories is not None or column.text is not None or column.indicator:
            raise DataError(
                f'{origin}: the features are packed, and "{column.name}" is to be a category, a'
                " text, or to have an indicator of nulls, which packed numbers have not. Use the"
                " data as they were."
            )


def check_width(
    n_features: int, request: ColumnRequest, origin: str, *, learns: bool = False
) -> None:
    """Raise DataError when there are no features, or not as many as the model takes.

    learns: there are categories or texts, which become features once they are known.
    """
    if n_features == 0 and not learns:
        raise DataError(
            f"{origin}: there are no features; at least one column of numbers, or of categories"
            " (categorical=), is needed."
        )
    wanted = request.like_width
    if request.like is not None:
        wanted = sum(column.n_features for column in request.like)
    if wanted is not None and n_features != wanted:
        raise DataError(f"{origin}: there are {n_features} features, the model takes {wanted}.")


def choose_columns(schema: pa.Schema, request: ColumnRequest, peek: Peek, origin: str) -> Layout:
    """Return the layout of the columns in use, or raise DataError with the one that will not do.

    origin: the data's name for messages. `peek` is asked only for lists of no fixed size.
    """
    packing = packing_of(schema, origin)
    if packing is not None:
        schema = packing.unpacked(schema)
        packed = tuple(column.name for column in packing.columns)
        request = replace(request, nulls="error", packed=packed)  # there are no nulls
    for name in (request.target, request.weight, *request.keep):
        if name is not None:
            require(schema, name, origin)
    if request.like is not None:
        few = tuple((c.name, c.pair) for c in request.like if _is_listed(schema, c))
        hashed = tuple(c.name for c in request.like if c.sparse is not None and c.sparse.is_hashed)
        request = replace(request, sparse=SparseRequest(few, hashed=hashed))
    names = _sparse_names(_wanted_names(schema, request, origin), request, origin)
    if request.like is not None:
        few_names = {name for name, _ in request.sparse.columns}
        known = tuple(
            column.name
            for column in request.like
            if column.categories is not None and column.name not in few_names
        )
        texts = tuple(column.name for column in request.like if column.text is not None)
        request = replace(request, categorical=known, texts=TextColumns(texts))
    _refuse_no_features(request, names, origin)
    features = tuple(_feature(schema, name, request, peek, origin) for name in names)
    if request.like is not None:
        _check_like(features, request.like, origin)
        features = tuple(
            replace(feature, column=column)
            for feature, column in zip(features, request.like, strict=True)
        )
    if packing is not None:
        _refuse_packed(features, request, origin)
    learns = (f.column.categories is not None or f.column.sparse is not None for f in features)
    layout = Layout(
        features, request.target, request.weight, request.keep, request.nulls == "drop", packing
    )
    check_width(layout.n_features, request, origin, learns=any(learns) or bool(request.texts.names))
    return layout
