"""Policy cards: one worked by hand, what must hold of any, files with and without them, the page, figures, terminal."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pytest
import tables
from browser import Opened, launched, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from report_pages import HOSTILE, make_policy, make_report
from rich.console import Console
from tables import by_hand, random_table

from fusion.data import PredictionTable, write_table
from fusion.ensemble import Ensemble, ask, ask_in_rounds
from fusion.errors import InputError
from fusion.evaluation import BenchOptions, BenchResult, CostPoint, PolicyCard, bench
from fusion.evaluation._policy import MAX_ROWS, Course, policy_card
from fusion.evaluation._trust import Groups
from fusion.reports import _figure_parts as figure_parts
from fusion.reports._page_policy import PolicyMap, span
from fusion.reports.build import build_report, read_runs
from fusion.reports.figures import build_figures
from fusion.reports.html import ReportData, SystemRow, render
from fusion.reports.tables import bench_tables
from fusion.schema import Decision, IntArray, Sees, Selection, Spent
from fusion.selectors.cascade import Cascade

if TYPE_CHECKING:
    from playwright.sync_api import Browser

QUICK = BenchOptions(repeats=200)


@dataclass(kw_only=True)
class UntilTwoAgree:
    """Asks one agent after another, in the table's order, until two have said the same."""

    sees: ClassVar[Sees] = "answers"

    def fit(self, table: PredictionTable) -> Self:
        return self

    def select(self, table: PredictionTable) -> Selection:
        assert table.asked is not None
        mask_NM = table.asked.copy()
        for n, asked_M in enumerate(table.asked):
            said = table.answers[n, asked_M & (table.answers[n] >= 0)].tolist()
            if len(said) == len(set(said)) and not asked_M.all():
                mask_NM[n, asked_M.argmin()] = True
        return Selection(mask_NM)


@dataclass(kw_only=True)
class Pairs:
    """Asks two at once, then everybody, and then listens to the last agent alone."""

    order: tuple[int, ...] = ()
    sees: ClassVar[Sees] = "answers"

    def fit(self, table: PredictionTable) -> Self:
        return self

    def select(self, table: PredictionTable) -> Selection:
        assert table.asked is not None
        mask_NM = np.ones_like(table.asked)
        if table.asked.all():
            mask_NM[:, :-1] = False
        elif not table.asked.any():
            mask_NM[:, 2:] = False
        return Selection(mask_NM, order=np.tile(self.order, (len(table), 1)) if self.order else None)


@dataclass(kw_only=True)
class Costly:
    """A fuser that runs models, or asks them."""

    runs: bool = True

    @property
    def slow(self) -> bool:
        return self.runs

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        spent = None if self.runs else Spent(calls=np.ones(len(table), dtype=np.int64))
        return Decision(np.zeros(len(table), dtype=np.int64), spent=spent)


def fit_part(**fields: Any) -> PredictionTable:
    """b is right on both questions, a on one, c on none."""
    return by_hand([[0, 0, 1], [1, 0, 1]], [0, 0], question_ids=["f0", "f1"], **fields)


def test_part(**fields: Any) -> PredictionTable:
    rows, labels = [[0, 0, 1], [0, 1, 1], [1, 0, 1], [0, 0, 0]], [0, 1, 0, 1]
    return by_hand(rows, labels, **fields)


test_part.__test__ = False  # type: ignore[attr-defined]  # it makes a table, it is no test


@pytest.fixture
def until_two(monkeypatch: pytest.MonkeyPatch) -> str:
    return f"{tables.install(monkeypatch, 'selectors', 'until_two', UntilTwoAgree)}+vote"


