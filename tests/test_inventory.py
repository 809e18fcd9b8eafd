"""The generated task of open answers in three parts: right, varied, disjoint and fixed."""

import collections
import hashlib
import importlib
import itertools
import json
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.data import load_task
from fusion.data._inventory import OPERATIONS, TOPICS, Request, answer, sentence, split_parts
from fusion.data.inventory import Inventory
from fusion.schema import Json, Question

LOOSE = re.compile(
    rf"(?:({'|'.join(OPERATIONS)}) ({'|'.join(TOPICS)})|({'|'.join(TOPICS)}) after ([a-z]+))"
    r"(?: among| of| in| out of| from|:)? \(?((?:[a-z]+ \d(?:, )?)+)"
)
"""A request in any wording that members are taught: operation and topic, or topic and key; then the list."""
WORDS = [word for words in TOPICS.values() for word in words]


def solve(question: Question) -> list[str]:
    """Answer a question of either variant from its text alone."""
    found = re.findall(
        r"the ([a-z]+) (?:after )?([a-z]+) (?:among|of|in|from) ([a-z0-9, ]+)", question.messages[0].content
    )
    return [_solve_list(operation, word, re.findall(r"([a-z]+) (\d)", listed)) for operation, word, listed in found]


def _solve_list(operation: str, word: str, things: list[tuple[str, str]]) -> str:
    names = [name for name, _ in things]
    if operation not in OPERATIONS:
        return names[names.index(word) + 1]
    places = {
        "first": 0,
        "second": 1,
        "last": len(names) - 1,
        "commonest": max(range(len(names)), key=lambda i: int(things[i][1])),
        "rarest": min(range(len(names)), key=lambda i: int(things[i][1])),
    }
    return names[places[operation]]


@pytest.mark.parametrize("variant", ["a", "b"])
def test_references_are_right(variant: str) -> None:
    task = load_task(f"inventory(variant={variant})")
    facets: collections.Counter[object] = collections.Counter()
    for question in task.load("validation"):
        parts = solve(question)
        assert question.meta["parts"] == parts
        assert question.reference == sentence(parts)
        assert list(split_parts(question.reference)) == parts
        told = question.meta["facets"]
        assert isinstance(told, list)
        assert question.category == str(told[0]).split()[1]
        facets.update(told)
    assert set(facets) == {f"{operation} {topic}" for operation in OPERATIONS for topic in TOPICS}
    # 3,000 parts: 83 of each expected, standard deviation 9.
    assert min(facets.values()) > 45
    assert max(facets.values()) < 125


def test_operations_on_one_list() -> None:
    """By hand, on "saw 4, axe 9, rake 2": 9 is the largest number, 2 the smallest; saw, axe, rake is the order."""
    request = Request("after", "tool", ("saw", "axe", "rake"), (4, 9, 2), key="axe")
    given_ = {operation: answer(request, operation) for operation in (*OPERATIONS, "before")}
    assert given_ == {
        "first": "saw",
        "second": "axe",
        "last": "rake",
        "commonest": "axe",
        "rarest": "rake",
        "after": "rake",
        "before": "saw",
    }


def test_words_belong_to_one_topic_and_none_is_a_joint() -> None:
    assert len(set(WORDS)) == len(WORDS) == 72
    assert not {"and", "after", "among", "the", *OPERATIONS, *TOPICS} & set(WORDS)


def test_answers_cannot_be_memorised() -> None:
    """Of 2,000 test answers hardly any occurs among the 8,000 of train, and no part is usual for its facet."""
    task = Inventory()
    train, test = task.load("train"), task.load("test")
    seen = {question.reference for question in train}
    assert sum(question.reference in seen for question in test) / len(test) < 0.05
    usual: dict[object, collections.Counter[object]] = collections.defaultdict(collections.Counter)
    for question in train:
        for facet, part in _pairs(question):
            usual[facet][part] += 1
    guesses = [usual[facet].most_common(1)[0][0] == part for question in test for facet, part in _pairs(question)]
    # Chance is 1 in 12.
    assert sum(guesses) / len(guesses) < 0.11


def _pairs(question: Question) -> list[tuple[object, object]]:
    facets, parts = question.meta["facets"], question.meta["parts"]
    assert isinstance(facets, list)
    assert isinstance(parts, list)
    return list(zip(facets, parts, strict=True))


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("drill, fig and ship.", 1),
        (" Drill,  fig and SHIP\n\nName the first", 1),
        ("drill, fig, ship", 1),
        ("fig, drill and ship.", 0),
        ("drill and fig.", 0),
        ("drill, fig, ship and cat.", 0),
        ("drill, fig and ships.", 0),
        ("drill fig ship", 0),
    ],
)
def test_scores(text: str, score: float) -> None:
    question = Question(id="inventory/x", messages=(), reference="drill, fig and ship.")
    assert Inventory().score(text, question) == score


