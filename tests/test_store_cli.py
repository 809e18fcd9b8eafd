"""fusion store: what it prints, what it leaves behind, and how it ends."""

import json
import os
import re
from pathlib import Path

import command_line
import pytest
from command_line import Run, Told
from store_rows import NASTY, filled, key, said

from fusion.agents._store import RecordStore


@pytest.fixture
def folder(bare: Path) -> Path:
    """A working folder with a store in run."""
    with RecordStore.open("run") as store:
        filled(store)
    return bare


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def told(*words: str) -> Told:
        return command_line.run(capsys, ("store", *words))

    return told


def change(statement: str) -> None:
    with RecordStore.open("run") as store, store.writing() as connection:
        connection.execute(statement)


def test_ls(run: Run) -> None:
    code, out, error = run("ls", "run")
    assert (code, error) == (0, "")
    assert out.startswith("60 answers in run/answers.sqlite")
    rows = [re.split(r"\s*[^\w\s:.-]\s*", line)[1:-1] for line in out.splitlines() if "agent-" in line]
    # Of twenty answers three are failures; each answer has 11 tokens in and 7 out.
    assert [row[:6] for row in rows] == [[f"agent-{i}", "task", "17", "3", "187", "119"] for i in range(3)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", cell) for row in rows for cell in row[6:])


def test_ls_takes_the_file_and_prints_json(run: Run) -> None:
    told = json.loads(run("ls", "run/answers.sqlite", "--json").out)
    assert told["file"] == "run/answers.sqlite"
    first = told["agents"][0]
    assert [row["agent"] for row in told["agents"]] == ["agent-0", "agent-1", "agent-2"]
    assert (first["task"], first["answers"], first["statuses"]) == ("task", 20, {"ok": 17, "timeout": 3})
    assert (first["tokens_in"], first["tokens_out"]) == (187, 119)
    assert first["first"] == first["last"]
    assert first["first"].endswith("Z")


def test_names_of_any_kind_are_printed(run: Run) -> None:
    with RecordStore.open("run") as store:
        store.put(key(agent=NASTY), said(), agent=f"[bold]{NASTY}", task=NASTY)
    for words in (("ls", "run"), ("ls", "run", "--json"), ("gc", "run", "--keep", "agent-1", "--dry-run")):
        told = run(*words)
        assert told.code == 0, told.error
        told.out.encode()
        assert "[bold]" in told.out


def test_verify(run: Run) -> None:
    assert run("verify", "run") == (0, "run/answers.sqlite is whole: 60 answers\n", "")


def test_verify_lists_problems_and_gc_drops_them(run: Run) -> None:
    change("UPDATE answers SET text = 'no' WHERE id = 12")
    code, out, _ = run("verify", "run")
    assert code == 1
    lines = out.splitlines()
    assert lines[0].startswith("agent 'agent-2', question 'q3': not what was recorded")
    assert lines[1].startswith("1 problem in run/answers.sqlite; fusion store gc --damaged drops")
    code, out, _ = run("gc", "run", "--damaged")
    assert code == 0
    assert "dropped 1 answers of unknown agents: damaged" in out
    assert run("verify", "run").code == 0


def test_verify_does_not_list_without_end(run: Run) -> None:
    change("UPDATE answers SET text = 'no'")
    code, out, _ = run("verify", "run")
    assert code == 1
    assert len(out.splitlines()) == 21
    assert "and 40 more; 60 problems in run/answers.sqlite" in out


def test_export_and_import(run: Run, folder: Path) -> None:
    told = run("export", "run", "--out", "x.parquet")
    assert told.code == 0
    assert re.match(r"wrote x.parquet   60 answers, \d+\.\d KiB\n", told.out)
    told = run("import", "new", "x.parquet")
    assert told.code == 0
    assert "new/answers.sqlite: 60 answers added, 0 that were not final replaced, 0 were there; it holds 60" in told.out
    assert "0 answers added, 0 that were not final replaced, 60 were there" in run("import", "new", "x.parquet").out
    assert run("verify", "new").code == 0
    assert sorted(os.listdir(folder)) == ["new", "run", "x.parquet"]


def test_import_tells_of_conflicts(run: Run) -> None:
    with RecordStore.open("other") as store:
        store.put(key(1), said("other"), agent="ann")
    with RecordStore.open("run") as store:
        store.put(key(1), said("own"), agent="ann")
    assert run("export", "other", "--out", "x.parquet").code == 0
    told = run("import", "run", "x.parquet")
    assert told.code == 0
    assert "conflict: agent 'ann', question 'q1': the store's own answer is kept" in told.out
    assert "note: 1 imported answers differ from final ones of the store, which keeps its own" in told.out


def test_gc(run: Run) -> None:
    planned = run("gc", "run", "--agent", "agent-1", "--dry-run")
    assert planned.code == 0
    assert "would drop 17 answers of agent-1: unwanted" in planned.out
    assert "would drop 3 answers of agent-0: timeout" in planned.out
    assert re.search(r"would drop 26 answers, 0 prompts and 1 settings .*about .*; 34 answers stay", planned.out)
    assert run("ls", "run").out.startswith("60 answers")
    done = run("gc", "run", "--agent", "agent-1")
    assert re.search(r"^dropped 26 answers, .*; 34 answers stay in run/answers.sqlite", done.out, re.M)
    assert run("gc", "run", "--keep", "agent-0").out.startswith("dropped 17 answers of agent-2: unwanted")
    assert run("verify", "run").code == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("ls", 2, "Missing argument 'STORE'"),
        ("ls none", 1, "there is no record store none/answers.sqlite; give the folder that was recorded into"),
        ("verify none", 1, "there is no record store none/answers.sqlite"),
        ("export none --out x.parquet", 1, "there is no record store none/answers.sqlite"),
        ("gc none", 1, "there is no record store none/answers.sqlite"),
        ("gc none --dry-run", 1, "there is no record store none/answers.sqlite"),
        ("ls text", 1, r"text is no record store \(no SQLite file\)"),
        ("import new text", 1, "text cannot be read as Parquet"),
        ("import new none.parquet", 1, "no file none.parquet; give one that fusion store export wrote"),
        ("import new", 2, "Missing argument 'FILE...'"),
        ("export run", 2, "Missing option '--out'"),
        ("export run --out x.csv", 2, "end it with .parquet"),
        ("export run --out run/answers.sqlite", 2, "is the file that is read"),
        ("export run --out /dev/null", 1, "no regular file"),
        ("gc run --agent agnet-1", 2, r"unknown agent 'agnet-1'; did you mean 'agent-1'"),
        ("gc run --agent agent-1 --keep agent-2", 2, "not both"),
        ("sl run", 2, "No such command 'sl'"),
    ],
)
def test_bad_usage(words: str, code: int, told: str, run: Run, folder: Path) -> None:
    (folder / "text").write_text("text")
    before = sorted(str(path) for path in folder.rglob("*"))
    result = run(*words.split())
    assert result.code == code
    assert re.search(told, result.error), result.error
    assert "Traceback" not in result.error
    assert sorted(str(path) for path in folder.rglob("*")) == before


def test_verbs_alone_help(run: Run) -> None:
    told = run()
    assert {"ls", "verify", "export", "import", "gc"} <= set(re.findall(r"\w+", told.out + told.error))
