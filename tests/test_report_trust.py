"""Confidence and weights in a report: numbers by hand, the page, what a browser shows of it, and the figures."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browser import Opened, launched, opened
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from report_pages import HOSTILE, make_confidence, make_report, make_weights

from fusion.data import PredictionTable, write_table
from fusion.errors import InputError
from fusion.evaluation import BenchOptions, bench
from fusion.reports import _figure_parts as figure_parts
from fusion.reports._page_trust import WeightMap, diagrams
from fusion.reports.build import build_report, read_runs
from fusion.reports.figures import build_figures
from fusion.reports.html import AnsweredPart, ReportData, WeightTable, render

if TYPE_CHECKING:
    from playwright.sync_api import Browser

AGENTS = ("agent-0", "agent-1", "agent-2", "agent-3")


def embedded(page: str) -> dict[str, Any]:
    found = re.search(r'id="report-data">(.*?)</script>', page)
    assert found
    values: dict[str, Any] = json.loads(found[1])
    return values


def section(page: str, name: str) -> str:
    """The section without tags."""
    found = re.search(rf'<section id="{name}">(.*?)</section>', page, flags=re.DOTALL)
    assert found
    return re.sub(r"<[^>]+>", " ", found[1])


def weights(value: list[list[float]], counts: list[int], agents: str = "abc") -> WeightTable:
    return WeightTable(
        label="s",
        agents=tuple(agents[: len(value[0])]),
        categories=tuple(f"c{at}" for at in range(len(value))),
        counts=np.array(counts),
        value=np.array(value),
    )


class TestWeightMap:
    def test_by_hand(self) -> None:
        """Means over 3 + 1 questions: a (3 * 1 + 1 * -1) / 4 = 0.5, b 2 from the one category where it is heard.

        c is never heard, and left out; b weighs more than a, and comes first.
        """
        nan = np.nan
        found = WeightMap.of(weights([[1, nan, nan], [-1, 2, nan]], [3, 1]))
        assert found.agents == ("b", "a")
        assert found.rows == ("mean", "c0", "c1")
        assert found.counts.tolist() == [4, 3, 1]
        np.testing.assert_array_equal(found.value, [[2, 0.5], [nan, 1], [2, -1]])

    def test_what_is_the_same_in_all_categories_is_said_once(self) -> None:
        found = WeightMap.of(weights([[0.2, 0.7], [0.2, 0.7]], [3, 1]))
        assert (found.rows, found.agents) == (("mean",), ("b", "a"))
        np.testing.assert_allclose(found.value, [[0.7, 0.2]])

    @pytest.mark.parametrize(
        ("most", "unit", "digits", "words"),
        [
            (0.0, 1, 3, ""),
            (0.5, 1, 3, ""),
            (2.0, 1, 2, ""),
            (-30.0, 1, 1, ""),
            (400.0, 1, 0, ""),
            (0.032, 0.01, 2, "in units of 0.01"),
            (54321.0, 10000, 2, "in units of 10,000"),
        ],
    )
    def test_numbers_have_a_few_digits(self, most: float, unit: float, digits: int, words: str) -> None:
        found = WeightMap.of(weights([[most, 0.0]], [1]))
        assert (found.unit, found.digits, found.unit_words) == (pytest.approx(unit), digits, words)

    def test_members_of_equal_weight_keep_their_order(self) -> None:
        assert WeightMap.of(weights([[1, 2, 1]], [1])).agents == ("b", "a", "c")


class TestPage:
    def test_numbers_of_the_table(self) -> None:
        told = section(render(make_report()), "confidence")
        assert re.search(r"all\+vote\s+10\.0\s+5\.0\u201320\.0\s+20\.0\s+50\.0\s+20\.0 \(10\.0\u201340\.0\)", told)
        assert "may be wrong on 20.0 % of its answers" in told

    def test_without_a_risk_there_is_no_column_for_it(self) -> None:
        told = section(render(make_report(confidences=(make_confidence(answered=None),))), "confidence")
        assert "answered %" not in told
        assert "A ring" not in told
        nothing = AnsweredPart(risk=0.05, coverage=0.0)
        told = section(render(make_report(confidences=(make_confidence(answered=nothing),))), "confidence")
        assert re.search(r"20\.0\s+0\.0\s+\u2013", told)

    def test_what_the_charts_are_drawn_from(self) -> None:
        values = embedded(render(make_report()))
        vote, single = values["confidences"]
        assert vote["bins"] == [[10, 0.5, 0.6, 0.3, 0.8], [30, 0.9, 0.8, 0.6, 0.9]]
        assert (vote["coverage"], vote["risk"]) == ([0.25, 0.5, 1.0], [0.1, 0.2, 0.3])
        assert (vote["allowed"], vote["answered"]) == (0.2, [0.5, 0.2])
        assert single["bins"] == [], "a baseline that says the same of every answer"
        (found,) = values["weights"]
        # Of maths nobody listens to agent-0, so that its mean is (20 * 1.5 + 8 * 0.9) / 28.
        assert found["rows"] == ["mean", "law", "maths", "art"]
        assert found["value"][0] == pytest.approx((20 * 1.5 + 8 * 0.9) / 28, rel=1e-5)
        assert found["value"][8] is None

    def test_an_ensemble_that_says_the_same_of_every_answer_is_drawn(self) -> None:
        rows = (make_confidence("a", counts=[40], coverage=[1.0]), make_confidence("b", role="baseline", counts=[40]))
        assert [row.label for row in diagrams(make_report(confidences=rows))] == ["a"]

    def test_negative_weights_have_a_minus_sign_in_the_table(self) -> None:
        told = section(render(make_report()), "weights")
        assert re.search(r"agent-3\s+0\.32\s+0\.50\s+0\.40\s+\u22120\.25", told)
        assert re.search(r"agent-0\s+1\.33\s+1\.50\s+\u2013\s+0\.90", told)

    def test_foreign_text_is_only_ever_text(self) -> None:
        agents = (HOSTILE, "b", "c", "d")
        page = render(
            make_report(
                agents=agents, confidences=(make_confidence(HOSTILE),), weights=(make_weights(HOSTILE, agents),)
            )
        )
        assert "<img" not in page
        assert page.count("</script>") == render(make_report()).count("</script>")
        assert embedded(page)["weights"][0]["agents"][0] == HOSTILE


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"accuracy": np.zeros(3)}, "accuracy: expected shape"),
            ({"risk": np.zeros(1)}, "risk: expected shape"),
            ({"counts": [], "confidence": np.zeros(0)}, "expected a bin and a point"),
            ({"confidence": np.array([0.5, np.nan])}, r"must lie in \[0, 1\]"),
            ({"risk": np.array([0.0, 0.5, 1.5])}, r"must lie in \[0, 1\]"),
        ],
    )
    def test_confidences(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            make_confidence(**fields)

    def test_weights(self) -> None:
        with pytest.raises(InputError, match="no weight is known"):
            weights([[np.nan]], [1])
        with pytest.raises(InputError, match="counts: expected shape"):
            weights([[1.0]], [1, 2])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, 4, 300)
    right_NM = rng.random((300, 3)) < (0.7, 0.5, 0.3)
    place = tmp_path_factory.mktemp("runs")
    table = PredictionTable(
        question_ids=[f"q{n}" for n in range(300)],
        agents=("a", "b", "c"),
        answers=np.where(right_NM, labels_N[:, None], rng.integers(0, 4, (300, 3))),
        labels=labels_N,
        num_options=np.full(300, 4),
        categories=["law"] * 300,
    )
    write_table(table, place / "table.parquet")
    options = BenchOptions(repeats=200, abstain_at_risk=0.3)
    bench(place / "table.parquet", "vote, weighted_vote(weights=accuracy)", options=options).save(place / "run.json")
    return place


class TestBuild:
    def test_of_a_run(self, runs: Path) -> None:
        data = build_report(read_runs([runs / "run.json"]))
        told = json.loads((runs / "run.json").read_text())["systems"]
        said = [system for system in told if system["reliability"] is not None]
        assert len(said) > 2
        assert [row.label for row in data.confidences] == [system["label"] for system in said]
        for row, system in zip(data.confidences, said, strict=True):
            assert row.error == system["calibration_error"]
            assert row.counts.tolist() == [each["n"] for each in system["reliability"]]
            assert row.risk.tolist() == system["risk_coverage"]["risk"]
            assert row.answered is not None
            assert row.answered.coverage == system["selective"]["coverage"]
        # Votes that count alike are not shown.
        assert [table.label for table in data.weights] == ["all_agents+weighted_vote(weights=accuracy)"]
        assert embedded(render(data))["weights"][0]["rows"] == ["mean"]

    def test_runs_of_before_have_no_such_sections(self, runs: Path) -> None:
        content = json.loads((runs / "run.json").read_text())
        for item in (*content["systems"], *content["members"]):
            for key in ("reliability", "risk_coverage", "weights"):
                del item[key]
        (runs / "old.json").write_text(json.dumps(content))
        page = render(build_report(read_runs([runs / "old.json"])))
        assert not {"confidence", "weights"} & set(embedded(page)["sections"])
        assert 'id="confidence"' not in page


def points(axes: Axes, marker: str) -> list[tuple[float, float]]:
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [(float(x), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)]


def assert_nothing_sticks_out(figure: Figure) -> None:
    with figure_parts.styled():
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
    (left, low), (right, high) = box.min + 0.5 / 72, box.max - 0.5 / 72
    width, height = figure.get_size_inches()
    assert min(left, low, width - right, height - high) >= 0, f"{box} on {width} x {height} inches"


class TestFigures:
    def test_reliability_by_hand(self) -> None:
        (axes,) = build_figures(make_report())["reliability"].axes
        np.testing.assert_allclose(points(axes, "o"), [(50, 60), (90, 80)])
        heights = [bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]
        assert heights == pytest.approx([5, 15]), "10 and 30 answers"
        assert axes.get_xlim() == axes.get_ylim() == (0, 100)

    def test_risk_against_coverage_by_hand(self) -> None:
        figure = build_figures(make_report())["risk-coverage"]
        (axes,) = figure.axes
        curve, ring, alone = axes.lines[0], axes.lines[1], axes.lines[2]
        np.testing.assert_allclose(curve.get_xydata(), [[25, 10], [50, 20], [100, 30]])
        np.testing.assert_allclose(ring.get_xydata(), [[50, 20]])
        np.testing.assert_allclose(alone.get_xydata(), [[100, 30]])
        words = [each.get_text() for each in figure.legends[0].get_texts()]
        assert words == ["all+vote", "best single", "risk asked for", "where it stops"]

    def test_one_wrong_answer_does_not_flatten_the_rest(self) -> None:
        row = make_confidence(coverage=[0.01, 0.5, 1.0], risk=np.array([1.0, 0.1, 0.3]), answered=None)
        (axes,) = build_figures(make_report(confidences=(row,)))["risk-coverage"].axes
        assert axes.get_ylim()[1] == pytest.approx(1.06 * 30)
        assert float(np.max(axes.lines[0].get_ydata())) == pytest.approx(1.06 * 30)

    def test_weights_by_hand(self) -> None:
        axes = build_figures(make_report())["weights"].axes[0]
        (mesh,) = (found for found in axes.collections if isinstance(found, QuadMesh))
        values = np.asarray(mesh.get_array()).reshape(4, 4)
        assert values[3].tolist() == pytest.approx([(20 * 0.5 + 12 * 0.4 - 8 * 0.25) / 40, 0.5, 0.4, -0.25])
        assert [each.get_text() for each in axes.get_yticklabels()] == list(AGENTS)
        assert "\u2212.25" in [words.get_text() for words in axes.texts]
        assert mesh.get_clim() == (-1.5, 1.5), "white is 0"
        assert np.ma.getmaskarray(mesh.get_array()).sum() == 1

    def test_further_systems_are_figures_of_their_own(self) -> None:
        made = build_figures(make_report(weights=(make_weights("a", AGENTS), make_weights("b", AGENTS))))
        assert [name for name in made if name.startswith("weights")] == ["weights", "weights-2"]

    @pytest.mark.parametrize("num", [1, 2, 7, 12])
    def test_nothing_sticks_out(self, num: int) -> None:
        labels = [f"random_subset(size={n})+weighted_vote(weights=log_odds)" for n in range(num - 1)] + [HOSTILE]
        agents = tuple(f"organisation/model-{n}-with-a-name-that-does-not-fit" for n in range(24))
        data = make_report(
            num_agents=24,
            agents=agents,
            confidences=tuple(make_confidence(label) for label in labels),
            weights=tuple(make_weights(label, agents) for label in labels[:2]),
        )
        for name, figure in build_figures(data).items():
            if name.partition("-")[0] in ("reliability", "risk", "weights"):
                assert_nothing_sticks_out(figure)


# Not for the session: while the driver runs there is an event loop, and other tests start their own.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with launched() as found:
        yield found


@pytest.mark.browser
class TestBrowser:
    @pytest.fixture
    def shown(self, browser: "Browser", tmp_path: Path) -> Iterator[Opened]:
        with opened(browser, tmp_path / "report.html", render(self.report())) as found:
            yield found
            assert found.errors == []
            assert found.requests == []

    def report(self, **fields: Any) -> ReportData:
        second = make_confidence("top+vote", risk=np.array([0.05, 0.1, 0.25]), answered=None)
        single = make_confidence("best", role="baseline", counts=[40], coverage=[1.0], answered=None)
        rows = (make_confidence(), second, single)
        return make_report(**{"confidences": rows} | fields)

    def test_what_is_drawn(self, shown: Opened) -> None:
        panels = shown.page.locator("#confidence-panels figure")
        assert panels.locator("h3").all_inner_texts() == ["all+vote", "top+vote"]
        assert panels.first.locator("use").count() == 2
        assert shown.page.locator("#risk-legend li").count() == 3
        assert shown.page.locator("#risk-chart .curve").count() == 3
        dashes = {node.get_attribute("stroke-dasharray") for node in shown.page.locator("#risk-chart .curve").all()}
        assert len(dashes) == 3, "curves are told apart without colour"
        assert shown.page.locator("#risk-chart .stop").count() == 1
        cells = shown.page.locator("#weights-maps .cells rect")
        assert cells.count() == 16
        assert shown.page.locator("#weights-maps .cells rect.negative").count() == 1
        assert shown.page.locator("#weights-maps .cells rect.undefined").count() == 1
        assert "\u2212.25" in shown.page.locator("#weights-maps .inside").all_text_contents()

    def test_curves_are_read_with_the_keyboard(self, shown: Opened) -> None:
        chart = shown.page.locator("#risk-chart svg")
        chart.focus()
        shown.page.wait_for_timeout(200)  # scrolling to the focus puts tooltips away
        spoken = shown.page.locator("#spoken")
        chart.press("ArrowRight")
        assert spoken.text_content() == "all+vote. answers 25.0 % of the questions. 10.0 % of these wrong"
        chart.press("ArrowDown")
        assert spoken.text_content() == "top+vote. answers 25.0 % of the questions. 5.0 % of these wrong"
        assert shown.page.locator("#risk-chart .dim").count() == 2
        chart.press("ArrowRight")
        chart.press("ArrowRight")
        chart.press("ArrowRight")
        assert spoken.text_content() == "top+vote. answers 100.0 % of the questions. 25.0 % of these wrong"
        chart.press("Escape")
        assert shown.page.locator("#tip").is_hidden()
        assert shown.page.locator("#risk-chart .dim").count() == 0

    def test_a_dot_says_what_it_is_under_the_pointer(self, shown: Opened) -> None:
        dot = shown.page.locator("#confidence-panels figure").first.locator("use").nth(1)
        dot.scroll_into_view_if_needed()
        shown.page.wait_for_timeout(200)
        box = dot.bounding_box()
        assert box is not None
        shown.page.mouse.move(box["x"] + box["width"] / 2 + 1, box["y"] + box["height"] / 2 + 1)
        shown.page.wait_for_function("!document.getElementById('tip').hidden")
        assert shown.text("#tip strong") == "says 90.0 %"
        assert "80.0 % right (60.0\u201390.0)" in shown.text("#tip")

    def test_weights_are_read_with_the_keyboard(self, shown: Opened) -> None:
        chart = shown.page.locator("#weights-maps svg.chart")
        chart.focus()
        shown.page.wait_for_timeout(200)
        for key in ["ArrowRight", "ArrowDown"] * 3:
            chart.press(key)
        assert shown.page.locator("#spoken").text_content() == "agent-3, art. weight \u22120.25. 8 questions"

    def test_the_weights_are_there_as_a_table(self, shown: Opened) -> None:
        shown.page.locator("#weights summary").click()
        assert shown.page.locator("#weights table tbody tr").count() == 4

    @pytest.mark.parametrize("width", [400, 1280])
    def test_there_is_room(self, browser: "Browser", tmp_path: Path, width: int) -> None:
        label = "random_subset(size=5)+weighted_vote(weights=log_odds)" * 2
        agents = tuple(f"a-rather-long-name-of-a-model-{n}" for n in range(24))
        report = self.report(
            num_agents=24,
            agents=agents,
            confidences=tuple(make_confidence(f"{label}{n}") for n in range(3)),
            weights=(make_weights(label, agents),),
        )
        with opened(browser, tmp_path / "n.html", render(report), viewport={"width": width, "height": 800}) as shown:
            assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
            if width == 1280:
                # Numbers stay within their cells.
                wide = shown.page.evaluate(
                    "Math.max(...[...document.querySelectorAll('#weights-maps .inside')]"
                    ".map(node => node.getBoundingClientRect().width))"
                )
                assert wide < shown.page.locator("#weights-maps .cells rect").first.evaluate(
                    "node => node.getBoundingClientRect().width"
                )
            assert shown.errors == []

    def test_foreign_text_does_nothing(self, browser: "Browser", tmp_path: Path) -> None:
        agents = (HOSTILE, "b", "c", "d")
        report = self.report(
            agents=agents, confidences=(make_confidence(HOSTILE),), weights=(make_weights(HOSTILE, agents),)
        )
        with opened(browser, tmp_path / "h.html", render(report)) as shown:
            shown.page.locator("#risk-chart svg").press("ArrowRight")
            assert shown.page.evaluate("window.hit") is None
            assert shown.page.locator("img").count() == 0
            assert shown.errors == []

    def test_no_questions_answered_at_the_risk(self, browser: "Browser", tmp_path: Path) -> None:
        report = self.report(confidences=(make_confidence(answered=AnsweredPart(risk=0.05, coverage=0.0)),))
        with opened(browser, tmp_path / "o.html", render(report)) as shown:
            assert shown.page.locator("#risk-chart .stop").count() == 0
            assert shown.page.locator("#risk-chart .reference").count() == 1
            assert shown.errors == []
