"""bench: an evaluation worked by hand, what it refuses, what must not change its result, and its JSON."""

import dataclasses
import datetime
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tables
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import AGENTS, by_hand, random_table

from fusion import discovery
from fusion.data import PredictionTable
from fusion.demo import PRICES, simulated_table
from fusion.errors import InputError, InvalidSpec, InvalidTable, Leakage, TableMismatch, UnknownName, UsageError
from fusion.evaluation import DEFAULT_SYSTEMS, BenchConfig, BenchOptions, BenchResult, bench
from fusion.evaluation._config import Price
from fusion.schema import Spec, System
from fusion.selectors.oracle import Oracle

FEW = BenchOptions(repeats=200)


def fit_part(**fields: Any) -> PredictionTable:
    """a is right on 3 of 4; b and c, always of one mind, on 2."""
    return by_hand(
        [[0, 0, 0], [0, 0, 0], [0, 1, 1], [1, 1, 1]], [0] * 4, question_ids=[f"fit{n}" for n in range(4)], **fields
    )


def test_part(**fields: Any) -> PredictionTable:
    """q0 to q4: all right. q5: only a. q6 to q8: b and c. q9: nobody answers."""
    rows = [[0, 0, 0]] * 5 + [[0, 1, 1]] + [[1, 0, 0]] * 3 + [[-1, -1, -1]]
    return by_hand(rows, [0] * 10, num_options=[2] * 10, **fields)


test_part.__test__ = False  # type: ignore[attr-defined]  # it makes a table, it is no test

TOKENS = {"tokens_in": [[10, 20, 30]] * 10, "tokens_out": [[1, 2, 3]] * 10}
PRICE = {"a": (1.0, 2.0), "b": (3.0, 4.0), "c": (5.0, 6.0)}


def small(systems: str | Sequence[System | str] = "vote", **options: Any) -> BenchResult:
    return bench(fit_part(), systems, test=test_part(**TOKENS), options=BenchOptions(repeats=200, **options))


def stripped(result: BenchResult) -> dict[str, Any]:
    """The JSON without what differs from one run to the next."""
    found: dict[str, Any] = result.to_json()
    del found["run"]["started"], found["run"]["seconds"]
    return found


def test_accuracy_calls_tokens_and_price_by_hand() -> None:
    """The vote is right on q0-q4 and q6-q8, 8 of 10, and on 2 of 4 questions of the fit part; q9 gets no answer.

    It asks all three: 3 calls, 60 + 6 tokens. USD per million questions: a 10 * 1 + 1 * 2 = 12, b 20 * 3 + 2 * 4 = 68,
    c 30 * 5 + 3 * 6 = 168, together 248. Best single is a: 6 of 10, 3 of 4 in fit, 11 tokens, 12 USD. The oracle asks
    b on q6-q8 (b and c are equally good: pool order) and a on the other seven, and is right on 9:
    (7 * 12 + 3 * 68) / 10 = 28.8 USD, (7 * 11 + 3 * 22) / 10 = 14.3 tokens. Wilson's interval of 8 of 10, z = 1.96:
    centre (8 + 1.9207) / 13.8415 = 0.7167, half width 1.96 sqrt(8 * 2 / 10 + 0.9604) / 13.8415 = 0.2266.
    """
    result = small(prices=PRICE)
    vote, best, oracle = (result.system(f"{name}+vote") for name in ("all_agents", "single_best", "oracle"))
    assert (result.n, result.n_fit) == (10, 4)
    assert (vote.accuracy, vote.fit_accuracy, vote.abstained) == (0.8, 0.5, 0.1)
    assert (vote.calls_per_question, vote.tokens_per_question) == (3, 66)
    assert vote.usd_per_question == pytest.approx(248e-6)
    assert vote.ci95 == pytest.approx((0.7167 - 0.2266, 0.7167 + 0.2266), abs=1e-4)
    assert (best.accuracy, best.fit_accuracy, best.abstained) == (0.6, 0.75, 0.1)
    assert (best.calls_per_question, best.tokens_per_question) == (1, 11)
    assert best.usd_per_question == pytest.approx(12e-6)
    assert (oracle.accuracy, oracle.calls_per_question, oracle.role) == (0.9, 1, "upper_bound")
    assert oracle.tokens_per_question == pytest.approx(14.3)
    assert oracle.usd_per_question == pytest.approx(28.8e-6)
    assert [(member.name, member.accuracy, member.abstained) for member in result.members] == [
        ("a", 0.6, 0.1),
        ("b", 0.8, 0.1),
        ("c", 0.8, 0.1),
    ]
    assert [member.fit_accuracy for member in result.members] == [0.75, 0.5, 0.5]
    assert [member.tokens_per_question for member in result.members] == [11, 22, 33]
    assert result.outcomes.correct["all_agents+vote"] == "1111101110"


