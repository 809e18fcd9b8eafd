"""PredictionTable: its forms, its invariants, what is derived from it and what can be cut out of it."""

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.data import PredictionTable, WideLayout, describe_difference, from_pandas
from fusion.errors import InvalidTable, TableMismatch, UnknownName

STEADY = settings(deadline=None, derandomize=True)


def fields() -> dict[str, Any]:
    """Return the arguments of a small table that has every field: 3 questions, 2 agents, up to 3 options, 2 draws."""
    return {
        "question_ids": ["q1", "q2", "q3"],
        "agents": ["ann", "bob"],
        "answers": np.array([[0, 1], [2, -1], [0, 0]]),
        "asked": np.array([[True, True], [True, False], [True, True]]),
        "labels": np.array([0, 2, -1]),
        "num_options": np.array([2, 3, 2]),
        "options": [["yes", "no"], ["x", "y", "z"], ["yes", "no"]],
        "probs": np.array([[[0.75, 0.25, 0], [0.5, 0.5, 0]], [[0, 0.25, 0.75], [0, 0, 0]], [[1, 0, 0], [0.5, 0.5, 0]]]),
        "sample_answers": np.array([[[0, 0], [1, 0]], [[2, -1], [-1, -1]], [[0, 1], [0, 0]]]),
        "categories": ["law", "", "law"],
        "references": ["yes", "z", "perhaps"],
        "questions": ["Is it?", "Which?", "Is it so?"],
        "texts": [["Yes.", "no"], ["z", ""], ["yes", "yes"]],
        "scores": np.array([[1.0, 0.0], [0.5, 0.0], [0.0, 0.0]]),
        "tokens_in": np.array([[10, 20], [30, 0], [50, 60]]),
        "tokens_out": np.array([[1, 2], [3, 0], [5, 6]]),
        "seconds": np.array([[0.5, 1.5], [2.5, 0.0], [4.5, 5.5]]),
        "provenance": {"format": "test", "files": ["a", "b"]},
    }


def table(**changed: Any) -> PredictionTable:
    return PredictionTable(**(fields() | changed))


def votes(**changed: Any) -> PredictionTable:
    """Return a table of votes alone, 2 questions x 2 agents."""
    given = {"question_ids": ["q1", "q2"], "agents": ["ann", "bob"], "answers": np.array([[0, 1], [1, -1]])}
    return PredictionTable(**(given | changed))


NOTES = {"format": "wide", "source": "the data frame", "cells": "text"}


def vars_of(one: PredictionTable) -> dict[str, Any]:
    return {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}


def same(one: PredictionTable, other: PredictionTable) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        if isinstance(getattr(one, field.name), np.ndarray)
        else getattr(one, field.name) == getattr(other, field.name)
        for field in dataclasses.fields(one)
    )