class TestByHand:
    def test_the_card(self, until_two: str) -> None:
        """a and b agree on q0 and q3; on q1 and q2 c is asked as well: 2, 3, 3 and 2 calls.

        Right in the end: q0 and q1, where c takes b's side. On q2 c takes that of a, who is wrong; on q3 all are.
        q0, q1 and q3 are about law: 7 calls, 2 of 3 right.
        """
        test = test_part(categories=["law", "law", "art", "law"])
        system = bench(fit_part(categories=["law", "art"]), until_two, test=test, options=QUICK).system(until_two)
        card = system.policy
        assert card is not None
        assert card.agents == ("a", "b", "c")
        assert card.asked == (1.0, 1.0, 0.5)
        assert card.first == (1.0, 0.0, 0.0)
        assert card.ends == (0.0, 0.5, 0.5)
        assert (card.categories, card.rest, card.counts) == (("law", "art"), 0, (3, 1))
        assert card.accuracy == pytest.approx((2 / 3, 0), abs=1e-5)
        assert card.calls == pytest.approx((7 / 3, 3), abs=1e-5)
        np.testing.assert_allclose(card.asked_by_category, [[1, 1, 1 / 3], [1, 1, 1]], atol=1e-5)

    def test_the_curve(self, until_two: str) -> None:
        """After one call a alone is heard: right on q0. After two, b, the better one, settles q1 and q2 as well.

        The third call wins nothing on q1 and loses q2. Tokens: 11 for a, 22 for b, 33 for c on half of the questions.
        """
        tokens = {"tokens_in": [[10, 20, 30]] * 4, "tokens_out": [[1, 2, 3]] * 4}
        system = bench(fit_part(), until_two, test=test_part(**tokens), options=QUICK).system(until_two)
        assert system.policy is not None
        curve = system.policy.curve
        assert [(point.most, point.calls, point.tokens, point.accuracy) for point in curve] == [
            (1, 1.0, 11.0, 0.25),
            (2, 2.0, 33.0, 0.75),
            (3, 2.5, 49.5, 0.5),
        ]
        # Wilson for 1 of 4.
        assert curve[0].ci95 == pytest.approx((0.0456, 0.6994), abs=1e-4)
        assert system.policy.curve_left_out is None
        assert system.policy.categories == ("",)

    def test_who_was_asked_when(self) -> None:
        table = test_part()
        course = Course.of(UntilTwoAgree(), table)
        assert course.place.tolist() == [[0, 1, -1], [0, 1, 2], [0, 1, 2], [0, 1, -1]]
        assert course.opening.tolist() == [[True, False, False]] * 4
        selection, asked_NM = ask(UntilTwoAgree(), table)
        np.testing.assert_array_equal(course.asked, asked_NM)
        np.testing.assert_array_equal(course.selection.mask, selection.mask)

    def test_agents_that_are_wanted_together_come_in_the_order_of_the_selection_else_by_name(self) -> None:
        table = by_hand([[0, 0, 1]], [0], agents=("z", "y", "x"))
        assert Course.of(Pairs(), table).place.tolist() == [[1, 0, 2]]
        ranked = Course.of(Pairs(order=(0, 1, 2)), table)
        assert ranked.place.tolist() == [[0, 1, 2]]
        assert ranked.opening.tolist() == [[True, True, False]]

    def test_who_is_dropped_in_the_end_was_heard_when_it_stops_earlier(self) -> None:
        """The whole policy listens to the third agent alone, and is wrong; stopped after two calls it hears these."""
        table = by_hand([[0, 0, 1]], [0])
        course = Course.of(Pairs(), table)
        fuser = Ensemble(table.agents, "all_agents", "vote").fit(table).fuser
        found = list(course.stopped(fuser, table, np.array([False])))
        assert [right_N.tolist() for _, _, right_N in found] == [[True], [True], [False]]
        assert [asked_NM.tolist() for _, asked_NM, _ in found] == [
            [[True, False, False]],
            [[True, True, False]],
            [[True, True, True]],
        ]


class TestRounds:
    def test_a_selector_that_does_not_look_has_one(self) -> None:
        table = random_table(1)
        selector = Ensemble(table.agents, "top_k(k=2)", "vote").fit(table).selector
        (only,) = ask_in_rounds(selector, table)
        np.testing.assert_array_equal(only.mask, ask(selector, table)[1])

    def test_the_last_one_wants_nobody_new(self) -> None:
        found = [selection.mask.sum(axis=1).tolist() for selection in ask_in_rounds(UntilTwoAgree(), test_part())]
        assert found == [[1] * 4, [2] * 4, [2, 3, 3, 2], [2, 3, 3, 2]]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), threshold=st.floats(0.3, 1.0))
