"""Confusion models: how often each agent gives each answer, and what its answers then say about the right one.

Both models take agents to err independently of each other once the right option is known. Learning takes how likely
every option of every question is to be right: certain where there are labels, a guess that is bettered round by round
where there are none.

    q_nk   probability that option k of question n is right
    n_k    how many agents chose k on a question, n of them in all
    s      smoothing: imagined answers in each cell

One coin (`OneCoin`): agent m is right with probability p_m, and where it is wrong all wrong options are equally likely.
Closed questions have K_n - 1 of these, whether an agent names them or not:

    P(votes, k) = 1 / K_n prod_{m says k} p_m prod_{m does not} (1 - p_m) / (K_n - 1)

Open questions have no number of options. There wrong answers coincide as in the Chinese restaurant process (Ewens 1972;
Pitman 1995) of concentration t: two of them with probability 1 / (1 + t), as if there were 1 + t wrong options. Right
is one of the answers given, or none of them:

    P(votes, k) = prod_{m says k} p_m prod_{m does not} (1 - p_m) C(the other answers)
    C = t ** d prod_j (n_j - 1)! / (t (t + 1) ... (t + n - 1))        for n wrong answers, d of them distinct

Full (`Full`): agent m says l with probability c_m[k, l] where k is right, and k is right with probability prior_k.
Options of fit that a question lacks are left out of it, which takes nearly the same factor from all that it has.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np

from fusion.data import PredictionTable
from fusion.fusers._votes import Tally, leading, not_fitted, ranking, settle, shares
from fusion.schema import BoolArray, Decision, FloatArray, IntArray, Selection

# Log-probabilities closer than this, relative to their size, differ by rounding alone.
_TIE = 1e-9
# Bounds and steps of the search for the concentration, in its logarithm.
_LOG_LOW, _LOG_HIGH, _HALVINGS = -20.0, 20.0, 60


@dataclass(frozen=True, kw_only=True)
class Votes:
    """The answers that are listened to.

    Args:
        answers: int [N, M], -1 where an agent is not heard.
        num_options: int [N].
        row: int [V], question of each of V votes.
        voter: int [V], who cast it.
        cell: int [V], n K + k.
        counts: int [N, K], votes for each option.
    """

    answers: IntArray
    num_options: IntArray
    row: IntArray
    voter: IntArray
    cell: IntArray
    counts: IntArray

    @classmethod
    def of(cls, table: PredictionTable, mask_NM: BoolArray) -> Self:
        """Return the answers of the agents in `mask_NM`."""
        return cls._of(np.where(mask_NM, table.answers, -1), table.num_options, table.max_options)

    def rows(self, kept_N: BoolArray) -> Self:
        """Return the votes on some of the questions."""
        return self._of(self.answers[kept_N], self.num_options[kept_N], self.size)

    @classmethod
    def _of(cls, answers_NM: IntArray, num_options_N: IntArray, size: int) -> Self:
        row, voter = np.nonzero(answers_NM >= 0)
        cell = row * size + answers_NM[row, voter]
        counts_NK = np.bincount(cell, minlength=len(answers_NM) * size).reshape(-1, size)
        return cls(answers=answers_NM, num_options=num_options_N, row=row, voter=voter, cell=cell, counts=counts_NK)

    @property
    def size(self) -> int:
        """K."""
        return int(self.counts.shape[1])

    @property
    def num_agents(self) -> int:
        """M."""
        return int(self.answers.shape[1])

    def sums(self, values_V: FloatArray) -> FloatArray:
        """Return float64 [N, K], the sum over the votes for each option of a value."""
        sums_C = np.bincount(self.cell, weights=values_V, minlength=self.counts.size).astype(np.float64)
        return sums_C.reshape(self.counts.shape)

    def cast(self, values_V: FloatArray | None = None) -> FloatArray:
        """Return float64 [M], the sum over each agent's votes of a value; without one, their number."""
        return np.bincount(self.voter, weights=values_V, minlength=self.num_agents).astype(np.float64)


class Inferred(NamedTuple):
    """What the votes say.

    Attributes:
        scores: float64 [N, K], log P(votes, k) less a term of the question; -inf for an option left out.
        posterior: float64 [N, K], probability that k is right; 0 for an option left out.
        log_likelihood: Of all votes.
    """

    scores: FloatArray
    posterior: FloatArray
    log_likelihood: float


class Model(Protocol):
    """What was learned about the agents."""

    @property
    def log_prior(self) -> float:
        """Log-probability of the imagined answers; what learning maximises is the likelihood plus this."""
        ...

    @property
    def probabilities(self) -> FloatArray:
        """All that was learned, as numbers in [0, 1]."""
        ...

    def infer(self, votes: Votes) -> Inferred:
        """Return what votes say about the right options."""
        ...


