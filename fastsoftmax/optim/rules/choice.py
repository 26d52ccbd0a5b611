"""The only list of update rules, and the only place that chooses one.

A new rule is a kernel file, a rule file and a line here: training, `warmup` and the tests walk this
list.
"""

from __future__ import annotations

from fastsoftmax.optim.rules.adagrad import AdaGrad
from fastsoftmax.optim.rules.binary import Binary
from fastsoftmax.optim.rules.blocks import Blocks
from fastsoftmax.optim.rules.lookahead import Lookahead
from fastsoftmax.optim.rules.minibatch import MiniBatch
from fastsoftmax.optim.rules.narrow import Narrow
from fastsoftmax.optim.rules.panels import Panels
from fastsoftmax.optim.rules.rowwise import Rowwise
from fastsoftmax.optim.rules.rule import Rule, Task
from fastsoftmax.optim.rules.sparse import SparseRows
from fastsoftmax.optim.rules.sparse_adagrad import SparseAdaGrad
from fastsoftmax.optim.rules.sparse_batches import SparseBatches

# Asked in this order; the last one takes what is left.
RULES: tuple[type[Rule], ...] = (
    SparseAdaGrad,
    SparseBatches,
    SparseRows,
    AdaGrad,
    MiniBatch,
    Binary,
    Rowwise,
    Narrow,
    Panels,
    Lookahead,
    Blocks,
)


def choose_rule(task: Task) -> type[Rule]:
    """Return the first rule that takes such steps."""
    return next(rule for rule in RULES if rule.fits(task))