class TestForms:
    def test_every_field_has_an_example_here(self) -> None:
        assert set(fields()) == {field.name for field in dataclasses.fields(PredictionTable)}

    def test_dtypes(self) -> None:
        kinds = {name: getattr(table(), name).dtype for name in set(fields()) - {"agents", "options", "provenance"}}
        text = np.dtypes.StringDType()
        assert kinds == {
            **dict.fromkeys(("question_ids", "categories", "references", "questions", "texts"), text),
            **dict.fromkeys(("answers", "sample_answers"), np.int8),
            **dict.fromkeys(("probs", "scores", "seconds"), np.float32),
            **dict.fromkeys(("tokens_in", "tokens_out"), np.int32),
            "asked": np.bool_,
            "labels": np.int64,
            "num_options": np.int16,
        }

    @pytest.mark.parametrize(("most", "dtype"), [(127, np.int8), (128, np.int16), (32767, np.int16)])
    def test_answers_are_as_narrow_as_the_options_allow(self, most: int, dtype: Any) -> None:
        found = votes(num_options=[most, 2], sample_answers=np.zeros((2, 2, 1), dtype=np.int64))
        assert found.answers.dtype == found.sample_answers.dtype == dtype  # type: ignore[union-attr]

    def test_votes_alone(self) -> None:
        found = votes()
        assert found.num_options.tolist() == [2, 2]
        assert found.max_options == 2
        assert found.answered.tolist() == [[True, True], [True, False]]
        assert repr(found) == "PredictionTable(2 questions x 2 agents, votes, unlabelled)"
        assert (len(found), found.num_agents) == (2, 2)

    def test_answers_follow_from_probabilities(self) -> None:
        """Of the largest ones the first counts; a row of zeros abstains."""
        given = fields()
        del given["answers"]
        found = PredictionTable(**given)
        assert found.answers.tolist() == [[0, 0], [2, -1], [0, 0]]
        assert repr(found) == "PredictionTable(3 questions x 2 agents, probabilities, labelled)"

    def test_answers_follow_from_samples(self) -> None:
        found = PredictionTable(question_ids=["q"], agents=["a", "b"], sample_answers=np.array([[[1, 0], [-1, 2]]]))
        assert found.answers.tolist() == [[1, -1]]
        assert found.num_options.tolist() == [3]

    def test_options_that_nobody_counted(self) -> None:
        assert votes(options=[["x", "y", "z"], ["x", "y"]]).num_options.tolist() == [3, 2]
        assert votes(answers=[[-1, -1], [-1, -1]]).num_options.tolist() == [1, 1]
        assert votes(answers=[[-1, -1], [-1, -1]], options=[[], []]).num_options.tolist() == [1, 1]
        assert votes(labels=[4, 0]).num_options.tolist() == [5, 5]

    def test_no_questions(self) -> None:
        found = PredictionTable(question_ids=[], agents=["a"], answers=np.zeros((0, 1)), labels=[])
        assert (len(found), found.max_options, found.answers.dtype) == (0, 1, np.int8)
        assert found.correct.shape == (0, 1)
        with pytest.raises(InvalidTable, match="the table is empty"):
            _ = found.accuracies

    def test_whole_numbers_may_be_ids(self) -> None:
        for ids in ([1, 2], np.array([1, 2])):
            assert votes(question_ids=ids).question_ids.tolist() == ["1", "2"]

    def test_arrays_cannot_be_changed(self) -> None:
        found = table()
        for field in dataclasses.fields(found):
            value = getattr(found, field.name)
            if isinstance(value, np.ndarray):
                assert not value.flags.writeable, field.name
        for value in (found.correct, found.accuracies):
            assert not value.flags.writeable
        with pytest.raises(dataclasses.FrozenInstanceError):
            found.agents = ("x",)  # type: ignore[misc]

    def test_arrays_that_were_given_can_still_be_changed(self) -> None:
        given = np.zeros((2, 2), dtype=np.int8)
        votes(answers=given)
        assert given.flags.writeable

    def test_copies(self) -> None:
        found = table()
        for other in (copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
            assert same(found, other)
            assert other.fingerprint == found.fingerprint


INVALID: list[tuple[dict[str, Any], str]] = [
    (
        {"answers": [[0, 2], [1, 0]], "num_options": [2, 2]},
        "answers of agent 'bob' on question 'q1' is 2, but .* 0 to 1",
    ),
    ({"answers": [[0, -2], [1, 0]]}, "answers of agent 'bob' on question 'q1' is -2"),
    ({"labels": [0, 7], "num_options": [2, 2]}, "labels on question 'q2' is 7, but the question has options 0 to 1"),
    ({"labels": [0, -2]}, "labels on question 'q2' is -2"),
    ({"sample_answers": [[[0], [0]], [[5], [0]]], "num_options": [2, 2]}, "sample_answers of agent 'ann' .* 'q2' is 5"),
    ({"question_ids": ["q1", "q1"]}, "every question id must occur once, but 'q1' occurs more often; drop"),
    ({"agents": ["ann", "ann"]}, "every agent must occur once, but 'ann' occurs more often"),
    ({"question_ids": ["q1", ""]}, "every question id must have a name, but number 2 is empty"),
    ({"agents": ["", "bob"]}, "every agent must have a name, but number 1 is empty"),
    ({"agents": "ab"}, r"agents must be a sequence of names, got the text 'ab'; write \['ab'\]"),
    ({"agents": [], "answers": np.zeros((2, 0))}, "at least one agent, got none"),
    ({"agents": ["ann"]}, r"answers must have shape \[N, M\] with N = 2 question ids and M = 1 agents, got \[2, 2\]"),
    ({"question_ids": ["q1"]}, r"answers must have shape \[N, M\] .*got \[2, 2\]"),
    ({"question_ids": [["q1"], ["q2"]]}, r"question_ids must have shape \[N\]"),
    ({"question_ids": "q1"}, "question_ids must be an array, got 'q1'"),
    ({"answers": [0, 1]}, r"answers must have shape \[N, M\] .*got \[2\]"),
    ({"answers": [[0, 1], [1]]}, "answers must be an array, but its rows are of different lengths"),
    ({"labels": [0]}, r"labels must have shape \[N\] .*got \[1\]"),
    ({"labels": [[0], [0]]}, r"labels must have shape \[N\]"),
    ({"categories": ["a"]}, r"categories must have shape \[N\]"),
    ({"texts": ["a", "b"]}, r"texts must have shape \[N, M\]"),
    ({"sample_answers": [[0, 1], [0, 1]]}, r"sample_answers must have shape \[N, M, \*\]"),
    ({"scores": [[0.0], [1.0]]}, r"scores must have shape \[N, M\]"),
    ({"num_options": [2, 0]}, "question 'q2' must have at least 1 option, got 0"),
    ({"num_options": [2, -3]}, "question 'q2' must have at least 1 option, got -3"),
    ({"num_options": [2, 40_000]}, "num_options must lie between -32768 and 32767, got 2 to 40000"),
    ({"num_options": np.array([2, 65_538])}, "num_options must lie between"),
    ({"answers": [[0, 40_000], [0, 0]]}, "at most 32767 options a question are supported, got 40001"),
    ({"answers": [[0.0, 1.0], [1.0, np.nan]]}, "answers must be integers, got float64"),
    ({"answers": [[True, False], [True, False]]}, "answers must be integers, got bool"),
    ({"answers": [["A", "B"], ["A", "B"]]}, "answers must be integers, got <U1"),
    ({"answers": [[0, None], [0, 1]]}, "answers must be integers, got None among them"),
    ({"labels": [0.5, 1]}, "labels must be integers, got float64"),
    ({"labels": ["A", "B"]}, "labels must be integers"),
    ({"labels": np.array([1, 2**63], dtype=np.uint64)}, "labels must lie between"),
    ({"tokens_in": [[1.5, 1], [1, 1]]}, "tokens_in must be integers, got float64"),
    ({"tokens_out": [[2**31, 1], [1, 1]]}, "tokens_out must lie between"),
    (
        {"tokens_in": [[1, 1], [1, -1]]},
        "tokens_in of agent 'bob' on question 'q2' must be a number .* at least 0, got -1",
    ),
    ({"seconds": [[1, 1], [-0.5, 1]]}, "seconds of agent 'ann' on question 'q2' must be .* at least 0, got -0.5"),
    ({"seconds": [[np.nan, 1], [1, 1]]}, "seconds of agent 'ann' on question 'q1' .*got nan"),
    ({"seconds": [[1e300, 1], [1, 1]]}, "seconds of agent 'ann' on question 'q1' .*got inf"),
    ({"scores": [[0, 1], [0, 50]]}, r"scores of agent 'bob' on question 'q2' must be in \[0, 1\], got 50.0; divide"),
    ({"scores": [[0, 1], [0, np.nan]]}, "scores of agent 'bob' on question 'q2' .*got nan"),
    ({"scores": [["a", "b"], ["c", "d"]]}, "scores must be numbers, got <U1"),
    ({"question_ids": ["q1", None]}, "question_ids must be text, got something of type NoneType"),
    ({"question_ids": ["q1", np.nan]}, "question_ids must be text, got"),
    ({"categories": ["a", None]}, "categories must be text, got something of type NoneType"),
    ({"categories": [True, False]}, "categories must be text, got something of type bool"),
    ({"texts": [["a", b"b"], ["c", "d"]]}, "texts must be text, got something of type bytes"),
    ({"question_ids": [1.5, 2.5]}, "question_ids must be text"),
    ({"question_ids": np.array([1.5, 2.5])}, "question_ids must be text, got an array of float64"),
    ({"texts": [["a", "\ud800"], ["c", "d"]]}, "texts holds text that is not valid Unicode"),
    ({"agents": ["ann", "\ud800"]}, "agents holds text that is not valid Unicode"),
    ({"options": [["x", "y"]]}, "options must have one entry for each of 2 questions, got 1"),
    (
        {"options": [["x", "y"], ["x"]], "num_options": [2, 2]},
        "question 'q2' has 1 option texts but num_options says 2",
    ),
    ({"options": [["x", "y", "z"], ["x", "y"]], "num_options": [2, 2]}, "question 'q1' has 3 option texts but"),
    ({"options": [["x", 1], ["x", "y"]]}, "the options of question 'q1' must be texts, got 1"),
    ({"options": [["x", "\ud800"], ["x", "y"]]}, "an option of question 'q1' is not valid Unicode"),
]


class TestInvariants:
    @pytest.mark.parametrize(("changed", "message"), INVALID, ids=lambda item: str(item)[:50])
    def test_broken(self, changed: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidTable, match=message):
            votes(**changed)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ([0.5, 0.25], "sum to 1 .*they sum to 0.75; normalise them first"),
            ([0.5, 0.51], "they sum to 1.01"),
            ([1.5, -0.5], "must be >= 0"),
            ([np.nan, 0.5], "they sum to nan"),
            ([np.inf, 0.5], "they sum to inf"),
            ([1e300, 0.5], "they sum to inf"),
        ],
    )
    def test_probabilities(self, row: list[float], message: str) -> None:
        probs = np.array([[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], row]])
        with pytest.raises(InvalidTable, match=f"probs of agent 'bob' on question 'q2' .*{message}"):
            votes(probs=probs)

    def test_probabilities_of_options_that_do_not_exist(self) -> None:
        with pytest.raises(InvalidTable, match=r"probs on question 'q2' give some to option 2, but .* 0 to 1"):
            votes(probs=np.full((2, 2, 4), 0.25), num_options=[4, 2])

    def test_probabilities_for_too_few_options(self) -> None:
        with pytest.raises(InvalidTable, match="probs has 2 options, but a question has 3"):
            votes(probs=np.full((2, 2, 2), 0.5), num_options=[3, 2])

    def test_probabilities_without_options(self) -> None:
        with pytest.raises(InvalidTable, match=r"probs must have shape \[N, M, K\] with K >= 1, got \[2, 2, 0\]"):
            PredictionTable(question_ids=["a", "b"], agents=["x", "y"], probs=np.zeros((2, 2, 0)))

    def test_sums_may_be_off_by_what_float32_loses(self) -> None:
        row = np.full(32_767, 1 / 32_767, dtype=np.float32)
        votes(probs=np.broadcast_to(row, (2, 2, 32_767)))

    def test_neither_answers_nor_probabilities(self) -> None:
        with pytest.raises(InvalidTable, match=r"needs answers \[N, M\], probs .* or sample_answers .*; got none"):
            PredictionTable(question_ids=["q"], agents=["a"])

    def test_unsigned_answers(self) -> None:
        assert votes(answers=np.array([[0, 255], [1, 0]], dtype=np.uint8)).answers.tolist() == [[0, 255], [1, 0]]


