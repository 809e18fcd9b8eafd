"""The HTML report in a real browser, opened from disk: what it draws, filters, finds and prints."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browser import Opened, launched, opened
from report_pages import HOSTILE, VARIANTS, make_cloud, make_report

from fusion.reports.html import MemberWorth, ReportData, StabilityRow, SubsetCloud, SystemRow, render

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
SOON_SECONDS = 3.0  # far more than it takes, so that a busy machine does not matter
REACH = 26  # pixels: how far from the pointer a dot may be, as in report_cloud.js


# Not for the session: while the driver runs there is an event loop, and other tests start their own.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def report() -> ReportData:
    return make_report(num_questions=300, num_agents=5)


@pytest.fixture
def shown(browser: "Browser", report: ReportData, tmp_path: Path) -> Iterator[Opened]:
    with opened(browser, tmp_path / "report.html", render(report)) as found:
        yield found
        assert found.errors == []
        assert found.requests == []


def choose(shown: Opened, **values: str | int) -> None:
    """Set filters of the question browser by the ends of their ids."""
    for name, value in values.items():
        field = shown.page.locator(f"#items-{name}")
        if field.evaluate("node => node.tagName") == "SELECT":
            field.select_option(str(value))
        else:
            field.fill(str(value))


def first_ids(shown: Opened) -> list[str]:
    return shown.page.locator("#items-sheet tr[data-at] .id button").all_inner_texts()


def expected(report: ReportData) -> dict[str, Any]:
    """What the filters count, in NumPy: right [N, M], and the first ensemble's [N]."""
    right, ensembles = report.correct(), report.ensembles_correct()
    assert right is not None
    assert ensembles is not None
    return {"right": right, "count": right.sum(axis=1), "ensembles": ensembles}


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
def test_it_opens_from_disk(browser: "Browser", tmp_path: Path, fields: dict[str, Any]) -> None:
    with opened(browser, tmp_path / "r.html", render(make_report(**fields))) as shown:
        assert shown.page.locator("html").get_attribute("data-ready") == "yes"
        assert shown.errors == []
        assert shown.requests == []
        assert shown.page.locator("#trouble").is_hidden()
        links = shown.page.locator(".contents a").all()
        headings = [shown.page.locator(f"{link.get_attribute('href')} h2").first for link in links[1:]]
        assert [link.inner_text() for link in links[1:]] == [heading.inner_text() for heading in headings]
        assert shown.page.locator("#items-sheet tr[data-at]").count() == min(25, shown.kept())


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("ensemble", [0, 1])
def test_ensemble_wrong_though_k_right(shown: Opened, report: ReportData, k: int, ensemble: int) -> None:
    choose(shown, filter="missed", k=k, ensemble=ensemble)
    known = expected(report)
    wanted = (known["count"] >= k) & ~known["ensembles"][:, ensemble]
    assert shown.kept() == wanted.sum()
    assert first_ids(shown) == [report.question_ids[at] for at in np.flatnonzero(wanted)[:25]]


def test_the_other_filters_count_as_numpy_does(shown: Opened, report: ReportData) -> None:
    known = expected(report)
    count = known["count"]
    for agent in range(5):
        choose(shown, filter="only", agent=agent)
        assert shown.kept() == ((count == 1) & known["right"][:, agent]).sum()
    choose(shown, filter="saved", ensemble=1)
    assert shown.kept() == ((2 * count < 5) & known["ensembles"][:, 1]).sum()
    choose(shown, filter="nobody")
    assert shown.kept() == (count == 0).sum()
    choose(shown, filter="silent")
    assert shown.kept() == (report.answers < 0).any(axis=1).sum()
    choose(shown, filter="split")
    assert shown.kept() == sum(len({answer for answer in row if answer >= 0}) > 1 for row in report.answers.tolist())


