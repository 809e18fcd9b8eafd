"""Off-policy values: worked examples, unbiasedness under wrong models or wrong weights, agreement with the replay.

Simulated worlds are keyed by seeds; where a mean over simulated logs is tested, it may be off by four standard errors.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import without

from fusion.data import PredictionTable, folds
from fusion.ensemble import Ensemble
from fusion.errors import InvalidTable, NotFitted, UnknownName, UsageError
from fusion.evaluation import OffPolicyValue, estimate_value, explored
from fusion.evaluation._logged import Paths, Step, follow
from fusion.evaluation._value_models import (
    Estimator,
    Models,
    direct,
    doubly_robust,
    learn,
    path_weights,
    thin_end,
    weighted,
)
from fusion.fusers.stacker import Stacker
from fusion.fusers.synthesize import Synthesize
from fusion.fusers.vote import Vote
from fusion.protocols import Selector
from fusion.schema import BoolArray, FloatArray, IntArray, Sees, Selection
from fusion.selectors.all_agents import AllAgents
from fusion.selectors.fixed_subset import FixedSubset
from fusion.selectors.marl_focal import MarlFocal
from fusion.selectors.oracle import Oracle
from fusion.selectors.top_k import TopK

ESTIMATORS: tuple[Estimator, ...] = ("doubly_robust", "weighted", "direct")
NAMES = ("ann", "bob", "cid")
LOGS = 120


@dataclass(kw_only=True)
class UntilTwoAgree:
    """Ask agents in the table's order until two name the same option."""

    sees: ClassVar[Sees] = "answers"

    def fit(self, table: PredictionTable) -> Self:
        """Learn nothing."""
        return self

    def select(self, table: PredictionTable) -> Selection:
        """Return who was asked, and the next one where no two agree."""
        asked_NM = np.ones(table.answers.shape, dtype=bool) if table.asked is None else table.asked
        said_NM = np.where(asked_NM, table.answers, -1)
        same_NMM = (said_NM[:, :, None] == said_NM[:, None, :]) & (said_NM >= 0)[:, :, None]
        agree_N = (same_NMM.sum(axis=(1, 2)) > (said_NM >= 0).sum(axis=1)) | asked_NM.all(axis=1)
        more_NM = np.zeros_like(asked_NM)
        more_NM[np.arange(len(table)), (~asked_NM).argmax(axis=1)] = ~agree_N
        return Selection(asked_NM | more_NM)


def world(size: int, *, seed: int) -> PredictionTable:
    """Questions of two kinds, easy (agents 90, 80, 70 % right) and hard (40, 35, 30 %), four options each."""
    rng = np.random.default_rng(seed)
    easy_N = rng.random(size) < 0.5
    labels_N = rng.integers(0, 4, size)
    skill_NM = np.where(easy_N[:, None], [0.9, 0.8, 0.7], [0.4, 0.35, 0.3])
    wrong_NM = (labels_N[:, None] + rng.integers(1, 4, (size, 3))) % 4
    answers_NM = np.where(rng.random((size, 3)) < skill_NM, labels_N[:, None], wrong_NM)
    return PredictionTable(
        question_ids=[f"{seed}/{n}" for n in range(size)],
        agents=NAMES,
        answers=answers_NM,
        labels=labels_N,
        num_options=np.full(size, 4),
        categories=np.where(easy_N, "easy", "hard"),
    )


def logged(table: PredictionTable, propensities_NM: FloatArray, *, seed: int) -> PredictionTable:
    return table.revealed(np.random.default_rng(seed).random(propensities_NM.shape) < propensities_NM)


def by_kind(table: PredictionTable, easy: float, hard: float) -> FloatArray:
    """Propensities that depend on the kind of question: what is on record is not what is asked."""
    share_N = np.where(table.require_categories() == "easy", easy, hard)
    return np.repeat(share_N[:, None].astype(np.float64), table.num_agents, axis=1)


