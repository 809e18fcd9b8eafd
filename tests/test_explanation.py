"""Why an ensemble answered as it did, on questions small enough to be worked by hand."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import tables
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import by_hand, random_table

from fusion import discovery
from fusion.data import PredictionTable, read_table
from fusion.ensemble import Ensemble
from fusion.errors import NotFitted, TableMismatch, UnknownName
from fusion.explanation import Explanation, OptionPart, explain
from fusion.protocols import WeighingFuser
from fusion.reports.tables import explanation_lines, explanation_tables
from fusion.schema import Decision, Selection, Spent

DOCS = Path(__file__).parents[1] / "docs" / "explain-json.md"


def fitted(system: str, table: PredictionTable) -> Ensemble:
    selector, _, fuser = system.partition("+")
    return Ensemble(table.agents, selector, fuser).fit(table)


def learned_from(right: Sequence[int], **fields: Any) -> PredictionTable:
    """Ten questions of two options; 0 is right, and agent m says so on the first right[m] of them."""
    answers = [[int(n >= count) for count in right] for n in range(10)]
    return by_hand(answers, [0] * 10, question_ids=[f"fit{n}" for n in range(10)], num_options=[2] * 10, **fields)


def options(found: Explanation) -> dict[str, OptionPart]:
    return {option.name: option for option in found.options}


def without(found: Explanation) -> list[str | None]:
    return [agent.without for agent in found.agents]


class TestVotes:
    def test_one_is_overruled(self) -> None:
        """a and b say B, c says A: 2 of 3 votes. Without a it is B against A, and the better agent, b, says B."""
        ensemble = fitted("all_agents+vote", learned_from([9, 8, 7]))
        found = explain(ensemble, by_hand([[1, 1, 0]], [1], categories=["law"]), "q0")
        assert (found.answer, found.runner_up, found.right_answer, found.correct) == ("B", "A", "B", True)
        assert (found.category, found.system, found.texts) == ("law", "all_agents+vote", None)
        assert [agent.answer for agent in found.agents] == ["B", "B", "A"]
        assert [agent.weight for agent in found.agents] == [1, 1, 1]
        assert without(found) == ["B", "B", "B"]
        assert not any(agent.changes for agent in found.agents)
        assert options(found)["B"].votes == options(found)["B"].weight == 2
        assert found.confidence == pytest.approx(2 / 3)
        assert not found.stated
        assert found.margin == pytest.approx(1 / 3)
        assert found.measure == "probability"
        assert found.decided == "followed 2 of 3 agents against 1 for A; no agent alone would change that"

    def test_a_tie(self) -> None:
        """A and B have one vote each; a, the most accurate, says B. Without it A is left."""
        ensemble = fitted("all_agents+vote", learned_from([9, 8, 7]))
        found = explain(ensemble, by_hand([[1, -1, 0]], [0]), "q0")
        assert (found.answer, found.correct, found.margin) == ("B", False, 0)
        assert [agent.answer for agent in found.agents] == ["B", None, "A"]
        assert [(agent.changes, agent.without) for agent in found.agents] == [(True, "A"), (False, "B"), (False, "B")]
        assert found.decided == (
            "a tie of A (1 vote) and B (1 vote), settled by the most accurate agent; without a it would answer A"
        )

    def test_nobody_answers(self) -> None:
        found = explain(fitted("all_agents+vote", learned_from([9, 8, 7])), by_hand([[-1, -1, -1]], [0]), "q0")
        assert (found.answer, found.runner_up, found.margin, found.correct) == (None, None, None, False)
        assert (found.confidence, found.options) == (0, ())
        assert found.decided == "no answer, as none of 3 agents gave one"

    def test_all_agree(self) -> None:
        found = explain(fitted("all_agents+vote", learned_from([9, 8, 7])), by_hand([[1, 1, -1]], [0]), "q0")
        assert (found.runner_up, found.margin) == (None, None)
        assert found.decided == (
            "followed 2 of 3 agents, and nobody chose another answer; no agent alone would change that"
        )

    def test_any_of_many(self) -> None:
        """Five against four; with one of the five gone there is a tie, which i, the most accurate, settles for B."""
        ensemble = fitted("all_agents+vote", learned_from([1, 1, 1, 1, 1, 1, 1, 1, 9]))
        found = explain(ensemble, by_hand([[0] * 5 + [1] * 4]), "q0")
        assert found.decided.endswith("; without any one of 5 agents it would answer B")
        assert [agent.changes for agent in found.agents] == [True] * 5 + [False] * 4

    def test_unlabelled(self) -> None:
        found = explain(fitted("all_agents+vote", learned_from([9, 8, 7])), by_hand([[1, 1, 0]]), "q0")
        assert (found.answer, found.right_answer, found.correct) == ("B", None, None)

    def test_right_answer_is_no_option(self) -> None:
        found = explain(fitted("all_agents+vote", learned_from([9, 8, 7])), by_hand([[1, 1, 0]], [-1]), "q0")
        assert (found.right_answer, found.correct) == (None, False)

    def test_texts_of_options(self) -> None:
        table = by_hand([[1, 1, 0]], [1], options=[["Rome", "Paris", "Oslo"]])
        found = explain(fitted("all_agents+vote", learned_from([9, 8, 7])), table, "q0")
        assert found.texts == ("Rome", "Paris", "Oslo")
        assert [(option.name, option.text) for option in found.options] == [("B", "Paris"), ("A", "Rome")]

    def test_more_options_than_letters(self) -> None:
        found = explain(Ensemble(["a", "b"], "all_agents", "vote"), by_hand([[30, 30]]), "q0")
        assert found.answer == "30"

    @pytest.mark.parametrize(
        ("answers", "answer", "right", "correct"),
        [
            (["7.0", "7", "8"], "7.0", "7", True),
            (["8", "9", "9"], "9", "7", False),
            ([None, None, None], None, "7", False),
        ],
    )
    def test_open_answers(self, answers: list[str | None], answer: str | None, right: str, correct: bool) -> None:
        """Options go by the answer as it was first spelt; a right answer that nobody gave is named all the same."""
        pandas = pytest.importorskip("pandas")
        from fusion.data import from_pandas

        table = from_pandas(pandas.DataFrame([["q", right, *answers], ["r", "x", "x", "y", "x"]], columns=[
            "question_id", "answer", "a", "b", "c",
        ]))  # fmt: skip
        found = explain(fitted("all_agents+vote", table), table, "q")
        assert (found.answer, found.correct, found.texts) == (answer, correct, None)
        assert found.right_answer == ("7.0" if correct else right)


class TestWeights:
    def test_one_good_agent_against_two(self) -> None:
        """Competences of about 0.9, 0.6 and 0.6 as log odds: 2.1 against twice 0.4. a alone says B, and B it is."""
        ensemble = fitted("all_agents+weighted_vote(weights=log_odds)", learned_from([10, 6, 6]))
        found = explain(ensemble, by_hand([[1, 0, 0]], num_options=[2]), "q0")
        strong, weak, other = (agent.weight for agent in found.agents)
        assert weak == other
        assert strong is not None
        assert weak is not None
        assert strong > 2 * weak > 0
        assert options(found)["A"].weight == pytest.approx(2 * weak)
        assert found.answer == "B"
        assert without(found) == ["A", "B", "B"]
        assert found.decided == (
            f"followed 1 of 3 agents against 2 for A: the weights of a outweigh those for A ({strong:.3g} against "
            f"{2 * weak:.3g}); without a it would answer A"
        )

    def test_closed_questions_by_bayes(self) -> None:
        """The log odds of naive Bayes differ by their sum over the votes: P(B) / P(A) = exp(w_a - w_b - w_c)."""
        ensemble = fitted("all_agents+naive_bayes", learned_from([10, 6, 6]))
        found = explain(ensemble, by_hand([[1, 0, 0]], num_options=[2]), "q0")
        weights = [agent.weight or 0 for agent in found.agents]
        one, two = options(found)["B"].probability, options(found)["A"].probability
        assert one is not None
        assert two is not None
        assert np.log(one / two) == pytest.approx(weights[0] - weights[1] - weights[2], rel=1e-5)
        assert found.stated

    @pytest.mark.parametrize("fuser", ["naive_bayes(confusion=full)", "stacker", "topla_weighted(network=mlp)"])
    def test_fusers_without_weights(self, fuser: str) -> None:
        table = random_table(1)
        found = explain(fitted(f"all_agents+{fuser}", table), table, str(table.question_ids[0]))
        assert {agent.weight for agent in found.agents} == {None}
        assert {option.weight for option in found.options} == {None}

    def test_open_questions_by_bayes_have_none(self) -> None:
        fields = {"options": [["x", "y"]] * 5 + [["x"]] * 5, "references": ["x"] * 10}
        table = by_hand([[0, 1]] * 5 + [[0, 0]] * 5, [0] * 10, **fields)
        found = explain(fitted("all_agents+naive_bayes", table), table, "q0")
        assert {agent.weight for agent in found.agents} == {None}

    def test_weights_of_the_category(self) -> None:
        """In x only a knows anything, in y only b: what a vote adds follows the category of the question."""
        rng = np.random.default_rng(0)
        known = [[0, int(rng.integers(4))] for _ in range(200)]
        answers = [*known, *([b, a] for a, b in known)]
        table = by_hand(answers, [0] * 400, categories=["x"] * 200 + ["y"] * 200, num_options=[4] * 400)
        ensemble = fitted("all_agents+topla_weighted", table)
        for place, question in enumerate(("q0", "q200")):
            weights = [agent.weight or 0 for agent in explain(ensemble, table, question).agents]
            assert weights[place] > weights[1 - place] + 1

    def test_a_new_category(self) -> None:
        table = random_table(1)
        ensemble = fitted("all_agents+topla_weighted(probs=false)", table)
        fuser = ensemble.fuser
        assert isinstance(fuser, WeighingFuser)
        new = by_hand([[0, 1, 0, 1]], agents=table.agents, categories=["new"])
        weights = fuser.vote_weights(new)
        assert weights is not None
        assert weights.shape == (1, 4)

    @pytest.mark.parametrize(
        "name",
        [
            "vote",
            "weighted_vote",
            "weighted_vote(weights=log_odds)",
            "naive_bayes",
            "dawid_skene",
            "topla_weighted(probs=false)",
        ],
    )
    def test_the_protocol(self, name: str) -> None:
        """[N, M], the same whatever is answered, and refused for other agents and before fit (but for equal votes)."""
        table = tables.without(random_table(3), "references")
        fuser: Any = discovery.build("fusers", name)
        assert isinstance(fuser, WeighingFuser)
        if name != "vote":
            with pytest.raises(NotFitted):
                fuser.vote_weights(table)
        fuser.fit(table, tables.everyone(table))
        weights = fuser.vote_weights(table)
        assert weights is not None
        assert weights.shape == table.answers.shape
        assert np.isfinite(weights).all()
        np.testing.assert_array_equal(weights, fuser.vote_weights(tables.noise(table, table.answered, 1)))
        if name != "vote":
            with pytest.raises(TableMismatch):
                fuser.vote_weights(tables.renamed(table, ["k", "l", "m", "n"]))

    def test_beside_probabilities_votes_say_little(self) -> None:
        table = random_table(1)
        fuser = fitted("all_agents+topla_weighted", table).fuser
        assert isinstance(fuser, WeighingFuser)
        assert fuser.vote_weights(table) is None

    def test_a_parameter_of_that_name_is_no_weight(self) -> None:
        assert not isinstance(discovery.build("fusers", "mean_probability"), WeighingFuser)


class TestSelectors:
    def test_an_agent_that_is_not_asked(self) -> None:
        """top_k takes a and b; what c would have said is shown, and counts for nothing."""
        ensemble = fitted("top_k(k=2)+vote", learned_from([9, 8, 7]))
        found = explain(ensemble, by_hand([[1, 1, 0]], [0]), "q0")
        assert [(agent.asked, agent.listened) for agent in found.agents] == [(True, True), (True, True), (False, False)]
        assert found.agents[2].answer == "A"
        assert not found.agents[2].changes
        assert options(found)["A"].votes == 0
        assert found.runner_up is None

    def test_one_agent(self) -> None:
        found = explain(fitted("single_best+vote", learned_from([9, 8, 7])), by_hand([[1, 0, 0]]), "q0")
        assert found.decided == "followed a, the only agent that is listened to"
        assert without(found) == [None, "B", "B"]
        assert found.agents[0].changes

    def test_a_selector_that_looks_at_answers(self) -> None:
        """Agents that it asked and does not listen to are told from those that it never asked."""
        table = random_table(5, questions=60)
        ensemble = fitted("knora(k=5)+vote", table)
        replay = ensemble.replay(table)
        for n, question in enumerate(table.question_ids.tolist()[:15]):
            found = explain(ensemble, table, question)
            assert [agent.asked for agent in found.agents] == replay.asked[n].tolist()
            assert [agent.listened for agent in found.agents] == replay.selection.mask[n].tolist()

    def test_several_draws_of_every_agent(self) -> None:
        """The best agent alone, drawn three times: A, B, B."""
        samples = [[[0, 0, 0], [1, 1, 1]]] * 4 + [[[0, 1, 1], [0, 0, 0]]]
        table = by_hand([[0, 1]] * 4 + [[0, 0]], [0] * 5, sample_answers=samples)
        found = explain(fitted("single_best+sample_vote(samples=3)", table), table, "q4")
        assert found.answer == "B"
        assert found.agents[0].draws == ("A", "B", "B")
        assert (options(found)["B"].votes, options(found)["A"].votes) == (2, 1)
        assert found.decided == "followed 2 of 3 draws against 1 for A"


@dataclass(kw_only=True)
class Follower:
    """Takes the answer of the first agent that is listened to and answers; says nothing of scores."""

    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        heard_NM = selection.mask & table.answered
        first_N = heard_NM.argmax(axis=1)
        answers_N = table.answers[np.arange(len(table)), first_N].astype(np.int64)
        return Decision(np.where(heard_NM.any(axis=1), answers_N, -1))


class TestOtherFusers:
    def test_no_scores_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither probabilities nor weights: votes put the others in order, and no tie is claimed."""
        tables.install(monkeypatch, "fusers", "follower", Follower)
        found = explain(Ensemble(["a", "b", "c"], "all_agents", "follower"), by_hand([[0, 1, 1]]), "q0")
        assert (found.answer, found.confidence, found.stated, found.measure) == ("A", None, False, "votes")
        assert (found.runner_up, found.margin) == ("B", 0)
        assert found.decided == (
            "followed 1 of 3 agents against 2 for B: the fuser counts more than votes; without a it would answer B"
        )
        tie = explain(Ensemble(["a", "b"], "all_agents", "follower"), by_hand([[0, 1]]), "q0")
        assert tie.decided.startswith("followed 1 of 2 agents against 1 for B")

    def test_an_option_that_nobody_chose(self) -> None:
        """A and C are the first choices, B everybody's second: the means are 0.3, 0.4, 0.3."""
        probs = [[[0.6, 0.4, 0.0], [0.0, 0.4, 0.6]]]
        table = by_hand([[0, 2]], probs=probs)
        found = explain(Ensemble(["a", "b"], "all_agents", "mean_probability"), table, "q0")
        assert (found.answer, options(found)["B"].votes) == ("B", 0)
        assert found.margin == pytest.approx(0.1, abs=1e-6)
        assert found.decided.startswith(
            "chosen by none of 2 agents: their probabilities, taken together, speak for it; without a it would answer C"
        )


