"""The generated micro-benchmark: right, short, balanced, disjoint and fixed."""

import collections
import hashlib
import json
import math
import re
import runpy
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.data import load_task
from fusion.data._micro import GROUPS
from fusion.data.micro import Micro
from fusion.schema import Question

_FOLDERS = runpy.run_path(str(Path(__file__).with_name("hub_folders.py")))
write, parquet = _FOLDERS["write"], _FOLDERS["parquet"]
MMLU = "datasets--cais--mmlu/snapshots"


def solve(question: Question) -> str:
    """Answer a question of variant "a" from its text alone."""
    stem = question.messages[0].content.splitlines()[0]
    numbers = [int(number) for number in re.findall(r"\d+", stem)]
    if question.category == "mod":
        x, y, modulus = numbers
        return str((x + y if "+" in stem else x - y) % modulus)
    if question.category == "text":
        word = stem.split()[-1]
        return word[::-1] if stem.startswith("Reverse") else word
    if question.category == "compare":
        return (max if "largest" in stem else min)(question.options, key=int)
    if question.category == "count":
        letter, word = re.findall(r"is (\w) in (\w+)", stem)[0]
        return str(word.count(letter))
    if question.category == "lookup":
        return dict(re.findall(r"(\w+) (\d)", stem))[stem.rstrip("?").split()[-1]]
    if question.category == "sum":
        x, y = numbers
        return str(x + y if "+" in stem else x - y)
    if question.category == "steps":
        return str(solve_story(stem, numbers))
    kinds = {word: i for i, group in enumerate(GROUPS) for word in group}
    met = [kinds[option] for option in question.options]
    return next(option for option in question.options if met.count(kinds[option]) == 1)


def solve_story(stem: str, numbers: list[int]) -> int:
    first, second, *third = numbers
    if "bags" in stem:
        return first * second - (third[0] if "drops" in stem else 0)
    if "shares" in stem:
        return first // second
    if "loses" in stem:
        return first + second - third[0]
    return first + second if "gets" in stem else first - second


def test_micro_references_are_right() -> None:
    stories = set()
    for question in Micro(test_size=800).load("test"):
        right = question.reference if question.label is None else question.options[question.label]
        assert right == solve(question), question.messages[0].content
        stem = question.messages[0].content.splitlines()[0]
        if question.category == "steps":
            stories.add(" ".join(word for word in stem.split() if word in ("gets", "gives", "bags", "loses", "drops")))
    assert stories == {"gets", "gives", "bags", "", "gets loses", "bags drops"}


@pytest.mark.parametrize("variant", ["a", "b"])
def test_micro_open_questions_have_no_options_and_are_scored_as_numbers(variant: str) -> None:
    task = Micro(variant=variant)  # type: ignore[arg-type]
    assert {question.category for question in task.samples() if not question.options} == {"sum", "steps"}
    for question in task.load("test"):
        assert (question.label is None) == (question.category in ("sum", "steps")) == (not question.options)
        assert question.messages[0].content.endswith("\nAnswer:" if variant == "a" else "\nThe answer is")
        if question.options:
            continue
        number = question.reference
        assert 0 <= int(number) < 200
        assert [task.score(text, question) for text in (f" {number}", f"It is {number}.0.")] == [1, 1]
        assert [task.score(text, question) for text in ("", "A", f" {number}1", f" -{number}9")] == [0, 0, 0, 0]
        assert task.parse(f" {number}", question) == number
        assert task.parse("none", question) is None


@pytest.mark.parametrize("variant", ["a", "b"])
def test_micro_is_short_balanced_and_quick(variant: str) -> None:
    started = time.process_time()
    questions = load_task(f"micro(variant={variant})").load("train")
    # About 0.1 s; the bound leaves room for slow processors.
    assert time.process_time() - started < 2
    assert len(questions) == 4000
    assert max(len(question.messages[0].content) for question in questions) < 200
    assert set(collections.Counter(question.category for question in questions).values()) == {500}
    for count, least in ((3, 225), (4, 2250), (5, 225)):
        labels = [question.label for question in questions if len(question.options) == count]
        assert len(labels) > least
        spread = math.sqrt(len(labels) / count)
        assert all(abs(labels.count(k) - len(labels) / count) < 4 * spread for k in range(count))


def test_micro_never_repeats_a_question_not_even_across_variants() -> None:
    stems: collections.Counter[str] = collections.Counter()
    contents: dict[str, set[str]] = collections.defaultdict(set)
    for variant in ("a", "b"):
        for split in Micro.splits:
            for question in load_task(f"micro(variant={variant})").load(split):
                stems["\n".join([question.messages[0].content.splitlines()[0], *sorted(question.options)])] += 1
                if question.category == "text":
                    stem = question.messages[0].content.splitlines()[0]
                    word = re.findall(r"(?:: |Write |as )([a-z]{4,6})(?=$|\.| from)", stem)
                    kind = "copy" if re.search("Copy|same", stem) else "reverse"
                    contents[split].add(f"{kind} {word[0]}")
                if question.category == "sum":
                    x, sign, y = re.findall(r"(\d+) ([+-]) (\d+)", question.messages[0].content)[0]
                    contents[split].add(" ".join([sign, *sorted((x, y))]))
    assert max(stems.values()) == 1
    assert not contents["train"] & contents["test"]
    assert not contents["validation"] & contents["test"]


@settings(max_examples=25)
@given(st.integers(0, 300), st.sampled_from(["a", "b"]), st.sampled_from(Micro.splits))
def test_micro_larger_splits_begin_with_smaller_ones(size: int, variant: str, split: str) -> None:
    def questions(size: int) -> list[Question]:
        sizes = f"train_size={size}, validation_size={size}, test_size={size}"
        return list(load_task(f"micro(variant={variant}, {sizes})").load(split))

    assert questions(size) == questions(300)[:size]


@pytest.mark.parametrize(
    ("variant", "digest"),
    [
        ("a", "1adda604f97ad64ae256278366882ec79f0f48ecbf2b50fccc3d8c03c860ba30"),
        ("b", "4e3e8742ff999b9558af07c4178a86f2492ffaf0c258045bbb343605078dc8e3"),
    ],
)
def test_micro_is_fixed(variant: str, digest: str) -> None:
    """Results on micro compare across versions only while its questions stay the same, to the letter."""
    task = load_task(f"micro(variant={variant})")
    content = [[q.id, q.messages[0].content, q.reference] for split in task.splits for q in task.load(split)]
    assert hashlib.sha256(json.dumps(content).encode()).hexdigest() == digest
