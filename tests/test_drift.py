"""Noticing that an agent has become worse: the test by hand and by counting, false alarms, how soon falls are found."""

import itertools
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.errors import UsageError
from fusion.evaluation import DriftDetector, Fall
from fusion.evaluation._drift import most_likely_fall, p_of_so_few

Bools = npt.NDArray[np.bool_]


def looked(
    correct_NM: Bools, *, block: int, warm_up: int, category_N: npt.NDArray[np.intp] | None = None, alpha: float = 0.01
) -> list[tuple[int, Fall]]:
    """What a detector finds in a stream, with the place at which it does."""
    codes_N = np.zeros(len(correct_NM), dtype=np.intp) if category_N is None else category_N
    detector = DriftDetector(correct_NM.shape[1], num_categories=int(codes_N.max()) + 1, alpha=alpha)
    found = []
    edges = [0, *range(warm_up, len(correct_NM), block), len(correct_NM)]
    for start, stop in itertools.pairwise(edges):
        found += [(stop, fall) for fall in detector.look(correct_NM[start:stop], codes_N[start:stop])]
    return found


def test_fishers_test_by_hand() -> None:
    """Fisher's tea has 70 tables: 1 with none right among the four, 16 with one, 36 with two, 16, 1."""
    assert [round(70 * p_of_so_few([8], [4], [4], t)) for t in range(-1, 5)] == [0, 1, 17, 53, 69, 70]


def counted(totals: list[int], rights: list[int], recents: list[int], most: int) -> float:
    """The same probability, by drawing the latest questions in all ways."""
    ways: Counter[int] = Counter({0: 1})
    for total, right, recent in zip(totals, rights, recents, strict=True):
        marks = [1] * right + [0] * (total - right)
        drawn = Counter(sum(chosen) for chosen in itertools.combinations(marks, recent))
        sums: Counter[int] = Counter()
        for (a, n), (b, m) in itertools.product(ways.items(), drawn.items()):
            sums[a + b] += n * m
        ways = sums
    return sum(count for right, count in ways.items() if right <= most) / sum(ways.values())


@st.composite
def strata(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    totals = draw(st.lists(st.integers(0, 6), min_size=1, max_size=3))
    return totals, [draw(st.integers(0, n)) for n in totals], [draw(st.integers(0, n)) for n in totals]


@settings(deadline=None)
@given(given=strata(), most=st.integers(-1, 18))
def test_with_categories_it_is_what_counting_says(given: tuple[list[int], list[int], list[int]], most: int) -> None:
    assert p_of_so_few(*given, most) == pytest.approx(counted(*given, most), abs=1e-12)


def test_where_a_fall_began() -> None:
    right_N = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 0], dtype=bool)
    assert most_likely_fall(right_N, np.zeros(12, dtype=np.intp)) == 6


def test_where_a_fall_began_within_categories() -> None:
    """Category 1 is hard, which is no fall; in category 0 it begins at outcome 14."""
    category_N = np.array([0] * 6 + [1] * 6 + [0] * 8)
    right_N = np.array([1] * 6 + [0] * 6 + [1, 1] + [0] * 6, dtype=bool)
    assert most_likely_fall(right_N, category_N) == 14
    assert most_likely_fall(right_N, np.zeros(20, dtype=np.intp)) == 6


def test_a_rise_is_not_taken_for_the_fall() -> None:
    """The change that is likeliest of all is the rise at 10."""
    right_N = np.array([0] * 10 + [1] * 10 + [0] * 4, dtype=bool)
    assert most_likely_fall(right_N, np.zeros(24, dtype=np.intp)) == 20


def test_an_agent_that_stops_answering() -> None:
    """b is right on three of four, then on none from outcome 650 on; a stays as it is."""
    correct_NM = np.tile((np.arange(1200) % 4 > 0)[:, None], (1, 2))
    correct_NM[650:, 1] = False
    ((place, fall),) = looked(correct_NM, block=100, warm_up=300)
    assert (place, fall.agent, fall.begun) == (700, 1, 650)
    assert (fall.n_before, fall.n_after, fall.after) == (650, 50, 0.0)
    assert fall.before == pytest.approx(0.75, abs=0.01)
    assert fall.p < 1e-12 < fall.level


