"""Rows for a classifier out of candidates, two classifiers, and probabilities out of their scores.

A row is one option of one question: its features, float32, the agents' in a fixed order, and in the last column the
position of the question's category, -1 where it is none of those of fit. Rows to fit on are sorted, equal ones
together: what is learned depends neither on the order of agents, questions and options nor on how sums were rounded.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from fusion.errors import MissingDependency
from fusion.logit import Candidates, one_thread
from fusion.schema import BoolArray, FloatArray, IntArray

MOST_CATEGORIES = 254
"""Categories that are told apart: what scikit-learn's trees can hold, less one for those that fit did not see."""

# Chosen on folds of recorded questions, 100 to 4,000 of them: small trees lose little where there are many, and are
# better where there are few.
_TREES = {"learning_rate": 0.1, "max_iter": 100, "max_leaf_nodes": 8, "min_samples_leaf": 50}
_STEPS = 1000


class Rows(NamedTuple):
    """Options to learn from, equal ones counted.

    Attributes:
        values: float32 [U, D + 1], features and the category's position.
        right: bool [U], whether the option is right.
        times: int64 [U], how many such options there are.
    """

    values: FloatArray
    right: BoolArray
    times: IntArray


class Boosted(Protocol):
    """The methods of scikit-learn's classifiers that are used here."""

    def fit(self, values: FloatArray, right: BoolArray) -> object:
        """Learn from rows."""

    def decision_function(self, values: FloatArray) -> FloatArray:
        """Return the log odds of rows to be right, float64 [R]."""


def values_of(features_RD: FloatArray, category_R: IntArray) -> FloatArray:
    """Return rows, float32 [R, D + 1]."""
    return np.hstack([features_RD, category_R[:, None]], dtype=np.float32, casting="same_kind")


def rows_of(
    found: Candidates, values: FloatArray, *, right: IntArray, unnamed_right: BoolArray, category: IntArray
) -> Rows:
    """Return every option of labelled questions as a row; those that are left out of the candidates have no features.

    Args:
        found: Candidates of N questions.
        values: float32 [R, D + 1], their rows.
        right: int [N], where the right option stands among the R; -1 where it does not.
        unnamed_right: bool [N], whether it is one of those left out.
        category: int [N], position of the question's category.
    """
    right_R = np.zeros(len(values), dtype=bool)
    right_R[right[right >= 0]] = True
    kinds_UX, times_U = np.unique(np.column_stack([values, right_R]), axis=0, return_counts=True)
    num_right_N = unnamed_right.astype(np.int64)
    extra: list[FloatArray] = []
    extra_times: list[int] = []
    for is_right, count_N in ((False, found.unnamed - num_right_N), (True, num_right_N)):
        for place in np.unique(category).tolist():
            extra.append(np.array([*np.zeros(values.shape[1] - 1), place, is_right]))
            extra_times.append(int(count_N[category == place].sum()))
    all_UX = np.vstack([kinds_UX, *extra]).astype(np.float32)
    times_U = np.concatenate([times_U, np.array(extra_times, dtype=np.int64)])
    met_U = times_U > 0
    return Rows(all_UX[met_U, :-1], all_UX[met_U, -1] > 0, times_U[met_U])


def tells_nothing(rows: Rows) -> bool:
    """Return whether there is nothing to learn: all options are right, or none is, or none has features."""
    return bool(rows.right.all() or not rows.right.any() or not rows.values[:, :-1].any())


def vote_weights(kinds: Sequence[slice], num_categories: int) -> FloatArray:
    """Return weights that count the votes, in the form of `fit_linear`.

    Args:
        kinds: Which features are of one kind, the votes first.
        num_categories: C.
    """
    votes = kinds[0]
    weights_X = np.zeros(kinds[-1].stop + num_categories + 1)
    weights_X[votes] = 1.0
    weights_X[-1] = votes.start - votes.stop
    return weights_X