@dataclass(frozen=True, kw_only=True)
class OneCoin:
    """Agents that are right with a probability of their own.

    Args:
        competence: float64 [M], p_m in (0, 1).
        concentration: t, above 0; 0 where questions are closed.
        log_prior: See `Model`.
    """

    competence: FloatArray
    concentration: float = 0.0
    log_prior: float = 0.0

    @classmethod
    def learn(cls, votes: Votes, posterior_NK: FloatArray, *, smoothing: float, is_open: bool) -> Self:
        """Return the likeliest model, with s right and s (K - 1) wrong answers imagined for every agent.

        For the concentration s pairs of wrong answers that agree and s that do not are imagined.
        """
        size = max(votes.size, 2)
        right_M, cast_M = votes.cast(posterior_NK.ravel()[votes.cell]), votes.cast()
        p_M = (right_M + smoothing) / (cast_M + smoothing * size)
        log_prior = float(smoothing * (np.log(p_M) + (size - 1) * np.log1p(-p_M)).sum())
        if not is_open:
            return cls(competence=p_M, log_prior=log_prior)
        t = _concentration(votes, posterior_NK, smoothing)
        return cls(
            competence=p_M,
            concentration=t,
            log_prior=log_prior + float(smoothing * (np.log(t) - 2 * np.log1p(t))),
        )

    @property
    def probabilities(self) -> FloatArray:
        """The competences, and how often two wrong answers agree."""
        return np.append(self.competence, 1 / (1 + self.concentration))

    def infer(self, votes: Votes) -> Inferred:
        """Return what votes say; options that nobody chose have the score 0, and are left out."""
        wrong_M = np.log1p(-self.competence)
        scores_NK = votes.sums((np.log(self.competence) - wrong_M)[votes.voter])
        base_N = np.bincount(votes.row, weights=wrong_M[votes.voter], minlength=len(votes.counts)).astype(np.float64)
        named_NK = votes.counts > 0
        if self.concentration:
            extra_NK, extra_N = _coincidence(votes.counts, self.concentration)
            unnamed_N = np.ones(len(base_N))
        else:
            num_options_N = votes.num_options.astype(np.float64)
            # One option leaves nothing to decide; two is the least for which the term is defined.
            log_wrong_N = np.log(np.maximum(num_options_N, 2) - 1)
            extra_NK = votes.counts * log_wrong_N[:, None]
            extra_N = -extra_NK.sum(axis=1) - np.log(num_options_N)
            unnamed_N = num_options_N - named_NK.sum(axis=1)
        return _inferred(np.where(named_NK, scores_NK + extra_NK, -np.inf), base_N + extra_N, unnamed_N)


@dataclass(frozen=True, kw_only=True)
class Full:
    """Agents with a confusion matrix each, over the places of the options.

    Args:
        prior: float64 [K], how often each place is right.
        matrices: float64 [M, K, K], c_m[k, l].
        log_prior: See `Model`.
    """

    prior: FloatArray
    matrices: FloatArray
    log_prior: float = 0.0

    @classmethod
    def learn(cls, votes: Votes, posterior_NK: FloatArray, *, smoothing: float, competence: FloatArray) -> Self:
        """Return the likeliest model, with s imagined answers a cell.

        The s K answers of a row are spread as one coin of the given competence would: with few questions the model is
        nearly that one.
        """
        size = max(votes.size, 2)
        posterior_NK = np.pad(posterior_NK, ((0, 0), (0, size - votes.size)))
        imagined_MKK = smoothing * size * _one_coin(competence, size)
        counts_MKK = np.zeros((votes.num_agents, size, size))
        for j in range(votes.num_agents):
            said_N = votes.answers[:, j].astype(np.intp) + 1
            for k in range(size):
                counts_MKK[j, k] = np.bincount(said_N, weights=posterior_NK[:, k], minlength=size + 1)[1:]
        matrices_MKK = counts_MKK + imagined_MKK
        matrices_MKK /= matrices_MKK.sum(axis=2, keepdims=True)
        prior_K = posterior_NK.sum(axis=0) + smoothing
        prior_K /= prior_K.sum()
        log_prior = (imagined_MKK * np.log(matrices_MKK)).sum() + smoothing * np.log(prior_K).sum()
        return cls(prior=prior_K, matrices=matrices_MKK, log_prior=float(log_prior))

    @property
    def probabilities(self) -> FloatArray:
        """The matrices, then the prior."""
        return np.append(self.matrices, self.prior)

    def infer(self, votes: Votes) -> Inferred:
        """Return what votes say; only places beyond the options of a question are left out."""
        prior_K, matrices_MKK = self._extended(votes.size)
        valid_NK = np.arange(votes.size) < votes.num_options[:, None]
        scores_NK = np.where(valid_NK, np.log(prior_K), -np.inf)
        for j in range(votes.num_agents):
            # Who is not heard, -1, finds the row of zeros at the end.
            said_LK = np.vstack([np.log(matrices_MKK[j].T), np.zeros(votes.size)])
            scores_NK += said_LK[votes.answers[:, j]]
        return _inferred(scores_NK, np.zeros(len(scores_NK)), np.zeros(len(scores_NK)))

    def _extended(self, size: int) -> tuple[FloatArray, FloatArray]:
        """Return prior [K] and matrices [M, K, K] for `size` places: a new one is like the average of the others."""
        known = len(self.prior)
        if size <= known:
            return self.prior[:size], self.matrices[:, :size, :size]
        right_M = np.trace(self.matrices, axis1=1, axis2=2) / known
        wrong_M = (1 - right_M) / (known - 1)
        matrices_MKK = np.where(np.eye(size, dtype=bool), right_M[:, None, None], wrong_M[:, None, None])
        matrices_MKK[:, :known, :known] = self.matrices
        return np.append(self.prior, np.full(size - known, self.prior.mean())), matrices_MKK


