"""The only place that takes steps in rounds: shards step apart, and go on from their mean."""

from __future__ import annotations

import math
import warnings

import numpy as np

from fastsoftmax.data.loading.shards import Shards
from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.data.mixing import POOR, Mixing
from fastsoftmax.labels import Classes
from fastsoftmax.optim.shared_mean import Arrays
from fastsoftmax.options import TrainOptions
from fastsoftmax.training import step_tasks
from fastsoftmax.training.divergence import diverged, is_astray
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.shard_tasks import alone
from fastsoftmax.training.step_tasks import Round, StepsFound, StepState

LEAST_ROUNDS = 8  # of an epoch
# Rounds of an epoch for each shard, and at most: a drift lasts for about as many rounds as there
# are shards, and that is to be a small part of an epoch. nycflights13, six epochs of steps alone
# against one machine's in 8, 16 and 32 shards: 0.19, 0.34 and 0.44 % above it with 4 rounds for
# each shard up to 64, 0.07, 0.15 and 0.16 % with 8 up to 256.
ROUNDS_A_SHARD, MOST_ROUNDS = 8, 256
ROUNDS_BEFORE, MOST_BEFORE = 4, 64  # where full gradients end the run
UNLIKE_ROUNDS = 64  # where shards are unlike each other
ENOUGH_ROUNDS = 4  # for each shard: fewer are worth a warning
ROUND_FLOPS = 2e9  # of each shard in a round: about 0.05 s of a core
SHARED_ROWS = 1000  # of each shard in a round, for each shard: merging then takes the smaller part
LEAST_ROWS = 16  # of each shard in a round, whatever else
ALIKE = 0.9  # shards whose mixing is below are unlike each other
# Of a step size that is chosen, where shards are unlike: what each learns of its own rows alone is
# the less. Fashion-MNIST sorted by class, 2 shards: 0.3 % below one machine's, not 0.4 % above.
CAUTION = 0.5
# Shards that step apart go 1 / S of the way that one goes after the other, where that is long and
# flat. What the rounds before have in common is gone on with: S times as far with 1 - 1 / S.
# Without it six epochs end 3.4 % above one machine's on Fashion-MNIST in 8 shards; with it, level.
MOST_DRIFT = 0.95


def round_count(learner: Learner, shards: int, rows: int, mixing: float) -> int:
    """Return in how many rounds an epoch is taken, of `rows` rows in so many shards.

    mixing: how near the labels of shards are to the whole's.
    """
    own = rows / shards
    wanted, most = float(UNLIKE_ROUNDS), UNLIKE_ROUNDS
    if mixing >= ALIKE:
        each, most = ROUNDS_A_SHARD, MOST_ROUNDS
        if learner.finishes:
            each, most = ROUNDS_BEFORE, MOST_BEFORE
        flops = 4.0 * learner.K * learner.sgd.row_numbers
        long = own / max(ROUND_FLOPS / flops, SHARED_ROWS * shards)
        wanted = max(long, each * shards, LEAST_ROUNDS)
    return int(max(min(wanted, most, own / LEAST_ROWS), 1))


def mixing_of(shards: Shards, classes: Classes, sample: Window) -> float:
    """Return how near the labels of shards are to those of all rows, as far as a sample shows it.

    Rows that lie in memory as a whole are shared out to shards row by row.
    """
    if shards.source.whole(classes) is not None:
        return 1.0
    owners = shards.owners(np.asarray(sample.number(np.arange(sample.rows))))
    counts = np.zeros((len(shards), len(classes)), np.int64)
    np.add.at(counts, (owners, sample.labels), 1)
    mixing = Mixing(counts.sum(axis=0))
    for own in counts:
        mixing.add(own)
    return mixing.value


def warn_of_ends_above(mixing: float, rounds: int, shards: int) -> None:
    """Warn where shards are so unlike each other, or drift apart for so large a part of an epoch,
    that steps may end above one machine's.
    """
    if mixing < POOR:
        why = f"the labels of shards are unlike the whole (mixing {mixing:.2f})"
        above, else_ = "some percent", "write the rows in another order, or take fewer shards"
    elif rounds < ENOUGH_ROUNDS * shards:
        why = (
            f"{shards} shards drift apart for about as many rounds, {shards / rounds:.0%} of the"
            f" {rounds} that an epoch has"
        )
        above, else_ = "some tenths of a percent", "or take fewer shards"
    else:
        return
    warnings.warn(
        f"{why}, so steps in rounds may end {above} above those of one machine: leave out epochs"
        f" and learning_rate, so that full gradients end the run, {else_}",
        UserWarning,
        stacklevel=2,
    )


def stepped(shards: Shards, classes: Classes, learner: Learner, now: Round) -> StepsFound:
    """Return where a round leads that begins at a learner's weights."""
    state, sgd = learner.state, learner.sgd
    assert state.schedule is not None
    found: StepsFound = shards.merged(
        f"epoch {now.epoch + 1}, steps {now.number + 1} of {now.of}, shard",
        step_tasks.step_over,
        StepState(
            classes, learner.d, learner.nonzeros, _of_tasks(learner), learner.prepared,
            learner.row_weights.fresh(), state.schedule, sgd.shared(), now, state.seen,
            shards.source.rows or 1, learner.steps or 1, sgd.bound, sgd.bias_share,
            sgd.weights.is_averaging,
        ),
    )  # fmt: skip
    return found


def take(learner: Learner, found: StepsFound) -> int:
    """Let a learner go on from where shards came; return how many rows took a step.

    Raises DivergedError where their losses are far above that of guessing.
    """
    state, weights = learner.state, learner.sgd.weights
    if state.first_rate is None:
        state.first_rate = found.rate
    if is_astray(found.loss, learner.K):
        raise diverged(
            f"{found.loss.means()[0]:.3g}", state.seen, "those of a round", learner.rate, math.nan
        )
    rows = found.loss.rows
    state.seen += rows
    state.add(found.loss)
    if rows:
        learner.sgd.share(_gone_on(learner, found.last.mean()))
    if found.average.weight:
        sums = found.average.sums()
        weights.add_to_average(sums["W"], sums["b"], found.average.weight)
    return rows


def _gone_on(learner: Learner, mean: Arrays) -> Arrays:
    """Return where the next round begins: beyond the mean, the way the rounds so far led.

    Nesterov's momentum, of the rounds in the place of gradients.
    """
    state, before = learner.state, learner.sgd.shared()
    keep = min(1.0 - learner.caution / learner.options.sharding.count, MOST_DRIFT)
    found = dict(mean)
    for name in ("W", "b"):
        drift = mean[name] - before[name].astype(np.float64)
        if name in state.drift:
            drift += keep * state.drift[name]
        state.drift[name] = drift
        found[name] = mean[name] + keep * drift
    return found


def forget_early_steps(learner: Learner, now: Round) -> None:
    """Begin the mean anew in the middle of an epoch, where it is the only one."""
    if learner.last_epoch == 1 and learner.averages_tail and now.number <= now.of // 2:
        learner.sgd.weights.restart_average()


def _of_tasks(learner: Learner) -> TrainOptions:
    """Return the options of what takes steps at a worker, where weights of rows are known."""
    return alone(learner.options).changed(class_weight=None)
