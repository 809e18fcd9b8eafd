"""KNORA: regions worked by hand, a slow twin written from the definition, ties, and what it is worth on a record."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tables
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import by_hand, equal, random_table

from fusion import discovery
from fusion.data import PredictionTable, read_table
from fusion.ensemble import Ensemble, ask
from fusion.errors import InvalidSpec, InvalidTable, NotFitted, TableMismatch, UsageError
from fusion.evaluation import BenchOptions, bench
from fusion.schema import Selection
from fusion.selectors import _neighbours
from fusion.selectors._neighbours import looks, spreads
from fusion.selectors.knora import Knora

Mode = Literal["eliminate", "union"]
MODES: tuple[Mode, ...] = ("eliminate", "union")


def chosen(selection: Selection) -> list[list[int]]:
    return [np.flatnonzero(row).tolist() for row in selection.mask]


def fitted_on(right: Sequence[str], counts: Sequence[int], **fields: Any) -> PredictionTable:
    """Fit questions f0, f1, ... with so many options each; `right` has a row of 1 and 0 for each, one an agent."""
    answers_NM = 1 - np.array([[int(digit) for digit in row] for row in right])
    ids = [f"f{n}" for n in range(len(right))]
    return by_hand(answers_NM, [0] * len(right), question_ids=ids, num_options=counts, **fields)


def asked(counts: Sequence[int], agents: int, **fields: Any) -> PredictionTable:
    return by_hand(np.full((len(counts), agents), -1), num_options=counts, **fields)


# By number of options alone, around 2: f0, f1, f2, f3 in this order. a is right on f0 and f2, b on f0, f1 and f3, c on
# f0, f1 and f2, d on f3.
LINE = fitted_on(["1110", "0110", "1010", "0101"], [2, 3, 5, 9])


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, [0, 1, 2]),  # all right on f0
        (2, [1, 2]),  # b and c are right on f0 and f1
        (3, [2]),  # c alone is right on f0, f1 and f2
        (4, [2]),  # nobody is right on all four, so three are left
        (9, [2]),  # there are no more than four
    ],
)
def test_eliminate_by_hand(k: int, expected: list[int]) -> None:
    assert chosen(Knora(k=k).fit(LINE).select(asked([2], 4))) == [expected]


def test_eliminate_where_nobody_is_right_on_the_nearest() -> None:
    """Nearest to 8 are f3 (9), f2 (5) and f1 (3). On f3 b and d are right, on f3 and f2 nobody: b and d.

    With f3 right for nobody, hits among the three nearest decide: c has two, on f2 and f1, a and b one.
    """
    assert chosen(Knora(k=3).fit(LINE).select(asked([8], 4))) == [[1, 3]]
    nobody = fitted_on(["1110", "0110", "1010", "0000"], [2, 3, 5, 9])
    assert chosen(Knora(k=3).fit(nobody).select(asked([8], 4))) == [[2]]


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1e-12, [0, 1, 2]), (1 / 3, [0, 1, 2]), (0.5, [0, 1, 2]), (0.6, [0, 1, 2]), (0.7, [2]), (1.0, [2])],
)
def test_union_by_hand(share: float, expected: list[int]) -> None:
    """The three nearest to 2 are f0, f1, f2: hits 2, 2, 3, 0. d has none and never votes; a and b have 2/3 of c's."""
    assert chosen(Knora(mode="union", k=3, share=share).fit(LINE).select(asked([2], 4))) == [expected]


def test_union_share_is_not_lost_to_rounding() -> None:
    """50 and 7 hits of 50: 7 is 0.14 of 50, though 0.14 * 50 in binary is above 7."""
    assert 0.14 * 50 > 7
    fit = fitted_on(["11"] * 7 + ["10"] * 43, [2] * 50, categories=["x"] * 50)
    selector = Knora(mode="union", k=50, share=0.14)
    assert chosen(selector.fit(fit).select(asked([2], 2, categories=["x"]))) == [[0, 1]]


@pytest.mark.parametrize(("k", "expected"), [(1, [0, 1]), (2, [0]), (7, [0])])
def test_tied_questions_all_belong(k: int, expected: list[int]) -> None:
    """A category of four, equally far. Shares of right answers: a 4/4, b 3/4, c 2/4, d 0/4.

    One of one: more than 1/2 must be right. Two of two: more than 3/4, which only a is, and so on.
    """
    fit = fitted_on(["1110", "1110", "1100", "1000"], [2] * 4, categories=["x"] * 4)
    assert chosen(Knora(k=k).fit(fit).select(asked([2], 4, categories=["x"]))) == [expected]


