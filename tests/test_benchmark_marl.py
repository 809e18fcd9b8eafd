"""The benchmark of policies: worlds of texts, how they are scored and judged, and that its page shows its results."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fusion.data import PredictionTable

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "marl"


class Scripts(NamedTuple):
    graded: Any
    graded_worlds: Any


@pytest.fixture(scope="module")
def scripts() -> Iterator[Scripts]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield Scripts(*(importlib.import_module(f"benchmarks.marl.{name}") for name in Scripts._fields))


def three_texts(**changed: Any) -> PredictionTable:
    """Two questions, three members; to the first b and c write the same, to the second c says nothing."""
    fields: dict[str, Any] = {
        "question_ids": ["p", "q"],
        "agents": ["a", "b", "c"],
        "answers": [[0, 1, 1], [0, 1, -1]],
        "labels": [-1, -1],
        "num_options": [2, 2],
        "texts": [["one", "two", "two"], ["three", "four", ""]],
        "scores": [[0.2, 0.6, 0.6], [0.9, 0.5, 0.0]],
    }
    return PredictionTable(**fields | changed)


class TestScores:
    def test_steps_by_hand(self, scripts: Scripts) -> None:
        """The solution comes to 9, 18 and 1,018.5; the text names 18 and 1018.50: two of three."""
        solution = "16-7=<<16-7=9>>9, 9*2=$<<9*2=18>>18, and 1000.5 more: <<18+1000.5=1018.5>>1,018.5\n#### 1,018.5"
        assert scripts.graded_worlds.steps_named("$18 and so $1,018.50.", solution) == pytest.approx(2 / 3)
        assert scripts.graded_worlds.steps_named("no number", solution) == 0
        assert scripts.graded_worlds.steps_named("18", "a solution without steps") == 0

    def test_the_text_handed_over_by_hand(self, scripts: Scripts) -> None:
        """Option 1 of p is b's and c's text, and c is better on average; where c was not asked it is b's."""
        table = three_texts(scores=[[0.2, 0.6, 0.7], [0.9, 0.5, 0.0]])
        mean_M = np.array([0.3, 0.1, 0.2])
        everybody_NM = np.ones((2, 3), dtype=bool)
        found_N = scripts.graded.worth(table, np.array([1, -1]), everybody_NM, mean_M)
        np.testing.assert_allclose(found_N, [0.7, 0])
        found_N = scripts.graded.worth(table, np.array([1, 0]), everybody_NM & [True, True, False], mean_M)
        np.testing.assert_allclose(found_N, [0.6, 0.9])

    def test_who_says_something_first(self, scripts: Scripts) -> None:
        """On average b is best and c next: b answers both questions with one call; without b, c says nothing to q."""
        table = three_texts(scores=[[0.2, 0.6, 0.5], [0.1, 0.9, 0.9]])
        found = scripts.graded.simple(table, table)
        np.testing.assert_allclose(found["best member"].score, [0.6, 0.9])
        pair = table.columns(["c", "a"])
        found = scripts.graded.simple(pair, pair)
        np.testing.assert_allclose(found["best member per category"].score, [0.5, 0])
        first = found["first of the category that says something"]
        np.testing.assert_allclose(first.score, [0.5, 0.1])
        assert first.calls.tolist() == [1, 2]
        np.testing.assert_allclose(found["oracle, best text"].score, [0.5, 0.1])


class TestJudges:
    @pytest.mark.parametrize("judge", ["noise 0.2", "likes length"])
    def test_the_same_text_has_the_same_score(self, scripts: Scripts, judge: str) -> None:
        found = scripts.graded.judged(three_texts(), judge, seed=0).scores
        assert found[0, 1] == found[0, 2] != pytest.approx(0.6)
        assert found[1, 2] == 0

    def test_agreement_by_hand(self, scripts: Scripts) -> None:
        """The scorer puts b and c before a on p, and a before b on q: three pairs, of which the other keeps two."""
        other = three_texts(scores=[[0.3, 0.4, 0.2], [0.6, 0.5, 0.0]])
        assert scripts.graded.agreement(three_texts(), other) == pytest.approx(2 / 3)
        assert scripts.graded.agreement(three_texts(), three_texts()) == 1


class TestWorlds:
    def test_no_two_reports_are_the_same(self, scripts: Scripts) -> None:
        table = scripts.graded_worlds.reports(60)
        for row in table.texts.tolist():
            said = [text for text in row if text]
            assert len(set(said)) == len(said)
        assert table.fingerprint == scripts.graded_worlds.reports(60).fingerprint
        assert 0.2 < table.scores[table.answered].mean() < 0.9

    def test_members_that_know_the_same_write_the_same(self, scripts: Scripts) -> None:
        table = scripts.graded_worlds.inventory(200)
        same = [len(set(row)) < len(row) for row in table.texts.tolist()]
        assert 0.1 < np.mean(same) < 0.9
        right_NM = table.texts == table.references[:, None]
        np.testing.assert_allclose(table.scores[right_NM], 1)
        assert table.scores[~right_NM].max() < 1

    @pytest.mark.parametrize("part", ["reports", "inventory"])
    def test_a_study_runs(self, scripts: Scripts, part: str) -> None:
        found = scripts.graded.study(scripts.graded_worlds.made(part, ROOT, size=90), seeds=1, told=lambda _: None)
        systems = found["systems"]
        assert systems["oracle, best text"]["score"] == max(row["score"] for row in systems.values())
        assert systems["best member"]["calls"] == 1
        assert {name.rpartition("@")[2] for name in systems if "@" in name} == {"1", "1.5", "2", "3"}
        shown = scripts.graded.shown({"parts": {part: found}})
        assert f"### {part}: " in shown
        assert all(f"| {name} | " in shown for name in systems)


@pytest.mark.parametrize("name", ["quality", "robustness", "graded"])
def test_the_page_shows_the_results(name: str) -> None:
    """The tables of benchmarks/marl/README.md are those of the results, line by line."""
    told = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), "--tables", str(FOLDER / "results" / f"{name}.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() in (FOLDER / "README.md").read_text(encoding="utf-8")
