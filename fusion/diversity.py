"""Diversity measures: how differently the members of a sub-ensemble fail, or answer.

Pure functions of `correct_NM` (bool, True where right; abstaining is wrong) or `answers_NM` (int, index of
an option, -1 where abstained). The columns are the sub-ensemble, M of them; the rows the N questions.
`MEASURES` lists them all. For members i and j, as counts of questions:

    right_i, wrong_i    right_i + wrong_i = N
    N11  both right     N10  only i right     N01  only j right     N00  both wrong
    k_n                 how many of the members are wrong on question n

All are computed from integer counts, so the order of members or questions does not change a bit. Alike everywhere:

* Fewer than two members: UsageError, as diversity is between members. No question, or another type: InvalidTable.
* A pairwise measure is the mean over the M (M - 1) / 2 pairs of a matrix [M, M] (`Measure.matrix`). A search
  computes the matrix of the whole pool once, and takes the mean over each sub-ensemble's entries.
* Where Q, correlation or a kappa is 0/0, a member never varies (is always right, always wrong, or always gives
  one answer). It is then statistically independent of every other, and the value of independence, 0, is used:
  also between two such members that are alike, as always agreeing is then no more than chance.

Sources: Kuncheva and Whitaker 2003, Machine Learning 51, 181-207; LLM-TOPLA, Tekin et al. 2024, arXiv 2410.03953;
MARL-Focal, Tekin et al. 2025, arXiv 2502.04492; and those named below, in full in docs/diversity.md.

Example:
    >>> import numpy as np
    >>> correct_NM = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [0, 0, 1]], dtype=bool)
    >>> round(focal_diversity(correct_NM), 4), focal_diversities(correct_NM).round(4).tolist()
    (0.7778, [0.6667, 0.6667, 1.0])
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from fusion.errors import InvalidTable, UsageError
from fusion.schema import BoolArray, FloatArray, IntArray

_Table = npt.NDArray[Any]
_own = functools.partial(np.diagonal, axis1=-2, axis2=-1)
# A float32 counts exactly up to 2^24, so a product of 0/1 matrices this long is exact in it.
_CHUNK = 1 << 16


class Measure(NamedTuple):
    """One diversity measure, for lists and searches.

    Args:
        name: Its key in `MEASURES` and the name of its function.
        function: From correct_NM or answers_NM to its value.
        on: What it is computed from.
        higher_is_more_diverse: Its direction.
        range: The smallest and the largest value it can have.
        source: Where it comes from, in one line.
        matrix: From correct_NM or answers_NM to float64 [M, M], M >= 1, where the measure is its mean over pairs.
    """

    name: str
    function: Callable[[_Table], float]
    on: Literal["correct", "answers"]
    higher_is_more_diverse: bool
    range: tuple[float, float]
    source: str
    matrix: Callable[[_Table], FloatArray] | None = None


class PairCounts(NamedTuple):
    """For every two members, how many questions only one, both or none of them gets right: int64 [M, M] each.

    The four add up to N. `only_row`: the member of the row is right and that of the column wrong; `only_column`:
    its transpose. On the diagonals stand a member's own right and wrong answers.
    """

    both_right: IntArray
    only_row: IntArray
    only_column: IntArray
    both_wrong: IntArray

    @classmethod
    def from_failures(cls, failures: IntArray, *, num_questions: int) -> Self:
        """Return the counts that follow from joint failures.

        Args:
            failures: int64 [..., M, M], on how many questions both fail; on the diagonal, each one's failures.
            num_questions: N.
        """
        wrong_M = _own(failures)
        only_row_MM = wrong_M[..., None, :] - failures
        both_right_MM = num_questions - wrong_M[..., :, None] - only_row_MM
        return cls(both_right_MM, only_row_MM, only_row_MM.swapaxes(-1, -2), failures)


class AnswerCounts(NamedTuple):
    """What the kappas on answers need to know of the answers.

    Args:
        agreements: int64 [M, M], on how many questions two members say the same; abstaining both is the same.
        marginals: int64 [M, 1 + K], how often each member abstains (column 0) and chooses option k (column 1 + k).
        num_questions: N.
    """

    agreements: IntArray
    marginals: IntArray
    num_questions: int

    def of(self, members: Sequence[int] | IntArray) -> Self:
        """Return the counts of the sub-ensemble at positions `members`."""
        index = np.asarray(members, dtype=np.intp)
        return self._replace(agreements=self.agreements[np.ix_(index, index)], marginals=self.marginals[index])


def pair_counts(correct_NM: BoolArray) -> PairCounts:
    """Count for every two members who is right where the other is; exact."""
    _check_correct(correct_NM)
    num_questions, num_members = correct_NM.shape
    failures_MM = np.zeros((num_members, num_members), dtype=np.int64)
    for start in range(0, num_questions, _CHUNK):
        wrong_BM = (~correct_NM[start : start + _CHUNK]).astype(np.float32)
        failures_MM += (wrong_BM.T @ wrong_BM).astype(np.int64)
    return PairCounts.from_failures(failures_MM, num_questions=num_questions)


def answer_counts(answers_NM: IntArray) -> AnswerCounts:
    """Count for every two members how often they say the same, and for each how often it says what; exact."""
    _check_answers(answers_NM)
    num_questions, num_members = answers_NM.shape
    answers_MN = np.ascontiguousarray(answers_NM.T)
    agreements_MM = np.empty((num_members, num_members), dtype=np.int64)
    for i in range(num_members):
        agreements_MM[i, i:] = agreements_MM[i:, i] = (answers_MN[i] == answers_MN[i:]).sum(axis=1)
    num_kinds = int(answers_NM.max()) + 2
    # Shifted by one for the abstentions, in a type that the largest answer plus one still fits.
    counted = [np.bincount(answers_N.astype(np.intp) + 1, minlength=num_kinds) for answers_N in answers_MN]
    return AnswerCounts(agreements_MM, np.array(counted, dtype=np.int64), num_questions)


def mean_over_pairs(matrix: FloatArray) -> float:
    """Return the mean of the entries above the diagonal of a symmetric [M, M], M >= 2, whatever their order."""
    num_members = len(matrix)
    _require(num_members)
    entries = matrix[np.triu_indices(num_members, 1)].tolist()
    return math.fsum(entries) / len(entries)


def q_matrix(counts: PairCounts) -> FloatArray:
    """Return Yule's Q of every two members, float64 [M, M]; see `q_statistic`."""
    same_MM = counts.both_right * counts.both_wrong
    different_MM = counts.only_row * counts.only_column
    return _ratio(same_MM - different_MM, same_MM + different_MM)