def test_shrinking_a_tied_region_asks_for_less() -> None:
    """Five equally far: a is right on 4, b on 3, c on 2, and the region cannot shrink.

    Five of five asks for more than 9/10, four of four for more than 7/8, three of three for more than 5/6: nobody. Two
    of two asks for more than 3/4: a alone. Where the best are right on 3 of 5, one of one asks for more than 1/2.
    """
    fit = fitted_on(["111", "111", "110", "100", "000"], [2] * 5, categories=["x"] * 5)
    new = asked([2], 3, categories=["x"])
    assert chosen(Knora().fit(fit).select(new)) == [[0]]
    weaker = fitted_on(["110", "110", "111", "001", "000"], [2] * 5, categories=["x"] * 5)
    assert chosen(Knora().fit(weaker).select(new)) == [[0, 1]]


def test_questions_of_the_same_category_come_first() -> None:
    """The question of y looks like those of x, on which only a is right; the one of z is new: whoever looks like it."""
    fit = fitted_on(["10", "10", "01", "01"], [2, 2, 9, 9], categories=["x", "x", "y", "y"])
    new = asked([2, 9, 2, 9], 2, categories=["y", "x", "z", "z"])
    for mode in MODES:
        assert chosen(Knora(mode=mode, k=2).fit(fit).select(new)) == [[1], [0], [0], [1]]


def test_a_category_smaller_than_k_is_not_filled_up_from_others() -> None:
    fit = fitted_on(["10", "01", "01", "01"], [2] * 4, categories=["x", "y", "y", "y"])
    assert chosen(Knora(mode="union").fit(fit).select(asked([2], 2, categories=["x"]))) == [[0]]


def test_near_category_takes_no_notice_of_looks() -> None:
    """Of x, a is right on the two questions with 2 options, b on the four with 9."""
    fit = fitted_on(["10"] * 2 + ["01"] * 4, [2] * 2 + [9] * 4, categories=["x"] * 6)
    new = asked([2, 9, 2], 2, categories=["x", "x", "new"])
    assert chosen(Knora(k=2).fit(fit).select(new)) == [[0], [1], [0]]
    assert chosen(Knora(k=2, near="category").fit(fit).select(new)) == [[1]] * 3


def test_a_question_is_not_its_own_neighbour() -> None:
    """f0 and f1 look the same; a is right on f0 only, b on f1 only: asked about one, the other one decides.

    Another question is equally near to both, and a and b are each right on one of two.
    """
    fit = fitted_on(["10", "01"], [2, 2], categories=["x", "x"])
    for mode in MODES:
        selector = Knora(mode=mode, k=1).fit(fit)
        assert chosen(selector.select(fit)) == [[1], [0]]
        assert chosen(selector.select(asked([2], 2, categories=["x"]))) == [[0, 1]]


