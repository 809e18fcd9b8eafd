"""Objectives as text, and every term against its function on one sub-ensemble."""

import itertools
import os
import pickle
from collections.abc import Callable, Sequence

import numpy as np
import plain_pruning as plain
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import by_hand, random_table, without

from fusion import diversity
from fusion.data import PredictionTable, accuracy_when_answering
from fusion.errors import InvalidTable, UnknownName, UsageError
from fusion.selectors import DEFAULT_OBJECTIVE, TERMS, Objective, Prices, Scorer
from fusion.selectors._bitset import LEVELS
from fusion.selectors._score import POWERS

# The same ratios of the same integers, summed in another order.
ROUNDING = 1e-12
AGENTS = ("ash", "birch", "cedar", "elm", "fir", "gum")
USD = np.array([0.5, 0.25, 4.0, 0.0, 0.125, 1.0])
SECONDS = np.array([3.0, 1.0, 0.5, 9.0, 2.0, 1.5])
PAIRED = [name for name, term in TERMS.items() if term.pairs]
SINGLE = [name for name, term in TERMS.items() if not term.pairs]


def mixed(seed: int, questions: int = 97) -> PredictionTable:
    return random_table(seed, questions=questions, agents=AGENTS)


def constant(answers: Sequence[int], labels: Sequence[int], options: int = 3) -> PredictionTable:
    """Six agents, of whom each always says the same; one question a label."""
    return by_hand([list(answers)] * len(labels), labels, num_options=[options] * len(labels))


TABLES: dict[str, Callable[[], PredictionTable]] = {
    "mixed": lambda: mixed(0),
    "one question": lambda: mixed(1, questions=1),
    "two questions": lambda: mixed(2, questions=2),
    "64 questions": lambda: mixed(3, questions=64),
    "one agent silent": lambda: random_table(4, agents=AGENTS, silent=("cedar",)),
    "equally accurate": lambda: random_table(5, agents=AGENTS, skill="equal"),
    "all right": lambda: random_table(6, agents=AGENTS, skill="right"),
    "all wrong": lambda: random_table(7, agents=AGENTS, skill="wrong"),
    "all silent": lambda: random_table(8, agents=AGENTS, skill="silent"),
    "all say one thing, right": lambda: constant([1] * 6, [1, 1, 1]),
    "all say one thing, wrong": lambda: constant([1] * 6, [0, 0]),
    "each says one thing": lambda: constant([0, 1, 2, 0, 1, -1], [0, 1, 2, -1]),
    "labels all absent": lambda: constant([0, 1, 2, 0, 1, -1], [-1] * 5),
    "one option": lambda: constant([0] * 5 + [-1], [0, -1], options=1),
    "one right once": lambda: by_hand([[0] + [1] * 5] + [[1] * 6] * 70, [0] * 71),
}


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest) -> PredictionTable:
    return TABLES[request.param]()


def scorer_of(table: PredictionTable, text: str = "accuracy", **options: object) -> Scorer:
    """A scorer that knows all terms."""
    given_options = {"prices": Prices(USD, SECONDS), "also": TERMS, "threads": 1, **options}
    return Scorer.of(table, Objective.parse(text), **given_options)  # type: ignore[arg-type]  # for brevity


def weighted_accuracy(table: PredictionTable, members: Sequence[int]) -> float:
    """The best of the powers, with weights in whole numbers."""
    competence_M = accuracy_when_answering(table)
    ranked = plain.ranking(table)
    best = 0
    for power in POWERS:
        weights_M = competence_M**power
        whole = [round(LEVELS * weight) for weight in (weights_M / weights_M.max()).tolist()]
        best = max(best, plain.right_votes(table, members, ranked, whole))
    return best / len(table)


def on_correct(function: Callable[..., float]) -> Callable[[PredictionTable, Sequence[int]], float]:
    return lambda table, members: function(table.correct[:, list(members)])


def on_answers(function: Callable[..., float]) -> Callable[[PredictionTable, Sequence[int]], float]:
    return lambda table, members: function(table.answers[:, list(members)])


