"""Diversity: hand-worked examples, the definitions in plain loops, other libraries, edges, properties."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, matthews_corrcoef
from statsmodels.stats import inter_rater
from statsmodels.stats.contingency_tables import Table2x2

from fusion import diversity
from fusion.diversity import (
    MEASURES,
    Measure,
    PairCounts,
    answer_counts,
    answer_kappa,
    answer_kappa_matrix,
    binary_entropy,
    correlation,
    correlation_matrix,
    disagreement,
    double_fault,
    double_fault_matrix,
    entropy,
    fleiss_from_counts,
    fleiss_kappa,
    focal_diversities,
    focal_diversity,
    generalized_diversity,
    kappa,
    kappa_matrix,
    mean_over_pairs,
    pair_counts,
    q_matrix,
    q_statistic,
)
from fusion.errors import InvalidTable, UsageError
from fusion.schema import BoolArray, IntArray

Table = npt.NDArray[Any]
ON_CORRECT = [measure for measure in MEASURES.values() if measure.on == "correct"]
ON_ANSWERS = [measure for measure in MEASURES.values() if measure.on == "answers"]
PAIRWISE = [measure for measure in MEASURES.values() if measure.matrix is not None]
by_name = pytest.mark.parametrize("measure", MEASURES.values(), ids=lambda measure: measure.name)

# One float64 rounding of a value below 1, and one more where a mean is taken of rounded values.
ROUNDING = 1e-15


def right(*rows: str) -> BoolArray:
    """Return correct_NM from one string of 0 and 1 per question."""
    return np.array([[mark == "1" for mark in row] for row in rows])


def pair_table(n11: int, n10: int, n01: int, n00: int) -> BoolArray:
    """Return correct_NM of two members with these counts."""
    return right(*["11"] * n11, *["10"] * n10, *["01"] * n01, *["00"] * n00)


def random_correct(seed: int, num_questions: int = 60, num_members: int = 5) -> BoolArray:
    """Return correct_NM of members of different accuracy that share luck, none of them constant."""
    rng = np.random.default_rng(seed)
    hardness_N1 = rng.random((num_questions, 1))
    return rng.random((num_questions, num_members)) * 0.6 + 0.4 * hardness_N1 < np.linspace(0.35, 0.75, num_members)


def random_answers(seed: int, num_questions: int = 60, num_members: int = 5, options: int = 4) -> IntArray:
    """Return answers_NM that often agree and sometimes abstain."""
    rng = np.random.default_rng(seed)
    common_N1 = rng.integers(0, options, size=(num_questions, 1))
    own_NM = rng.integers(-1, options, size=(num_questions, num_members))
    return np.where(rng.random(own_NM.shape) < 0.5, common_N1, own_NM)


def table_for(measure: Measure, seed: int = 0, **sizes: int) -> Table:
    return random_correct(seed, **sizes) if measure.on == "correct" else random_answers(seed, **sizes)


@st.composite
def tables(draw: st.DrawFn, element: st.SearchStrategy[int]) -> Table:
    num_members = draw(st.integers(2, 5))
    row = st.lists(element, min_size=num_members, max_size=num_members)
    return np.array(draw(st.lists(row, min_size=1, max_size=12)))


corrects = tables(st.integers(0, 1)).map(lambda table: table.astype(bool))
answered = tables(st.integers(-1, 3))


# Worked by hand


FOCAL = right("110", "101", "011", "001")


def test_focal_diversity_by_hand() -> None:
    """Focal 0 fails on rows 3 and 4, where k = 1, 2 of the 3 fail.

    P1 = (1/3 + 2/3) / 2 = 1/2 and P2 = (0 + 2/6) / 2 = 1/6, so rho_0 = 1 - 1/3 = 2/3. Focal 1 fails on
    rows 2 and 4: the same. Focal 2 fails on row 1, alone: P2 = 0, rho_2 = 1. Mean: (2/3 + 2/3 + 1) / 3 = 7/9.
    """
    assert focal_diversities(FOCAL).tolist() == [2 / 3, 2 / 3, 1.0]
    assert focal_diversity(FOCAL) == pytest.approx(7 / 9, abs=ROUNDING)


def test_generalized_diversity_by_hand() -> None:
    """The same table: k = 1, 1, 1, 2 of 3 members fail on the 4 questions.

    P1 = (1 + 1 + 1 + 2) / 12 = 5/12, P2 = 2 * 1 / (3 * 2) / 4 = 1/12, GD = 1 - 1/5.
    """
    assert generalized_diversity(FOCAL) == 0.8


def test_pairwise_measures_by_hand() -> None:
    """N11 = 3, N10 = 1, N01 = 2, N00 = 4: i is right 4 and wrong 6 times, j 5 and 5.

    N11 N00 - N01 N10 = 12 - 2 = 10. Q = 10 / 14; rho = 10 / sqrt(4 * 6 * 5 * 5); kappa = 20 / (4 * 5 + 6 * 5);
    disagreement = (1 + 2) / 10; double fault = 4 / 10.
    """
    correct_NM = pair_table(3, 1, 2, 4)
    assert q_statistic(correct_NM) == 5 / 7
    assert correlation(correct_NM) == pytest.approx(10 / math.sqrt(600), abs=ROUNDING)
    assert kappa(correct_NM) == 0.4
    assert disagreement(correct_NM) == 0.3
    assert double_fault(correct_NM) == 0.4


def test_a_pairwise_measure_is_the_mean_over_pairs() -> None:
    """The focal table: pairs (0,1), (0,2) and (1,2) disagree on 2, 3 and 3 of 4 questions; both fail on 1, 0, 0.

    Disagreement (2 + 3 + 3) / 12, double fault 1/12.
    """
    assert disagreement(FOCAL) == pytest.approx(8 / 12, abs=ROUNDING)
    assert double_fault(FOCAL) == pytest.approx(1 / 12, abs=ROUNDING)


def test_pair_counts_by_hand() -> None:
    """Rows 1 to 4 of the focal table for members 0 and 2: only 0, both, only 2, only 2."""
    counts = pair_counts(FOCAL)
    assert [int(count[0, 2]) for count in counts] == [1, 1, 2, 0]
    assert [int(count[2, 0]) for count in counts] == [1, 2, 1, 0]
    assert np.diagonal(counts.both_right).tolist() == [2, 2, 3]
    assert np.diagonal(counts.both_wrong).tolist() == [2, 2, 1]
    assert all(count.dtype == np.int64 for count in counts)


def test_entropy_by_hand() -> None:
    """Of M = 4 members 4, 3, 2 and 0 are right: min(k, 4 - k) = 0, 1, 2, 0 and M - ceil(M/2) = 2: E = 3 / (4 * 2).

    Of 3 members: 3, 2, 1, 0 right, so 0, 1, 1, 0 over 3 - 2 = 1: E = 2/4.
    """
    assert entropy(right("1111", "1101", "0110", "0000")) == 0.375
    assert entropy(right("111", "101", "001", "000")) == 0.5


def test_binary_entropy_by_hand() -> None:
    """2 of 8 values are right: H = 1/4 * 2 + 3/4 * log2(4/3) bits, wherever the two stand."""
    by_hand = 0.5 + 0.75 * math.log2(4 / 3)
    assert binary_entropy(right("11", "00", "00", "00")) == pytest.approx(by_hand, abs=ROUNDING)
    assert binary_entropy(right("10", "01", "00", "00")) == pytest.approx(by_hand, abs=ROUNDING)
    assert binary_entropy(right("11", "00")) == 1.0


def test_answer_kappa_by_hand() -> None:
    """Over 5 questions i says 0 0 1 1 nothing, j says 0 1 1 1 nothing: they agree on 4.

    Shares of nothing, 0, 1: i 1/5, 2/5, 2/5; j 1/5, 1/5, 3/5. Chance (1 + 2 + 6) / 25 = 0.36;
    kappa = (0.8 - 0.36) / 0.64 = 0.6875.
    """
    assert answer_kappa(np.array([[0, 0], [0, 1], [1, 1], [1, 1], [-1, -1]])) == 0.6875


def test_fleiss_kappa_by_hand() -> None:
    """Three members: of the 3 pairs 3, 1, 1 and 0 agree on the four questions, o = 5/12.

    Among 12 answers 0 occurs 5, 1 occurs 5 and nothing 2 times: e = (25 + 25 + 4) / 144 = 3/8.
    kappa = (5/12 - 3/8) / (5/8) = 1/15.
    """
    assert fleiss_kappa(np.array([[0, 0, 0], [0, 1, 1], [1, 1, -1], [-1, 0, 1]])) == 1 / 15


def test_fleiss_kappa_of_the_textbook_example() -> None:
    """The much reprinted table of 14 raters, 10 subjects and 5 categories: kappa = 0.210."""
    given_NK = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    answers_NM = np.array([np.repeat(np.arange(5), counts) for counts in given_NK])
    assert fleiss_kappa(answers_NM) == pytest.approx(0.210, abs=0.0005)


# The definitions, in loops and fractions


def slow_rho(correct: list[list[bool]], members: int, failures: list[int]) -> Fraction:
    """1 - P2 / P1 over the questions `failures`, from the shares p_k."""
    if not failures:
        return Fraction(1)
    tally = Counter(sum(not mark for mark in correct[n]) for n in failures)
    shares = {k: Fraction(tally[k], len(failures)) for k in range(1, members + 1)}
    p1 = sum((Fraction(k, members) * p for k, p in shares.items()), Fraction(0))
    p2 = sum((Fraction(k * (k - 1), members * (members - 1)) * p for k, p in shares.items()), Fraction(0))
    return 1 - p2 / p1


def slow_focal(table: Table) -> float:
    correct, members = table.tolist(), table.shape[1]
    rhos = [slow_rho(correct, members, [n for n, row in enumerate(correct) if not row[i]]) for i in range(members)]
    return float(sum(rhos, Fraction(0)) / members)


def slow_generalized(table: Table) -> float:
    correct = table.tolist()
    return float(slow_rho(correct, table.shape[1], [n for n, row in enumerate(correct) if not all(row)]))


def over_pairs(of_pair: Callable[[int, int, int, int], float]) -> Callable[[Table], float]:
    """Return the mean over pairs of a function of N11, N10, N01, N00."""

    def slow(table: Table) -> float:
        values = []
        for i, j in itertools.combinations(range(table.shape[1]), 2):
            seen = Counter((bool(row[i]), bool(row[j])) for row in table)
            values.append(of_pair(seen[True, True], seen[True, False], seen[False, True], seen[False, False]))
        return sum(values) / len(values)

    return slow


def slow_q(n11: int, n10: int, n01: int, n00: int) -> float:
    below = n11 * n00 + n01 * n10
    return (n11 * n00 - n01 * n10) / below if below else 0.0


def slow_correlation(n11: int, n10: int, n01: int, n00: int) -> float:
    below = math.sqrt((n11 + n10) * (n01 + n00)) * math.sqrt((n11 + n01) * (n10 + n00))
    return (n11 * n00 - n01 * n10) / below if below else 0.0


def slow_kappa(n11: int, n10: int, n01: int, n00: int) -> float:
    """From observed and chance agreement, not from the closed form for two categories."""
    total = n11 + n10 + n01 + n00
    agreed = Fraction(n11 + n00, total)
    chance = Fraction((n11 + n10) * (n11 + n01) + (n01 + n00) * (n10 + n00), total * total)
    return float((agreed - chance) / (1 - chance)) if chance != 1 else 0.0


def slow_entropy(table: Table) -> float:
    members = table.shape[1]
    terms = [Fraction(min(sum(row), members - sum(row)), members - math.ceil(members / 2)) for row in table.tolist()]
    return float(sum(terms, Fraction(0)) / len(terms))


def slow_binary_entropy(table: Table) -> float:
    values = Counter(table.ravel().tolist())
    return -sum(count / table.size * math.log2(count / table.size) for count in values.values())


def slow_answer_kappa(table: Table) -> float:
    kappas = []
    for i, j in itertools.combinations(range(table.shape[1]), 2):
        first, second = table[:, i].tolist(), table[:, j].tolist()
        agreed = Fraction(sum(a == b for a, b in zip(first, second, strict=True)), len(first))
        chance = sum((Fraction(first.count(c) * second.count(c), len(first) ** 2) for c in set(first)), Fraction(0))
        kappas.append(float((agreed - chance) / (1 - chance)) if chance != 1 else 0.0)
    return sum(kappas) / len(kappas)


def slow_fleiss_kappa(table: Table) -> float:
    """Question by question from the category counts, as Fleiss writes it."""
    members, total = table.shape[1], table.size
    per_question = [Counter(row) for row in table.tolist()]
    agreed = sum(
        (Fraction(sum(n * (n - 1) for n in seen.values()), members * (members - 1)) for seen in per_question),
        Fraction(0),
    ) / len(per_question)
    chance = sum((Fraction(n, total) ** 2 for n in Counter(table.ravel().tolist()).values()), Fraction(0))
    return float((agreed - chance) / (1 - chance)) if chance != 1 else 0.0


SLOW: dict[str, Callable[[Table], float]] = {
    "focal_diversity": slow_focal,
    "generalized_diversity": slow_generalized,
    "q_statistic": over_pairs(slow_q),
    "correlation": over_pairs(slow_correlation),
    "disagreement": over_pairs(lambda n11, n10, n01, n00: (n10 + n01) / (n11 + n10 + n01 + n00)),
    "double_fault": over_pairs(lambda n11, n10, n01, n00: n00 / (n11 + n10 + n01 + n00)),
    "kappa": over_pairs(slow_kappa),
    "entropy": slow_entropy,
    "binary_entropy": slow_binary_entropy,
    "answer_kappa": slow_answer_kappa,
    "fleiss_kappa": slow_fleiss_kappa,
}


@by_name
@pytest.mark.parametrize("seed", range(5))
def test_random_tables_match_the_definition(measure: Measure, seed: int) -> None:
    table_NM = table_for(measure, seed, num_members=2 + seed)
    assert measure.function(table_NM) == pytest.approx(SLOW[measure.name](table_NM), abs=ROUNDING)


@given(corrects)
def test_any_correctness_matches_the_definition(correct_NM: BoolArray) -> None:
    for measure in ON_CORRECT:
        value = measure.function(correct_NM)
        assert value == pytest.approx(SLOW[measure.name](correct_NM), abs=ROUNDING), measure.name


@given(answered)
def test_any_answers_match_the_definition(answers_NM: IntArray) -> None:
    for measure in ON_ANSWERS:
        assert measure.function(answers_NM) == pytest.approx(SLOW[measure.name](answers_NM), abs=ROUNDING), measure.name


@given(corrects)
def test_focal_diversity_follows_from_co_error_counts(correct_NM: BoolArray) -> None:
    """rho_i = 1 - [(sum_jk N_ijk - sum_j N_ij) / (M - 1)] / sum_j N_ij, the form that a search uses."""
    wrong_NM = (~correct_NM).astype(np.int64)
    pairs_MM = wrong_NM.T @ wrong_NM
    triples_MMM = np.einsum("ni,nj,nk->ijk", wrong_NM, wrong_NM, wrong_NM)
    for i, rho in enumerate(focal_diversities(correct_NM)):
        joint = pairs_MM[i].sum()
        above = (triples_MMM[i].sum() - joint) / (correct_NM.shape[1] - 1)
        assert rho == pytest.approx(1 - above / joint if joint else 1.0, abs=ROUNDING)


# Other libraries


@pytest.mark.parametrize("seed", range(3))
def test_scikit_learn_agrees(seed: int) -> None:
    """Cohen's kappa of answers and of correctness; the correlation of 0/1 is the Matthews coefficient."""
    correct_NM, answers_NM = random_correct(seed), random_answers(seed)
    counts = pair_counts(correct_NM)
    for i, j in itertools.combinations(range(5), 2):
        first, second = correct_NM[:, i], correct_NM[:, j]
        assert kappa_matrix(counts)[i, j] == pytest.approx(cohen_kappa_score(first, second), abs=1e-14)
        assert correlation_matrix(counts)[i, j] == pytest.approx(matthews_corrcoef(first, second), abs=1e-14)
        by_sklearn = cohen_kappa_score(answers_NM[:, i], answers_NM[:, j])
        assert answer_kappa_matrix(answer_counts(answers_NM))[i, j] == pytest.approx(by_sklearn, abs=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_numpy_agrees_on_the_correlation(seed: int) -> None:
    correct_NM = random_correct(seed)
    by_numpy = np.corrcoef(correct_NM.T.astype(np.float64))
    np.testing.assert_allclose(correlation_matrix(pair_counts(correct_NM)), by_numpy, atol=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_statsmodels_agrees(seed: int) -> None:
    """Fleiss' kappa over the table of categories, Cohen's kappa of a 2 x 2 table, and Q = (OR - 1) / (OR + 1)."""
    answers_NM = random_answers(seed)
    categories_NK, _ = inter_rater.aggregate_raters(answers_NM)
    assert fleiss_kappa(answers_NM) == pytest.approx(inter_rater.fleiss_kappa(categories_NK), abs=1e-14)
    counts = pair_counts(random_correct(seed, num_questions=400))
    for i, j in itertools.combinations(range(5), 2):
        n11, n10, n01, n00 = (int(count[i, j]) for count in counts)
        assert min(n11, n10, n01, n00) > 0
        odds_ratio = Table2x2(np.array([[n11, n10], [n01, n00]])).oddsratio
        assert q_matrix(counts)[i, j] == pytest.approx((odds_ratio - 1) / (odds_ratio + 1), abs=1e-13)
        by_statsmodels = inter_rater.cohens_kappa(np.array([[n11, n10], [n01, n00]]), return_results=False)
        assert kappa_matrix(counts)[i, j] == pytest.approx(by_statsmodels, abs=1e-14)


# How the measures hang together


@given(corrects)
def test_relations_between_the_measures(correct_NM: BoolArray) -> None:
    """Kuncheva and Whitaker: |rho| <= |Q|, same sign; for two members E is the disagreement.

    From GD = 1 - P2 / P1 with P2 the double fault and P1 the mean error rate, and from
    disagreement = 2 (P1 - P2): GD = disagreement / (2 P1). Their interrater agreement
    1 - disagreement / (2 p (1 - p)), p the mean accuracy, is Fleiss' kappa of correctness.
    """
    counts = pair_counts(correct_NM)
    rho_MM, q_MM = correlation_matrix(counts), q_matrix(counts)
    assert np.all(np.abs(rho_MM) <= np.abs(q_MM) + ROUNDING)
    assert np.all(np.sign(rho_MM) == np.sign(q_MM))
    split, wrong = disagreement(correct_NM), float((~correct_NM).mean())
    if correct_NM.shape[1] == 2:
        assert entropy(correct_NM) == split
    if wrong > 0:
        assert generalized_diversity(correct_NM) == pytest.approx(split / (2 * wrong), abs=1e-14)
    if 0 < wrong < 1:
        agreement = 1 - split / (2 * wrong * (1 - wrong))
        assert fleiss_kappa(correct_NM.astype(np.int8)) == pytest.approx(agreement, abs=1e-13)


def test_binary_entropy_knows_only_the_mean_accuracy() -> None:
    """Two copies of one member, and two that are never wrong together: half of the values are right in both."""
    copies_NM, opposite_NM = right("11", "00"), right("10", "01")
    assert binary_entropy(copies_NM) == binary_entropy(opposite_NM) == 1.0
    assert entropy(copies_NM) == 0.0
    assert entropy(opposite_NM) == 1.0


@pytest.mark.parametrize("measure", PAIRWISE, ids=lambda measure: measure.name)
def test_a_search_can_use_the_matrix_of_the_whole_pool(measure: Measure) -> None:
    table_NM = table_for(measure, num_members=6)
    assert measure.matrix is not None
    matrix_MM = measure.matrix(table_NM)
    assert matrix_MM.dtype == np.float64
    for members in itertools.chain.from_iterable(itertools.combinations(range(6), size) for size in (2, 3, 6)):
        whole = mean_over_pairs(matrix_MM[np.ix_(members, members)])
        assert whole == measure.function(table_NM[:, members])


def test_a_search_can_use_the_answer_counts_of_the_whole_pool() -> None:
    answers_NM = random_answers(0, num_members=6)
    counts = answer_counts(answers_NM)
    for members in itertools.combinations(range(6), 3):
        assert fleiss_from_counts(counts.of(members)) == fleiss_kappa(answers_NM[:, members])


def test_pair_counts_follow_from_joint_failures_alone() -> None:
    correct_NM = random_correct(3)
    counts = pair_counts(correct_NM)
    again = PairCounts.from_failures(counts.both_wrong, num_questions=len(correct_NM))
    for name, of_pair in {"both_right": (True, True), "only_row": (True, False), "only_column": (False, True)}.items():
        by_loop = [[(correct_NM[:, [i, j]] == of_pair).all(axis=1).sum() for j in range(5)] for i in range(5)]
        assert getattr(again, name).tolist() == by_loop, name


# Properties of all measures


@by_name
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_members_and_questions_changes_no_bit(measure: Measure, seed: int) -> None:
    table_NM = table_for(measure, seed)
    rng = np.random.default_rng(seed)
    shuffled_NM = table_NM[rng.permutation(len(table_NM))][:, rng.permutation(5)]
    assert measure.function(shuffled_NM) == measure.function(table_NM)


@given(corrects, st.randoms(use_true_random=False))
def test_order_changes_no_bit_on_any_correctness(correct_NM: BoolArray, random: Any) -> None:
    members = random.sample(range(correct_NM.shape[1]), correct_NM.shape[1])
    questions = random.sample(range(len(correct_NM)), len(correct_NM))
    for measure in ON_CORRECT:
        assert measure.function(correct_NM[questions][:, members]) == measure.function(correct_NM), measure.name
    assert focal_diversities(correct_NM[:, members]).tolist() == focal_diversities(correct_NM)[members].tolist()


@given(answered, st.permutations(range(-1, 4)))
def test_the_names_of_the_answers_change_no_bit(answers_NM: IntArray, renamed: list[int]) -> None:
    """Abstaining is a category like any other: renaming may exchange it with an option."""
    for measure in ON_ANSWERS:
        assert measure.function(np.array(renamed)[answers_NM + 1]) == measure.function(answers_NM), measure.name


@by_name
def test_asking_everything_twice_changes_nothing(measure: Measure) -> None:
    table_NM = table_for(measure)
    twice_NM = np.concatenate([table_NM, table_NM])
    assert measure.function(twice_NM) == pytest.approx(measure.function(table_NM), abs=ROUNDING)


@given(corrects, answered)
def test_ranges_are_kept_and_matrices_symmetric(correct_NM: BoolArray, answers_NM: IntArray) -> None:
    for measure in MEASURES.values():
        table_NM = correct_NM if measure.on == "correct" else answers_NM
        low, high = measure.range
        assert low <= measure.function(table_NM) <= high, measure.name
        if measure.matrix is not None:
            matrix_MM = measure.matrix(table_NM)
            assert np.array_equal(matrix_MM, matrix_MM.T), measure.name
            assert low <= matrix_MM.min(), measure.name
            assert matrix_MM.max() <= high, measure.name
    assert fleiss_kappa(answers_NM) >= -1 / (answers_NM.shape[1] - 1) - ROUNDING


@by_name
def test_the_direction_is_the_one_claimed(measure: Measure) -> None:
    """Members that never fail (or agree) together against copies of one, at the same accuracy (or answers)."""
    if measure.on == "correct":
        spread, copies = right("011", "101", "110"), right("000", "111", "111")
    else:
        spread, copies = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1]]), np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2]])
    gain = measure.function(spread) - measure.function(copies)
    if measure.name == "binary_entropy":
        assert gain == 0.0
    else:
        assert (gain > 0) == measure.higher_is_more_diverse
        assert gain != 0