def truth(table: PredictionTable, selector: Selector) -> tuple[float, float]:
    """What the policy is worth on complete records."""
    replay = Ensemble(table.agents, selector, Vote().fit(table, Selection(np.ones(table.answers.shape, bool)))).replay(
        table
    )
    return float((replay.decision.answers == table.labels).mean()), float(replay.asked.sum(axis=1).mean())


def fitted(table: PredictionTable, selector: Selector) -> tuple[Selector, Vote]:
    return selector, Vote().fit(table, Selection(np.ones(table.answers.shape, bool)))


def constant(paths: Paths, right: float, calls: float) -> Models:
    """Models that always say the same."""
    ahead = tuple(np.tile([right, calls], (len(step.rows), 1)) for step in paths.steps)
    return Models(ahead, np.zeros((len(paths.reached), 2)))


def within(errors: list[float], *, extra: float = 0.0) -> bool:
    """Return whether a mean over logs is 0 but for four standard errors and `extra`."""
    return abs(float(np.mean(errors))) <= 4 * float(np.std(errors)) / math.sqrt(len(errors)) + extra


# ------------------------------------------------------------------------------------- by hand


def four() -> tuple[PredictionTable, FloatArray]:
    """Two agents, four questions: ann is always asked, bob with 1/2, 1/4, 1/2, 1/2, and is not on the last."""
    table = PredictionTable(
        question_ids=["p", "q", "r", "s"],
        agents=["ann", "bob"],
        answers=[[1, 0], [0, 1], [0, 0], [1, -1]],
        asked=[[True, True], [True, True], [True, True], [True, False]],
        labels=[0, 0, 0, 0],
        num_options=[2, 2, 2, 2],
    )
    return table, np.array([[1, 0.5], [1, 0.25], [1, 0.5], [1, 0.5]])


def test_weighting_by_hand() -> None:
    """The policy asks bob alone.

    He is right, wrong, right, with weights 2, 4, 2: (2 + 2) / 8 = 1/2. They weigh as much as 8^2 / (4 + 16 + 4) = 2.667
    questions. Residuals 1/2, -1/2, 1/2 are divided by one less their shares 1/4, 1/2, 1/4 of the weights: 2/3, -1, 2/3;
    times the weights over their mean, 2, that is 2/3, -2, 2/3, 0, so the variance is 4.889 / 3 / 4 = 0.4074.
    """
    table, propensities = four()
    system = (FixedSubset(agents=("bob",)).fit(table), Vote().fit(table, Selection(np.ones((4, 2), bool))))
    found = estimate_value(system, table, propensities, price=0.1, estimator="weighted", folds=2)
    assert found.accuracy == pytest.approx((0.5, 0.0, 1.0))
    assert found.calls == pytest.approx((1.0, 1.0, 1.0))
    half = 1.959964 * np.sqrt(0.4074074)
    assert found.reward == pytest.approx((0.4, 0.4 - half, 0.4 + half), abs=1e-6)
    assert found.effective_sample_size == pytest.approx(8 / 3)
    assert found.reached == 0.75
    assert "weigh as much as 3 questions" in found.notes[0]


def one_step(*, ahead: list[float]) -> tuple[Paths, Models]:
    """Four questions, one call each that half of them have on record; the answers are right and wrong."""
    seen_BD = np.zeros((4, 1))
    came_B = np.array([True, True, False, False])
    step = Step(np.arange(4), came_B, np.full(4, 0.5), np.zeros(4), seen_BD)
    paths = Paths(steps=(step,), reached=came_B, right=np.array([1.0, 0, 0, 0]))
    return paths, Models((np.column_stack([ahead, np.zeros(4)]),), np.zeros((4, 2)))


def test_doubly_robust_by_hand() -> None:
    """Models say .9, .6, .4, .1, mean .5; the first two turn out 1 and 0, off by .1 and -.6, mean -.25: .5 - .25.

    For the variance the errors count less their mean: .1 + .25 and -.6 + .25, times the weight 2 and, as each is half
    of all weight, 2 again (HC3): 1.4 and -1.4. To these and to 0, 0 the mean -.25 and what the models say are added.
    """
    paths, models = one_step(ahead=[0.9, 0.6, 0.4, 0.1])
    terms = doubly_robust(paths, models)
    assert terms.values == pytest.approx([0.25, 1.0])
    assert terms.influences[:, 0] + 0.25 == pytest.approx([0.9 + 1.15, 0.6 - 1.65, 0.4 - 0.25, 0.1 - 0.25])
    assert direct(paths, models).values == pytest.approx([0.5, 1.0])
    assert weighted(paths).values == pytest.approx([0.5, 1.0])


