"""Scores of pools over a window: both ways to compute them agree with each other and with the measures they are of."""

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import tables
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion import diversity
from fusion.errors import UsageError
from fusion.fusers.vote import Vote
from fusion.policies import DiversityWeights, Recorded, Window
from fusion.policies import _window as window_module
from fusion.policies._windows import Windows
from fusion.schema import Selection

NAMES = [item.name for item in dataclasses.fields(DiversityWeights)]
NOTHING = dict.fromkeys(NAMES, 0.0)
MIXED = DiversityWeights(
    focal=0.3,
    plurality=0.7,
    fleiss_kappa=0.2,
    q_statistic=0.5,
    correlation=0.4,
    disagreement=-0.3,
    kappa=0.2,
    entropy=0.6,
)


def only(name: str) -> DiversityWeights:
    return DiversityWeights(**(NOTHING | {name: 2.0}))


def reference(
    recorded: Recorded, rows: npt.NDArray[np.intp], pool: npt.NDArray[np.bool_], weights: DiversityWeights
) -> float:
    """The score as its definition says, from the functions of `fusion.diversity`."""
    if not len(rows) or not pool.any():
        return 0.0
    pools = pool[:, None].astype(np.float64)
    found = weights.plurality * recorded.right(rows, pools).mean()
    if pool.sum() > 1:
        answers_NM, labels_N = recorded.answers[rows][:, pool], recorded.labels[rows]
        correct_NM = (answers_NM == labels_N[:, None]) & (answers_NM >= 0)
        found += weights.focal * diversity.focal_diversity(correct_NM)
        found -= weights.fleiss_kappa * diversity.fleiss_kappa(answers_NM)
        found -= weights.q_statistic * diversity.q_statistic(correct_NM)
        found -= weights.correlation * diversity.correlation(correct_NM)
        found += weights.disagreement * diversity.disagreement(correct_NM)
        found -= weights.kappa * diversity.kappa(correct_NM)
        found += weights.entropy * diversity.entropy(correct_NM)
    return float(found / weights.total)


def random_record(seed: int, *, agents: int = 5, questions: int = 40, options: int = 4) -> Recorded:
    rng = np.random.default_rng(seed)
    answers_NM = rng.integers(-1, options, (questions, agents))
    labels_N = rng.integers(-1, options, questions)
    # Often right, so that there is something to measure; one is always right, one says nothing.
    often_NM = rng.random(answers_NM.shape) < 0.5
    answers_NM = np.where(often_NM, labels_N[:, None], answers_NM)
    answers_NM[:, 0] = labels_N
    answers_NM[:, -1] = -1
    return Recorded(answers_NM, labels_N, num_options=options, accuracies=rng.random(agents))