def test_it_may_fall_twice() -> None:
    correct_NM = (np.arange(3000) % 10 > 0)[:, None].copy()
    correct_NM[1000:2000] = (np.arange(1000) % 10 > 4)[:, None]
    correct_NM[2000:] = False
    found = looked(correct_NM, block=200, warm_up=400)
    assert [(place, fall.begun) for place, fall in found] == [(1200, 1000), (2200, 2000)]
    assert found[1][1].before == pytest.approx(0.5, abs=0.02)


def test_getting_better_is_no_alarm() -> None:
    correct_NM = (np.arange(2000) % 10 < 3)[:, None].copy()
    correct_NM[1000:] = True
    assert looked(correct_NM, block=200, warm_up=400) == []


def test_nothing_to_compare_with() -> None:
    detector = DriftDetector(2)
    none_NM = np.zeros((0, 2), dtype=bool)
    assert detector.look(none_NM) == []
    assert detector.look(np.ones((50, 2), dtype=bool)) == []
    assert detector.look(none_NM) == []
    assert [fall.agent for fall in detector.look(np.zeros((50, 2), dtype=bool))] == [0, 1]


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1])
def test_alpha_is_a_share(alpha: float) -> None:
    with pytest.raises(UsageError, match="alpha"):
        DriftDetector(2, alpha=alpha)


def drawn(seed: int, *, agents: int, questions: int, categories: int = 1) -> tuple[Bools, npt.NDArray[np.intp]]:
    """Outcomes of agents of differing skill that differs between categories, too; the mix of these moves on."""
    rng = np.random.default_rng(seed)
    main_N = np.arange(questions) * categories // questions
    category_N = np.where(rng.random(questions) < 0.5, main_N, rng.integers(0, categories, questions))
    skill_CM = np.clip(rng.uniform(0.4, 0.8, agents) + rng.normal(0, 0.2, (categories, agents)), 0.02, 0.98)
    return rng.random((questions, agents)) < skill_CM[category_N], category_N


STREAMS = 150


@pytest.mark.parametrize(("alpha", "categories"), [(0.01, 1), (0.3, 1), (0.3, 6)])
def test_false_alarms_stay_below_the_stated_rate(alpha: float, categories: int) -> None:
    """No agent changes; categories differ and come and go. Three standard errors are allowed for chance."""
    alarmed = 0
    for seed in range(STREAMS):
        correct_NM, category_N = drawn(seed, agents=5, questions=2300, categories=categories)
        alarmed += bool(looked(correct_NM, block=150, warm_up=350, category_N=category_N, alpha=alpha))
    assert alarmed <= STREAMS * alpha + 3 * (STREAMS * alpha * (1 - alpha)) ** 0.5


def test_without_categories_a_change_of_topic_would_look_like_a_fall() -> None:
    """What comparing within categories is for: on the same streams most would raise an alarm."""
    alarmed = 0
    for seed in range(20):
        correct_NM, _ = drawn(seed, agents=5, questions=2300, categories=6)
        alarmed += bool(looked(correct_NM, block=150, warm_up=350))
    assert alarmed > 10


@pytest.mark.parametrize(("agents", "categories"), [(8, 1), (24, 14)])
def test_a_fall_of_30_points_is_found_within_400_questions(agents: int, categories: int) -> None:
    """Two blocks of 200, wherever in a block it begins; in at least 95 % of the streams, and no other agent."""
    late = others = 0
    for seed in range(40):
        rng = np.random.default_rng(1000 + seed)
        begin = int(rng.integers(1100, 2000))
        correct_NM, category_N = drawn(seed, agents=agents, questions=2600, categories=categories)
        category_N = rng.integers(0, categories, 2600)
        correct_NM[:, 0] = rng.random(2600) < np.where(np.arange(2600) < begin, 0.7, 0.4)
        correct_NM[:, 1:] = rng.random((2600, agents - 1)) < 0.6
        found = looked(correct_NM, block=200, warm_up=500, category_N=category_N)
        places = [place for place, fall in found if fall.agent == 0 and place > begin]
        late += not places or places[0] - begin > 400
        others += any(fall.agent for _, fall in found)
    assert late <= 2
    assert others <= 1
