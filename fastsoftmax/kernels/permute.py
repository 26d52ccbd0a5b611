"""The only place that permutes row numbers: Fisher-Yates with random words from outside."""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.compile import EXACT, kernel


@kernel(EXACT, entry=True)
def fisher_yates(order, words):
    """Permute `order` (n,) int64 in place with n - 1 random `words` uint64, one a swap.

    Word i picks among the i + 1 first places by the high half of a 32 x 32 bit product, so n must
    be below 2^32; the bias is below n / 2^32 per swap (Lemire, Fast Random Integer Generation in
    an Interval, ACM TOMACS 29(1), 2019, section 4).
    """
    for i in range(order.shape[0] - 1, 0, -1):
        high = words[i - 1] >> np.uint64(32)
        j = np.int64((high * np.uint64(i + 1)) >> np.uint64(32))
        order[i], order[j] = order[j], order[i]