def test_paired_difference_by_hand() -> None:
    """The vote alone is right on q6, q7, q8, the best single on q5: 0.3 - 0.1. McNemar: 2 (1 + 4) / 2^4 = 0.625."""
    (pair,) = small().paired
    assert (pair.a, pair.b, pair.family) == ("all_agents+vote", "single_best+vote", "best single")
    assert (pair.only_a, pair.only_b, pair.n, pair.test) == (3, 1, 10, "exact McNemar")
    assert pair.difference == pytest.approx(0.2)
    assert pair.mcnemar_p == pair.p == pair.holm_p == 0.625
    assert pair.ci95[0] < 0 < 0.2 < pair.ci95[1]


def test_verdict_by_hand() -> None:
    assert re.fullmatch(
        r"all_agents\+vote does not beat the best single member, a: \+20\.0 points \(95 % CI -\d+\.\d to \+\d+\.\d, "
        r"exact McNemar p = 0\.62, n = 10\) at 3 calls a question against 1\.",
        small().verdict,
    )


def test_notes_by_hand() -> None:
    assert small().notes == (
        "the table has no samples, so the best single member sampled k times is not among the baselines",
        "the table has no categories, so the best single member per category is not among the baselines",
    )


def test_holm_is_over_the_systems_of_a_family() -> None:
    """fixed_subset of b, or of c, against a: the same 0.625 as the vote; three tests make it 3 * 0.625, capped at 1."""
    result = small("vote, fixed_subset(agents=[b])+vote, fixed_subset(agents=[c])+vote")
    family = [pair for pair in result.paired if pair.family == "best single"]
    assert [pair.p for pair in family] == [0.625] * 3
    assert [pair.holm_p for pair in family] == [1.0] * 3


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), agents=st.integers(1, 6), questions=st.integers(8, 80))
def test_what_holds_on_any_table(seed: int, agents: int, questions: int) -> None:
    """The parts of a result agree with each other and with the table."""
    table = random_table(seed, questions=questions, agents=AGENTS[:agents])
    result = bench(table, "vote, weighted_vote, top_k(k=1)+mean_probability", options=BenchOptions(repeats=100))
    test = table.with_ids(result.outcomes.question_ids)
    assert result.n + result.n_fit == questions
    for member, accuracy in zip(result.members, test.accuracies.tolist(), strict=True):
        assert member.accuracy == accuracy
    for item in (*result.systems, *result.members):
        assert 0 <= item.ci95[0] <= item.accuracy <= item.ci95[1] <= 1
        assert item.accuracy + item.abstained <= 1
        assert item.n == result.n
    for item in result.systems:
        assert item.accuracy == result.outcomes.of(item.name).mean()
        assert item.accuracy <= result.system("oracle+vote").accuracy
    for pair in result.paired:
        assert pair.difference == pytest.approx((pair.only_a - pair.only_b) / result.n)
        assert pair.difference == pytest.approx(result.system(pair.a).accuracy - result.system(pair.b).accuracy)
        assert -1 <= pair.ci95[0] <= pair.difference <= pair.ci95[1] <= 1
        assert 0 < pair.p <= pair.holm_p <= 1
    same = {result.system(name).accuracy for name in ("top_k(k=1)+mean_probability", "single_best+vote")}
    assert len(same) == 1, "one agent's likeliest option is its answer"