def correlation_matrix(counts: PairCounts) -> FloatArray:
    """Return the correlation of every two members, float64 [M, M]; see `correlation`."""
    variance_M = (_own(counts.both_right) * _own(counts.both_wrong)).astype(np.float64)
    # One root of the product, not a product of roots: a member's correlation with its copy is then exactly 1.
    return _ratio(_covariance(counts), np.sqrt(variance_M[..., :, None] * variance_M[..., None, :]))


def disagreement_matrix(counts: PairCounts) -> FloatArray:
    """Return on which share of the questions one of two members is right, float64 [M, M]."""
    return (counts.only_row + counts.only_column) / sum(counts)


def double_fault_matrix(counts: PairCounts) -> FloatArray:
    """Return on which share of the questions two members are wrong, float64 [M, M]; diagonal: error rates."""
    return counts.both_wrong / sum(counts)


def kappa_matrix(counts: PairCounts) -> FloatArray:
    """Return Cohen's kappa of the correctness of every two members, float64 [M, M]; see `kappa`."""
    right_M, wrong_M = _own(counts.both_right), _own(counts.both_wrong)
    crossed_MM = right_M[..., :, None] * wrong_M[..., None, :]
    return _ratio(2 * _covariance(counts), crossed_MM + crossed_MM.swapaxes(-1, -2))


def answer_kappa_matrix(counts: AnswerCounts) -> FloatArray:
    """Return Cohen's kappa of the answers of every two members, float64 [M, M]; see `answer_kappa`."""
    chance_MM = counts.marginals @ counts.marginals.T
    return _ratio(counts.num_questions * counts.agreements - chance_MM, counts.num_questions**2 - chance_MM)


