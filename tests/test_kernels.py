"""The compiled kernels against a vote question by question, and against the fusers that they stand for."""

import itertools
import math
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import plain_pruning as plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tables import by_hand, random_table

from fusion.data import PredictionTable, read_table
from fusion.ensemble import Ensemble
from fusion.errors import InvalidTable, UsageError
from fusion.fusers.weighted_vote import WeightedVote
from fusion.schema import IntArray, Selection
from fusion.selectors import BitTable, Objective, Scorer, _bitset, _kernels
from fusion.selectors._bitset import LEVELS, MAX_AGENTS, focal_diversities, pair_means
from fusion.selectors._score import in_parts
from fusion.selectors.fixed_subset import FixedSubset

# Both are means of ratios of the same integers, rounded once more or less.
ROUNDING = 1e-12


def crowd(
    seed: int,
    *,
    questions: int = 150,
    agents: int = 6,
    options: int = 4,
    silent: float = 0.15,
    absent: float = 0.1,
    herd: float = 0.5,
) -> PredictionTable:
    """Agents whose accuracies repeat, who err together and abstain; some right answers are not among the options.

    Args:
        seed: Another seed, another table.
        questions, agents, options: N, M and K.
        silent: Share of abstentions.
        absent: Share of questions with the label -1.
        herd: How often one that errs says what the others that err so say.
    """
    rng = np.random.default_rng(seed)
    shape = (questions, agents)
    labels_N = rng.integers(0, options, questions)
    tempting_N1 = rng.integers(0, options, (questions, 1))
    wrong_NM = np.where(rng.random(shape) < herd, tempting_N1, rng.integers(0, options, shape))
    right_NM = rng.random(shape) < np.linspace(0.2, 0.7, agents) * rng.random((questions, 1)) * 1.6
    answers_NM = np.where(right_NM, labels_N[:, None], wrong_NM)
    answers_NM[rng.random(shape) < silent] = -1
    labels_N[rng.random(questions) < absent] = -1
    return by_hand(answers_NM, labels_N, num_options=np.full(questions, options))


def filled(answer: int, label: int, questions: int = 70, agents: int = 4) -> PredictionTable:
    return by_hand(np.full((questions, agents), answer), [label] * questions, num_options=[3] * questions)


TABLES: dict[str, Callable[[], PredictionTable]] = {
    "150 questions": lambda: crowd(0),
    "64 questions": lambda: crowd(1, questions=64, agents=4),
    "65 questions": lambda: crowd(2, questions=65, agents=4),
    "63 questions": lambda: crowd(3, questions=63, agents=4),
    "5 questions": lambda: crowd(4, questions=5, agents=4),
    "1 question": lambda: crowd(5, questions=1, agents=4),
    "513 questions": lambda: crowd(6, questions=513, agents=4),
    "2 agents": lambda: crowd(7, agents=2),
    "9 agents": lambda: crowd(8, questions=90, agents=9),
    "10 agents, 3 options": lambda: crowd(9, questions=70, agents=10, options=3),
    "2 options": lambda: crowd(10, options=2, herd=1.0),
    "1 option": lambda: crowd(11, options=1, agents=4),
    "40 options, many ties": lambda: crowd(12, options=40, herd=0.1, silent=0.3),
    "all the same": lambda: crowd(13, herd=1.0, silent=0.0),
    "int16 answers": lambda: crowd(14, options=700, agents=5, herd=0.8),
    "labels all absent": lambda: crowd(15, absent=1.0, agents=4),
    "mostly silent": lambda: crowd(16, silent=0.85),
    "ragged options": lambda: random_table(0, questions=200),
    "all right": lambda: filled(1, 1),
    "all wrong together": lambda: filled(0, 1),
    "all abstain": lambda: filled(-1, 1),
    "all wrong apart": lambda: by_hand([[1, 2, 3]] * 65, [0] * 65, num_options=[4] * 65),
    "equal agents": lambda: random_table(3, skill="equal"),
}


@pytest.fixture(params=TABLES, scope="module")
def table(request: pytest.FixtureRequest) -> PredictionTable:
    return TABLES[request.param]()


def ranked_rows(bits: BitTable, size: int) -> IntArray:
    """All sub-ensembles of one size by rank, in lexicographic order."""
    return np.array(list(itertools.combinations(range(bits.num_agents), size)), np.int16)