EXPECTED: dict[str, Callable[[PredictionTable, Sequence[int]], float]] = {
    "accuracy": lambda table, members: plain.right_votes(table, members, plain.ranking(table)) / len(table),
    "weighted_accuracy": weighted_accuracy,
    "mean_accuracy": on_correct(np.mean),
    "oracle": on_correct(lambda correct_NS: float(correct_NS.any(axis=1).mean())),
    "focal": on_correct(diversity.focal_diversity),
    "generalized": on_correct(diversity.generalized_diversity),
    "disagreement": on_correct(diversity.disagreement),
    "entropy": on_correct(diversity.entropy),
    "double_fault": on_correct(diversity.double_fault),
    "q_statistic": on_correct(diversity.q_statistic),
    "correlation": on_correct(diversity.correlation),
    "kappa": on_correct(diversity.kappa),
    "answer_kappa": on_answers(diversity.answer_kappa),
    "fleiss_kappa": on_answers(diversity.fleiss_kappa),
    "size": lambda table, members: len(members),
    "cost": lambda table, members: sum(USD[m] for m in members),
    "latency": lambda table, members: max(SECONDS[m] for m in members),
}


def rows_of(scorer: Scorer, size: int) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """All sub-ensembles of one size, by position and by rank."""
    members = list(itertools.combinations(range(len(AGENTS)), size))
    return members, scorer.bits.rank(np.array(members))


def test_there_is_an_expectation_of_every_term() -> None:
    assert EXPECTED.keys() == TERMS.keys()


@pytest.mark.parametrize("name", TERMS)
def test_term(name: str, table: PredictionTable) -> None:
    scorer = scorer_of(table)
    for size in range(2 if TERMS[name].pairs else 1, len(AGENTS) + 1):
        members, rows_PS = rows_of(scorer, size)
        expected = [EXPECTED[name](table, row) for row in members]
        np.testing.assert_allclose(scorer.measure(name, rows_PS), expected, rtol=0, atol=ROUNDING, err_msg=f"{size}")


@pytest.mark.parametrize("name", TERMS)
def test_term_does_not_depend_on_what_else_is_asked(name: str) -> None:
    table = mixed(20)
    everything, alone = scorer_of(table), scorer_of(table, name, also=())
    _, rows_PS = rows_of(alone, 3)
    assert (alone.measure(name, rows_PS) == everything.measure(name, rows_PS)).all()
    assert (alone(rows_PS).objective == everything.measure(name, rows_PS)).all()


@pytest.mark.parametrize("name", TERMS)
def test_threads(name: str) -> None:
    """300 rows are several parts."""
    table = mixed(21)
    rows_PS = np.tile(rows_of(scorer_of(table), 3)[1], (15, 1))
    assert (scorer_of(table, threads=3).measure(name, rows_PS) == scorer_of(table).measure(name, rows_PS)).all()


