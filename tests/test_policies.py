"""Policies that ask or stop: beliefs from few answers, the world of recorded questions, and what is learned there."""

import math
from typing import Literal

import numpy as np
import pytest
import tables
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.data import PredictionTable, best_rated
from fusion.ensemble import Ensemble, ask
from fusion.errors import InvalidTable, NotFitted, TableMismatch
from fusion.policies import (
    Beliefs,
    PpoOptions,
    Stopping,
    TrainingRun,
    Views,
    World,
    advantages,
    play,
    stop_when,
    train_policy,
)
from fusion.selectors.all_agents import AllAgents
from fusion.selectors.marl_focal import MarlFocal

Learner = Literal["stopping", "ppo"]


def world(answers: list[list[int]], votes: list[float], *, options: int = 3, open: bool = False) -> World:
    """A world without categories, in which votes weigh the same on every question and their number adds nothing."""
    answers_NM = np.array(answers)
    num_questions, num_agents = answers_NM.shape
    gains_NMK = np.zeros((num_questions, num_agents, options), dtype=np.float32)
    n_A, m_A = np.nonzero(answers_NM >= 0)
    gains_NMK[n_A, m_A, answers_NM[n_A, m_A]] = np.array(votes)[m_A]
    return World(
        answers=answers_NM,
        options=np.full(num_questions, options),
        category=np.zeros(num_questions, dtype=np.intp),
        num_categories=1,
        views=Views(gains_NMK, np.zeros((num_questions, num_agents + 1))),
        open=open,
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


def independent(seed: int, *, questions: int = 3000) -> PredictionTable:
    """Four agents that are right with probabilities of their own, whatever the others say; wrong ones guess."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, questions)
    right_NM = rng.random((questions, 4)) < np.array([0.8, 0.6, 0.5, 0.4])
    wrong_NM = (labels_N[:, None] + rng.integers(1, 4, (questions, 4))) % 4
    return tables.by_hand(
        np.where(right_NM, labels_N[:, None], wrong_NM), labels_N.tolist(), num_options=[4] * questions
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


class TestOpenWorld:
    def test_probabilities_by_hand(self) -> None:
        """Of an open question what nobody has named is not there, and "none of these" has the score 0.

        Votes weigh log 2 and log 3: first 2 : 1 for none of these; with both 2 : 3 : 1, as in a closed world.
        """
        found = world([[0, 1]], [np.log(2), np.log(3)], open=True)
        state = found.begin(np.array([0]))
        assert found.probabilities(state).sum() == 0
        assert found.likeliest(state).tolist() == [-1]
        found.ask(state, np.array([0]))
        np.testing.assert_allclose(found.probabilities(state), [[2 / 3, 0, 0]])
        found.ask(state, np.array([1]))
        np.testing.assert_allclose(found.probabilities(state), [[2 / 6, 3 / 6, 0]])
        assert found.likeliest(state).tolist() == [1]

    def test_what_others_said_is_not_seen(self) -> None:
        """How many answers the unasked gave is nothing to a state."""
        one, other = world([[0, 1, 2]], [1.0] * 3, open=True), world([[0, 0, 0]], [1.0] * 3, open=True)
        asked_NM = np.array([[True, False, False]])
        states = [found.heard(np.array([0]), asked_NM) for found in (one, other)]
        np.testing.assert_array_equal(one.probabilities(states[0]), other.probabilities(states[1]))


class TestBeliefs:
    def test_the_better_agent_weighs_more_and_in_its_own_category(self) -> None:
        found = Beliefs.learn(specialists(0), ["law", "maths"], rng=np.random.default_rng(0))
        assert found.weights.shape == (3, 3 + 4)
        assert found.weights[0, :3].argmax() == 0
        assert found.weights[1, :3].argmax() == 1
        assert found.weights[0, 0] > found.weights[1, 0] + 1

    def test_they_are_right_as_often_as_they_say_for_few_answers_as_for_many(self) -> None:
        fit, test = (independent(seed) for seed in (0, 1))
        found = World.to_act_in(test, (), Beliefs.learn(fit, (), rng=np.random.default_rng(0)), open=False)
        rng = np.random.default_rng(2)
        for share in (0.3, 1.0):
            asked_NM = rng.random(test.answers.shape) < share
            asked_NM[:, 0] = True
            state = found.heard(np.arange(len(test)), asked_NM)
            said = found.probabilities(state).max(axis=1).mean()
            assert (found.likeliest(state) == test.labels).mean() == pytest.approx(said, abs=0.03)

    def test_probabilities_count(self) -> None:
        """Agents that are unsure say so, and are believed less."""
        rng = np.random.default_rng(0)
        labels_N = rng.integers(0, 3, 800)
        sure_NM = rng.random((800, 2)) < 0.5
        answers_NM = np.where(sure_NM, labels_N[:, None], rng.integers(0, 3, (800, 2)))
        probs_NMK = np.where(sure_NM[..., None], 0.05, 0.3) * np.ones((800, 2, 3))
        np.put_along_axis(probs_NMK, answers_NM[..., None], np.where(sure_NM, 0.9, 0.4)[..., None], axis=2)
        table = tables.by_hand(answers_NM, labels_N.tolist(), num_options=[3] * 800, probs=probs_NMK)
        beliefs = Beliefs.learn(table, (), rng=rng)
        found = World.to_act_in(table, (), beliefs, open=False)
        alone_NM = np.zeros((800, 2), dtype=bool)
        alone_NM[:, 0] = True
        top_N = found.probabilities(found.heard(np.arange(800), alone_NM)).max(axis=1)
        assert top_N[sure_NM[:, 0]].min() > 0.9
        assert top_N[~sure_NM[:, 0]].max() < 0.6


def seldom_right(questions: int = 400) -> tuple[World, "np.typing.NDArray[np.intp]"]:
    """On even questions agent 0 is right; on odd ones it abstains, and agent 1 is. Agent 2 says nothing."""
    labels_N = np.arange(questions) % 3
    even_N = np.arange(questions) % 2 == 0
    answers_NM = np.stack([np.where(even_N, labels_N, -1), np.where(even_N, -1, labels_N), np.full(questions, -1)], 1)
    return world(answers_NM.tolist(), [2.0, 2.0, 2.0]), labels_N


class TestStopping:
    def test_it_stops_when_it_has_heard_enough(self) -> None:
        """Agent 0 first (ties go to the first), then 1 where it abstained, never 2, which says nothing."""
        found, labels_N = seldom_right()
        courses = play(found, labels_N, costs_M=np.ones(3), most=3)
        assert courses.order[0].tolist() == [0, 1, 2]
        _, calls_N = stop_when(courses, 0.05, costs_M=np.ones(3))
        assert set(calls_N[::2].tolist()) == {1}
        assert set(calls_N[1::2].tolist()) == {2}

    def test_calls_that_cost_more_than_they_are_worth_are_not_made(self) -> None:
        """After silence a call is worth 1, an answer that is right for certain: at 1.1 it is too dear."""
        found, labels_N = seldom_right()
        courses = play(found, labels_N, costs_M=np.ones(3), most=3)
        _, calls_N = stop_when(courses, 1.1, costs_M=np.ones(3))
        assert calls_N.max() == 1

    def test_dear_agents_come_later(self) -> None:
        found, labels_N = seldom_right()
        courses = play(found, labels_N, costs_M=np.array([3.0, 0.5, 0.5]), most=3)
        assert courses.order[0].tolist()[0] == 1

    def test_the_rewards_by_hand(self) -> None:
        """One question that is right after the second answer: going on gains 1 - price, and the ridge is the rest.

        With one row x the ridge regression is x y / (|x|^2 + 3), so the gain at x is y |x|^2 / (|x|^2 + 3).
        """
        found = world([[0, 1]], [1.0, 2.0])
        courses = play(found, np.array([1]), costs_M=np.array([0.01, 1.99]), most=2)
        assert courses.agents.tolist() in ([[0, 1]], [[1, 0]])
        policy, _ = stop_when(courses, 0.1, costs_M=np.ones(2))
        ahead = float(courses.rewards[1, 0]) - 0.1 - float(courses.rewards[0, 0])
        square = float((courses.seen[0, 0] ** 2).sum())
        assert courses.seen[0, 0] @ policy.gains[0] == pytest.approx(ahead * square / (square + 3))

    def test_before_anybody_was_asked_it_goes_on_and_after_the_last_it_does_not(self) -> None:
        found, labels_N = seldom_right()
        policy, _ = stop_when(play(found, labels_N, costs_M=np.ones(3), most=2), 0.05, costs_M=np.ones(3))
        assert isinstance(policy, Stopping)
        assert policy.worth(found, found.begin(np.arange(2))).tolist() == [math.inf] * 2
        everybody = found.heard(np.arange(2), np.ones((2, 3), dtype=bool))
        assert policy.worth(found, everybody).tolist() == [-math.inf] * 2
        assert policy.following(found, everybody).tolist() == [-1, -1]


class TestPolicy:
    @pytest.mark.parametrize("learner", ["stopping", "ppo"])
    def test_it_learns_whom_to_ask_and_when_to_stop(self, learner: Learner) -> None:
        """One call to the specialist is enough; a vote of all three needs three, and is right less often."""
        fit, test = specialists(0, prefix="fit"), specialists(1, prefix="test")
        chosen = MarlFocal(price=0.02, learner=learner, updates=40).fit(fit)
        ensemble = Ensemble(fit.agents, chosen, "topla_weighted")
        selection, asked_NM = ask(chosen, test)
        assert asked_NM.sum(axis=1).mean() < 1.3
        ensemble.fuser.fit(fit, ask(chosen, fit)[0])
        answers_N = ensemble.fuser.fuse(test.blind(), selection).answers
        assert (answers_N == test.labels).mean() > 0.95

    @pytest.mark.parametrize("learner", ["stopping", "ppo"])
    def test_dearer_calls_are_fewer(self, learner: Learner) -> None:
        fit = tables.random_table(3, questions=400, agents=tables.AGENTS, prefix="fit")
        test = tables.random_table(4, questions=400, agents=tables.AGENTS, prefix="test")
        spent = []
        for price in (0.0005, 0.01, 0.15):
            chosen = MarlFocal(price=price, learner=learner, updates=30).fit(fit)
            spent.append(ask(chosen, test)[1].sum(axis=1).mean())
        assert spent[0] >= spent[1] >= spent[2]
        assert spent[0] > spent[2]

    @pytest.mark.parametrize("learner", ["stopping", "ppo"])
    def test_calls_are_spent_as_asked_for(self, learner: Learner) -> None:
        fit = tables.random_table(3, questions=400, agents=tables.AGENTS)
        chosen = MarlFocal(calls=2.0, learner=learner, updates=30).fit(fit)
        assert ask(chosen, fit)[1].sum(axis=1).mean() == pytest.approx(2.0, abs=0.5)

    @pytest.mark.parametrize("learner", ["stopping", "ppo"])
    def test_never_more_than_max_calls(self, learner: Learner) -> None:
        fit = tables.random_table(3, questions=60, agents=tables.AGENTS)
        chosen = MarlFocal(price=0.0001, max_calls=2, learner=learner, updates=5).fit(fit)
        _, asked_NM = ask(chosen, fit)
        assert asked_NM.sum(axis=1).max() == 2

    def test_the_same_seed_gives_the_same_policy(self) -> None:
        table = specialists(0, questions=100)
        one, other, third = (MarlFocal(learner="ppo", updates=3, seed=seed).fit(table) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one.first_, other.first_)
        assert not np.array_equal(one.first_, third.first_)

    @pytest.mark.parametrize("learner", ["stopping", "ppo"])
    def test_the_callers_random_numbers_stay(self, learner: Learner) -> None:
        before = tables.global_randomness()
        MarlFocal(learner=learner, updates=2).fit(specialists(0, questions=60))
        assert tables.global_randomness() == before

    def test_progress_is_told(self) -> None:
        told: list[tuple[int, int]] = []
        found = world([[0, 1], [1, 1]], [1.0, 1.0])
        run = TrainingRun(told=lambda what, *step: told.append(step))
        train_policy(found, np.array([0, 1]), options=PpoOptions(updates=3), run=run)
        assert told == [(1, 3), (2, 3), (3, 3)]

    def test_tokens_are_costs(self) -> None:
        """Two agents that are always right, of which one takes a tenth of the tokens: that one is asked."""
        labels_N = np.arange(60) % 3
        tokens_NM = np.tile([1000, 100], (60, 1))
        answers_NM = np.stack([labels_N, labels_N], axis=1)
        table = tables.by_hand(answers_NM, labels_N.tolist(), tokens_out=tokens_NM)
        asked_NM = ask(MarlFocal(costs="tokens").fit(table), table)[1]
        assert asked_NM.sum(axis=0).tolist() == [0, 60]


def rated(seed: int, *, questions: int = 400) -> PredictionTable:
    """Nothing is right: every agent says something else, and a's is better in law, b's in maths; c's never is.

    Scores are in [0, 1]: 0.8 for the better one, 0.3 for the other, 0.1 for c, all with some noise.
    """
    rng = np.random.default_rng(seed)
    maths_N = rng.random(questions) < 0.5
    scores_NM = np.stack([np.where(maths_N, 0.3, 0.8), np.where(maths_N, 0.8, 0.3), np.full(questions, 0.1)], axis=1)
    return tables.by_hand(
        np.tile([0, 1, 2], (questions, 1)),
        [-1] * questions,
        question_ids=[f"{seed}-{n}" for n in range(questions)],
        categories=np.where(maths_N, "maths", "law").tolist(),
        num_options=[3] * questions,
        scores=np.clip(scores_NM + rng.normal(0, 0.1, scores_NM.shape), 0, 1),
    )


class TestScores:
    def test_the_best_rated_by_hand(self) -> None:
        """Scores .2, .9, .7, .5 for options 0, 1, 1, 2: 1 is best. Of equal ones most votes; 0 is rated last."""
        table = tables.by_hand(
            [[0, 1, 1, 2], [2, 1, 1, 0], [2, 1, 0, -1], [-1, -1, -1, -1]],
            [0, 0, 0, 0],
            num_options=[3] * 4,
            scores=[[0.2, 0.9, 0.7, 0.5], [0.4] * 4, [0.4, 0.4, 0.3, 0.9], [0.0] * 4],
        )
        found, worth_NK = best_rated(table)
        assert found.require_labels()[[0, 1, 3]].tolist() == [1, 1, -1]
        assert found.require_labels()[2] in (1, 2)
        np.testing.assert_allclose(worth_NK[0], [0.2, 0.9, 0.5])
        np.testing.assert_allclose(worth_NK[3], 0)

    def test_of_equal_texts_nobodys_is_always_best(self) -> None:
        """Three texts alike on 600 questions: each is drawn as the best on a third of them, whoever stands first."""
        table = tables.by_hand(
            np.tile([0, 1, 2], (600, 1)), [-1] * 600, num_options=[3] * 600, scores=np.ones((600, 3))
        )
        found = best_rated(table)[0].require_labels()
        assert np.bincount(found).tolist() == pytest.approx([200, 200, 200], abs=40)
        turned = best_rated(table.columns(table.agents[::-1]))[0].require_labels()
        tables.equal(found, turned)

    def test_advantages_by_hand(self) -> None:
        """Worth 5, 2 and 4 where all were given: 3, 0 and 2; where only the last two were: 0 and 2. Then nobody."""
        answers_NM = np.array([[0, 1, 2], [1, 2, -1], [-1, -1, -1]])
        worth_NK = np.array([[5.0, 2, 4], [0, 2, 4], [0, 0, 0]])
        np.testing.assert_allclose(advantages(answers_NM, worth_NK), [[3, 0, 2], [0, 0, 2], [0, 0, 0]])

    @pytest.mark.parametrize("learner", ["stopping", "ppo"])
    @pytest.mark.parametrize(("factor", "offset"), [(1.0, 0.0), (0.01, 0.0), (0.3, 0.6)])
    def test_the_best_on_average_wins_over_who_is_best_most_often(
        self, learner: Learner, factor: float, offset: float
    ) -> None:
        """Steady texts are worth .6; erratic ones .7 on 6 questions of 10, else nothing. On any scale of scores."""

        def made(seed: int) -> PredictionTable:
            good_N = np.random.default_rng(seed).random(600) < 0.6
            scores_NM = np.stack([np.where(good_N, 0.7, 0.0), np.full(600, 0.6)], axis=1)
            return tables.by_hand(
                np.tile([0, 1], (600, 1)),
                [-1] * 600,
                question_ids=[f"{seed}-{n}" for n in range(600)],
                num_options=[2] * 600,
                options=[[f"erratic {seed} {n}", f"steady {seed} {n}"] for n in range(600)],
                references=[f"reference {seed} {n}" for n in range(600)],
                scores=factor * scores_NM + offset,
            )

        policy = MarlFocal(reward="score", price=0.02 * factor, learner=learner, updates=40)
        for selector in (policy, AllAgents()):
            found = Ensemble(made(0).agents, selector, "marl_aggregator(target=score)").fit(made(0)).replay(made(1))
            assert found.decision.answers.tolist() == [1] * 600
            assert found.asked.sum(axis=1).tolist() == [1 if selector is policy else 2] * 600

    def test_scores_that_are_not_there(self) -> None:
        with pytest.raises(InvalidTable, match="no scores"):
            MarlFocal(reward="score").fit(specialists(0, questions=20))

    def test_it_asks_who_answers_best(self) -> None:
        """One call to the agent whose answers are best there, where labels say nothing."""
        fit, test = rated(0), rated(1)
        ensemble = Ensemble(fit.agents, MarlFocal(reward="score", price=0.02), "marl_aggregator(target=score)").fit(fit)
        found = ensemble.replay(test)
        assert test.scores is not None
        assert found.asked.sum(axis=1).mean() < 1.3
        reached = test.scores[np.arange(len(test)), found.decision.answers].mean()
        assert reached > 0.75
        # The best agent everywhere, and everybody's votes.
        assert reached > test.scores.mean(axis=0).max() + 0.15


class TestOpenQuestions:
    def test_who_is_never_right_is_asked_last(self) -> None:
        """ann is right 8 times in 10, bob never, and wrong texts all differ: before ann is heard nothing is named."""
        right_N = np.random.default_rng(0).random(400) < 0.8
        fit = tables.by_hand(
            np.tile([0, 1], (400, 1)),
            np.where(right_N, 0, -1).tolist(),
            num_options=[2] * 400,
            options=[[f"ann {n}", f"bob {n}"] for n in range(400)],
            references=[f"ann {n}" for n in range(400)],
        )
        for policy in (MarlFocal(calls=1), MarlFocal(price=0.02), MarlFocal(price=0.005)):
            assert ask(policy.fit(fit), fit)[1].tolist() == [[True, False]] * 400


class TestRefusals:
    def test_tokens_that_are_not_there(self) -> None:
        with pytest.raises(InvalidTable, match="no tokens"):
            MarlFocal(costs="tokens").fit(specialists(0, questions=20))

    def test_no_questions(self) -> None:
        with pytest.raises(InvalidTable, match="empty"):
            MarlFocal().fit(specialists(0, questions=20).rows(np.zeros(20, dtype=bool)))

    def test_before_fit(self) -> None:
        with pytest.raises(NotFitted, match="fit"):
            MarlFocal().select(specialists(0, questions=10))

    def test_other_agents(self) -> None:
        chosen = MarlFocal().fit(specialists(0, questions=20))
        with pytest.raises(TableMismatch):
            chosen.select(specialists(0, questions=20).columns(["a", "b"]))