def test_every_baseline_is_there_by_default() -> None:
    """The pool has 4 agents and 3 samples of each; top_k asks 2: two samples of the best, and random pairs."""
    result = bench(random_table(1, questions=200), "top_k(k=2)+weighted_vote", options=FEW)
    assert [(item.name, item.role) for item in result.systems] == [
        ("top_k(k=2)+weighted_vote", "system"),
        ("single_best+vote", "baseline"),
        ("single_best+sample_vote(samples=2)", "baseline"),
        ("random_subset(size=2)+weighted_vote", "baseline"),
        ("single_best_per_category+vote", "baseline"),
        ("oracle+vote", "upper_bound"),
    ]
    best = max(random_table(1).agents, key=lambda name: _member(result, name).fit_accuracy or 0)
    assert [item.label for item in result.systems] == [
        "top_k(k=2)+weighted_vote",
        f"best single: {best}",
        f"best single x 2 samples: {best}",
        "random_subset(size=2)+weighted_vote",
        "best single per category",
        "oracle (reads the labels)",
    ]
    assert [item.calls_per_question for item in result.systems] == [2, 1, 2, 2, 1, 1]
    assert {(pair.family, pair.b) for pair in result.paired} == {
        ("best single", "single_best+vote"),
        ("other baselines", "single_best+sample_vote(samples=2)"),
        ("other baselines", "random_subset(size=2)+weighted_vote"),
        ("other baselines", "single_best_per_category+vote"),
    }
    assert result.notes == (
        "the right answer is not among the options of 12 questions; they are wrong for everybody who chooses among the "
        "answers given",
    )


def test_more_calls_than_samples_are_compared_with_all_samples() -> None:
    """Four agents, three samples: the best single member is sampled three times and compared with, and it is said."""
    result = bench(random_table(1, questions=200), "vote", options=FEW)
    others = [pair.b for pair in result.paired if pair.family == "other baselines"]
    assert others == ["single_best+sample_vote(samples=3)", "single_best_per_category+vote"]
    assert (
        "the best single member beside all_agents+vote is sampled 3 times, not 4: no more are recorded" in result.notes
    )


def test_fewer_samples_in_one_of_the_tables() -> None:
    """Three samples to fit on, two to evaluate on: the best single member is sampled twice."""
    fit, test = random_table(1, questions=80, prefix="fit"), random_table(2, prefix="test")
    assert test.sample_answers is not None
    fewer = dataclasses.replace(test, sample_answers=test.sample_answers[:, :, :2])
    names = {item.name for item in bench(fit, "vote", test=fewer, options=FEW).systems}
    assert {name for name in names if "sample" in name} == {"single_best+sample_vote(samples=2)"}
    without = bench(fit, "vote", test=tables.without(test, "sample_answers"), options=FEW)
    assert any("no samples" in note for note in without.notes)


def test_a_best_single_that_was_drawn_once_is_not_sampled() -> None:
    """Agents of one record may differ in how often they were drawn; what was never drawn is no baseline."""
    table = random_table(1, questions=200)
    assert table.sample_answers is not None
    best = int(table.accuracies.argmax())
    once = table.sample_answers.copy()
    once[:, best, 1:] = -1
    result = bench(dataclasses.replace(table, sample_answers=once), "vote", options=FEW)
    assert not any("sample_vote" in item.name for item in result.systems)
    assert any("one draw only of the best single member" in note for note in result.notes)


def test_sampling_an_ensemble_costs_agents_times_samples() -> None:
    """Two agents, three samples each: 6 calls. Random subsets of 4 (the pool) get one vote each, not three."""
    result = bench(random_table(1, questions=200), "top_k(k=2)+sample_vote(samples=3)", options=FEW)
    system = result.system("top_k(k=2)+sample_vote(samples=3)")
    once = bench(random_table(1, questions=200), "top_k(k=2)+vote", options=FEW).system("top_k(k=2)+vote")
    assert system.calls_per_question == 6
    assert system.tokens_per_question == pytest.approx(3 * once.tokens_per_question)  # type: ignore[operator]
    assert "random_subset(size=4)+vote" in {item.name for item in result.systems}


