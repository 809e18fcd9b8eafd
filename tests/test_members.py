"""The small models that come with the package: small, loadable, as good as recorded, and different from each other."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from fusion import AgentPool, RecordOptions, read_pool, record
from fusion.data import PredictionTable
from fusion.demo import POOLS, pool_file

pytest.importorskip("transformers")

ROOT = Path(__file__).parents[1]
MEMBERS = ROOT / "fusion" / "demo" / "members"
REPORT = json.loads((ROOT / "benchmarks" / "members" / "results.json").read_text(encoding="utf-8"))
TEST = REPORT["results"]["micro/a/test"]
NESTED = REPORT["results"]["nested/a/test"]
CHECKED = 200


def pool(name: str) -> AgentPool:
    return read_pool(pool_file(name))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PredictionTable]:
    """The first questions of the split test, asked anew."""
    return {
        name: record(
            pool(name), "micro", tmp_path_factory.mktemp(name), options=RecordOptions(limit=str(CHECKED))
        ).table
        for name in POOLS
    }


def test_pools_name_the_members_that_there_are() -> None:
    assert len(pool("micro")) == 8
    assert pool("nested").names[0] in pool("micro").names
    folders = {folder.name for folder in MEMBERS.iterdir()}
    assert {*pool("micro").names, *pool("nested").names} == folders == set(REPORT["members"])
    for agent in (*pool("micro"), *pool("nested")):
        assert Path(agent.model) == (MEMBERS / agent.name), "a path in a pool file begins at its folder"


def test_members_are_small_and_of_several_kinds() -> None:
    files = [file for file in MEMBERS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 8 * 2**20
    configs = [json.loads((MEMBERS / name / "config.json").read_text()) for name in pool("micro").names]
    assert len({config["architectures"][0] for config in configs}) >= 5
    assert all(config["dtype"] == "float16" for config in configs)
    assert all(config["hidden_size"] // config["num_attention_heads"] in (32, 64) for config in configs)
    assert len({REPORT["members"][name]["parameters"] // 10_000 for name in pool("micro").names}) >= 3


def test_members_give_the_recorded_answers(tables: dict[str, PredictionTable]) -> None:
    """Greedy and in float32: as many right as when results.json was written, but for a close choice or two.

    The same processor gives the same; another adds in another order.
    """
    for name, table in tables.items():
        recorded = REPORT["results"][f"{name}/a/test"]["right_of_first_200"]
        right = dict(zip(table.agents, table.correct.sum(axis=0).tolist(), strict=True))
        assert right == pytest.approx(recorded, rel=0, abs=2)
        # Options are scored, so each has an answer; of what is written, nearly all are numbers.
        assert table.answered.mean() > 0.99
        assert table.probs is not None
        assert table.provenance["statuses"] == {agent: {"ok": CHECKED} for agent in table.agents}


def test_members_differ_and_the_vote_gains() -> None:
    accuracies = TEST["accuracy"].values()
    assert TEST["questions"] == 2000
    assert all(0.35 <= accuracy <= 0.80 for accuracy in accuracies)
    assert TEST["oracle"] > 0.90
    assert TEST["vote"] >= max(accuracies) + 0.08


def by_category(facets: dict[str, dict[str, float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Accuracies by category, facet and member."""
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for name, shares in facets.items():
        for key, share in shares.items():
            category, _, facet = key.partition(": ")
            found[category][facet][name] = share
    return found


def test_no_member_is_the_specialist_of_a_category() -> None:
    """In each, three are near the best, and another is better than the best on a part of it."""
    facets = by_category(TEST["by_facet"])
    assert len(facets) == 8
    for category, parts in facets.items():
        shares = {name: told[category] for name, told in TEST["by_category"].items()}
        best = max(shares, key=shares.__getitem__)
        assert sum(share >= shares[best] - 0.15 for share in shares.values()) >= 3, category
        assert any(max(told.values()) > told[best] for told in parts.values()), category


def test_no_two_members_know_the_same() -> None:
    names = list(TEST["by_facet"])
    for i, one in enumerate(names):
        for other in names[:i]:
            told: list[Any] = [TEST["by_facet"][one], TEST["by_facet"][other]]
            apart = [facet for facet in told[0] if abs(told[0][facet] - told[1][facet]) > 0.4]
            assert len(apart) >= 8, (one, other)


def test_nothing_is_gained_in_the_nested_pool() -> None:
    best = pool("nested").names[0]
    validation = REPORT["results"]["micro/a/validation"]["accuracy"]
    assert best == max(validation, key=validation.__getitem__)
    assert NESTED["vote"] <= NESTED["accuracy"][best]
    assert NESTED["accuracy"][best] == max(NESTED["accuracy"].values()) == TEST["accuracy"][best]