def test_category_and_search_narrow_any_filter(shown: Opened, report: ReportData) -> None:
    assert report.categories is not None
    choose(shown, filter="nobody", category=sorted(set(report.categories)).index("law"), search="Q1")
    none_right = expected(report)["count"] == 0
    wanted = [
        identity
        for at, identity in enumerate(report.question_ids)
        if none_right[at] and report.categories[at] == "law" and "q1" in identity
    ]
    assert first_ids(shown) == wanted[:25]
    assert shown.kept() == len(wanted)
    choose(shown, filter="all", category=-1, search="what is 77?")
    assert first_ids(shown) == ["q77"]
    choose(shown, search="no such thing")
    assert "No question" in shown.text("#items-sheet")


def test_cells_say_right_wrong_and_silent_without_colour(shown: Opened, report: ReportData) -> None:
    right = expected(report)["right"]
    accuracy = right.mean(axis=0)
    order = sorted(range(5), key=lambda agent: (-accuracy[agent], agent))
    cells = shown.page.locator("#items-sheet tbody tr").nth(3).locator("td.cell").all_inner_texts()
    marks = ["\u2013" if report.answers[3, a] < 0 else "\u2713" if right[3, a] else "\u00d7" for a in order]
    assert cells[2:] == marks
    choose(shown, cells="letters")
    cells = shown.page.locator("#items-sheet tbody tr").nth(3).locator("td.cell").all_inner_texts()
    assert cells[2:] == ["\u2013" if report.answers[3, a] < 0 else "ABCD"[report.answers[3, a]] for a in order]


def test_a_line_opens_with_the_keyboard(shown: Opened, report: ReportData) -> None:
    assert report.labels is not None
    opener = shown.page.locator("#items-sheet tr[data-at] button").nth(2)
    opener.press("Enter")
    assert opener.get_attribute("aria-expanded") == "true"
    detail = shown.text(".detail")
    assert "What is 2?" in detail
    assert f"{('one', 'two', 'three', 'four')[report.labels[2]]} right answer" in detail
    opener.press("Enter")
    assert shown.page.locator(".detail").count() == 0


def test_a_hundred_thousand_questions(browser: "Browser", tmp_path: Path) -> None:
    report = make_report(num_questions=100_000, num_agents=24, question_texts=None, option_texts=None, subsets=None)
    with opened(browser, tmp_path / "large.html", render(report)) as shown:
        times = {}
        for name, act in {
            "filter": lambda: choose(shown, filter="missed", k=6),
            "search": lambda: choose(shown, search="q77"),
            "clear": lambda: choose(shown, filter="all", search=""),
            "next": lambda: shown.page.click("#items-next"),
            "last": lambda: shown.page.click("#items-last"),
        }.items():
            began = time.perf_counter()
            act()
            shown.page.evaluate("new Promise(requestAnimationFrame)")
            times[name] = time.perf_counter() - began
        print({name: round(1000 * seconds) for name, seconds in times.items()}, "ms")
        assert max(times.values()) < SOON_SECONDS
        assert first_ids(shown)[-1] == "q99999"
        assert "99,976\u2013100,000 shown" in shown.text("#items-count")
        choose(shown, filter="missed", k=6)
        known = expected(report)
        assert shown.kept() == ((known["count"] >= 6) & ~known["ensembles"][:, 0]).sum()
        assert shown.errors == []


def test_pages(shown: Opened) -> None:
    assert shown.page.locator("#items-prev").is_disabled()
    shown.page.click("#items-next")
    assert first_ids(shown)[0] == "q25"
    shown.page.fill("#items-page", "12")
    shown.page.press("#items-page", "Enter")
    assert first_ids(shown)[0] == "q275"
    assert shown.page.locator("#items-next").is_disabled()
    choose(shown, filter="nobody")
    assert shown.page.input_value("#items-page") == "1"


def large_cloud() -> SubsetCloud:
    """All 55,430 sets of two to five of 24 agents; diversity and accuracy from a bell, so that edges are sparse."""
    sets = [chosen for size in range(2, 6) for chosen in itertools.combinations(range(24), size)]
    members = np.full((len(sets), 5), -1, dtype=np.int16)
    for row, chosen in enumerate(sets):
        members[row, : len(chosen)] = chosen
    rng = np.random.default_rng(3)
    focal, accuracy = rng.normal(0.5, 0.07, size=(2, len(sets))).clip(0.05, 0.95).astype(np.float32)
    front = np.argsort(accuracy)[-4:]
    return SubsetCloud(
        members=members, focal=focal, accuracy=accuracy, objective=focal, best=int(front[-1]), pareto=front
    )


