"""prune: the best sub-ensembles equal brute force, what they are worth is measured elsewhere, and its JSON."""

import dataclasses
import functools
import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pruning import correct, focal_diversity
from tables import by_hand, random_table

from fusion.data import PredictionTable, folds, split, write_table
from fusion.ensemble import Ensemble
from fusion.errors import InputError, InvalidTable, Leakage, TableMismatch, UnknownName, UsageError
from fusion.pruning import PruneOptions, PruneResult, prune
from fusion.pruning import _prune as pruning
from fusion.schema import Spec
from fusion.selectors import Scorer, parse_sizes

AGENTS = ("ash", "birch", "cedar", "elm", "fir", "gum", "hazel")
PRICES = {name: (float(place + 1), 2.0 * (place + 1)) for place, name in enumerate(AGENTS)}
DOCS = Path(__file__).parents[1] / "docs"


@functools.cache
def varied() -> PredictionTable:
    """Seven agents of different skill, with tokens, seconds, categories, abstentions and labels nobody can give."""
    return random_table(3, questions=200, agents=AGENTS)


def pruned(table: PredictionTable, *, test: PredictionTable | None = None, **options: Any) -> PruneResult:
    return prune(table, test=test, options=PruneOptions(**({"repeats": 100} | options)))


KNOWN: dict[tuple[str, str, str, tuple[str, ...]], npt.NDArray[np.bool_]] = {}


def right(
    fit: PredictionTable, members: Sequence[str], test: PredictionTable, fuser: str = "vote"
) -> npt.NDArray[np.bool_]:
    """Where an ensemble that asks these members is right, bool [N]; several tests want the same."""
    key = (fit.fingerprint, test.fingerprint, fuser, tuple(members))
    if key not in KNOWN:
        ensemble = Ensemble(fit.agents, Spec("fixed_subset", {"agents": list(members)}), fuser).fit(fit)
        answers_N = ensemble.replay(test).decision.answers
        KNOWN[key] = (answers_N == test.require_labels()) & (answers_N >= 0)
    return KNOWN[key]