def test_constant_models_make_it_weighting_where_all_want_the_same() -> None:
    table = world(60, seed=1)
    log, propensities = explored(table, share=0.6, seed=2)
    paths = follow(*fitted(table, AllAgents()), log, propensities)
    assert doubly_robust(paths, constant(paths, 0.3, 5)).values == pytest.approx(weighted(paths).values)


def test_weights_multiply_along_a_path() -> None:
    """Ann and bob disagree: cid is asked too, with 1/2 * 1/4 * 1/5; where ann and bob agree he is not."""
    table = PredictionTable(
        question_ids=["p", "q", "r"],
        agents=NAMES,
        answers=[[0, 1, 1], [1, 1, 0], [0, 1, -1]],
        asked=[[True, True, True], [True, True, True], [True, True, False]],
        labels=[1, 1, 1],
    )
    paths = follow(*fitted(table, UntilTwoAgree()), table, np.tile([0.5, 0.25, 0.2], (3, 1)))
    assert path_weights(paths) == pytest.approx([40, 8, 0])
    assert paths.reached.tolist() == [True, True, False]
    assert paths.right.tolist() == [1, 1, 0]
    assert [step.rows.tolist() for step in paths.steps] == [[0, 1, 2], [0, 1, 2], [0, 2]]
    # Of 48 weighed questions 40 need three calls.
    assert weighted(paths).values == pytest.approx([1, (40 * 3 + 8 * 2) / 48])


def test_those_wanted_together_come_likeliest_first() -> None:
    table, propensities = four()
    paths = follow(*fitted(table, AllAgents()), table, propensities)
    assert [step.chance.tolist() for step in paths.steps] == [[1, 1, 1, 1], [0.5, 0.25, 0.5, 0.5]]
    assert path_weights(paths).tolist() == [2, 4, 2, 0]


def test_thin_ends() -> None:
    """All have the first answer, three of four the second, worth 4/3 each, and 2 of these go on: 2 * 4/3 / 4."""
    seen_BD = np.zeros((4, 1))
    steps = [Step(np.arange(4), np.ones(4, bool), np.ones(4), np.zeros(4), seen_BD)]
    steps.append(Step(np.arange(4), np.arange(4) < 3, np.full(4, 0.75), np.zeros(4), seen_BD))
    steps.append(Step(np.arange(2), np.array([True, False]), np.full(2, 0.5), np.zeros(2), seen_BD[:2]))
    paths = Paths(steps=tuple(steps), reached=np.array([True, False, True, False]), right=np.zeros(4))
    assert thin_end(paths, 2) == pytest.approx((2, 2 / 3))
    assert thin_end(paths, 1) == (3, 0.0)


# ------------------------------------------------------------------- against what is really so


@pytest.mark.parametrize("selector", [UntilTwoAgree(), AllAgents(), TopK(k=2), MarlFocal(price=0.02)])
def test_where_everybody_was_asked_it_is_the_replay(selector: Selector) -> None:
    table, own = world(200, seed=3), world(300, seed=4)
    ensemble = Ensemble(NAMES, selector, "weighted_vote").fit(own)
    replay = ensemble.replay(table)
    right, calls = (replay.decision.answers == table.labels).mean(), replay.asked.sum(axis=1).mean()
    for estimator in ESTIMATORS:
        found = estimate_value(ensemble, table, np.ones(table.answers.shape), price=0.01, estimator=estimator)
        # Regressions learned from other folds do not give back the mean of their own.
        close = 0.02 if estimator == "direct" else 1e-12
        assert found.accuracy.value == pytest.approx(right, abs=close)
        assert found.calls.value == pytest.approx(calls, abs=close)
        assert found.reward.value == pytest.approx(right - 0.01 * calls, abs=close)
        assert found.reached == 1
        assert found.effective_sample_size == pytest.approx(200)
        assert [note for note in found.notes if "direct" not in note] == []


