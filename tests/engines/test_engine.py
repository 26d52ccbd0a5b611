"""Tasks are carried out in order, those that are lost again, and what one raises is raised once."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from fastsoftmax.engines.choice import engine_of
from fastsoftmax.engines.engine import Engine
from fastsoftmax.engines.executor import Executor
from fastsoftmax.engines.merging import merged
from fastsoftmax.engines.processes import Processes, _Queue, _Queued
from fastsoftmax.engines.tasks import Job
from fastsoftmax.errors import DataError, OptionError, WorkerLostError
from tests.engines.executors import Chaos


def square(x):
    return x * x


def refuse(x):
    raise DataError(f"row {x} is wrong")


def die(path):
    """End this process, unless another did before."""
    if not path.exists():
        path.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def vanish(_):
    os._exit(7)


def total(array):
    return float(array.sum()), array.flags.writeable


def tasks(call, values):
    return [Job(f"task {i}", i, call, (value,)) for i, value in enumerate(values)]


@pytest.fixture(params=[None, 2, "executor", "chaos"])
def engine(request):
    if request.param == "executor":
        with ThreadPoolExecutor(2) as pool, engine_of(pool, 4, 2) as engine:
            yield engine
    elif request.param == "chaos":
        with Chaos(1) as chaos, engine_of(chaos, 4, 2) as engine:
            yield engine
    else:
        with engine_of(request.param, 4, 2) as engine:
            yield engine


def test_results_come_in_the_order_of_the_tasks(engine):
    for ahead in (None, 1):
        got = list(engine.results(tasks(square, range(20)), ahead=ahead))
        assert got == [x * x for x in range(20)]


def test_what_a_task_raises_is_raised_as_it_is(engine):
    with pytest.raises(DataError, match=r"^row 0 is wrong$"):
        list(engine.results(tasks(refuse, range(5))))


def test_a_task_that_raises_is_not_carried_out_again():
    calls = []

    def count(x):
        calls.append(x)
        raise DataError("wrong")

    with engine_of(None, 1, 1) as engine, pytest.raises(DataError):
        list(engine.results(tasks(count, [0])))
    assert calls == [0]


def test_a_process_that_dies_is_begun_again_and_its_task_with_it(tmp_path):
    with engine_of(2, 4, 1) as engine:
        paths = [tmp_path / str(i) for i in range(4)]
        assert list(engine.results(tasks(die, paths))) == ["alive"] * 4
        assert list(engine.results(tasks(square, [3]))) == [9]


def test_a_task_that_kills_every_process_ends_the_run_with_what_to_do():
    with engine_of(1, 1, 1) as engine, pytest.raises(WorkerLostError, match="--resume"):
        list(engine.results(tasks(vanish, [0])))


def test_tasks_of_one_home_go_to_the_process_that_had_them_before():
    queue = _Queue()

    def wait(*homes):
        for home in homes:
            queue.add(_Queued(Job("task", home, square, ()), Future()))

    def take(worker):
        return queue.take(worker).task.home

    wait(0, 1, 2, 3)
    assert [take(worker) for worker in (0, 1, 1, 0)] == [0, 1, 2, 3]
    wait(3, 2, 1, 0)
    assert [take(worker) for worker in (1, 0, 0, 1)] == [2, 3, 0, 1]
    wait(0, 3, 1)  # two wait for worker 0, which is busy: one goes to another
    assert [take(1) for _ in range(2)] == [1, 3]
    assert take(0) == 0
    queue.disown(0)
    wait(0)
    assert take(1) == 0


def test_a_large_value_is_mapped_by_all_processes_and_may_be_written_to():
    value = np.arange(100_000.0)
    with engine_of(2, 2, 1) as engine:
        kept = engine.carrier.keep(value)
        assert kept is not value
        got = list(engine.results(tasks(total, [kept] * 4)))
        engine.carrier.let_go(kept)
        other = engine.carrier.keep(value + 1)
        (again,) = engine.results(tasks(total, [other]))
    assert got == [(value.sum(), True)] * 4
    assert again == (value.sum() + len(value), True)


def test_whoever_watches_can_end_the_tasks_and_no_process_is_left():
    def watch(done):
        if done:
            raise KeyboardInterrupt

    carrier = Processes(2)
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt), Engine(carrier) as engine:
        list(engine.results(tasks(slow, [0.01, 60, 60]), watch))
    assert time.perf_counter() - began < 30
    assert all(minder._process.poll() is not None for minder in carrier._minders)


def slow(seconds):
    time.sleep(seconds)


def test_workers_of_other_versions_are_refused_with_a_table():
    class Stranger(Executor):
        def submit(self, task, attempt):
            future = super().submit(task, attempt)
            outcome = future.result()
            facts = tuple((k, "0.1" if k == "numpy" else v) for k, v in outcome.worker.facts)
            object.__setattr__(outcome, "worker", type(outcome.worker)("host-7", facts))
            return future

    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(OptionError, match=r"(?s)numpy.*host-7.*0\.1"),
    ):
        list(Engine(Stranger(pool)).results(tasks(square, [1])))


def test_sums_are_added_in_a_tree_whose_shape_is_fixed():
    for count in (1, 2, 3, 7, 12):
        words = [f"{i} " for i in range(count)]
        assert merged(iter(words)) == "".join(words)

    class Shape(str):
        def __add__(self, other):
            return Shape(f"({self}{other})")

    assert merged(map(Shape, "abcdefg")) == "(((ab)(cd))((ef)g))"


@pytest.mark.parametrize("workers", [0, -1, True, "two", 1.5, object()])
def test_what_cannot_be_workers_is_refused(workers):
    with pytest.raises(OptionError, match="workers must be a number of processes"):
        engine_of(workers, 2, 2)


def test_no_thread_of_an_engine_outlives_it():
    before = threading.active_count()
    for workers in (None, 2):
        with engine_of(workers, 2, 2) as engine:
            list(engine.results(tasks(square, range(4))))
    assert threading.active_count() <= before + 1