def accuracies(table: PredictionTable) -> dict[str, float]:
    """Share of right answers by agent, best first; equal ones in pool order."""
    found = {
        name: float(((table.answers[:, j] == table.require_labels()) & (table.answers[:, j] >= 0)).mean())
        for j, name in enumerate(table.agents)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def brute_force(
    fit: PredictionTable, sizes: Sequence[int], *, focal: float, accuracy: float
) -> list[tuple[tuple[str, ...], float]]:
    """All sub-ensembles with their objectives, best first: then smaller, more accurate, of better members first."""
    ranks = {name: rank for rank, name in enumerate(accuracies(fit))}
    rows = []
    for size in sizes:
        for members in itertools.combinations(range(fit.num_agents), size):
            names = tuple(fit.agents[member] for member in members)
            voted = float(right(fit, names, fit).mean())
            diverse = focal_diversity(correct(fit, members)) if focal else 0.0
            value = focal * diverse + accuracy * voted
            rows.append((-round(value, 12), size, -voted, sorted(ranks[name] for name in names), names, value))
    return [(names, value) for *_, names, value in sorted(rows)]


def stripped(result: PruneResult) -> dict[str, Any]:
    """The JSON without what differs from one run to the next."""
    found: dict[str, Any] = result.to_json()
    del found["run"]["started"], found["run"]["seconds"], found["seconds"]
    return found


class TestBruteForce:
    @pytest.mark.parametrize(("focal", "accuracy"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
    def test_the_best_and_their_order(self, focal: float, accuracy: float) -> None:
        terms = [f"{name}={weight}" for name, weight in (("focal", focal), ("accuracy", accuracy)) if weight]
        result = pruned(varied(), sizes=(2, 3, 4), objective=",".join(terms), top=25)
        expected = brute_force(split(varied()).fit, (2, 3, 4), focal=focal, accuracy=accuracy)
        assert [subset.agents for subset in result.subsets] == [names for names, _ in expected[:25]]
        assert [subset.objective for subset in result.subsets] == pytest.approx([value for _, value in expected[:25]])
        assert result.searched == result.total == len(expected) == 21 + 35 + 35
        assert (result.exhaustive, result.complete, result.method) == (True, True, "exhaustive")

    def test_by_hand(self) -> None:
        """a, b, c are right on 3 of 4 questions each, a different one wrong; d on 2. Any vote of a, b and c is right on
        all four: on every question two of them agree on 0. Pairs go by the better, here the first: 3 of 4. With d: a, b
        and d are right on q0 (a, b), q1 (a, d: b is wrong), q2 (a, b), and on q3 b alone is: a says 1, d says 2, three
        votes for three options go to the member most accurate, a: wrong. 3 of 4.
        """
        rows = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 2]]
        fit = by_hand(rows, [0] * 4, num_options=[3] * 4)
        test = by_hand(rows, [0] * 4, num_options=[3] * 4, question_ids=["r0", "r1", "r2", "r3"])
        result = pruned(fit, test=test, sizes=(2, 3), objective="accuracy")
        assert result.subsets[0].agents == ("a", "b", "c")
        assert (result.subsets[0].accuracy, result.subsets[0].objective, result.subsets[0].test_accuracy) == (1, 1, 1)
        others = {subset.agents: subset.accuracy for subset in result.subsets[1:]}
        assert others["a", "b", "d"] == 0.75
        assert others["a", "b"] == others["a", "d"] == 0.75
        assert (result.n, result.n_fit, result.pool) == (4, 4, ("a", "b", "c", "d"))

    @settings(max_examples=12, deadline=None)
    @given(seed=st.integers(0, 1000), size=st.integers(1, 4), agents=st.integers(2, 5))
    def test_random_tables(self, seed: int, size: int, agents: int) -> None:
        table = random_table(seed, questions=40, agents=AGENTS[:agents])
        parts = split(table, seed=seed)
        size = min(size, agents)
        (best, value), *_ = brute_force(parts.fit, [size], focal=0, accuracy=1)
        found = pruned(table, sizes=(size,), objective="accuracy", top=1, seed=seed).subsets[0]
        assert (found.agents, found.accuracy) == (best, pytest.approx(value))
        assert found.test_accuracy == pytest.approx(right(parts.fit, best, parts.test).mean())

    def test_the_order_of_the_questions_does_not_matter(self) -> None:
        mixed = varied().rows(np.random.default_rng(0).permutation(len(varied())))
        first, second = stripped(pruned(varied())), stripped(pruned(mixed))
        for result in (first, second):
            del result["run"]
        assert first == second


class TestOnOtherQuestions:
    def test_vote(self) -> None:
        result = pruned(varied(), sizes=(2, 3, 5))
        parts = split(varied())
        for subset in result.subsets:
            assert subset.test_accuracy == right(parts.fit, subset.agents, parts.test).mean()
            assert subset.test_ci95[0] < subset.test_accuracy < subset.test_ci95[1]
            assert subset.size == len(subset.agents)
        for rival in result.rivals:
            assert rival.test_accuracy == right(parts.fit, rival.agents, parts.test).mean()

    def test_rivals_and_comparisons(self) -> None:
        """The best single member, as many by accuracy alone, everyone; differences are counted question by question."""
        result = pruned(varied(), sizes=(3,), objective="focal")
        parts = split(varied())
        ranked = list(accuracies(parts.fit))
        assert [rival.agents for rival in result.rivals] == [
            (ranked[0],),
            tuple(name for name in AGENTS if name in ranked[:3]),
            AGENTS,
        ]
        assert [pair.family for pair in result.paired] == ["best single", "other baselines", "other baselines"]
        ours = right(parts.fit, result.subsets[0].agents, parts.test)
        for rival, pair in zip(result.rivals, result.paired, strict=True):
            theirs = right(parts.fit, rival.agents, parts.test)
            assert (pair.a, pair.b) == (" + ".join(result.subsets[0].agents), rival.name)
            assert (pair.only_a, pair.only_b) == ((ours & ~theirs).sum(), (theirs & ~ours).sum())
            assert pair.difference == pytest.approx(ours.mean() - theirs.mean())

    def test_a_table_of_its_own(self) -> None:
        """Its agents may stand in another order; all of the first table is chosen on."""
        other = random_table(4, questions=60, agents=AGENTS[::-1], prefix="r")
        result = pruned(varied(), test=other, sizes=(3,), objective="accuracy")
        assert (result.n, result.n_fit) == (60, 200)
        assert result.pool == AGENTS
        (best, _), *_ = brute_force(varied(), [3], focal=0, accuracy=1)
        assert result.subsets[0].agents == best
        expected = right(varied(), best, other.columns(AGENTS)).mean()
        assert result.subsets[0].test_accuracy == expected
        assert result.run.tables == {"fit": varied().fingerprint, "test": other.columns(AGENTS).fingerprint}

    def test_the_front(self) -> None:
        """Nobody in it is beaten by as few members at no higher price."""
        result = pruned(varied(), sizes=(1, 2, 3, 4), objective="accuracy", prices=PRICES)
        expected = brute_force(split(varied()).fit, (1, 2, 3, 4), focal=0, accuracy=1)
        prices = usd(split(varied()).fit)
        cost = {names: sum(prices[name] for name in names) for names, _ in expected}
        for subset in result.front:
            assert not any(
                value > subset.accuracy + 1e-12 and len(names) <= subset.size and cost[names] <= cost[subset.agents]
                for names, value in expected
            )
        assert max(subset.accuracy for subset in result.front) == pytest.approx(expected[0][1])


def usd(table: PredictionTable) -> dict[str, float]:
    """What a question costs of each agent on average, by PRICES."""
    assert table.tokens_in is not None
    assert table.tokens_out is not None
    means = zip(table.agents, table.tokens_in.mean(axis=0), table.tokens_out.mean(axis=0), strict=True)
    return {name: float(read * PRICES[name][0] + written * PRICES[name][1]) / 1e6 for name, read, written in means}


class TestLimits:
    def test_include_and_exclude(self) -> None:
        result = pruned(varied(), sizes=(2, 3), objective="accuracy", include=("fir",), exclude=("ash", "gum"), top=99)
        found = [subset.agents for subset in result.subsets]
        ranked = brute_force(split(varied()).fit, (2, 3), focal=0, accuracy=1)
        assert found == [names for names, _ in ranked if "fir" in names and not {"ash", "gum"} & set(names)]
        assert len(found) == 4 + 6

    def test_max_cost(self) -> None:
        prices = usd(split(varied()).fit)
        limit = sorted(prices.values())[0] + sorted(prices.values())[2]
        result = pruned(varied(), sizes=(2, 3), objective="accuracy", max_cost=limit, prices=PRICES, top=99)
        ranked = brute_force(split(varied()).fit, (2, 3), focal=0, accuracy=1)
        cost = {names: sum(prices[name] for name in names) for names, _ in ranked}
        assert [subset.agents for subset in result.subsets] == [
            names for names, _ in ranked if cost[names] <= limit * (1 + 1e-9)
        ]
        assert len(result.subsets) > 1
        for subset in result.subsets:
            assert subset.usd_per_question == pytest.approx(cost[subset.agents])

    def test_max_latency(self) -> None:
        fit = split(varied()).fit
        assert fit.seconds is not None
        slow = dict(zip(AGENTS, fit.seconds.mean(axis=0, dtype=np.float64), strict=True))
        limit = sorted(slow.values())[3]
        result = pruned(varied(), sizes=(2, 3), objective="accuracy", max_latency=limit, top=99)
        assert len(result.subsets) == 6 + 4
        for subset in result.subsets:
            assert subset.seconds_per_question == pytest.approx(max(slow[name] for name in subset.agents))
            assert subset.seconds_per_question is not None
            assert subset.seconds_per_question <= limit * (1 + 1e-9)

    def test_without_prices_or_seconds(self) -> None:
        bare = by_hand(varied().answers, varied().require_labels().tolist())
        (subset, *_) = pruned(bare, sizes=(2,)).subsets
        assert subset.usd_per_question is None
        assert subset.seconds_per_question is None


class TestFuser:
    def test_ordered_by_its_cross_validated_accuracy(self) -> None:
        """Fitted on four fifths of the questions to choose on, right on the last, each fifth in turn."""
        result = pruned(
            varied(), sizes=(2, 3), objective="accuracy", fuser="weighted_vote", candidates=12, top=12, folds=4, seed=5
        )
        parts = split(varied(), seed=5)
        fold_N = folds(parts.fit, 4, seed=5)
        expected = []
        for names, value in brute_force(parts.fit, (2, 3), focal=0, accuracy=1)[:12]:
            hits = sum(
                right(parts.fit.rows(fold_N != k), names, parts.fit.rows(fold_N == k), "weighted_vote").sum()
                for k in range(4)
            )
            expected.append((hits / len(parts.fit), names, value))
        expected.sort(key=lambda row: -row[0])
        assert [(s.cv_accuracy, s.agents) for s in result.subsets] == [row[:2] for row in expected]
        assert [s.accuracy for s in result.subsets] == pytest.approx([value for _, _, value in expected])
        measured = {subset.agents: subset.test_accuracy for subset in result.subsets}
        measured |= {rival.agents: rival.test_accuracy for rival in result.rivals}
        for agents, accuracy in measured.items():
            assert accuracy == right(parts.fit, agents, parts.test, "weighted_vote").mean()
        assert result.fuser == "weighted_vote"

    def test_candidates_are_at_least_as_many_as_shown(self) -> None:
        result = pruned(varied(), sizes=(2,), fuser="weighted_vote", candidates=1, top=6)
        assert len(result.subsets) == 6
        assert None not in [subset.cv_accuracy for subset in result.subsets]

    def test_vote_as_a_second_stage_keeps_its_name(self) -> None:
        result = pruned(varied(), sizes=(2,), fuser="vote", candidates=3)
        assert result.fuser == "vote"
        assert result.subsets[0].cv_accuracy is not None
        assert pruned(varied(), sizes=(2,)).subsets[0].cv_accuracy is None

    def test_unknown_before_the_search(self) -> None:
        steps: list[str] = []
        with pytest.raises(UnknownName, match=r"unknown fuser 'weighted_voet'; did you mean 'weighted_vote'\?"):
            prune(varied(), options=PruneOptions(fuser="weighted_voet"), progress=lambda step, *_: steps.append(step))
        assert "searching" not in steps


class TestSplit:
    def test_stratify(self) -> None:
        strict = pruned(varied(), sizes=(2,))
        loose = pruned(varied(), sizes=(2,), stratify="none")
        for result, stratify in ((strict, "category"), (loose, "none")):
            parts = split(varied(), stratify=stratify)  # type: ignore[arg-type]  # a literal of either loop pass
            assert result.run.tables == {"fit": parts.fit.fingerprint, "test": parts.test.fingerprint}
        assert strict.run.tables != loose.run.tables

    def test_seed_and_fraction(self) -> None:
        result = pruned(varied(), sizes=(2,), seed=9, fit_fraction=0.4)
        parts = split(varied(), seed=9, fit_fraction=0.4)
        assert (result.n_fit, result.n) == (80, 120)
        assert result.run.tables == {"fit": parts.fit.fingerprint, "test": parts.test.fingerprint}

    @pytest.mark.parametrize("method", ["auto", "beam+genetic", "random"])
    def test_the_same_again(self, method: str) -> None:
        first, second = (pruned(varied(), method=method, budget=50, seed=1, top=3) for _ in range(2))
        assert stripped(first) == stripped(second)


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "sizes"),
        [("2-5", (2, 3, 4, 5)), ("3", (3,)), ("2,4-6", (2, 4, 5, 6)), ("4-6, 2 ,5", (2, 4, 5, 6)), ("1-1", (1,))],
    )
    def test_read(self, text: str, sizes: tuple[int, ...]) -> None:
        assert parse_sizes(text) == sizes
        found = pruned(varied(), sizes=parse_sizes(text), objective="accuracy", top=200)
        assert {subset.size for subset in found.subsets} == set(sizes)

    @pytest.mark.parametrize("text", ["", "0", "-2", "5-2", "2-", "two", "2;3", "2.5", "1-2-3", "2,,3"])
    def test_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match=rf"expected sizes such as 3, 2-5 or 2,4-6, got {re.escape(repr(text))}"):
            parse_sizes(text)

    def test_beyond_the_pool(self) -> None:
        result = pruned(varied(), sizes=(6, 7, 8, 9))
        assert {subset.size for subset in result.subsets} == {6, 7}
        assert "sizes 8, 9 are left out: 0 agents are included and 7 more may join" in result.notes
        with pytest.raises(UsageError, match=r"7 agents can form sub-ensembles of 1 to 7 members .* asked for 8 to 9"):
            pruned(varied(), sizes=(8, 9))

    def test_below_the_included(self) -> None:
        result = pruned(varied(), sizes=(1, 2, 3), include=("ash", "elm"), objective="accuracy", top=99)
        assert {subset.size for subset in result.subsets} == {2, 3}
        assert any(note.startswith("sizes 1 are left out: 2 agents are included") for note in result.notes)

    def test_the_best_may_be_a_single_member(self) -> None:
        """Then nothing is said of the best single member: it is no rival of itself."""
        result = pruned(varied(), sizes=(1,), objective="accuracy")
        assert result.subsets[0].agents == (next(iter(accuracies(split(varied()).fit))),)
        assert result.subsets[0].focal_diversity is None
        assert [(pair.b, pair.family) for pair in result.paired] == [("all 7 members", "other baselines")]


