"""A cascade asks in one order until it is sure enough."""

from typing import Literal

import numpy as np
import pytest
import tables

from fusion.data import PredictionTable
from fusion.ensemble import Ensemble, ask
from fusion.errors import InvalidTable, NotFitted, TableMismatch
from fusion.selectors.cascade import Cascade

SHARES = (0.6, 0.8, 0.4)


def pairs(seed: int, *, questions: int = 900, prefix: str = "q", shares: tuple[float, ...] = SHARES) -> PredictionTable:
    """Agents b, a, c by accuracy; they share nothing, so two that agree are nearly always right."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 5, questions)
    right_NM = rng.random((questions, 3)) < np.array(shares)
    wrong_NM = (labels_N[:, None] + rng.integers(1, 5, (questions, 3))) % 5
    return tables.by_hand(
        np.where(right_NM, labels_N[:, None], wrong_NM),
        labels_N.tolist(),
        question_ids=[f"{prefix}{n}" for n in range(questions)],
        num_options=[5] * questions,
        tokens_out=np.tile([10, 500, 100], (questions, 1)),
    )


class TestOrder:
    def test_the_most_accurate_first(self) -> None:
        """One answer is right in 80 % of cases: that is enough for 0.5, so nobody else is asked."""
        asked_NM = ask(Cascade(threshold=0.5).fit(pairs(0)), pairs(1))[1]
        assert asked_NM.sum(axis=0).tolist() == [0, 900, 0]

    def test_the_cheapest_first(self) -> None:
        asked_NM = ask(Cascade(threshold=0.5, order="tokens").fit(pairs(0)), pairs(1))[1]
        assert asked_NM[:, 0].all()
        # Where one has been asked before two others, c comes before b.
        assert (asked_NM[:, 2] >= asked_NM[:, 1]).all()

    def test_it_stops_where_two_agree_and_asks_the_third_where_they_differ(self) -> None:
        test = pairs(1)
        asked_NM = ask(Cascade(threshold=0.9).fit(pairs(0)), test)[1]
        agree_N = test.answers[:, 0] == test.answers[:, 1]
        assert asked_NM[:, :2].all()
        np.testing.assert_array_equal(asked_NM[:, 2], ~agree_N)


@pytest.mark.parametrize("calls", [1.0, 1.5, 2.2, 3.0])
def test_calls_are_spent_as_asked_for(calls: float) -> None:
    """As many as asked for or fewer: probabilities take few values here, each shared by many questions."""
    spent = ask(Cascade(calls=calls).fit(pairs(0)), pairs(1, prefix="test"))[1].sum(axis=1).mean()
    assert spent <= calls + 0.1


@pytest.mark.parametrize("threshold", [0.3, 0.8, 1.0])
def test_never_more_than_max_calls(threshold: float) -> None:
    asked_NM = ask(Cascade(threshold=threshold, max_calls=2).fit(pairs(0)), pairs(1))[1]
    assert asked_NM.sum(axis=1).max() <= 2


def test_more_calls_are_right_more_often() -> None:
    shares = (0.6, 0.6, 0.6)
    fit, test = pairs(0, prefix="fit", shares=shares), pairs(1, prefix="test", shares=shares)
    right = []
    for calls in (1.0, 2.9):
        found = Ensemble(fit.agents, Cascade(calls=calls), "marl_aggregator").fit(fit).replay(test).decision
        right.append((found.answers == test.labels).mean())
    assert right[1] > right[0] + 0.02


class TestRefusals:
    def test_before_fit(self) -> None:
        with pytest.raises(NotFitted, match="cascade"):
            Cascade().select(pairs(0))

    def test_other_agents(self) -> None:
        with pytest.raises(TableMismatch):
            Cascade().fit(pairs(0)).select(pairs(0).columns(["a", "b"]))

    @pytest.mark.parametrize("order", ["tokens"])
    def test_tokens_that_are_not_there(self, order: Literal["tokens"]) -> None:
        with pytest.raises(InvalidTable, match="no tokens"):
            Cascade(order=order).fit(tables.without(pairs(0), "tokens_out"))
