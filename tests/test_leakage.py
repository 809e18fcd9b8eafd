"""Nothing that decides sees a right answer of the questions it decides on."""

import numpy as np
import pytest
import tables
from tables import AGENTS, Recipe, random_table

from fusion import discovery
from fusion.ensemble import Ensemble
from fusion.errors import Leakage
from fusion.evaluation import BenchOptions, bench
from fusion.protocols import Fuser, Selector

POOL = AGENTS[:4]
SELECTORS = [
    recipe
    for recipe in tables.recipes("selectors")
    if getattr(discovery.load("selectors", recipe.name), "sees", "") != "labels"
]


def decided(selector: Selector | str, fuser: Fuser | str) -> None:
    """Scramble the right answers, references and grades of the questions decided on: every decision stays."""
    fit, test = random_table(11, prefix="fit"), random_table(12, prefix="test")
    ensemble = Ensemble(POOL, selector, fuser).fit(fit)
    expected = ensemble.replay(test)
    for seed in range(3):
        found = ensemble.replay(tables.scrambled(test, {"labels", "references", "scores"}, seed))
        np.testing.assert_array_equal(found.decision.answers, expected.decision.answers)
        np.testing.assert_array_equal(found.asked, expected.asked)
        for name in ("probs", "confidence"):
            one, other = getattr(found.decision, name), getattr(expected.decision, name)
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("recipe", tables.recipes("fusers"), ids=str)
def test_fusers(recipe: Recipe) -> None:
    decided("all_agents", recipe(POOL))


@pytest.mark.parametrize("recipe", SELECTORS, ids=str)
def test_selectors(recipe: Recipe) -> None:
    decided(recipe(POOL), "vote")


def test_a_selector_that_reads_labels_is_found_out() -> None:
    """The check can fail: the oracle decides otherwise when the right answers do."""
    with pytest.raises(AssertionError):
        decided("oracle", "vote")


def test_tables_that_share_questions_are_refused() -> None:
    fit = random_table(11, prefix="q", questions=60)
    test = random_table(12, prefix="t", questions=60)
    both = tables.by_hand(
        np.vstack([test.answers, fit.answers[:1]]),
        [*test.labels.tolist(), 0],  # type: ignore[union-attr]
        question_ids=[*test.question_ids.tolist(), fit.question_ids[0]],
        agents=fit.agents,
        num_options=[5] * 61,
    )
    with pytest.raises(Leakage, match="q11-0"):
        bench(fit, "vote", test=both, options=BenchOptions(repeats=100))


def test_what_calibrates_a_threshold_is_neither_fitted_on_nor_evaluated_on() -> None:
    """With --abstain-at-risk the questions are in three parts."""
    table = random_table(3, questions=200)
    result = bench(table, "vote", options=BenchOptions(repeats=100, abstain_at_risk=0.3))
    found = result.systems[0].selective
    assert found is not None
    assert result.n_fit + found.n_calibration + result.n == 200
