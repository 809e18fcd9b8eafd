"""bench --abstain-at-risk: systems that answer only where they are sure enough, and how well what they say fits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import by_hand
from typer.testing import CliRunner

from fusion.cli import app
from fusion.data import PredictionTable, read_table, write_table
from fusion.errors import UsageError
from fusion.evaluation import BenchOptions, BenchResult, bench
from fusion.evaluation._confidence import Stated, error_of_confidence, selective
from fusion.schema import Decision


def agreeing(seed: int, questions: int) -> PredictionTable:
    """Three agents that are right together on easy questions, and guess on hard ones."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, questions)
    easy_N1 = rng.random((questions, 1)) < 0.5
    right_NM = rng.random((questions, 3)) < np.where(easy_N1, 0.97, 0.3)
    answers_NM = np.where(right_NM, labels_N[:, None], (labels_N[:, None] + rng.integers(1, 4, (questions, 3))) % 4)
    return by_hand(answers_NM, labels_N, num_options=[4] * questions)


def decided(answers: list[int], **fields: Any) -> Decision:
    return Decision(np.array(answers), **fields)


class TestStated:
    def test_confidence_by_hand(self) -> None:
        table = by_hand([[0], [1], [0]], [0, 0, 0])
        stated = Stated.of(decided([0, 1, -1], confidence=np.array([0.9, 0.6, 0.0])), table)
        assert stated.confidence is not None
        assert stated.confidence.tolist() == [0.9, 0.6, 0.0]
        assert stated.answered.tolist() == [True, True, False]
        assert stated.correct.tolist() == [True, False, False]

    def test_without_a_confidence_it_is_the_share_of_the_answer(self) -> None:
        table = by_hand([[0], [1]], [0, 0])
        probs_NK = np.array([[0.75, 0.25], [0.4, 0.6]], dtype=np.float32)
        stated = Stated.of(decided([0, 1], probs=probs_NK), table)
        np.testing.assert_allclose(stated.confidence, [0.75, 0.6])

    def test_nothing_is_said(self) -> None:
        table = by_hand([[0]], [0])
        stated = Stated.of(decided([0]), table)
        assert stated.confidence is None
        assert error_of_confidence(stated, seed=0) is None
        assert selective(stated, stated, risk=0.1) is None

    def test_nobody_answers(self) -> None:
        table = by_hand([[-1]], [0])
        stated = Stated.of(decided([-1], confidence=np.zeros(1)), table)
        assert error_of_confidence(stated, seed=0) is None
        assert selective(stated, stated, risk=0.1) is None


class TestSelective:
    def stated(self, confidence: list[float], correct: list[bool]) -> Stated:
        correct_N = np.array(correct)
        return Stated(np.array(confidence), np.ones(len(correct_N), dtype=bool), correct_N)

    def test_by_hand(self) -> None:
        """Sure of 60 answers, all right, and unsure of 40, half wrong: the 4 sure ones of 10 are answered."""
        calibration = self.stated([0.9] * 60 + [0.4] * 40, [True] * 60 + [True, False] * 20)
        test = self.stated([0.9] * 4 + [0.4] * 6, [True] * 3 + [False] * 7)
        found = selective(calibration, test, risk=0.1)
        assert found is not None
        assert (found.threshold, found.coverage, found.error, found.n_calibration) == (0.9, 0.4, 0.25, 100)
        assert found.error_ci95 is not None
        assert found.error_ci95[0] < 0.25 < found.error_ci95[1]

    def test_where_nothing_is_sure_nothing_is_answered(self) -> None:
        calibration = self.stated([0.9] * 20, [True, False] * 10)
        found = selective(calibration, calibration, risk=0.05)
        assert found is not None
        assert (found.threshold, found.coverage, found.error, found.error_ci95) == (None, 0.0, None, None)