@dataclass(kw_only=True)
class ConfusionFuser:
    """What fusers with a confusion model share: the state, and how it decides.

    Args:
        confusion: one_coin, or a confusion matrix over the places of the options, full.
    """

    confusion: Literal["one_coin", "full"] = "one_coin"
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    accuracies_: FloatArray | None = field(default=None, init=False, repr=False)
    competence_: FloatArray | None = field(default=None, init=False, repr=False)
    concentration_: float = field(default=0.0, init=False, repr=False)
    prior_: FloatArray | None = field(default=None, init=False, repr=False)
    matrices_: FloatArray | None = field(default=None, init=False, repr=False)

    @property
    def positional(self) -> bool:
        """Whether it may tell options apart by their place."""
        return self.confusion == "full"

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        """Return the likeliest option of every row that an agent chose, with probabilities and confidence.

        The probabilities are those among the options that some agent chose; the confidence allows for the others too.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        model = self._model()
        table.require_agents(self.agents_)
        votes = Votes.of(table, selection.mask)
        inferred = model.infer(votes)
        backed_NK = votes.counts > 0
        sizes_NK = np.where(backed_NK, np.abs(inferred.scores), 0)
        counted = Tally(inferred.scores, backed_NK, 1 + sizes_NK.max(axis=1))
        ranked_M = ranking(self.accuracies_, table.num_agents)
        leading_NK = leading(counted, tolerance=_TIE)
        answers_N = settle(leading_NK, votes.answers, votes.answers >= 0, ranked_M)
        best_N1 = inferred.scores.max(axis=1, keepdims=True, where=backed_NK, initial=-np.inf)
        best_N1[~backed_NK.any(axis=1)] = 0
        masses_NK = np.where(backed_NK, np.exp(np.minimum(inferred.scores - best_N1, 0)), 0)
        confidence_N = inferred.posterior[np.arange(len(table)), np.maximum(answers_N, 0)] * (answers_N >= 0)
        return Decision(answers_N, probs=shares(masses_NK), confidence=confidence_N)

    def vote_weights(self, table: PredictionTable) -> FloatArray | None:
        """Return the log odds that votes add, [N, M]; None where votes do not simply add up: full, open questions."""
        model = self._model()
        table.require_agents(self.agents_)
        if not isinstance(model, OneCoin) or model.concentration:
            return None
        odds_M = np.log(model.competence) - np.log1p(-model.competence)
        return np.asarray(odds_M + np.log(np.maximum(table.num_options, 2) - 1.0)[:, None])

    def _model(self) -> Model:
        if self.competence_ is None:
            raise not_fitted(self)
        if self.confusion == "one_coin":
            return OneCoin(competence=self.competence_, concentration=self.concentration_)
        assert self.prior_ is not None, "fit of a full model keeps its prior"
        assert self.matrices_ is not None, "fit of a full model keeps its matrices"
        return Full(prior=self.prior_, matrices=self.matrices_)

    def _keep(self, table: PredictionTable, model: Model, coin: OneCoin) -> None:
        """Write down what was learned: `model`, and the competences that agents stand in order by without labels."""
        self.agents_ = table.agents
        self.competence_ = coin.competence
        self.accuracies_ = coin.competence if table.labels is None else table.accuracies
        self.concentration_ = coin.concentration
        self.prior_, self.matrices_ = (model.prior, model.matrices) if isinstance(model, Full) else (None, None)


def looks_open(table: PredictionTable) -> bool:
    """Return whether the answers are to open questions: the options are what the agents said, and nothing else.

    A table with references says so itself; else every option of every question must have been named, and not every
    question have as many, as yes and no are soon named by someone.
    """
    if table.options is None:
        return False
    if table.references is not None:
        return True
    said = [table.answers[:, :, None]] + ([] if table.sample_answers is None else [table.sample_answers])
    named_NK = np.zeros((len(table), table.max_options + 1), dtype=bool)
    for answers_NMR in said:
        np.put_along_axis(named_NK, answers_NMR.reshape(len(table), -1).astype(np.intp), True, axis=1)
    named_N = named_NK[:, :-1].sum(axis=1)  # the last column is -1, abstention
    return bool((np.maximum(named_N, 1) == table.num_options).all() and len(np.unique(named_N)) > 1)


def to_learn_from(votes: Votes, *, is_open: bool) -> BoolArray:
    """Return bool [N], the questions that tell something: somebody is heard, and there is something to decide."""
    heard_N = votes.counts.any(axis=1)
    return np.asarray(heard_N if is_open else heard_N & (votes.num_options > 1))


def _one_coin(competence_M: FloatArray, size: int) -> FloatArray:
    """Return the confusion matrices [M, K, K] of agents with one coin."""
    competence_M11 = competence_M[:, None, None]
    return np.where(np.eye(size, dtype=bool), competence_M11, (1 - competence_M11) / (size - 1))


def _inferred(scores_NK: FloatArray, base_N: FloatArray, unnamed_N: FloatArray) -> Inferred:
    """Return the posterior, with `unnamed_N` options of score 0 beside those that have one."""
    best_N = scores_NK.max(axis=1)
    best_N = np.where(unnamed_N > 0, np.maximum(best_N, 0), best_N)
    masses_NK = np.exp(scores_NK - best_N[:, None])
    totals_N = masses_NK.sum(axis=1) + unnamed_N * np.exp(-best_N)
    likelihood = float((base_N + best_N + np.log(totals_N)).sum())
    return Inferred(scores_NK, masses_NK / totals_N[:, None], likelihood)


def _coincidence(counts_NK: IntArray, t: float) -> tuple[FloatArray, FloatArray]:
    """Return log C with every answer wrong, [N], and by how much it grows when those for k are right, [N, K]."""
    votes_N = counts_NK.sum(axis=1)
    most = int(votes_N.max(initial=0))
    rising = np.append(0.0, np.cumsum(np.log(t + np.arange(most))))
    factorials = np.append(0.0, np.cumsum(np.log(np.maximum(np.arange(most), 1))))  # log (n - 1)!, 0 at 0
    blocks_NK = np.where(counts_NK > 0, np.log(t) + factorials[counts_NK], 0)
    all_N = blocks_NK.sum(axis=1) - rising[votes_N]
    return rising[votes_N][:, None] - rising[votes_N[:, None] - counts_NK] - blocks_NK, all_N


def _concentration(votes: Votes, posterior_NK: FloatArray, smoothing: float) -> float:
    """Return the likeliest t: where t / (t + i), summed over wrong answers, is the number of distinct ones expected.

    i is how many wrong answers to the question came before.
    """
    named_NK = votes.counts > 0
    right_NK = np.where(named_NK, posterior_NK, 0)
    none_N = np.maximum(1 - right_NK.sum(axis=1), 0)
    votes_N = votes.counts.sum(axis=1)
    left_NK = votes_N[:, None] - votes.counts
    wrong_W = np.bincount(left_NK[named_NK], weights=right_NK[named_NK], minlength=votes.num_agents + 1)
    wrong_W += np.bincount(votes_N, weights=none_N, minlength=votes.num_agents + 1)
    # Questions expected to have more than i wrong answers.
    more_W = np.append(np.cumsum(wrong_W[::-1])[::-1][1:], [0.0, 0.0])[: max(votes.num_agents, 2)]
    more_W[:2] += 2 * smoothing
    distinct = named_NK.sum() - right_NK.sum() + 3 * smoothing
    before_W = np.arange(len(more_W))
    low, high = _LOG_LOW, _LOG_HIGH
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        t = np.exp(middle)
        low, high = (middle, high) if (more_W * (t / (t + before_W))).sum() < distinct else (low, middle)
    return float(np.exp((low + high) / 2))


__all__ = ["ConfusionFuser", "Full", "Inferred", "Model", "OneCoin", "Votes", "looks_open", "to_learn_from"]