@by_name
def test_copies_of_one_member(measure: Measure) -> None:
    """No diversity at all: the extreme of every measure but the two that depend on accuracy."""
    table_NM = np.repeat(table_for(measure)[:, :1], 4, axis=1)
    worst = measure.range[0] if measure.higher_is_more_diverse else measure.range[1]
    by_accuracy = {
        "double_fault": float((~table_NM.astype(bool)).mean()),
        "binary_entropy": slow_binary_entropy(table_NM),
    }
    assert measure.function(table_NM) == pytest.approx(by_accuracy.get(measure.name, worst), abs=ROUNDING)


def test_extremes_are_reached_exactly() -> None:
    copies_NM, opposite_NM = pair_table(3, 0, 0, 4), pair_table(0, 3, 3, 0)
    for measure in (q_statistic, correlation, kappa):
        assert measure(copies_NM) == 1.0
        assert measure(opposite_NM) == -1.0
    assert fleiss_kappa(np.array([[0, 1], [1, 0]])) == -1.0


# Edges


@by_name
@pytest.mark.parametrize("members", [0, 1])
def test_fewer_than_two_members_have_no_diversity(measure: Measure, members: int) -> None:
    with pytest.raises(UsageError, match="between members and undefined for"):
        measure.function(table_for(measure)[:, :members])


