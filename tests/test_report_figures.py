"""Figures for papers: what is drawn where, what is left out, that nothing sticks out, and the same bytes each time."""

import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.figure import Figure
from report_pages import HOSTILE, VARIANTS, make_cloud, make_report

from fusion.data import read_table
from fusion.errors import MissingDependency, OutputError
from fusion.reports import _figure_parts as figure_parts
from fusion.reports import _page_numbers as numbers
from fusion.reports.figures import build_figures, write_figures
from fusion.reports.html import MemberWorth, ReportData, SystemRow

NAMES = ["systems", "diversity", "errors", "failures", "pareto", "worth", "categories"]
NAMES += ["policy", "policy-curve", "reliability", "risk-coverage", "weights"]
LLAMAS = tuple(f"meta-llama/Meta-Llama-3.1-{size}B-Instruct-Turbo" for size in (8, 70, 405))


def tick_words(axes: Axes) -> tuple[list[str], list[str]]:
    return [each.get_text() for each in axes.get_xticklabels()], [each.get_text() for each in axes.get_yticklabels()]


def legend_words(figure: Figure) -> list[str]:
    return [words.get_text() for legend in figure.legends for words in legend.get_texts()]


def drawn_points(axes: Axes, marker: str) -> list[tuple[float, float]]:
    """The points drawn with a marker, in drawing order."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [(float(x), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)]


def assert_nothing_sticks_out(drawn: dict[str, Figure]) -> None:
    """Draw, and look whether everything lies on the paper."""
    for name, figure in drawn.items():
        with figure_parts.styled():
            figure.draw_without_rendering()
            box = figure.get_tightbbox()
        # Half a point of tolerance: hints move letters by fractions of a pixel.
        (left, low), (right, high) = box.min + 0.5 / 72, box.max - 0.5 / 72
        width, height = figure.get_size_inches()
        assert min(left, low, width - right, height - high) >= 0, f"{name}: {box} on {width} x {height} inches"


@pytest.fixture(scope="module")
def everything() -> ReportData:
    return make_report()


@pytest.fixture(scope="module")
def drawn(everything: ReportData) -> dict[str, Figure]:
    return build_figures(everything)


@pytest.fixture(scope="module")
def written(everything: ReportData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_figures(everything, tmp_path_factory.mktemp("figures") / "made")


def test_every_figure_is_written_as_png_and_pdf(written: tuple[Path, ...]) -> None:
    assert [path.name for path in written] == [f"{name}.{suffix}" for name in NAMES for suffix in ("png", "pdf")]
    assert sorted(written[0].parent.iterdir()) == sorted(written)


def test_pictures_have_the_width_of_a_column_or_of_two_at_200_dpi(written: tuple[Path, ...]) -> None:
    """3.3 and 7 inches are 660 and 1400 pixels; 200 dpi are 7874 a metre."""
    for path in written[::2]:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert content.endswith(b"IEND\xaeB`\x82")
        assert struct.unpack(">I", content[16:20])[0] in (660, 1400)
        assert struct.pack(">II", 7874, 7874) in content


def test_documents_embed_truetype_and_tell_no_date(written: tuple[Path, ...]) -> None:
    for path in written[1::2]:
        content = path.read_bytes()
        assert content.startswith(b"%PDF-")
        assert content.rstrip().endswith(b"%%EOF")
        assert b"/FontFile2" in content
        assert b"/Type3" not in content
        assert b"Date" not in content
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", content)
        assert box
        assert float(box[1]) in (237.6, 504)


def test_the_same_data_give_the_same_bytes_in_another_process(written: tuple[Path, ...], tmp_path: Path) -> None:
    """Under another hash seed, other settings and without a display; settings come back, and pyplot is not loaded."""
    script = f"""
