"""The benchmark of fusers: its own model, the table it makes of scores, its intervals, and that its script runs."""

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fusion.data import PredictionTable

ROOT = Path(__file__).parents[1]


class Scripts(NamedTuple):
    reference: Any
    bbh: Any
    growth: Any


@pytest.fixture(scope="module")
def scripts() -> Iterator[Scripts]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield Scripts(*(importlib.import_module(f"benchmarks.fusers.{name}") for name in Scripts._fields))


def random_table(*, questions: int = 40, agents: int = 3, options: int = 4, seed: int = 0) -> PredictionTable:
    """Agents are right half of the time, guess otherwise, abstain on some; questions have two options or more."""
    rng = np.random.default_rng(seed)
    num_options_N = rng.integers(2, options + 1, questions)
    labels_N = rng.integers(0, num_options_N)
    guesses_NM = rng.integers(0, num_options_N[:, None], (questions, agents))
    answers_NM = np.where(rng.random((questions, agents)) < 0.5, labels_N[:, None], guesses_NM)
    answers_NM[rng.random((questions, agents)) < 0.1] = -1
    return PredictionTable(
        question_ids=[f"q{n}" for n in range(questions)],
        agents=[f"m{m}" for m in range(agents)],
        answers=answers_NM,
        labels=labels_N,
        num_options=num_options_N,
        categories=["one" if n % 3 else "two" for n in range(questions)],
    )


class TestReference:
    def test_by_hand(self, scripts: Scripts) -> None:
        """One question with three options, the right one 0; a says 0, b says 1; w = (log 2, 0), v = 0, a = 4, b = 0.

        Scores log 2, 0, 0: P = 1/2, 1/4, 1/4. Loss log 2 + 4 (log 2)^2 / 2. Slopes of the likelihood: 1/2 - 1 for a,
        1/4 for b, the same for w and for v of its category; the penalty adds 4 log 2 to w of a.
        """
        table = PredictionTable(
            question_ids=["q"], agents=["a", "b"], answers=[[0, 1]], labels=[0], num_options=[3], categories=["c"]
        )
        votes = scripts.reference.Votes.of(table, ["c"])
        parameters = np.array([math.log(2), 0, 0, 0, 0, 0])
        value, gradient = scripts.reference.loss(parameters, votes, table.labels, (4.0, 0.0))
        assert value == pytest.approx(math.log(2) + 2 * math.log(2) ** 2)
        np.testing.assert_allclose(gradient, [-0.5 + 4 * math.log(2), 0.25, -0.5, 0.25, 0, 0])

    def test_gradient(self, scripts: Scripts) -> None:
        """Against central differences: of a smooth function of size 100 they are good to about 1e-7."""
        table = random_table()
        votes = scripts.reference.Votes.of(table, ["one", "two"])
        parameters = np.random.default_rng(1).normal(size=4 * 3)
        arguments = (votes, table.labels, (0.7, 1.9))
        _, gradient = scripts.reference.loss(parameters, *arguments)
        step = 1e-5
        for place in range(len(parameters)):
            moved = step * (np.arange(len(parameters)) == place)
            above, _ = scripts.reference.loss(parameters + moved, *arguments)
            below, _ = scripts.reference.loss(parameters - moved, *arguments)
            assert gradient[place] == pytest.approx((above - below) / (2 * step), abs=1e-5)

    def test_a_penalty_without_end_leaves_no_weights(self, scripts: Scripts) -> None:
        found = scripts.reference.Reference.learn(random_table(), [(1e9, 1e9)])
        np.testing.assert_allclose(found.weights, 0, atol=1e-6)

    def test_it_chooses_penalties_and_learns(self, scripts: Scripts) -> None:
        """The first of three agents is always right, and its weight is the largest in every category."""
        table = random_table(questions=300)
        answers_NM = table.answers.copy()
        answers_NM[:, 0] = table.require_labels()
        expert = PredictionTable(
            question_ids=table.question_ids,
            agents=table.agents,
            answers=answers_NM,
            labels=table.labels,
            num_options=table.num_options,
            categories=table.categories,
        )
        found = scripts.reference.Reference.learn(expert)
        assert found.penalties in scripts.reference.PENALTIES
        assert (found.weights.argmax(axis=1) == 0).all()
        decision = found.fuse(expert.blind())
        assert (decision.answers == expert.labels).all()
        assert decision.confidence.min() > 0.5

    def test_nobody_answers(self, scripts: Scripts) -> None:
        found = scripts.reference.Reference.learn(random_table(), [(1.0, 1.0)])
        decision = found.fuse(random_table(seed=1).unanswered())
        assert (decision.answers == -1).all()
        assert (decision.confidence == 0).all()

    def test_permuted_options(self, scripts: Scripts) -> None:
        table = random_table(questions=200)
        order_K = np.array([3, 0, 2, 1])
        plain, moved = (
            PredictionTable(
                question_ids=table.question_ids,
                agents=table.agents,
                answers=np.where(table.answers >= 0, order_K[table.answers], -1) if turn else table.answers,
                labels=order_K[table.require_labels()] if turn else table.labels,
                num_options=[4] * len(table),
                categories=table.categories,
            )
            for turn in (False, True)
        )
        learned = [scripts.reference.Reference.learn(part, [(1.0, 10.0)]) for part in (plain, moved)]
        answers = [model.fuse(part).answers for model, part in zip(learned, (plain, moved), strict=True)]
        # Where two options are as likely as each other to the last digits, the order may decide.
        expected_N = np.where(answers[0] >= 0, order_K[answers[0]], -1)
        assert (expected_N == answers[1]).mean() > 0.99