def sizes(table: PredictionTable) -> range:
    return range(2, table.num_agents + 1)


def expected_votes(
    table: PredictionTable, ranked: Sequence[int], rows_PS: IntArray, weights: Sequence[int] | None = None
) -> list[int]:
    """Counts by the plain vote; rows by rank, weights by position in the table."""
    return [plain.right_votes(table, [ranked[r] for r in row], ranked, weights) for row in rows_PS.tolist()]


def check_everything(table: PredictionTable) -> None:
    """All counts of all sub-ensembles against the plain ones."""
    bits = BitTable.of(table)
    ranked = plain.ranking(table)
    assert bits.ranked.tolist() == ranked
    counts = bits.co_errors()
    for size in sizes(table):
        rows_PS = ranked_rows(bits, size)
        assert bits.votes(rows_PS).tolist() == expected_votes(table, ranked, rows_PS), size
        corrects = [plain.correct(table, [ranked[r] for r in row]) for row in rows_PS.tolist()]
        assert bits.hits(rows_PS).tolist() == [plain.at_least(correct) for correct in corrects], size
        np.testing.assert_allclose(
            focal_diversities(counts, rows_PS),
            [plain.focal_diversity(correct) for correct in corrects],
            rtol=0,
            atol=ROUNDING,
        )


def test_vote_by_hand() -> None:
    """Agents a, b, c rank in this order (3, 2 and 2 of 6 right). The right option is 0 throughout.

        answers   a b   a c   b c   a b c
        0 1 1      1     1     0     0     a is right, and outvoted only by both others
        0 1 2      1     1     0     1     a three-way tie goes to a
        0 - -      1     1     0     1     abstentions are ignored
        1 0 0      0     0     1     1
        2 0 1      0     0     1     0     a tie goes to a, then to b
        1 2 0      0     0     0     0
    so the votes are right on 3, 3, 2 and 3 questions.
    """
    table = by_hand([[0, 1, 1], [0, 1, 2], [0, -1, -1], [1, 0, 0], [2, 0, 1], [1, 2, 0]], [0] * 6)
    bits = BitTable.of(table)
    assert bits.ranked.tolist() == [0, 1, 2]
    assert bits.votes(ranked_rows(bits, 2)).tolist() == [3, 3, 2]
    assert bits.votes(ranked_rows(bits, 3)).tolist() == [3]
    assert bits.votes(ranked_rows(bits, 1)).tolist() == [3, 2, 2]
    assert bits.hits(ranked_rows(bits, 3)).tolist() == [[6, 1, 0]]


def test_weighted_vote_by_hand() -> None:
    """Weights 63, 21 and 42 (3 : 1 : 2) of a, b and c; the right option is 0.

    1 0 0: 63 against 63, a tie, goes to a, wrong. 0 1 1: the tie goes to a, right. 1 0 -: wrong. - 1 0: right.
    """
    table = by_hand([[1, 0, 0], [0, 1, 1], [1, 0, -1], [-1, 1, 0]], [0] * 4)
    bits = BitTable.of(table, ranked=np.arange(3))
    rows_PS = ranked_rows(bits, 3)
    assert bits.weighted_votes(rows_PS, np.array([3.0, 1.0, 2.0])).tolist() == [2]
    assert bits.weighted_votes(rows_PS, np.array([3.0, 1.0, 2.1])).tolist() == [2], "42 + 21 + 2 beat 63, 63 loses"


def test_focal_diversity_by_hand() -> None:
    """Right are 110, 101, 011 and 001: rho is 2/3 (P1 = 1/2, P2 = 1/6), again 2/3, and 1 (P2 = 0); the mean is 7/9."""
    table = by_hand([[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 0]], [0] * 4)
    bits = BitTable.of(table)
    assert focal_diversities(bits.co_errors(), ranked_rows(bits, 3)).tolist() == pytest.approx([7 / 9], abs=ROUNDING)
    assert plain.focal_diversity(plain.correct(table, [0, 1, 2])) == pytest.approx(7 / 9, abs=ROUNDING)


def test_everything(table: PredictionTable) -> None:
    check_everything(table)