def test_doubly_robust_is_right_where_models_are_wrong() -> None:
    """Models say .95 and 7 calls whatever is known; their own mean is off by a third, the naive share by 0.1."""
    table = world(400, seed=5)
    right, calls = truth(table, UntilTwoAgree())
    given = by_kind(table, 0.9, 0.4)
    errors, naive, weighing = [], [], []
    for seed in range(LOGS):
        paths = follow(*fitted(table, UntilTwoAgree()), logged(table, given, seed=seed), given)
        errors.append(doubly_robust(paths, constant(paths, 0.95, 7.0)).values - [right, calls])
        weighing.append(weighted(paths).values - [right, calls])
        naive.append(paths.right[paths.reached].mean() - right)
    for errors_L2 in (np.array(errors), np.array(weighing)):
        # Ratios of sums are biased by about 1 / their effective number of questions.
        assert within(errors_L2[:, 0].tolist(), extra=0.005)
        assert within(errors_L2[:, 1].tolist(), extra=0.02)
    assert np.mean(naive) > 0.1


def test_doubly_robust_is_right_where_weights_are_wrong() -> None:
    """Propensities of hard questions, 0.2, are taken for 0.6; models that know the kind of question mend it."""
    table = world(600, seed=6)
    right, _ = truth(table, TopK(k=2).fit(table))
    given = by_kind(table, 0.9, 0.2)
    robust, weighing, spoilt = [], [], []
    for seed in range(LOGS):
        log = logged(table, given, seed=seed)
        paths = follow(*fitted(table, TopK(k=2).fit(table)), log, np.maximum(given, 0.6))
        models = learn(paths, folds(log, 5))
        robust.append(doubly_robust(paths, models).values[0] - right)
        weighing.append(weighted(paths).values[0] - right)
        spoilt.append(doubly_robust(paths, constant(paths, 0.95, 0.0)).values[0] - right)
    assert within(robust, extra=0.01)
    assert np.mean(weighing) > 0.1
    assert np.mean(spoilt) > 0.1


def test_intervals_cover_and_models_help() -> None:
    """Of 200 studies 95 % cover, but for three Monte-Carlo standard errors of 1.5 %; models take off a fifth."""
    right, calls = truth(world(200_000, seed=0), UntilTwoAgree())
    covered, halves = [], []
    for seed in range(1, 201):
        table = world(300, seed=seed)
        log, propensities = explored(table, share=0.6, seed=seed)
        found = estimate_value(fitted(table, UntilTwoAgree()), log, propensities)
        covered.append(
            [found.accuracy.low <= right <= found.accuracy.high, found.calls.low <= calls <= found.calls.high]
        )
        if seed > 30:
            continue
        plain = estimate_value(fitted(table, UntilTwoAgree()), log, propensities, estimator="weighted")
        halves.append([value.accuracy.high - value.accuracy.low for value in (found, plain)])
    shares = np.mean(covered, axis=0)
    assert (shares >= 0.90).all(), shares
    assert shares[0] <= 0.99
    assert np.mean(halves, axis=0)[0] < 0.85 * np.mean(halves, axis=0)[1]


def test_the_sandwich_of_direct_is_what_repeated_logs_show() -> None:
    """The standard deviation over questions and logs, against the mean of what each log says of itself."""
    values, said = [], []
    for seed in range(LOGS):
        table = world(300, seed=1000 + seed)
        log, propensities = explored(table, share=0.6, seed=seed)
        found = estimate_value(fitted(table, UntilTwoAgree()), log, propensities, estimator="direct")
        values.append(found.accuracy.value)
        said.append((found.accuracy.high - found.accuracy.low) / 2 / 1.959964)
    # A standard deviation of 120 values is itself uncertain by 6.5 %.
    assert np.mean(said) == pytest.approx(np.std(values), rel=0.2)