def test_stopping_after_k_calls_is_what_a_limit_of_k_calls_does(seed: int, threshold: float) -> None:
    """A cascade knows a limit of its own; the fuser is the one that was fitted without it."""
    fit, test = random_table(seed, questions=60, prefix="f"), random_table(seed + 1, questions=40)
    ensemble = Ensemble(fit.agents, Cascade(threshold=threshold), "weighted_vote").fit(fit)
    right_N = ensemble.replay(test).decision.answers == test.require_labels()
    course = Course.of(ensemble.selector, test)
    for most, asked_NM, stopped_N in course.stopped(ensemble.fuser, test, right_N):
        limited = Cascade(threshold=threshold, max_calls=most).fit(fit)
        selection, expected_NM = ask(limited, test)
        np.testing.assert_array_equal(asked_NM, expected_NM)
        decided_N = ensemble.fuser.fuse(test.blind(), selection).answers
        np.testing.assert_array_equal(stopped_N, (decided_N == test.require_labels()) & (decided_N >= 0))


class TestBench:
    @pytest.mark.parametrize("cluster", ["none", "category"])
    @pytest.mark.parametrize("system", ["marl_focal(price=0.001)+topla_weighted", "cascade+sample_vote(samples=2)"])
    def test_the_last_point_is_the_system_itself(self, system: str, cluster: Any) -> None:
        table = random_table(3, questions=200)
        found = bench(table, system, options=BenchOptions(repeats=200, cluster=cluster)).system(system)
        assert found.policy is not None
        last = found.policy.curve[-1]
        assert (last.accuracy, last.ci95) == (found.accuracy, found.ci95)
        assert (last.calls, last.tokens) == (found.calls_per_question, found.tokens_per_question)
        assert [point.most for point in found.policy.curve] == list(range(1, last.most + 1))
        assert [point.calls for point in found.policy.curve] == sorted(point.calls for point in found.policy.curve)
        assert found.policy.ends[last.most - 1] > 0
        assert not any(found.policy.ends[last.most :])
        assert sum(found.policy.ends) == pytest.approx(1, abs=1e-4)
        share_C = np.array(found.policy.counts) / found.n
        assert share_C @ found.policy.accuracy == pytest.approx(found.accuracy, abs=1e-4)
        assert share_C @ found.policy.calls == pytest.approx(found.calls_per_question, abs=1e-4)
        np.testing.assert_allclose(share_C @ found.policy.asked_by_category, found.policy.asked, atol=1e-4)

    def test_only_systems_that_look_at_answers_have_one(self) -> None:
        result = bench(random_table(3, questions=120), "vote, top_k(k=2)+vote, cascade+vote", options=QUICK)
        assert [item.name for item in result.systems if item.policy is not None] == ["cascade+vote"]
        assert all(member.policy is None for member in result.members)

    @pytest.mark.parametrize("runs", [True, False])
    def test_a_fuser_that_runs_or_asks_models_is_not_run_again(
        self, runs: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = tables.install(monkeypatch, "fusers", "costly", Costly)
        fused: list[int] = []
        fuse = Costly.fuse
        monkeypatch.setattr(
            Costly, "fuse", lambda self, table, selection: (fused.append(len(table)), fuse(self, table, selection))[1]
        )
        system = f"cascade+{name}(runs={str(runs).lower()})"
        result = bench(random_table(3, questions=120), system, options=QUICK)
        found = result.systems[0]
        assert found.policy is not None
        assert found.policy.curve == ()
        assert found.policy.curve_left_out is not None
        assert "models" in found.policy.curve_left_out
        assert fused.count(found.n) == sum(name in item.name for item in result.systems), "once a system"
        # What the fuser asks itself is not the policy's.
        share_C = np.array(found.policy.counts) / found.n
        assert share_C @ found.policy.calls == pytest.approx(sum(found.policy.asked), abs=1e-4)

    def test_nothing_else_of_the_result_changes(self, until_two: str) -> None:
        """What a replay of the ensemble says is what the bench says."""
        ensemble = Ensemble(("a", "b", "c"), *until_two.split("+")).fit(fit_part())
        replay = ensemble.replay(test_part())
        found = bench(fit_part(), until_two, test=test_part(), options=QUICK).system(until_two)
        assert found.calls_per_question == replay.asked.sum(axis=1).mean()
        assert found.accuracy == (replay.decision.answers == [0, 1, 0, 1]).mean()


class TestFiles:
    def test_saved_and_read_back(self, tmp_path: Path) -> None:
        result = bench(random_table(3, questions=120), "cascade+vote, vote", options=QUICK)
        result.save(tmp_path / "run.json")
        assert BenchResult.load(tmp_path / "run.json") == result
        told = json.loads((tmp_path / "run.json").read_text())["systems"][0]["policy"]
        assert set(told) == set(PolicyCard.__dataclass_fields__)
        assert set(told["curve"][0]) == set(CostPoint.__dataclass_fields__)

    def test_results_of_before_are_read(self, tmp_path: Path) -> None:
        content: Any = bench(random_table(3, questions=120), "cascade+vote", options=QUICK).to_json()
        for item in (*content["systems"], *content["members"]):
            del item["policy"]
        (tmp_path / "run.json").write_text(json.dumps(content))
        assert BenchResult.load(tmp_path / "run.json").systems[0].policy is None

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"first": [1.0]}, "4 agents, but first has 1"),
            ({"counts": [1]}, "3 categories, but counts has 1"),
            ({"asked_by_category": [[0.5]] * 3}, "4 agents, but a row of asked_by_category has 1"),
        ],
    )
    def test_damaged_cards_are_refused(self, change: dict[str, Any], message: str, tmp_path: Path) -> None:
        content: Any = bench(random_table(3, questions=120), "cascade+vote", options=QUICK).to_json()
        content["systems"][0]["policy"] |= change
        (tmp_path / "run.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=rf"run\.json is damaged: policy card: {message}"):
            BenchResult.load(tmp_path / "run.json")

    @pytest.mark.parametrize(("num", "rows", "rest"), [(MAX_ROWS, MAX_ROWS, 0), (50, MAX_ROWS, 11)])
    def test_rare_categories_are_held_together(self, num: int, rows: int, rest: int) -> None:
        """Category i has i + 1 questions: of 50, the eleven smallest make 1 + ... + 11 = 66 questions."""
        codes_N = np.repeat(np.arange(num), np.arange(num) + 1)
        course = Course(Selection(np.ones((len(codes_N), 1), bool)), np.ones((len(codes_N), 1), bool), _zeros(codes_N))
        groups = Groups([f"c{code}" for code in range(num)], codes_N)
        card = policy_card(course, codes_N == 10, agents=("a",), groups=groups, samples=1, curve=())
        assert (len(card.categories), card.rest, sum(card.counts)) == (rows, rest, len(codes_N))
        assert (card.categories[0], card.counts[0]) == (f"c{num - 1}", num)
        if rest:
            assert (card.categories[-1], card.counts[-1]) == ("11 other categories", 66)
            assert card.accuracy[-1] == pytest.approx(11 / 66, abs=1e-5)


def _zeros(like_N: IntArray) -> IntArray:
    return np.zeros((len(like_N), 1), dtype=np.int16)


def section(page: str) -> str:
    """The section of policies without tags."""
    found = re.search(r'<section id="policies">(.*?)</section>', page, flags=re.DOTALL)
    assert found
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found[1]))


