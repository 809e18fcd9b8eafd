"""topla_weighted: the model against a general optimiser, what it learns on made tables, and recorded answers."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from tables import NEAR_PAPER, by_hand, everyone, relabelled

from fusion.data import PredictionTable, read_table, split
from fusion.ensemble import Ensemble
from fusion.errors import InvalidTable
from fusion.fusers import _paper_network
from fusion.fusers.topla_weighted import ToplaWeighted
from fusion.fusers.vote import Vote
from fusion.fusers.weighted_vote import WeightedVote
from fusion.logit import _pooled
from fusion.logit._candidates import Candidates, candidates, joined, kinds
from fusion.logit._pooled import Model, Rows, Worth, fit, held_out, probabilities
from fusion.schema import FloatArray, Selection


def fitted(table: PredictionTable, **how: Any) -> ToplaWeighted:
    return ToplaWeighted(**how).fit(table, everyone(table))


def specialists(seed: int, *, per_category: int = 120, options: int = 6, prefix: str = "q") -> PredictionTable:
    """Ash knows law, birch maths, cedar a little of both; where they do not know, they guess."""
    rng = np.random.default_rng(seed)
    skills = {"law": (0.9, 0.2, 0.4), "maths": (0.2, 0.9, 0.4)}
    answers, labels, categories = [], [], []
    for name, skill in skills.items():
        for _ in range(per_category):
            label = int(rng.integers(options))
            answers.append([label if rng.random() < p else int(rng.integers(options)) for p in skill])
            labels.append(label)
            categories.append(name)
    return PredictionTable(
        question_ids=[f"{prefix}{seed}-{n}" for n in range(len(labels))],
        agents=("ash", "birch", "cedar"),
        answers=answers,
        labels=labels,
        num_options=[options] * len(labels),
        categories=categories,
    )


def believing(seed: int, *, questions: int = 300, favour: float = 0.0, prefix: str = "q") -> PredictionTable:
    """Two agents with probabilities over 4 options; the first always finds option 0 likelier, by `favour` nats."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, questions)
    logits_NMK = rng.normal(0, 1, (questions, 2, 4))
    logits_NMK[np.arange(questions), 0, labels_N] += 1.5
    logits_NMK[np.arange(questions), 1, labels_N] += 0.3
    logits_NMK[:, 0, 0] += favour
    probs_NMK = np.exp(logits_NMK)
    probs_NMK /= probs_NMK.sum(axis=2, keepdims=True)
    return PredictionTable(
        question_ids=[f"{prefix}{seed}-{n}" for n in range(questions)],
        agents=("ash", "birch"),
        probs=probs_NMK,
        labels=labels_N,
        num_options=[4] * questions,
        categories=["all"] * questions,
    )


def accuracy(fuser: Any, table: PredictionTable) -> float:
    return float((fuser.fuse(table.blind(), everyone(table)).answers == table.labels).mean())


