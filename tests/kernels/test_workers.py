"""Workers meet at their barrier, and never leave anyone there."""

import threading
import time

import numpy as np
import pytest

from fastsoftmax.kernels.barrier import atomic_add, wait
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.workers import Team


@kernel(EXACT)
def rounds(sums, barrier, worker, team, count):
    """In each round add every worker's number of the round before to one's own."""
    for _ in range(count):
        wait(barrier, team)
        total = 0.0
        for i in range(team):
            total += sums[i]
        wait(barrier, team)
        sums[worker] = total
    wait(barrier, team)
    return worker


@kernel(EXACT)
def count_to(barrier, times):
    for _ in range(times):
        atomic_add(barrier, 2, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_nobody_passes_the_barrier_early(size):
    sums = np.ones(size)
    with Team(size) as team:
        assert team.run(lambda i: rounds(sums, team.barrier, i, size, 20)) == 0
    assert (sums == float(size) ** 20).all()


def test_a_counter_counts_each_worker_once():
    with Team(3) as team:
        team.run(lambda i: count_to(team.barrier, 1000))
        assert team.barrier[2, 0] == 3000


@pytest.mark.parametrize("at", [0, 1])
def test_a_failure_of_any_worker_reaches_the_caller_and_the_team_lives_on(at):
    def fail(worker):
        if worker == at:
            raise ValueError("no")
        return worker

    with Team(3) as team:
        for call in (team.run, team.share):
            with pytest.raises(ValueError, match="no"):
                call(fail)
            assert call(lambda worker: worker) == 0


def test_the_caller_takes_a_share_where_nobody_waits_for_another():
    with Team(3) as team:
        names = [None] * 3
        assert team.share(lambda i: names.__setitem__(i, threading.current_thread().name) or i) == 0
        assert names == [threading.current_thread().name, "fastsoftmax-1", "fastsoftmax-2"]


def test_the_threads_end_with_the_team():
    before = threading.active_count()
    with Team(4):
        assert threading.active_count() == before + 4
    assert threading.active_count() == before


def test_teams_work_side_by_side():
    def work(out):
        sums = np.ones(2)
        with Team(2) as team:
            for _ in range(20):
                team.run(lambda i: rounds(sums, team.barrier, i, 2, 3))
        out.append(sums[0])

    out = []
    threads = [threading.Thread(target=work, args=(out,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert out == [2.0**60] * 3


def test_an_interrupt_waits_for_the_call_to_end(monkeypatch):
    done = []

    def slow(worker):
        time.sleep(0.2)
        done.append(worker)

    with Team(2) as team:
        acquire, calls = team._done.acquire, []

        def interrupted():
            calls.append(1)
            if len(calls) == 1:
                raise KeyboardInterrupt
            return acquire()

        monkeypatch.setattr(team._done, "acquire", interrupted)
        with pytest.raises(KeyboardInterrupt):
            team.run(slow)
    assert sorted(done) == [0, 1]
