"""What a policy would be worth, from logs of what a deployed one asked: nobody is asked for it.

`fusion.evaluation._value_models` holds the equations and their sources.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from fusion.data import PredictionTable, folds
from fusion.discovery import spec_of
from fusion.ensemble import Ensemble
from fusion.errors import InvalidTable, UsageError
from fusion.evaluation._logged import Paths, follow, on_record
from fusion.evaluation._value_models import (
    Estimator,
    Models,
    Terms,
    direct,
    doubly_robust,
    learn,
    path_weights,
    thin_end,
    weighted,
)
from fusion.protocols import AskingFuser, Fuser, Selector
from fusion.schema import BoolArray, FloatArray
from fusion.significance import accuracy_interval

FEW = 100
"""Effective questions below which a normal interval is not to be trusted."""
_CONFIDENCE = 0.95
_FEW_REACHED = 0.05
_FEW_AHEAD, _THIN = 10, 0.05
_OFF = 4.0
"""Standard errors by which a share of questions may differ from the propensities."""


class Estimate(NamedTuple):
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OffPolicyValue:
    """What a policy would be worth on questions like those of a log.

    Attributes:
        accuracy: Share of questions answered right.
        calls: Agents asked a question.
        reward: accuracy - price * calls.
        estimator: By which it was estimated.
        price: Accuracy that one call has to be worth.
        num_questions: In the log.
        effective_sample_size: How many equally weighted questions the weights of those reached are worth.
        reached: Share of questions whose path is wholly on record.
        notes: What makes the estimate doubtful, in sentences.
    """

    accuracy: Estimate
    calls: Estimate
    reward: Estimate
    estimator: Estimator
    price: float
    num_questions: int
    effective_sample_size: float
    reached: float
    notes: tuple[str, ...] = ()


def estimate_value(
    system: Ensemble | tuple[Selector, Fuser],
    table: PredictionTable,
    propensities: npt.ArrayLike | None,
    *,
    price: float = 0.0,
    estimator: Estimator = "doubly_robust",
    folds: int = 5,
    seed: int = 0,
) -> OffPolicyValue:
    """Estimate what a fitted policy would be worth on questions like those of a log, without asking anybody.

    The policy's path on a question is followed as far as those it wants are on record; who was asked must have been
    drawn with known probabilities, each agent independently of the others and of what is said.

    `weighted` takes the paths that end on record, each by the inverse of its probability. `direct` takes regressions
    alone, on what is known at each step, and is wrong where these are. `doubly_robust` starts from the regressions and
    adds their weighted errors: right where the propensities are, and nearer than weighting (benchmarks/marl).
    Intervals are normal, with the variance of the influence function over questions (a sandwich), so they hold for
    questions drawn like these, not only for these.

    Args:
        system: A fitted ensemble, or a fitted selector and fuser. Must not have been fitted on this table.
        table: The log: `asked` tells who was asked; labelled.
        propensities: With which probability each agent was asked, [N, M] in (0, 1]; 1 for those that always are.
        price: Accuracy that one call has to be worth, at least 0.
        estimator: Which.
        folds: Parts of the questions; a part's regressions are learned from the others. At least 2.
        seed: Of the parts.

    Raises:
        UsageError: When propensities are missing or out of range, or contradict the log; when an argument is out of
            range; when the selector reads labels, or the fuser asks agents itself.
        InvalidTable: When the table has no labels or questions, or no question's path is wholly on record.
        UnknownName: When the table lacks an agent of the ensemble.
        NotFitted: When selector or fuser must be fitted first.
    """
    _check_arguments(price, estimator, folds)
    table.require_labels()
    given_NM = _propensities(propensities, table)
    if isinstance(system, Ensemble):
        # Those that are not in the ensemble may have been asked with any probability.
        place = {name: m for m, name in enumerate(table.agents)}
        table = table.columns(system.pool.names)
        given_NM = given_NM[:, [place[name] for name in table.agents]]
        selector, fuser = system.selector, system.fuser
    else:
        selector, fuser = system
    _check_system(selector, fuser)
    _check_propensities(given_NM, table)
    paths = follow(selector, fuser, table, given_NM)
    if not paths.reached.any():
        raise InvalidTable(
            f"{spec_of(selector)} wants agents that were not asked on every one of the {len(table)} questions, so no "
            "path is wholly on record; log more questions, ask more agents of each, or value a policy that asks fewer"
        )
    models = None if estimator == "weighted" else learn(paths, _folds_of(table, folds, seed))
    value = valued(paths, models, estimator=estimator, price=price)
    return replace(value, notes=(*value.notes, *_notes_on_draws(table, given_NM)))


def valued(paths: Paths, models: Models | None, *, estimator: Estimator, price: float) -> OffPolicyValue:
    """Return the value of a policy by its paths.

    Args:
        paths: Its paths through a log, at least one of them wholly on record.
        models: What was learned from them; None for `weighted` alone.
        estimator: By which.
        price: Accuracy that one call has to be worth.
    """
    if models is None:
        terms = weighted(paths)
    else:
        terms = direct(paths, models) if estimator == "direct" else doubly_robust(paths, models)
    size = effective_size(path_weights(paths))
    accuracy, calls, reward = _estimates(terms, price, right_R=paths.right[paths.reached])
    return OffPolicyValue(
        accuracy=accuracy,
        calls=calls,
        reward=reward,
        estimator=estimator,
        price=float(price),
        num_questions=len(paths.reached),
        effective_sample_size=size,
        reached=float(paths.reached.mean()),
        notes=tuple(_notes(paths, size, estimator)),
    )


def effective_size(weights_N: FloatArray) -> float:
    """Return how many equal weights would vary a mean as much (Kish 1965): (sum w)^2 / sum w^2."""
    return float(weights_N.sum() ** 2 / (weights_N**2).sum())


def _estimates(terms: Terms, price: float, *, right_R: FloatArray) -> tuple[Estimate, Estimate, Estimate]:
    """Return accuracy, calls and reward, with intervals."""
    weights_23 = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, -price]])
    values_3, influences_N3 = terms.values @ weights_23, terms.influences @ weights_23
    n = len(influences_N3)
    z = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2)
    half_3 = z * np.sqrt((influences_N3**2).sum(axis=0) / max(n - 1, 1) / n)
    accuracy, calls, reward = (
        Estimate(*map(float, ends)) for ends in zip(values_3, values_3 - half_3, values_3 + half_3, strict=True)
    )
    accuracy = Estimate(*(min(max(end, 0.0), 1.0) for end in accuracy))
    if half_3[0] < 1e-9:
        # All that ended were right, or none: what is not seen may differ.
        low, high = accuracy_interval(right_R)
        accuracy = Estimate(accuracy.value, min(low, accuracy.value), max(high, accuracy.value))
        spent = price * calls.value
        reward = Estimate(reward.value, accuracy.low - spent, accuracy.high - spent)
    return accuracy, calls._replace(low=max(calls.low, 0.0)), reward


def _folds_of(table: PredictionTable, count: int, seed: int) -> npt.NDArray[np.integer]:
    if len(table) < count:
        raise InvalidTable(f"{len(table)} questions cannot be spread over {count} folds; use more questions")
    return folds(table, count, seed=seed)


def _check_arguments(price: float, estimator: str, num_folds: int) -> None:
    if not (math.isfinite(price) and price >= 0):
        raise UsageError(f"price is the accuracy that a call has to be worth, at least 0; got {price}")
    if estimator not in get_args(Estimator):
        raise UsageError(f"estimator must be one of {', '.join(get_args(Estimator))}; got {estimator!r}")
    if num_folds < 2:
        raise UsageError(
            f"regressions are learned from other parts of the questions, at least 2; got folds={num_folds}"
        )


def _check_system(selector: Selector, fuser: Fuser) -> None:
    if selector.sees == "labels":
        raise UsageError(
            f"{spec_of(selector)} reads the right answers, which nobody has when a policy goes live; value another"
        )
    if isinstance(fuser, AskingFuser):
        raise UsageError(
            f"{spec_of(fuser)} asks agents itself, and what they would say is not on record; value the selector with a "
            "fuser that reads answers alone"
        )


def _propensities(given: npt.ArrayLike | None, table: PredictionTable) -> FloatArray:
    if given is None:
        raise UsageError(
            "a value needs the probability with which each agent was asked, [N, M], and got none. It cannot be found "
            "afterwards: what decided whom to ask may know more than the log. Log with exploration: ask each agent by "
            "a draw of its own with a probability you set (1 for those always asked), and keep the probabilities. "
            "Where every agent was asked on every question, replay the policy instead: Ensemble.replay(table)"
        )
    found_NM = np.asarray(given, dtype=np.float64)
    if found_NM.shape != table.answers.shape:
        raise UsageError(
            f"propensities must have one row a question and one column an agent, {list(table.answers.shape)}; "
            f"got {list(found_NM.shape)}"
        )
    if not len(table):
        raise InvalidTable("a value needs logged questions, and the table is empty")
    return found_NM


def _check_propensities(given_NM: FloatArray, table: PredictionTable) -> None:
    asked_NM = on_record(table)
    checks: Sequence[tuple[BoolArray, str]] = (
        (
            asked_NM & (given_NM == 0),
            "was asked although its propensity is 0; give the probability with which it was really drawn",
        ),
        (
            ~((given_NM > 0) & (given_NM <= 1)),
            "has a propensity outside (0, 1]; leave out agents that could not be asked (table.columns), and questions "
            "on which some could not (table.rows)",
        ),
        (
            ~asked_NM & (given_NM == 1),
            "was not asked although its propensity is 1; an agent that was asked and said nothing belongs in `asked`",
        ),
    )
    for bad_NM, what in checks:
        if bad_NM.any():
            n, m = np.argwhere(bad_NM)[0]
            raise UsageError(
                f"agent {table.agents[m]!r} {what} (question {table.question_ids[n]!r}, propensity "
                f"{given_NM[n, m]:g}; {int(bad_NM.sum())} such of {bad_NM.size})"
            )


def _notes(paths: Paths, size: float, estimator: Estimator) -> list[str]:
    notes = []
    if size < FEW:
        notes.append(
            f"the paths on record weigh as much as {size:.0f} questions, fewer than {FEW}: the interval may be too "
            "narrow; log more questions, or ask more agents of each"
        )
    reached = float(paths.reached.mean())
    if reached < _FEW_REACHED:
        notes.append(
            f"the policy's path is wholly on record for {int(paths.reached.sum())} of {len(paths.reached)} questions "
            f"({100 * reached:.2g} %); what it would do on the others is estimated from these"
        )
    calls, share = thin_end(paths, _FEW_AHEAD)
    if share > _THIN:
        notes.append(
            f"about {100 * share:.0f} % of the paths go on after {calls} calls, and fewer than {_FEW_AHEAD} questions "
            "tell how, so what becomes of them is a guess, and calls that depend on answers are probably too few; ask "
            "more agents of each question"
        )
    if estimator == "direct":
        notes.append("the interval of `direct` takes its regressions as fitting; where they do not, the value is off")
    return notes


def _notes_on_draws(table: PredictionTable, given_NM: FloatArray) -> list[str]:
    """Return a sentence on agents that were asked more or less often than the propensities say."""
    excess_M = (on_record(table) - given_NM).sum(axis=0)
    spread_M = np.sqrt((given_NM * (1 - given_NM)).sum(axis=0))
    off = [
        f"{table.agents[m]} ({int(on_record(table)[:, m].sum())} times, expected {given_NM[:, m].sum():.0f})"
        for m in np.flatnonzero(np.abs(excess_M) > _OFF * np.maximum(spread_M, 1e-9))
    ]
    if not off:
        return []
    return [f"asked more or less often than the propensities say: {', '.join(off)}; if they are wrong, so is the value"]