class TestCandidates:
    def test_votes_by_hand(self) -> None:
        """Of 4 options a and b name 2, c names 0: two rows, in the order of the options, two options unnamed."""
        table = by_hand([[2, 2, 0]], [2], num_options=[4])
        ((part, found),) = candidates(table, everyone(table), probs=False, samples=1, absent=False)
        assert part == slice(0, 1)
        assert found.option.tolist() == [0, 2]
        assert found.features[:, :3].tolist() == [[0, 0, 1], [1, 1, 0]]
        np.testing.assert_allclose(found.features[:, 3:], [[1, 0, np.log(2), 1 / 3], [1, 1, np.log(3), 4 / 3]])
        assert found.unnamed.tolist() == [2]
        assert found.place(np.array([2])).tolist() == [1]
        assert found.place(np.array([3])).tolist() == [-1]

    def test_beliefs_are_centred(self) -> None:
        table = by_hand([[0, -1]], [0], probs=[[[0.5, 0.25, 0.25], [0, 0, 0]]], num_options=[3])
        ((_, found),) = candidates(table, everyone(table), probs=True, samples=1, absent=False)
        assert [kind.stop - kind.start for kind in kinds(2, probs=True)] == [2, 2, 2, 4]
        np.testing.assert_allclose(found.features[:, 2], [1 / 6, -1 / 12, -1 / 12], atol=1e-7)
        np.testing.assert_allclose(found.features[:, 4], np.log([0.5, 0.25, 0.25]) - np.log([0.5, 0.25, 0.25]).mean())
        assert not found.features[:, [1, 3, 5]].any(), "an agent that abstains says nothing"

    def test_samples_are_shares(self) -> None:
        table = by_hand([[0]], [0], num_options=[2], sample_answers=[[[0, 0, 1, -1]]])
        ((_, found),) = candidates(table, everyone(table), probs=False, samples=4, absent=False)
        np.testing.assert_allclose(found.features[:, 0], [2 / 3, 1 / 3])
        with pytest.raises(InvalidTable, match="5 samples of every agent are asked for, and the table has 4"):
            list(candidates(table, everyone(table), probs=False, samples=5, absent=False))

    def test_pieces_are_the_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        table = specialists(0)
        whole = joined([part for _, part in candidates(table, everyone(table), probs=False, samples=1, absent=False)])
        monkeypatch.setattr("fusion.logit._candidates._CELLS", 1000)
        pieces = [part for _, part in candidates(table, everyone(table), probs=False, samples=1, absent=False)]
        assert len(pieces) > 5
        for one, many in zip(whole, joined(pieces), strict=True):
            np.testing.assert_array_equal(one, many)

    def test_some_of_the_questions(self) -> None:
        table = specialists(1, per_category=10)
        keep_N = np.arange(len(table)) % 3 == 0
        parts = [
            joined([part for _, part in candidates(some, everyone(some), probs=False, samples=1, absent=False)])
            for some in (table, table.rows(keep_N))
        ]
        for one, other in zip(parts[0].taken(keep_N), parts[1], strict=True):
            np.testing.assert_array_equal(one, other)


def random_rows(seed: int, *, groups: int = 3, per_group: int = 30, width: int = 4) -> Rows:
    """Questions with 0 to 3 candidates and 1 or 2 unnamed options."""
    rng = np.random.default_rng(seed)
    counts_N = rng.integers(0, 4, groups * per_group)
    start = np.concatenate([[0], np.cumsum(counts_N)])
    features_RD = rng.normal(size=(start[-1], width))
    found = Candidates(
        start,
        np.concatenate([np.arange(count) for count in counts_N]),
        features_RD,
        np.ones(start[-1], dtype=bool),
        rng.integers(1, 3, len(counts_N)),
    )
    right_N = np.where((counts_N > 0) & (rng.random(len(counts_N)) < 0.8), start[:-1], -1)
    return Rows(candidates=found, right=right_N, bounds=np.arange(groups + 1) * per_group)