def test_one_agent() -> None:
    table = random_table(1, questions=60, agents=("solo",))
    result = bench(table, "vote", options=FEW)
    assert {item.accuracy for item in result.systems if "sample" not in item.name} == {result.members[0].accuracy}
    assert "does not beat the best single member, solo: +0.0 points" in result.verdict


@pytest.mark.parametrize("seed", [0, 1])
def test_same_seed_same_json(seed: int) -> None:
    table, options = random_table(1, questions=80), BenchOptions(seed=seed, repeats=200)
    first, second = (stripped(bench(table, "vote, top_k(k=2)+vote", options=options)) for _ in range(2))
    assert first == second
    other = stripped(bench(table, "vote", options=BenchOptions(seed=seed + 1, repeats=200)))
    assert other["outcomes"]["question_ids"] != first["outcomes"]["question_ids"]


def test_the_order_of_the_questions_does_not_matter() -> None:
    table = random_table(1, questions=80)
    turned = table.rows(np.arange(80)[::-1])
    first, second = (bench(part, "vote, top_k(k=2)+mean_probability", options=FEW) for part in (table, turned))
    assert first.systems == second.systems
    assert first.paired == second.paired
    assert first.verdict == second.verdict


def test_agents_in_another_order_give_the_same_result() -> None:
    fit, test = random_table(1, questions=80, prefix="fit"), random_table(2, prefix="test")
    first, second = (
        stripped(bench(fit, "vote, weighted_vote, top_k(k=2)+mean_probability", test=part, options=FEW))
        for part in (test, test.columns(test.agents[::-1]))
    )
    assert first == second


def test_agents_that_differ_are_named() -> None:
    fit, test = random_table(1, agents=AGENTS[:3]), random_table(2, agents=(*AGENTS[1:3], "newcomer"))
    with pytest.raises(
        TableMismatch, match=r"in the second missing ash; not expected newcomer; record the same agents"
    ):
        bench(fit, "vote", test=test)


def test_shared_questions_are_leakage() -> None:
    table = random_table(1)
    with pytest.raises(Leakage, match=r"10 question ids are in the table to fit on and in the .*q1-\d+, .*\.\.\.\)"):
        bench(table.rows(slice(0, 30)), "vote", test=table.rows(slice(20, 48)))


def test_parts_share_no_question() -> None:
    """What is evaluated on is what was not fitted on: 70 % of 100 go to the fit part."""
    table = random_table(1, questions=100)
    result = bench(table, "vote", options=FEW)
    assert (result.n, result.n_fit) == (30, 70)
    assert len(set(result.outcomes.question_ids)) == 30
    assert set(result.outcomes.question_ids) <= set(table.question_ids.tolist())


@pytest.mark.parametrize("part", ["table", "test"])
def test_unlabelled(part: str) -> None:
    fit, test = random_table(1), random_table(2, prefix="test")
    with pytest.raises(InvalidTable, match="labelled table"):
        bench(fit.blind() if part == "table" else fit, "vote", test=test.blind() if part == "test" else test)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_questions_to_split(count: int) -> None:
    with pytest.raises(InvalidTable, match=f"{count} questions cannot be split"):
        bench(random_table(1).rows(slice(0, count)), "vote")


def test_one_question_to_evaluate_on() -> None:
    """q7 of the hand-made table: the vote is right, a is wrong. p is 1 with one discordant question."""
    result = bench(fit_part(), "vote", test=test_part().rows(slice(7, 8)), options=FEW)
    (pair,) = result.paired
    assert (pair.difference, pair.p, pair.n) == (1.0, 1.0, 1)
    assert "does not beat" in result.verdict