def pixels(values: np.ndarray, start: float, end: float) -> np.ndarray:
    """Where the plot puts values: 4 % of air on both sides."""
    low, high = values.min(), values.max()
    air = 0.04 * (high - low)
    return start + (values - (low - air)) / (high - low + 2 * air) * (end - start)


def test_the_dot_under_the_pointer_is_the_nearest_of_55430(browser: "Browser", tmp_path: Path) -> None:
    """Against a search through all dots; where two are as near within rounding, either will do."""
    from playwright.sync_api import TimeoutError as PlaywrightTimeout

    cloud = large_cloud()
    report = make_report(num_agents=24, subsets=cloud)
    with opened(browser, tmp_path / "cloud.html", render(report)) as shown:
        canvas = shown.page.locator("#cloud canvas").last
        canvas.scroll_into_view_if_needed()
        rng = np.random.default_rng(5)
        hits = 0
        for _ in range(120):
            x, y = rng.random(2)
            for attempt in range(3):
                # The page may still be laid out: where the plot is can change under the pointer.
                box = canvas.bounding_box()
                assert box is not None
                left, top = 60 + x * (box["width"] - 80), 40 + y * (box["height"] - 100)
                xs = pixels(cloud.focal.astype(float), 52, box["width"] - 12)
                ys = pixels(cloud.accuracy.astype(float), box["height"] - 46, 32)
                distance = np.hypot(xs - left, ys - top)
                if abs(distance.min() - REACH) <= 0.5:
                    break
                expected = []
                if distance.min() < REACH:
                    near = np.flatnonzero(distance <= distance.min() + 0.3)
                    expected = [", ".join(report.agents[a] for a in cloud.members[at] if a >= 0) for at in near]
                shown.page.mouse.move(box["x"] + left, box["y"] + top)
                # Movements are handed over once a frame, and a busy machine may show few frames.
                told = """(names) => {
                  const tip = document.getElementById('tip');
                  return names.length
                    ? !tip.hidden && names.includes(tip.querySelector('strong')?.textContent)
                    : tip.hidden;
                }"""
                try:
                    shown.page.wait_for_function(told, arg=expected, timeout=5000 if attempt < 2 else 20_000)
                except PlaywrightTimeout:
                    if attempt == 2:
                        raise
                    shown.page.mouse.move(0, 0)
                    continue
                hits += bool(expected)
                break
        assert hits > 40
        assert shown.errors == []


def test_sizes_and_axes_of_the_cloud(shown: Opened, report: ReportData) -> None:
    cloud = report.subsets
    assert cloud is not None
    together = np.corrcoef(cloud.focal, cloud.accuracy)[0, 1]
    told = shown.text("#cloud-caption").replace("\u2212", "-")
    assert told == f"{cloud.num_subsets} sub-ensembles shown; correlation {together:.2f}."
    shown.page.get_by_role("button", name="2 members").click()
    assert shown.text("#cloud-caption").startswith(f"{(cloud.sizes != 2).sum()} sub-ensembles")
    shown.page.select_option("#cloud-x", "size")
    shown.page.select_option("#cloud-y", "test_accuracy")
    assert "accuracy on other questions %" in (shown.page.locator("#cloud svg .axes").text_content() or "")


def test_the_cloud_is_read_with_the_keyboard(shown: Opened, report: ReportData) -> None:
    cloud = report.subsets
    assert cloud is not None
    shown.page.locator("#cloud").press("ArrowRight")
    names = ", ".join(report.agents[agent] for agent in cloud.members[cloud.best] if agent >= 0)
    assert shown.page.locator("#spoken").text_content().startswith(names)  # type: ignore[union-attr]
    shown.page.locator("#cloud").press("Enter")
    assert names in shown.text("#cloud-picked")
    shown.page.locator("#cloud").press("Escape")
    assert shown.page.locator("#cloud-picked").is_hidden()


