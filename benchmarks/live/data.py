"""Write the three data sets of this benchmark as folders in hub layout, and the texts to train small models on.

    python benchmarks/live/data.py --out DIR [--mmlu 300] [--samples]

DIR/hub then is a `--root` for `fusion record`:

    openai/gsm8k               test: the recorded questions of GSM8K's test split; train: all of its train split
    truthfulqa/truthful_qa     validation: the questions of TruthfulQA of which no training text tells an answer
    cais/mmlu                  a stand-in, as no answers to MMLU itself are on record: questions of MMLU-Pro that came
                               from MMLU, with four of their up to ten options, under the subject they came from

Without the recorded data (FUSION_DATA, else ../shared/data beside the checkout), or with --samples, the folders hold
the three questions that every task carries in its own file, and the texts are generated.

DIR/texts.jsonl holds what models may be trained on, and DIR/evaluated.txt a hash of every question that they are asked.
"""

import argparse
import hashlib
import json
import os
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fusion.data import _truthfulqa, gsm8k, load_task, mmlu

Row = dict[str, Any]

GSM8K, MMLU, TRUTHFULQA = "openai/gsm8k", "cais/mmlu", "truthfulqa/truthful_qa"
RECORDED = (
    "gsm8k/questions.parquet",
    "gsm8k/train.jsonl",
    "mmlu_pro/questions.parquet",
    "truthfulqa/mc_task.json",
    "truthfulqa/finetune_truth.parquet",
)
MMLU_OPTIONS = 4
DEV_PER_SUBJECT = 5
LETTER_TEXTS = 12_000

_TEXTS = pa.list_(pa.string())
_TARGETS = pa.struct([("choices", _TEXTS), ("labels", pa.list_(pa.int32()))])
_TYPES: Mapping[str, Mapping[str, pa.DataType]] = {
    GSM8K: {"question": pa.string(), "answer": pa.string()},
    MMLU: {"question": pa.string(), "subject": pa.string(), "choices": _TEXTS, "answer": pa.int64()},
    TRUTHFULQA: {"question": pa.string(), "mc1_targets": _TARGETS, "mc2_targets": _TARGETS},
}
_CONFIGS = {GSM8K: "main", MMLU: "all", TRUTHFULQA: "multiple_choice"}
_JUDGED = re.compile(r"Q: (.*?)\nA: (.*)\n(?:True|Helpful):", re.DOTALL)


def data_folder() -> Path:
    """Return where recorded data are looked for."""
    return Path(os.environ.get("FUSION_DATA") or Path(__file__).parents[3] / "shared" / "data")


