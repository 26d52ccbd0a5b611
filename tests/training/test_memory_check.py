"""What weights take is foreseen: what cannot fit is refused before anything is allocated."""

from __future__ import annotations

import pytest

from fastsoftmax import OptionError
from fastsoftmax.options import TrainOptions
from fastsoftmax.training import memory_check


def test_a_terabyte_of_weights_is_refused_with_what_would_fit(monkeypatch):
    monkeypatch.setattr(memory_check, "available_bytes", lambda: 8 * 10**9)
    options = TrainOptions.of(average=False, l2=0.0)
    with pytest.raises(OptionError) as caught:
        memory_check.refuse_what_does_not_fit(10_000, 10**6, [options])
    assert "10,000,000,000 weights, which take 40.0 GB to train, and 8.0 GB are free" in str(
        caught.value
    )
    assert "fit with 200,000 features" in str(caught.value)
    assert "with 2,000 classes" in str(caught.value)


def test_what_fits_passes_and_settings_add_up(monkeypatch):
    monkeypatch.setattr(memory_check, "available_bytes", lambda: 10**6)
    options = TrainOptions.of(average=False)
    memory_check.refuse_what_does_not_fit(250, 1000, [options])
    with pytest.raises(OptionError, match="GB to train"):
        memory_check.refuse_what_does_not_fit(250, 1000, [options, options])


def test_weights_of_sparse_rows_must_fit_the_memory_that_is_given(monkeypatch):
    monkeypatch.setattr(memory_check, "available_bytes", lambda: 10**12)
    steps = {"average": False, "l2": 0.0, "memory": "1GB"}
    memory_check.refuse_what_does_not_fit(250, 300_000, [TrainOptions.of(**steps)] * 9, 40.0)
    with pytest.raises(OptionError) as caught:
        memory_check.refuse_what_does_not_fit(250, 2**22, [TrainOptions.of(**steps)], 40.0)
    assert "which take 12.68 GB to train, more than memory=1.00GB: give memory=16.5GB" in str(
        caught.value
    )
    memory_check.refuse_what_does_not_fit(250, 2**22, [TrainOptions.of(**steps)])
    with pytest.raises(OptionError, match=r"weights, which take 5\.49 GB"):
        memory_check.refuse_what_does_not_fit(
            250, 900_000, [TrainOptions.of(**{**steps, "average": True})], 40.0
        )


def test_averages_second_moments_and_full_gradients_count():
    plain = TrainOptions.of(average=False)
    more = [
        TrainOptions.of(average=True),
        TrainOptions.of(average=False, adaptive=True),
        TrainOptions.of(average=False, batch_size=8),
        TrainOptions.of(average=False, dtype="float64"),
    ]
    assert memory_check.bytes_per_weight(4, 9, plain) == 4
    assert [memory_check.bytes_per_weight(4, 9, options) for options in more] == [16, 8, 8, 8]
    full = TrainOptions.of(solver="lbfgs", average=False)
    assert memory_check.bytes_per_weight(4, 9, full) > 100


def test_the_machine_tells_what_is_free(monkeypatch, tmp_path):
    assert memory_check.available_bytes() > 10**7
    monkeypatch.setattr(memory_check, "MEMINFO", tmp_path / "nothing")
    monkeypatch.setattr(memory_check, "LIMITS", (str(tmp_path / "limit"),))
    (tmp_path / "limit").write_text("12345")
    assert memory_check.available_bytes() == 12345