class TestDerived:
    def test_correct_and_accuracies(self) -> None:
        """Right answers 0, 2 and one that is no option (-1, counted wrong for everybody).

        ann says 0, 2, 0: right, right, wrong, so 2 of 3. bob says 1, nothing, 0: never right, 0 of 3; that he says
        nothing (-1) where the right answer is none of the options (-1) makes him no righter.
        """
        found = table(answers=[[0, 1], [2, -1], [0, -1]])
        assert found.correct.tolist() == [[True, False], [True, False], [False, False]]
        assert found.accuracies.tolist() == pytest.approx([2 / 3, 0])

    def test_labels_are_needed(self) -> None:
        for read in (lambda t: t.correct, lambda t: t.accuracies, lambda t: t.require_labels()):
            with pytest.raises(InvalidTable, match="the table has no labels; import it with an answer column"):
                read(votes())

    def test_categories_are_needed(self) -> None:
        with pytest.raises(InvalidTable, match="no categories; import it with a category column"):
            votes().in_category("law")

    def test_agents_must_agree(self) -> None:
        found = votes()
        found.require_agents(["ann", "bob"])
        with pytest.raises(TableMismatch, match="missing eve; not expected bob"):
            found.require_agents(["ann", "eve"])
        with pytest.raises(TableMismatch, match="same names in another order, bob, ann against ann, bob"):
            found.require_agents(["bob", "ann"])
        assert describe_difference(["a"], ["a", "b"]) == "not expected b"


