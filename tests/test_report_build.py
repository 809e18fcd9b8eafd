"""fusion report: from runs back to the questions they were evaluated on."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tables

from fusion import Ensemble
from fusion.cli import main
from fusion.data import PredictionTable, read_table, split, write_table
from fusion.errors import InputError, TableMismatch
from fusion.evaluation import BenchOptions, bench
from fusion.fusers.vote import Vote
from fusion.pruning import PruneOptions, prune
from fusion.reports.build import Run, build_report, read_runs
from fusion.reports.html import ReportData
from fusion.schema import Decision, Selection
from fusion.selectors import focal_diversity


def make_table(num_questions: int = 200, num_agents: int = 6, seed: int = 0) -> PredictionTable:
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, num_questions)
    shape = (num_questions, num_agents)
    right_NM = rng.random(shape) < np.linspace(0.35, 0.6, num_agents)
    answers_NM = np.where(right_NM, labels_N[:, None], rng.integers(-1, 4, shape))
    return PredictionTable(
        question_ids=[f"q{n}" for n in range(num_questions)],
        agents=[f"agent-{j}" for j in range(num_agents)],
        answers=answers_NM,
        labels=labels_N,
        categories=np.array(["law", "maths"])[rng.integers(0, 2, num_questions)],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with a run of bench and one of prune beside it."""
    place = tmp_path_factory.mktemp("runs")
    write_table(make_table(), place / "table.parquet")
    options = PruneOptions(sizes=(2, 3), objective="accuracy", repeats=200)
    prune(place / "table.parquet", options=options).save(place / "prune.json")
    systems = "all_agents+vote, top_k(k=3)+weighted_vote"
    bench(place / "table.parquet", systems, options=BenchOptions(repeats=200)).save(place / "bench.json")
    return place


@pytest.fixture(scope="module")
def data(folder: Path) -> ReportData:
    return build_report(read_runs([folder / "prune.json", folder / "bench.json"]))


def test_items_are_the_questions_that_nothing_was_fitted_on(folder: Path, data: ReportData) -> None:
    parts = split(read_table(folder / "table.parquet"))
    assert list(data.question_ids) == parts.test.question_ids.tolist()
    assert data.labels is not None
    assert (data.answers == parts.test.answers).all()
    for name, system in (("all_agents+vote", ("all_agents", "vote")),):
        ensemble = Ensemble(parts.fit.agents, *system).fit(parts.fit)
        assert (data.ensembles[name] == ensemble.replay(parts.test).decision.answers).all()


def test_ensembles_have_the_accuracies_that_the_runs_report(folder: Path, data: ReportData) -> None:
    told = json.loads((folder / "prune.json").read_text())
    best = told["subsets"][0]
    name, *systems = data.ensembles
    assert name == " + ".join(best["agents"]) + ", vote"
    assert systems == ["all_agents+vote", "top_k(k=3)+weighted_vote"]
    assert data.labels is not None
    assert (data.ensembles[name] == data.labels).mean() == pytest.approx(best["test_accuracy"])
    rows = {row.name: row for row in data.systems}
    for system in json.loads((folder / "bench.json").read_text())["systems"]:
        assert rows[system["name"]].accuracy == system["accuracy"]
    assert [row.name for row in data.systems if row.role == "member"] == list(data.agents)


def test_every_scored_subset_is_a_dot(folder: Path, data: ReportData) -> None:
    parts = split(read_table(folder / "table.parquet"))
    cloud = data.subsets
    assert cloud is not None
    assert cloud.num_subsets == 15 + 20
    assert cloud.sampled_from is None
    for p in range(0, cloud.num_subsets, 7):
        members = [parts.fit.agents[place] for place in cloud.members[p] if place >= 0]
        ensemble = Ensemble(members, "all_agents", "vote").fit(parts.fit)
        right = {part: ensemble.replay(part).decision.answers == part.labels for part in parts}
        assert cloud.accuracy[p] == pytest.approx(right[parts.fit].mean())
        assert cloud.test_accuracy is not None
        assert cloud.test_accuracy[p] == pytest.approx(right[parts.test].mean())
        assert cloud.focal[p] == pytest.approx(focal_diversity(parts.fit.columns(members).correct))
    assert cloud.accuracy[cloud.best] == cloud.accuracy.max()
    assert cloud.sizes[cloud.pareto].tolist() == sorted(set(cloud.sizes[cloud.pareto].tolist()))


