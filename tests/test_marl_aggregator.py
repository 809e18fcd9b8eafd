"""The aggregator settles what differs, however many agents were asked."""

import copy
from typing import Literal

import numpy as np
import pytest
import tables

from fusion.data import PredictionTable
from fusion.errors import NotFitted, TableMismatch
from fusion.fusers.marl_aggregator import MarlAggregator
from fusion.policies import Beliefs, rewarded
from fusion.schema import Selection

Objective = Literal["likelihood", "reward"]
BOTH = ["likelihood", "reward"]


def unequal(seed: int, *, questions: int = 1500) -> PredictionTable:
    """Agent a is right on 80 % of the questions, b and c on 45 %, and always agree with each other."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, questions)
    first_N = np.where(rng.random(questions) < 0.8, labels_N, (labels_N + 1) % 4)
    copied_N = np.where(rng.random(questions) < 0.45, labels_N, (labels_N + 2) % 4)
    return tables.by_hand(
        np.stack([first_N, copied_N, copied_N], axis=1), labels_N.tolist(), num_options=[4] * questions
    )


def independent(seed: int, *, questions: int = 3000) -> PredictionTable:
    """Agents that are right on 80, 60 and 50 % of the questions, whatever the others say."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, questions)
    right_NM = rng.random((questions, 3)) < np.array([0.8, 0.6, 0.5])
    wrong_NM = (labels_N[:, None] + rng.integers(1, 4, (questions, 3))) % 4
    return tables.by_hand(
        np.where(right_NM, labels_N[:, None], wrong_NM), labels_N.tolist(), num_options=[4] * questions
    )


def chosen(table: PredictionTable, *places: int) -> Selection:
    mask_NM = np.zeros(table.answers.shape, dtype=bool)
    mask_NM[:, list(places)] = True
    return Selection(mask_NM)


@pytest.mark.parametrize("objective", BOTH)
class TestSettling:
    def test_copies_do_not_outvote_the_better_agent(self, objective: Objective) -> None:
        fit, test = unequal(0), unequal(1)
        fuser = MarlAggregator(objective=objective).fit(fit, tables.everyone(fit))
        np.testing.assert_array_equal(fuser.fuse(test, tables.everyone(test)).answers, test.answers[:, 0])

    def test_two_of_three_are_settled_as_well(self, objective: Objective) -> None:
        """Fitted with all three asked, it knows what two of them are worth."""
        fit, test = unequal(0), unequal(1)
        fuser = MarlAggregator(objective=objective).fit(fit, tables.everyone(fit))
        found = fuser.fuse(test, chosen(test, 0, 1))
        np.testing.assert_array_equal(found.answers, test.answers[:, 0])
        assert found.confidence is not None

    def test_where_all_agree_that_is_the_answer(self, objective: Objective) -> None:
        fit, test = unequal(0), unequal(1)
        fuser = MarlAggregator(objective=objective).fit(fit, tables.everyone(fit))
        np.testing.assert_array_equal(fuser.fuse(test, chosen(test, 1, 2)).answers, test.answers[:, 1])


def test_confidence_holds_for_few_answers_as_for_many() -> None:
    fit, test = independent(0), independent(1)
    fuser = MarlAggregator().fit(fit, tables.everyone(fit))
    for places in ((0,), (1,), (0, 1), (0, 1, 2)):
        found = fuser.fuse(test, chosen(test, *places))
        assert found.confidence is not None
        assert found.confidence.mean() == pytest.approx((found.answers == test.labels).mean(), abs=0.04)


def test_whom_nobody_listens_to_teaches_nothing() -> None:
    """A static selection of b and c: the fit is that of a table without a's answers."""
    fit, test = unequal(0), unequal(1)
    silent = tables.by_hand(
        np.column_stack([np.full(len(fit), -1), fit.answers[:, 1:]]),
        fit.require_labels().tolist(),
        num_options=[4] * 1500,
    )
    one = MarlAggregator().fit(fit, chosen(fit, 1, 2)).fuse(test, chosen(test, 1, 2))
    other = MarlAggregator().fit(silent, chosen(silent, 1, 2)).fuse(test, chosen(test, 1, 2))
    assert one.confidence is not None
    assert other.confidence is not None
    np.testing.assert_allclose(one.confidence, other.confidence, atol=0.02)


def test_reward_reaches_more_of_it_on_what_it_learned_from() -> None:
    """The expected reward on the rows of fit is what it maximises, from the weights of likelihood on."""
    table = tables.random_table(5, questions=600, agents=tables.AGENTS)
    table = tables.without(table, "probs")
    start = Beliefs.learn(table, (), rng=np.random.default_rng(0))
    reached = rewarded(start, table, (), rng=np.random.default_rng(1))
    assert not np.array_equal(start.weights, reached.weights)
    rewards = []
    for beliefs in (start, reached):
        fuser = MarlAggregator().fit(table, tables.everyone(table))
        fuser.weights_ = np.repeat(beliefs.weights[:1], len(fuser.categories_) + 1, axis=0)
        probs_NK = fuser.fuse(table, tables.everyone(table)).probs
        assert probs_NK is not None
        known_N = table.require_labels() >= 0
        rewards.append(probs_NK[np.flatnonzero(known_N), table.require_labels()[known_N]].mean())
    assert rewards[1] > rewards[0]


def test_a_second_fit_leaves_a_copy_as_it_was() -> None:
    fit, test = unequal(0), unequal(1)
    fuser = MarlAggregator().fit(fit, tables.everyone(fit))
    kept = copy.deepcopy(fuser)
    expected = kept.fuse(test, tables.everyone(test)).confidence
    fuser.fit(test, tables.everyone(test))
    np.testing.assert_array_equal(kept.fuse(test, tables.everyone(test)).confidence, expected)


class TestRefusals:
    def test_before_fit(self) -> None:
        with pytest.raises(NotFitted, match="marl_aggregator"):
            MarlAggregator().fuse(unequal(0), tables.everyone(unequal(0)))

    def test_other_agents(self) -> None:
        fit = unequal(0)
        fuser = MarlAggregator().fit(fit, tables.everyone(fit))
        fewer = fit.columns(["a", "b"])
        with pytest.raises(TableMismatch):
            fuser.fuse(fewer, tables.everyone(fewer))