@dataclass(kw_only=True)
class Writing:
    """A fuser that writes what stands in `says` under the agents that are listened to, "" for the option 0."""

    says: dict[str, str]
    calls: int | None = None
    stated: float | None = None

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        heard = "".join(name for name, one in zip(table.agents, selection.mask[0], strict=True) if one)
        text = self.says.get(heard, "")
        return Decision(
            np.array([-1 if text else 0]),
            texts=(text or "Oslo",),
            confidence=None if self.stated is None else np.array([self.stated]),
            spent=None if self.calls is None else Spent(calls=np.array([self.calls])),
        )


def capital(**fields: Any) -> PredictionTable:
    """Three agents say Oslo, Oslo and Bergen; the right answer is Rome."""
    options = {"options": [["Oslo", "Bergen"]], "references": ["Rome"]}
    return by_hand([[0, 0, 1]], [-1], **(options | fields))


def written(monkeypatch: pytest.MonkeyPatch, table: PredictionTable, fuser: Writing) -> Explanation:
    tables.install(monkeypatch, "fusers", "writing", Writing)
    return explain(Ensemble(["a", "b", "c"], "all_agents", fuser), table, "q0")


class TestWritten:
    def test_what_no_agent_gave(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All heard: "rome.", right as Rome; without a "Rome", the same in another form; without b Oslo; c "Turin"."""
        says = {"abc": "rome.", "bc": "Rome", "ab": "Turin"}
        found = written(monkeypatch, capital(questions=["Of Italy?"]), Writing(says=says, calls=2, stated=0.75))
        assert (found.answer, found.written, found.right_answer, found.correct) == ("rome.", True, "Rome", True)
        assert (found.confidence, found.stated, found.calls) == (0.75, True, 2)
        assert (found.runner_up, found.margin, found.question) == (None, None, "Of Italy?")
        assert [(agent.changes, agent.without) for agent in found.agents] == [
            (False, "Rome"),
            (True, "Oslo"),
            (True, "Turin"),
        ]
        assert [(option.name, option.votes) for option in found.options] == [("Oslo", 2), ("Bergen", 1)]
        assert found.decided == (
            "the fuser asked a model (2 calls), which wrote an answer that none of 3 agents gave; without b it would "
            "answer Oslo, without c it would answer Turin"
        )

    def test_it_says_so_in_the_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        question = "Which?\n" + "x" * 600
        found = written(monkeypatch, capital(questions=[question]), Writing(says={"abc": "Rome", "ab": "Rome"}))
        head, tail = explanation_lines(found)
        assert head == ["question q0", f"  Which?\n  {'x' * 493} [...]", "right answer: Rome"]
        assert tail[0] == "answer: Rome (right), written by the fuser"
        column = explanation_tables(found)[0].columns[-1]
        # Who gave an answer of more votes comes first.
        assert [str(cell) for cell in column.cells] == ["Oslo", "Oslo", "the same"]

    def test_wrong(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Equal for every agent left out; Milan is not Rome, and without labels nothing is right or wrong."""
        fuser = Writing(says=dict.fromkeys(["abc", "ab", "ac", "bc"], "Milan"))
        found = written(monkeypatch, capital(), fuser)
        assert (found.answer, found.correct, found.confidence, found.question) == ("Milan", False, None, None)
        assert found.decided == (
            "the fuser wrote an answer that none of 3 agents gave; no agent alone would change that"
        )
        assert written(monkeypatch, tables.without(capital(), "labels"), fuser).correct is None

    @pytest.mark.parametrize(
        ("calls", "told"),
        [
            (1, "the fuser asked a model (1 call), and the answer is that of 2 of 3 agents"),
            (None, "the fuser wrote the answer, and it is that of 2 of 3 agents"),
            (0, "followed 2 of 3 agents against 1 for Bergen"),
        ],
    )
    def test_what_an_agent_gave_too(self, monkeypatch: pytest.MonkeyPatch, calls: int | None, told: str) -> None:
        """Where the calls failed, votes decided."""
        found = written(monkeypatch, capital(), Writing(says={}, calls=calls))
        assert (found.answer, found.written, found.correct) == ("Oslo", False, False)
        assert found.decided == f"{told}; no agent alone would change that"
        assert (found.runner_up is None) == (calls == 1)

    def test_where_all_agree_nothing_is_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        table = by_hand([[0, 0, 0]], [0], options=[["Oslo"]], references=["Oslo"])
        found = written(monkeypatch, table, Writing(says={}))
        assert found.decided.startswith("followed 3 of 3 agents, and nobody chose another answer")

    def test_long_texts_are_cut_in_the_sentence_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        text = "y" * 100
        found = written(monkeypatch, capital(), Writing(says={"abc": "Rome", "ab": text, "ac": "Rome", "bc": "Rome"}))
        assert found.agents[2].without == text
        assert found.decided.endswith(f"; without c it would answer {'y' * 80} [...]")


def test_unknown_names() -> None:
    ensemble = fitted("all_agents+vote", learned_from([9, 8, 7]))
    with pytest.raises(UnknownName, match=r"unknown question id 'fit-1'; did you mean 'fit1'"):
        explain(ensemble, learned_from([9, 8, 7]), "fit-1")
    with pytest.raises(UnknownName, match="unknown agent 'c'"):
        explain(ensemble, by_hand([[0, 1]]), "q0")


def test_before_fit() -> None:
    with pytest.raises(NotFitted):
        explain(Ensemble(["a", "b"], "all_agents", "weighted_vote"), by_hand([[0, 1]]), "q0")


@pytest.mark.parametrize("recipe", tables.recipes("fusers"), ids=str)
def test_every_fuser(recipe: tables.Recipe) -> None:
    """The decision explained is the one replayed, whatever the fuser; who is not listened to changes nothing."""
    table = random_table(2, questions=40)
    ensemble = Ensemble(table.agents, "random_subset(size=3)", recipe(table.agents)).fit(table)
    decision, selection, _ = ensemble.replay(table)
    for n in range(6):
        found = explain(ensemble, table, str(table.question_ids[n]))
        label = int(decision.answers[n])
        texts = table.options[n] if table.options else ()
        written = decision.texts[n] if decision.texts is not None and label < 0 else ""
        assert found.answer == (texts[label] if label >= 0 else written or None)
        assert found.written == bool(written)
        assert [agent.listened for agent in found.agents] == selection.mask[n].tolist()
        assert not any(agent.changes for agent in found.agents if not agent.listened)
        assert found.margin is None or found.margin >= 0
        assert json.loads(json.dumps(found.to_json())) == found.to_json()


@settings(max_examples=40, deadline=None)
@given(answers=st.lists(st.integers(-1, 3), min_size=1, max_size=7), seed=st.integers(0, 5))
def test_votes_add_up(answers: list[int], seed: int) -> None:
    """Votes of the options sum to the agents that answer, and shares are the weights over their sum."""
    agents = [f"m{j}" for j in range(len(answers))]
    fit = random_table(seed, agents=agents)
    ensemble = Ensemble(agents, "all_agents", "weighted_vote(weights=accuracy)").fit(fit)
    found = explain(ensemble, by_hand([answers], agents=agents, num_options=[4]), "q0")
    assert sum(option.votes for option in found.options) == sum(answer >= 0 for answer in answers)
    total = sum(option.weight or 0 for option in found.options)
    for option in found.options:
        assert option.probability == pytest.approx((option.weight or 0) / total if total else 0, abs=1e-6)
    assert (found.answer is None) == (max(answers) < 0)


def documented(heading: str) -> set[str]:
    """The keys in the first column of the table below a heading of docs/explain-json.md; "" is the page's own table."""
    sections = re.split(r"^## ", DOCS.read_text(encoding="utf-8"), flags=re.M)
    section = sections[0] if not heading else next(part for part in sections[1:] if part.startswith(heading))
    return set(re.findall(r"^\| `(\w+)` \|", section, flags=re.M))


def test_every_key_is_documented_and_every_documented_key_is_there() -> None:
    found: dict[str, Any] = explain(
        fitted("all_agents+vote", learned_from([9, 8, 7])), by_hand([[1, 1, 0]]), "q0"
    ).to_json()
    assert next(iter(found)) == "format"
    assert documented("") == set(found)
    assert documented("`agents`") == set(found["agents"][0])
    assert documented("`options`") == set(found["options"][0])


def test_recorded_answers(recorded_data: Path) -> None:
    """24 models: decisions are those of a replay of the whole table, and so are those without an agent."""
    table = read_table(recorded_data / "mmlu_pro" / "predictions.csv.gz")
    fit, rest = table.rows(slice(0, 1500)), table.rows(slice(1500, 1560))
    ensemble = fitted("all_agents+topla_weighted", fit)
    decision, selection, _ = ensemble.replay(rest)
    mask_NM = selection.mask.copy()
    mask_NM[:, 2] = False
    fewer = ensemble.fuser.fuse(rest.blind(), Selection(mask_NM))
    for n, question in enumerate(rest.question_ids.tolist()[:20]):
        found = explain(ensemble, rest, question)
        assert found.answer == "ABCDEFGHIJ"[decision.answers[n]]
        assert found.agents[2].without == "ABCDEFGHIJ"[fewer.answers[n]]
        assert decision.confidence is not None
        assert found.confidence == pytest.approx(float(decision.confidence[n]), rel=1e-9)
        assert sum(option.votes for option in found.options) == rest.answered[n].sum()