def test_no_question_to_evaluate_on_or_to_fit_on() -> None:
    with pytest.raises(InvalidTable, match="the table to evaluate on has no questions"):
        bench(fit_part(), "vote", test=test_part().rows(slice(0, 0)))
    with pytest.raises(InvalidTable, match="no questions"):
        bench(fit_part().rows(slice(0, 0)), "vote", test=test_part())


def test_questions_whose_answer_is_not_an_option_count_as_wrong() -> None:
    result = bench(fit_part(), "vote", test=by_hand([[-1, -1, -1], [0, 0, 0]], [-1, -1]), options=FEW)
    assert result.system("all_agents+vote").accuracy == 0
    assert result.n == 2


def test_labels_tell_systems_apart() -> None:
    """The best single member under another fuser is not called by the baseline's name."""
    result = small("single_best+weighted_vote, single_best+vote")
    assert [item.label for item in result.systems[:2]] == ["single_best+weighted_vote", "best single: a"]
    assert "single_best+weighted_vote does not beat the best single member, a: +0.0" in result.verdict


def test_systems_asked_for_twice_are_evaluated_once() -> None:
    result = small(["vote", "all_agents+vote", System.parse("vote")])
    assert [item.name for item in result.systems if item.role == "system"] == ["all_agents+vote"]
    assert result.run.command["bench"] == ["all_agents+vote"]


@pytest.mark.parametrize("name", ["single_best+vote", "single_best_per_category+vote", "random_subset(size=2)+vote"])
def test_a_system_that_is_a_baseline(name: str) -> None:
    """It is in the table once, as a system; the other systems are compared with it once, as with a baseline."""
    table = random_table(1, questions=100)
    result = bench(table, f"top_k(k=2)+vote, {name}", options=FEW)
    assert [item.role for item in result.systems if item.name == name] == ["system"]
    pairs = [frozenset((pair.a, pair.b)) for pair in result.paired]
    assert len(set(pairs)) == len(pairs)
    assert all(len(pair) == 2 for pair in pairs)
    family = {frozenset((pair.a, pair.b)): pair.family for pair in result.paired}
    assert family[frozenset(("top_k(k=2)+vote", name))] in ("best single", "other baselines")


def test_the_oracle_as_a_system_is_an_upper_bound() -> None:
    result = small("oracle+vote")
    assert [(item.name, item.role) for item in result.systems] == [
        ("oracle+vote", "upper_bound"),
        ("single_best+vote", "baseline"),
    ]
    assert result.paired == ()
    assert result.verdict == "No system was asked for that could win: upper bounds read the labels."