def test_alone_with_itself_everybody_takes_part() -> None:
    fit = fitted_on(["10"], [2], categories=["x"])
    assert chosen(Knora().fit(fit).select(fit)) == [[0, 1]]
    assert chosen(Knora().fit(fit).select(asked([2], 2, categories=["x"]))) == [[0]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("right", ["111", "000"])
def test_all_right_and_all_wrong(mode: Mode, right: str) -> None:
    fit = fitted_on([right] * 9, list(range(2, 11)))
    assert chosen(Knora(mode=mode).fit(fit).select(asked([2, 6], 3))) == [[0, 1, 2]] * 2


@pytest.mark.parametrize("mode", MODES)
def test_a_pool_of_one(mode: Mode) -> None:
    fit = fitted_on(["1", "0", "0"], [2, 5, 9])
    assert chosen(Knora(mode=mode, k=2).fit(fit).select(asked([2, 9], 1))) == [[0], [0]]


def test_abstaining_is_wrong_and_a_label_outside_the_options_is_wrong_for_everybody() -> None:
    fit = by_hand([[0, -1], [0, 1]], [0, -1], question_ids=["f0", "f1"], num_options=[2, 9])
    assert chosen(Knora(k=1).fit(fit).select(asked([2, 9], 2))) == [[0], [0, 1]]


def test_looks_by_hand() -> None:
    """Options "12" and "ab3": 5 characters, 2.5 on average, 3 digits. log2(3.5) = 1.8074, 3 / 5. No text at all: 0."""
    table = by_hand([[0], [0]], options=[("12", "ab3"), ("",)])
    np.testing.assert_array_equal(looks(table, options=True).round(4), [[2, 1.8074, 0.6], [1, 0, 0]])
    equal(looks(table, options=False), np.array([[2.0], [1.0]]))


def test_spreads_by_hand() -> None:
    """The standard deviation of 1 and 5 is 2; a column that is always the same has none, and is left as it is."""
    equal(spreads(np.array([[1.0, 0.1], [5.0, 0.1]])), np.array([2.0, 1.0]))


# ---- Against a twin that follows the definition question by question.


def slow(selector: Knora, fit: PredictionTable, question: PredictionTable) -> list[bool]:
    """Whom to select for the only question of a table; no arrays, no cells, no tree."""
    look, spread = _looks(fit), [statistics.pstdev(column) or 1.0 for column in zip(*_looks(fit), strict=True)]
    (own,), (target,) = question.question_ids.tolist(), _looks(question)
    assert fit.categories is not None
    assert question.categories is not None
    rows = [n for n in range(len(fit)) if fit.categories[n] == question.categories[0]] or list(range(len(fit)))
    rows = [n for n in rows if fit.question_ids[n] != own]
    scaled = {n: [(x - y) / s for x, y, s in zip(look[n], target, spread, strict=True)] for n in rows}
    far = {n: math.hypot(*scaled[n]) if selector.near == "question" else 0.0 for n in rows}

    def region(size: int) -> list[int]:
        radius = sorted(far.values())[size - 1]
        return [n for n in rows if far[n] <= radius + 1e-9]

    size, agents = min(selector.k, len(rows)), range(fit.num_agents)
    right = fit.correct.tolist()
    hits = [sum(right[n][m] for n in region(size)) if size else 0 for m in agents]
    if selector.mode == "union":
        return [hits[m] >= selector.share * max(hits) - 1e-9 and (hits[m] > 0 or not any(hits)) for m in agents]
    for level in range(size, 0, -1):
        inside = region(level)
        passes = [sum(not right[n][m] for n in inside) * 2 * level < len(inside) for m in agents]
        if any(passes):
            return passes
    return [hits[m] == max(hits) for m in agents]


def _looks(table: PredictionTable) -> list[tuple[float, ...]]:
    rows = zip(table.num_options.tolist(), table.options or [()] * len(table), strict=True)
    found: list[tuple[float, ...]] = []
    for count, options in rows:
        text = "".join(options)
        digits = sum(character in "0123456789" for character in text) / max(len(text), 1)
        found.append((float(count), math.log2(1 + len(text) / count), digits))
    return found


def crowded(seed: int, prefix: str, questions: int) -> PredictionTable:
    """A random table in which many questions look the same, and many others are equally far."""
    rng = np.random.default_rng(seed)
    table = random_table(seed, questions=questions, prefix=prefix)
    options = [tuple(rng.choice(["a", "12", "x9"]) for _ in range(count)) for count in table.num_options.tolist()]
    fields = {name: getattr(table, name) for name in ("question_ids", "agents", "answers", "labels", "categories")}
    return PredictionTable(**fields, options=options)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    mode=st.sampled_from(MODES),
    near=st.sampled_from(["question", "category"]),
    k=st.integers(1, 60),
    share=st.sampled_from([0.01, 0.3, 0.5, 1.0]),
    questions=st.integers(1, 60),
)
def test_agrees_with_the_slow_twin(seed: int, mode: Any, near: Any, k: int, share: float, questions: int) -> None:
    fit, new = crowded(seed, "fit", questions), crowded(seed + 1, "new", 12)
    selector = Knora(mode=mode, near=near, k=k, share=share).fit(fit)
    for table in (new, fit.rows(slice(0, 6))):
        found_NM = selector.select(table.unanswered()).mask
        equal(found_NM, np.array([slow(selector, fit, table.rows([n])) for n in range(len(table))]))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, mode: Mode) -> None:
    """One place a block, and more cells fetched where some are tied."""
    fit, new = crowded(3, "fit", 400), crowded(4, "new", 50)
    expected_NM = Knora(mode=mode, k=3).fit(fit).select(new).mask
    monkeypatch.setattr(_neighbours, "_BLOCK", 1)
    equal(Knora(mode=mode, k=3).fit(fit).select(new).mask, expected_NM)


def test_more_cells_are_tied_than_are_fetched_at_first() -> None:
    """30 categories with one question each, all looking the same, and a question of none of them: all 30 are near."""
    fit = fitted_on(["10"] * 10 + ["01"] * 20, [2] * 30, categories=[f"c{n}" for n in range(30)])
    assert chosen(Knora(k=1).fit(fit).select(asked([2], 2, categories=["new"]))) == [[1]]
    union = Knora(mode="union", k=1, share=0.5).fit(fit)
    assert chosen(union.select(asked([2], 2, categories=["new"]))) == [[0, 1]]


def test_questions_as_far_to_either_side_are_tied_whatever_rounding_makes_of_it() -> None:
    """Halfway between f0, on which a is right, and f1, on which b is, both are; f2 is farther, and spreads are odd."""
    for low in range(2, 9):
        for step in range(1, 5):
            fit = fitted_on(["10", "01", "00"], [low, low + 2 * step, 30])
            assert chosen(Knora(k=1).fit(fit).select(asked([low + step], 2))) == [[0, 1]]


