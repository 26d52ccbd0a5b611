"""Numbers in, numbers out: the only room that imports numba.

The letters, in every module here:

    n rows        X (n, d)  features    y (n,)  class index, 0 <= y < K
    d features    W (K, d)  weights     b (K,)  biases
    K classes     z (K,)    logits, then probabilities, then residuals
"""