def test_any_selector_that_reads_labels_is_an_upper_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is what the selector sees, not its name."""

    class Cheat(Oracle):
        """The oracle by another name."""

    tables.install(monkeypatch, "selectors", "cheat", Cheat)
    result = small("cheat+vote, vote")
    assert result.system("cheat+vote").role == "upper_bound"
    assert result.system("cheat+vote").label == "cheat+vote (reads the labels)"
    assert {pair.a for pair in result.paired} == {"all_agents+vote"}
    assert "cheat" not in result.verdict


@pytest.mark.parametrize(
    ("systems", "error", "message"),
    [
        ("", InvalidSpec, "expected the name of a method"),
        ([], UsageError, "at least one system"),
        ("vote,", InvalidSpec, "name of a method"),
        ("all_agents+voet", UnknownName, "did you mean 'vote'"),
        ("nobody+vote", UnknownName, "unknown selector 'nobody'"),
        ("single_best", InvalidSpec, r"write for example single_best\+vote"),
        ("top_k+vote", InvalidSpec, "needs k"),
        ("top_k(k=4)+vote", UsageError, "1 <= k <= 3"),
        ("fixed_subset(agents=[a, z])+vote", UnknownName, "unknown agent 'z'"),
        ("mean_probability", InvalidTable, "votes only"),
        ("sample_vote", InvalidTable, "samples"),
    ],
)
def test_systems_that_cannot_be_had(systems: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small(systems)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0])
def test_fit_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(UsageError, match="fit_fraction must lie between 0 and 1"):
        BenchOptions(fit_fraction=fraction)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"repeats": 99}, {"cluster": "passage"}, {"stratify": "categories"}])
def test_options_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        BenchOptions(**wrong)


def test_a_file_means_what_the_options_mean() -> None:
    assert BenchConfig(table="t").options() == BenchOptions()
    priced = BenchConfig(table="t", seed=3, prices={"a": Price(input=0, output=0.5)})
    assert priced.options() == BenchOptions(seed=3, prices={"a": (0, 0.5)})
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Price(input=-1, output=0)


def test_prices_of_an_agent_that_is_not_there() -> None:
    with pytest.raises(UnknownName, match=r"unknown agent \(in the prices\) 'aa'; did you mean 'a'"):
        small(prices={"aa": (1.0, 1.0)})


def test_prices_of_some_agents() -> None:
    """The price of c is unknown: the vote asks it, so its price is too; the best single, a, has its own."""
    result = small(prices={"a": (1.0, 2.0), "b": (0.0, 0.0)})
    assert result.system("all_agents+vote").usd_per_question is None
    assert result.system("single_best+vote").usd_per_question == pytest.approx(12e-6)
    assert [member.usd_per_question is None for member in result.members] == [False, False, True]
    assert result.members[1].usd_per_question == 0


def test_without_tokens_there_is_no_price() -> None:
    result = bench(fit_part(), "vote", test=test_part(), options=BenchOptions(repeats=200, prices=PRICE))
    assert {item.tokens_per_question for item in (*result.systems, *result.members)} == {None}
    assert {item.usd_per_question for item in (*result.systems, *result.members)} == {None}


def test_tokens_read_without_tokens_written_are_no_count() -> None:
    test = test_part(tokens_in=TOKENS["tokens_in"])
    result = bench(fit_part(), "vote", test=test, options=BenchOptions(repeats=200, prices=PRICE))
    assert {item.tokens_per_question for item in result.systems} == {None}


def test_one_call_is_not_compared_with_one_sample() -> None:
    """The best single member sampled once is the best single member."""
    result = bench(random_table(1, questions=200), "top_k(k=1)+vote", options=FEW)
    assert not any("sample" in item.name for item in result.systems)


def test_more_options_than_in_fit() -> None:
    """A letter that no fit question has: b and c say 4, which is right, against a, who says 0."""
    test = by_hand([[0, 4, 4]] * 6, [4] * 6)
    for name in ("vote", "weighted_vote(weights=accuracy)", "weighted_vote(weights=log_odds)"):
        assert bench(fit_part(), name, test=test, options=FEW).systems[0].accuracy == 1.0


def test_a_category_that_is_new() -> None:
    """On categories that the fit part lacks the router follows a, the best over all: 0 is right, b and c say 1."""
    fit = fit_part(categories=["x", "x", "y", "y"])
    result = bench(fit, "vote", test=by_hand([[0, 1, 1]] * 4, [0] * 4, categories=["z"] * 4), options=FEW)
    assert result.system("single_best_per_category+vote").accuracy == 1.0


@pytest.mark.parametrize("categories", [("x", None), (None, "x")])
def test_categories_in_one_table_only(categories: tuple[str | None, str | None]) -> None:
    in_fit, in_test = categories
    fit, test = fit_part(categories=in_fit and [in_fit] * 4), test_part(categories=in_test and [in_test] * 10)
    result = bench(fit, "vote", test=test, options=FEW)
    assert "single_best_per_category+vote" not in {item.name for item in result.systems}
    assert any("no categories" in note for note in result.notes)


def test_clusters() -> None:
    """Questions of a category as one draw: wider intervals, a t test, and McNemar's p kept for comparison."""
    table = random_table(1, questions=200, categories=[f"c{n}" for n in range(12)])
    alone, clustered = (
        bench(table, "vote", options=BenchOptions(repeats=200, cluster=cluster)) for cluster in ("none", "category")
    )
    for first, second in zip(alone.paired, clustered.paired, strict=True):
        assert (first.difference, first.mcnemar_p) == (second.difference, second.mcnemar_p)
        assert (first.test, second.test) == ("exact McNemar", "cluster-robust t")
        assert second.p != second.mcnemar_p
    assert "cluster-robust t p" in clustered.verdict
    assert [item.ci95 for item in alone.systems] != [item.ci95 for item in clustered.systems]
    assert [item.accuracy for item in alone.systems] == [item.accuracy for item in clustered.systems]