def test_fewer_than_two_members_have_no_focal_diversities_pairs_or_fleiss_kappa() -> None:
    with pytest.raises(UsageError, match="undefined for 1"):
        focal_diversities(right("1", "0"))
    with pytest.raises(UsageError, match="undefined for 1"):
        mean_over_pairs(np.ones((1, 1)))
    with pytest.raises(UsageError, match="undefined for 1"):
        fleiss_from_counts(answer_counts(random_answers(0)).of([2]))


@pytest.mark.parametrize("measure", PAIRWISE, ids=lambda measure: measure.name)
def test_the_matrix_of_one_member_is_defined(measure: Measure) -> None:
    assert measure.matrix is not None
    assert measure.matrix(table_for(measure)[:, :1]).shape == (1, 1)


@by_name
def test_no_question(measure: Measure) -> None:
    with pytest.raises(InvalidTable, match="the table is empty"):
        measure.function(table_for(measure)[:0])


@by_name
def test_wrong_type_or_rank(measure: Measure) -> None:
    table_NM = table_for(measure)
    other_NM = table_NM.astype(np.int64 if measure.on == "correct" else np.bool_)
    for wrong in (other_NM, table_NM.astype(np.float64), table_NM[:, 0], table_NM[None]):
        with pytest.raises(InvalidTable, match=r"diversity needs an? (boolean|integer) array .* as PredictionTable"):
            measure.function(wrong)


