"""What it costs to make features of texts, on one thread, beside scikit-learn's vectorizers.

Texts are words drawn as often as ranks of words in a language are, a third of them with passages in
Cyrillic and Han. Before anything is timed, counts are compared with those of plain Python.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

from bench.interleave import median_seconds
from fastsoftmax.data.text import NgramCount, TextEncoder
from fastsoftmax.data.vocabulary import Recipe
from tests import oracle_text

ROWS, QUICK_ROWS, WORDS, KNOWN = 40_000, 4_000, 60, 50_000
SIZES = {"single words": (1, 1), "and pairs of words": (1, 2)}
PASSAGES = (
    "Это пакет содержит библиотеку для обработки текста",
    "这个软件包包含用于处理文本的共享库",
)


def draw_texts(rows: int) -> list[str]:
    """Return texts of some languages."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlcumwfgypbvk"))
    words = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 11, KNOWN)]
    ranks = np.minimum(rng.zipf(1.3, (rows, WORDS)), KNOWN) - 1
    texts = [" ".join(words[rank] for rank in row).capitalize() + "." for row in ranks]
    return [
        f"{text} {PASSAGES[i // 3 % 2]}" if i % 3 == 0 else text for i, text in enumerate(texts)
    ]


def count(array: pa.Array, recipe: Recipe) -> NgramCount:
    """Return in how many texts each n-gram is."""
    found = NgramCount(recipe, 2**23)
    found.add(array, np.ones(len(array), np.bool_), "the text", str)
    return found


def check(texts: list[str], recipe: Recipe) -> None:
    """Raise where n-grams are not those of plain Python."""
    learnt = count(pa.array(texts), recipe).vocabulary(2, 2**20)
    named = [oracle_text.names(text, recipe.words) for text in texts]
    want = oracle_text.vocabulary(named, 2)
    assert set(learnt.all_names()) == set(want)


def bench_text(benchmark, report, quick) -> None:
    """Time counting and encoding texts, and what scikit-learn takes for it."""
    texts = draw_texts(QUICK_ROWS if quick else ROWS)
    array = pa.array(texts)
    size = array.buffers()[2].size / 1e6
    cases = {}
    for name, words in SIZES.items():
        known, hashed = Recipe(words), Recipe(words, bits=18)
        check(texts[:300], known)
        counted = count(array, known)
        encode = TextEncoder(counted.vocabulary(2, 2**20))
        encode_hashed = TextEncoder(count(array, hashed).vocabulary(2, 2**20))
        pattern = r"\w+"
        hashing = HashingVectorizer(n_features=2**18, ngram_range=words, token_pattern=pattern)
        counting = CountVectorizer(min_df=2, ngram_range=words, token_pattern=pattern)
        cases |= {
            f"learn a vocabulary, {name}": lambda known=known: count(array, known),
            f"features of a vocabulary, {name}": lambda e=encode: e(array, "the text", str),
            f"features by hashes, {name}": lambda e=encode_hashed: e(array, "the text", str),
            f"HashingVectorizer, {name}": lambda h=hashing: h.transform(texts),
            f"CountVectorizer, both in one, {name}": lambda c=counting: c.fit_transform(texts),
        }
    for name, taken in median_seconds(benchmark, cases, 1 if quick else 3).items():
        report.add(
            f"Text: {len(texts):,} texts of {1e6 * size / len(texts):.0f} bytes, one thread",
            case=name,
            **{"MB/s": f"{size / taken:.0f}"},
        )