# --------------------------------------------------------------------------------- invariances


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_rows_is_nothing(seed: int) -> None:
    table = world(80, seed=7)
    log, propensities = explored(table, share=0.7, seed=8)
    order = np.random.default_rng(seed).permutation(len(table))
    for estimator in ESTIMATORS:
        one = estimate_value(fitted(table, UntilTwoAgree()), log, propensities, estimator=estimator)
        other = estimate_value(
            fitted(table, UntilTwoAgree()), log.rows(order), propensities[order], estimator=estimator
        )
        assert other.accuracy == pytest.approx(one.accuracy, abs=1e-9)
        assert other.calls == pytest.approx(one.calls, abs=1e-9)
        assert other.notes == one.notes


def test_the_order_of_options_and_of_agents_beyond_the_ensemble_is_nothing() -> None:
    table = world(150, seed=9)
    ensemble = Ensemble(NAMES, "top_k(k=2)", "weighted_vote").fit(world(200, seed=10))
    log, propensities = explored(table, share=0.6, seed=11)
    one = estimate_value(ensemble, log, propensities)
    turned = replace_answers(log, np.where(log.answers >= 0, 3 - log.answers, -1), 3 - log.require_labels())
    assert same(one, estimate_value(ensemble, turned, propensities))
    order = [2, 0, 1]
    moved = log.columns([NAMES[m] for m in order])
    assert same(one, estimate_value(ensemble, moved, propensities[:, order]))


def replace_answers(log: PredictionTable, answers_NM: IntArray, labels_N: IntArray) -> PredictionTable:
    return PredictionTable(
        question_ids=log.question_ids,
        agents=log.agents,
        answers=answers_NM,
        asked=log.asked,
        labels=labels_N,
        num_options=log.num_options,
        categories=log.categories,
    )


def same(one: OffPolicyValue, other: OffPolicyValue) -> bool:
    pairs = [(one.accuracy, other.accuracy), (one.calls, other.calls), (one.reward, other.reward)]
    return all(np.allclose(a, b, atol=1e-9) for a, b in pairs)


def test_models_do_not_see_whether_the_next_agent_is_on_record() -> None:
    """Otherwise a step's surprise would be weighed by a probability that is not its own."""
    table = world(50, seed=12)
    log, propensities = explored(table, share=0.6, seed=13)
    paths = follow(*fitted(table, UntilTwoAgree()), log, propensities)
    for step, name in zip(paths.steps, NAMES, strict=True):
        asked_NM: BoolArray = np.array(log.asked)
        asked_NM[step.rows, NAMES.index(name)] ^= True
        again = follow(*fitted(table, UntilTwoAgree()), table.revealed(asked_NM), propensities)
        twin = again.steps[NAMES.index(name)]
        assert twin.rows.tolist() == step.rows.tolist()
        assert (twin.seen == step.seen).all()
        assert (twin.came != step.came).all()


def test_models_are_learned_from_other_folds() -> None:
    """Turning what is right in one fold changes what is said of the others alone."""
    table = world(120, seed=23)
    log, propensities = explored(table, share=0.8, seed=24)
    paths = follow(*fitted(table, UntilTwoAgree()), log, propensities)
    own_N = folds(log, 4) == 2
    turned = replace(paths, right=np.where(own_N & paths.reached, 1 - paths.right, paths.right))
    for step, one, other in zip(
        paths.steps, learn(paths, folds(log, 4)).ahead, learn(turned, folds(log, 4)).ahead, strict=True
    ):
        assert one[own_N[step.rows]] == pytest.approx(other[own_N[step.rows]], abs=1e-12)
        assert (one[~own_N[step.rows], 0] != other[~own_N[step.rows], 0]).any()