class TestPooledLogit:
    def test_probabilities_by_hand(self) -> None:
        """Scores log 2 and log 3, one option unnamed: 2, 3 and 1 of 6; then nothing named, two unnamed."""
        probs_R, log_sums_N = probabilities(np.log([2.0, 3.0]), np.array([2, 0]), np.array([1, 2]))
        np.testing.assert_allclose(probs_R, [1 / 3, 1 / 2])
        np.testing.assert_allclose(log_sums_N, np.log([6, 2]))

    def test_large_scores(self) -> None:
        probs_R, log_sums_N = probabilities(np.array([1000.0, -1000.0]), np.array([1, 1]), np.array([1, 1]))
        assert probs_R.tolist() == [1, 0]
        np.testing.assert_allclose(log_sums_N, [1000, 0])

    @pytest.mark.parametrize("seed", range(3))
    def test_mode_against_a_general_optimiser(self, seed: int) -> None:
        rows = random_rows(seed)
        within_D = np.array([0.5, 2.0, 10.0, 1.0])
        directions = np.array([[0.6, 0.8, 0.0, 0.0]])
        prior_DD = _pooled._prior(np.array([1.0, 1.0, 3.0, 0.2]), directions)
        counts_N, unnamed_N = np.diff(rows.candidates.start), rows.candidates.unnamed

        def energy(flat: FloatArray) -> float:
            common_D, groups_CD = flat[:4], flat[4:].reshape(3, 4)
            total = 0.5 * common_D @ prior_DD @ common_D + 0.5 * (((groups_CD - common_D) ** 2) @ within_D).sum()
            for n in range(len(counts_N)):
                low = rows.candidates.start[n]
                scores = rows.candidates.features[low : low + counts_N[n]] @ groups_CD[rows.group[n]]
                right = scores[rows.right[n] - low] if rows.right[n] >= 0 else np.log(unnamed_N[n])
                total += np.log(np.exp(scores).sum() + unnamed_N[n]) - right
            return float(total)

        start = _pooled.Weights(np.zeros(4), np.zeros((3, 4)), within_D)
        found, spread = _pooled._mode(rows, start, prior_DD)
        best = minimize(energy, np.zeros(16), method="BFGS", options={"gtol": 1e-7})
        np.testing.assert_allclose(np.concatenate([found.common, found.groups.ravel()]), best.x, atol=1e-5)
        assert (spread.common > 0).all()
        assert spread.groups.shape == (3, 4)

    @pytest.mark.parametrize("seed", range(2))
    def test_a_worth_of_1_for_what_is_right_is_the_same(self, seed: int) -> None:
        rows = random_rows(seed)
        model = Model(np.zeros((0, 4)), [slice(0, 4)], True)
        plain, counted = fit(rows, model), fit(dataclasses.replace(rows, worth=rows.counted()), model)
        for one, other in zip(plain, counted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)
        keep_N = np.arange(len(rows.right)) % 2 == 0
        parts = [dataclasses.replace(some, worth=some.counted()) for some in (rows, rows.taken(keep_N))]
        for one, other in zip(parts[0].taken(keep_N).counted(), parts[1].counted(), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_probabilities_are_in_proportion_to_what_is_worth_by_hand(self) -> None:
        """Two options with a weight each, one unnamed; worth .6, .3 and .1 on the mean question, in other shares each.

        Without a prior that counts the scores are log 6 and log 3, that of the unnamed being 0.
        """
        repeated = 4000
        found = Candidates(
            np.arange(repeated + 1) * 2,
            np.tile([0, 1], repeated),
            np.tile(np.eye(2), (repeated, 1)),
            np.ones(2 * repeated, dtype=bool),
            np.ones(repeated, dtype=np.int64),
        )
        named_NK = np.where((np.arange(repeated) % 2 == 0)[:, None], [1.2, 0.0], [0.0, 0.6])
        worth = Worth(named_NK.ravel(), np.full(repeated, 0.1))
        rows = Rows(
            candidates=found, right=np.zeros(repeated, dtype=np.intp), bounds=np.array([0, repeated]), worth=worth
        )
        weights = fit(rows, Model(np.zeros((0, 2)), [slice(0, 2)], False))
        np.testing.assert_allclose(weights.groups[0], np.log([6.0, 3.0]), atol=0.02)

    def test_precisions_are_found(self) -> None:
        """Groups whose weights differ widely, hardly, or not at all in the three kinds of features."""
        rng = np.random.default_rng(0)
        groups, per_group = 40, 150
        spreads_D = np.array([1.5, 0.4, 0.02])
        true_CD = np.array([1.0, -1.0, 0.5]) + rng.normal(size=(groups, 3)) * spreads_D
        features_RD = rng.normal(size=(groups * per_group * 3, 3))
        scores = np.einsum(
            "nkd,nd->nk", features_RD.reshape(-1, 3, 3), np.repeat(true_CD, per_group, axis=0)
        ) + rng.gumbel(size=(groups * per_group, 3))
        start = np.arange(groups * per_group + 1) * 3
        found = Candidates(
            start,
            np.tile(np.arange(3), groups * per_group),
            features_RD,
            np.ones(len(features_RD), dtype=bool),
            np.zeros(groups * per_group, dtype=np.int64),
        )
        rows = Rows(
            candidates=found, right=start[:-1] + scores.argmax(axis=1), bounds=np.arange(groups + 1) * per_group
        )
        model = Model(np.eye(3), [slice(0, 1), slice(1, 2), slice(2, 3)], True)
        weights = _pooled.fit(rows, model)
        np.testing.assert_allclose(weights.within[:2] ** -0.5, spreads_D[:2], rtol=0.25)
        assert weights.within[2] > 200
        assert np.corrcoef(weights.groups[:, 0], true_CD[:, 0])[0, 1] > 0.97
        np.testing.assert_allclose(weights.common, [1.0, -1.0, 0.5], atol=0.5)

    def test_held_out_is_of_weights_that_have_not_seen_the_question(self) -> None:
        rows = random_rows(5, groups=1, per_group=60)
        model = Model(np.zeros((0, 4)), [slice(0, 4)], False)
        found_N = held_out(rows, model)
        one = np.arange(60) % 3 == 1
        weights = _pooled.fit(rows.taken(~one), model)
        tested = rows.taken(one)
        counts_N = np.diff(tested.candidates.start)
        scores_R = tested.candidates.features @ weights.groups[0]
        probs_R, log_sums_N = probabilities(scores_R, counts_N, tested.candidates.unnamed)
        expected_N = np.where(
            tested.right >= 0,
            np.log(probs_R[np.maximum(tested.right, 0)]),
            np.log(tested.candidates.unnamed) - log_sums_N,
        )
        np.testing.assert_allclose(found_N[one], expected_N, rtol=1e-9)


class TestLearning:
    def test_who_knows_what(self) -> None:
        fit, test = specialists(0), specialists(1, prefix="t", per_category=400)
        assert accuracy(fitted(fit), test) > 0.88
        assert accuracy(fitted(fit, pooling="off"), test) < 0.8
        assert accuracy(WeightedVote().fit(fit, everyone(fit)), test) < 0.8

    def test_of_very_many_questions_some_are_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fit, test = specialists(0, per_category=1500), specialists(1, prefix="t", per_category=400)
        monkeypatch.setattr("fusion.fusers.topla_weighted.MOST_QUESTIONS", 300)
        found = fitted(fit)
        assert accuracy(found, test) > 0.88
        every_tenth = fit.rows(np.linspace(0, len(fit) - 1, 300).astype(int))
        np.testing.assert_allclose(found.weights_, fitted(every_tenth).weights_, rtol=0.2, atol=0.2)

    def test_new_categories_get_the_common_weights(self) -> None:
        fit, test = specialists(0), specialists(2, prefix="t")
        renamed = by_hand(
            test.answers, test.labels, agents=test.agents, num_options=test.num_options, categories=["art"] * len(test)
        )
        found = fitted(fit).fuse(renamed.blind(), everyone(renamed))
        bare = by_hand(test.answers, test.labels, agents=test.agents, num_options=test.num_options)
        np.testing.assert_array_equal(found.answers, fitted(fit).fuse(bare.blind(), everyone(bare)).answers)

    def test_the_only_right_agent_is_followed_against_a_majority(self) -> None:
        rng = np.random.default_rng(0)
        labels_N = rng.integers(0, 4, 400)
        wrong_N = (labels_N + 1) % 4
        right_N = rng.random(400) < 0.9
        answers = np.stack([np.where(right_N, labels_N, wrong_N), wrong_N, wrong_N], axis=1)
        table = by_hand(answers, labels_N, num_options=[4] * 400)
        assert accuracy(fitted(table), table) == pytest.approx(right_N.mean())

    def test_confidence_is_how_often_it_is_right(self) -> None:
        fit, test = specialists(3, per_category=2000), specialists(4, prefix="t", per_category=4000)
        decision = fitted(fit).fuse(test.blind(), everyone(test))
        assert decision.confidence is not None
        correct_N = decision.answers == test.labels
        for low in np.arange(0.3, 1.0, 0.1):
            inside_N = (decision.confidence >= low) & (decision.confidence < low + 0.1)
            if inside_N.sum() > 200:
                error = 4 * (0.25 / inside_N.sum()) ** 0.5
                assert decision.confidence[inside_N].mean() == pytest.approx(correct_N[inside_N].mean(), abs=error)

    def test_beliefs_settle_what_votes_leave_open(self) -> None:
        fit, test = believing(0, questions=2000), believing(1, prefix="t", questions=4000)
        votes = PredictionTable(
            question_ids=test.question_ids, agents=test.agents, answers=test.answers, labels=test.labels
        )
        assert accuracy(fitted(fit), test) > accuracy(fitted(fit, probs=False), votes) + 0.005

    def test_votes_are_enough_where_fit_did_not_use_probabilities(self) -> None:
        table = believing(0)
        votes = by_hand(table.answers, table.labels, agents=table.agents, num_options=table.num_options)
        assert accuracy(fitted(table, probs=False), votes) == accuracy(fitted(table, probs=False), table)
        with pytest.raises(InvalidTable, match="it was fitted on a table with probabilities, and this table has none"):
            fitted(table).fuse(votes, everyone(votes))

    def test_wrong_answers_to_open_questions_lower_the_confidence(self) -> None:
        """Each question has its own two answers; all agree on one, right in 6 of 10 cases, else both are wrong."""
        labels_N = np.where(np.arange(200) % 10 < 6, 0, -1)
        table = by_hand(
            np.zeros((200, 3), dtype=int),
            labels_N,
            num_options=[1] * 200,
            options=[(f"{n}",) for n in range(200)],
            references=[f"{n}" if label >= 0 else "?" for n, label in enumerate(labels_N)],
        )
        decision = fitted(table).fuse(table.blind(), everyone(table))
        assert decision.confidence is not None
        np.testing.assert_allclose(decision.confidence, 0.6, atol=0.03)
        assert decision.probs is not None
        np.testing.assert_allclose(decision.probs[:, 0], 1)

    def test_samples_tell_more_than_one_answer(self) -> None:
        rng = np.random.default_rng(1)
        labels_N = rng.integers(0, 5, 300)
        sure_NM = rng.random((300, 3)) * 0.7
        drawn_NMR = np.where(
            rng.random((300, 3, 9)) < sure_NM[:, :, None], labels_N[:, None, None], rng.integers(0, 5, (300, 3, 9))
        )
        table = by_hand(drawn_NMR[:, :, 0], labels_N, num_options=[5] * 300, sample_answers=drawn_NMR)
        fit, test = table.rows(slice(0, 150)), table.rows(slice(150, 300))
        assert accuracy(fitted(fit, samples=9), test) > accuracy(fitted(fit), test) + 0.1
        assert fitted(fit, samples=9).fuse(test.blind(), everyone(test)).samples == 9


class TestPositions:
    def test_a_favourite_position_is_taken_off(self) -> None:
        fit, test = believing(0, favour=1.5, questions=800), believing(1, favour=1.5, prefix="t", questions=2000)
        plain, auto = fitted(fit), fitted(fit, positions="auto")
        assert accuracy(auto, test) > accuracy(plain, test) + 0.05
        assert auto.offsets_ is not None
        assert auto.offsets_[0, 0, 0] > 0.8
        assert abs(auto.offsets_[0, :, 1]).max() < 0.3

    def test_it_is_left_alone_where_positions_say_nothing(self) -> None:
        fit, test = believing(0), believing(1, prefix="t")
        plain, auto = fitted(fit), fitted(fit, positions="auto")
        assert auto.weights_ is not None
        assert not auto.weights_[:, -2:].any()
        found, expected = (fuser.fuse(test.blind(), everyone(test)) for fuser in (auto, plain))
        np.testing.assert_array_equal(found.answers, expected.answers)

    def test_saved_and_loaded(self, tmp_path: Path) -> None:
        fit, test = believing(0, favour=1.5), believing(1, favour=1.5, prefix="t")
        ensemble = Ensemble(fit.agents, "all_agents", ToplaWeighted(positions="auto")).fit(fit)
        ensemble.save(tmp_path / "e")
        found = Ensemble.load(tmp_path / "e").replay(test).decision
        np.testing.assert_array_equal(found.answers, ensemble.replay(test).decision.answers)


class TestPaperNetwork:
    def test_scores_by_hand(self) -> None:
        """All weights 0 and the last bias (1, 2): every row scores (1, 2)."""
        count = sum(rows * columns for rows, columns in _paper_network.shapes(3, 2))
        parameters = np.zeros(count, dtype=np.float32)
        parameters[-2:] = [1, 2]
        assert _paper_network.scores(np.ones((2, 3)), parameters, 2).tolist() == [[1, 2], [1, 2]]

    def test_it_learns(self) -> None:
        fit, test = specialists(0, per_category=300, options=3), specialists(1, prefix="t", options=3)
        assert accuracy(fitted(fit, network="mlp"), test) > max(test.accuracies) + 0.03

    def test_it_does_not_know_that_letters_are_alike(self) -> None:
        """An agent is right on the first two letters in fit, on the others in test: the network has to learn anew."""
        rng = np.random.default_rng(0)
        labels_N = np.where(np.arange(600) < 300, rng.integers(0, 2, 600), rng.integers(2, 4, 600))
        wrong_N = (labels_N + rng.integers(1, 4, 600)) % 4
        answers = np.stack([labels_N, wrong_N], axis=1)
        table = by_hand(answers, labels_N, num_options=[4] * 600)
        fit, test = table.rows(slice(0, 300)), table.rows(slice(300, 600))
        assert accuracy(fitted(fit), test) == 1
        assert accuracy(fitted(fit, network="mlp"), test) < 0.9

    def test_the_same_seed_gives_the_same_network(self) -> None:
        fit = specialists(0, per_category=30)
        one, two, other = (fitted(fit, network="mlp", seed=seed).weights_ for seed in (0, 0, 1))
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, other)