class TestBench:
    @pytest.mark.parametrize("seed", range(3))
    def test_errors_stay_below_the_risk(self, seed: int) -> None:
        options = BenchOptions(repeats=200, seed=seed, abstain_at_risk=0.2)
        result = bench(agreeing(seed, 4000), "vote, topla_weighted", options=options)
        assert result.n_fit == 2240
        for system in result.systems[:2]:
            found = system.selective
            assert found is not None
            assert found.n_calibration == 560
            assert 0.3 < found.coverage < 0.9
            assert found.error is not None
            assert found.error < 0.23
        assert result.members[0].selective is None
        assert result.members[0].calibration_error is None

    def test_learned_confidence_is_better_than_shares_of_votes(self) -> None:
        result = bench(agreeing(5, 4000), "vote, topla_weighted", options=BenchOptions(repeats=200))
        by_votes, learned = (system.calibration_error for system in result.systems[:2])
        assert by_votes is not None
        assert learned is not None
        assert learned < 0.04 < by_votes
        assert result.systems[0].selective is None

    def test_upper_bounds_say_nothing(self) -> None:
        result = bench(agreeing(0, 300), "vote", options=BenchOptions(repeats=200, abstain_at_risk=0.1))
        oracle = next(system for system in result.systems if system.role == "upper_bound")
        assert (oracle.calibration_error, oracle.selective) == (None, None)

    def test_saved_and_read_back(self, tmp_path: Path) -> None:
        result = bench(agreeing(0, 300), "vote", options=BenchOptions(repeats=200, abstain_at_risk=0.3))
        result.save(tmp_path / "run.json")
        assert BenchResult.load(tmp_path / "run.json") == result

    def test_results_of_before_are_read(self, tmp_path: Path) -> None:
        content = bench(agreeing(0, 300), "vote", options=BenchOptions(repeats=200)).to_json()
        for system in content["systems"]:  # type: ignore[union-attr]
            for key in ("calibration_error", "calibration_ci95", "selective"):
                del system[key]  # type: ignore[union-attr, call-overload, arg-type, index]
        (tmp_path / "run.json").write_text(json.dumps(content))
        assert BenchResult.load(tmp_path / "run.json").systems[0].calibration_error is None

    @pytest.mark.parametrize("risk", [0, 1, -0.1, 5])
    def test_bad_risk(self, risk: float) -> None:
        with pytest.raises(UsageError, match=r"abstain_at_risk must lie between 0 and 1, got .*; 0.05 is 5 %"):
            BenchOptions(abstain_at_risk=risk)


class TestCommand:
    def test_table_and_json(self, tmp_path: Path) -> None:
        write_table(agreeing(1, 1500), tmp_path / "t.parquet")
        told = CliRunner().invoke(
            app,
            [
                "bench",
                str(tmp_path / "t.parquet"),
                *("--systems", "topla_weighted", "--abstain-at-risk", "0.2", "--json", str(tmp_path / "run.json")),
            ],
        )
        assert told.exit_code == 0, told.output
        assert "most 20.0 % off" in told.output
        system = json.loads((tmp_path / "run.json").read_text())["systems"][0]
        assert system["selective"]["risk"] == 0.2
        assert system["selective"]["coverage"] > 0.3

    def test_bad_risk(self, tmp_path: Path) -> None:
        write_table(agreeing(1, 100), tmp_path / "t.parquet")
        told = CliRunner().invoke(app, ["bench", str(tmp_path / "t.parquet"), "--abstain-at-risk", "5"])
        assert told.exit_code != 0


def test_recorded_answers(recorded_data: Path) -> None:
    """topla_weighted on 24 models: the share of wrong answers among those given is what was asked for, within noise."""
    table = read_table(recorded_data / "mmlu_pro" / "predictions.csv.gz")
    for seed in range(3):
        options = BenchOptions(repeats=200, seed=seed, abstain_at_risk=0.15)
        system = bench(table, "topla_weighted", options=options).systems[0]
        assert system.calibration_error is not None
        assert system.calibration_error < 0.04
        assert system.selective is not None
        assert system.selective.error is not None
        assert system.selective.error < 0.18
        assert system.selective.coverage > 0.4
