"""The only place that decides sizes: of tiles and blocks, and with which of them each rule pays."""

from __future__ import annotations

from fastsoftmax.kernels.level import LEVEL

MANY = LEVEL.registers == 32  # AVX-512 and ARM; AVX2 has 16
# 4 x 5 sums, 4 rows and a broadcast fill 32 registers; 4 x 3 sums, 3 classes and a row fill 16. One
# more is kept in memory, and a tile takes twice as long, or five times where the stack lies badly.
ROW_TILE = 4
CLASS_TILE = 5 if MANY else 3
SQUARE = 4 if MANY else 2  # columns of a tile of G, of which there are ROW_TILE and no class tile
# Vectors of W side by side in an update tile. Fewer than eight sums wait for each other.
WIDE = 4
WIDE_AVERAGED = 2  # the same with sums of W: twice the registers
WIDE_COUPLED = 4 if MANY else 2  # the same for the coupling of ROW_TILE rows
# A sweep tile keeps 8 x 3 sums, a row of three classes and two vectors at hand.
SWEEP_ROWS = 8
SWEEP_CLASSES = 3 if MANY else 1
# Numbers from one row of a panel to the next, and of a block's coefficients: constants, so that one
# address serves all rows. With an address for each, half of them lay on the stack.
PANEL_ROW = 784
COEFFICIENTS_ROW = 16
# Rows whose products with each other, each pair once, fill the registers.
GRAM_TILE = 8 if MANY else 4

WORKER_FLOPS = 2_000_000  # of a block, that make another worker worth waiting for
# Lookahead costs B / (2 K) + B / (2 d) of the useful work: with this and blocks of 32 rows, up to
# 6 %. At K = 1,000, d = 768 one thread takes 1.04 times as long, two the same, twelve 0.8 of the
# time; where W comes from memory (K = 10,000, d = 1,024) one takes 1.06 and sixteen 0.95.
AHEAD = 256
# Numbers of W from which on it comes from memory once a block: K = 10,000, d = 1,024 takes 1.27
# times as long in blocks of 32 rows, 1.04 times in those of 64; K = 2,000 takes less with 32.
LARGE = 2**22
# Panels pay for at most this many classes and at least this many features: against blocks shared by
# class, the time is 0.75 to 0.85 at (K, d) = (10, 784), 0.8 at (2, 784) and (16, 784), 0.85 to 0.95
# at (10, 300), 1 at (10, 128), 1.2 at (7, 64) and (4, 128).
PANEL_CLASSES, PANEL_FEATURES = 16, 300
PANEL_WIDTH = 384  # features of a panel, at least; PANEL_ROW has room for twice as many
# Up to so many classes, the weights of a feature are one vector; above so many features blocks of
# rows, which touch W less often, are faster. For 10 classes with AVX2 64 features take 133 ns a row
# instead of 182 to 340 (as the stack lies), 128 take 225 instead of 260 to 440, 256 take 1.1 times
# as long; with AVX-512 64 take 117 instead of 140, 128 take 1.1 times as long.
NARROW_CLASSES, NARROW_FEATURES = 16, 64 if MANY else 128
NARROW_ROWS = 32  # gathered at once
RANGE_SUMS = 2**17  # numbers: sixteen ranges of these take 16 MB
# Rows of a full gradient that are summed in the model's dtype before they are added in float64. A
# block of 64 alone took a tenth of the time to add; sums of 256 rows in float32 are off by 1e-6 of
# themselves, and the loss at the optimum by the square of that.
DRAINED_ROWS = 256


def is_tiny(K: int, d: int) -> bool:
    """Return whether the plain loop is faster than the blocked one."""
    return K * d < 400


def is_narrow(K: int, d: int) -> bool:
    """Return whether rows are stepped one by one with the weights of a feature in one vector."""
    return K <= NARROW_CLASSES and d <= NARROW_FEATURES and not is_tiny(K, d)


def block_rows(K: int, d: int) -> int:
    """Return B, how many rows are gathered and, unless `is_tiny`, stepped together."""
    if is_tiny(K, d):
        return 128  # 16 at once cost a third more: gather and steps hinder each other
    if MANY and K * d >= LARGE:
        return 96
    return 16 if K <= 64 or (not MANY and d > 1024) else 32


def looks_ahead(K: int, d: int) -> bool:
    """Return whether the steps of one block are taken while W is brought up to the one before."""
    return AHEAD * (K + d) <= K * d < LARGE


def has_panels(K: int, d: int) -> bool:
    """Return whether workers share the features: a class each would be too little to share."""
    return K <= PANEL_CLASSES and d >= PANEL_FEATURES


def panel_count(d: int) -> int:
    """Return how many panels d features are cut into."""
    return max(1, d // PANEL_WIDTH)


def useful_workers(K: int, d: int, threads: int) -> int:
    """Return how many of `threads` workers are worth having.

    Each needs a class tile of its own, and enough of a block to outweigh barriers and the rows
    and residuals that move between cores: two workers at K = 10, d = 784 took 1.0 to 1.8 times as
    long as one, at K = 1,000, d = 768 they take 0.55 of the time.
    """
    tiles = -(-K // CLASS_TILE)
    worth = 4 * K * d * block_rows(K, d) // WORKER_FLOPS
    return max(1, min(threads, tiles, worth))


def range_count(K: int, d: int) -> int:
    """Return how many ranges the rows of a full gradient are cut into: few where sums are large."""
    return 16 if K * d <= RANGE_SUMS else 8 if K * d <= 8 * RANGE_SUMS else 4


def gradient_rows(K: int, d: int) -> int:
    """Return how many rows of a full gradient make a block: no step waits for another.

    64 take 0.87 to 0.95 of the time of 32, with AVX-512 and AVX2 alike; 128 take as long.
    """
    if is_tiny(K, d):
        return block_rows(K, d)
    return 64 if K * d <= RANGE_SUMS else 32