def test_answers_below_minus_one() -> None:
    with pytest.raises(InvalidTable, match="got -99 among the answers"):
        answer_kappa(np.array([[0, -99], [1, 1]]))


def test_answers_of_every_integer_type() -> None:
    """The largest int8 answer plus one does not fit int8, and -1 does not fit uint8."""
    answers_NM = np.array([[127, 127], [0, 127], [1, 1], [126, 0]])
    for kind in (np.int8, np.uint8, np.int16, np.int64):
        for measure in ON_ANSWERS:
            assert measure.function(answers_NM.astype(kind)) == measure.function(answers_NM), (measure.name, kind)


def test_inputs_stay_as_they_are() -> None:
    for measure in MEASURES.values():
        table_NM = table_for(measure)
        table_NM.flags.writeable = False
        before_NM = table_NM.copy()
        measure.function(table_NM)
        assert np.array_equal(table_NM, before_NM)


def test_a_member_that_never_fails() -> None:
    """Its rho is 1. Constant, it has Q, rho and kappa 0 with anyone: independent, though the formula says 0/0."""
    correct_NM = right("110", "101", "100", "111")
    assert focal_diversities(correct_NM)[0] == 1.0
    counts = pair_counts(correct_NM)
    for matrix in (q_matrix, correlation_matrix, kappa_matrix):
        assert matrix(counts)[0].tolist() == [0.0, 0.0, 0.0]
        assert matrix(counts)[1, 1] == 1.0
    assert double_fault_matrix(counts)[0].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("measure", "never", "always"),
    [
        (focal_diversity, 1.0, 0.0),
        (generalized_diversity, 1.0, 0.0),
        (q_statistic, 0.0, 0.0),
        (correlation, 0.0, 0.0),
        (disagreement, 0.0, 0.0),
        (double_fault, 0.0, 1.0),
        (kappa, 0.0, 0.0),
        (entropy, 0.0, 0.0),
        (binary_entropy, 0.0, 0.0),
    ],
)
def test_nobody_ever_fails_and_everybody_always_fails(
    measure: Callable[[BoolArray], float], never: float, always: float
) -> None:
    for num_questions in (1, 4):
        correct_NM = np.ones((num_questions, 3), dtype=bool)
        assert measure(correct_NM) == never
        assert measure(~correct_NM) == always


