"""What is scikit-learn's: the only room that imports it."""

from fastsoftmax.errors import MissingExtraError

try:
    from sklearn.utils.validation import validate_data  # noqa: F401 - 1.6 brought it
except ImportError as missing:
    raise MissingExtraError(
        'this needs scikit-learn 1.6 or newer: pip install "fastsoftmax[sklearn]"'
    ) from missing

from fastsoftmax.sklearn.estimator import SoftmaxClassifier, logistic_regression

__all__ = ["SoftmaxClassifier", "logistic_regression"]