@pytest.mark.parametrize("words", [8, 16])
@pytest.mark.parametrize("questions", [64, 513, 1024, 1025, 1600])
def test_many_blocks(words: int, questions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = crowd(questions, questions=questions, agents=5)
    whole = BitTable.of(table)
    assert len(whole.correct) == 1
    for name, value in {"_CACHED_BYTES": 1, "_MIN_WORDS": 1, "_MAX_WORDS": words}.items():
        monkeypatch.setattr(_bitset, name, value)
    bits = BitTable.of(table)
    assert len(bits.correct) == -(-bits.num_open // (64 * bits.correct.shape[2]))
    assert bits.correct.shape[2] <= words
    check_everything(table)
    weights_M = np.arange(1.0, 6.0)
    for size in sizes(table):
        rows_PS = ranked_rows(bits, size)
        assert bits.weighted_votes(rows_PS, weights_M).tolist() == whole.weighted_votes(rows_PS, weights_M).tolist()
    for one, many in zip(whole.co_errors(), bits.co_errors(), strict=True):
        assert (one == many).all()


def test_blocks_of_usual_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole vectors of 8 words, 512 questions; the second block has one question."""
    monkeypatch.setattr(_bitset, "_MAX_WORDS", 1)
    table = crowd(20, questions=900, agents=4)
    right_N = table.correct.sum(axis=1)
    table = table.rows(np.flatnonzero((right_N > 0) & (right_N < 4))[:513])
    assert BitTable.of(table).correct.shape == (2, 4, 8)
    check_everything(table)


def test_settled_questions_are_counted_alone() -> None:
    """Of five questions all agents get two right and nobody the third; two are left for the planes."""
    table = by_hand([[0, 0, 0], [1, 0, 2], [0, 0, 0], [0, 1, 1], [0, 0, -1]], [0, 3, 0, 0, 0], num_options=[4] * 5)
    bits = BitTable.of(table)
    assert (bits.solved, bits.lost, bits.num_open) == (2, 1, 2)
    assert np.bitwise_count(bits.correct).sum() == 3
    assert bits.co_errors().pairs.tolist() == [[1, 1, 1], [0, 2, 2], [0, 0, 3]]
    assert bits.co_errors().triples[0, 1, 2] == 1
    assert bits.co_errors().triples.sum() == 1
    check_everything(table)


class TestParts:
    @pytest.mark.parametrize("threads", [1, 2, 5])
    @pytest.mark.parametrize("length", [0, 1, 63, 64, 129, 5000, 40_000])
    def test_every_place_is_worked_on_once(self, threads: int, length: int) -> None:
        done_P = np.zeros(length, int)

        def work(part: slice) -> None:
            done_P[part] += 1

        in_parts(work, length, threads)
        assert (done_P == 1).all()

    def test_after_an_interrupt_nobody_takes_another_part(self) -> None:
        taken = []
        both = threading.Barrier(2, timeout=30)

        def work(part: slice) -> None:
            taken.append(part)
            if len(taken) <= 2:
                both.wait()
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            stopped.wait(30)

        stopped = threading.Event()
        threading.Timer(0.2, stopped.set).start()
        with pytest.raises(KeyboardInterrupt):
            in_parts(work, 40_000, 2)
        assert len(taken) == 2

    def test_an_error_of_another_thread_is_raised(self) -> None:
        def work(part: slice) -> None:
            if threading.current_thread() is not threading.main_thread():
                raise MemoryError("in a thread")
            waiting.wait(30)

        waiting = threading.Event()
        threading.Timer(0.2, waiting.set).start()
        with pytest.raises(MemoryError, match="in a thread"):
            in_parts(work, 40_000, 2)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_fork_has_threads_of_its_own(self) -> None:
        code = """
            import os, signal
            from fusion.selectors._score import in_parts

            done = []
            in_parts(done.append, 1000, 2)
            child = os.fork()
            if not child:
                signal.alarm(60)  # Were it to wait for threads that it does not have.
                in_parts(done.append, 1000, 2)
                os._exit(len(done) != 16)
            assert os.waitpid(child, 0)[1] == 0
            """
        subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], check=True, timeout=120)


ANSWERS = st.tuples(st.integers(1, 70), st.integers(2, 5), st.integers(1, 4))


@st.composite
def small_tables(draw: st.DrawFn) -> PredictionTable:
    questions, agents, options = draw(ANSWERS)
    answers_NM = draw(arrays(np.int8, (questions, agents), elements=st.integers(-1, options - 1)))
    labels_N = draw(arrays(np.int8, questions, elements=st.integers(-1, options - 1)))
    return by_hand(answers_NM, labels_N, num_options=[options] * questions)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(small_tables())
def test_any_small_table(table: PredictionTable) -> None:
    check_everything(table)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(small_tables(), st.data())
def test_any_weights(table: PredictionTable, data: st.DataObject) -> None:
    """Whole numbers of which the largest is `LEVELS` are not rounded."""
    weights = data.draw(st.lists(st.integers(0, LEVELS), min_size=table.num_agents, max_size=table.num_agents))
    weights[data.draw(st.integers(0, table.num_agents - 1))] = LEVELS
    check_weighted(table, weights)


def check_weighted(table: PredictionTable, weights: Sequence[int]) -> None:
    """Weighted votes of all sub-ensembles against the plain ones; weights by position in the table."""
    assert max(weights) == LEVELS, "others are scaled"
    bits = BitTable.of(table)
    weights_M = np.array(weights, np.float64)[bits.ranked]
    for size in sizes(table):
        rows_PS = ranked_rows(bits, size)
        expected = expected_votes(table, bits.ranked.tolist(), rows_PS, weights)
        assert bits.weighted_votes(rows_PS, weights_M).tolist() == expected, size


def test_weighted_votes(table: PredictionTable) -> None:
    weights = np.random.default_rng(table.num_agents).integers(0, LEVELS + 1, table.num_agents).tolist()
    weights[0] = LEVELS
    check_weighted(table, weights)


@pytest.mark.parametrize(
    "weights",
    [
        [63, 0, 0, 0, 0, 0],  # Those of weight 0 still settle what nobody else answers.
        [0, 0, 0, 0, 0, 63],
        [63, 63, 63, 63, 63, 63],  # 6 * 63 + 65 is 443: nine bits, and one for the sign.
        [63, 63, 63, 63, 63, 0],
        [63, 1, 1, 1, 1, 1],
        [63, 62, 1, 0, 63, 62],
        [1, 2, 4, 8, 16, 63],
        [31, 32, 63, 31, 32, 1],
    ],
)
@pytest.mark.parametrize("seed", [30, 31])
def test_chosen_weights(weights: list[int], seed: int) -> None:
    check_weighted(crowd(seed, questions=120, options=3, silent=0.3), weights)


@pytest.mark.parametrize("size", range(2, 10))
def test_weights_that_fill_their_bits(size: int) -> None:
    """All against none, in both directions, with the sum of weights just below, at and above a power of two.

    The offset must hold the lead of all weights, plus 1, on either side: with B bits -2^(B-1) to 2^(B-1) - 1.
    """
    for total in {2**power + shift for power in range(6, 10) for shift in (-2, -1, 0, 1)}:
        rest, left = divmod(total - LEVELS, size - 1)
        if rest < 0 or rest + (left > 0) > LEVELS:
            continue
        weights = [LEVELS, *(rest + (place < left) for place in range(size - 1))]
        rows = [[0] * size, [1] * size, [0] + [1] * (size - 1), [1] + [0] * (size - 1), [-1] * size]
        table = by_hand(rows, [0] * len(rows), num_options=[2] * len(rows))
        bits = BitTable.of(table, ranked=np.arange(size))
        expected = expected_votes(table, list(range(size)), ranked_rows(bits, size), weights)
        assert bits.weighted_votes(ranked_rows(bits, size), np.array(weights, float)).tolist() == expected


def test_equal_weights_are_a_plain_vote(table: PredictionTable) -> None:
    bits = BitTable.of(table)
    for size in range(1, table.num_agents + 1):
        rows_PS = ranked_rows(bits, size)
        for weight in (1.0, 0.3):
            weights_M = np.full(table.num_agents, weight)
            assert bits.weighted_votes(rows_PS, weights_M).tolist() == bits.votes(rows_PS).tolist()


def test_weights_are_scaled() -> None:
    """A factor changes nothing: the largest weight becomes `LEVELS`."""
    bits = BitTable.of(crowd(40))
    weights_M = np.array([0.1, 0.9, 0.35, 0.6, 0.2, 0.7])
    rows_PS = ranked_rows(bits, 4)
    for factor in (1e-30, 7.0, 1e200):
        assert (bits.weighted_votes(rows_PS, weights_M * factor) == bits.weighted_votes(rows_PS, weights_M)).all()


@pytest.mark.parametrize("order", ["shuffled", "reversed", "repeated"])
def test_rows_in_any_order(order: str) -> None:
    """What is shared with the row before must never be more than what is equal."""
    table = crowd(60, agents=8)
    bits = BitTable.of(table)
    counts = bits.co_errors()
    weights_M = np.array([0.9, 0.1, 0.5, 0.8, 0.2, 0.4, 0.7, 0.3])
    for size in range(2, 8):
        rows_PS = ranked_rows(bits, size)
        places = {
            "shuffled": np.random.default_rng(size).permutation(len(rows_PS)),
            "reversed": np.arange(len(rows_PS))[::-1],
            "repeated": np.random.default_rng(size).integers(0, len(rows_PS), 3 * len(rows_PS)),
        }[order]
        assert (bits.votes(rows_PS[places]) == bits.votes(rows_PS)[places]).all()
        assert (bits.hits(rows_PS[places]) == bits.hits(rows_PS)[places]).all()
        moved, kept = bits.weighted_votes(rows_PS[places], weights_M), bits.weighted_votes(rows_PS, weights_M)
        assert (moved == kept[places]).all()
        assert (focal_diversities(counts, rows_PS[places]) == focal_diversities(counts, rows_PS)[places]).all()


@pytest.mark.slow
def test_rows_of_another_type_and_layout() -> None:
    """Kernels are compiled anew for these."""
    bits = BitTable.of(crowd(61))
    rows_PS = ranked_rows(bits, 3)
    strided_PS = np.repeat(rows_PS, 2, axis=1).astype(np.int64)[:, ::2]
    assert (bits.votes(strided_PS) == bits.votes(rows_PS)).all()
    assert (bits.hits(strided_PS) == bits.hits(rows_PS)).all()


def test_no_rows() -> None:
    bits = BitTable.of(crowd(62))
    for size in (1, 2, 4):
        none_PS = np.empty((0, size), np.int16)
        assert bits.votes(none_PS).shape == (0,)
        assert bits.hits(none_PS).shape == (0, size)
        assert bits.weighted_votes(none_PS, np.ones(6)).shape == (0,)
    assert focal_diversities(bits.co_errors(), np.empty((0, 2), np.int16)).shape == (0,)


def test_ties_follow_the_ranking_that_is_given() -> None:
    """Agents that rank by what they did elsewhere."""
    table = crowd(63, agents=5, options=9, herd=0.2)
    for ranked in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        bits = BitTable.of(table, ranked=np.array(ranked))
        for size in sizes(table):
            rows_PS = ranked_rows(bits, size)
            assert bits.votes(rows_PS).tolist() == expected_votes(table, ranked, rows_PS)
            weights = [3, 63, 20, 40, 63]
            weights_M = np.array(weights, float)[ranked]
            assert bits.weighted_votes(rows_PS, weights_M).tolist() == expected_votes(table, ranked, rows_PS, weights)


def test_equal_agents_rank_in_the_order_of_the_table() -> None:
    table = by_hand([[0, 1], [1, 0]], [0, 0])
    bits = BitTable.of(table)
    assert bits.ranked.tolist() == [0, 1]
    assert bits.votes(ranked_rows(bits, 2)).tolist() == [1], "a is followed in both ties"


def test_rank() -> None:
    bits = BitTable.of(crowd(64, agents=5), ranked=np.array([3, 0, 4, 1, 2]))
    assert bits.rank(np.array([[3, 0], [2, 3], [1, 4]])).tolist() == [[0, 1], [0, 4], [2, 3]]
    assert plain.rank_rows([(3, 0), (2, 3), (1, 4)], [3, 0, 4, 1, 2]) == [(0, 1), (0, 4), (2, 3)]


def test_one_agent() -> None:
    bits = BitTable.of(crowd(65, agents=1))
    assert bits.agree.shape[1] == 0
    right = int(crowd(65, agents=1).correct.sum())
    assert bits.votes(ranked_rows(bits, 1)).tolist() == [right]
    assert bits.hits(ranked_rows(bits, 1)).tolist() == [[right]]
    assert bits.co_errors().pairs.tolist() == [[150 - right]]


def test_co_errors(table: PredictionTable) -> None:
    bits = BitTable.of(table)
    pairs_MM, triples_MMM = bits.co_errors()
    failed_NM = ~table.correct[:, bits.ranked]
    for i, j in itertools.combinations_with_replacement(range(table.num_agents), 2):
        assert pairs_MM[i, j] == (failed_NM[:, i] & failed_NM[:, j]).sum()
    for i, j, k in itertools.combinations(range(table.num_agents), 3):
        assert triples_MMM[i, j, k] == failed_NM[:, [i, j, k]].all(axis=1).sum()


def test_pair_means() -> None:
    """Only the part above the diagonal is read, whatever its layout."""
    values_MM = np.random.default_rng(1).random((7, 7))
    for size in (2, 3, 7):
        rows_PS = np.array(list(itertools.combinations(range(7), size)), np.int16)
        expected = [np.mean([values_MM[i, j] for i, j in itertools.combinations(row, 2)]) for row in rows_PS.tolist()]
        for values in (values_MM, np.asfortranarray(values_MM), np.triu(values_MM)):
            np.testing.assert_allclose(pair_means(values, rows_PS), expected, rtol=0, atol=ROUNDING)
    whole_MM = np.arange(49).reshape(7, 7)
    assert pair_means(whole_MM, np.array([[2, 5]], np.int16)).tolist() == [whole_MM[2, 5]]


@pytest.mark.parametrize(("agents", "size"), [(1, 1), (2, 1), (2, 2), (7, 3), (7, 6), (9, 4)])
def test_combinations(agents: int, size: int) -> None:
    everything = list(itertools.combinations(range(agents), size))
    for start in {0, 1, len(everything) // 2, len(everything) - 1} & set(range(len(everything))):
        rows_PS = np.empty((len(everything) - start, size), np.int16)
        _kernels.combinations(np.array(everything[start]), agents, rows_PS)
        assert list(map(tuple, rows_PS.tolist())) == everything[start:]


def test_pairs_stand_in_lexicographic_order() -> None:
    pairs = list(itertools.combinations(range(9), 2))
    assert [_kernels.pair_of(i, j, 9) for i, j in pairs] == list(range(len(pairs)))


def test_warm_up() -> None:
    """The kernels that the default objective needs are compiled for the types that searching gives them."""
    code = """
        import numpy as np
        from tables import random_table
        from fusion.selectors import Objective, Scorer, Space, _kernels, _vote_kernel, search, warm_up
        kernels = (_vote_kernel.vote_block, _kernels.focal, _kernels.co_error_block, _kernels.combinations)
        warm_up()
        before = [len(kernel.signatures) for kernel in kernels]
        scorer = Scorer.of(random_table(0), Objective({"focal": 0.5, "accuracy": 0.5}))
        for include in ((), (1,)):
            free = tuple(rank for rank in range(4) if rank not in include)
            search(scorer, Space(num_agents=4, sizes=(2, 3), include=include, free=free))
        print(before, [len(kernel.signatures) for kernel in kernels])
    """
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert run.stdout == "[1, 1, 1, 1] [1, 1, 1, 1]\n", run.stdout + run.stderr


def test_memory() -> None:
    bits = BitTable.of(crowd(66, questions=1000, agents=6))
    assert bits.nbytes == bits.correct.nbytes + bits.wrong.nbytes + bits.agree.nbytes
    assert bits.nbytes == (6 + 6 + 15) * 16 * 8, "1000 questions are 16 words"


def test_tables_that_cannot_be_scored() -> None:
    with pytest.raises(InvalidTable, match="the table is empty"):
        BitTable.of(by_hand(np.empty((0, 2), int), []))
    with pytest.raises(InvalidTable, match="labels"):
        BitTable.of(by_hand([[0, 1]]))
    many = MAX_AGENTS + 1
    wide = by_hand(np.zeros((1, many), int), [0], agents=[f"agent {m}" for m in range(many)])
    with pytest.raises(UsageError, match=f"at most {MAX_AGENTS} agents, got {many}"):
        BitTable.of(wide)


@pytest.mark.parametrize("agents", [100, MAX_AGENTS])
def test_many_agents(agents: int) -> None:
    """Positions of pairs leave int16 behind."""
    rng = np.random.default_rng(agents)
    answers_NM = rng.integers(-1, 3, (70, agents))
    table = by_hand(answers_NM, rng.integers(0, 3, 70), agents=[f"agent {m}" for m in range(agents)])
    bits = BitTable.of(table)
    ranked = plain.ranking(table)
    for size in (2, 3, 6, 12):
        rows_PS = np.sort(rng.permuted(np.tile(np.arange(agents), (20, 1)), axis=1)[:, :size], axis=1).astype(np.int16)
        rows_PS[0, -2:] = agents - 2, agents - 1
        assert bits.votes(rows_PS).tolist() == expected_votes(table, ranked, rows_PS)
        corrects = [plain.correct(table, [ranked[r] for r in row]) for row in rows_PS.tolist()]
        found_P = focal_diversities(bits.co_errors(), rows_PS)
        np.testing.assert_allclose(found_P, [plain.focal_diversity(correct) for correct in corrects], atol=ROUNDING)


@pytest.fixture(scope="module")
def recorded(recorded_data: Path) -> PredictionTable:
    """24 models on 8,386 questions."""
    return read_table(recorded_data / "mmlu_pro" / "predictions.csv.gz")


@pytest.fixture(scope="module")
def members() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.permutation(24)[:size].tolist() for size in range(1, 10) for _ in range(5)]


def test_recorded_plurality(recorded: PredictionTable, members: list[list[int]]) -> None:
    """As the fuser decides that ranks agents by the same table."""
    bits = BitTable.of(recorded)
    labels_N = recorded.require_labels()
    for row in members:
        selector = FixedSubset(agents=tuple(recorded.agents[m] for m in row))
        decision = Ensemble(recorded.agents, selector, "vote").fit(recorded).replay(recorded).decision
        right = int((decision.answers == labels_N).sum())
        assert bits.votes(bits.rank(np.array([row]))).tolist() == [right], row


def test_recorded_weighted(recorded: PredictionTable, members: list[list[int]]) -> None:
    """Fewer powers than the fuser tries, and weights in 64 steps: 0.54 points apart at most, 0.02 on the average."""
    scorer = Scorer.of(recorded, Objective({"weighted_accuracy": 1}), threads=1)
    labels_N = recorded.require_labels()
    differences = []
    for row in members[5::3]:
        mask_NM = np.zeros(recorded.answers.shape, dtype=bool)
        mask_NM[:, row] = True
        fuser = WeightedVote(weights="power").fit(recorded, Selection(mask_NM))
        right = int((fuser.fuse(recorded, Selection(mask_NM)).answers == labels_N).sum())
        (found,) = scorer.measure("weighted_accuracy", scorer.bits.rank(np.array([row]))).tolist()
        differences.append(found - right / len(recorded))
    assert max(map(abs, differences)) < 0.007, differences
    assert abs(math.fsum(differences) / len(differences)) < 0.001


def test_recorded_many_at_once(recorded: PredictionTable) -> None:
    """Thousands of rows that share their first members, against each on its own."""
    bits = BitTable.of(recorded)
    rows_PS = ranked_rows(bits, 4)
    votes_P = bits.votes(rows_PS)
    for p in range(0, len(rows_PS), 331):
        assert bits.votes(rows_PS[p : p + 1]).tolist() == [votes_P[p]]


@pytest.mark.parametrize("size", [0, 100])
def test_kept_kernels_that_are_damaged(size: int, tmp_path: Path) -> None:
    """They are compiled again, for this process alone, and a warning names the trouble."""
    code = """
        from tables import random_table
        from fusion.selectors import BitTable, warm_up
        warm_up()
        print(BitTable.of(random_table(0)).votes(__import__("numpy").array([[0, 1]])).tolist())
    """
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(tmp_path)}

    def run() -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", textwrap.dedent(code)]
        return subprocess.run(words, capture_output=True, text=True, check=True, env=env)

    whole = run()
    damaged = [path for path in tmp_path.rglob("*") if path.suffix == (".nbi" if size == 0 else ".nbc")]
    assert len(damaged) >= 4
    for path in damaged:
        os.truncate(path, size)
    again = run()
    assert again.stdout == whole.stdout
    assert "compiled kernels cannot be kept in or read from" in again.stderr
