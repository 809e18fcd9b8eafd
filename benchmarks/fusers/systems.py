"""The systems that are compared, and one way to fit, time and judge all of them."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from benchmarks.fusers.reference import Reference
from fusion.agents import AgentPool
from fusion.calibration import calibration_error
from fusion.data import PredictionTable
from fusion.ensemble import Ensemble
from fusion.schema import BoolArray, Decision, FloatArray, System
from fusion.significance import paired_difference

BEST_SINGLE = "single_best+vote"
BEST_PER_CATEGORY = "single_best_per_category+vote"
ORACLE = "oracle+vote"
REFERENCE = "reference"
LEARNED = "topla_weighted"
ONE_FOR_ALL = "topla_weighted(pooling=off)"
POSITIONS = "topla_weighted(positions=auto)"
STACKER = "stacker(model=logistic)"
VOTES = (
    "vote",
    "weighted_vote(weights=power)",
    "weighted_vote(weights=log_odds)",
    "weighted_vote(weights=accuracy)",
)
"""Votes, the plain one and the weighted ones; names without a selector stand for all agents."""

SYSTEMS = (
    BEST_SINGLE,
    BEST_PER_CATEGORY,
    *VOTES,
    "dawid_skene",
    "dawid_skene(confusion=full)",
    "naive_bayes",
    "naive_bayes(confusion=full)",
    STACKER,
    "stacker(model=boosting)",
    REFERENCE,
    LEARNED,
    ONE_FOR_ALL,
    "topla_weighted(network=mlp)",
    ORACLE,
)

REPEATS = 1000
Told = Callable[[str], None]
_Result = TypeVar("_Result")


class Took(NamedTuple):
    """Seconds: by the clock, and of this process on a processor, which other work on the machine does not lengthen."""

    wall: float
    processor: float


class Outcome(NamedTuple):
    """What a system did on the questions that it was not fitted on.

    Attributes:
        correct: bool [N].
        answered: bool [N].
        confidence: float64 [N], how likely it says that it is right; None where it says nothing.
        fit: What fitting took.
        fuse: What deciding all N questions took.
        fuser: The fitted fuser, or the reference.
    """

    correct: BoolArray
    answered: BoolArray
    confidence: FloatArray | None
    fit: Took
    fuse: Took
    fuser: Any


def timed(work: Callable[[], _Result]) -> tuple[_Result, Took]:
    """Return what `work` returns, and the seconds that it took."""
    start, spent = time.perf_counter(), time.process_time()
    result = work()
    return result, Took(time.perf_counter() - start, time.process_time() - spent)


def outcome(system: str, fit: PredictionTable, test: PredictionTable) -> Outcome:
    """Fit a system on one table and let it decide another."""
    if system == REFERENCE:
        reference, fit_took = timed(lambda: Reference.learn(fit))
        decision, fuse_took = timed(lambda: reference.fuse(test.blind()))
        return _judged(decision, test, fit_took, fuse_took, reference)
    parsed = System.parse(system)
    pool = AgentPool.of(fit.agents)
    ensemble, fit_took = timed(lambda: Ensemble(pool, parsed.selector, parsed.fuser).fit(fit))
    replay, fuse_took = timed(lambda: ensemble.replay(test))
    return _judged(replay.decision, test, fit_took, fuse_took, ensemble.fuser)


def _judged(decision: Decision, test: PredictionTable, fit: Took, fuse: Took, fuser: Any) -> Outcome:
    answered_N = decision.answers >= 0
    correct_N = (decision.answers == test.require_labels()) & answered_N
    return Outcome(correct_N, answered_N, decision.confidence, fit, fuse, fuser)


def difference(a: FloatArray | BoolArray, b: FloatArray | BoolArray) -> list[float]:
    """Return the mean difference on the same questions, the ends of its 95 % interval, and the p-value.

    Exact McNemar where both are right or wrong; a paired t test where they are shares of repetitions.
    """
    if np.array_equal(a, b):
        return [0.0, 0.0, 0.0, 1.0]
    found = paired_difference(a, b, repeats=REPEATS, rng=np.random.default_rng(0))
    return [found.difference, *found.interval, found.p]


def calibration(result: Outcome) -> dict[str, float] | None:
    """Return the calibration error over the questions that it answered, and by how much it says too much."""
    if result.confidence is None:
        return None
    kept_N = result.answered
    confidence_N, correct_N = np.clip(result.confidence[kept_N], 0, 1), result.correct[kept_N]
    found = calibration_error(confidence_N, correct_N, repeats=100, rng=np.random.default_rng(0))
    return {"ece": found.ece, "excess": float(confidence_N.mean() - correct_N.mean())}