class TestPools:
    def test_one_agent(self) -> None:
        table = varied().columns(["ash"])
        with pytest.raises(UsageError, match="1 agents can form sub-ensembles of 1 to 1 members"):
            pruned(table)
        result = pruned(table, sizes=(1,), objective="accuracy")
        assert [subset.agents for subset in result.subsets] == [("ash",)]
        assert (result.rivals, result.paired) == ((), ())
        assert (
            result.verdict == f"ash answers {100 * result.subsets[0].test_accuracy:.1f} % of 60 other questions right."
        )

    def test_what_was_not_asked_costs_what_the_rest_does(self) -> None:
        """Tokens are 0 where an agent was not asked; one costs 150 + 2 * 50 per million."""
        table = varied().columns(["ash", "elm"])
        asked_NM = np.ones((len(table), 2), dtype=bool)
        asked_NM[::2, 0] = False
        made = PredictionTable(
            question_ids=table.question_ids,
            agents=table.agents,
            answers=np.where(asked_NM, table.answers, -1),
            asked=asked_NM,
            labels=table.labels,
            num_options=table.num_options,
            tokens_in=np.where(asked_NM, 150, 0),
            tokens_out=np.where(asked_NM, 50, 0),
        )
        prices = {"ash": (1.0, 2.0), "elm": (1.0, 2.0)}
        result = pruned(made, sizes=(2,), prices=prices)
        assert result.subsets[0].usd_per_question == pytest.approx(2 * 250e-6)
        notes = pruned(made, sizes=(2,), prices={"ash": (1.0, 2.0)}).notes
        assert "costs are not known: no price is given of elm; give those of all agents" in notes

    def test_a_pair_is_no_vote(self) -> None:
        """With other sizes to choose from, a note says that the vote of two is that of the better one."""
        told = "the vote of two is that of the more accurate one"
        result = pruned(varied(), sizes=(2, 3), objective="size=-1,accuracy")
        assert result.subsets[0].size == 2
        assert result.notes[-1].startswith(told)
        assert not any(note.startswith(told) for note in pruned(varied(), sizes=(2,)).notes)

    def test_two_agents(self) -> None:
        result = pruned(varied().columns(["ash", "elm"]))
        assert [subset.agents for subset in result.subsets] == [("ash", "elm")]
        assert [pair.family for pair in result.paired] == ["best single"]
        assert result.notes[-1] == "sizes 3, 4, 5 are left out: 0 agents are included and 2 more may join"

    def test_all_equal(self) -> None:
        """Whoever votes, the answer is the same; focal diversity is 0; ties go to the smallest of the first members."""
        column = varied().answers[:, :1]
        table = by_hand(np.repeat(column, 4, axis=1), varied().require_labels().tolist(), num_options=[5] * 200)
        result = pruned(table, sizes=(2, 3))
        assert [subset.agents for subset in result.subsets[:3]] == [("a", "b"), ("a", "c"), ("a", "d")]
        assert {subset.focal_diversity for subset in result.subsets} == {0.0}
        assert len({subset.test_accuracy for subset in result.subsets}) == 1
        assert {pair.difference for pair in result.paired} == {0.0}
        assert {pair.p for pair in result.paired} == {1.0}
        assert "does not beat the best single member, a: +0.0 points" in result.verdict

    @pytest.mark.parametrize(("skill", "accuracy"), [("wrong", 0.0), ("silent", 0.0), ("right", 1.0)])
    def test_all_alike_in_skill(self, skill: Any, accuracy: float) -> None:
        result = pruned(random_table(1, questions=80, agents=AGENTS[:5], skill=skill), sizes=(2, 3))
        assert {subset.accuracy for subset in result.subsets} == {accuracy}
        assert {subset.test_accuracy for subset in result.subsets} == {accuracy}
        assert all(math.isfinite(subset.objective) for subset in result.subsets)
        json.dumps(result.to_json(), allow_nan=False)

    def test_two_questions(self) -> None:
        result = pruned(by_hand([[0, 1], [1, 0]], [0, 0]), fit_fraction=0.5)
        assert (result.n, result.n_fit) == (1, 1)