def test_the_best_and_the_front_are_among_a_sample(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusion.reports.build.MAX_POINTS", 5)
    told = json.loads((folder / "prune.json").read_text())
    cloud = build_report(read_runs([folder / "prune.json"])).subsets
    assert cloud is not None
    assert cloud.sampled_from == 35
    assert 5 <= cloud.num_subsets <= 5 + 1 + len(told["front"])
    assert cloud.accuracy[cloud.best] == told["subsets"][0]["accuracy"]
    assert sorted(cloud.accuracy[cloud.pareto]) == sorted(item["accuracy"] for item in told["front"])


def test_runs_fitted_on_different_questions_are_refused(folder: Path, tmp_path: Path) -> None:
    parts = split(read_table(folder / "table.parquet"))
    write_table(parts.test, tmp_path / "test.parquet")
    for name, fit in (("all", parts.fit), ("few", parts.fit.rows(slice(0, 50)))):
        write_table(fit, tmp_path / f"{name}.parquet")
        options = PruneOptions(sizes=(2,), repeats=200)
        prune(tmp_path / f"{name}.parquet", test=tmp_path / "test.parquet", options=options).save(
            tmp_path / f"{name}.json"
        )
    with pytest.raises(TableMismatch, match=r"all.json and few.json were not fitted"):
        build_report(read_runs([tmp_path / "all.json", tmp_path / "few.json"]))


def test_prunings_for_different_fusers_side_by_side(folder: Path) -> None:
    """The same sub-ensemble and rivals have rows of their own for each fuser; what is drawn is the first one's."""
    table = read_table(folder / "table.parquet")
    prunings = [PruneOptions(sizes=(3,), repeats=200, fuser=fuser) for fuser in (None, "weighted_vote")]
    runs = [Run(Path(f"{n}.json"), prune(table, options=options)) for n, options in enumerate(prunings)]
    report = build_report(runs, table=table)
    labels = [row.label for row in report.systems]
    assert {"all 6 members, vote", "all 6 members, weighted_vote"} <= set(labels)
    assert len(report.ensembles) == 2
    assert "scored sub-ensembles, worth of members and stability are those of 0.json" in report.notes
    assert report.labels is not None
    for run, answers_N in zip(runs, report.ensembles.values(), strict=True):
        accuracy = run.result.subsets[0].test_accuracy
        assert (answers_N == report.labels).mean() == pytest.approx(accuracy)


def test_excluded_agents_stay_on_the_page(folder: Path) -> None:
    table = read_table(folder / "table.parquet")
    options = PruneOptions(sizes=(2, 3), objective="accuracy", exclude=("agent-0", "agent-5"), repeats=200)
    result = prune(table, options=options)
    assert result.pool == ("agent-1", "agent-2", "agent-3", "agent-4")
    assert not {"agent-0", "agent-5"} & {name for rival in result.rivals for name in rival.agents}
    report = build_report([Run(Path("run.json"), result)], table=table)
    assert len(report.agents) == 6
    cloud = report.subsets
    assert cloud is not None
    assert cloud.num_subsets == 6 + 4
    assert set(np.unique(cloud.members).tolist()) == {-1, 1, 2, 3, 4}
    best = tuple(report.agents[place] for place in cloud.members[cloud.best] if place >= 0)
    assert best == result.subsets[0].agents


def test_an_interrupted_pruning_says_so(folder: Path) -> None:
    table = read_table(folder / "table.parquet")
    result = dataclasses.replace(prune(table, options=PruneOptions(sizes=(2,), repeats=200)), complete=False)
    report = build_report([Run(Path("run.json"), result)], table=table)
    assert report.subsets is None
    assert report.verdict[1] == "The pruning was interrupted: this is the best of what it had looked at."


def test_evidence_is_on_the_page(folder: Path) -> None:
    table = read_table(folder / "table.parquet")
    options = PruneOptions(sizes=(3,), objective="accuracy", repeats=200, evidence=True, resamples=4)
    result = prune(table, options=options)
    report = build_report([Run(Path("run.json"), result)], table=table)
    assert report.worth is not None
    assert set(report.worth.agents) == set(result.subsets[0].agents)
    assert report.worth.shapley.sum() == pytest.approx(result.subsets[0].test_accuracy)
    assert report.stability is not None
    assert report.stability[0].agents == result.subsets[0].agents
    assert any(note.startswith("in the top 10 in ") for note in report.notes)


def test_the_verdict_is_in_sentences(data: ReportData) -> None:
    assert re.match(r"agent-\d \+ .* answers \d+\.\d % of 60 other questions right\.$", data.verdict[0])
    assert data.verdict[1].startswith("It ")
    assert any(sentence.startswith("all_agents+vote ") for sentence in data.verdict)
    assert all(sentence.endswith(".") for sentence in data.verdict)


def test_tables_of_their_own_to_evaluate_on(tmp_path: Path) -> None:
    table = make_table()
    write_table(table.rows(slice(0, 120)), tmp_path / "fit.parquet")
    write_table(table.rows(slice(120, 200)), tmp_path / "test.parquet")
    options = PruneOptions(sizes=(2,), repeats=200)
    prune(tmp_path / "fit.parquet", test=tmp_path / "test.parquet", options=options).save(tmp_path / "run.json")
    report = build_report(read_runs([tmp_path]))
    assert report.question_ids == tuple(f"q{n}" for n in range(120, 200))


def test_a_table_is_found_beside_its_run(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("table.parquet", "prune.json"):
        (moved / name).write_bytes((folder / name).read_bytes())
    result = json.loads((moved / "prune.json").read_text())
    result["run"]["command"]["table"] = "/nowhere/table.parquet"
    (moved / "prune.json").write_text(json.dumps(result))
    assert len(build_report(read_runs([moved / "prune.json"])).question_ids) == 60
    (moved / "table.parquet").rename(moved / "other.parquet")
    with pytest.raises(InputError, match=r"prune.json was made from /nowhere/table.parquet, which is not there; give"):
        build_report(read_runs([moved / "prune.json"]))
    given = read_table(moved / "other.parquet")
    assert len(build_report(read_runs([moved / "prune.json"]), table=given).question_ids) == 60


def test_a_run_from_memory_wants_its_table() -> None:
    table = make_table()
    run = Run(Path("run.json"), prune(table, options=PruneOptions(sizes=(2,), repeats=200)))
    with pytest.raises(InputError, match=r"run.json does not say which file its table was read from; give it with"):
        build_report([run])
    assert build_report([run], table=table).agents == table.agents
    with pytest.raises(InputError, match=r"was made from another table: what it was fitted on has fingerprint"):
        build_report([run], table=make_table(seed=1))


def test_runs_on_different_questions_are_refused(folder: Path, tmp_path: Path) -> None:
    options = PruneOptions(sizes=(2,), repeats=200, seed=1)
    prune(folder / "table.parquet", options=options).save(tmp_path / "other.json")
    with pytest.raises(TableMismatch, match=r"prune.json and other.json were not fitted and evaluated on the same"):
        build_report(read_runs([folder / "prune.json", tmp_path / "other.json"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"is not JSON: .*; give a file that bench or prune --json wrote"),
        ("[]", r"is no result of fusion bench or fusion prune: its format is not given"),
        ('{"format": "fusion.compare/1"}', r"its format is fusion.compare/1"),
        ('{"format": "fusion.prune/1"}', r"is not the JSON of fusion prune: n: Field required"),
        (None, r"no run .*run.json: No such file or directory; give a file"),
    ],
)
def test_files_that_are_no_runs(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_runs([tmp_path / "run.json"])


def test_a_folder_without_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run in the folder"):
        read_runs([tmp_path])


def told(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out + printed.err


def test_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    code, said = told(capsys, "report", folder / "prune.json", folder / "bench.json", "--out", out, "--title", "Mine")
    assert code == 0, said
    assert said == f"wrote {out}\n"
    page = out.read_text(encoding="utf-8")
    assert "<title>Mine" in page
    assert "agent-5" in page


def test_a_run_of_bench_from_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "bench.json"
    words = ("--systems", "all_agents+vote", "--repeats", "200", "--json", run)
    code, said = told(capsys, "bench", folder / "table.parquet", *words)
    assert code == 0, said
    code, said = told(capsys, "report", run, "--out", tmp_path / "page.html")
    assert code == 0, said


def test_tables_that_moved_are_given(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = split(read_table(folder / "table.parquet"))
    for name, part in zip(("fit", "test"), parts, strict=True):
        write_table(part, tmp_path / f"{name}.parquet")
    words = ("--systems", "all_agents+vote", "--repeats", "200", "--json", tmp_path / "run.json")
    told(capsys, "bench", tmp_path / "fit.parquet", "--test", tmp_path / "test.parquet", *words)
    for name in ("fit", "test"):
        (tmp_path / f"{name}.parquet").rename(tmp_path / f"{name}-2.parquet")
    report = ("report", tmp_path / "run.json", "--out", tmp_path / "page.html", "--table", tmp_path / "fit-2.parquet")
    code, said = told(capsys, *report)
    assert code == 1
    assert "test.parquet, which is not there; give its place with --test" in said
    code, said = told(capsys, *report, "--test", tmp_path / "test-2.parquet")
    assert code == 0, said


def test_figures_want_a_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").touch()
    page = ("report", folder / "prune.json", "--out", tmp_path / "page.html")
    code, said = told(capsys, *page, "--figures", tmp_path / "taken")
    assert code == 2
    assert "is a file; give the name of a folder" in said


def test_command_line_refuses_other_names(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = told(capsys, "report", folder / "prune.json", "--out", tmp_path / "page.pdf")
    assert code == 2
    assert "would be an HTML page under another name; end it with .html" in said


class Patient(Vote):
    """A vote that takes as long as a model would; it counts how often it is asked."""

    slow: ClassVar[bool] = True
    asked: ClassVar[int] = 0

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        type(self).asked += 1
        return super().fuse(table, selection)


def test_what_runs_models_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = tables.install(monkeypatch, "fusers", "patient", Patient)
    table = make_table()
    write_table(table, tmp_path / "table.parquet")
    bench(tmp_path / "table.parquet", f"vote, {name}", options=BenchOptions(repeats=200)).save(tmp_path / "run.json")
    before = Patient.asked
    found = build_report(read_runs([tmp_path / "run.json"]))
    assert Patient.asked == before
    assert list(found.ensembles) == ["all_agents+vote"]
    assert any(note.startswith("all_agents+patient runs or asks models") for note in found.notes)
    (tmp_path / "run.json").unlink()
    bench(tmp_path / "table.parquet", name, options=BenchOptions(repeats=200)).save(tmp_path / "alone.json")
    with pytest.raises(SystemExit, match="0"):
        main(["report", str(tmp_path / "alone.json"), "--out", str(tmp_path / "page.html")])
    assert (tmp_path / "page.html").stat().st_size > 10_000
