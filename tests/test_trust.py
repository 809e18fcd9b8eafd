"""What a result keeps of confidence and weights: bins, thinned curves, mean weights, and that old files still load."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import tables
from hypothesis import given
from hypothesis import strategies as st
from tables import by_hand

from fusion.data import PredictionTable, read_table, right_answers
from fusion.errors import InputError
from fusion.evaluation import BenchOptions, BenchResult, RiskCoverageCurve, Weights, bench
from fusion.evaluation._confidence import Stated, error_of_confidence
from fusion.evaluation._trust import (
    MAX_CATEGORIES,
    MAX_POINTS,
    Groups,
    confidence_bins,
    mean_weights,
    risk_coverage_curve,
    thinned,
)
from fusion.schema import Decision, FloatArray, Selection

QUICK = BenchOptions(repeats=200)


def stated(confidence: list[float], correct: list[int], answered: list[int] | None = None) -> Stated:
    answered_N = np.ones(len(correct), dtype=bool) if answered is None else np.array(answered, dtype=bool)
    return Stated(np.array(confidence), answered_N, np.array(correct, dtype=bool))


class Told:
    """A fuser whose weights are given, [N, M]."""

    def __init__(self, weights: FloatArray | None) -> None:
        self.weights = weights

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        return Decision(np.zeros(len(table), dtype=np.int64))

    def vote_weights(self, table: PredictionTable) -> FloatArray | None:
        assert table.labels is None, "weights must not depend on the right answers"
        return self.weights


def simulated(questions: int, categories: int, *, agents: int = 4, seed: int = 0) -> PredictionTable:
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, questions)
    shape = (questions, agents)
    right_NM = rng.random(shape) < np.linspace(0.7, 0.3, agents)
    answers_NM = np.where(right_NM, labels_N[:, None], (labels_N[:, None] + rng.integers(1, 4, shape)) % 4)
    names = [f"c{code:02}" for code in np.arange(questions) % categories]
    return PredictionTable(
        question_ids=[f"q{n}" for n in range(questions)],
        agents=[f"a{j}" for j in range(agents)],
        answers=answers_NM,
        labels=labels_N,
        num_options=np.full(questions, 4),
        categories=names,
    )


@dataclass(kw_only=True)
class Speaker:
    """A fuser that writes the same text as the answer to every question."""

    text: str = "Rome."

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        return Decision(np.full(len(table), -1), texts=(self.text,) * len(table))


class TestRight:
    def test_by_hand(self) -> None:
        """Right: the label; a text that equals the reference in another form. Not: an option, a text, nothing else."""
        table = by_hand(
            [[0]] * 5, [0, -1, 1, -1, -1], options=[["Oslo", "Bern"]] * 5, references=["Oslo", "7", "Bern", "Rome", "x"]
        )
        decision = Decision(np.array([0, -1, 0, -1, -1]), texts=("Oslo", '"7.0"', "Bern", "Milan", ""))
        assert right_answers(decision, table).tolist() == [True, True, False, False, False]
        assert Stated.of(decision, table).correct.tolist() == [True, True, False, False, False]

    def test_without_references_no_text_is_right(self) -> None:
        table = by_hand([[0]], [1], options=[["Oslo", "Bern"]])
        assert right_answers(Decision(np.array([-1]), texts=("Bern",)), table).tolist() == [False]

    @given(st.text())
    def test_a_text_is_right_as_its_own_reference(self, text: str) -> None:
        """But for blanks, which are no answer at all."""
        table = by_hand([[-1]], [-1], options=[[]], references=[text])
        assert right_answers(Decision(np.array([-1]), texts=(text,)), table).tolist() == [bool(text)]


class TestBins:
    def test_by_hand(self) -> None:
        """Equal confidences stay together, so that four answers fill three of fifteen bins: 0.2 twice, 0.8, 0.9.

        One of the two at 0.2 is right: Wilson's interval for 1 of 2 is 0.5 +- 0.4055. The error is
        (2 * 0.3 + 0.2 + 0.9) / 4 = 0.425.
        """
        found = error_of_confidence(stated([0.8, 0.2, 0.9, 0.2], [1, 0, 0, 1]), seed=0)
        assert found is not None
        bins = confidence_bins(found)
        assert [(row.n, row.confidence, row.accuracy) for row in bins] == [(2, 0.2, 0.5), (1, 0.8, 1.0), (1, 0.9, 0.0)]
        assert bins[0].ci95 == pytest.approx((0.0945, 0.9055), abs=1e-4)
        assert found.ece == pytest.approx(0.425)

    def test_equal_confidences_are_one_bin(self) -> None:
        found = error_of_confidence(stated([0.7] * 50, [1] * 40 + [0] * 10), seed=0)
        assert found is not None
        (only,) = confidence_bins(found)
        assert (only.n, only.accuracy) == (50, 0.8)
        assert only.confidence == pytest.approx(0.7)


class TestCurve:
    def test_by_hand(self) -> None:
        """Sure of one that is right, less of one right and one wrong; the fourth has no answer.

        Thresholds 0.9 and 0.8 answer 1/4 and 3/4, 0 and 1/3 of these wrong; with the abstention 2 of 4. The area is the
        mean of the four questions' risks, (0 + 1/3 + 1/3 + 1/2) / 4 = 7/24.
        """
        found = risk_coverage_curve(stated([0.8, 0.0, 0.9, 0.8], [1, 0, 1, 0], answered=[1, 0, 1, 1]))
        assert found is not None
        assert found.coverage == (0.25, 0.75, 1.0)
        assert found.risk == pytest.approx((0, 1 / 3, 1 / 2))
        assert found.aurc == pytest.approx(7 / 24)

    def test_equal_confidences_are_one_point(self) -> None:
        found = risk_coverage_curve(stated([0.5] * 4, [1, 0, 1, 1]))
        assert found == RiskCoverageCurve(coverage=(1.0,), risk=(0.25,), aurc=0.25)

    def test_nothing_to_say(self) -> None:
        assert risk_coverage_curve(stated([0.0, 0.0], [0, 0], answered=[0, 0])) is None
        assert risk_coverage_curve(Stated(None, np.ones(1, dtype=bool), np.ones(1, dtype=bool))) is None

    def test_the_area_is_that_of_the_whole_curve(self) -> None:
        """Of 1,000 answers the 500 surest are right: risk 0 up to there, then (i - 500) / i for the i-th."""
        found = risk_coverage_curve(stated(np.linspace(1, 0, 1000).tolist(), [1] * 500 + [0] * 500))
        assert found is not None
        assert len(found.coverage) == MAX_POINTS
        assert (found.coverage[0], found.coverage[-1], found.risk[0], found.risk[-1]) == (0.001, 1.0, 0.0, 0.5)
        assert found.aurc == pytest.approx(sum((i - 500) / i for i in range(501, 1001)) / 1000)

    def test_lengths_must_agree(self) -> None:
        with pytest.raises(InputError, match="2 coverages, but 1 risks"):
            RiskCoverageCurve(coverage=(0.5, 1.0), risk=(0.1,), aurc=0.1)


class TestThinning:
    def test_by_hand(self) -> None:
        """Even steps from 0.1 to 1 are 0.1, 0.55 and 1; the nearest to 0.55 is 0.6."""
        assert thinned(np.array([0.1, 0.2, 0.3, 0.6, 1.0]), most=3).tolist() == [0, 3, 4]

    def test_few_points_are_all_kept(self) -> None:
        assert thinned(np.array([0.3, 1.0]), most=50).tolist() == [0, 1]
        assert thinned(np.array([1.0]), most=50).tolist() == [0]

    @given(st.sets(st.integers(1, 2000), min_size=1, max_size=300), st.integers(2, 50))
    def test_ends_are_kept_and_no_step_is_far_from_a_point_that_was_nearest(self, counts: set[int], most: int) -> None:
        coverage_V = np.array(sorted(counts)) / 2000
        kept = thinned(coverage_V, most=most)
        assert len(kept) <= most
        assert (np.diff(kept) > 0).all()
        assert (kept[0], kept[-1]) == (0, len(coverage_V) - 1)
        steps = np.linspace(coverage_V[0], coverage_V[-1], most)
        nearest_all = np.abs(coverage_V[:, None] - steps).min(axis=0)
        np.testing.assert_allclose(np.abs(coverage_V[kept][:, None] - steps).min(axis=0), nearest_all, atol=1e-12)


class TestWeights:
    def test_by_hand(self) -> None:
        """Three questions on law, one on art. b is listened to on the first and the last one only.

        a: (1 + 2 + 3) / 3 = 2 in law, 4 in art. b: 0.5 in law, from one question; -1 in art.
        """
        table = by_hand([[0, 0]] * 4, [0] * 4, categories=["law", "law", "law", "art"])
        weights_NM = np.array([[1, 0.5], [2, 9], [3, 9], [4, -1]])
        heard_NM = np.array([[1, 1], [1, 0], [1, 0], [1, 1]], dtype=bool)
        found = mean_weights(Told(weights_NM), table, heard_NM, groups=Groups.of(table))
        assert found == Weights(
            agents=("a", "b"), categories=("law", "art"), counts=(3, 1), values=((2.0, 0.5), (4.0, -1.0))
        )

    def test_what_is_never_heard_has_no_weight(self) -> None:
        table = by_hand([[0, 0]] * 2, [0] * 2)
        heard_NM = np.array([[1, 0], [1, 0]], dtype=bool)
        found = mean_weights(Told(np.full((2, 2), 1 / 3)), table, heard_NM, groups=Groups.of(table))
        assert found is not None
        assert (found.categories, found.counts, found.values) == (("",), (2,), ((0.333333, None),))

    def test_fusers_that_say_none(self) -> None:
        table = by_hand([[0, 0]], [0])
        heard_NM = np.ones((1, 2), dtype=bool)
        assert mean_weights(Told(None), table, heard_NM, groups=Groups.of(table)) is None

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"counts": (1,)}, "2 categories, but 1 counts and 2 rows"),
            ({"values": ((1.0,), (1.0, 2.0))}, "1 agents, but a row of 2"),
        ],
    )
    def test_lengths_must_agree(self, fields: dict[str, Any], message: str) -> None:
        values: dict[str, Any] = {"agents": ("a",), "categories": ("x", "y"), "counts": (1, 1)}
        with pytest.raises(InputError, match=message):
            Weights(**(values | {"values": ((1.0,), (None,))} | fields))


class TestBench:
    def test_texts_of_nobody_are_told_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rome, which nobody gave, is right on half of the questions; a note says how that is judged."""
        tables.install(monkeypatch, "fusers", "speaker", Speaker)
        references = [("Rome", "Oslo")[n % 2] for n in range(20)]
        labels = [(-1, 0)[n % 2] for n in range(20)]
        table = by_hand([[0, 0]] * 20, labels, options=[["Oslo"]] * 20, references=references)
        result = bench(table.rows(slice(0, 10)), "speaker, speaker(text=Rome)", test=table.rows(slice(10, 20)))
        assert [system.accuracy for system in result.systems[:2]] == [0.5, 0.5]
        (told,) = [note for note in result.notes if note.startswith("answers that no agent gave")]
        assert told == (
            "answers that no agent gave count as right when they equal the reference but for case, blanks, quotation "
            "marks around them, a full stop at the end and the form of numbers"
        )
        assert not [note for note in bench(table, "vote", options=QUICK).notes if note.startswith("answers that")]

    def test_saved_and_read_back_without_nan(self, tmp_path: Path) -> None:
        result = bench(simulated(400, 3), "vote, top_k(k=2)+weighted_vote, topla_weighted, stacker", options=QUICK)
        result.save(tmp_path / "run.json")
        assert BenchResult.load(tmp_path / "run.json") == result
        json.loads((tmp_path / "run.json").read_text(), parse_constant=lambda name: pytest.fail(name))
        for system in result.systems:
            if system.role == "upper_bound":
                assert (system.reliability, system.risk_coverage, system.weights) == (None, None, None)
                continue
            assert system.reliability is not None
            n = sum(row.n for row in system.reliability)
            assert n == round((1 - system.abstained) * system.n)
            gaps = sum(row.n * abs(row.accuracy - row.confidence) for row in system.reliability)
            assert system.calibration_error == pytest.approx(gaps / n)
            assert system.risk_coverage is not None
            assert system.risk_coverage.coverage[-1] == 1
            assert system.risk_coverage.risk[-1] == pytest.approx(1 - system.accuracy)
        assert result.members[0].risk_coverage is None
        vote, few, learned, stacker = (system.weights for system in result.systems[:4])
        assert vote is not None
        assert set(vote.values) == {(1.0,) * 4}
        assert few is not None
        assert [value is None for value in few.values[0]].count(True) == 2
        assert learned is not None
        assert learned.categories == ("c00", "c01", "c02")
        assert sum(learned.counts) == result.n
        assert stacker is None

    def test_results_of_before_are_read(self, tmp_path: Path) -> None:
        content: Any = bench(simulated(200, 2), "vote", options=QUICK).to_json()
        for item in (*content["systems"], *content["members"]):
            for key in ("reliability", "risk_coverage", "weights"):
                del item[key]
        (tmp_path / "run.json").write_text(json.dumps(content))
        system = BenchResult.load(tmp_path / "run.json").systems[0]
        assert (system.reliability, system.risk_coverage, system.weights) == (None, None, None)

    def test_a_damaged_curve_is_refused(self, tmp_path: Path) -> None:
        content: Any = bench(simulated(200, 2), "vote", options=QUICK).to_json()
        content["systems"][0]["risk_coverage"]["risk"] = [0.5]
        (tmp_path / "run.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"run\.json is damaged: .* coverages, but 1 risks"):
            BenchResult.load(tmp_path / "run.json")

    def test_a_system_that_never_answers_says_nothing(self) -> None:
        """Nobody answers the questions that are evaluated on."""
        fit, test = simulated(100, 1), simulated(40, 1, seed=1)
        silent = PredictionTable(
            question_ids=[f"t{n}" for n in range(40)],
            agents=test.agents,
            answers=np.full(test.answers.shape, -1),
            labels=test.labels,
            num_options=test.num_options,
            categories=test.categories,
        )
        system = bench(fit, "vote", test=silent, options=QUICK).systems[0]
        assert system.abstained == 1
        assert (system.reliability, system.risk_coverage) == (None, None)

    def test_one_category_and_none(self) -> None:
        table = simulated(200, 1)
        found = bench(table, "weighted_vote", options=QUICK).systems[0].weights
        assert found is not None
        assert (found.categories, len(found.values)) == (("c00",), 1)
        bare = PredictionTable(
            question_ids=table.question_ids,
            agents=table.agents,
            answers=table.answers,
            labels=table.labels,
            num_options=table.num_options,
        )
        found = bench(bare, "weighted_vote", options=QUICK).systems[0].weights
        assert found is not None
        assert (found.categories, found.counts) == (("",), (60,))

    def test_the_most_frequent_categories_are_kept_and_a_note_says_so(self) -> None:
        result = bench(simulated(600, 50), "weighted_vote", options=BenchOptions(repeats=200, stratify="none"))
        found = result.systems[0].weights
        assert found is not None
        assert len(found.categories) == MAX_CATEGORIES
        assert list(found.counts) == sorted(found.counts, reverse=True)
        assert "weights are those of the 40 most frequent of 50 categories" in result.notes
        few = bench(simulated(600, 40), "weighted_vote", options=QUICK)
        assert not [note for note in few.notes if note.startswith("weights")]


def test_the_json_of_recorded_answers_stays_small(recorded_data: Path) -> None:
    """24 agents, 14 categories, eight systems and their baselines."""
    systems = [
        "vote",
        "naive_bayes",
        "weighted_vote(weights=log_odds)",
        "topla_weighted",
        "topla_weighted(pooling=off)",
    ]
    systems += ["dawid_skene", "weighted_vote(weights=accuracy)", "weighted_vote"]
    result = bench(read_table(recorded_data / "mmlu_pro" / "predictions.csv.gz"), systems, options=QUICK)
    content = json.dumps(result.to_json(), indent=1)
    bare = json.loads(content)
    for item in bare["systems"]:
        del item["reliability"], item["risk_coverage"], item["weights"]
    print(len(content), len(content) - len(json.dumps(bare, indent=1)))
    assert len(content) - len(json.dumps(bare, indent=1)) < 120_000
    assert len(content) < 300_000
