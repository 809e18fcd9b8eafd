"""The HTML report without a browser: its numbers by hand, what it embeds, what it leaves out, and that it escapes."""

import base64
import hashlib
import itertools
import json
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_pages import HOSTILE, VARIANTS, make_cloud, make_report

from fusion.data import read_table
from fusion.errors import InputError
from fusion.reports import _page_numbers as numbers
from fusion.reports._page_parts import Dot, dot_table, nice_ticks, points
from fusion.reports._page_study import Study, set_words, systems_words
from fusion.reports.html import MemberWorth, ReportData, StabilityRow, SubsetCloud, SystemRow, render

ASSETS = Path(str(resources.files("fusion.reports") / "assets"))
WORTHS = ("loo", "shapley", "shapley_low", "shapley_high")


class Outline(HTMLParser):
    """Collects the ids of sections, the links of the contents and all text outside scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.links: list[str] = []
        self.tags = ["html"]
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag == "section":
            self.sections.append(values["id"] or "")
        if tag == "a" and (values.get("href") or "").startswith("#") and values.get("class") != "skip":
            self.links.append((values["href"] or "")[1:])
        assert not [name for name in values if name.startswith("on")], "an inline event handler"

    def handle_data(self, data: str) -> None:
        if self.tags[-1] not in ("script", "style"):
            self.words.append(data)


def embedded(page: str) -> dict[str, Any]:
    """The JSON in a page."""
    found = re.search(r'id="report-data">(.*?)</script>', page)
    assert found
    values: dict[str, Any] = json.loads(found[1])
    return values


def blob(page: str, name: str) -> bytes:
    """The bytes of an embedded array."""
    found = re.search(rf'id="blob-{name}">(.*?)</script>', page)
    assert found
    return zlib.decompress(base64.b64decode(found[1]))


def test_error_correlation_by_hand() -> None:
    """Wrong on 4 questions: a 1100, b 1010, c 1100, d 0000.

    a and c are equal: 1. a and b: both wrong on one, 1/4 - 1/2 * 1/2 = 0. d is never wrong: undefined. a and c are
    both wrong twice, once with the same answer; on the other question a is silent.
    """
    wrong = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=np.bool_)
    answers = np.array([[1, 2, 1, 0], [-1, 0, 1, 0], [0, 2, 0, 0], [0, 0, 0, 0]], dtype=np.int8)
    pairs = numbers.error_pairs(wrong, answers)
    np.testing.assert_allclose(pairs.value[:3, :3], [[1, 0, 1], [0, 1, 0], [1, 0, 1]], atol=1e-12)
    assert np.isnan(pairs.value[3]).all()
    assert pairs.together[:3, :3].tolist() == [[2, 1, 2], [1, 2, 1], [2, 1, 2]]
    assert pairs.same[:3, :3].tolist() == [[1, 0, 1], [0, 2, 0], [1, 0, 2]]


def test_agreement_by_hand() -> None:
    """a and b both answer the first three, twice alike; c never answers."""
    answers = np.array([[0, 0, -1], [1, 1, -1], [2, 0, -1], [2, -1, -1]], dtype=np.int8)
    pairs = numbers.agreement_pairs(answers)
    assert pairs.value[0, 1] == pytest.approx(2 / 3)
    assert pairs.together[:2, :2].tolist() == [[4, 3], [3, 3]]
    assert np.isnan(pairs.value[2, 0])


def test_similar_members_stand_together() -> None:
    """0 and 3 are alike (0.9), 1 and 2 (0.8); of the ends, 3 and 1 are the most alike: 0 3 1 2."""
    value = np.array([[1, 0.1, 0, 0.9], [0.1, 1, 0.8, 0.3], [0, 0.8, 1, 0], [0.9, 0.3, 0, 1]])
    assert numbers.similar_order(value).tolist() == [0, 3, 1, 2]
    assert numbers.similar_order(np.array([[np.nan]])).tolist() == [0]


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_order_has_every_member_once(num_agents: int, seed: int) -> None:
    value = np.random.default_rng(seed).uniform(-1, 1, (num_agents, num_agents))
    order = numbers.similar_order((value + value.T) / 2)
    assert sorted(order.tolist()) == list(range(num_agents))


def test_independent_failures_by_hand() -> None:
    """Two coins: 1/4, 1/2, 1/4 of 8 questions. Rates 0.1 and 0.5: 0.45, 0.5, 0.05."""
    assert numbers.independent_counts(np.array([0.5, 0.5]), num_questions=8).tolist() == [2, 4, 2]
    found = numbers.independent_counts(np.array([0.1, 0.5]), num_questions=100)
    np.testing.assert_allclose(found, [45, 50, 5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_independent_failures_keep_questions_and_failures(rates: list[float]) -> None:
    found = numbers.independent_counts(np.array(rates), num_questions=1000)
    assert found.sum() == pytest.approx(1000)
    assert (found * np.arange(len(found))).sum() == pytest.approx(1000 * sum(rates))


def test_failing_sets_by_hand() -> None:
    """Of 4 questions a and b alone fail together on 2, all on 1, b alone on 1 (no set of two).

    Rates 3/4, 1, 1/4. Exactly {a, b}: 4 * 3/4 * 1 * 3/4 = 2.25; all: 4 * 3/4 * 1 * 1/4 = 0.75.
    """
    wrong = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.bool_)
    first, second = numbers.failing_sets(wrong, most=10)
    assert (first.members, first.count, first.expected) == ((0, 1), 2, 2.25)
    assert (second.members, second.count, second.expected) == ((0, 1, 2), 1, 0.75)
    assert numbers.failure_counts(wrong).tolist() == [0, 1, 2, 1]


def test_strengths_by_hand() -> None:
    right = np.array([[1, 0], [1, 1], [0, 1]], dtype=np.bool_)
    found = numbers.category_strengths(right, np.array([0, 0, 1]), num_categories=2)
    assert found.tolist() == [[1, 0.5], [0, 1]]


def test_a_label_that_nobody_can_meet_is_not_met_by_silence() -> None:
    """Label -1 and answer -1 are not the same thing."""
    data = make_report(num_questions=2, answers=np.array([[-1] * 4, [0] * 4]), labels=np.array([-1, 0]))
    right = data.correct()
    assert right is not None
    assert right.tolist() == [[False] * 4, [True] * 4]


def test_words_for_sets() -> None:
    agents = ("a", "b", "c", "d", "e")
    assert set_words((0, 1, 2, 3, 4), agents) == "all 5"
    assert set_words((0, 1, 2, 3), agents) == "all but e"
    assert set_words((0, 1), agents) == "a and b"
    assert set_words((0, 1), ("a", "b")) == "both"


def test_upper_bounds_bound_those_who_choose() -> None:
    """Who writes answers may be better than the best choice among those given."""
    told = "nobody who chooses among the answers given can be that good"
    bound = SystemRow(name="o", label="oracle", role="upper_bound", accuracy=0.9, low=0.8, high=1.0)
    assert told in systems_words(make_report(systems=(bound,)))
    assert "Upper bounds" not in systems_words(make_report())


def test_ticks_and_points() -> None:
    assert nice_ticks(0.17, 0.95) == [0.2, 0.4, 0.6, 0.8]
    assert nice_ticks(-0.011, 0.03) == pytest.approx([-0.01, 0, 0.01, 0.02, 0.03])
    assert points(-0.0123) == "\u22121.23"
    assert points(-0.000001) == "0.00"


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_there_are_a_few_ticks_within_the_range(low: float, width: float) -> None:
    ticks = nice_ticks(low, low + width)
    assert 1 <= len(ticks) <= 8
    assert all(low - 1e-6 <= tick <= low + width + 1e-6 for tick in ticks)


def test_whiskers_stand_where_they_should() -> None:
    """Values span 0.2 to 0.8; 3 % of 0.6 is air on both sides, so 0.5 is the middle of the chart."""
    dots = [Dot(label="x", role="member", value=0.5, low=0.2, high=0.8, cells=())]
    drawn = dot_table(dots, headings=[""], caption="")
    assert '<use href="#m-member" x="50.00%"' in drawn
    assert 'class="whisker" x1="2.83%" x2="97.17%"' in drawn


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
def test_contents_agree_with_the_sections(fields: dict[str, Any]) -> None:
    page = render(make_report(**fields))
    outline = Outline(page)
    assert outline.links == outline.sections
    assert not re.search(r"\{\{\w+\}\}|<!-- (begin|end)", page), "the skeleton shows"
    told = embedded(page)["sections"]
    assert set(outline.sections) == set(told) - {"failing_sets", "pareto_table"}
    for name in re.findall(r'blob-([\w-]+)"', page):
        blob(page, name)


def test_what_is_missing_is_left_out() -> None:
    everything = Outline(render(make_report())).sections
    assert " ".join(everything) == (
        "verdict systems diversity errors failures pareto policies confidence weights worth stability categories "
        "items provenance"
    )
    assert Outline(render(make_report(**VARIANTS["bare"]))).sections == ["verdict", "errors", "items"]
    without = Outline(render(make_report(labels=None))).sections
    assert not {"failures", "categories"} & set(without)


def test_answers_come_back_as_they_were() -> None:
    data = make_report(answers=np.random.default_rng(0).integers(-1, 5, (40, 4)), labels=np.arange(40) % 5)
    page = render(data)
    assert embedded(page)["answer_bytes"] == 1
    stored = np.frombuffer(blob(page, "answers"), dtype=np.int8).reshape(-1, 40)
    assert (data.answers == stored[:4].T).all()
    assert (stored[4] == data.ensembles["all+vote"]).all()
    assert (stored[-1] == data.labels).all()
    assert json.loads(blob(page, "ids")) == list(data.question_ids)


def test_answers_beyond_a_byte_take_two() -> None:
    page = render(make_report(**VARIANTS["wide answers"]))
    assert embedded(page)["answer_bytes"] == 2
    assert np.frombuffer(blob(page, "answers"), dtype="<i2").max() == 1000


def test_a_cloud_comes_back_within_its_levels() -> None:
    """Numbers are kept in 65,536 levels of their range: off by half a level at most."""
    cloud = make_cloud(9)
    page = render(make_report(num_agents=9, subsets=cloud))
    told = embedded(page)["cloud"]
    width, size = cloud.members.shape[1], len(cloud.members)
    members = np.frombuffer(blob(page, "cloud-members"), dtype=np.uint8).astype(np.int16).reshape(width, size).T
    assert (np.where(members == 255, -1, members) == cloud.members).all()
    for name, column in cloud.columns.items():
        high, low = np.frombuffer(blob(page, f"cloud-{name}"), dtype=np.uint8).reshape(2, size).astype(np.int64)
        least, most = told["ranges"][name]
        back = least + (256 * high + low) / 65535 * (most - least)
        np.testing.assert_allclose(back, column, atol=(most - least) / 65535)


def test_foreign_text_is_only_ever_text() -> None:
    """Names that try to end the script, open a tag, leave an attribute or fill a placeholder stay what they are."""
    agents = (HOSTILE, "b", "c", "d")
    data = make_report(
        title=HOSTILE,
        verdict=(HOSTILE, HOSTILE),
        agents=agents,
        categories=(HOSTILE,) * 40,
        question_ids=(HOSTILE, *map(str, range(39))),
        question_texts=(HOSTILE,) * 40,
        option_texts=((HOSTILE,),) * 40,
        ensembles={HOSTILE: np.zeros(40, dtype=np.int8)},
        systems=(SystemRow(name="x", label=HOSTILE, role="system", accuracy=0.5, low=0.4, high=0.6),),
        worth=MemberWorth(agents=agents, **dict.fromkeys(WORTHS, np.ones(4))),
        stability=(StabilityRow(agents=agents, share=0.5),),
        notes=(HOSTILE,),
        provenance={HOSTILE: HOSTILE},
    )
    page = render(data)
    plain = render(make_report())
    outline = Outline(page)
    assert outline.tags.count("script") <= Outline(plain).tags.count("script")
    assert "img" not in outline.tags
    assert "".join(outline.words).count("window.hit=1") >= 9
    assert embedded(page)["agents"] == list(agents)


@given(st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_name_of_an_agent_comes_back(name: str) -> None:
    page = render(make_report(num_questions=3, agents=(name, "\x00b", "\x00c", "\x00d"), labels=None))
    page.encode("utf-8")
    assert embedded(page)["agents"][0] == name
    assert Outline(page).tags.count("script") == Outline(render(make_report(num_questions=3, labels=None))).tags.count(
        "script"
    )


def test_lone_surrogates_can_be_written() -> None:
    """Half a character, as broken files hold it, cannot be written as UTF-8."""
    render(make_report(title="\ud800", verdict=("\udfff",), agents=("\ud800", "b", "c", "d"))).encode("utf-8")


def test_the_policy_allows_the_script_and_nothing_else() -> None:
    page = render(make_report())
    script = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert "</script" not in script
    assert page.index("<meta charset") < 100


def test_nothing_points_outside() -> None:
    """The only address in the page is the name of the SVG elements' namespace, which nobody looks up."""
    page = render(make_report())
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bsrc=|@import|url\(", page)


def test_rendering_needs_numpy_alone() -> None:
    code = "import sys, fusion.reports.html; print(*{name.split('.')[0] for name in sys.modules})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "pyarrow", "scipy", "pydantic", "rich", "torch"} & set(told.stdout.split())


def test_the_same_data_gives_the_same_page() -> None:
    assert render(make_report()) == render(make_report())


@pytest.mark.parametrize("asset", sorted(ASSETS.iterdir()), ids=lambda path: path.name)
def test_assets_stay_short_enough_to_read(asset: Path) -> None:
    text = asset.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400, "split it by concept"
    assert text.isascii()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"question_ids": ("a",)}, "answers: expected shape"),
        ({"labels": np.zeros(3)}, "labels: expected shape"),
        ({"agents": ("a", "a", "b", "c")}, "unique names"),
        ({"agents": (), "answers": np.zeros((40, 0))}, "needs questions and agents"),
        ({"ensembles": {"x": np.zeros(3)}}, "ensemble x: expected shape"),
        ({"categories": ("a",)}, "categories: expected shape"),
        ({"subsets": make_cloud(9)}, "there are 4 agents"),
    ],
)
def test_shapes_that_disagree_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_report(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"focal": np.zeros(2)}, "focal must hold"),
        ({"accuracy": np.full(14, np.nan)}, "accuracy must hold 14 finite"),
        ({"best": 14}, "indices below 14"),
        ({"pareto": np.array([-1])}, "indices below 14"),
        ({"members": np.full((14, 3), -1)}, "one at least"),
        ({"members": np.array([[-1, 0, 1]] * 14)}, "only behind the last"),
        ({"members": np.zeros(14)}, "shape"),
    ],
)
def test_clouds_that_cannot_be_drawn_are_refused(fields: dict[str, Any], message: str) -> None:
    cloud = make_cloud(4)
    values = {name: getattr(cloud, name) for name in ("members", "focal", "accuracy", "objective", "best", "pareto")}
    with pytest.raises(InputError, match=message):
        SubsetCloud(**(values | fields))