def test_the_textbook_pool_by_hand() -> None:
    """Members fail on questions {2, 3}, {1, 3} and {0}: rho = 2/3, 2/3 and 1, focal diversity 7/9.

    The plurality of all is right on the first three questions; that of the first two on the first, and on the second,
    where a tie goes to the first member.
    """
    right = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [0, 0, 1]])
    recorded = Recorded(1 - right, np.zeros(4, dtype=int), num_options=2)
    focal, plurality = (Window(recorded, size=9, weights=only(name)) for name in ("focal", "plurality"))
    for row in range(4):
        focal.push(row)
        plurality.push(row)
    assert focal.score(np.array([True, True, True])) == pytest.approx(7 / 9)
    assert plurality.score(np.array([True, True, True])) == 3 / 4
    assert plurality.score(np.array([True, True, False])) == 2 / 4


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([*map(only, NAMES), MIXED]))
def test_both_ways_agree_with_the_measures(seed: int, weights: DiversityWeights) -> None:
    """To 1e-12: all counts are whole numbers and exact, so only the last divisions and sums can round."""
    recorded, rng = random_record(seed), np.random.default_rng(seed)
    num_windows, each, size = 2, 4, 12
    orders = np.stack([rng.permutation(len(recorded.labels)) for _ in range(num_windows)])
    many = Windows(recorded, num_windows=num_windows, size=size, weights=weights)
    one = [Window(recorded, size=size, weights=weights) for _ in range(num_windows)]
    for t in range(25):
        pools_MB = rng.random((5, num_windows * each)) < rng.random(num_windows * each)
        pools_MB[:, 0] = pools_MB[:, 0] if t % 5 else False
        found_B = many.scores(pools_MB.astype(np.float32))
        for b, score in enumerate(found_B):
            rows = orders[b // each, max(t - size, 0) : t]
            expected = reference(recorded, rows, pools_MB[:, b], weights)
            assert score == pytest.approx(expected, abs=1e-12)
            assert one[b // each].score(pools_MB[:, b]) == pytest.approx(expected, abs=1e-12)
        many.push(orders[:, t : t + 1])
        for g, window in enumerate(one):
            window.push(int(orders[g, t]))


def test_pools_too_many_to_look_up_score_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, scores = np.random.default_rng(0), []
    pools_MB = (rng.random((5, 8)) < 0.6).astype(np.float32)
    for cells in (1 << 24, 0):
        monkeypatch.setattr(window_module, "_LOOKED_UP", cells)
        recorded = random_record(3)
        assert (recorded.codes is None) == (cells == 0)
        windows = Windows(recorded, num_windows=2, size=10, weights=only("plurality"))
        windows.push(np.arange(30).reshape(2, 15)[:, :10])
        windows.push(np.array([[20], [5]]))
        scores.append(windows.scores(pools_MB))
    np.testing.assert_array_equal(*scores)
    assert scores[0].any()


def test_many_questions_enter_as_one_after_another() -> None:
    """Some of them are none: a window may begin with less of a past than another."""
    recorded, rng = random_record(1), np.random.default_rng(1)
    past_GH = np.stack([rng.permutation(40)[:9], np.append([-1, -1, -1], rng.permutation(40)[:6])])
    at_once, stepwise = (Windows(recorded, num_windows=2, size=9, weights=MIXED) for _ in range(2))
    at_once.push(past_GH)
    for h in range(past_GH.shape[1]):
        stepwise.push(past_GH[:, h : h + 1])
    pools_MB = (rng.random((5, 6)) < 0.6).astype(np.float32)
    for _ in range(12):
        np.testing.assert_array_equal(at_once.scores(pools_MB), stepwise.scores(pools_MB))
        rows = rng.integers(0, 40, (2, 1))
        at_once.push(rows)
        stepwise.push(rows)


@pytest.mark.parametrize("fitted", [False, True])
def test_ties_are_settled_as_by_the_vote(fitted: bool) -> None:
    table = tables.random_table(5, questions=80, agents=tables.AGENTS)
    pools_MB = np.random.default_rng(0).random((6, 30)) < 0.5
    pools_MB[0] |= ~pools_MB.any(axis=0)
    recorded = Recorded.of(table, accuracies=table.accuracies if fitted else None)
    found_NB = recorded.right(np.arange(80), pools_MB.astype(np.float64))
    for b in range(30):
        selection = Selection(np.broadcast_to(pools_MB[:, b], (80, 6)))
        vote = Vote().fit(table, selection) if fitted else Vote()
        answers_N = vote.fuse(table, selection).answers
        expected_N = (answers_N == table.labels) & (answers_N >= 0)
        np.testing.assert_array_equal(found_NB[:, b], expected_N)
        assert [recorded.is_right(n, pools_MB[:, b]) for n in range(80)] == expected_N.tolist()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_pools_score_does_not_depend_on_the_agents_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    answers_NM, labels_N, right_M = rng.integers(-1, 3, (30, 6)), rng.integers(0, 3, 30), rng.random(6)
    moved_M, pool_M = rng.permutation(6), rng.random(6) < 0.6
    scores = []
    for order_M in (np.arange(6), moved_M):
        recorded = Recorded(answers_NM[:, order_M], labels_N, num_options=3, accuracies=right_M[order_M])
        window = Window(recorded, size=20, weights=MIXED)
        for row in range(30):
            window.push(row)
        scores.append(window.score(pool_M[order_M]))
    assert scores[0] == pytest.approx(scores[1], abs=1e-12)
    assert -1 <= scores[0] <= 1


class TestNothingToMeasure:
    @pytest.mark.parametrize("name", NAMES)
    def test_no_question_nobody_or_one_alone(self, name: str) -> None:
        recorded, weights = random_record(0), only(name)
        window, windows = (
            Window(recorded, size=5, weights=weights),
            Windows(recorded, num_windows=1, size=5, weights=weights),
        )
        everybody, nobody, first = np.ones(5, dtype=bool), np.zeros(5, dtype=bool), np.arange(5) == 0
        pools_MB = np.stack([everybody, nobody, first], axis=1).astype(np.float32)
        assert window.score(everybody) == 0
        assert windows.scores(pools_MB).tolist() == [0, 0, 0]
        known = np.flatnonzero(recorded.labels >= 0)[:3]
        for row in known:
            window.push(int(row))
            windows.push(np.array([[row]]))
        alone = 1.0 if name == "plurality" else 0.0
        assert [window.score(nobody), window.score(first)] == [0, alone]
        assert windows.scores(pools_MB)[1:].tolist() == [0, alone]

    def test_agents_that_never_fail_are_as_diverse_as_can_be(self) -> None:
        recorded = Recorded(np.zeros((4, 3), dtype=int), np.zeros(4, dtype=int), num_options=2)
        window = Window(recorded, size=5, weights=only("focal"))
        window.push(0)
        assert window.score(np.ones(3, dtype=bool)) == 1


class TestRefusals:
    @pytest.mark.parametrize("values", [NOTHING, {"focal": float("nan")}, {"kappa": float("inf")}])
    def test_weights_that_say_nothing(self, values: dict[str, float]) -> None:
        with pytest.raises(UsageError, match="one at least is not 0"):
            DiversityWeights(**values)

    @pytest.mark.parametrize("size", [0, 10**7])
    def test_windows_that_cannot_be_counted(self, size: int) -> None:
        with pytest.raises(UsageError, match="a window holds 1 to"):
            Window(random_record(0), size=size, weights=MIXED)
        with pytest.raises(UsageError, match="a window holds 1 to"):
            Windows(random_record(0), num_windows=1, size=size, weights=MIXED)

    def test_more_agents_than_ties_can_be_settled_among(self) -> None:
        with pytest.raises(UsageError, match="at most 47 agents, got 48"):
            Recorded(np.zeros((1, 48), dtype=int), np.zeros(1, dtype=int), num_options=2)