def test_what_a_path_has_not_asked_for_is_not_read() -> None:
    """Cid is on record everywhere, but asked only where ann and bob differ."""
    table = world(100, seed=14)
    given = np.tile([0.5, 0.5, 1.0], (100, 1))
    log = logged(table, given, seed=15)
    spared_N = np.asarray(log.answers[:, 0] == log.answers[:, 1])
    answers_NM = log.answers.copy()
    answers_NM[spared_N, 2] = (answers_NM[spared_N, 2] + 1) % 4
    changed = replace_answers(log, answers_NM, log.require_labels())
    one = estimate_value(fitted(table, UntilTwoAgree()), log, given, estimator="weighted")
    assert same(one, estimate_value(fitted(table, UntilTwoAgree()), changed, given, estimator="weighted"))
    assert log.asked is not None
    ended_N = spared_N & log.asked[:, :2].all(axis=1)
    for table in (log, changed):
        paths = follow(*fitted(table, UntilTwoAgree()), table, given)
        assert paths.reached[ended_N].all()
        assert not np.isin(paths.steps[2].rows, np.flatnonzero(ended_N)).any()


# ------------------------------------------------------------------------------ errors, notes


@pytest.mark.parametrize("bad", [-0.1, 1.5, np.nan, np.inf])
def test_propensities_out_of_range(bad: float) -> None:
    table, propensities = four()
    propensities[1, 1] = bad
    with pytest.raises(UsageError, match=r"'bob' has a propensity outside \(0, 1\].*question 'q'"):
        estimate_value(fitted(table, AllAgents()), table, propensities)


def test_propensities_that_contradict_the_log() -> None:
    table, propensities = four()
    impossible, certain = propensities.copy(), propensities.copy()
    impossible[2, 0], certain[3, 1] = 0, 1
    with pytest.raises(UsageError, match="'ann' was asked although its propensity is 0"):
        estimate_value(fitted(table, AllAgents()), table, impossible)
    with pytest.raises(UsageError, match="'bob' was not asked although its propensity is 1"):
        estimate_value(fitted(table, AllAgents()), table, certain)
    with pytest.raises(UsageError, match=r"one row a question and one column an agent, \[4, 2\]; got \[2, 4\]"):
        estimate_value(fitted(table, AllAgents()), table, propensities.T)