def embedded(page: str) -> dict[str, Any]:
    found = re.search(r'id="report-data">(.*?)</script>', page)
    assert found
    values: dict[str, Any] = json.loads(found[1])
    return values


class TestPage:
    def test_rows_and_columns_by_hand(self) -> None:
        """Of 20, 12 and 8 questions the second agent is asked on half of the 20: a quarter of all. Nobody else is.

        Right: (20 * 0.8 + 12 * 0.5 + 8 * 0.75) / 40 = 0.7. Calls: (20 * 1.5 + 12 + 8) / 40 = 1.25.
        """
        found = PolicyMap.of(make_policy("p", ("x", "y", "z")))
        assert found.agents == ("x", "y")
        assert found.rows == ("all questions", "law", "maths", "art")
        assert found.counts.tolist() == [40, 20, 12, 8]
        np.testing.assert_allclose(found.asked, [[1, 0.25], [1, 0.5], [1, 0], [1, 0]])
        np.testing.assert_allclose(found.accuracy, [0.7, 0.8, 0.5, 0.75])
        np.testing.assert_allclose(found.calls, [1.25, 1.5, 1, 1])

    def test_words_and_tables(self) -> None:
        told = section(render(make_report()))
        assert "It asks for 1.25 answers a question on average, from 1 in maths to 1.5 in law." in told
        assert "75.0 % of the questions end after one call. It never asks agent-2 and agent-3." in told
        assert "agent-0 100.0 %" in told
        assert "After one call 60.0 % are right; the last point, 70.0 %, is the system itself." in told
        assert "1 1.00 60.0 50.0\u201370.0 2 1.25 70.0 60.0\u201380.0" in told
        assert "asked %: agent-1 25.0 50.0 0.0 0.0" in told
        assert "calls a question 1.25 1.50 1.00 1.00 right % 70.0 80.0 50.0 75.0" in told

    def test_tokens_are_in_the_table_where_they_are_known(self) -> None:
        page = render(make_report(policies=(make_policy("p", ("a",), tokens=np.array([1234.4, 2000.0])),)))
        assert "1.00 60.0 50.0\u201370.0 1,234" in section(page)
        assert "tokens" not in section(render(make_report()))

    def test_one_category_is_not_told_twice(self) -> None:
        one = {"rows": ("law",), "counts": np.array([40]), "accuracy": np.array([0.7]), "calls": np.array([1.0])}
        table = make_policy("p", ("a", "b"), **one, asked=np.array([[1.0, 0.0]]))
        assert PolicyMap.of(table).rows == ("all questions",)
        assert "It asks for 1 answer a question on average." in section(render(make_report(policies=(table,))))

    def test_many_lines_are_put_together(self) -> None:
        agents = tuple(f"m{n:02}" for n in range(24))
        table = make_policy("p", agents, first=np.full(24, 1 / 24), ends=np.full(24, 1 / 24))
        told = section(render(make_report(num_agents=24, agents=agents, subsets=None, policies=(table,))))
        assert "m05 4.2 % 18 others 75.0 %" in told
        assert "9 4.2 % 10 to 24 62.5 %" in told

    def test_why_there_is_no_curve(self) -> None:
        table = make_policy("p", ("a", "b"), curve=np.zeros((0, 4)), left_out="the fuser runs models")
        page = render(make_report(policies=(table,)))
        assert "Not measured: the fuser runs models." in section(page)
        assert "policy-curve-0" not in page.partition("<script>")[0]

    def test_weak_members_and_baselines_lie_below_the_axis(self) -> None:
        """The curve's intervals reach down to 50 %; the best member and every ensemble stay in sight."""
        rows = [
            SystemRow(name=name, label=name, role=role, accuracy=right, low=right, high=right, calls_per_question=calls)
            for name, role, right, calls in (
                ("strong", "member", 0.45, 1.0),
                ("weak", "member", 0.2, 1.0),
                ("random", "baseline", 0.3, 2.0),
                ("vote", "system", 0.4, 4.0),
                ("oracle", "upper_bound", 0.99, 1.0),
            )
        ]
        report = make_report(systems=tuple(rows))
        assert span(report, PolicyMap.of(report.policies[0])) == (0.4, 0.8)
        assert "2 weaker ones lie below the axis" in section(render(report))

    def test_no_policy_no_section(self) -> None:
        page = render(make_report(policies=()))
        assert 'id="policies"' not in page
        assert "policies" not in embedded(page)

    def test_foreign_text_is_only_ever_text(self) -> None:
        agents = (HOSTILE, "b", "c", "d")
        policy = make_policy(HOSTILE, agents, rows=(HOSTILE, "x", "y"))
        page = render(make_report(agents=agents, policies=(policy,)))
        assert "<img" not in page
        assert page.count("</script>") == render(make_report()).count("</script>")
        assert embedded(page)["policies"][0]["agents"][0] == HOSTILE

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"first": np.zeros(3)}, "first: expected shape"),
            ({"calls": np.zeros(2)}, "calls: expected shape"),
            ({"asked": np.zeros((3, 1))}, "asked: expected shape"),
            ({"curve": np.zeros((2, 3))}, "curve: expected shape"),
            ({"tokens": np.zeros(1)}, "tokens: expected shape"),
            ({"rows": ()}, "expected a category at least"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            make_policy("p", ("a", "b"), **fields)


class TestBuild:
    def test_of_a_run(self, tmp_path: Path) -> None:
        table = tables.without(random_table(3, questions=120), "sample_answers", "seconds", "texts")
        write_table(table, tmp_path / "table.parquet")
        bench(tmp_path / "table.parquet", "vote, cascade+vote", options=QUICK).save(tmp_path / "run.json")
        data = build_report(read_runs([tmp_path / "run.json"]))
        (policy,) = data.policies
        card = BenchResult.load(tmp_path / "run.json").system("cascade+vote").policy
        assert card is not None
        assert policy.rows == card.categories
        assert policy.curve.tolist() == [[point.calls, point.accuracy, *point.ci95] for point in card.curve]
        assert policy.tokens is not None
        assert "policies" in embedded(render(data))["sections"]
        bench(tmp_path / "table.parquet", "vote", options=QUICK).save(tmp_path / "plain.json")
        page = render(build_report(read_runs([tmp_path / "plain.json"])))
        assert "policies" not in embedded(page)["sections"]
        assert 'id="policies"' not in page


class TestTerminal:
    def test_a_line_a_policy(self, until_two: str) -> None:
        """As worked above: nobody ends after one call, three at most; 25, 75 and in the end 50 % right."""
        found = bench_tables(bench(fit_part(), until_two, test=test_part(), options=QUICK))
        assert len(found) == 4
        cells = {str(column.header).replace("\n", " "): list(column.cells) for column in found[2].columns}
        assert [str(cell) for cell in cells["asks first"]] == ["a (100 %)"]
        assert cells["end after one call %"] == ["0.0"]
        assert cells["most calls"] == ["3"]
        assert [cells[name] for name in ("right %, if stopped at 1", " 2", " 4", " never")] == [
            ["25.0"],
            ["75.0"],
            [""],
            ["50.0"],
        ]

    def test_without_policies_there_is_no_table_of_them(self) -> None:
        assert len(bench_tables(bench(random_table(3, questions=120), "vote", options=QUICK))) == 3

    def test_it_fits_into_80_columns(self) -> None:
        systems = "marl_focal(price=0.001)+topla_weighted, cascade(threshold=0.95)+marl_aggregator"
        table = bench_tables(bench(random_table(3, questions=120), systems, options=QUICK))[2]
        console = Console(file=io.StringIO(), width=80, color_system=None)
        console.print(table)
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        assert "\u2026" not in text
        assert max(len(line) for line in text.splitlines()) <= 80


class TestFigures:
    def test_the_curve_by_hand(self) -> None:
        figure = build_figures(make_report())["policy-curve"]
        (axes,) = figure.axes
        np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 60], [1.25, 70]])
        words = [each.get_text() for each in figure.legends[0].get_texts()]
        assert words == ["stopped after k calls", "95 % interval", "ensemble", "member alone"]

    def test_the_map_by_hand(self) -> None:
        axes = build_figures(make_report())["policy"].axes[0]
        assert [each.get_text() for each in axes.get_yticklabels()] == ["agent-0", "agent-1"]
        assert [words.get_text() for words in axes.texts] == ["100"] * 4 + ["25", "50", "0", "0"]

    def test_further_policies_are_figures_of_their_own_and_one_may_have_no_curve(self) -> None:
        agents = tuple(f"organisation/model-{n}-with-a-name-that-does-not-fit" for n in range(24))
        wide = np.column_stack([[1.0, 9.0, 24.0], [0.5] * 3, [0.4] * 3, [0.6] * 3])
        policies = (
            make_policy("a" * 80, agents, asked=np.full((3, 24), 0.5), curve=wide),
            make_policy("b", agents, curve=np.zeros((0, 4)), left_out="slow"),
        )
        made = build_figures(make_report(num_agents=24, agents=agents, subsets=None, policies=policies))
        assert [name for name in made if name.startswith("policy")] == ["policy", "policy-curve", "policy-2"]
        assert made["policy-curve"].axes[0].get_xscale() == "log"
        for name in ("policy", "policy-curve", "policy-2"):
            with figure_parts.styled():
                made[name].draw_without_rendering()
                box = made[name].get_tightbbox()
            width, height = made[name].get_size_inches()
            sides = (*box.min, width - box.max[0], height - box.max[1])
            assert min(sides) >= -0.5 / 72, f"{name}: {box} on {width} x {height} inches"