class TestVerdict:
    """Where chosen, a, b and c are right on 24 of 30 each, their vote always; elsewhere it is as each test has it."""

    def result(self, others: Sequence[Sequence[int]]) -> PruneResult:
        rows = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]] * 6
        fit = by_hand(rows, [0] * 30, num_options=[2] * 30, question_ids=[f"fit{n}" for n in range(30)])
        test = by_hand(others, [0] * len(others), num_options=[2] * len(others))
        return pruned(fit, test=test, sizes=(3,), objective="accuracy", repeats=200)

    def test_win(self) -> None:
        """The vote alone is right on 12, a alone on none: p = 2 / 2^12 = 0.00049."""
        result = self.result([[1, 0, 0]] * 12 + [[0, 0, 0]] * 28)
        assert re.fullmatch(
            r"a \+ b \+ c answers 100\.0 % of 40 other questions right; beats the best single member, a: "
            r"\+30\.0 points \(95 % CI \+\d+\.\d to \+\d+\.\d, exact McNemar p = 0\.00049\)\.",
            result.verdict.replace(", n = 40", ""),
        ), result.verdict

    def test_tie(self) -> None:
        """Each alone on 5: no difference, p = 1."""
        result = self.result([[1, 0, 0]] * 5 + [[0, 1, 1]] * 5 + [[0, 0, 0]] * 10)
        assert re.search(
            r"a \+ b \+ c answers 75\.0 % of 20 other questions right; does not beat the best single member, a: "
            r"\+0\.0 points \(95 % CI -\d+\.\d to \+\d+\.\d, exact McNemar p = 1",
            result.verdict,
        ), result.verdict

    def test_loss(self) -> None:
        result = self.result([[0, 1, 1]] * 12 + [[0, 0, 0]] * 28)
        assert re.search(
            r"a \+ b \+ c answers 70\.0 % of 40 other questions right; is worse than the best single member, a: "
            r"-30\.0 points \(95 % CI -\d+\.\d to -\d+\.\d, exact McNemar p = 0\.00049",
            result.verdict,
        ), result.verdict


