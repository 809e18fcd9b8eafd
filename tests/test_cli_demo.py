"""fusion demo: asks the embedded pool, replays what is on record, and says when nothing is to be gained."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fusion.agents import read_pool
from fusion.cli import main
from fusion.data import read_table
from fusion.demo import POOLS, pool_file
from fusion.errors import UnknownName


def run(folder: Path, *words: str, code: int = 0) -> str:
    """Return what `fusion WORDS` prints, run in `folder` without a network."""
    told = subprocess.run(
        [sys.executable, "-m", "fusion", *words],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == code, told.stdout + told.stderr
    return told.stdout + told.stderr


def verdict(told: str) -> str:
    return told.partition("verdict: ")[2].partition("\nresults: ")[0]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the demo was run on 240 questions, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, run(folder, "demo", "--questions", "240")


def test_members_are_asked_and_studied(shown: tuple[Path, str]) -> None:
    folder, told = shown
    members = read_pool(pool_file("micro")).names
    assert f"asked {240 * len(members)} questions live" in told
    for text in (*members, "all_agents+vote", "best single", "oracle", "verdict: "):
        assert text in told
    table = read_table(folder / "fusion-demo" / "table.parquet")
    assert (len(table), table.agents) == (240, members)
    result = json.loads((folder / "fusion-demo" / "run.json").read_text())
    assert result["n"] == 72


def test_the_second_run_replays_and_says_so(shown: tuple[Path, str]) -> None:
    folder, first = shown
    before = read_table(folder / "fusion-demo" / "table.parquet").fingerprint
    told = run(folder, "demo", "--questions", "240")
    assert "nobody was asked, the record is replayed" in told
    assert "questions live" not in told
    assert verdict(told) == verdict(first)
    assert read_table(folder / "fusion-demo" / "table.parquet").fingerprint == before


def test_more_questions_are_asked_where_the_last_run_ended(shown: tuple[Path, str]) -> None:
    folder, _ = shown
    told = run(folder, "demo", "--questions", "248")
    members = len(read_pool(pool_file("micro")).names)
    assert f"asked {8 * members} questions live, {240 * members} were on record" in told


def test_the_pool_answers_single_questions_right_after(shown: tuple[Path, str]) -> None:
    folder, told = shown
    command = next(line.strip() for line in told.splitlines() if "fusion ask" in line)
    assert command.endswith("--pool micro --record fusion-demo")
    options = ["--option", "cat", "--option", "lemon", "--option", "dog", "--option", "cow"]
    words = ["ask", "Which word does not belong?", *options, "--pool", "micro", "--record", "fusion-demo"]
    answer = json.loads(run(folder, *words, "--json", "-"))
    assert answer["text"] == "lemon"
    assert {member["agent"] for member in answer["members"]} == set(read_pool(pool_file("micro")).names)


def test_a_pool_where_nothing_is_to_be_gained(tmp_path: Path) -> None:
    told = run(tmp_path, "demo", "--pool", "nested", "--questions", "400")
    assert re.search("^all_agents[+]vote (does not beat|is worse than) the best single member", verdict(told))
    assert "beats" not in verdict(told)


def test_a_generated_table_needs_no_model(tmp_path: Path) -> None:
    told = run(tmp_path, "demo", "--simulated", "--questions", "200")
    assert "no language model is asked" in told
    assert "sim-oak-32b" in told
    assert (tmp_path / "fusion-demo-simulated" / "run.json").is_file()
    assert "leave one of them out" in run(tmp_path, "demo", "--simulated", "--pool", "nested", code=2)


def test_without_torch_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name == "torch" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(SystemExit):
        main(["demo", "--out", str(tmp_path / "demo"), "--questions", "20"])
    told = capsys.readouterr().err
    assert "pip install 'fusion[hf]'" in told
    assert "fusion demo --simulated" in told


def test_pools_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(pool_file(name).is_file() for name in POOLS)
    with pytest.raises(UnknownName, match="did you mean 'micro'"):
        pool_file("mikro")
    assert "no pool of that name comes with the package; did you mean 'micro'" in run(
        tmp_path, "doctor", "micr", code=2
    )
    # A file of that name in the current folder wins.
    (tmp_path / "micro").write_text("agents: [{name: mine, engine: echo}]")
    told = run(tmp_path, "doctor", "micro", "--json")
    assert json.loads(told)["agents"] == ["mine"]