OTHER: dict[str, Any] = {
    "question_ids": ["q1", "q2", "q4"],
    "agents": ["ann", "eve"],
    "answers": np.array([[0, 1], [2, -1], [0, 1]]),
    "asked": np.array([[True, True], [True, True], [True, True]]),
    "labels": np.array([0, 1, -1]),
    "num_options": np.array([2, 3, 3]),
    "options": [["yes", "no"], ["x", "y", "w"], ["yes", "no"]],
    "probs": np.array([[[0.5, 0.5, 0], [0.5, 0.5, 0]], [[0, 0.25, 0.75], [0, 0, 0]], [[1, 0, 0], [0.5, 0.5, 0]]]),
    "sample_answers": np.array([[[0, 0], [1, 0]], [[2, -1], [-1, -1]], [[0, 1], [0, 1]]]),
    "categories": ["law", "law", "law"],
    "references": ["yes", "z", "never"],
    "questions": ["Is it?", "Which?", "Was it so?"],
    "texts": [["Yes.", "no"], ["z", ""], ["yes", "yes!"]],
    "scores": np.array([[1.0, 0.0], [0.5, 0.0], [0.0, 0.25]]),
    "tokens_in": np.array([[10, 20], [30, 0], [50, 61]]),
    "tokens_out": np.array([[1, 2], [3, 0], [5, 7]]),
    "seconds": np.array([[0.5, 1.5], [2.5, 0.0], [4.5, 5.25]]),
}
"""Of every field that the fingerprint covers, a value that differs in one place."""


