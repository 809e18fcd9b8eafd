"""Fused open answers, end to end: members are trained, asked and recorded, the fuser is trained on what they said.

    python benchmarks/fusers/summary/run.py --work FOLDER [--json FILE] [--quick]
    python benchmarks/fusers/summary/run.py --tables FILE

Every step is a command that anybody can run, and is printed; what is in FOLDER already is kept, so a run that was cut
short goes on. Everything is made on the split train of the task's variant "a"; its split test and, in other wording,
variant "b" are to measure on. --quick takes few questions and updates, to see that everything runs; its figures mean
nothing. --tables prints the tables from a file that --json wrote.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.fusers.run import rounded
from benchmarks.fusers.summary.rivals import Answered, Scores, rivals, score
from benchmarks.pruning.run import hardware
from fusion.data import PredictionTable, load_task, read_table
from fusion.ensemble import Ensemble
from fusion.evaluation import versions
from fusion.schema import FloatArray
from fusion.significance import paired_difference

HERE = Path(__file__).resolve().parent
FUSER = "topla_summary"
TRAIN, TEST = 12_000, 2_000
QUICK_TRAIN, QUICK_TEST = 400, 100
EPOCHS, QUICK_EPOCHS = 8, 1
FIT = ("learning_rate=0.002", "batch_size=32", "max_tokens=16")
Command = list[str | Path]


def prepare(work: Path, *, quick: bool) -> dict[str, float]:
    """Make members, records and fuser; return the seconds that each step took when it was done."""
    work.mkdir(parents=True, exist_ok=True)
    times = work / "seconds.json"
    seconds: dict[str, float] = json.loads(times.read_text(encoding="utf-8")) if times.is_file() else {}
    shutil.copyfile(HERE / "pool.yaml", work / "pool.yaml")
    for name, command, made in _steps(work, quick=quick):
        if not made.exists():
            print(f"{name}: python {' '.join(map(str, command))}", file=sys.stderr)
            started = time.perf_counter()
            subprocess.run([sys.executable, *map(str, command)], check=True, stdout=sys.stderr)
            seconds[name] = round(time.perf_counter() - started, 1)
            times.write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")
    return seconds


def _steps(work: Path, *, quick: bool) -> list[tuple[str, Command, Path]]:
    """Return the name of every step, its command, and what is there once it is done."""
    train, test = (QUICK_TRAIN, QUICK_TEST) if quick else (TRAIN, TEST)
    parts = {
        "train": ("train", f"inventory(train_size={train})"),
        "test": ("test", f"inventory(test_size={test})"),
        "test-b": ("test", f"inventory(variant=b, test_size={test})"),
    }
    record: Command = ["-m", "fusion", "record", "--pool", work / "pool.yaml"]
    pairs = (*FIT, f"epochs={QUICK_EPOCHS if quick else EPOCHS}")
    settings = [part for pair in pairs for part in ("--set", f"fuser.{pair}")]
    fit: Command = ["-m", "fusion", "fit", FUSER, work / "train" / "table.parquet", "--model", work / "untrained"]
    return [
        ("members", [HERE / "train_members.py", "--out", work / "members"], work / "members" / "yew" / "config.json"),
        *(
            (
                f"record {name}",
                [*record, "--task", task, "--split", split, "--out", work / name],
                work / name / "table.parquet",
            )
            for name, (split, task) in parts.items()
        ),
        ("untrained model", [HERE / "make_fuser.py", "--out", work / "untrained"], work / "untrained" / "config.json"),
        ("fit", [*fit, *settings, "--out", work / "fused"], work / "fused" / "fit.json"),
    ]


def answered(table: PredictionTable, split: str, *, variant: str) -> list[Answered]:
    """Return the questions of a table with what was said to them."""
    sizes = f"train_size={len(table)}, test_size={len(table)}"
    questions = load_task(f"inventory(variant={variant}, {sizes})").load(split)
    found = {question.id: question for question in questions}
    assert table.texts is not None, "fusion record keeps texts"
    return [
        Answered(found[name], tuple(str(text).strip() for text in texts))
        for name, texts in zip(table.question_ids.tolist(), table.texts.tolist(), strict=True)
    ]


def compared(train: PredictionTable, test: PredictionTable, fused: Ensemble, *, variant: str) -> dict[str, Any]:
    """Return the mean scores of every way to answer, and how far the fuser is ahead of it."""
    asked = answered(test, "test", variant=variant)
    decision = fused.replay(test).decision
    assert decision.texts is not None, "the fuser writes"
    answers = {FUSER: list(decision.texts), **rivals(answered(train, "train", variant="a"), asked, train.agents)}
    questions = [question for question, _ in asked]
    scores = {
        name: np.array([score(text, question) for text, question in zip(texts, questions, strict=True)])
        for name, texts in answers.items()
    }
    own_N = decision.answers < 0
    return {
        "n": len(asked),
        "systems": {name: Scores(*found.mean(axis=0).tolist())._asdict() for name, found in scores.items()},
        "ahead": {
            name: {kind: _ahead(scores[FUSER][:, s], found[:, s]) for s, kind in enumerate(Scores._fields[:2])}
            for name, found in scores.items()
            if name != FUSER
        },
        "own": {"n": int(own_N.sum()), "right": int(scores[FUSER][own_N, 0].sum())},
    }


def _ahead(fuser_N: FloatArray, other_N: FloatArray) -> dict[str, Any]:
    found = paired_difference(fuser_N, other_N, rng=np.random.default_rng(0))
    return {"difference": found.difference, "ci95": [float(found.interval.low), float(found.interval.high)]}


def markdown(result: Mapping[str, Any]) -> str:
    """Return the tables of a result."""
    lines = []
    for part, title in (("test", 'the split test of variant "a"'), ("test-b", 'variant "b", in other wording')):
        found = result[part]
        lines += [
            f"{found['n']:,} questions of {title}; in percent, and how far the fuser is ahead (95 % intervals):",
            "",
            "| answer | exact match | ROUGE-L | parts right | ahead in exact match | ahead in ROUGE-L |",
            "|---|---|---|---|---|---|",
        ]
        for name, scores in found["systems"].items():
            cells = [f"{100 * scores[kind]:.1f}" for kind in Scores._fields]
            ahead = found["ahead"].get(name)
            cells += ["", ""] if ahead is None else [_interval(ahead[kind]) for kind in Scores._fields[:2]]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        own = found["own"]
        lines += [
            "",
            f"On {own['n']} of them the fuser wrote what no member did, {own['right']} times rightly.",
            "",
        ]
    return "\n".join([*lines, f"Fit: {'; '.join(result['fuser']['notes'])}.", f"Seconds: {result['seconds']}."])


def _interval(ahead: Mapping[str, Any]) -> str:
    low, high = ahead["ci95"]
    return f"{100 * ahead['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="for members, records and fuser")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="few questions and updates")
    parser.add_argument("--tables", type=Path, metavar="FILE", help="print the tables of results, and measure nothing")
    chosen = parser.parse_args()
    if chosen.tables:
        print(markdown(json.loads(chosen.tables.read_text(encoding="utf-8"))))
        return
    if chosen.work is None:
        parser.error("--work FOLDER is needed, unless --tables is given")
    seconds = prepare(chosen.work, quick=chosen.quick)
    fit = json.loads((chosen.work / "fused" / "fit.json").read_text(encoding="utf-8"))
    train, fused = read_table(chosen.work / "train" / "table.parquet"), Ensemble.load(chosen.work / "fused")
    result: dict[str, Any] = {
        "format": "fusion.fusers.summary/1",
        "versions": versions(),
        "hardware": hardware(),
        "quick": chosen.quick,
        "n_fit": len(train),
        "fuser": {"system": fit["system"], "notes": fit["notes"]},
        "seconds": seconds,
    }
    for part, variant in (("test", "a"), ("test-b", "b")):
        test = read_table(chosen.work / part / "table.parquet")
        result[part] = rounded(compared(train, test, fused, variant=variant))
    print(markdown(result))
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