class TestBbh:
    def test_table_by_hand(self, scripts: Scripts, tmp_path: Path) -> None:
        """Two tasks, of two and of three options; scores (log 3, 0) make probabilities 3/4 and 1/4."""
        two = np.zeros((2, 11))
        two[0, :2] = math.log(3), 0
        two[:, -1] = 1, 0
        three = np.zeros((1, 16))
        three[0, -1] = 2
        three[0, 3:6] = 0, 0, math.log(2)
        np.savez(tmp_path / "scores.npz", wide=three, narrow=two)
        found = scripts.bbh.read(tmp_path / "scores.npz")
        table = found.table
        assert table.question_ids.tolist() == ["narrow/0", "narrow/1", "wide/0"]
        assert table.require_categories().tolist() == ["narrow", "narrow", "wide"]
        assert table.num_options.tolist() == [2, 2, 3]
        assert table.require_labels().tolist() == [1, 0, 2]
        np.testing.assert_allclose(table.probs[0, 0], [0.75, 0.25, 0])
        np.testing.assert_allclose(table.probs[0, 1], [0.5, 0.5, 0])
        np.testing.assert_allclose(table.probs[2, 1], [0.25, 0.25, 0.5])
        assert table.answers[2, 1] == 2
        np.testing.assert_allclose(found.scores[0, 0], [math.log(3), 0, 0])
        assert found.first(1).table.question_ids.tolist() == ["narrow/0", "narrow/1"]
        assert found.first(1).scores.shape == (2, 5, 3)

    def test_stacker_learns_a_preference(self, scripts: Scripts) -> None:
        """An agent adds 1 to the first option whatever the question; less that it is right."""
        rng = np.random.default_rng(0)
        labels_N = rng.integers(0, 2, 200)
        scores_NMK = np.zeros((200, 1, 2))
        scores_NMK[np.arange(200), 0, labels_N] = 0.5
        scores_NMK[:, 0, 0] += 1
        told_T = scripts.bbh.stacked(scores_NMK[:100], labels_N[:100], scores_NMK[100:])
        assert (told_T == labels_N[100:]).all()
        assert (scores_NMK[100:, 0].argmax(axis=1) == 0).all()

    def test_intervals_by_hand(self, scripts: Scripts) -> None:
        """Tasks of two questions each, differences (1, 0) and (0, 0): means 1/2 and 0, together 1/4.

        Over questions: variances 1/2 and 0, so the error is sqrt(1/4) / 2 = 1/4, times 1.96. Over tasks: standard
        deviation sqrt(1/8), so the error is 1/4, times 12.706, the t quantile of one degree of freedom.
        """
        table = PredictionTable(
            question_ids=list("abcd"), agents=["m"], answers=[[0]] * 4, labels=[0] * 4, categories=["s", "s", "t", "t"]
        )
        found = scripts.bbh._paired(np.array([1.0, 0, 0, 0]), table)
        assert found["mean"] == 0.25
        np.testing.assert_allclose(found["questions"], [0.25 - 0.49, 0.25 + 0.49])
        np.testing.assert_allclose(found["tasks"], [0.25 - 12.706 / 4, 0.25 + 12.706 / 4], rtol=1e-4)


@pytest.mark.parametrize(("questions", "agents"), [(50, 2), (10, 8)])
def test_a_grown_table(scripts: Scripts, questions: int, agents: int) -> None:
    table = random_table(agents=4)
    found = scripts.growth.grown(table, questions, agents, seed=0)
    assert (len(found), found.num_agents) == (questions, agents)
    again = scripts.growth.grown(table, questions, agents, seed=0)
    assert found.fingerprint == again.fingerprint
    assert found.fingerprint != scripts.growth.grown(table, questions, agents, seed=1).fingerprint


def test_it_runs(recorded_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "fusers" / "run.py"), "--quick", "--json", "found.json"]
    environment = os.environ | {"FUSION_DATA": str(recorded_data), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["quick"]
    assert set(found["part_seconds"]) == {"mmlu_pro", "few_labels", "bbh", "gsm8k", "growth"}
    for pool in found["mmlu_pro"].values():
        systems = pool["systems"]
        assert systems["oracle+vote"]["accuracy"] == [max(figures["accuracy"][0] for figures in systems.values())]
        assert systems["topla_weighted"]["accuracy"][0] > systems["single_best+vote"]["accuracy"][0]
    again = [*command[:2], "--tables", "found.json"]
    tables = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert tables.strip() in done.stdout


def test_the_summary_tables_are_those_of_the_results() -> None:
    """What the page on written answers shows is what its results say."""
    folder = ROOT / "benchmarks" / "fusers" / "summary"
    results = max((folder / "results").glob("*.json"))
    told = subprocess.run(
        [sys.executable, str(folder / "run.py"), "--tables", str(results)], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() in (folder / "README.md").read_text(encoding="utf-8")