def test_one_always_right_and_one_always_wrong() -> None:
    """They disagree on everything, and yet neither says anything about the other."""
    correct_NM = pair_table(0, 3, 0, 0)
    assert disagreement(correct_NM) == 1.0
    assert focal_diversities(correct_NM).tolist() == [1.0, 1.0]
    for measure in (q_statistic, correlation, kappa):
        assert measure(correct_NM) == 0.0


@pytest.mark.parametrize("measure", ON_ANSWERS, ids=lambda measure: measure.name)
@pytest.mark.parametrize("answer", [-1, 0, 3])
def test_all_always_say_one_thing_or_nothing(measure: Measure, answer: int) -> None:
    assert measure.function(np.full((4, 3), answer)) == 0.0


def test_abstaining_together_is_agreeing() -> None:
    """Of 4 questions both abstain on 2 and agree on the others: full agreement. If j answers, kappa falls.

    i says 0 1 nothing nothing, j says 0 1 0 1: o = 1/2, e = (1/4)(1/2) + (1/4)(1/2) = 1/4, kappa = 1/3.
    """
    assert answer_kappa(np.array([[0, 0], [1, 1], [-1, -1], [-1, -1]])) == 1.0
    assert answer_kappa(np.array([[0, 0], [1, 1], [-1, 0], [-1, 1]])) == 1 / 3