def focal_diversities(correct_NM: BoolArray) -> FloatArray:
    """How rarely the others fail where one member fails, for each member: float64 [M] (LLM-TOPLA).

    With p_k the share of member i's failures on which k members fail (i among them):

        rho_i = 1 - P2 / P1,  P1 = sum_k (k / M) p_k,  P2 = sum_k k (k - 1) / (M (M - 1)) p_k

    computed as sum_n k_n (M - k_n) / ((M - 1) sum_n k_n) over member i's failures n, which is the same.
    Range [0, 1], higher is more diverse: 1 where nobody ever fails with i, 0 where all the others always do.
    A member that never fails has rho_i = 1, the authors' convention.
    """
    _check_correct(correct_NM, least=2)
    num_members = correct_NM.shape[1]
    wrong_MN = ~correct_NM.T
    failing_N = wrong_MN.sum(axis=0)
    return np.array([_generalized(failing_N[wrong_N], num_members) for wrong_N in wrong_MN])


def focal_diversity(correct_NM: BoolArray) -> float:
    """Mean over the members of `focal_diversities` (LLM-TOPLA).

    d_focal = 1/M sum_i rho_i. Range [0, 1], higher is more diverse. Members that always fail together have 0;
    where nobody ever fails it is 1.
    """
    rho_M = focal_diversities(correct_NM)
    return math.fsum(rho_M.tolist()) / len(rho_M)


def generalized_diversity(correct_NM: BoolArray) -> float:
    """How rarely two random members fail together, given that one does (Partridge and Krzanowski 1997).

    GD = 1 - P2 / P1 as in `focal_diversities`, over all questions instead of one member's failures: P1 is the
    probability that a random member fails on a random question, P2 that two different ones do, so
    GD = 1 - double_fault / (mean error rate). Range [0, 1], higher is more diverse. 1 where nobody ever fails
    (0/0, by the convention for rho), 0 where members only fail all together.
    """
    _check_correct(correct_NM, least=2)
    num_members = correct_NM.shape[1]
    return _generalized(num_members - correct_NM.sum(axis=1), num_members)


def q_statistic(correct_NM: BoolArray) -> float:
    """Yule's Q, mean over pairs (Yule 1900; Kuncheva and Whitaker 2003).

    Q_ij = (N11 N00 - N01 N10) / (N11 N00 + N01 N10). Range [-1, 1], lower is more diverse: positive where members
    tend to be right on the same questions. 0 for a pair with a member that is always right or always wrong
    (0/0). One empty cell among four is enough for +1 or -1, so few questions give extreme values.
    """
    return mean_over_pairs(q_matrix(pair_counts(correct_NM)))


def correlation(correct_NM: BoolArray) -> float:
    """Correlation (phi) of correctness, mean over pairs (Kuncheva and Whitaker 2003).

    rho_ij = (N11 N00 - N01 N10) / sqrt(right_i wrong_i right_j wrong_j). Range [-1, 1], lower is more diverse.
    0 for a pair with a member that is always right or always wrong (0/0). Has the sign of Q, and |rho| <= |Q|.
    """
    return mean_over_pairs(correlation_matrix(pair_counts(correct_NM)))


def disagreement(correct_NM: BoolArray) -> float:
    """Share of questions on which exactly one of two is right, mean over pairs (Skalak 1996; Ho 1998).

    Dis_ij = (N10 + N01) / N. Range [0, 1], higher is more diverse; always defined. 0 where all are right or
    wrong together, also where nobody ever fails.
    """
    return mean_over_pairs(disagreement_matrix(pair_counts(correct_NM)))


def double_fault(correct_NM: BoolArray) -> float:
    """Share of questions on which both are wrong, mean over pairs (Giacinto and Roli 2001).

    DF_ij = N00 / N. Range [0, 1], lower is more diverse; always defined. Accurate members have a small one
    without failing differently.
    """
    return mean_over_pairs(double_fault_matrix(pair_counts(correct_NM)))