class TestFingerprint:
    def test_every_field_but_the_provenance_can_be_perturbed(self) -> None:
        assert set(OTHER) | {"provenance"} == {field.name for field in dataclasses.fields(PredictionTable)}

    @pytest.mark.parametrize("name", OTHER)
    def test_one_value_of_one_field_changes_it(self, name: str) -> None:
        # A third option is wanted for question 3, whose texts must then go.
        base = {"options": None} if name == "num_options" else {}
        assert table(**base).fingerprint != table(**base, **{name: OTHER[name]}).fingerprint

    @pytest.mark.parametrize("name", sorted(set(OTHER) - {"question_ids", "agents", "answers", "num_options"}))
    def test_leaving_a_field_out_changes_it(self, name: str) -> None:
        assert table().fingerprint != table(**{name: None}).fingerprint

    def test_all_of_these_differ(self) -> None:
        tables = [table(), *(table(**{name: value}) for name, value in OTHER.items() if name != "num_options")]
        assert len({one.fingerprint for one in tables}) == len(tables)

    def test_text_that_moves_to_the_neighbour_changes_it(self) -> None:
        one, other = votes(categories=["ab", "c"]), votes(categories=["a", "bc"])
        assert one.fingerprint != other.fingerprint

    def test_order_counts(self) -> None:
        found = table()
        assert found.rows(np.array([1, 0, 2])).fingerprint != found.fingerprint
        assert found.columns(["bob", "ann"]).fingerprint != found.fingerprint

    @pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, ">i2"])
    def test_types_do_not_count(self, dtype: Any) -> None:
        names = ("answers", "labels", "num_options", "sample_answers", "tokens_in", "tokens_out")
        changed = {name: np.asfortranarray(fields()[name]).astype(dtype) for name in names}
        changed |= {name: fields()[name].astype(np.float32) for name in ("probs", "scores", "seconds")}
        assert table(**changed).fingerprint == table().fingerprint

    def test_provenance_does_not_count(self) -> None:
        assert table(provenance={"other": 1}).fingerprint == table(provenance=None).fingerprint == table().fingerprint

    def test_what_follows_from_the_rest_does_not_count(self) -> None:
        assert votes().fingerprint == votes(num_options=[2, 2]).fingerprint


