"""SoftmaxClassifier is a scikit-learn classifier in every respect that scikit-learn checks."""

import pickle
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastsoftmax
from fastsoftmax import (
    DataError,
    FastsoftmaxError,
    OptionError,
    SoftmaxClassifier,
)
from fastsoftmax.sklearn import estimator as home

# A row of weight 2 is dealt to one fold, the row twice to two; by SGD it is one long step, not two.
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "rows are dealt to folds, or take steps",
    "check_sample_weight_equivalence_on_sparse_data": "rows are dealt to folds, or take steps",
}
EXACT = SoftmaxClassifier(l2=0.01, dtype="float64", tol=1e-13)


@parametrize_with_checks(
    [EXACT, SoftmaxClassifier()],
    expected_failed_checks=lambda e: {} if e.l2 == 0.01 else EXPECTED_FAILURES,
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scikit_learn_has_no_complaint(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning")
def test_it_is_as_accurate_as_logistic_regression(iris):
    digits = (load_digits().data / 16, load_digits().target)
    # To choose l2 in each fold of the digits takes a minute; scikit-learn takes C = 1 as well.
    for (X, y), l2 in ((iris, "auto"), (digits, 1 / len(digits[1]))):
        ours = cross_val_score(SoftmaxClassifier(l2=l2), X, y, cv=5).mean()
        theirs = cross_val_score(LogisticRegression(max_iter=2000), X, y, cv=5).mean()
        assert ours > theirs - 0.02


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_it_takes_part_in_pipelines_and_searches():
    X, y = load_iris(return_X_y=True)
    pipe = make_pipeline(StandardScaler(), SoftmaxClassifier(l2=1e-2))
    search = GridSearchCV(pipe, {"softmaxclassifier__max_iter": [5, 20]}, cv=3).fit(X, y)
    assert search.best_score_ > 0.9
    assert clone(search.best_estimator_).fit(X, y).score(X, y) > 0.9


def test_a_pickled_classifier_predicts_the_same(iris):
    X, y = iris
    model = SoftmaxClassifier().fit(X, y)
    assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("names", [["a", "b", "c"], [False, True], [3.0, 7.0, 9.0], [-1, 0, 5]])
def test_predictions_come_in_the_labels_own_type(iris, names):
    X, y = iris
    labels = np.array(names)[y % len(names)]
    model = SoftmaxClassifier(max_iter=3).fit(X, labels)
    assert model.predict(X).dtype == labels.dtype
    assert set(model.predict(X)) <= set(names)
    assert_array_equal(model.classes_, np.unique(labels))


def test_two_classes_have_the_shapes_of_linear_models(iris):
    X, y = iris[0][:100], iris[1][:100]
    model = SoftmaxClassifier().fit(X, y)
    assert model.coef_.shape == (1, 4)
    assert model.intercept_.shape == (1,)
    assert_allclose(model.decision_function(X), X @ model.coef_[0] + model.intercept_[0])
    assert_allclose(model.predict_proba(X)[:, 1], 1 / (1 + np.exp(-model.decision_function(X))))
    assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))


def test_columns_of_a_data_frame_are_remembered(iris):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(iris[0], columns=["a", "b", "c", "d"])
    model = SoftmaxClassifier().fit(frame, iris[1])
    assert list(model.feature_names_in_) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"a": "z"}))


def test_partial_fits_are_one_pass_in_order(iris):
    X, y = iris
    whole = SoftmaxClassifier(dtype="float64").partial_fit(X, y, classes=[0, 1, 2])
    parts = SoftmaxClassifier(dtype="float64", learning_rate=whole._rate)
    for part in (slice(0, 40), slice(40, 41), slice(41, 150)):
        parts.partial_fit(X[part], y[part], classes=[0, 1, 2])
    assert_allclose(parts.coef_, whole.coef_, rtol=1e-9)
    assert len(parts.loss_curve_) == 3


def test_partial_fit_uses_weights_as_they_come(iris):
    X, y = iris
    twice = SoftmaxClassifier(learning_rate=0.05, dtype="float64")
    twice.partial_fit(X, y, classes=[0, 1, 2], sample_weight=np.full(150, 2.0))
    longer = SoftmaxClassifier(learning_rate=0.1, dtype="float64")
    longer.partial_fit(X, y, classes=[0, 1, 2])
    assert_allclose(twice.coef_, longer.coef_, rtol=1e-12)


def test_partial_fit_refuses_what_it_cannot_know(iris):
    X, y = iris
    with pytest.raises(ValueError, match="classes must be given"):
        SoftmaxClassifier().partial_fit(X, y)
    model = SoftmaxClassifier().partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="not in classes"):
        model.partial_fit(X, y + 1)