def test_clusters_that_depend_widen_the_interval() -> None:
    """Ten categories of 20 questions, all alike within each: an effective sample of 10, not of 200."""
    categories = np.repeat([f"c{n}" for n in range(10)], 20)
    answers = np.repeat([[0, 1, 1], [1, 0, 0]] * 5, 20, axis=0)
    test = by_hand(answers, [0] * 200, categories=categories)
    fit = fit_part(categories=["x"] * 4)
    widths = []
    for cluster in ("none", "category"):
        low, high = bench(fit, "vote", test=test, options=BenchOptions(repeats=200, cluster=cluster)).systems[0].ci95
        widths.append(high - low)
    assert widths[1] > 3 * widths[0]


def test_clusters_without_categories_or_with_one() -> None:
    with pytest.raises(InvalidTable, match="no categories"):
        small(cluster="category")
    one = {"categories": ["x"] * 10}
    with pytest.raises(UsageError, match="all 10 questions are in the category 'x'"):
        bench(fit_part(categories=["x"] * 4), "vote", test=test_part(**one), options=BenchOptions(cluster="category"))


def test_progress_is_told_before_each_step() -> None:
    told: list[tuple[str, int, int]] = []
    result = bench(
        random_table(1, questions=80), DEFAULT_SYSTEMS, options=FEW, progress=lambda *step: told.append(step)
    )
    assert [step for step, _, _ in told] == [*(item.name for item in result.systems), "paired statistics", "done"]
    assert [done for _, done, _ in told] == list(range(len(told)))
    assert all(done < total for _, done, total in told[:-1])
    assert told[-1] == ("done", len(told) - 1, len(told) - 1)
    totals = [total for _, _, total in told[3:]]
    assert len(set(totals)) == 1