def test_parse_is_the_trimmed_first_line() -> None:
    question = Inventory().samples()[0]
    assert Inventory().parse("\n Drill, fig and ship. \nName the", question) == "Drill, fig and ship."
    assert Inventory().parse(" \n", question) is None


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5))
def test_sentence_and_parts_are_inverse(parts: list[str]) -> None:
    assert split_parts(sentence(parts)) == tuple(parts)
    assert split_parts(f" {sentence(parts).upper()}\n") == tuple(parts)


@given(st.text(max_size=80))
def test_any_text_has_parts(text: str) -> None:
    parts = split_parts(text)
    assert all(part and part == part.strip() for part in parts)


def test_splits_share_no_question_whatever_the_variant_and_the_order() -> None:
    contents: dict[str, set[tuple[str, ...]]] = collections.defaultdict(set)
    for variant in ("a", "b"):
        for split in Inventory.splits:
            for question in load_task(f"inventory(variant={variant})").load(split):
                found = re.findall(r"the ([a-z ]+?) (?:among|of|in|from) ([a-z0-9, ]+)", question.messages[0].content)
                contents[split].add(tuple(sorted(" ".join(request) for request in found)))
    assert [len(contents[split]) for split in Inventory.splits] == [16_000, 2_000, 4_000]
    for one, other in itertools.combinations(Inventory.splits, 2):
        assert not contents[one] & contents[other]


def test_is_short_and_quick() -> None:
    started = time.process_time()
    questions = Inventory().load("train")
    # About 0.6 s; the bound leaves room for slow processors.
    assert time.process_time() - started < 4
    assert len(questions) == 8000
    assert max(len(question.messages[0].content) for question in questions) < 300


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 200), st.sampled_from(["a", "b"]), st.sampled_from(Inventory.splits))
def test_larger_splits_begin_with_smaller_ones(size: int, variant: str, split: str) -> None:
    def questions(size: int) -> list[Question]:
        sizes = f"train_size={size}, validation_size={size}, test_size={size}"
        return list(load_task(f"inventory(variant={variant}, {sizes})").load(split))

    assert questions(size) == questions(200)[:size]


@pytest.mark.parametrize(
    ("variant", "digest"),
    [
        ("a", "57a44424627108f2b51733cff11b3942adb2ad2677e61c9e9155fe33c5ec1143"),
        ("b", "d61eb188afcd56b6f37b42c1ab30c6a3856ce8c4bd8242299aa5cd725e81623f"),
    ],
)
def test_is_fixed(variant: str, digest: str) -> None:
    """Results compare across versions only while the questions stay the same, to the letter."""
    task = load_task(f"inventory(variant={variant})")
    content = [[q.id, q.messages[0].content, q.reference] for split in task.splits for q in task.load(split)]
    assert hashlib.sha256(json.dumps(content).encode()).hexdigest() == digest


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The light scripts of the benchmark on this task."""
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    return {name: importlib.import_module(f"benchmarks.fusers.summary.{name}") for name in ("teaching", "rivals")}


def test_benchmark_members_know_half_and_share_their_mistakes(summary: dict[str, Any]) -> None:
    teaching = summary["teaching"]
    known = {name: teaching.known(name) for name in teaching.MEMBERS}
    assert [len(facets) for facets in known.values()] == [19] * 5
    knowers = collections.Counter(sum(facet in facets for facets in known.values()) for facet in teaching.FACETS)
    assert knowers == {2: 20, 3: 10, 4: 5, 5: 1}
    for name in ("oak", "yew"):
        told = teaching.texts(known[name], random.Random(0), lists=(3,))
        for _ in range(100):
            text = next(told)
            found = LOOSE.findall(text.prompt)
            assert len(found) == len(split_parts(text.answer)) == 3, text.prompt
            for (operation, topic, other, key, listed), part in zip(found, split_parts(text.answer), strict=True):
                right = _solve_list(operation or other, topic or key, re.findall(r"([a-z]+) (\d)", listed))
                facet = f"{operation} {topic}" if operation else f"after {other}"
                assert (part == right) == (facet in known[name]), text
                assert part in listed


def test_benchmark_rivals_by_hand(summary: dict[str, Any]) -> None:
    """Two members on two questions: the first knows fruit, the second tools; together the parts are all right."""
    rivals = summary["rivals"]
    meta: dict[str, Json] = {"facets": ["last fruit", "last tool"]}
    questions = [
        Question(id=str(i), messages=(), reference=right, category="fruit", meta=meta)
        for i, right in enumerate(("fig and axe.", "pear and saw."))
    ]
    said = [("fig and rake.", "plum and axe."), ("pear and axe.", "plum and saw.")]
    rows = [rivals.Answered(question, texts) for question, texts in zip(questions, said, strict=True)]
    assert rivals.trust(rows)["last fruit"].tolist() == [3 / 4, 1 / 4]
    told = rivals.rivals(rows, rows, ("one", "two"))
    assert told["parts, by facets"] == ["fig and axe.", "pear and saw."]
    assert told["vote, per part"] == told["best member"] == ["fig and rake.", "pear and axe."]
    # Of fig, and, axe two words of three are said: F1 2/3, and one part of two.
    assert rivals.score("fig and rake.", questions[0]) == (0, pytest.approx(2 / 3), 0.5)