def test_unknown_propensities_are_refused_with_a_remedy() -> None:
    table, _ = four()
    with pytest.raises(UsageError, match=r"Log with exploration.*Ensemble\.replay"):
        estimate_value(fitted(table, AllAgents()), table, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"price": -1}, "price is"),
        ({"price": np.nan}, "price is"),
        ({"folds": 1}, "folds=1"),
        ({"estimator": "magic"}, "estimator must be one of doubly_robust, weighted, direct; got 'magic'"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    table, propensities = four()
    with pytest.raises(UsageError, match=message):
        estimate_value(fitted(table, AllAgents()), table, propensities, **arguments)


def test_logs_that_tell_nothing() -> None:
    table, propensities = four()
    with pytest.raises(InvalidTable, match="no labels"):
        estimate_value(fitted(table, AllAgents()), without(table, "labels"), propensities)
    with pytest.raises(InvalidTable, match="wants agents that were not asked on every one of the 1 questions"):
        estimate_value(fitted(table, AllAgents()), table.rows(slice(3, 4)), propensities[3:], estimator="weighted")
    with pytest.raises(InvalidTable, match="the table is empty"):
        estimate_value(fitted(table, AllAgents()), table.rows(slice(0, 0)), propensities[:0])
    with pytest.raises(InvalidTable, match="4 questions cannot be spread over 5 folds"):
        estimate_value(fitted(table, AllAgents()), table, propensities)


def test_systems_that_cannot_be_valued() -> None:
    table, propensities = four()
    with pytest.raises(UsageError, match="oracle reads the right answers"):
        estimate_value(fitted(table, Oracle()), table, propensities)
    with pytest.raises(UsageError, match=r"synthesize.*asks agents itself"):
        estimate_value((AllAgents(), Synthesize(agent="ann")), table, propensities)
    with pytest.raises(NotFitted):
        estimate_value((MarlFocal(), Vote()), table, propensities, folds=2)
    with pytest.raises(NotFitted):
        estimate_value((AllAgents(), Stacker()), table, propensities, folds=2)
    with pytest.raises(UnknownName, match="dan"):
        estimate_value(Ensemble(["ann", "dan"], "all_agents", "vote"), table, propensities)


def test_notes_say_what_is_doubtful() -> None:
    table = world(300, seed=17)
    log, propensities = explored(table, share=0.2, seed=18)
    notes = " ".join(estimate_value(fitted(table, AllAgents()), log, propensities).notes)
    assert "fewer than 100" in notes
    assert "is wholly on record for" in notes
    assert "about 100 % of the paths go on after 2 calls, and fewer than 10 questions" in notes
    wrong = estimate_value(fitted(table, UntilTwoAgree()), log, np.full_like(propensities, 0.5))
    assert "asked more or less often than the propensities say: ann" in " ".join(wrong.notes)


def test_all_right_leaves_an_interval() -> None:
    """20 of 20 right: Wilson's interval is 0.839 to 1, where the normal one would be a point."""
    table = PredictionTable(
        question_ids=list("abcdefghijklmnopqrst"), agents=["ann"], answers=[[0]] * 20, labels=[0] * 20
    )
    found = estimate_value(fitted(table, AllAgents()), table, np.ones((20, 1)), price=0.1)
    assert found.accuracy == pytest.approx((1, 0.8389, 1), abs=1e-4)
    assert found.reward == pytest.approx((0.9, 0.7389, 0.9), abs=1e-4)


# ----------------------------------------------------------------------------------- simulated logs


def test_explored_logs_are_keyed_by_question() -> None:
    table = world(2000, seed=19)
    log, propensities = explored(table, share=0.3, always=["bob"], seed=20)
    assert log.asked is not None
    assert log.asked[:, 1].all()
    assert log.asked.mean(axis=0)[[0, 2]] == pytest.approx([0.3, 0.3], abs=0.04)
    assert np.corrcoef(log.asked[:, 0], log.asked[:, 2])[0, 1] == pytest.approx(0, abs=0.09)
    assert (propensities == [0.3, 1, 0.3]).all()
    assert (log.answers[~log.asked] == -1).all()
    assert (log.answers[log.asked] == table.answers[log.asked]).all()
    some = np.array([5, 3, 900])
    part, _ = explored(table.rows(some).columns(["cid", "bob"]), share=0.3, seed=20)
    assert part.asked is not None
    assert part.asked[:, 0].tolist() == log.asked[some, 2].tolist()
    larger, _ = explored(table, share=0.6, seed=20)
    assert larger.asked is not None
    assert larger.asked[log.asked[:, 0], 0].all()
    assert explored(table, share=1, seed=20)[0].asked.all()  # type: ignore[union-attr]  # a log has it


def test_what_cannot_be_explored() -> None:
    table = world(20, seed=21)
    for share in (0.0, 1.1, np.nan):
        with pytest.raises(UsageError, match="share is the probability"):
            explored(table, share=share, seed=0)
    with pytest.raises(UnknownName, match="dan"):
        explored(table, share=0.5, always=["dan"], seed=0)
    with pytest.raises(InvalidTable, match="complete records"):
        explored(explored(table, share=0.5, seed=0)[0], share=0.5, seed=0)


def test_options_of_open_questions_are_no_feature() -> None:
    """They are what those on record answered, so they would tell who is."""
    table = world(40, seed=22)
    texts = [tuple(f"{n}" for n in range(count)) for count in table.num_options.tolist()]
    opened = PredictionTable(
        question_ids=table.question_ids,
        agents=NAMES,
        answers=table.answers,
        labels=table.labels,
        options=texts,
        references=["1"] * 40,
    )
    given = np.ones((40, 3))
    closed = follow(*fitted(table, AllAgents()), table, given)
    found = follow(*fitted(opened, AllAgents()), opened, given)
    assert (closed.steps[0].seen[:, 5] == 4).all()
    assert (found.steps[0].seen[:, 5] == 0).all()


def test_values_are_plain_data() -> None:
    table, propensities = four()
    found = estimate_value(fitted(table, AllAgents()), table, propensities, estimator="weighted")
    assert replace(found, notes=()).notes == ()
    assert (found.estimator, found.price, found.num_questions) == ("weighted", 0.0, 4)