def fit_linear(rows: Rows, num_categories: int, *, strength: float) -> FloatArray:
    """Return the weights of a logistic regression, float64 [D + C + 1]: features, categories, constant.

    Args:
        rows: To learn from, with both classes among them.
        num_categories: C.
        strength: Inverse of the penalty on the squares of all weights but the constant.

    Raises:
        MissingDependency: When scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise missing() from error
    category_UC = rows.values[:, -1:] == np.arange(num_categories)
    design_UX = np.hstack([rows.values[:, :-1], category_UC], dtype=np.float64)
    # Newton's steps end at the optimum, whatever the scales of the features are.
    model = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-8, max_iter=_STEPS)
    with one_thread():
        model.fit(design_UX, rows.right, sample_weight=rows.times)
    weights: FloatArray = np.append(model.coef_[0], model.intercept_)
    return weights


def linear_scores(weights: FloatArray, values: FloatArray) -> FloatArray:
    """Return the log odds of rows, float64 [R], by the weights of `fit_linear`."""
    num_features = values.shape[1] - 1
    # The last place is that of a category that fit did not see.
    of_category = np.append(weights[num_features:-1], 0.0)
    scores_R: FloatArray = values[:, :-1].astype(np.float64) @ weights[:num_features]
    scores_R += of_category[values[:, -1].astype(np.intp)] + weights[-1]
    return scores_R


def fit_boosted(rows: Rows, *, release: str | None = None) -> tuple[Boosted, str]:
    """Return boosted trees, always the same for the same rows, and scikit-learn's version.

    Args:
        rows: To learn from, with both classes among them.
        release: The version that the trees were made with before; another one gives a warning.

    Raises:
        MissingDependency: When scikit-learn is not installed.
    """
    try:
        import sklearn
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError as error:
        raise missing() from error
    found = str(sklearn.__version__)
    if release not in (None, found):
        warnings.warn(
            f"a stacker was fitted with scikit-learn {release}, and {found} grows its trees again: they may differ; "
            f"install scikit-learn=={release}, or fit and save it with {found}",
            stacklevel=2,
        )
    categorical = [rows.values.shape[1] - 1]
    # No rows are set aside to say when to stop, and the seed decides only which of more than 200,000 rows set the bins.
    model: Boosted = HistGradientBoostingClassifier(
        categorical_features=categorical, early_stopping=False, random_state=0, **_TREES
    )
    with one_thread():
        model.fit(_for_trees(np.repeat(rows.values, rows.times, axis=0)), np.repeat(rows.right, rows.times))
    return model, found


def boosted_scores(model: Boosted, values: FloatArray) -> FloatArray:
    """Return the log odds of rows, float64 [R]."""
    if not len(values):
        return np.zeros(0)
    with one_thread():
        return np.asarray(model.decision_function(_for_trees(values)), dtype=np.float64)


def prefers_nothing(scores_U: FloatArray, rows: Rows) -> bool:
    """Return whether the rows of every category have one score: trees that had too few rows to split."""
    place_U = rows.values[:, -1].astype(np.intp)
    least_C = np.full(place_U.max() + 2, np.inf)
    most_C = -least_C
    np.minimum.at(least_C, place_U, scores_U)
    np.maximum.at(most_C, place_U, scores_U)
    return bool((most_C <= least_C).all())


def log_probabilities(scores: FloatArray) -> FloatArray:
    """Return log p of log odds log p - log(1 - p)."""
    logs: FloatArray = -np.logaddexp(0, -scores)
    return logs


def missing() -> MissingDependency:
    """Return the error for a machine without scikit-learn."""
    return MissingDependency("scikit-learn", purpose="the fuser stacker")


def _for_trees(values: FloatArray) -> FloatArray:
    """Return rows, float64, with the category as trees read it: NaN where fit did not see it."""
    read = values.astype(np.float64)
    read[:, -1] = np.where(read[:, -1] < 0, np.nan, read[:, -1])
    return read