class TestViews:
    def test_blind(self) -> None:
        blind = table().blind()
        assert blind.labels is blind.references is blind.scores is None
        assert same(blind, table(labels=None, references=None, scores=None))

    def test_unanswered_tells_of_the_questions_alone(self) -> None:
        found = table().unanswered()
        assert (found.answers == -1).all()
        told = {field.name for field in dataclasses.fields(found) if getattr(found, field.name) is not None}
        told -= {"question_ids", "agents", "num_options", "options", "categories", "questions", "provenance"}
        assert told == {"answers", "asked"}
        assert found.asked is not None
        assert not found.asked.any()

    def test_revealed_hides_every_answer_that_was_not_asked_for(self) -> None:
        asked = np.array([[True, False], [False, True], [True, True]])
        found = table().revealed(asked)
        assert found.answers.tolist() == [[0, -1], [-1, -1], [0, 0]]
        assert found.sample_answers.tolist()[0] == [[0, 0], [-1, -1]]  # type: ignore[union-attr]
        assert found.probs.tolist()[1] == [[0, 0, 0], [0, 0, 0]]  # type: ignore[union-attr]
        assert found.texts.tolist() == [["Yes.", ""], ["", ""], ["yes", "yes"]]  # type: ignore[union-attr]
        assert found.tokens_in.tolist() == [[10, 0], [0, 0], [50, 60]]  # type: ignore[union-attr]
        assert found.asked.tolist() == [[True, False], [False, False], [True, True]]  # type: ignore[union-attr]
        assert same(table().revealed(np.ones((3, 2), dtype=bool)), table())
        assert votes().revealed(np.eye(2, dtype=bool)).asked.tolist() == [[True, False], [False, True]]  # type: ignore[union-attr]

    def test_nobody_answers_without_being_asked(self) -> None:
        with pytest.raises(InvalidTable, match="agent 'bob' answers question 'q1' without having been asked"):
            votes(asked=[[True, False], [True, True]])
        with pytest.raises(InvalidTable, match="asked must be True or False, got int64"):
            votes(asked=[[1, 0], [1, 1]])
        assert votes(asked=[[True, True], [True, False]]).answered.tolist() == [[True, True], [True, False]]

    def test_revealed_covers_every_answer_field(self) -> None:
        """What an agent said cannot be seen before it is asked: two tables that differ only there look alike."""
        nobody = np.zeros((3, 2), dtype=bool)
        for name in set(OTHER) - {
            "question_ids",
            "agents",
            "labels",
            "num_options",
            "options",
            "categories",
            "references",
            "questions",
        }:
            assert same(table().revealed(nobody), table(**{name: OTHER[name]}).revealed(nobody)), name

    @pytest.mark.parametrize(
        "index", [np.array([True, False, True]), np.array([0, 2]), slice(0, 3, 2), slice(None, None, 2)]
    )
    def test_rows(self, index: Any) -> None:
        found = table().rows(index)
        assert found.question_ids.tolist() == ["q1", "q3"]
        assert found.options == (("yes", "no"), ("yes", "no"))
        assert found.answers.tolist() == [[0, 1], [0, 0]]
        assert found.labels.tolist() == [0, -1]  # type: ignore[union-attr]
        assert found.agents == ("ann", "bob")
        assert found.provenance == table().provenance

    def test_rows_keep_the_order_given(self) -> None:
        assert table().rows(np.array([2, 0, -2])).question_ids.tolist() == ["q3", "q1", "q2"]

    def test_rows_twice_are_refused(self) -> None:
        with pytest.raises(InvalidTable, match="every question can be taken once"):
            table().rows(np.array([0, 0]))

    def test_no_rows(self) -> None:
        found = table().rows(np.zeros(3, dtype=bool))
        assert len(found) == 0
        assert found.probs.shape == (0, 2, 3)  # type: ignore[union-attr]

    def test_columns(self) -> None:
        found = table().columns(["bob"])
        assert found.agents == ("bob",)
        assert found.answers.tolist() == [[1], [-1], [0]]
        assert found.sample_answers.shape == (3, 1, 2)  # type: ignore[union-attr]
        assert found.question_ids.tolist() == ["q1", "q2", "q3"]
        assert same(table().columns(["bob", "ann"]).columns(["ann", "bob"]), table())

    @pytest.mark.parametrize("agents", [[], ["bob", "bob"]])
    def test_agents_twice_or_none_are_refused(self, agents: list[str]) -> None:
        with pytest.raises(InvalidTable, match="every agent can be taken once, and one at least, got"):
            table().columns(agents)

    def test_views_are_tables_that_could_be_made_from_scratch(self) -> None:
        """Views skip the checks; what they give must pass them, and be read-only as well."""
        one = table()
        views = (one.blind(), one.unanswered(), one.revealed(one.answers > 0), one.rows(slice(1)), one.columns(["bob"]))
        for view in views:
            made = PredictionTable(**vars_of(view))
            assert same(made, view)
            for field in dataclasses.fields(view):
                value = getattr(view, field.name)
                assert not isinstance(value, np.ndarray) or not value.flags.writeable

    def test_unknown_agent(self) -> None:
        with pytest.raises(UnknownName, match="unknown agent 'bib'; did you mean 'bob'"):
            table().columns(["ann", "bib"])

    def test_categories(self) -> None:
        assert table().in_category("law").question_ids.tolist() == ["q1", "q3"]
        assert table().in_category("").question_ids.tolist() == ["q2"]
        assert table().in_category("", "law").question_ids.tolist() == ["q1", "q2", "q3"]
        with pytest.raises(UnknownName, match="unknown category 'lew'; did you mean 'law'"):
            table().in_category("lew")

    def test_ids(self) -> None:
        assert table().with_ids(["q3", "q1"]).question_ids.tolist() == ["q3", "q1"]
        with pytest.raises(UnknownName, match="unknown question id 'q9'; known: q1, q2, q3"):
            table().with_ids(["q1", "q9"])
        with pytest.raises(InvalidTable, match="every question can be taken once"):
            table().with_ids(["q1", "q1"])

    @STEADY
    @given(st.lists(st.booleans(), min_size=3, max_size=3), st.permutations(["ann", "bob"]))
    def test_rows_and_columns_commute(self, mask: list[bool], order: list[str]) -> None:
        index = np.array(mask)
        one, other = table().rows(index).columns(order), table().columns(order).rows(index)
        assert same(one, other)
        assert one.fingerprint == other.fingerprint