@pytest.fixture(scope="module")
def recorded(recorded_data: Path) -> PredictionTable:
    return read_table(recorded_data / "mmlu_pro" / "predictions.csv.gz")


def gains(table: PredictionTable, fuser: Any, *, seeds: int = 5, most: int | None = None) -> list[float]:
    """Points over the member that is best on the fit part."""
    found = []
    for seed in range(seeds):
        parts = split(table, fit_fraction=0.7, seed=seed, stratify="category")
        fit, test = parts.fit, parts.test
        if most is not None:
            fit = fit.rows(np.random.default_rng(seed).permutation(len(fit))[:most])
        fuser.fit(fit, everyone(fit))
        found.append(100 * (accuracy(fuser, test) - test.accuracies[fit.accuracies.argmax()]))
    return found


class TestRecorded:
    def test_more_than_the_best_member(self, recorded: PredictionTable) -> None:
        """The figures of benchmarks/fusers, with room for other arithmetic."""
        weak = [name for name, value in zip(recorded.agents, recorded.accuracies, strict=True) if value < 0.6]
        assert np.mean(gains(recorded.columns(NEAR_PAPER), ToplaWeighted())) > 6.3
        assert np.mean(gains(recorded.columns(weak), ToplaWeighted())) > 8.9
        assert np.mean(gains(recorded, ToplaWeighted())) > 1.8

    def test_fifty_labels_are_no_worse_than_the_vote(self, recorded: PredictionTable) -> None:
        for table in (recorded, recorded.columns(NEAR_PAPER)):
            learned = gains(table, ToplaWeighted(), seeds=12, most=50)
            voted = gains(table, WeightedVote(), seeds=12, most=50)
            assert np.mean(learned) > np.mean(voted) - 0.3

    def test_options_in_another_order(self, recorded: PredictionTable) -> None:
        table = recorded.rows(slice(0, 1500))
        other, moved = relabelled(table, 0)
        expected = fitted(table).fuse(table.blind(), everyone(table)).answers
        found = fitted(other).fuse(other.blind(), everyone(other)).answers
        np.testing.assert_array_equal(found, moved[np.arange(len(table)), expected])

    def test_few_agents_of_many(self, recorded: PredictionTable) -> None:
        """Fitted on all, asked of three: the weights of the others are not needed."""
        parts = split(recorded, fit_fraction=0.7, seed=0, stratify="category")
        strongest = np.argsort(-parts.fit.accuracies)[:3]
        mask_NM = np.isin(np.arange(recorded.num_agents), strongest)
        three = Selection(np.tile(mask_NM, (len(parts.test), 1)))
        decision = fitted(parts.fit).fuse(parts.test.blind(), three)
        voted = Vote().fit(parts.fit, everyone(parts.fit)).fuse(parts.test.blind(), three)
        assert (decision.answers == parts.test.labels).mean() > (voted.answers == parts.test.labels).mean() - 0.01