import sys
from pathlib import Path
import matplotlib
from report_pages import make_report
from fusion.reports.figures import write_figures
assert not any(name.startswith("matplotlib.pyplot") for name in sys.modules)
matplotlib.rcParams.update({{"font.size": 20, "pdf.fonttype": 3, "savefig.bbox": "tight", "text.color": "red"}})
before = dict(dict.items(matplotlib.rcParams))
write_figures(make_report(), Path({str(tmp_path)!r}))
assert dict(dict.items(matplotlib.rcParams)) == before
assert "matplotlib.pyplot" not in sys.modules
"""
    places = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    surroundings = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    surroundings |= {"PYTHONPATH": places, "PYTHONHASHSEED": "77"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], env=surroundings, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for path in written:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_missing_is_left_out(name: str) -> None:
    left_out = {
        "one agent": {"diversity", "errors", "failures"},
        "sixty agents": {"diversity"},
        "no categories": {"categories"},
        "no labels": {"errors", "failures", "categories"},
        "bare": set(NAMES),
    }.get(name, set())
    made = build_figures(make_report(**VARIANTS[name]))
    kept = [each for each in NAMES if each not in left_out]
    agreement = ["agreement"] if name in ("no labels", "bare") else []
    assert sorted(made) == sorted([*kept, *agreement])
    if name not in ("sixty agents", "no texts", "no ensembles", "wide answers"):  # large, or like everything
        assert_nothing_sticks_out(made)


def test_nothing_is_made_of_a_single_agent_alone(tmp_path: Path) -> None:
    bare = make_report(**{**VARIANTS["bare"], "num_agents": 1})
    assert write_figures(bare, tmp_path / "none") == ()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "agents",
    [LLAMAS, (HOSTILE * 40, "$x_1$\n\x00", "\u4e2d\u6587\udc80"), ("", " ", "W" * 5000)],
    ids=["long", "hostile", "odd"],
)
def test_any_name_can_be_drawn(agents: tuple[str, ...], tmp_path: Path) -> None:
    rows = tuple(
        SystemRow(name=name, label=name, role="member", accuracy=0.5, low=0.5, high=0.5, usd_per_question=0.0)
        for name in agents
    )
    data = make_report(
        num_agents=3, agents=agents, categories=(agents * 20)[:40], systems=rows, worth=None, ensembles={}
    )
    assert_nothing_sticks_out(build_figures(data))


def test_sixty_long_names_stay_apart() -> None:
    agents = tuple(f"organisation/model-{number}-with-a-name-that-does-not-fit-anywhere" for number in range(60))
    zeros = np.zeros(60)
    rows = tuple(
        SystemRow(name=name, label=name, role="member", accuracy=0.5, low=0.4, high=0.6, calls_per_question=place)
        for place, name in enumerate(agents)
    )
    worth = MemberWorth(agents=agents, loo=zeros, shapley=zeros, shapley_low=zeros, shapley_high=zeros)
    data = make_report(num_agents=60, agents=agents, categories=None, subsets=None, systems=rows, worth=worth)
    made = build_figures(data)
    assert_nothing_sticks_out(made)
    for name in ("systems", "worth"):
        words = [word for axes in made[name].axes for word in tick_words(axes)[1]]
        assert len(set(words)) == 60
        assert made[name].get_size_inches()[0] == 7
    assert len(set(tick_words(made["errors"].axes[0])[1])) == 60


def test_names_are_cut_where_they_do_not_differ() -> None:
    """The three names share both ends, so that leaving out the middle would make them one."""
    with figure_parts.styled():
        shown = figure_parts.fitted(LLAMAS, 1.5)
        assert len(set(shown)) == 3
        assert all(f"-{size}B" in words for size, words in zip((8, 70, 405), shown, strict=True))
        assert figure_parts.fitted(["abc"], 1.5) == ["abc"]
        assert figure_parts.fitted(["a" * 100], 1.5)[0].count("\u2026") == 1


@given(st.lists(st.text(max_size=80), min_size=1, max_size=4), st.floats(0.5, 4))
@settings(max_examples=25, deadline=None)
def test_names_fit(names: list[str], most: float) -> None:
    with figure_parts.styled():
        shown = figure_parts.fitted(names, most)
        assert len(shown) == len(names)
        assert figure_parts.inches(*shown) <= most


def test_systems_by_hand() -> None:
    """0.7 in [0.6, 0.8] stands above 0.5 in [0.4, 0.6]; the best member is at 50 %; limits leave 5 % of 20 to 80."""
    rows = tuple(
        SystemRow(name=label, label=label, role=role, accuracy=accuracy, low=low, high=high)
        for label, role, accuracy, low, high in (
            ("worse", "member", 0.25, 0.2, 0.3),
            ("best", "member", 0.5, 0.4, 0.6),
            ("vote", "system", 0.7, 0.6, 0.8),
        )
    )
    figure = build_figures(make_report(systems=rows))["systems"]
    axes = figure.axes[0]
    assert tick_words(axes)[1] == ["vote", "best", "worse"]
    assert drawn_points(axes, "D") == [(70, 0)]
    assert drawn_points(axes, "o") == [(50, 1), (25, 2)]
    whiskers = [line.get_data() for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    np.testing.assert_allclose([x for x, _ in whiskers], [[60, 80], [40, 60], [20, 30]])
    assert [list(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "--"] == [[50, 50]]
    assert axes.get_xlim() == pytest.approx((17, 83))
    assert axes.get_xlabel() == "accuracy (%)"
    assert legend_words(figure) == ["ensemble", "member alone", "best member alone", "95 % interval"]


def test_the_cloud_shows_every_sub_ensemble(everything: ReportData, drawn: dict[str, Figure]) -> None:
    cloud = everything.subsets
    assert cloud is not None
    axes, side = drawn["diversity"].axes
    (dots,) = (found for found in axes.collections if isinstance(found, PathCollection))
    places = np.asarray(dots.get_offsets())
    expected = np.stack([cloud.focal, 100 * cloud.accuracy], axis=1)
    np.testing.assert_allclose(np.sort(places, axis=0), np.sort(expected, axis=0), rtol=1e-6)
    assert dots.get_rasterized()
    assert len(np.unique(dots.get_facecolor(), axis=0)) == 3
    for limits, values in zip((axes.get_xlim(), axes.get_ylim()), places.T, strict=True):
        assert limits[0] < values.min() < values.max() < limits[1]
    assert drawn_points(axes, "*") == [pytest.approx(tuple(expected[cloud.best]))]
    np.testing.assert_allclose(drawn_points(axes, "o"), expected[cloud.pareto])
    assert (axes.get_xlabel(), axes.get_ylabel(), side.get_ylabel()) == ("focal diversity", "accuracy (%)", "members")
    assert "sub-ensembles (14)" in legend_words(drawn["diversity"])


def test_rare_sizes_lie_above_frequent_ones() -> None:
    """Of 5 agents there are 10 pairs and 5 singles, so that singles are drawn last."""
    cloud = make_cloud(5, most=2)
    figure = build_figures(make_report(num_agents=5, subsets=cloud))["diversity"]
    (dots,) = (found for found in figure.axes[0].collections if isinstance(found, PathCollection))
    last = np.asarray(dots.get_offsets())[10:, 0]
    np.testing.assert_allclose(last, cloud.focal[cloud.sizes == 1], rtol=1e-6)


def test_a_cloud_of_one_size_needs_no_scale() -> None:
    made = build_figures(make_report(subsets=make_cloud(4, most=1)))
    assert len(made["diversity"].axes) == 1
    assert "members" not in [axes.get_xlabel()[4:] for axes in made["pareto"].axes]


def test_the_heat_map_of_errors(everything: ReportData, drawn: dict[str, Figure]) -> None:
    right = everything.correct()
    assert right is not None
    pairs = numbers.error_pairs(~right, everything.answers)
    axes, side = drawn["errors"].axes
    (mesh,) = (found for found in axes.collections if isinstance(found, QuadMesh))
    values = np.ma.getdata(mesh.get_array()).reshape(4, 4)
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(values[off], pairs.value[np.ix_(pairs.order, pairs.order)][off])
    assert np.ma.getmaskarray(mesh.get_array()).reshape(4, 4).tolist() == np.eye(4, dtype=bool).tolist()
    assert tick_words(axes)[1] == [f"agent-{at}  {place}" for place, at in enumerate(pairs.order, 1)]
    assert tick_words(axes)[0] == ["1", "2", "3", "4"]
    assert side.get_ylabel() == "error correlation"
    assert np.isfinite(pairs.value).all(), "the figure must not have changed the numbers of the page"


def test_failures_against_independence(everything: ReportData, drawn: dict[str, Figure]) -> None:
    right = everything.correct()
    assert right is not None
    (axes,) = drawn["failures"].axes
    heights = [bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]
    assert heights == numbers.failure_counts(~right).tolist()
    expected = numbers.independent_counts(1 - right.mean(axis=0), num_questions=len(right))
    np.testing.assert_allclose(axes.lines[0].get_ydata(), expected)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("members that fail", "questions")
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > max(heights)


def test_large_numbers_of_questions_have_room() -> None:
    """One agent is right on all of them, so that exactly one fails on each of 120000."""
    num = 120_000
    bare: dict[str, Any] = VARIANTS["bare"] | {"num_questions": num, "num_agents": 2}
    answers = np.tile(np.array([[0, 1]]), (num, 1))
    figure = build_figures(make_report(**bare | {"answers": answers, "labels": np.zeros(num, dtype=int)}))["failures"]
    assert_nothing_sticks_out({"failures": figure})
    assert "100000" in tick_words(figure.axes[0])[1]


def test_the_front_by_hand() -> None:
    """50 % for 1 call, 40 % for 2, 70 % for 3: the front goes from 50 to 70; the oracle is no part of it."""
    rows = tuple(
        SystemRow(name=label, label=label, role=role, accuracy=value, low=value, high=value, calls_per_question=calls)
        for label, role, value, calls in (
            ("a", "member", 0.5, 1),
            ("b", "baseline", 0.4, 2),
            ("c", "system", 0.7, 3),
            ("d", "upper_bound", 0.9, 1),
        )
    )
    figure = build_figures(make_report(systems=rows, subsets=None))["pareto"]
    (axes,) = figure.axes
    steps = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert list(steps.get_ydata()) == pytest.approx([50, 70, 70])
    assert list(steps.get_xdata()) == pytest.approx([1, 3, axes.get_xlim()[1]])
    assert axes.get_xlabel() == "calls per question"
    assert legend_words(figure) == ["ensemble", "member alone", "baseline", "upper bound"]


def test_costs_over_decades_are_drawn_on_a_logarithmic_scale() -> None:
    rows = tuple(
        SystemRow(name=str(usd), label=str(usd), role="member", accuracy=0.5, low=0.4, high=0.6, usd_per_question=usd)
        for usd in (1e-5, 1e-3, 2e-2)
    )
    made = build_figures(make_report(systems=rows, subsets=None))
    (axes,) = made["pareto"].axes
    assert axes.get_xscale() == "log"
    assert {"0.01", "0.1", "1", "10"} <= set(tick_words(axes)[0])
    assert axes.get_xlabel() == "USD per 1,000 questions"
    assert_nothing_sticks_out(made)


def test_panels_of_the_front(drawn: dict[str, Figure]) -> None:
    words = [axes.get_xlabel() for axes in drawn["pareto"].axes]
    assert words == ["(a) USD per 1,000 questions", "(b) calls per question"]
    assert "the same on other questions" in legend_words(drawn["pareto"])


def test_categories_by_hand() -> None:
    """Of 2 questions on law a is right on both, b on one; of 1 on art b alone is. a and b are equal: order is kept."""
    data = make_report(
        num_questions=3,
        num_agents=2,
        answers=np.array([[0, 0], [0, 1], [1, 0]]),
        labels=np.array([0, 0, 0]),
        categories=("law", "law", "art"),
        ensembles={"vote": np.array([0, 0, -1])},
    )
    figure = build_figures(data)["categories"]
    axes = figure.axes[0]
    (mesh,) = (found for found in axes.collections if isinstance(found, QuadMesh))
    assert tick_words(axes) == (["law (2)", "art (1)"], ["agent-0", "agent-1", "vote"])
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(3, 2), [[100, 0], [50, 100], [100, 0]])
    assert sorted(words.get_text() for words in axes.texts) == ["0", "0", "100", "100", "100", "50"]


def test_the_worth_of_members_by_hand() -> None:
    """b adds more than a, so it stands first; leaving a out loses 2 points, which is drawn beside its value of 1."""
    worth = MemberWorth(
        agents=("a", "b"),
        loo=np.array([0.02, 0.0]),
        shapley=np.array([0.01, 0.03]),
        shapley_low=np.array([0.0, 0.02]),
        shapley_high=np.array([0.02, 0.04]),
    )
    figure = build_figures(make_report(worth=worth))["worth"]
    axes = figure.axes[0]
    assert tick_words(axes)[1] == ["b", "a"]
    assert drawn_points(axes, "o") == [(pytest.approx(3), 0), (pytest.approx(1), 1)]
    assert drawn_points(axes, "D") == [(0, 0), (pytest.approx(2), 1)]
    assert axes.get_xlabel() == "accuracy gained (points)"


def test_recorded_answers(recorded_data: Path) -> None:
    table = read_table(recorded_data / "mmlu_pro" / "predictions.csv.gz")
    data = make_report(
        num_questions=len(table),
        num_agents=table.num_agents,
        agents=table.agents,
        answers=table.answers,
        labels=table.labels,
        categories=tuple(map(str, table.categories if table.categories is not None else ())),
        ensembles={},
        subsets=None,
    )
    made = build_figures(data)
    assert_nothing_sticks_out(made)
    assert sum(bar.get_height() for bar in made["failures"].axes[0].patches) == len(table)  # type: ignore[attr-defined]


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency, match=r"drawing figures needs .* matplotlib; .*'fusion\[figures\]'"):
        write_figures(make_report(), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    bare: dict[str, Any] = {**VARIANTS["bare"], "num_agents": 2}
    with pytest.raises(OutputError, match=r"agreement\.png"):
        write_figures(make_report(**bare), tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_older_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "agreement.png").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    first, second = write_figures(make_report(**{**VARIANTS["bare"], "num_agents": 2}), tmp_path)
    assert first.read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name, "notes.txt"}