def kappa(correct_NM: BoolArray) -> float:
    """Cohen's kappa of correctness, mean over pairs (Cohen 1960).

    kappa_ij = 2 (N11 N00 - N01 N10) / (right_i wrong_j + wrong_i right_j): by how much being right or wrong together
    exceeds chance. Range [-1, 1], lower is more diverse. 0 for a pair with a member that is always right or
    always wrong. The public MARL-Focal code divides by right_i wrong_i + right_j wrong_j, which is Cohen's
    kappa only for members of equal accuracy. Kuncheva and Whitaker's interrater agreement is
    `fleiss_kappa(correct_NM.astype(np.int8))`.
    """
    return mean_over_pairs(kappa_matrix(pair_counts(correct_NM)))


def entropy(correct_NM: BoolArray) -> float:
    """Kuncheva and Whitaker's E: how evenly the members split into right and wrong.

    E = 1/N sum_n min(k_n, M - k_n) / (M - ceil(M / 2)). Range [0, 1], higher is more diverse: 0 where all are
    always right or wrong together, 1 where they always split as evenly as M lets them. Always defined. Despite its name
    there is no logarithm in it; `binary_entropy` is another thing.
    """
    _check_correct(correct_NM, least=2)
    num_members: int = correct_NM.shape[1]
    right_N = correct_NM.sum(axis=1)
    return int(np.minimum(right_N, num_members - right_N).sum()) / (len(right_N) * (num_members // 2))


def binary_entropy(correct_NM: BoolArray) -> float:
    """Shannon entropy, in bits, of all correctness values pooled (as in the public code of MARL-Focal).

    H = -p log2 p - (1 - p) log2 (1 - p), p the share of right answers over all members and questions. Range [0, 1].
    Counted as higher is more diverse, as the authors do, but it depends on the mean accuracy of the members
    alone: copies of one member have the entropy of that member. 0 where all are always right or always wrong.
    """
    _check_correct(correct_NM, least=2)
    right = int(correct_NM.sum())
    shares = (right / correct_NM.size, (correct_NM.size - right) / correct_NM.size)
    return math.fsum(-share * math.log2(share) for share in shares if share > 0)


def answer_kappa(answers_NM: IntArray) -> float:
    """Cohen's kappa of the answers, mean over pairs (Cohen 1960; for ensembles Margineantu and Dietterich 1997).

    kappa_ij = (o_ij - e_ij) / (1 - e_ij), o_ij the share of questions on which i and j say the same,
    e_ij = sum_c p_ic p_jc with p_ic the share on which i says c. Range [-1, 1], lower is more diverse.
    Abstaining is an answer like any other: two that abstain together agree, and no question is left out. 0 for
    a pair in which one always says the same (always abstaining included; 0/0 where both do). Needs no labels.
    """
    return mean_over_pairs(answer_kappa_matrix(answer_counts(answers_NM)))


def fleiss_kappa(answers_NM: IntArray) -> float:
    """Fleiss' kappa of the answers of all members together (Fleiss 1971).

    kappa = (o - e) / (1 - e), o = mean over pairs of o_ij as in `answer_kappa`, e = sum_c p_c^2 with p_c the share
    of category c among all N M answers. Range [-1 / (M - 1), 1], lower is more diverse; for M = 2 it is
    Scott's pi, not Cohen's kappa. Abstaining is a category of its own: the formula wants the same number of
    raters on every question, and leaving abstentions out would change it from question to question.
    0 where all members always say the same one thing (0/0), all abstaining included. Needs no labels.
    """
    return fleiss_from_counts(answer_counts(answers_NM))


def fleiss_from_counts(counts: AnswerCounts) -> float:
    """Return `fleiss_kappa` of the members that `counts` are of; `counts.of(members)` for a sub-ensemble."""
    num_members = len(counts.agreements)
    _require(num_members)
    total = counts.num_questions * num_members
    num_pairs = num_members * (num_members - 1) // 2
    same = int(np.triu(counts.agreements, 1).sum())
    chance = sum(int(count) ** 2 for count in counts.marginals.sum(axis=0))
    # Python integers: N^2 M^4 leaves int64 behind, and the value is rounded once.
    above, most = same * total * num_members - chance * num_pairs, (total * total - chance) * num_pairs
    return above / most if most else 0.0


def _generalized(failing: IntArray, num_members: int) -> float:
    """Return 1 - P2 / P1 over questions on which `failing` members fail, and 1 where none fails on any."""
    most = (num_members - 1) * int(failing.sum())
    return int((failing * (num_members - failing)).sum()) / most if most else 1.0


def _covariance(counts: PairCounts) -> IntArray:
    """Return N11 N00 - N01 N10, N^2 times the covariance of correctness."""
    return counts.both_right * counts.both_wrong - counts.only_row * counts.only_column


def _ratio(above: _Table, below: _Table) -> FloatArray:
    """Return above / below, and 0 for 0/0: independence."""
    ratio: FloatArray = np.divide(above, below, out=np.zeros(above.shape), where=below != 0)
    return ratio


def _check_correct(correct_NM: BoolArray, *, least: int = 1) -> None:
    expected = "a boolean array [questions, members], as PredictionTable.correct is"
    _check(correct_NM, valid=correct_NM.dtype == np.bool_, expected=expected, least=least)


def _check_answers(answers_NM: IntArray) -> None:
    expected = "an integer array [questions, members] with -1 for abstained, as PredictionTable.answers is"
    _check(answers_NM, valid=np.issubdtype(answers_NM.dtype, np.integer), expected=expected, least=1)
    if answers_NM.min() < -1:
        raise InvalidTable(f"diversity needs {expected}, got {answers_NM.min()} among the answers")


def _check(table_NM: _Table, *, valid: bool, expected: str, least: int) -> None:
    if table_NM.ndim != 2 or not valid:
        raise InvalidTable(f"diversity needs {expected}; got {table_NM.dtype} {list(table_NM.shape)}")
    if len(table_NM) == 0:
        raise InvalidTable("the diversity on no questions is undefined; the table is empty")
    _require(table_NM.shape[1], least)


def _require(num_members: int, least: int = 2) -> None:
    if num_members < least:
        raise UsageError(f"diversity is between members and undefined for {num_members}; pass {least} columns or more")


def _on_pairs(matrix: Callable[[PairCounts], FloatArray]) -> Callable[[_Table], FloatArray]:
    return lambda correct_NM: matrix(pair_counts(correct_NM))


def _between_answers(answers_NM: IntArray) -> FloatArray:
    return answer_kappa_matrix(answer_counts(answers_NM))


_KW = "Kuncheva and Whitaker 2003"
_MEASURES = (
    Measure("focal_diversity", focal_diversity, "correct", True, (0, 1), "LLM-TOPLA, arXiv 2410.03953"),
    Measure("generalized_diversity", generalized_diversity, "correct", True, (0, 1), "Partridge and Krzanowski 1997"),
    Measure("q_statistic", q_statistic, "correct", False, (-1, 1), "Yule 1900", _on_pairs(q_matrix)),
    Measure("correlation", correlation, "correct", False, (-1, 1), _KW, _on_pairs(correlation_matrix)),
    Measure("disagreement", disagreement, "correct", True, (0, 1), _KW, _on_pairs(disagreement_matrix)),
    Measure("double_fault", double_fault, "correct", False, (0, 1), _KW, _on_pairs(double_fault_matrix)),
    Measure("kappa", kappa, "correct", False, (-1, 1), "Cohen 1960", _on_pairs(kappa_matrix)),
    Measure("entropy", entropy, "correct", True, (0, 1), f"E of {_KW}"),
    Measure("binary_entropy", binary_entropy, "correct", True, (0, 1), "public code of MARL-Focal, arXiv 2502.04492"),
    Measure("answer_kappa", answer_kappa, "answers", False, (-1, 1), "Cohen 1960", _between_answers),
    Measure("fleiss_kappa", fleiss_kappa, "answers", False, (-1, 1), "Fleiss 1971"),
)
MEASURES: Mapping[str, Measure] = {measure.name: measure for measure in _MEASURES}