def test_rows_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="role must be one of"):
        SystemRow(name="x", label="x", role="winner", accuracy=0.5, low=0.4, high=0.6)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="interval in"):
        SystemRow(name="x", label="x", role="member", accuracy=0.5, low=0.6, high=0.4)
    with pytest.raises(InputError, match="worth: loo"):
        MemberWorth(agents=("a",), **dict.fromkeys(WORTHS, np.zeros(2)))


def test_many_categories_are_cut_and_the_page_says_so() -> None:
    data = make_report(num_questions=200, categories=tuple(f"c{number // 2}" for number in range(200)))
    strengths = Study.of(data).strengths
    assert strengths is not None
    assert (len(strengths.names), strengths.hidden) == (80, 20)
    assert "20 smaller categories are not shown" in render(data)


def test_a_real_record_stays_small(recorded_data: Path) -> None:
    """8,386 questions x 24 models, and all 55,430 sub-ensembles of up to five of them with five numbers each.

    Random numbers cannot be compressed, so those of a real search take no more room.
    """
    table = read_table(recorded_data / "mmlu_pro" / "predictions.csv.gz")
    sets = [chosen for size in range(2, 6) for chosen in itertools.combinations(range(24), size)]
    members = np.full((len(sets), 5), -1, dtype=np.int16)
    for row, chosen in enumerate(sets):
        members[row, : len(chosen)] = chosen
    columns = np.random.default_rng(0).random((5, len(sets))).astype(np.float32)
    names = ("focal", "accuracy", "objective", "test_accuracy", "cost")
    cloud = SubsetCloud(members=members, best=0, pareto=np.arange(9), **dict(zip(names, columns, strict=True)))
    assert table.labels is not None
    assert table.categories is not None
    data = ReportData(
        title="MMLU-Pro",
        verdict=("Nothing.",),
        agents=tuple(table.agents),
        answers=table.answers,
        labels=table.labels,
        question_ids=tuple(map(str, table.question_ids)),
        categories=tuple(map(str, table.categories)),
        ensembles={"first": table.answers[:, 0]},
        subsets=cloud,
    )
    assert len(sets) == 55_430
    assert len(render(data).encode()) < 2_500_000