class TestPandas:
    def test_letters(self) -> None:
        frame = votes(labels=[0, 1], categories=["law", ""]).to_pandas()
        assert frame.to_dict("list") == {
            "question_id": ["q1", "q2"],
            "category": ["law", ""],
            "answer": ["A", "B"],
            "ann": ["A", "B"],
            "bob": ["B", ""],
        }

    def test_texts_of_open_questions(self) -> None:
        frame = table().to_pandas()
        assert frame["answer"].tolist() == ["yes", "z", "perhaps"]
        assert frame["bob"].tolist() == ["no", "", "yes"]

    def test_open_questions_and_back(self) -> None:
        one = PredictionTable(
            question_ids=["q1", "q2"],
            agents=["ann", "bob"],
            answers=[[0, 1], [0, -1]],
            labels=[1, -1],
            options=[["3", "7"], ["Rome"]],
            references=["7", "Paris"],
        )
        assert same(from_pandas(one.to_pandas()), PredictionTable(**vars_of(one) | {"provenance": NOTES}))

    def test_agent_named_like_a_column(self) -> None:
        with pytest.raises(InvalidTable, match="an agent is named 'question_id', like a column of the questions"):
            votes(agents=["ann", "question_id"]).to_pandas()

    def test_more_options_than_letters(self) -> None:
        assert votes(answers=[[25, 26], [1, -1]]).to_pandas()["bob"].tolist() == ["26", ""]

    def test_unlabelled(self) -> None:
        assert list(votes().to_pandas().columns) == ["question_id", "ann", "bob"]

    @STEADY
    @given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 26), st.randoms(use_true_random=False))
    def test_and_back(self, num_questions: int, num_agents: int, num_options: int, random: Any) -> None:
        answers = [[random.randrange(-1, num_options) for _ in range(num_agents)] for _ in range(num_questions)]
        one = PredictionTable(
            question_ids=[f"q{n}" for n in range(num_questions)],
            agents=[f"m{m}" for m in range(num_agents)],
            answers=np.array(answers),
            labels=[random.randrange(num_options) for _ in range(num_questions)],
            categories=["a"] * num_questions,
        )
        assert from_pandas(one.to_pandas(), layout=WideLayout(cells="letters")).fingerprint == one.fingerprint