def test_spreads_do_not_depend_on_the_order_of_questions() -> None:
    rng = np.random.default_rng(0)
    looks_ND = rng.random((1000, 3))
    moved_ND = rng.permutation(looks_ND)
    assert (looks_ND.std(axis=0) != moved_ND.std(axis=0)).any()
    equal(spreads(moved_ND), spreads(looks_ND))


def test_the_order_of_fit_questions_does_not_count() -> None:
    fit, new = crowded(5, "fit", 200), crowded(6, "new", 60)
    expected_NM = Knora().fit(fit).select(new).mask
    order_N = np.random.default_rng(0).permutation(len(fit))
    equal(Knora().fit(fit.rows(order_N)).select(new).mask, expected_NM)


def test_the_fuser_is_fitted_on_what_it_will_see() -> None:
    """Agents that guess: were questions their own neighbours, agents selected for them would always be right.

    With k = 1 and no two questions alike, whoever is selected for a fit question is right on another one, and a guess
    among five stays one: 1,000 answers and more, about 0.2 of them right, give or take 4 standard deviations of 0.01.
    """
    rng = np.random.default_rng(0)
    counts = rng.permutation(500) + 5
    fit = by_hand(rng.integers(0, 5, (500, 12)), rng.integers(0, 5, 500).tolist(), num_options=counts)
    selection, _ = ask(Knora(k=1).fit(fit), fit)
    assert selection.mask.sum() > 1000
    assert abs(fit.correct[selection.mask].mean() - 0.2) < 0.05


# ---- What it refuses, and what it keeps.


def test_before_fit() -> None:
    with pytest.raises(NotFitted, match="knora"):
        Knora().select(LINE)


def test_other_agents() -> None:
    with pytest.raises(TableMismatch):
        Knora().fit(LINE).select(asked([2], 3))


def test_a_table_that_tells_no_question_from_another() -> None:
    plain = fitted_on(["10", "01"], [2, 2])
    with pytest.raises(InvalidTable, match="tells none from another"):
        Knora().fit(plain)
    with pytest.raises(InvalidTable, match="no categories"):
        Knora(near="category").fit(LINE)
    with pytest.raises(InvalidTable, match="empty"):
        Knora().fit(LINE.rows(slice(0, 0)))


def test_a_table_that_lacks_what_the_fit_table_had() -> None:
    fit = random_table(1)
    selector = Knora().fit(fit)
    with pytest.raises(InvalidTable, match="no categories"):
        selector.select(tables.without(fit, "categories"))
    with pytest.raises(InvalidTable, match=r"texts of options.*near=category"):
        selector.select(tables.without(fit, "options"))
    Knora(near="category").fit(fit).select(tables.without(fit, "options"))
    Knora().fit(tables.without(fit, "options", "categories")).select(fit)


@pytest.mark.parametrize("params", [{"k": 0}, {"share": 0.0}, {"share": 1.5}])
def test_parameters_out_of_range(params: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(params))):
        Knora(**params).fit(LINE)
    with pytest.raises(InvalidSpec):
        discovery.build("selectors", f"knora({'='.join(map(str, *params.items()))})")


@pytest.mark.parametrize("system", ["knora(k=5)", "knora(mode=union, near=category, share=0.7)"])
def test_saved_and_loaded(tmp_path: Path, system: str) -> None:
    fit, new = crowded(7, "fit", 80), crowded(8, "new", 40)
    ensemble = Ensemble(fit.agents, system, "vote").fit(fit)
    ensemble.save(tmp_path)
    equal(Ensemble.load(tmp_path).replay(new).selection.mask, ensemble.replay(new).selection.mask)


def test_a_large_table() -> None:
    """20,000 questions that all look different, against 5,000: the mask has 24 columns, the largest block 8 MiB."""
    rng = np.random.default_rng(0)
    counts = rng.integers(2, 30_000, 25_000)
    fit = by_hand(rng.integers(0, 2, (5000, 24)), [0] * 5000, num_options=counts[:5000])
    new = asked(counts[5000:].tolist(), 24)
    mask_NM = Knora().fit(fit).select(new).mask
    assert mask_NM.any(axis=1).all()
    few_NM = Knora().fit(fit).select(new.rows(slice(0, 20))).mask
    equal(few_NM, mask_NM[:20])


def test_on_recorded_answers(recorded_data: Path) -> None:
    """Categories alone: eliminate takes a few strong agents and beats the vote of all by far, union comes between."""
    table = read_table(recorded_data / "mmlu_pro" / "predictions.csv.gz")
    names = ("knora+vote", "knora(mode=union)+vote", "all_agents+vote", "single_best_per_category+vote")
    result = bench(table, names, options=BenchOptions(repeats=100))
    eliminate, union, everybody, router = (result.system(name) for name in names)
    assert eliminate.accuracy - 0.03 > union.accuracy > everybody.accuracy + 0.03
    assert abs(eliminate.accuracy - router.accuracy) < 0.02
    assert eliminate.calls_per_question < 6