def question_hash(text: str) -> str:
    """Return a hash of a question that case, blanks and line ends do not change."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode()).hexdigest()


def write_data(out: Path, *, recorded: Path | None, mmlu_size: int) -> dict[str, Any]:
    """Write DIR/hub, DIR/texts.jsonl and DIR/evaluated.txt; return what is in them.

    Args:
        out: The folder DIR.
        recorded: The recorded data; None for the samples of the tasks.
        mmlu_size: Questions in the split test of the stand-in for MMLU, spread evenly over its subjects.
    """
    hub = _recorded_rows(recorded, mmlu_size) if recorded else _sample_rows()
    for (repo, split), rows in hub.items():
        path = out / "hub" / repo / _CONFIGS[repo] / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(list(_TYPES[repo].items()))), path)
    asked = [(GSM8K, "test"), (MMLU, "test"), (TRUTHFULQA, "validation")]
    evaluated = {question_hash(row["question"]) for key in asked for row in hub[key]}
    (out / "evaluated.txt").write_text("".join(f"{line}\n" for line in sorted(evaluated)), encoding="ascii")
    texts = [*_sums(hub[GSM8K, "train"]), *_letters(), *(_talk(recorded) if recorded else ())]
    kept = [text for text in texts if question_hash(text["question"]) not in evaluated]
    with (out / "texts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(text) + "\n" for text in kept)
    return {
        "source": "recorded data" if recorded else "the tasks' own samples",
        "questions": {f"{repo}/{split}": len(rows) for (repo, split), rows in hub.items()},
        "texts": dict(pd.Series([text["kind"] for text in kept]).value_counts()),
        "texts_left_out": len(texts) - len(kept),
    }


# -------------------------------------------------------------------------------------------------------- questions


def _recorded_rows(recorded: Path, mmlu_size: int) -> dict[tuple[str, str], list[Row]]:
    solved = pd.read_parquet(recorded / "gsm8k" / "questions.parquet")[["question", "answer"]]
    train = (recorded / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    trained_on = {question_hash(question) for question, _, _ in _judged(recorded)}
    targets = json.loads((recorded / "truthfulqa" / "mc_task.json").read_text(encoding="utf-8"))
    return {
        (GSM8K, "test"): solved.to_dict("records"),
        (GSM8K, "train"): [json.loads(line) for line in train],
        (TRUTHFULQA, "validation"): [
            {"question": row["question"], "mc1_targets": _target(row, "mc1"), "mc2_targets": _target(row, "mc2")}
            for row in targets
            if question_hash(row["question"]) not in trained_on
        ],
        **_mmlu_rows(recorded, mmlu_size),
    }


def _target(row: Row, name: str) -> Row:
    labels = row[f"{name}_targets"]
    return {"choices": list(labels), "labels": list(labels.values())}


def _mmlu_rows(recorded: Path, size: int) -> dict[tuple[str, str], list[Row]]:
    """Return a stand-in for MMLU: questions that MMLU-Pro took from it, with four options.

    MMLU-Pro added options, so most of its questions have ten. The right one and the first three others are kept; a
    hash of their texts puts them in order, as the right one, often late in the list, would otherwise mostly be D.
    """
    asked = pd.read_parquet(recorded / "mmlu_pro" / "questions.parquet")
    asked = asked[asked["src"].str.startswith("ori_mmlu-") & (asked["options"].map(len) >= MMLU_OPTIONS)]
    asked = asked.drop_duplicates("question")
    by_subject: dict[str, list[Row]] = defaultdict(list)
    for question, options, letter, src in asked[["question", "options", "answer", "src"]].itertuples(index=False):
        right = options[ord(letter) - ord("A")]
        others = [option for option in options if option != right][: MMLU_OPTIONS - 1]
        choices = sorted([right, *others], key=lambda option: question_hash(f"{question}\n{option}"))
        if len(choices) == MMLU_OPTIONS:
            subject = src.removeprefix("ori_mmlu-")
            row = {"question": question, "subject": subject, "choices": choices, "answer": choices.index(right)}
            by_subject[subject].append(row)
    for rows in by_subject.values():
        rows.sort(key=lambda row: question_hash(row["question"]))
    subjects = sorted(by_subject)
    rest = {subject: by_subject[subject][DEV_PER_SUBJECT:] for subject in subjects}
    turns = [(place, subject) for subject in subjects for place in range(len(rest[subject]))]
    return {
        (MMLU, "dev"): [row for subject in subjects for row in by_subject[subject][:DEV_PER_SUBJECT]],
        (MMLU, "test"): [rest[subject][place] for place, subject in sorted(turns)[:size]],
    }


def _sample_rows() -> dict[tuple[str, str], list[Row]]:
    return {
        (GSM8K, "test"): list(gsm8k._SAMPLES),
        (GSM8K, "train"): list(_made_up_sums()),
        (TRUTHFULQA, "validation"): list(_truthfulqa._SAMPLES),
        (MMLU, "test"): list(mmlu._SAMPLES),
        (MMLU, "dev"): list(mmlu._SAMPLES),
    }


# ------------------------------------------------------------------------------------------------------------ texts


def _judged(recorded: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield the question-answer pairs that people judged: question, answer, whether it was found true."""
    rows = pd.read_parquet(recorded / "truthfulqa" / "finetune_truth.parquet")
    for prompt, verdict in rows[["prompt", "completion"]].itertuples(index=False):
        found = _JUDGED.fullmatch(prompt)
        assert found is not None, "every prompt of this file has one form"
        yield found[1], found[2], verdict.strip() == "yes"


def _talk(recorded: Path) -> Iterator[Row]:
    for question, answer, true in dict.fromkeys(_judged(recorded)):
        yield _text("truths" if true else "myths", question, f"Q: {question}\nA:", f" {answer}")


def _sums(rows: Sequence[Row]) -> Iterator[Row]:
    for row in rows:
        yield _text("sums", row["question"], f"Question: {row['question']}\nAnswer:", f" {row['answer']}")


def _letters() -> Iterator[Row]:
    for question in load_task(f"micro(train_size={LETTER_TEXTS})").load("train"):
        stem = question.messages[0].content
        # Every second one under the header that MMLU has.
        header = f"The following are multiple choice questions (with answers) about {question.category}.\n\n"
        prompt = f"{header}{stem}" if int(question.id.rpartition("/")[2]) % 2 else stem
        yield _text("letters", stem, prompt, f" {question.reference}")


def _text(kind: str, question: str, prompt: str, answer: str) -> Row:
    return {"kind": kind, "question": question, "prompt": prompt, "answer": answer}


def _made_up_sums() -> Iterator[Row]:
    stream = random.Random("sums")
    for name in ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hal"):
        for thing in ("pens", "eggs", "cups", "nuts", "coins", "stamps"):
            x, y = stream.randrange(2, 50), stream.randrange(2, 50)
            question = f"{name} has {x} {thing} and gets {y} more. How many {thing} does {name} have?"
            yield {"question": question, "answer": f"{name} has {x}+{y} = <<{x}+{y}={x + y}>>{x + y}.\n#### {x + y}"}


def main() -> int:
    """Write the folder and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--mmlu", type=int, default=300, help="questions of the stand-in for MMLU (default: 300)")
    parser.add_argument("--samples", action="store_true", help="use the tasks' own samples, whatever is on record")
    arguments = parser.parse_args()
    folder = data_folder()
    complete = all((folder / name).is_file() for name in RECORDED)
    recorded = folder if complete and not arguments.samples else None
    print(json.dumps(write_data(arguments.out, recorded=recorded, mmlu_size=arguments.mmlu), indent=1, default=int))
    return 0


if __name__ == "__main__":
    sys.exit(main())