def test_partial_fit_refuses_to_balance_what_it_has_not_seen(iris):
    X, y = iris
    with pytest.raises(OptionError, match="needs all rows at once"):
        SoftmaxClassifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])


@pytest.mark.parametrize("rate", [0, 0.0, -1.0, "fast", float("nan")])
def test_partial_fit_refuses_a_step_that_is_none(iris, rate):
    X, y = iris
    with pytest.raises(OptionError, match="learning_rate must be a number > 0"):
        SoftmaxClassifier(learning_rate=rate).partial_fit(X, y, classes=[0, 1, 2])


def test_rows_of_weight_0_alone_change_nothing(iris):
    X, y = iris
    none = np.zeros(len(y))
    model = SoftmaxClassifier().partial_fit(100 * X, y, classes=[0, 1, 2], sample_weight=none)
    assert_allclose(model.predict_proba(X), 1 / 3)
    assert (model.n_iter_, model.loss_curve_) == (0, [])
    model.partial_fit(X, y)
    assert_array_equal(model.coef_, SoftmaxClassifier().partial_fit(X, y, [0, 1, 2]).coef_)
    before = model.coef_
    model.partial_fit(X, y, sample_weight=none)
    assert_array_equal(model.coef_, before)
    assert model.n_iter_ == 1
    with pytest.raises(ValueError, match="weights of all rows are zero"):
        SoftmaxClassifier().fit(X, y, sample_weight=none)


def test_classes_that_come_later_are_an_error_that_says_so(iris):
    X, y = iris
    first = SoftmaxClassifier().partial_fit(X[y < 2], y[y < 2], classes=[0, 1])
    with pytest.raises(ValueError, match=r"not in classes, as \[2\]: .* Name there all that will"):
        first.partial_fit(X, y)
    with pytest.raises(ValueError, match="are not those of the first call"):
        first.partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="not in classes"):  # text is no number
        SoftmaxClassifier().partial_fit(X, y.astype(str), classes=[0, 1, 2])
    with pytest.raises(ValueError, match="labels of one kind"):
        SoftmaxClassifier().partial_fit(X, y, classes=[0, "a", None])


