"""The only place that says what each command does: arguments in, lines of results out."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from typing import Any

from fastsoftmax.cli.config import as_toml
from fastsoftmax.cli.console import Console
from fastsoftmax.cli.outputs import make_folder, save
from fastsoftmax.cli.progress import Teller, training_summary
from fastsoftmax.cli.repeat import same_config, same_run
from fastsoftmax.errors import FastsoftmaxError, OptionError, StoppedError
from fastsoftmax.evaluation import formatting, tables
from fastsoftmax.files import check_output
from fastsoftmax.options import OPTIONS, Sharding, TrainOptions, parse_bytes

MOST_LABEL = 10**30  # beyond any integer that a class can be: 1e999999 has a million digits

Arguments = dict[str, Any]  # by the names that the command line gives them


def train(args: Arguments, console: Console) -> Iterable[str]:
    """Train a model, write it, and return how it went."""
    given = options_given(args)
    options = TrainOptions.of(**given)  # mistakes are found before anything heavy is imported
    if args["output"] is not None:
        _check_trained_output(args)
    if args["dry_run"]:
        return dry_run(args, options)
    if args["json"]:
        raise OptionError("json is of dry-run: a run says how it went in lines, or by --log-json")

    from fastsoftmax.training.train import train as train_model

    started = time.perf_counter()
    progress = Teller(console, silent=args["quiet"] or args["verbose"])
    model = train_model(**_what_is_trained_on(args), report=progress, **given)
    folder = options.keeping.checkpoint
    if console.signal and folder:
        raise StoppedError(
            f"stopped before its end. The state of the run is kept in {folder}: go on"
            " with --resume.",
            console.signal,
        )
    save(model, args["output"])
    console.show("")
    if console.signal:
        raise StoppedError(
            f"stopped before its end. The model as it was then is in {args['output']}.",
            console.signal,
        )
    assert progress.last is not None  # an epoch's end is always reported
    facts = training_summary(progress.last, time.perf_counter() - started)
    return formatting.aligned(
        [*facts, ("model", args["output"]), ("to repeat", same_run(args, options))]
    )


def dry_run(args: Arguments, options: TrainOptions) -> Iterable[str]:
    """Return what a run would take, and the file that reproduces it."""
    from fastsoftmax.training.forecast import forecast
    from fastsoftmax.training.inputs import Inputs

    config = same_config(args, options)
    written = list(as_toml(config))  # what no file can hold is refused before the work
    found = forecast(Inputs(**_what_is_trained_on(args)), options)
    if args["json"]:
        return as_json({**asdict(found), "config": config})
    facts = formatting.aligned(formatting.forecast_facts(asdict(found)))
    return [*(f"# {fact}" for fact in facts), *written]


def sweep(args: Arguments, console: Console) -> Iterable[str]:
    """Train many settings, write the best model, and return how they rank."""
    given = options_given(args)
    _check_trained_output(args)
    if args["all"] is not None:
        make_folder(args["all"])

    from fastsoftmax.training.sweep import sweep as sweep_settings

    progress = Teller(console, silent=args["quiet"] or args["verbose"])
    found = sweep_settings(
        **_what_is_trained_on(args),
        report=progress,
        halve=not args["no_halve"],
        keep_all=args["all"] is not None,
        **given,
    )
    console.show("")
    save(found.best, args["output"])
    if args["all"] is not None:
        for rank, model in enumerate(found.models, start=1):
            save(model, os.path.join(args["all"], f"{rank}.safetensors"))
    if console.signal:
        raise StoppedError(
            f"stopped before its end. The best model as it was then is in {args['output']}.",
            console.signal,
        )
    if args["json"]:
        return as_json({"table": found.table, "model": args["output"]})
    return [*tables.sweep_table(found.table), *formatting.aligned([("model", args["output"])])]


def options_given(args: Arguments) -> dict[str, Any]:
    """Return the options of the run that were given."""
    return {name: args[name] for name in OPTIONS if name in args}


def _check_trained_output(args: Arguments) -> None:
    """Raise OptionError where the model cannot be written, or would replace what is read."""
    init = [] if args["init"] is None else [args["init"]]
    check_output(args["output"], [*args["data"], *(args["validation"] or []), *init])


def rows_given(args: Arguments) -> dict[str, Any]:
    """Return the rows that are trained on, and what of them is."""
    classes = args["classes"]
    return {
        "data": one_or_all(args["data"]),
        "target": args["target"],
        "features": args["features"],
        "weight": args["weight"],
        "categorical": args["categorical"],
        "classes": classes and typed_classes(classes, args["data"], args["target"]),
    }


def _what_is_trained_on(args: Arguments) -> dict[str, Any]:
    """Return the arguments of `train` and `sweep` that are no options."""
    from fastsoftmax.model.model import load

    validation, init = args["validation"], args["init"]
    return {
        **rows_given(args),
        "validation": validation and one_or_all(validation),
        "init": load(init) if init else None,
    }


def evaluate(args: Arguments, console: Console) -> Iterable[str]:
    """Return how well a model predicts rows whose classes are known."""
    from fastsoftmax.evaluation.evaluate import evaluate as evaluate_model
    from fastsoftmax.model.model import load

    report = evaluate_model(
        load(args["model"]),
        one_or_all(args["data"]),
        args["target"],
        args["weight"],
        top_k=args["top_k"],
        **_who(args),
    )
    facts = report.as_dict()
    if args["json"]:
        return as_json(facts)
    return [*formatting.aligned(formatting.report_facts(facts)), *tables.report_tables(facts)]


def report(args: Arguments, console: Console) -> Iterable[str]:
    """Write a page on how a model does, and return that in a few numbers."""
    check_output(args["output"], [args["model"], *args["data"]])

    from fastsoftmax.evaluation.page import write_report
    from fastsoftmax.model.model import load

    rows = (one_or_all(args["data"]), args["output"], args["target"], args["weight"])
    facts = formatting.report_facts(write_report(load(args["model"]), *rows).as_dict())
    return formatting.aligned([*facts, ("page", args["output"])])


def calibrate(args: Arguments, console: Console) -> Iterable[str]:
    """Write a model of the temperature that fits the data, and return what that gains."""
    check_output(args["output"], [args["model"], *args["data"]])

    from fastsoftmax.evaluation.calibrate import calibrate as calibrate_model
    from fastsoftmax.evaluation.evaluate import evaluate as evaluate_model
    from fastsoftmax.model.model import load

    rows = (one_or_all(args["data"]), args["target"], args["weight"])
    before = load(args["model"])
    after = calibrate_model(before, *rows, **_who(args))
    reports = [evaluate_model(model, *rows, **_who(args)).as_dict() for model in (before, after)]
    save(after, args["output"])
    facts = formatting.calibration_facts(after.record["temperature"], *reports)
    return formatting.aligned([*facts, ("model", args["output"])])


def predict(args: Arguments, console: Console) -> Iterable[str]:
    """Write a prediction for each row."""
    path, is_piped = args["output"], args["output"] == "-"
    is_folder = path.endswith("/")
    sharding = Sharding(**_who(args))
    if is_folder and sharding.shards is None:
        raise OptionError(f"{path} is a folder, for a file of each shard: say how many by --shards")
    if not is_piped:
        check_output(path, [args["model"], *args["data"]])

    from fastsoftmax.data.formats.sink import format_of
    from fastsoftmax.data.open import open_source
    from fastsoftmax.data.preprocessing import NullPolicy
    from fastsoftmax.model.model import load
    from fastsoftmax.model.scoring import write_predictions
    from fastsoftmax.model.shard_scoring import PROBA, answers_in_order, write_files

    kind = format_of("x.parquet" if is_folder else path, args["format"])
    model = load(args["model"])
    source = open_source(
        one_or_all(args["data"]),
        like=model.columns,
        like_width=model.n_features,
        keep=tuple(args["keep"] or ()),
        null_policy=NullPolicy(model.nulls),
    )
    how = {"proba": args["proba"], "top_n": args["top_k"], "format": kind}
    with contextlib.closing(source):
        if is_folder:
            rows = write_files(model.parameters, source, path, sharding, how)
        else:
            answers = None
            if sharding.shards is not None:
                answers = answers_in_order(model.parameters, source, PROBA, sharding)
            pipe = sys.stdout.buffer if is_piped else None
            rows = write_predictions(
                model.parameters, source, path, pipe=pipe, answers=answers, **how
            )
    if not args["quiet"]:
        console.say(f"{rows:,} rows written to {f'stdout as {kind}' if is_piped else path}")
        for name, said in formatting.treated_facts(source.treated()):
            console.say(f"{name}: {said}")
    return []


def export(args: Arguments, console: Console) -> Iterable[str]:
    """Write a model for other programs."""
    from fastsoftmax.model.export import export as export_model
    from fastsoftmax.model.export import format_of
    from fastsoftmax.model.model import load

    path, given = args["output"], args["format"]
    kind = format_of(path, given)
    check_output(path, [args["model"]])
    export_model(load(args["model"]), path, given)
    return formatting.aligned([("format", kind), ("file", path)])


def pack(args: Arguments, console: Console) -> Iterable[str]:
    """Rewrite data into the layout that reads fastest, and return what that did."""
    memory = parse_bytes(args["memory"])
    check_output(args["output"], args["data"])

    from fastsoftmax.data.pack import pack as pack_data

    done = pack_data(
        one_or_all(args["data"]),
        args["output"],
        args["target"],
        features=args["features"],
        weight=args["weight"],
        keep=tuple(args["keep"] or ()),
        dtype=args["dtype"],
        memory=memory,
    )
    facts = asdict(done)
    return as_json(facts) if args["json"] else formatting.aligned(formatting.packed_facts(facts))


def convert(args: Arguments, console: Console) -> Iterable[str]:
    """Rewrite data of any kind as Parquet, and return how much that is."""
    check_output(args["output"], args["data"])

    from fastsoftmax.data.convert import convert as convert_data

    done = convert_data(one_or_all(args["data"]), args["output"], types=args["types"])
    if args["json"]:
        return as_json(asdict(done))
    facts = [(name, f"{value:,}") for name, value in asdict(done).items()]
    return formatting.aligned([*facts, ("file", args["output"])])


def inspect(args: Arguments, console: Console) -> Iterable[str]:
    """Return what is in a model or a data set."""
    from fastsoftmax.evaluation import describe

    paths, target, top = args["data"], args["target"], args["top"]
    if not describe.is_model(paths[0]):
        if top is not None:
            raise OptionError("top counts the weights of a model; data have none")
        validation = args["validation"] and one_or_all(args["validation"])
        found = describe.describe_data(one_or_all(paths), target, validation)
        return as_json(found) if args["json"] else formatting.aligned(formatting.data_facts(found))
    if len(paths) > 1:
        raise OptionError(f"{paths[0]} is a model; inspect one at a time, and no data beside it")
    if target is not None or args["validation"] is not None:
        name = "validation" if target is None else "target"
        raise OptionError(f"{name} is looked at in data; a model has its own classes")
    found = describe.describe_model(paths[0], top)
    return as_json(found) if args["json"] else formatting.aligned(formatting.model_facts(found))


def warmup(args: Arguments, console: Console) -> Iterable[str]:
    """Compile all kernels, so that later processes need not."""
    from fastsoftmax.training.warmup import kept_in, warm_up

    folder = kept_in()
    if folder is None:
        raise FastsoftmaxError(
            "machine code cannot be kept: set FASTSOFTMAX_CACHE to a folder that only you can write"
        )
    started = time.perf_counter()
    count = warm_up()
    seconds = time.perf_counter() - started
    compiled = f"{count} kernels in {seconds:.1f} s"
    return formatting.aligned([("compiled", compiled), ("kept in", folder)])


def _who(args: Arguments) -> dict[str, Any]:
    """Return into how many shards rows are dealt, and who works on these."""
    return {name: args[name] for name in ("shards", "workers") if name in args}


def as_json(value: Any) -> list[str]:
    """Return the one line of JSON that a command prints."""
    return [json.dumps(value, allow_nan=False)]


def one_or_all(paths: list[str]) -> str | list[str]:
    """Return the paths of a data set: one alone as itself, for it may be a folder or a pattern."""
    return paths[0] if len(paths) == 1 else paths


def typed_classes(words: list[str], data: list[str], target: str | None) -> list[Any]:
    """Return classes in the type of the target: on the command line all are words."""
    from fastsoftmax.data.outline import outline

    kind = dict(outline(data).columns).get(target or "", "")
    if "string" in kind:
        return list(words)
    if "bool" in kind:
        truth = {"true": True, "false": False}
        return [truth.get(word.lower(), word) for word in words]
    return [_whole_or_word(word) for word in words]


def _whole_or_word(word: str) -> int | str:
    """Return the whole number that a word is, to the last digit, or the word."""
    try:
        number = Decimal(word.strip())
    except InvalidOperation:
        return word
    is_near = number.is_finite() and -MOST_LABEL < number < MOST_LABEL
    is_whole = is_near and number == int(number)
    return int(number) if is_whole else word