def test_a_member_that_always_abstains() -> None:
    """It is independent of the other for Cohen's kappa; for Fleiss' kappa, which pools the answers, it disagrees.

    o = 0, and of 8 answers 4 are nothing, 2 are 0 and 2 are 1: e = (16 + 4 + 4) / 64 = 3/8, kappa = -3/5.
    """
    answers_NM = np.array([[0, -1], [1, -1], [0, -1], [1, -1]])
    assert answer_kappa(answers_NM) == 0.0
    assert fleiss_kappa(answers_NM) == -0.6


def test_counts_stay_exact_on_many_questions() -> None:
    """More rows than are multiplied at once, and products of counts beyond 32 bits."""
    num_questions = 2 * diversity._CHUNK + 1
    correct_NM = np.zeros((num_questions, 2), dtype=bool)
    correct_NM[:70_000, 0] = correct_NM[60_000:, 1] = True
    counts = pair_counts(correct_NM)
    assert [int(count[0, 1]) for count in counts] == [10_000, 60_000, num_questions - 70_000, 0]
    assert q_statistic(correct_NM) == -1.0
    answers_NM = correct_NM.astype(np.int8)
    assert answer_kappa(answers_NM) == kappa(correct_NM)
    assert fleiss_kappa(answers_NM) == pytest.approx(slow_fleiss_kappa(answers_NM), abs=ROUNDING)


# The registry


def test_the_registry_names_its_functions() -> None:
    assert set(SLOW) == set(MEASURES)
    for name, measure in MEASURES.items():
        assert measure.name == name == measure.function.__name__
        assert measure.function is getattr(diversity, name)
        assert measure.source
        documentation = measure.function.__doc__ or ""
        assert "higher is more diverse" in documentation or "lower is more diverse" in documentation
        assert ("higher is more diverse" in documentation) == measure.higher_is_more_diverse
        assert "Range [" in documentation