def test_the_run_says_what_made_it() -> None:
    result = small(prices=PRICE, seed=3)
    assert result.run.command == {
        "bench": ["all_agents+vote"],
        "fit_fraction": None,
        "seed": 3,
        "stratify": "category",
        "cluster": "none",
        "repeats": 200,
        "prices": {"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [5.0, 6.0]},
        "abstain_at_risk": None,
        "table": None,
        "test": None,
    }
    assert result.run.tables == {"fit": fit_part().fingerprint, "test": test_part(**TOKENS).fingerprint}
    assert {"fusion", "python", "numpy", "scipy"} <= set(result.run.versions)
    assert result.run.seconds > 0
    checkout = (Path(__file__).parents[1] / ".git").exists()
    assert re.fullmatch(r"[0-9a-f]{40}\+?" if checkout else "", result.run.commit)
    assert datetime.datetime.fromisoformat(result.run.started).tzinfo is not None
    assert bench(random_table(1), "vote", options=FEW).run.command["fit_fraction"] == 0.7


def test_systems_are_named_so_that_they_can_be_rebuilt() -> None:
    result = bench(random_table(1, questions=80), "top_k(k=2)+weighted_vote(weights=log_odds)", options=FEW)
    for item in result.systems:
        system = System.parse(item.name)
        assert str(system) == item.name
        discovery.build("selectors", system.selector)
        discovery.build("fusers", system.fuser)


def test_agents_with_awkward_names() -> None:
    """Names with spaces, brackets and commas come back from the result's names."""
    agents = ("a b", "c,[d]", 'e "f"')
    fit = tables.renamed(fit_part(), agents)
    system = System(Spec("fixed_subset", {"agents": [agents[1], agents[2]]}), Spec("vote"))
    result = bench(fit, [system], test=tables.renamed(test_part(), agents), options=FEW)
    assert System.parse(result.systems[0].name) == system


# ---- JSON


def test_json_there_and_back(tmp_path: Path) -> None:
    result = bench(simulated_table(200), options=BenchOptions(repeats=200, prices=PRICES, cluster="category"))
    result.save(tmp_path / "run.json")
    again = BenchResult.load(tmp_path / "run.json")
    assert again == result
    assert again.to_json() == json.loads((tmp_path / "run.json").read_text())
    assert next(iter(result.to_json())) == "format"


def test_json_of_a_result_without_prices_samples_or_categories(tmp_path: Path) -> None:
    result = small("oracle+vote")
    result.save(tmp_path / "run.json")
    assert BenchResult.load(tmp_path / "run.json") == result
    assert "NaN" not in (tmp_path / "run.json").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not the JSON of fusion bench"),
        (b"{}", "is not the JSON of fusion bench: n: Field required"),
        (b"\xff", "is not the JSON of fusion bench"),
        (b"[1]", "is not the JSON of fusion bench"),
    ],
)
def test_json_that_is_no_result(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        BenchResult.load(tmp_path / "run.json")
    with pytest.raises(InputError, match="no run"):
        BenchResult.load(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("correct", {"all_agents+vote": "11"}, "all_agents\\+vote: expected a digit, 0 or 1, for each of 10"),
        ("correct", {"all_agents+vote": "111110111x"}, ".*: expected a digit, 0 or 1"),
        ("categories", ["law"], "10 question ids, but 1 categories"),
    ],
)
def test_json_whose_outcomes_do_not_fit(tmp_path: Path, key: str, value: Any, message: str) -> None:
    content = small().to_json()
    content["outcomes"] = {**content["outcomes"], key: value}  # type: ignore[dict-item]
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"run\.json is damaged: {message}"):
        BenchResult.load(tmp_path / "run.json")


def test_json_of_another_version(tmp_path: Path) -> None:
    content = small().to_json() | {"format": "fusion.bench/2"}
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"format: Input should be 'fusion\.bench/1'"):
        BenchResult.load(tmp_path / "run.json")


def documented(heading: str) -> set[str]:
    """The keys in the first column of the table below a heading of docs/bench-json.md; "" is the page's own table."""
    page = (Path(__file__).parents[1] / "docs" / "bench-json.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", page, flags=re.M)
    section = sections[0] if not heading else next(part for part in sections[1:] if part.startswith(heading))
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}


def test_every_key_is_documented_and_every_documented_key_is_there() -> None:
    result = bench(simulated_table(100), options=BenchOptions(repeats=200, prices=PRICES)).to_json()
    parts: dict[str, Any] = {
        "": result,
        "`systems` and `members`": _only(result["systems"]),
        "`paired`": _only(result["paired"]),
        "`run`": result["run"],
        "`outcomes`": result["outcomes"],
    }
    for heading, part in parts.items():
        assert documented(heading) == set(part), heading
    assert set(_only(result["members"])) == set(_only(result["systems"]))
    command = (Path(__file__).parents[1] / "docs" / "bench-json.md").read_text(encoding="utf-8")
    for key in (*parts["`run`"]["command"], *parts["`run`"]["tables"]):
        assert f"`{key}`" in command


def test_the_result_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        small().verdict = "better"  # type: ignore[misc]


def test_unknown_system_of_a_result() -> None:
    with pytest.raises(UnknownName, match=r"unknown system 'all_agents\+vot'; did you mean 'all_agents\+vote'"):
        small().system("all_agents+vot")


def _member(result: BenchResult, name: str) -> Any:
    return next(member for member in result.members if member.name == name)


def _only(items: Any) -> Any:
    keys = {tuple(item) for item in items}
    assert len(keys) == 1
    return items[0]
