"""The only place for what scikit-learn asks of an estimator beside fitting: names, tasks, HTML."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from fastsoftmax.sklearn.given import takes_texts
from fastsoftmax.training.progress import Progress

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as with_callbacks
except ImportError:  # before scikit-learn 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Supports no callbacks."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method as it is."""
        return method


class Conventions(CallbackSupportMixin, TransformerMixin):
    """What a classifier of ours does as scikit-learn's own do it."""

    def __sklearn_tags__(self) -> Any:
        """Return what rows it takes: sparse ones too, and texts where it is told so."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = not takes_texts(self)
        tags.input_tags.string = takes_texts(self)
        tags.input_tags.one_d_array = self.text is True
        tags.input_tags.two_d_array = self.text is not True
        return tags

    def transform(self, X: Any) -> np.ndarray:
        """Return the log-probabilities (n, K), as features for another estimator."""
        return self.predict_log_proba(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return a name for each column of `transform`: softmaxclassifier_ and the class."""
        check_is_fitted(self, "model_")
        _check_feature_names_in(self, input_features, generate_names=False)
        names = [f"{type(self).__name__.lower()}_{label}" for label in self.classes_]
        return np.array(names, dtype=object)

    def _repr_html_inner(self) -> str:
        return super()._repr_html_inner() + self._facts_html()

    def _repr_mimebundle_(self, **given: Any) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**given)
        if "text/html" in bundle:
            bundle["text/html"] += self._facts_html()
        return bundle

    def _facts_html(self) -> str:
        """Return what a notebook shows of the fit below the parameters; nothing before it."""
        if not hasattr(self, "model_"):
            return ""
        record, history = self.model_.record, self.model_.history
        last = history[-1] if history else {}
        facts = {
            "classes": len(self.classes_),
            "features": self.model_.n_features if takes_texts(self) else self.n_features_in_,
            "rows": record.get("rows"),
            "passes": len(history),
            "log-loss": last.get("log_loss"),
            "accuracy": last.get("accuracy"),
            "l2": record.get("options", {}).get("l2"),
            "left to gain": record.get("gain"),
            "ended by": record.get("ended"),
        }
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{escape(_shown(value))}</td></tr>"
            for name, value in facts.items()
            if value is not None
        )
        return f"<details open><summary>The fit</summary><table>{rows}</table></details>"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(
        value, int) else str(value)  # fmt: skip


class FitTasks:
    """Tells scikit-learn's callbacks of each epoch and pass of a fit: a task in that of the fit."""

    def __init__(self, estimator: Any, X: Any, y: Any) -> None:
        """Open the task of the fit, where this scikit-learn has callbacks."""
        begin = getattr(estimator, "_init_callback_context", None)
        self._estimator, self._given = estimator, {"X": X, "y": y}
        self._context = None if begin is None else begin(max_subtasks=None)
        if self._context is not None:
            self._context.call_on_fit_task_begin(estimator=estimator, **self._given)

    def on_epoch(self, progress: Progress) -> bool:
        """Tell of a task that is done; return whether a callback wants no more."""
        if self._context is None:
            return False
        task = self._context.subcontext(task_name=progress.name.split()[0])
        told = {"estimator": self._estimator, **self._given}
        task.call_on_fit_task_begin(**told)
        return bool(task.call_on_fit_task_end(**told))

    on_pass = on_epoch

    def close(self) -> None:
        """End the task of the fit."""
        if self._context is not None:
            self._context.call_on_fit_task_end(estimator=self._estimator, **self._given)
