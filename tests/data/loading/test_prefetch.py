"""Threads that read: items in the order of their jobs, errors in their place, an end on request."""

from __future__ import annotations

import threading
import time

import pytest

from fastsoftmax.data.loading.prefetch import WAITING, OrderedPool


def pairs(jobs):
    """Make two items of each job, the later jobs faster."""
    for job in jobs:
        for part in range(2):
            time.sleep(0.002 * (job % 3))
            yield job, part


def wait_for(condition):
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    assert condition()


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("jobs", [[], [4], list(range(20)), [7, 3, 9, 1, 0]])
def test_items_come_in_the_order_of_their_jobs(jobs, threads):
    made = list(OrderedPool(pairs, jobs, threads).items())
    assert made == [(job, part) for job in jobs for part in range(2)]


def test_a_job_may_have_no_items():
    def odd_ones(jobs):
        for job in jobs:
            if job % 2:
                yield job

    assert list(OrderedPool(odd_ones, range(9), 2).items()) == [1, 3, 5, 7]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_an_error_is_raised_after_what_comes_before_it(threads):
    def failing(jobs):
        for job in jobs:
            if job == 5:
                raise ValueError("five")
            time.sleep(0.005 if job < 5 else 0)
            yield job

    items = OrderedPool(failing, range(20), threads).items()
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(items)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_before_the_first_job_is_raised(threads):
    def failing(jobs):
        raise OSError("no file")
        yield next(jobs)

    with pytest.raises(OSError, match="no file"):
        list(OrderedPool(failing, range(3), threads).items())


def test_little_is_made_ahead():
    made = []

    def counting(jobs):
        for job in jobs:
            for part in range(10):
                made.append(part)
                yield job

    threads = 2
    items = OrderedPool(counting, range(50), threads).items()
    next(items)
    time.sleep(0.1)
    assert len(made) <= (threads + 1) * (WAITING + 1) + 1
    items.close()


def test_threads_end_when_nobody_wants_more():
    before = threading.active_count()
    items = OrderedPool(pairs, range(10_000), 3).items()
    next(items)
    items.close()
    wait_for(lambda: threading.active_count() == before)
