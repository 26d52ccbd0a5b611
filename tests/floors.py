"""The floors of the house, from the ground up, and the pictures of them in docs/design.md.

    python -m tests.floors        write the pictures anew, from the modules there are

A module imports only from what stands before it in `ROOMS`, in its own folder too.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fastsoftmax"
DESIGN = ROOT / "docs/design.md"
# Every module, after those that it may import.
ROOMS = (
    "errors version facts"
    " kernels(parts level later frames loading code vector_types target compile ahead vectors"
    " workspace sizes barrier workers softmax checksum"
    " permute cholesky gather transpose prefetch bounds operands tiles products recurrence blocks"
    " lookahead stretches panels rowwise narrow binary minibatch adagrad"
    " lists list_products by_feature waiting sparse sparse_batches sparse_adagrad sparse_sums"
    " gradient curvature measure scoring"
    " characters hashing tokens ngrams text_features text_counts)"
    " labels options files"
    " engines(tasks carrier engine merging threads executor mapped worker processes dask choice)"
    " data(mixing manifest parts weight_unit in_use vocabulary word_list source layouts compute"
    " values given_texts text hashed lookup encode sparse_columns packed columns column_names"
    " column_choice schemas decode row_order label_stats preprocessing memory sparse_memory"
    " formats/remote formats/private formats/spool formats/hugging_face formats/discover"
    " formats/partitions formats/batches formats/files"
    " formats/batch_lists formats/streams formats/ipc formats/ipc_stream formats/wide_columns"
    " formats/parquet formats/dialect formats/odd_values formats/lines formats/csv_lines"
    " formats/svmlight formats/json_lines formats/recognise"
    " formats/arrays formats/encoding formats/sink formats/whole"
    " table loading/shuffle loading/shuffle_buffer loading/read_plan loading/prefetch"
    " loading/sample loading/cache loading/kept_rows loading/buckets loading/loader"
    " loading/deal loading/shard_rows loading/mixed_rows loading/shards"
    " open outline pack convert appraise glance suspects some_rows)"
    " inference(answers scorer sparse_scorer bulk)"
    " model(scaling strict_json record safetensors parameters sparse_logits logits scoring ranking"
    " texts many file"
    " coefficients sql onnx shard_scoring model export)"
    " optim(tally shared_mean state schedules moments sparse_moments tables l1 penalties weights"
    " feature_weights"
    " rules/rule rules/adagrad rules/minibatch rules/binary rules/rowwise rules/narrow rules/panels"
    " rules/lookahead rules/blocks rules/sparse_rule rules/sparse rules/sparse_batches"
    " rules/sparse_adagrad rules/choice"
    " sgd gradient preconditioner sparse_gradient hessian sample passes objective lbfgs optimizer)"
    " evaluation(metrics report evaluate calibrate describe formatting tables surprises svg"
    " page_style html page plots)"
    " training(progress memory_check finite_check prepared divergence learner_state"
    " row_weights shares stopping tuning learner scales ending step_trials foresight preparation"
    " trainer_state"
    " rows callbacks hooks json_log halving finish standing epoch_rounds trainer warm_start"
    " checkpoint shard_tasks step_tasks step_rounds rounds"
    " inputs identity train sweep cross_validate audit learning_curve forecast"
    " warmup)"
    " plots callbacks sklearn(given answers conventions estimator)"
    " cli(words repeat config console progress outputs commands trials parsers main)"
    " __init__ __main__"
)


def rooms() -> list[str]:
    """Return the dotted names of all modules below the package, from the ground up."""
    found = []
    for folder, inside, alone in re.findall(r"(\w+)\(([^)]*)\)|(\w+)", ROOMS):
        if alone:
            found.append(alone)
        else:
            found += [f"{folder}.{name.replace('/', '.')}" for name in inside.split()]
    return found


@cache
def modules() -> dict[str, Path]:
    """Return the modules there are, by their dotted names; a folder's first page is no room."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if name == "__init__" or not name.endswith("__init__"):
            found[name] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    """Return what a module's source says."""
    return ast.parse(path.read_text())


def nodes(node: ast.AST, *, at_once: bool) -> Iterator[ast.AST]:
    """Yield what stands in a module; at_once: only what runs as soon as it is imported."""
    yield node
    for inner in ast.iter_child_nodes(node):
        waits = isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
        waits |= isinstance(inner, ast.If) and "TYPE_CHECKING" in ast.unparse(inner.test)
        if not (at_once and waits):
            yield from nodes(inner, at_once=at_once)


def imported(path: Path, *, at_once: bool = False) -> Iterator[str]:
    """Yield the dotted names that a module imports: wherever in it, for type checkers too.

    at_once: only those that it imports as soon as it is imported itself.
    """
    for node in nodes(tree(path), at_once=at_once):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def arrows(*, at_once: bool = False) -> dict[str, set[str]]:
    """Return for each module those of the house that it imports."""
    there = modules()
    found: dict[str, set[str]] = {}
    for name, path in there.items():
        known = found.setdefault(name, set())
        for target in imported(path, at_once=at_once):
            inner = target.removeprefix("fastsoftmax.")
            if inner == target:
                continue
            while inner and inner not in there:
                inner = inner.rpartition(".")[0]
            if inner:
                known.add(inner)
    return found


def first_sentence(path: Path) -> str:
    """Return what a module says it is."""
    said = ast.get_docstring(tree(path)) or ""
    sentence = re.split(r"(?<=\.)\s", " ".join(said.split()))[0].rstrip(".")
    return re.sub(r"^The only place (that |for )?", "", sentence)


def floor_of(name: str) -> str:
    """Return the folder that a module stands in, or the module itself."""
    return name.split(".")[0]


def picture() -> str:
    """Return the floors as stairs, the highest first: an x where one imports from a floor below."""
    below: dict[str, set[str]] = {}
    for name, targets in arrows().items():
        below.setdefault(floor_of(name), set()).update(map(floor_of, targets))
    order = list(dict.fromkeys(map(floor_of, reversed(rooms()))))
    lines = []
    for step, floor in enumerate(order):
        marks = ["x" if floor in below[user] else "." for user in order[:step]]
        lines.append("".join(f"{mark:<3}" for mark in marks) + floor)
    return "\n".join(lines)


def listing() -> str:
    """Return the modules of each floor from the ground up, with their first sentences."""
    there, lines = modules(), ["fastsoftmax/"]
    entered: list[str] = []
    for name in rooms():
        *folders, module = name.split(".")
        for depth in range(1, len(folders) + 1):
            folder = folders[:depth]
            if folder != entered[:depth]:
                page = PACKAGE.joinpath(*folder, "__init__.py")
                lines.append(f"{'  ' * depth}{folder[-1] + '/':<18} {first_sentence(page)}")
        entered = folders
        line = f"{'  ' * (len(folders) + 1)}{module + '.py':<18} {first_sentence(there[name])}"
        lines.append(line)
    return "\n".join(lines)


def drawn(document: str) -> str:
    """Return the document with both pictures as they are now."""
    for name, text in (("floors", picture()), ("rooms", listing())):
        block = f"<!-- {name} -->\n```text\n{text}\n```\n<!-- end -->"
        document = re.sub(
            rf"<!-- {name} -->.*?<!-- end -->", lambda _, b=block: b, document, flags=re.DOTALL
        )
    return document


if __name__ == "__main__":
    DESIGN.write_text(drawn(DESIGN.read_text()))
    sys.exit(0)
