"""The only place that writes a model as SQL: one SELECT that scores the rows of a table.

The SELECTs are nested: from the inside out features, logits, the largest logit, exponentials, and
their sum. It is written for DuckDB; the names of types and all that it does with lists are its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from fastsoftmax.data.source import Column
from fastsoftmax.errors import OptionError
from fastsoftmax.model.parameters import Parameters

MOST_WEIGHTS = 500_000  # DuckDB takes 5 s to plan so many
TABLE, ROW = "data", "d"
TYPES = {
    "int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
    "uint8": "UTINYINT", "uint16": "USMALLINT", "uint32": "UINTEGER", "uint64": "UBIGINT",
    "bool": "BOOLEAN", "string": "VARCHAR",
}  # fmt: skip


def select_of(model: Parameters) -> str:
    """Return the SELECT of `label` and `p_0`, `p_1`, ... for each row of the table `data`."""
    coef, intercept = model.raw()
    K = len(model.classes)
    if coef.size > MOST_WEIGHTS:
        raise OptionError(
            f"format sql writes every weight, and {coef.size:,} are more than a database plans in"
            f" reasonable time ({MOST_WEIGHTS:,}); export to onnx or parquet"
        )
    columns = model.columns or (Column("X", model.n_features),)
    features = _Features(columns, model.nulls)
    z, e = [f"z_{k}" for k in range(K)], [f"e_{k}" for k in range(K)]
    logits = [
        f"{_sum([_number(b), *features.terms(weights)])} AS {name}"
        for name, weights, b in zip(z, coef, intercept.tolist(), strict=True)
    ]
    inner = _select(features.expressions, f"{TABLE} AS {ROW}")
    inner = _select(logits, _nested(inner, "features"))
    inner = _select([*z, f"greatest({', '.join(z)}) AS z_max"], _nested(inner, "logits"))
    kept = [*z, "z_max", *(f"exp({name} - z_max) AS e_{k}" for k, name in enumerate(z))]
    inner = _select(kept, _nested(inner, "largest"))
    inner = _select([*z, "z_max", *e, f"{_sum(e)} AS total"], _nested(inner, "powers"))
    answers = [_label(model), *(f"{name} / total AS p_{k}" for k, name in enumerate(e))]
    return _select(answers, _nested(inner, "sums")) + "\n"


class _Features:
    """The columns of a table as f_0, f_1, ...: numbers, lists, or categories that select a weight.

    Where the model fills no nulls, a null makes the sum null, and with it all answers of its row.
    """

    def __init__(self, columns: tuple[Column, ...], nulls: str) -> None:
        self.columns, self.nulls = columns, nulls
        self.fills = nulls in ("zero", "mean")
        self.expressions = [text for at in range(len(columns)) for text in self._of_column(at)]

    def terms(self, weights: np.ndarray) -> Iterator[str]:
        """Yield what is summed up to a logit, for weights (d,)."""
        left = iter(weights.tolist())
        for at, column in enumerate(self.columns):
            if column.categories is not None:
                known = list(zip(column.categories.values, left, strict=False))
                yield self._category(f"f_{at}", known)
            elif column.width is None:
                yield f"{_number(next(left))} * f_{at}"
            else:
                # As many terms as numbers would take seconds to plan; a list takes milliseconds.
                product = f"list_dot_product(f_{at}, {_list(islice(left, column.width))})"
                drops = self.nulls == "drop"
                yield f"CASE WHEN f_{at}_null = 0e0 THEN {product} END" if drops else product
            if column.indicator:
                yield f"{_number(next(left))} * f_{at}_null"

    def _category(self, name: str, known: list[tuple[object, float]]) -> str:
        whens = " ".join(f"WHEN {_literal(value)} THEN {_number(w)}" for value, w in known)
        chosen = f"CASE {name} {whens} ELSE 0e0 END"
        return chosen if self.fills else f"CASE WHEN {name} IS NOT NULL THEN {chosen} END"

    def _of_column(self, at: int) -> Iterator[str]:
        column = self.columns[at]
        own = f"{ROW}.{_identifier(column.name)}"
        missing = f"{own} IS NULL"
        if column.categories is not None:
            yield f"{own} AS f_{at}"
        elif column.width is None:
            number = f"CAST({own} AS DOUBLE)"
            if self.fills and column.fill is not None:
                number = f"coalesce({number}, {_number(column.fill[0])})"
            yield f"{number} AS f_{at}"
        else:
            missing = f"coalesce(list_count({own}), 0) < {column.width}"
            yield f"{self._vector(own, column)} AS f_{at}"
        if column.indicator or (self.nulls == "drop" and column.width is not None):
            yield f"CASE WHEN {missing} THEN 1e0 ELSE 0e0 END AS f_{at}_null"

    def _vector(self, own: str, column: Column) -> str:
        """Return a list without nulls: DuckDB's product of lists is an error where one is left."""
        if self.nulls == "error":
            return f"CAST({own} AS DOUBLE[])"
        fills = column.fill or (0.0,) * (column.width or 0)
        items = (
            f"coalesce(CAST({own}[{j + 1}] AS DOUBLE), {_number(value)})"
            for j, value in enumerate(fills)
        )
        return f"[{', '.join(items)}]"


def _label(model: Parameters) -> str:
    """Return the first class whose logit is the largest."""
    whens = " ".join(
        f"WHEN z_{k} = z_max THEN {_literal(value)}" for k, value in enumerate(model.classes.values)
    )
    return f"CAST(CASE {whens} END AS {TYPES[model.classes.kind]}) AS label"


def _sum(terms: list[str]) -> str:
    """Return a sum of balanced pairs: a chain of a thousand terms is too deep for a database."""
    while len(terms) > 1:
        pairs = zip(terms[::2], terms[1::2], strict=False)
        terms = [f"({a} + {b})" for a, b in pairs] + terms[len(terms) // 2 * 2 :]
    return terms[0]


def _select(expressions: list[str], source: str) -> str:
    return "SELECT\n  " + ",\n  ".join(expressions) + f"\nFROM {source}"


def _nested(select: str, name: str) -> str:
    return f"(\n{select}\n) AS {name}"


def _number(value: float) -> str:
    """Return a DOUBLE of all its digits; without an exponent it would be a DECIMAL of few."""
    text = repr(float(value))
    return text if "e" in text else f"{text}e0"


def _list(values: Iterable[float]) -> str:
    return "[" + ", ".join(map(_number, values)) + "]"


def _identifier(name: str) -> str:
    return '"' + _text(name).replace('"', '""') + '"'


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return "'" + _text(value).replace("'", "''") + "'" if isinstance(value, str) else str(value)


def _text(value: str) -> str:
    if "\0" in value:
        raise OptionError(f"format sql holds no null character, which {value!r} has; rename it")
    return value
