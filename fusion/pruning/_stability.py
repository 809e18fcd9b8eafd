"""Whether other questions would have led to the same choice, and how far the choice flatters itself.

The whole search is done again on other questions drawn from those to choose on: with replacement, to see which
sub-ensembles and agents come out on top time and again (the bootstrap, Efron 1979), and on all folds but one, to see
what the best is worth where it was not chosen (cross-validation). Agents are followed by name: their ranks, and with
them the order in which they settle ties, are found anew each time. What a question costs of each agent, and how long
it takes, stays as it is over all questions, so the same sub-ensembles are allowed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fusion.data import PredictionTable, Split, folds
from fusion.pruning._outcomes import Members, make_fuser, right
from fusion.schema import FloatArray, IntArray
from fusion.selectors import BUDGET, Best, Cloud, Found, Prices, Scored, Scorer, search

if TYPE_CHECKING:
    from fusion.pruning._prune import Setting

TOP = 10
"""Places that count as the top."""

PATIENCE = 10
"""Sub-ensembles that all resamples together may score exhaustively, in budgets of one search."""

KEPT = 2_000_000
"""Sub-ensembles whose scores are kept to find places in; of more, so many."""

Told = Callable[[int, int], None]
Ranks = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SubsetStability:
    """How one sub-ensemble fares on resampled questions.

    Args:
        agents: Its members, in pool order.
        in_top: In how many resamples it is among the best `top`.
        best: In how many it is the best.
        mean_rank: Its mean place among the sub-ensembles that were scored, from 1; itself is scored in every resample.
    """

    agents: tuple[str, ...]
    in_top: int
    best: int
    mean_rank: float


@dataclass(frozen=True, kw_only=True)
class AgentStability:
    """How often one agent belongs to the best sub-ensemble of a resample.

    Args:
        agent: Which.
        in_best: In how many resamples.
    """

    agent: str
    in_best: int


@dataclass(frozen=True, kw_only=True)
class StabilityResult:
    """What comes out on top on resampled questions, by objective.

    Args:
        resamples: How often all questions to choose on were drawn with replacement, and searched on.
        top: How many places count as the top.
        subsets: The best sub-ensemble, then the others that are best by objective on all questions, best first.
        agents: All agents of the pool, those that belong to the best of a resample most often first.
        different_winners: How many different sub-ensembles were the best of a resample.
        method: How the resamples were searched.
    """

    resamples: int
    top: int
    subsets: tuple[SubsetStability, ...]
    agents: tuple[AgentStability, ...]
    different_winners: int
    method: str


@dataclass(frozen=True, kw_only=True)
class OptimismResult:
    """How much better the best sub-ensemble looks where it was chosen than where it was not; plurality votes.

    Args:
        num_folds: How often the questions to choose on were searched with a part of them left out.
        accuracy_chosen_on: Mean accuracy of the best on the questions that it was chosen on.
        accuracy_left_out: Mean accuracy of the best on the questions left out.
        optimism: The first less the second.
        stderr: Its standard error, from how it differs between folds.
        accuracy: Of the best sub-ensemble, on all questions to choose on.
        corrected_accuracy: That less the optimism.
        winners: The best sub-ensemble of each fold.
    """

    num_folds: int
    accuracy_chosen_on: float
    accuracy_left_out: float
    optimism: float
    stderr: float
    accuracy: float
    corrected_accuracy: float
    winners: tuple[tuple[str, ...], ...]


def stability(setting: Setting, best: Members, *, resamples: int, told: Told) -> StabilityResult | None:
    """Search on resampled questions and count what comes out on top.

    Args:
        setting: The pruning.
        best: A sub-ensemble to follow besides the setting's top.
        resamples: How many.
        told: Told how many are done, and how many there are. It may raise KeyboardInterrupt.

    Returns:
        The counts; of the resamples that were done when interrupted, and None where that is none.
    """
    table = votes_of(setting.parts.fit)
    method = search_method(setting, resamples)
    rng = np.random.default_rng([setting.options.seed, 1])
    followed: tuple[Members, ...] = ()
    done: list[tuple[list[float], list[Members]]] = []
    with contextlib.suppress(KeyboardInterrupt):
        followed = _followed(setting, best)
        for resample in range(resamples):
            told(resample, resamples)
            drawn_N = rng.integers(0, len(table), len(table))
            scorer, found = _searched(setting, _drawn(table, drawn_N), method=method, everything=True)
            rows_F = [_ranks(table, scorer, members) for members in followed]
            leaders = _leaders(scorer, found, rows_F)
            names = [_names(table, scorer, members) for members in leaders]
            done.append((_places(scorer, found, leaders, rows_F), names))
    if not done:
        return None
    in_top = Counter(members for _, names in done for members in names)
    wins = Counter(names[0] for _, names in done)
    mean_places = np.mean([places for places, _ in done], axis=0).tolist()
    belongs = Counter(name for members, count in wins.items() for name in members for _ in range(count))
    return StabilityResult(
        resamples=len(done),
        top=TOP,
        subsets=tuple(
            SubsetStability(agents=members, in_top=in_top[members], best=wins[members], mean_rank=mean_place)
            for members, mean_place in zip(followed, mean_places, strict=True)
        ),
        agents=tuple(
            AgentStability(agent=name, in_best=belongs[name])
            for name in sorted(table.agents, key=lambda name: -belongs[name])
        ),
        different_winners=len(wins),
        method=method,
    )


def optimism(setting: Setting, best: Members, *, num_folds: int, told: Told) -> OptimismResult:
    """Choose on all folds but one, and evaluate the best on the one left out, for each fold.

    The standard error is that of a mean of K independent differences. The folds share questions, so it is an estimate
    that has no unbiased form (Bengio and Grandvalet 2004); on simulated pools it was 0.9 to 1.2 times the true one,
    where the spread over questions, given the winners, was 0.7 to 0.9 times, and 0 where all winners are the same.

    Args:
        setting: The pruning.
        best: The sub-ensemble whose accuracy is corrected.
        num_folds: K, from 2 to the number of questions to choose on.
        told: Told how many folds are done, and how many there are. It may raise KeyboardInterrupt.

    Raises:
        KeyboardInterrupt: When interrupted.
    """
    table = votes_of(setting.parts.fit)
    fold_N = folds(table, num_folds, seed=setting.options.seed)
    method = search_method(setting, num_folds)
    vote = make_fuser("vote")
    chosen_on_K, left_out_K = np.zeros(num_folds), np.zeros(num_folds)
    winners: list[Members] = []
    for fold in range(num_folds):
        told(fold, num_folds)
        part = Split(fit=table.rows(fold_N != fold), test=table.rows(fold_N == fold))
        scorer, found = _searched(setting, part.fit, method=method)
        # A random draw may hold none within the limits.
        members = found.best.members[0] if found.best.members else _ranks(table, scorer, best)
        winners.append(_names(table, scorer, members))
        chosen_on_K[fold] = right(Split(fit=part.fit, test=part.fit), winners[-1], vote).mean()
        left_out_K[fold] = right(part, winners[-1], vote).mean()
    excess_K = chosen_on_K - left_out_K
    # Sums of shares are off in the last bits, and nothing shall not come out as less than nothing.
    flattery = round(float(excess_K.mean()), 12) + 0.0
    accuracy = float(right(Split(fit=table, test=table), best, vote).mean())
    return OptimismResult(
        num_folds=num_folds,
        accuracy_chosen_on=float(chosen_on_K.mean()),
        accuracy_left_out=float(left_out_K.mean()),
        optimism=flattery,
        stderr=float(excess_K.std(ddof=1)) / math.sqrt(num_folds),
        accuracy=accuracy,
        corrected_accuracy=accuracy - flattery,
        winners=tuple(winners),
    )


def votes_of(table: PredictionTable) -> PredictionTable:
    """Return what a search reads of a table: votes, labels, and what folds are made by."""
    return PredictionTable(
        question_ids=table.question_ids,
        agents=table.agents,
        answers=table.answers,
        labels=table.require_labels(),
        num_options=table.num_options,
        categories=table.categories,
    )


def _drawn(table: PredictionTable, drawn_N: IntArray) -> PredictionTable:
    """Return the questions at `drawn_N`, which may repeat some, as questions of their own."""
    return PredictionTable(
        question_ids=table.question_ids,
        agents=table.agents,
        answers=table.answers[drawn_N],
        labels=table.require_labels()[drawn_N],
        num_options=table.num_options[drawn_N],
    )


def search_method(setting: Setting, searches: int) -> str:
    """Return how to search so many times: as the setting does where that is affordable, else by beam search."""
    options, total = setting.options, setting.space.total
    if options.method != "auto":
        return options.method
    budget = options.budget or BUDGET
    return "exhaustive" if total <= budget and searches * total <= PATIENCE * budget else "beam"


def _followed(setting: Setting, best: Members) -> tuple[Members, ...]:
    """Return `best`, then the best sub-ensembles by objective on all questions to choose on."""
    options = setting.options
    found = search(
        setting.scorer,
        setting.space,
        top=options.top,
        method=options.method,
        budget=options.budget or BUDGET,
        seed=options.seed,
    )
    if not found.complete:
        raise KeyboardInterrupt
    return tuple(dict.fromkeys([best, *(setting.names(members) for members in found.best.members)]))


def _searched(
    setting: Setting, table: PredictionTable, *, method: str, everything: bool = False
) -> tuple[Scorer, Found]:
    """Search as the setting does, on other questions about the same agents.

    Args:
        setting: The pruning.
        table: The questions.
        method: How to search.
        everything: Whether to keep what was scored.

    Raises:
        KeyboardInterrupt: When interrupted.
    """
    ranked, space, options = setting.scorer.bits.ranked, setting.space, setting.options
    prices = Prices(usd=_by_position(setting.scorer.usd, ranked), seconds=_by_position(setting.scorer.seconds, ranked))
    scorer = Scorer.of(table, setting.scorer.objective, prices=prices, threads=setting.scorer.threads)
    rank_of = np.argsort(scorer.bits.ranked)
    new_rank = rank_of[ranked].tolist()
    found = search(
        scorer,
        dataclasses.replace(
            space,
            include=tuple(sorted(new_rank[rank] for rank in space.include)),
            free=tuple(sorted(new_rank[rank] for rank in space.free)),
            usd=scorer.usd,
            seconds=scorer.seconds,
        ),
        top=TOP,
        method=method,
        budget=options.budget or BUDGET,
        seed=options.seed,
        keep=min(space.total, KEPT) if everything else 0,
    )
    if not found.complete:
        raise KeyboardInterrupt
    return scorer, found


def _by_position(values: FloatArray | None, ranked: IntArray) -> FloatArray | None:
    return None if values is None else values[np.argsort(ranked)]


def _names(table: PredictionTable, scorer: Scorer, ranks: Sequence[int]) -> Members:
    return tuple(table.agents[place] for place in sorted(scorer.bits.ranked[list(ranks)].tolist()))


def _ranks(table: PredictionTable, scorer: Scorer, members: Members) -> Ranks:
    places = [table.agents.index(name) for name in members]
    return tuple(scorer.bits.rank(np.array([places], np.int64))[0].tolist())


def _leaders(scorer: Scorer, found: Found, followed: Sequence[Ranks]) -> tuple[Ranks, ...]:
    """Return the top of what was found and of what is followed, which not every search comes across."""
    best = Best(TOP)
    best.merge(found.best)
    for size in sorted({len(members) for members in followed}):
        rows_PS = np.array([members for members in followed if len(members) == size], np.int16)
        best.merge(Scored.of(rows_PS, scorer(rows_PS), np.arange(len(rows_PS))))
    return best.found.members


def _places(scorer: Scorer, found: Found, leaders: Sequence[Ranks], followed: Sequence[Ranks]) -> list[float]:
    """Return the place of each sub-ensemble among those scored, from 1, in the order in which a search returns them."""
    cloud = found.cloud
    assert cloud is not None, "searched with everything=True"
    place_of = {members: place for place, members in enumerate(leaders, start=1)}
    return [
        float(place_of[members]) if members in place_of else 1.0 + _better(cloud, scorer, np.array(members, np.int16))
        for members in followed
    ]


def _better(cloud: Cloud, scorer: Scorer, row_S: IntArray) -> float:
    """Return how many of the sub-ensembles scored come before one, estimated where only a sample of them was kept."""
    members_PW, scores = cloud.members, cloud.scores
    padded_W = np.pad(row_S, (0, members_PW.shape[1] - len(row_S)), constant_values=-1)
    own = np.flatnonzero((members_PW == padded_W).all(axis=1))
    # Scores are taken from where they stand: computed once more they might differ in the last bit.
    same = scores if len(own) else scorer(row_S[None])
    at = int(own[0]) if len(own) else 0
    objective, accuracy = same.objective[at], same.accuracy[at]
    ahead = scores.objective > objective
    ties = np.flatnonzero(scores.objective == objective)
    sizes_T = (members_PW[ties] >= 0).sum(axis=1)
    keys_KT = (sizes_T, -scores.accuracy[ties], *members_PW[ties].T)
    undecided_T = np.ones(len(ties), dtype=bool)
    for values_T, value in zip(keys_KT, (len(row_S), -accuracy, *padded_W.tolist()), strict=True):
        ahead[ties[undecided_T & (values_T < value)]] = True
        undecided_T &= values_T == value
    # Beam and genetic search may come across a sub-ensemble more than once.
    num_ahead = len(np.unique(members_PW[ahead], axis=0))
    return num_ahead * (1.0 if cloud.sampled_from is None else cloud.sampled_from / len(members_PW))