@pytest.mark.parametrize("name", TERMS)
def test_names_of_agents_and_order_of_columns_do_not_matter(name: str) -> None:
    """Skills differ, so nothing is settled by the order of the columns."""
    table, order = mixed(22), [3, 1, 5, 0, 4, 2]
    moved = table.columns([table.agents[m] for m in order])
    there = scorer_of(moved, prices=Prices(USD[order], SECONDS[order]))
    here = scorer_of(table)
    members, rows_PS = rows_of(here, 3)
    moved_PS = there.bits.rank(np.array([[order.index(m) for m in row] for row in members]))
    np.testing.assert_allclose(there.measure(name, moved_PS), here.measure(name, rows_PS), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", ["accuracy", "weighted_accuracy"])
def test_ranking_that_is_given(name: str) -> None:
    """Ties go by it, and so do weights and prices: only the ties change what comes out."""
    table = mixed(23)
    ranked = np.array([5, 4, 3, 2, 1, 0])
    scorer = scorer_of(table, ranked=ranked)
    for size in (1, 2, 4):
        members, rows_PS = rows_of(scorer, size)
        votes = [plain.right_votes(table, row, ranked.tolist()) / len(table) for row in members]
        assert scorer(rows_PS).accuracy.tolist() == votes
        for term in ("mean_accuracy", "cost", "latency", "oracle"):
            expected = [EXPECTED[term](table, row) for row in members]
            np.testing.assert_allclose(scorer.measure(term, rows_PS), expected, rtol=0, atol=ROUNDING)


def test_scores() -> None:
    """The objective is the weighted sum; accuracy and focal diversity are always there."""
    table = mixed(24)
    scorer = scorer_of(table, "focal=0.5,kappa=-2,size=0.25", also=())
    members, rows_PS = rows_of(scorer, 3)
    scores = scorer(rows_PS)
    expected = [EXPECTED["focal"](table, row) / 2 - 2 * EXPECTED["kappa"](table, row) + 0.75 for row in members]
    np.testing.assert_allclose(scores.objective, expected, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(scores.focal, [EXPECTED["focal"](table, row) for row in members], atol=ROUNDING)
    np.testing.assert_allclose(scores.accuracy, [EXPECTED["accuracy"](table, row) for row in members], atol=ROUNDING)
    assert {column.dtype for column in scores} == {np.dtype(np.float64)}
    assert {column.shape for column in scores} == {(20,)}


def test_single_members() -> None:
    """Focal diversity is undefined for one; what is not is still measured."""
    table = mixed(25)
    text = ",".join(SINGLE)
    scorer = scorer_of(table, text, also=())
    members, rows_PS = rows_of(scorer, 1)
    scores = scorer(rows_PS)
    assert np.isnan(scores.focal).all()
    np.testing.assert_allclose(
        scores.objective, [sum(EXPECTED[name](table, row) for name in SINGLE) for row in members], atol=ROUNDING
    )


def test_without_labels() -> None:
    with pytest.raises(InvalidTable, match="no labels"):
        scorer_of(without(mixed(26), "labels"))


@pytest.mark.parametrize(("name", "prices"), [("cost", Prices(seconds=SECONDS)), ("latency", Prices(usd=USD))])
def test_missing_prices(name: str, prices: Prices) -> None:
    table = mixed(27)
    wanted = "prices" if name == "cost" else "seconds of every answer"
    for given_prices in (prices, None):
        with pytest.raises(UsageError, match=f"the {name} of sub-ensembles needs.*{wanted}"):
            Scorer.of(table, Objective({name: -1.0}), prices=given_prices)
        with pytest.raises(UsageError, match=f"the {name} of sub-ensembles needs.*{wanted}"):
            Scorer.of(table, Objective({"accuracy": 1.0}), prices=given_prices, also=[name])
        scorer = Scorer.of(table, Objective({"accuracy": 1.0}), prices=given_prices)
        with pytest.raises(UsageError, match=f"the {name} of sub-ensembles needs.*{wanted}"):
            scorer.measure(name, np.array([[0, 1]], np.int16))


def test_scorer_can_be_sent() -> None:
    """Bits and counts alone: no texts, and little more than its arrays."""
    table = mixed(28, questions=3000)
    wordy = by_hand(table.answers, table.labels, agents=AGENTS, texts=[["word " * 50] * 6] * 3000)
    scorer = scorer_of(wordy, "focal=0.5,fleiss_kappa=-1,cost=-1")
    packed = pickle.dumps(scorer)
    assert len(packed) < scorer.bits.nbytes + sum(counts.nbytes for counts in scorer.co_errors) + 8192
    there = pickle.loads(packed)
    _, rows_PS = rows_of(scorer, 4)
    for name in TERMS:
        assert (there.measure(name, rows_PS) == scorer.measure(name, rows_PS)).all()
    for here, other in zip(scorer(rows_PS), there(rows_PS), strict=True):
        assert (here == other).all()


def test_threads_by_default() -> None:
    assert scorer_of(mixed(29), threads=0).threads == len(os.sched_getaffinity(0))
    assert scorer_of(mixed(29), threads=3).threads == 3


class TestObjective:
    def test_parse(self) -> None:
        assert Objective.parse("focal=0.5, accuracy = 2").weights == {"focal": 0.5, "accuracy": 2.0}
        assert Objective.parse("accuracy").weights == {"accuracy": 1.0}
        assert Objective.parse("double-fault=-1,,size=-1e-3,").weights == {"double_fault": -1.0, "size": -0.001}
        assert Objective.parse("focal=0,accuracy").weights == {"accuracy": 1.0}
        assert Objective.parse(DEFAULT_OBJECTIVE) == Objective({"focal": 0.5, "accuracy": 0.5})

    @pytest.mark.parametrize("text", ["focl=1", "Focal=1", "accurcy", "fleiss-kapa=1"])
    def test_unknown(self, text: str) -> None:
        near = {"focl=1": "focal", "Focal=1": "focal", "accurcy": "accuracy", "fleiss-kapa=1": "fleiss_kappa"}[text]
        with pytest.raises(UnknownName, match=f"unknown objective term .*did you mean .*'{near}'"):
            Objective.parse(text)
        with pytest.raises(UnknownName, match="unknown objective term 'nothing'"):
            Objective({"nothing": 0.0})

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("focal=1,accuracy=1,focal=2", "gives focal twice"),
            ("double-fault,double_fault=2", "gives double_fault twice"),
            ("focal=much", "gives focal the weight 'much'; expected a number"),
            ("focal=", "gives focal the weight ''"),
            ("focal=1=2", "gives focal the weight '1=2'"),
            ("focal=nan", "the weight of focal must be a finite number, got nan"),
            ("accuracy=1,focal=-inf", "the weight of focal must be a finite number, got -inf"),
            ("focal=1e999", "the weight of focal must be a finite number, got inf"),
            ("", "an objective needs a term"),
            (" , ", "an objective needs a term"),
            ("focal=0,accuracy=-0.0", "an objective needs a term"),
        ],
    )
    def test_errors(self, text: str, told: str) -> None:
        with pytest.raises(UsageError, match=told):
            Objective.parse(text)

    @given(
        st.dictionaries(
            st.sampled_from(list(TERMS)),
            st.floats(allow_nan=False, allow_infinity=False).filter(bool),
            min_size=1,
        )
    )
    def test_text_reads_back(self, weights: dict[str, float]) -> None:
        objective = Objective(weights)
        assert Objective.parse(str(objective)) == objective
        assert list(Objective.parse(str(objective)).weights) == list(weights)

    def test_text_is_short(self) -> None:
        assert str(Objective.parse(DEFAULT_OBJECTIVE)) == DEFAULT_OBJECTIVE
        assert str(Objective({"size": -1, "focal": 1 / 3, "cost": 0})) == "size=-1,focal=0.3333333333333333"

    def test_what_is_passed_may_change_later(self) -> None:
        weights = {"focal": 1.0}
        objective = Objective(weights)
        weights["focal"] = 2.0
        assert objective.weights == {"focal": 1.0}

    @pytest.mark.parametrize("name", PAIRED)
    def test_terms_of_pairs(self, name: str) -> None:
        objective = Objective({"accuracy": 1.0, name: 1.0})
        with pytest.raises(UsageError, match=f"{name} cannot be measured on a single member"):
            objective.require_sizes((1, 2))
        objective.require_sizes((2, 3))

    def test_terms_of_one(self) -> None:
        Objective(dict.fromkeys(SINGLE, 1.0)).require_sizes((1,))
        with pytest.raises(UsageError, match="focal, kappa cannot"):
            Objective({"focal": 1, "size": -1, "kappa": -1}).require_sizes((1,))

    def test_warnings(self) -> None:
        assert Objective.parse(DEFAULT_OBJECTIVE).warnings() == ()
        for name, term in TERMS.items():
            assert term.higher_is_better is not None
            usual, other = (1.0, -1.0) if term.higher_is_better else (-1.0, 1.0)
            assert Objective({name: usual}).warnings() == ()
            (told,) = Objective({name: other}).warnings()
            assert told.startswith(f"{name}={other:g} rewards {'high' if other > 0 else 'low'} values of {name}: ")
            assert told.endswith(f"{name}={usual:g} would do the opposite")

    def test_pairs_are_where_a_single_member_is_refused(self) -> None:
        """By the functions themselves: a term of pairs has a measure that is undefined for one."""
        correct_N1 = np.array([[True], [False]])
        for name in PAIRED:
            measure = getattr(
                diversity, {"focal": "focal_diversity", "generalized": "generalized_diversity"}.get(name, name)
            )
            with pytest.raises(UsageError, match="undefined for 1"):
                measure(correct_N1.astype(np.int8) if "answer" in name or "fleiss" in name else correct_N1)