# Not for the session: while the driver runs there is an event loop, and other tests start their own.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with launched() as found:
        yield found


@pytest.mark.browser
class TestBrowser:
    @pytest.fixture
    def shown(self, browser: "Browser", tmp_path: Path) -> Iterator[Opened]:
        with opened(browser, tmp_path / "report.html", render(make_report())) as found:
            yield found
            assert found.errors == []
            assert found.requests == []

    def test_what_is_drawn(self, shown: Opened) -> None:
        """Two agents and two columns of numbers, for all questions and three categories."""
        assert shown.page.locator("#policy-map-0 .cells rect").count() == 16
        inside = shown.page.locator("#policy-map-0 .inside").all_text_contents()
        assert inside == ["100", "25", "1.3", "70", "100", "50", "1.5", "80", "100", "1.0", "50", "100", "1.0", "75"]
        assert shown.page.locator("#policy-curve-0 .dots circle").count() == 2
        assert shown.page.locator("#policy-curve-0 .band").count() == 1
        assert shown.page.locator("#policy-curve-0 use[href='#m-member']").count() == 1

    def test_it_is_read_with_the_keyboard(self, shown: Opened) -> None:
        spoken = shown.page.locator("#spoken")
        heat = shown.page.locator("#policy-map-0 svg.chart")
        heat.focus()
        shown.page.wait_for_timeout(200)  # scrolling to the focus puts tooltips away
        for key in ("ArrowRight", "ArrowDown"):
            heat.press(key)
        assert spoken.text_content() == "agent-1, law. asked on 50.0 %. of 20 questions"
        curve = shown.page.locator("#policy-curve-0 svg.chart")
        curve.focus()
        shown.page.wait_for_timeout(200)
        curve.press("ArrowRight")
        assert spoken.text_content() == "stopped after 1 call at most. 60.0 % (50.0\u201370.0). 1.00 calls a question"
        curve.press("ArrowDown")
        assert spoken.text_content() == "agent-0. 50.0 % (40.0\u201360.0). 1 calls a question"

    def test_without_scripts_the_tables_are_there(self, browser: "Browser", tmp_path: Path) -> None:
        path = tmp_path / "still.html"
        path.write_text(render(make_report()), encoding="utf-8")
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(path.as_uri())
        assert page.locator("#policies .shares").count() == 2
        page.locator("#policies summary").first.click()
        assert "60.0" in page.locator("#policies .plain:not(.shares)").first.inner_text()
        context.close()

    @pytest.mark.parametrize("width", [400, 1280])
    def test_there_is_room_for_24_agents_and_22_categories(
        self, browser: "Browser", tmp_path: Path, width: int
    ) -> None:
        agents = tuple(f"a-rather-long-name-of-a-model-{n}" for n in range(24))
        asked = np.random.default_rng(0).random((22, 24))
        table = make_policy(
            "marl_focal(price=0.001)+topla_weighted" * 3,
            agents,
            rows=tuple(f"a-rather-long-name-of-a-category-{n}" for n in range(22)),
            counts=np.full(22, 10),
            asked=asked,
            accuracy=np.full(22, 0.765),
            calls=asked.sum(axis=1),
        )
        report: ReportData = make_report(num_agents=24, agents=agents, subsets=None, policies=(table,))
        with opened(browser, tmp_path / "n.html", render(report), viewport={"width": width, "height": 800}) as shown:
            assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
            wide = shown.page.evaluate(
                "Math.max(...[...document.querySelectorAll('#policy-map-0 .inside')]"
                ".map(node => node.getBoundingClientRect().width))"
            )
            cell = shown.page.locator("#policy-map-0 .cells rect").first
            assert wide < cell.evaluate("node => node.getBoundingClientRect().width")
            assert shown.errors == []