def test_the_heat_map_is_read_with_the_keyboard(shown: Opened, report: ReportData) -> None:
    shown.page.select_option("#errors-order", "given")
    chart = shown.page.locator("#errors-map svg")
    chart.focus()
    # Scrolling puts tooltips away, and getting the focus may scroll.
    shown.page.wait_for_timeout(200)
    chart.press("ArrowRight")
    right = expected(report)["right"]
    together = np.corrcoef((~right).T)[0, 1]
    spoken = (shown.page.locator("#spoken").text_content() or "").replace("\u2212", "-")
    both = (~right[:, 0] & ~right[:, 1]).sum()
    assert spoken.startswith(f"agent-0 \u00d7 agent-1. correlation of errors {together:.2f}. both wrong on {both} ")
    assert shown.page.locator("#tip").is_visible()


def test_light_and_dark(browser: "Browser", report: ReportData, tmp_path: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page = render(report)
    with opened(browser, tmp_path / "a.html", page, color_scheme="light") as light:
        before = light.page.evaluate(ground)
        drawn = light.page.evaluate("document.querySelector('#cloud canvas').toDataURL()")
        light.page.click("#theme")
        chosen = light.page.evaluate(ground)
        assert light.text("#theme span") == "Light"
        assert light.page.evaluate("document.querySelector('#cloud canvas').toDataURL()") != drawn
        light.page.click("#theme")
        assert light.page.evaluate(ground) == before
        assert light.errors == []
    with opened(browser, tmp_path / "b.html", page, color_scheme="dark") as dark:
        assert dark.page.evaluate(ground) == chosen != before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_prints(browser: "Browser", report: ReportData, tmp_path: Path, scheme: str) -> None:
    with opened(browser, tmp_path / "p.html", render(report), color_scheme=scheme) as shown:
        assert shown.page.pdf(format="A4").startswith(b"%PDF-")
        shown.page.emulate_media(media="print")
        assert shown.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert shown.page.locator(".contents").is_hidden()
        assert shown.page.locator("#items-form").is_hidden()
        assert shown.page.locator("#cloud canvas").first.is_visible()
        assert shown.page.locator("#items-sheet tr[data-at]").count() == 25
        assert shown.errors == []


def test_there_is_room_on_a_phone(browser: "Browser", tmp_path: Path) -> None:
    report = make_report(num_agents=24, agents=tuple(f"a-rather-long-name-of-a-model-{n}" for n in range(24)))
    with opened(browser, tmp_path / "n.html", render(report), viewport={"width": 360, "height": 740}) as shown:
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert shown.errors == []


def test_foreign_text_does_nothing(browser: "Browser", tmp_path: Path) -> None:
    agents = (HOSTILE, "b", "c", "d")
    values = dict.fromkeys(("loo", "shapley", "shapley_low", "shapley_high"), np.ones(4))
    report = make_report(
        title=HOSTILE,
        verdict=(HOSTILE,),
        agents=agents,
        categories=(HOSTILE,) * 40,
        question_ids=(HOSTILE, *(f"q{n}" for n in range(39))),
        question_texts=(HOSTILE,) * 40,
        option_texts=((HOSTILE,),) * 40,
        ensembles={HOSTILE: np.zeros(40, dtype=np.int8)},
        systems=(SystemRow(name="x", label=HOSTILE, role="member", accuracy=0.5, low=0.4, high=0.6),),
        worth=MemberWorth(agents=agents, **values),
        stability=(StabilityRow(agents=agents, share=0.5),),
        subsets=make_cloud(4),
        notes=(HOSTILE,),
        provenance={HOSTILE: HOSTILE},
    )
    with opened(browser, tmp_path / "h.html", render(report)) as shown:
        assert shown.page.title() == HOSTILE
        assert shown.text("h1") == HOSTILE
        shown.page.locator("#items-sheet tr[data-at] button").first.click()
        assert HOSTILE in shown.text(".detail")
        shown.page.locator("#cloud").press("ArrowRight")
        shown.page.locator("#errors-map svg").press("ArrowRight")
        assert shown.page.evaluate("window.hit") is None
        assert shown.page.locator("img").count() == 0
        assert shown.errors == []
        assert shown.requests == []
