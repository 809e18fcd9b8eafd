"""fusion record and fusion ask, as they are typed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fusion.data import PredictionTable, read_table, write_table

POOL = """
version: 1
agents:
  - {name: steady, engine: "echo(replies=[A, B, C])", mode: generate, input_price: 1, output_price: 2}
  - {name: flaky, engine: "echo(replies=[A, B], fail_share=0.3)", mode: generate, input_price: 0, output_price: 0}
  - {name: third, engine: "echo(replies=[A])", mode: generate, input_price: 0, output_price: 0}
"""


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool.yaml"
    path.write_text(POOL)
    return path


def fusion(*words: str | Path, code: int = 0, **how: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fusion", *map(str, words)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, **how)
    assert told.returncode == code, f"{told.stdout}\n{told.stderr}"
    assert "Traceback" not in told.stderr
    return told


def record(pool: Path, out: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return fusion("record", "--pool", pool, "--task", "micro", "--limit", "50", "--out", out, *words, code=code)


def test_record_then_bench(pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = record(pool, out, code=1)
    heading = told.stdout.splitlines()[2]
    assert heading.index("failed %") < heading.index("accuracy %"), "failures come before accuracy"
    assert "of the calls of flaky failed" in told.stdout
    assert "the same command asks again what failed" in told.stdout
    assert sorted(path.name for path in out.iterdir()) == ["answers.sqlite", "record.json", "table.parquet"]
    assert len(read_table(out / "table.parquet")) == 50
    again = record(pool, out, "--fail-on-error", "0.5", "--json", "-")
    members = {member["agent"]: member for member in json.loads(again.stdout)["members"]}
    assert members["steady"]["recorded"] == 50
    assert members["flaky"]["recorded"] == members["flaky"]["statuses"]["ok"]
    shown = fusion("bench", out / "table.parquet", "--systems", "vote", "--repeats", "200").stdout
    assert "of the calls of flaky failed" in shown


def test_progress_goes_to_standard_error(pool: Path, tmp_path: Path) -> None:
    told = record(pool, tmp_path / "out", code=1)
    assert "steady: 50 of 50\n" in told.stderr
    assert "of 50" not in told.stdout


def test_plan(pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = record(pool, out, "--plan", "--json", "-")
    first = json.loads(told.stdout)["plan"][0]
    assert (first["agent"], first["calls"], first["recorded"], first["error"]) == ("steady", 50, 0, "")
    assert not out.exists()
    assert "to ask" in record(pool, out, "--plan").stdout


def test_the_environment_names_the_pool(pool: Path, tmp_path: Path) -> None:
    import os

    words = ["record", "--task", "micro", "--limit", "5", "--out", tmp_path / "out", "--fail-on-error", "1"]
    fusion(*words, env={**os.environ, "FUSION_POOL": str(pool)})
    assert (tmp_path / "out" / "table.parquet").exists()


def test_set_overrides_the_file(pool: Path, tmp_path: Path) -> None:
    words = ["--set", "agents.steady.input_price=100", "--json", "-", "--fail-on-error", "1"]
    told = record(pool, tmp_path / "out", *words)
    steady = json.loads(told.stdout)["members"][0]
    assert steady["cost"] == pytest.approx((steady["tokens_in"] * 100 + 50 * 2) / 1e6)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--limit", "none"], "a limit is a number"),
        (["--split", "tset"], "tset"),
        (["--executor", "nowhere"], "unknown executor 'nowhere'"),
        (["--set", "agents.steady.modle=x"], "unknown key 'agents.0.modle'; did you mean"),
        (["--pool", "missing.yaml"], "missing.yaml"),
        (["--task", "mikro"], "did you mean 'micro'"),
    ],
)
def test_wrong_usage_of_record(words: list[str], expected: str, pool: Path, tmp_path: Path) -> None:
    told = record(pool, tmp_path / "out", *words, code=2)
    assert expected in " ".join(told.stderr.split())
    assert not (tmp_path / "out" / "table.parquet").exists()


def test_a_file_in_the_way(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("not a folder")
    assert "out" in record(pool, tmp_path / "out", code=1).stderr


def test_ask(pool: Path, tmp_path: Path) -> None:
    told = fusion("ask", "Which is a fruit?", "--option", "pear", "--option", "spade", "--pool", pool, "--quorum", "1")
    assert "members" in told.stdout
    assert "answer: " in told.stdout.splitlines()[-1]
    words = ["ask", "-", "--pool", pool, "--quorum", "1", "--record", tmp_path / "kept", "--json", "-"]
    first = json.loads(fusion(*words, input="Say a letter").stdout)
    assert {member["agent"] for member in first["members"]} == {"steady", "flaky", "third"}
    assert first["text"] in {"A", "B", "C"}
    again = json.loads(fusion(*words, input="Say a letter").stdout)
    assert again["votes"] == first["votes"]
    assert [member["recorded"] for member in again["members"] if member["status"] == "ok"] == [1, 1, 1]
    assert "steady" in fusion("store", "ls", tmp_path / "kept").stdout


def test_ask_a_saved_ensemble(pool: Path, tmp_path: Path) -> None:
    from fusion import Ensemble, read_pool

    Ensemble(read_pool(pool), "fixed_subset(agents=[steady, third])", "vote").save(tmp_path / "kept")
    told = fusion("ask", "Say a letter", "--ensemble", tmp_path / "kept", "--json", "-")
    assert [member["agent"] for member in json.loads(told.stdout)["members"]] == ["steady", "third"]


TABLE = "question_id,answer,third,steady\n" + "".join(f"q{n},A,A,{'AB'[n % 2]}\n" for n in range(20))


def test_ask_what_fit_left(pool: Path, tmp_path: Path) -> None:
    """Fitted on recorded answers it has no engines, until a pool says who answers: at asking, or at fit."""
    (tmp_path / "t.csv").write_text(TABLE)
    fit = ("fit", "weighted_vote", tmp_path / "t.csv", "--out", tmp_path / "e")
    ask = ("ask", "Which?", "--option", "pear", "--option", "fig", "--ensemble", tmp_path / "e", "--json", "-")
    fusion(*fit)
    refused = fusion(*ask, code=2).stderr
    assert "nobody answers for third, steady" in refused
    assert "--pool FILE" in refused
    told = fusion(*ask, "--pool", pool, "--set", "agents.third.engine=echo(replies=[B])")
    assert [(member["agent"], member["status"]) for member in json.loads(told.stdout)["members"]] == [
        ("third", "ok"),
        ("steady", "ok"),
    ]
    assert "third" in json.loads(told.stdout)["votes"]["fig"]
    fusion(*fit, "--pool", pool)
    assert {member["agent"] for member in json.loads(fusion(*ask).stdout)["members"]} == {"third", "steady"}


def test_a_pool_that_lacks_agents(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE.replace("third", "stedy").replace("steady", "other"))
    fit = ("fit", "vote", tmp_path / "t.csv", "--out", tmp_path / "e")
    wrong = " ".join(fusion(*fit, "--pool", pool, code=2).stderr.replace("│", " ").split())
    assert "the pool lacks the agents 'stedy', 'other' of the table; did you mean 'steady'" in wrong
    assert not (tmp_path / "e").exists()
    fusion(*fit)
    wrong = fusion("ask", "Q?", "--ensemble", tmp_path / "e", "--pool", pool, code=2).stderr
    assert "lacks the agents 'stedy', 'other' of the ensemble in" in " ".join(wrong.replace("│", " ").split())


def test_a_writer_that_is_no_member(pool: Path, tmp_path: Path) -> None:
    """flaky is in the pool, and has no column in the table."""
    table = PredictionTable(
        question_ids=[f"q{n}" for n in range(20)],
        agents=["third", "steady"],
        answers=[[0, n % 2] for n in range(20)],
        labels=[0] * 20,
        questions=["Which?"] * 20,
        options=[["pear", "fig"]] * 20,
    )
    write_table(table, tmp_path / "t.parquet")
    system = "synthesize(agent=flaky)"
    fusion("fit", system, tmp_path / "t.parquet", "--out", tmp_path / "e", "--pool", pool)
    told = fusion("ask", "Which?", "--option", "pear", "--option", "fig", "--ensemble", tmp_path / "e", "--json", "-")
    assert len(json.loads(told.stdout)["members"]) == 2


@pytest.mark.parametrize("option", [("--option", "pear", "--option", "fig"), ()])
@pytest.mark.parametrize("fuser", ["synthesize(agent=third)", "rank(agent=third)"])
def test_a_writer_without_labels(pool: Path, tmp_path: Path, fuser: str, option: tuple[str, ...]) -> None:
    told = fusion("ask", "Which?", "--pool", pool, "--system", fuser, "--json", "-", *option)
    assert json.loads(told.stdout)["text"]
    refused = fusion("ask", "Which?", "--pool", pool, "--system", fuser.partition("(")[0], *option, code=1).stderr
    refused = " ".join(refused.replace("│", " ").split())
    assert "(agent=NAME), or call fit" in refused


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ([], 2, "give --ensemble FOLDER, --pool FILE, or both"),
        (["--pool", "{pool}", "--ensemble", "x"], 1, "no ensemble in x"),
        (["--ensemble", "x", "--set", "agents.steady.model=x"], 2, "goes with --pool"),
        (["--pool", "{pool}", "--quorum", "many"], 2, "--quorum is a number"),
        (["--pool", "{pool}", "--quorum", "1.5"], 2, "quorum"),
        (["--pool", "{pool}", "--deadline", "0"], 2, "deadline_s"),
        (["--pool", "{pool}", "--option", "one"], 2, "two different options"),
        (["--pool", "{pool}", "--system", "oracle+vote"], 2, "right answers"),
        (["--pool", "{pool}", "--system", "weighted_vote"], 1, "fit"),
        (["--ensemble", "x", "--system", "vote"], 2, "goes with --pool alone"),
        (["--pool", "{pool}", "--set", "agents.steady.modle=x"], 2, "did you mean"),
        (["--pool", "{pool}", "--quorum", "4"], 2, "a quorum of 4 cannot be met: 3 agents are asked"),
        (["--pool", "{pool}", "--task", "bbh"], 2, "none of bbh"),
    ],
)
def test_wrong_usage_of_ask(words: list[str], code: int, expected: str, pool: Path) -> None:
    told = fusion("ask", "Say a letter", *(word.format(pool=pool) for word in words), code=code)
    assert expected in " ".join(told.stderr.replace("│", " ").split())