@pytest.mark.parametrize(
    "labels", [[2**53, 2**53 + 1, 2**53 + 2], [2**63 + 1, 2**63 + 2, 2**63 + 3]]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_whole_numbers_of_any_size_keep_their_value(iris, labels):
    X, y = iris
    pandas = pytest.importorskip("pandas")
    kind = "int64" if labels[0] < 2**63 else "uint64"
    named = np.array(labels, kind)[y]
    nullable = pandas.Series(named).astype(kind.replace("int", "Int").replace("u", "U"))
    for given in (named, nullable):
        fitted = SoftmaxClassifier(max_iter=5, l2=0.01).fit(X, given)
        assert fitted.classes_.tolist() == labels
        assert fitted.score(X, given) > 0.8
        stepped = SoftmaxClassifier().partial_fit(X, given, classes=labels)
        assert set(stepped.predict(X).tolist()) <= set(labels)


def test_probabilities_are_never_nan(iris):
    X, y = iris
    model = SoftmaxClassifier(l2=1e-6).fit(X * 1e-3, y)
    far = np.array([[5e307] * 4, [-5e307] * 4, X[0]])
    p = model.predict_proba(far)
    assert_allclose(p.sum(axis=1), 1)
    assert_array_equal(p.argmax(axis=1), np.searchsorted(model.classes_, model.predict(far)))
    assert_array_equal(model.predict(far[:2]), model.predict(far[:2] * 2.0**-100))
    with pytest.raises(DataError, match="row 0: the features are so large that their logits"):
        model.decision_function(far)
    with pytest.raises(DataError, match="their squares do not fit float64"):
        SoftmaxClassifier().partial_fit(X * 1e200, y, classes=[0, 1, 2])


def test_one_iteration_learns_something(iris):
    X, y = iris
    for options in ({}, {"warm_start": True}):
        with pytest.warns(ConvergenceWarning, match="max_iter=1 "):
            model = SoftmaxClassifier(l2=1e-6, max_iter=1, **options).fit(X, y)
        assert model.n_iter_ == 1
        assert model.score(X, y) > 0.7


def test_what_scikit_learn_refuses_is_one_of_our_errors(iris):
    X, y = iris
    model = SoftmaxClassifier(max_iter=5, l2=0.1)
    wrong = (X[:0], y[:0]), (X, y[:3]), (X, y / 7), (X[None], y), ({"a": 1}, y), (np.array(3), y)
    for given, labels in wrong:
        with pytest.raises(FastsoftmaxError):
            model.fit(given, labels)
        with pytest.raises(FastsoftmaxError):
            model.partial_fit(given, labels, classes=[0, 1, 2])


def test_an_array_is_no_option(iris):
    with pytest.raises(FastsoftmaxError, match="solver"):
        SoftmaxClassifier(solver=np.ones(3)).fit(*iris)
    with pytest.raises(FastsoftmaxError, match="learning_rate"):
        SoftmaxClassifier(learning_rate=np.ones(3)).partial_fit(*iris, classes=[0, 1, 2])


def test_a_warm_start_goes_on_from_the_last_weights(iris):
    X, y = iris
    model = SoftmaxClassifier(solver="sgd", max_iter=1, warm_start=True).fit(X, y)
    first = model.loss_curve_[0]
    assert model.fit(X, y).loss_curve_[0] < first


def test_balanced_classes_are_weighted_rows(iris):
    X, y = iris[0][:120], iris[1][:120]
    balanced = SoftmaxClassifier(class_weight="balanced").fit(X, y)
    weighted = SoftmaxClassifier().fit(X, y, sample_weight=compute_sample_weight("balanced", y))
    assert_array_equal(balanced.coef_, weighted.coef_)


def test_tol_ends_a_run_that_gains_nothing_more(iris):
    model = SoftmaxClassifier(solver="sgd", learning_rate=0.05, tol=1e-3).fit(*iris)
    assert 2 < model.n_iter_ < 200
    assert model.loss_curve_[-2] - model.loss_curve_[-1] < 1e-3


def test_the_same_seed_gives_the_same_bits_for_any_threads(iris):
    X, y = iris
    for solver in ("sgd", "lbfgs"):
        first = SoftmaxClassifier(solver=solver, random_state=3, n_jobs=1).fit(X, y)
        again = SoftmaxClassifier(solver=solver, random_state=3, n_jobs=2).fit(X, y)
        assert_array_equal(again.coef_, first.coef_)
    other = SoftmaxClassifier(solver="sgd", random_state=4, max_iter=20, l2=0.0).fit(X, y)
    one = SoftmaxClassifier(solver="sgd", random_state=3, max_iter=20, l2=0.0).fit(X, y)
    assert (other.coef_ != one.coef_).any()


def test_its_model_saves_and_speaks_the_labels(iris, tmp_path):
    X, y = iris
    labels = np.array(["x", "y", "z"])[y]
    model = SoftmaxClassifier().fit(X, labels)
    model.model_.save(tmp_path / "m.safetensors")
    loaded = fastsoftmax.load(tmp_path / "m.safetensors")
    assert (loaded.predict(X) == model.predict(X)).mean() > 0.99


def test_an_interrupt_leaves_it_fitted(iris, monkeypatch):
    def interrupt(self, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(home._Patience, "__call__", interrupt)
    ours = SoftmaxClassifier(solver="sgd", learning_rate=0.01)
    with pytest.raises(KeyboardInterrupt):
        ours.fit(*iris)
    assert ours.score(*iris) > 0.3


@pytest.mark.parametrize(
    "options", [{"l2": 1e-6}, {"solver": "sgd", "tol": 1e-9, "learning_rate": 1e-4}]
)
def test_a_fit_that_max_iter_ended_is_warned_of_as_scikit_learn_does(options):
    X, y = load_digits(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match="ended by max_iter=2 before it had converged"):
        estimator = SoftmaxClassifier(max_iter=2, **options).fit(X, y)
    assert estimator.score(X, y) > 0.5


def test_epochs_of_steps_without_a_tolerance_are_as_many_as_were_asked_for():
    X, y = load_digits(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SoftmaxClassifier(solver="sgd", max_iter=2).fit(X, y)


def test_as_a_transformer_it_names_its_columns_and_gives_frames():
    pandas = pytest.importorskip("pandas")
    X, y = load_iris(return_X_y=True, as_frame=True)
    y = y.map({0: "a", 1: "b", 2: "c"})
    fitted = SoftmaxClassifier(l2=0.01).set_output(transform="pandas").fit(X, y)
    frame = fitted.transform(X)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == [f"softmaxclassifier_{label}" for label in "abc"]
    assert list(frame.columns) == list(fitted.get_feature_names_out())
    assert_allclose(frame, fitted.predict_log_proba(X))
    with pytest.raises(ValueError, match="input_features is not equal to feature_names_in_"):
        fitted.get_feature_names_out(["a"])


def test_sample_weights_are_routed_to_the_fit(iris):
    X, y = iris
    weights = np.where(y == 0, 0.0, 1.0)
    from sklearn import config_context

    with config_context(enable_metadata_routing=True):
        asked = SoftmaxClassifier(l2=0.01).set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=True)
        routed = make_pipeline(scaler, asked).fit(X, y, sample_weight=weights)
    plain = SoftmaxClassifier(l2=0.01)
    plain.fit(StandardScaler().fit(X, sample_weight=weights).transform(X), y, sample_weight=weights)
    assert_allclose(routed[-1].coef_, plain.coef_)


def test_its_tags_say_what_it_takes():
    from sklearn.utils import get_tags

    tags = get_tags(SoftmaxClassifier())
    assert tags.estimator_type == "classifier"
    assert tags.classifier_tags.multi_class
    assert tags.target_tags.required
    assert tags.input_tags.sparse
    assert not tags.input_tags.allow_nan


def test_a_notebook_shows_the_facts_of_a_fit(iris):
    X, y = iris
    estimator = SoftmaxClassifier(l2=0.01)
    assert "The fit" not in estimator._repr_html_()
    hostile = np.where(y == 0, "<script>", "b")
    page = estimator.fit(X, hostile)._repr_mimebundle_()["text/html"]
    assert "The fit" in page
    assert "<td>150</td>" in page
    assert "<td>tolerance</td>" in page
    assert "<script>" not in page.partition("The fit")[2]


def test_scikit_learns_callbacks_hear_of_each_pass_and_may_stop(iris):
    pytest.importorskip("sklearn.callback")

    class Witness:
        def __init__(self, most):
            self.most, self.tasks, self.torn = most, [], False

        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            self.torn = True

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context):
            self.tasks.append(context.task_name)
            return len(self.tasks) == self.most

    whole, cut = Witness(0), Witness(2)
    fitted = SoftmaxClassifier(l2=0.01).set_callbacks(whole).fit(*iris)
    assert whole.tasks == ["pass"] * fitted.n_iter_ + ["fit"]
    assert whole.torn
    fitted = SoftmaxClassifier(l2=0.01).set_callbacks(cut).fit(*iris)
    assert (fitted.n_iter_, fitted.model_.record["ended"]) == (2, "callback")


WORDS = {"good": "fine great lovely", "bad": "dull poor long", "odd": "weird strange unlike"}


def reviews(rows):
    """Return texts, and what each says of a film."""
    rng = np.random.default_rng(0)
    labels = np.array(list(WORDS))[rng.integers(0, 3, rows)]
    texts = [
        f"A {rng.choice(WORDS[label].split())} film, No {rng.integers(5)}." for label in labels
    ]
    return texts, labels


TEXTS, SAID = reviews(120)
FEW = {"l2": 1e-3, "max_iter": 20}


@pytest.mark.parametrize("kind", ["list", "str array", "object array", "series", "arrow"])
def test_texts_that_come_one_by_one_are_fitted_and_predicted(kind):
    pandas, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    made = {
        "list": list,
        "str array": np.array,
        "object array": lambda texts: np.array(texts, object),
        "series": lambda texts: pandas.Series(texts, index=range(7, 7 + len(texts))),
        "arrow": pa.array,
    }[kind]
    fitted = SoftmaxClassifier(text=True).fit(made(TEXTS), SAID)
    assert fitted.score(made(TEXTS), SAID) == 1.0
    assert_array_equal(fitted.predict(made(["how DULL"])), ["bad"])
    assert_allclose(fitted.predict_proba(made(TEXTS)).sum(axis=1), 1)
    assert not hasattr(fitted, "n_features_in_")
    assert fitted.coef_.shape == (3, fitted.model_.n_features)
    told = fastsoftmax.train(pa.table({"text": TEXTS, "y": SAID}), "y", text=["text"])
    assert_array_equal(fitted.coef_, told.coef)
    assert f"<td>{fitted.model_.n_features}</td>" in fitted._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow"])
def test_columns_of_texts_stand_beside_numbers_and_are_known_by_name(kind):
    library = pytest.importorskip({"arrow": "pyarrow"}.get(kind, kind))
    make = library.table if kind == "arrow" else library.DataFrame
    size = np.arange(len(TEXTS)) / 100
    frame = make({"title": TEXTS, "size": size, "body": TEXTS[::-1]})
    fitted = SoftmaxClassifier(text=["title", "body"], chars="3-4", l2=1e-4).fit(frame, SAID)
    assert (fitted.n_features_in_, list(fitted.feature_names_in_)) == (3, ["title", "size", "body"])
    if kind == "pandas":  # an index is no feature
        again = clone(fitted).fit(frame.set_index(np.arange(200, 80, -1)), SAID)
        assert list(again.feature_names_in_) == ["title", "size", "body"]
        assert_array_equal(again.coef_, fitted.coef_)
    assert fitted.score(frame, SAID) > 0.99
    names = fitted.model_.feature_names
    assert {"title=dull", "size", "body=~dull"} <= set(names)
    turned = make({"body": TEXTS[::-1], "title": TEXTS, "size": size})
    assert_array_equal(fitted.predict_proba(turned), fitted.predict_proba(frame))
    with pytest.raises(DataError, match='no column "size"'):
        fitted.predict(make({"body": TEXTS, "title": TEXTS}))


def test_texts_are_searched_cloned_pickled_and_weighted():
    from sklearn.utils import get_tags

    estimator = SoftmaxClassifier(text=True, norm=None, **FEW)
    assert clone(estimator).get_params() == estimator.get_params()
    tags = get_tags(estimator).input_tags
    assert (tags.string, tags.one_d_array, tags.two_d_array, tags.sparse) == (
        True,
        True,
        False,
        False,
    )
    search = GridSearchCV(estimator, {"ngrams": ["1", "1-2"], "bits": [None, 10]}, cv=2)
    best = search.fit(TEXTS, SAID).best_estimator_
    assert search.best_score_ > 0.9
    again = pickle.loads(pickle.dumps(best))
    assert_array_equal(again.predict_proba(TEXTS), best.predict_proba(TEXTS))
    weights = np.where(SAID == "odd", 0.0, 1.0)
    assert "odd" not in clone(best).fit(TEXTS, SAID, weights).predict(TEXTS)
    begun = clone(best).set_params(warm_start=True, solver="sgd", max_iter=1).fit(TEXTS, SAID)
    first = begun.loss_curve_[0]
    assert begun.fit(TEXTS, SAID).loss_curve_[0] < first
    begun.set_params(text=None, norm="l2", bits=None, ngrams="1-2", warm_start=False)
    assert begun.fit(np.eye(3), [0, 1, 2]).n_features_in_ == 3


@pytest.mark.parametrize(
    ("told", "X", "message"),
    [
        (None, TEXTS, "Texts that come one by one need text=True"),
        (None, np.array(TEXTS), "Texts that come one by one need text=True"),
        (True, "a film", r"X is one text: give a list of texts"),
        (True, [*TEXTS[1:], 3], "row 119: X has 3: text=True is for strings"),
        (True, [*TEXTS[1:], None], 'row 119: column "text" is null'),
        (True, np.eye(120), r"X is an array of shape \(120, 120\): text=True is for a list"),
        (True, dict(enumerate(TEXTS)), "X is a dict: text=True is for a list"),
        (True, TEXTS[1:], "target has 120 values, but the data have 119 rows"),
        (["title"], np.eye(120), "X is a ndarray, whose columns have no names"),
    ],
    ids=range(9),
)
def test_texts_that_are_none_are_an_error_that_says_what_to_give(told, X, message):
    with pytest.raises(FastsoftmaxError, match=message):
        SoftmaxClassifier(text=told, **FEW).fit(X, SAID)


def test_columns_of_strings_that_nobody_named_are_an_error_that_says_how():
    pandas, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    columns = {"size": np.arange(120.0), "title": TEXTS}
    for frame in (pandas.DataFrame(columns), pa.table(columns)):
        with pytest.raises(DataError, match=r'Columns of texts are named, as text=\["title"\]'):
            SoftmaxClassifier(**FEW).fit(frame, SAID)
        with pytest.raises(DataError, match=r"X has columns, and text=True is for texts that come"):
            SoftmaxClassifier(text=True, **FEW).fit(frame, SAID)
        with pytest.raises(DataError, match='"heading"'):
            SoftmaxClassifier(text=["heading"], **FEW).fit(frame, SAID)
        with pytest.raises(OptionError, match=r'text must be a list of columns, as \["title'):
            SoftmaxClassifier(text="title", **FEW).fit(frame, SAID)
    with pytest.raises(OptionError, match="ngrams is of columns of texts"):
        SoftmaxClassifier(ngrams="1", **FEW).fit(np.eye(120), SAID)
    with pytest.raises(OptionError, match="partial_fit takes no texts"):
        SoftmaxClassifier(text=True).partial_fit(TEXTS, SAID, classes=list(WORDS))


def test_it_has_every_option_of_texts_with_its_default():
    from dataclasses import fields

    from fastsoftmax.options import Texts

    ours = SoftmaxClassifier().get_params()
    for option in fields(Texts):
        if option.name != "hashed":
            assert ours[option.name] == option.default
