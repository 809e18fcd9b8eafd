"""Policies that ask or stop: beliefs from few answers, the world of recorded questions, and what is learned there."""

import numpy as np
import pytest
import tables
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.data import PredictionTable
from fusion.ensemble import Ensemble, ask
from fusion.errors import NotFitted, TableMismatch
from fusion.policies import Beliefs, PpoOptions, Views, World, fit_beliefs, train_policy
from fusion.policies._beliefs import _Problem
from fusion.selectors.marl_focal import MarlFocal


def world(answers: list[list[int]], votes: list[float], *, options: int = 3) -> World:
    """A world without categories, in which votes weigh the same on every question and their number adds nothing."""
    answers_NM = np.array(answers)
    beliefs = Beliefs(np.array([votes]), np.zeros(len(votes) + 1))
    nothing_N = np.zeros(len(answers), dtype=np.intp)
    return World(
        answers=answers_NM,
        options=np.full(len(answers), options),
        category=nothing_N,
        num_categories=1,
        views=Views.of(beliefs, nothing_N),
    )


def specialists(seed: int, *, questions: int = 600, prefix: str = "q") -> PredictionTable:
    """In category "law" agent a is always right, in "maths" agent b; elsewhere they, and c everywhere, guess."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, questions)
    maths_N = rng.random(questions) < 0.5
    answers_NM = rng.integers(0, 4, (questions, 3))
    answers_NM[~maths_N, 0] = labels_N[~maths_N]
    answers_NM[maths_N, 1] = labels_N[maths_N]
    return tables.by_hand(
        answers_NM,
        labels_N.tolist(),
        question_ids=[f"{prefix}{n}" for n in range(questions)],
        categories=np.where(maths_N, "maths", "law").tolist(),
        num_options=[4] * questions,
    )


class TestWorld:
    def test_probabilities_by_hand(self) -> None:
        """Votes weigh log 2 and log 3; for options 0 and 1 that makes shares 2 : 3 : 1."""
        found = world([[0, 1]], [np.log(2), np.log(3)])
        state = found.begin(np.array([0]))
        np.testing.assert_allclose(found.probabilities(state), [[1 / 3, 1 / 3, 1 / 3]])
        found.ask(state, np.array([0]))
        np.testing.assert_allclose(found.probabilities(state), [[2 / 4, 1 / 4, 1 / 4]])
        found.ask(state, np.array([1]))
        np.testing.assert_allclose(found.probabilities(state), [[2 / 6, 3 / 6, 1 / 6]])

    def test_options_beyond_the_question_have_no_share(self) -> None:
        found = world([[0], [1]], [1.0])
        found.options[:] = [2, 3]
        probs_NK = found.probabilities(found.heard(np.arange(2), np.ones((2, 1), dtype=bool)))
        assert probs_NK[0, 2] == 0
        np.testing.assert_allclose(probs_NK.sum(axis=1), 1)

    def test_abstaining_tells_nothing_but_was_asked(self) -> None:
        found = world([[-1, 1]], [2.0, 1.0])
        state = found.heard(np.array([0]), np.array([[True, False]]))
        np.testing.assert_allclose(found.probabilities(state), 1 / 3)
        assert state.asked.tolist() == [[True, False]]

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def test_what_is_seen_does_not_depend_on_the_options_order(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        answers_NM, weights_M = rng.integers(-1, 5, (20, 4)), rng.random(4) + 0.1
        moved_K = np.append(rng.permutation(5), -1)
        one = world(answers_NM.tolist(), weights_M.tolist(), options=5)
        other = world(moved_K[answers_NM].tolist(), weights_M.tolist(), options=5)
        asked_NM, price_N = rng.random((20, 4)) < 0.5, np.full(20, 0.01)
        seen = [found.observe(found.heard(np.arange(20), asked_NM), price_N) for found in (one, other)]
        np.testing.assert_allclose(seen[0], seen[1], atol=1e-6)


class TestBeliefs:
    def test_the_slope_is_that_of_the_loss(self) -> None:
        rng = np.random.default_rng(0)
        options_R = rng.integers(2, 5, 30)
        problem = _Problem(
            rng.integers(-1, options_R[:, None], (30, 3)),
            rng.random((30, 3)) < 0.7,
            rng.integers(0, options_R),
            rng.integers(0, 2, 30),
            options_R,
        )
        weights = rng.normal(size=3 + 2 * 3 + 4)
        _, slope = problem.loss(weights, 2, 5.0)
        step = 1e-6
        for i in range(len(weights)):
            ends = [problem.loss(weights + sign * step * (np.arange(len(weights)) == i), 2, 5.0)[0] for sign in (1, -1)]
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope[i], abs=1e-4)

    def test_the_better_agent_weighs_more_and_in_its_own_category(self) -> None:
        table = specialists(0)
        assert table.labels is not None
        category_N = (np.asarray(table.categories) == "maths").astype(np.intp)
        found = fit_beliefs(
            table.answers.astype(np.intp),
            table.labels,
            category_N,
            table.num_options.astype(np.intp),
            num_categories=2,
            pooling=1.0,
            rng=np.random.default_rng(0),
        )
        assert found.votes[0].argmax() == 0
        assert found.votes[1].argmax() == 1
        assert found.votes[0, 0] > found.votes[1, 0] + 1


class TestPolicy:
    def test_it_learns_whom_to_ask_and_when_to_stop(self) -> None:
        """One call to the specialist is enough; a vote of all three needs three, and is right less often."""
        fit, test = specialists(0, prefix="fit"), specialists(1, prefix="test")
        chosen = MarlFocal(price=0.02, updates=40).fit(fit)
        ensemble = Ensemble(fit.agents, chosen, "topla_weighted")
        selection, asked_NM = ask(chosen, test)
        assert asked_NM.sum(axis=1).mean() < 1.3
        ensemble.fuser.fit(fit, ask(chosen, fit)[0])
        answers_N = ensemble.fuser.fuse(test.blind(), selection).answers
        assert (answers_N == test.labels).mean() > 0.95

    def test_dearer_calls_are_fewer(self) -> None:
        fit = tables.random_table(3, questions=400, agents=tables.AGENTS, prefix="fit")
        test = tables.random_table(4, questions=400, agents=tables.AGENTS, prefix="test")
        spent = []
        chosen = MarlFocal(updates=30).fit(fit)
        for price in (0.0005, 0.01, 0.15):
            chosen.price_ = price
            spent.append(ask(chosen, test)[1].sum(axis=1).mean())
        assert spent[0] >= spent[1] >= spent[2]
        assert spent[0] > spent[2]

    def test_calls_are_spent_as_asked_for(self) -> None:
        fit = tables.random_table(3, questions=400, agents=tables.AGENTS)
        chosen = MarlFocal(calls=2.0, updates=30).fit(fit)
        assert ask(chosen, fit)[1].sum(axis=1).mean() == pytest.approx(2.0, abs=0.5)

    def test_never_more_than_max_calls(self) -> None:
        fit = tables.random_table(3, questions=60, agents=tables.AGENTS)
        chosen = MarlFocal(price=0.0001, max_calls=2, updates=5).fit(fit)
        _, asked_NM = ask(chosen, fit)
        assert asked_NM.sum(axis=1).max() == 2

    def test_the_same_seed_gives_the_same_policy(self) -> None:
        table = specialists(0, questions=100)
        one, other, third = (MarlFocal(updates=3, seed=seed).fit(table) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one.first_, other.first_)
        assert not np.array_equal(one.first_, third.first_)

    def test_the_callers_random_numbers_stay(self) -> None:
        before = tables.global_randomness()
        MarlFocal(updates=2).fit(specialists(0, questions=60))
        assert tables.global_randomness() == before

    def test_progress_is_told(self) -> None:
        told: list[tuple[int, int]] = []
        found = world([[0, 1], [1, 1]], [1.0, 1.0])
        train_policy(found, np.array([0, 1]), options=PpoOptions(updates=3), told=lambda *step: told.append(step))
        assert told == [(1, 3), (2, 3), (3, 3)]


class TestRefusals:
    def test_before_fit(self) -> None:
        with pytest.raises(NotFitted, match="fit"):
            MarlFocal().select(specialists(0, questions=10))

    def test_other_agents(self) -> None:
        chosen = MarlFocal(updates=1).fit(specialists(0, questions=20))
        with pytest.raises(TableMismatch):
            chosen.select(specialists(0, questions=20).columns(["a", "b"]))
