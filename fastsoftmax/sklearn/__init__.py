"""What is scikit-learn's: the only room that imports it."""

from fastsoftmax.sklearn.estimator import SoftmaxClassifier, logistic_regression

__all__ = ["SoftmaxClassifier", "logistic_regression"]