class TestNotes:
    def test_none(self) -> None:
        table = by_hand(np.repeat([[0, 1, 0, 1], [1, 0, 0, 1]], 20, axis=0), [0] * 40)
        assert pruned(table, sizes=(2,)).notes == ()

    def test_of_the_table(self) -> None:
        (note, *_) = pruned(varied(), sizes=(2,)).notes
        assert note.startswith("the right answer is not among the options of 12 questions")

    def test_of_the_objective(self) -> None:
        result = pruned(varied(), sizes=(2,), objective="accuracy=-1")
        assert any("accuracy" in note for note in result.notes[1:]), result.notes

    def test_beyond_the_budget(self) -> None:
        result = pruned(varied(), sizes=(3, 4), budget=10)
        assert result.method == "beam+genetic"
        assert not result.exhaustive
        assert result.complete
        assert any(
            note.startswith("70 sub-ensembles are more than the budget of 10, so beam+genetic") for note in result.notes
        )


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"objective": "acuracy"}, UnknownName, r"unknown objective term 'acuracy'; did you mean 'accuracy'"),
            ({"objective": ""}, UsageError, "objective"),
            ({"objective": "accuracy=high"}, UsageError, "accuracy"),
            ({"objective": "focal", "sizes": (1, 2)}, UsageError, "focal"),
            (
                {"objective": "cost=-1"},
                UsageError,
                r"the cost of sub-ensembles is not known: no price is given of ash, ",
            ),
            ({"include": ("ahs",)}, UnknownName, r"unknown agent 'ahs'; did you mean 'ash'\?"),
            ({"exclude": ("ahs",)}, UnknownName, r"unknown agent 'ahs'"),
            ({"include": ("ash",), "exclude": ("ash",)}, UsageError, "ash cannot be both included and excluded"),
            ({"exclude": AGENTS[1:]}, UsageError, "1 agents can form sub-ensembles of 1 to 1"),
            ({"max_cost": 0.1}, UsageError, "is not known: no price is given of ash"),
            (
                {"max_cost": 1e-9, "prices": PRICES},
                UsageError,
                r"none of 112 .* is within --max-cost 1e-09; allow more",
            ),
            ({"max_latency": 0.0}, UsageError, "none of 112 sub-ensembles is within --max-latency 0; allow more"),
            ({"prices": {"oak": (1, 1)}}, UnknownName, "unknown agent 'oak'"),
            ({"method": "exhaustiv"}, UnknownName, r"unknown search method 'exhaustiv'; did you mean 'exhaustive'\?"),
            ({"fuser": "vote("}, UsageError, "expected a parameter's name"),
            ({"fuser": "oracle"}, UsageError, "oracle"),
            ({"fuser": "weighted_vote", "folds": 500}, InvalidTable, "cannot be spread over 500 folds"),
            ({"top": 0}, UsageError, "expected top >= 1, got 0"),
            ({"candidates": 0}, UsageError, "expected candidates >= 1, got 0"),
            ({"folds": 1}, UsageError, "expected folds >= 2, got 1"),
            ({"seed": -1}, UsageError, "expected seed >= 0, got -1"),
            ({"repeats": 99}, UsageError, "expected repeats >= 100, got 99"),
            ({"fit_fraction": 1.0}, UsageError, "fit_fraction must lie between 0 and 1, got 1.0"),
            ({"stratify": "agent"}, UsageError, "stratify must be category or none, got 'agent'"),
            ({"sizes": ()}, UsageError, "asked for no size"),
            ({"sizes": (0, 1)}, UsageError, "asked for 0 to 1"),
        ],
        ids=str,
    )
    def test_options(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            pruned(varied(), **options)

    def test_unlabelled(self) -> None:
        with pytest.raises(InvalidTable, match="no labels"):
            pruned(by_hand([[0, 1]] * 9))
        with pytest.raises(InvalidTable, match="no labels"):
            pruned(varied(), test=dataclasses.replace(random_table(4, agents=AGENTS), labels=None))

    def test_other_agents(self) -> None:
        with pytest.raises(TableMismatch, match="in the second missing hazel"):
            pruned(varied(), test=random_table(4, agents=AGENTS[:6]))

    def test_shared_questions(self) -> None:
        with pytest.raises(
            Leakage, match="200 question ids are in the table to fit on and in the table to evaluate on"
        ):
            pruned(varied(), test=varied())

    def test_nothing_to_evaluate_on(self) -> None:
        with pytest.raises(InvalidTable, match="has no questions"):
            pruned(varied(), test=random_table(4, agents=AGENTS).rows(np.zeros(48, dtype=bool)))
        with pytest.raises(InvalidTable, match="one part would be empty"):
            pruned(varied().rows(np.arange(1)))


def interrupting(step: str, at: int) -> Callable[[str, int, int], None]:
    """Return a progress function that stands for Ctrl-C at the `at`-th time that it is told of a step."""
    count = itertools.count(1)

    def told(now: str, done: int, total: int) -> None:
        if now.startswith(step) and next(count) == at:
            raise KeyboardInterrupt

    return told


class TestInterrupted:
    def test_while_searching(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three chunks of 7 of the 21 + 35 sub-ensembles are scored; what they hold is measured as always."""
        monkeypatch.setattr("fusion.selectors._search.CHUNK", 7)
        options = PruneOptions(sizes=(2, 3), repeats=100, objective="accuracy")
        result = prune(varied(), options=options, progress=interrupting("searching", 3))
        assert (result.searched, result.total, result.complete, result.exhaustive) == (21, 56, False, False)
        assert "interrupted: 21 of 56 sub-ensembles were scored" in result.notes
        assert {subset.size for subset in result.subsets} == {2}
        ranked = [names for names, _ in brute_force(split(varied()).fit, [2], focal=0, accuracy=1)]
        assert [subset.agents for subset in result.subsets] == ranked[:10]

    def test_no_second_stage_after_that(self) -> None:
        options = PruneOptions(sizes=(2, 3), repeats=100, fuser="weighted_vote", candidates=20)
        result = prune(varied(), options=options, progress=interrupting("searching", 1))
        assert {subset.cv_accuracy for subset in result.subsets} == {None}
        assert result.notes[-1] == "interrupted: weighted_vote was cross-validated on 0 of 20 candidates"
        objectives = [subset.objective for subset in result.subsets]
        assert objectives == sorted(objectives, reverse=True)

    def test_while_comparing(self) -> None:
        options = PruneOptions(sizes=(2, 3), repeats=100, fuser="weighted_vote", candidates=20, top=20)
        result = prune(varied(), options=options, progress=interrupting("weighted_vote", 6))
        judged = [subset.cv_accuracy for subset in result.subsets]
        assert None not in judged[:6]
        assert judged[6:] == [None] * 14
        assert not result.complete
        assert "interrupted: weighted_vote was cross-validated on 6 of 20 candidates" in result.notes
        json.dumps(result.to_json(), allow_nan=False)

    @pytest.mark.parametrize("step", ["reading", "evaluating"])
    def test_elsewhere(self, step: str) -> None:
        with pytest.raises(KeyboardInterrupt):
            prune(varied(), progress=interrupting(step, 1))

    def test_before_anything_was_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Scorer, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pruned(varied())


class TestProgress:
    def test_steps(self) -> None:
        steps: list[str] = []
        prune(
            varied(),
            options=PruneOptions(sizes=(2,), repeats=100, fuser="weighted_vote", candidates=3),
            progress=lambda step, *_: steps.append(step),
        )
        order = list(dict.fromkeys(steps))
        assert order[0] == "reading"
        assert [step for step in order if "compiling" not in step] == [
            "reading",
            "searching",
            "weighted_vote on the best",
            "evaluating",
            "done",
        ]


class TestJson:
    def whole(self) -> PruneResult:
        return pruned(varied(), sizes=(2, 3), fuser="weighted_vote", candidates=4, prices=PRICES)

    def test_round_trip(self, tmp_path: Path) -> None:
        result = self.whole()
        result.save(tmp_path / "pruned.json")
        loaded = PruneResult.load(tmp_path / "pruned.json")
        assert loaded.to_json() == result.to_json()
        assert dataclasses.replace(loaded, run=result.run) == result
        assert list(tmp_path.iterdir()) == [tmp_path / "pruned.json"]

    def test_what_made_it(self, tmp_path: Path) -> None:
        write_table(varied(), tmp_path / "t.parquet")
        run = prune(tmp_path / "t.parquet", options=PruneOptions(sizes=(2,), repeats=100, prices=PRICES)).to_json()[
            "run"
        ]
        assert isinstance(run, dict)
        command: Any = run["command"]
        assert (command["table"], command["test"]) == (str(tmp_path / "t.parquet"), None)
        again = PruneOptions(
            **command["prune"]
            | {"prices": {name: tuple(pair) for name, pair in command["prune"]["prices"].items()}}
            | {key: tuple(command["prune"][key]) for key in ("sizes", "include", "exclude")}
        )
        assert again == PruneOptions(sizes=(2,), repeats=100, prices=PRICES)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "is not the JSON of fusion prune"),
            ("{", "is not the JSON of fusion prune"),
            ("[]", "is not the JSON of fusion prune"),
            ('{"format": "fusion.prune/1"}', "n: Field required"),
        ],
    )
    def test_not_a_result(self, content: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "pruned.json").write_text(content)
        with pytest.raises(InputError, match=message):
            PruneResult.load(tmp_path / "pruned.json")

    def test_other_version_and_missing_file(self, tmp_path: Path) -> None:
        content = self.whole().to_json() | {"format": "fusion.prune/2"}
        (tmp_path / "pruned.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"format: Input should be 'fusion\.prune/1'"):
            PruneResult.load(tmp_path / "pruned.json")
        with pytest.raises(InputError, match=r"no run .*none\.json: No such file or directory; give a file"):
            PruneResult.load(tmp_path / "none.json")

    def test_every_key_is_documented_and_every_documented_key_is_there(self) -> None:
        result: dict[str, Any] = self.whole().to_json()
        assert documented("prune-json.md", "") == set(result)
        for part in (*result["subsets"], *result["front"]):
            assert documented("prune-json.md", "`subsets` and `front`") == set(part)
        for pair in result["paired"]:
            assert documented("bench-json.md", "`paired`") == set(pair)
        assert documented("bench-json.md", "`run`") == set(result["run"])
        (sentence,) = re.findall(r"^`rivals` have (.*)\.$", page("prune-json.md"), flags=re.M)
        for rival in result["rivals"]:
            assert set(re.findall(r"`([^`]+)`", sentence)) == set(rival)

    def test_the_methods_that_are_documented(self) -> None:
        (row,) = [line for line in page("prune-json.md").splitlines() if line.startswith("| `method`")]
        for method in re.findall(r"`([^`]+)`", row)[1:]:
            assert pruned(varied(), sizes=(2,), method=method, budget=20).method == method

    def test_it_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            self.whole().verdict = "better"  # type: ignore[misc]


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def documented(name: str, heading: str) -> set[str]:
    """The keys in the first column of the table below a heading of a page; "" is the page's own table."""
    sections = re.split(r"^## ", page(name), flags=re.M)
    section = sections[0] if not heading else next(part for part in sections[1:] if part.startswith(heading))
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}


def test_an_executor_finds_the_same() -> None:
    """Workers stand in a thread's place; the executors themselves have tests of their own."""

    class Here:
        """Maps in this process."""

        def map(self, function: Callable[[Any], Any], items: Any, *, kind: str = "") -> Any:
            return ((index, function(item)) for index, item in enumerate(items))

    options = PruneOptions(sizes=(2, 3), repeats=100, fuser="weighted_vote", candidates=20, top=20)
    near = prune(varied(), options=options)
    far = prune(varied(), options=options, executor=Here())  # type: ignore[arg-type]  # the part of one that is used
    assert stripped(far) == stripped(near)


def test_prepare_reads_nothing_twice() -> None:
    setting = pruning.prepare(varied(), None, PruneOptions(sizes=(2, 3)))
    assert setting.parts.fit.fingerprint == split(varied()).fit.fingerprint
    assert setting.names([2, 0]) == tuple(
        name for name in AGENTS if name in [list(accuracies(setting.parts.fit))[rank] for rank in (0, 2)]
    )
