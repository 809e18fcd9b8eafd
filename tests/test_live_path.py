"""The way to a live answer: whom it asked and why, why it stopped, how disagreement was settled."""

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any, Literal

import command_line
import numpy as np
import pytest
import tables
from greedy import OPTIONS, Deputies, Greedy, Headcount, ask, assert_replays, echo, last, pool

from fusion import AgentPool, Ensemble, Limits
from fusion.answer import Step
from fusion.errors import NotFitted, TableMismatch
from fusion.protocols import TellingSelector
from fusion.selectors.marl_focal import MarlFocal


class TestPath:
    def test_a_selector_that_does_not_look_by_hand(self) -> None:
        """Two of three are asked together, one says A and one B: the vote is a tie, which goes to the first."""
        answer = ask(Ensemble(pool("A", "C", "B"), "fixed_subset(agents=[c, a])", "vote"))
        first, end = answer.path
        assert first == Step(
            agents=("a", "c"), asked=0, answered=0, leading=None, agreement=0.0, why="fixed_subset takes 2 of 3 agents"
        )
        assert end == Step(
            agents=(),
            asked=2,
            answered=2,
            leading="pear",
            agreement=0.5,
            why="all 2 that fixed_subset takes had been asked",
            stop="everybody",
            conflict='vote settled between "pear" (1 vote, probability 0.50) and "spade" (1 vote, probability 0.50): '
            'vote answers "pear"',
        )

    def test_rounds_by_hand(self) -> None:
        """C, then A, then B and B are known; nobody leads but by one until the end, where B has half."""
        answer = ask(Ensemble(pool("B", "B", "A", "C"), Greedy(how="one by one"), "vote"))
        assert [step.agents for step in answer.path] == [("d",), ("c",), ("b",), ("a",), ()]
        assert [(step.asked, step.answered) for step in answer.path] == [(n, n) for n in range(5)]
        assert [step.leading for step in answer.path] == [None, "lamp", "pear", "pear", "spade"]
        assert [step.agreement for step in answer.path] == pytest.approx([0, 1, 1 / 2, 1 / 3, 1 / 2])
        assert [step.stop for step in answer.path] == [None] * 4 + ["everybody"]
        assert answer.path[0].why.endswith("begins with 1 of 4 agents")
        assert answer.path[1].why.endswith("wants 1 more")
        assert last(answer).why == "all 4 agents had been asked"

    def test_the_order_is_the_selectors(self) -> None:
        answer = ask(Ensemble(pool("A", "A", "A"), Greedy(), "vote"))
        assert answer.path[0].agents == ("c", "b", "a")

    def test_who_fails_was_asked_and_did_not_answer(self) -> None:
        """Both that fail bring in the next; the third answers, and nobody else is wanted."""
        failing = pool("A", "A", fail_share=1.0)
        members = AgentPool((*failing.agents, echo("c", "B"), echo("d", "A")))
        answer = ask(Ensemble(members, Deputies(), "vote"), limits=Limits(quorum=1))
        assert [step.agents for step in answer.path] == [("a",), ("b",), ("c",), ()]
        assert [(step.asked, step.answered) for step in answer.path] == [(0, 0), (1, 0), (2, 0), (3, 1)]
        assert [step.why.split(": ")[-1] for step in answer.path] == [f"{n} were silent" for n in (0, 1, 2, 2)]
        assert last(answer).stop == "selector"
        assert "wants nobody else: 2 were silent" in last(answer).why

    def test_the_others_had_decided(self) -> None:
        members = AgentPool((*pool("A", "A").agents, echo("late", "B", delay_s=30.0)))
        answer = ask(Ensemble(members, "all_agents", "vote"))
        assert last(answer).stop == "decided"
        assert last(answer).why == "the others had decided the answer: late was not waited for"
        assert last(answer).conflict == "nobody disagreed"

    def test_json(self) -> None:
        told = ask(Ensemble(pool("A", "B"), Deputies(), "vote")).to_json()["path"]
        assert json.loads(json.dumps(told)) == told
        assert isinstance(told, list)
        first, end = told
        assert isinstance(first, dict)
        assert isinstance(end, dict)
        assert set(first) == set(end) == {field.name for field in dataclasses.fields(Step)}
        assert first["told"] == {**dict.fromkeys(("agent", "gain", "price", "probability")), "goes_on": True} | {
            "words": "0 were silent"
        }
        assert (end["stop"], end["agents"], end["conflict"]) == ("selector", [], "nobody disagreed")


class TestConflict:
    @pytest.mark.parametrize(
        ("replies", "expected"),
        [
            ("AAA", "nobody disagreed"),
            (
                "ABB",
                'vote settled between "spade" (2 votes, probability 0.67) and "pear" (1 vote, probability 0.33): '
                'vote answers "spade"',
            ),
            ("???", "nobody gave an answer; vote answers nothing"),
        ],
    )
    def test_of_a_vote(self, replies: str, expected: str) -> None:
        answer = ask(Ensemble(pool(*replies), "all_agents", "vote"), limits=Limits(quorum=0))
        assert last(answer).conflict == expected

    def test_a_confidence_is_told(self) -> None:
        fit = tables.random_table(0, agents=("a", "b", "c"), options=3)
        answer = ask(Ensemble(pool("A", "B", "B"), "all_agents", "naive_bayes").fit(fit))
        assert answer.decision.confidence is not None
        assert f"(confidence {answer.decision.confidence[0]:.2f})" in last(answer).conflict
        assert last(answer).conflict.startswith('naive_bayes settled between "spade" (2 votes, probability 0.')

    def test_an_answer_that_nobody_gave(self) -> None:
        """Two are listened to, so it answers with option 2, which is the lamp."""
        answer = ask(Ensemble(pool("A", "B"), "all_agents", Headcount()))
        assert last(answer).conflict.endswith('answers "lamp", which none of them gave')
        same = ask(Ensemble(pool("A", "A"), "all_agents", Headcount()))
        assert re.match(r'nobody disagreed, all gave "pear"; \w+ answers "lamp"', last(same).conflict)

    def test_a_long_answer_is_cut(self) -> None:
        with Ensemble(pool("one two " * 50, "three"), "all_agents", "vote") as ensemble:
            answer = ensemble.answer("Which?")
        assert len(last(answer).conflict) < 250
        assert "\n" not in last(answer).conflict


@functools.cache
def fitted(learner: Literal["stopping", "ppo"], **how: Any) -> MarlFocal:
    fit = tables.random_table(3, questions=200, agents=tuple("abcd"), options=3)
    return MarlFocal(learner=learner, price=0.02, updates=1, **how).fit(fit)


class TestMarlFocal:
    @pytest.mark.parametrize("learner", ["stopping", "ppo"])
    @pytest.mark.parametrize("max_calls", [0, 2])
    def test_tells_what_select_does(self, learner: Literal["stopping", "ppo"], max_calls: int) -> None:
        """It goes on just where `select` asks one more, who is whom it names; the worth of that is above 0 there."""
        selector = fitted(learner, max_calls=max_calls)
        assert isinstance(selector, TellingSelector)
        test = tables.random_table(4, questions=200, agents=tuple("abcd"), options=3).blind()
        asked_NM = np.random.default_rng(0).random(test.answers.shape) < 0.4
        seen = test.revealed(asked_NM)
        more_NM = selector.select(seen).mask & ~asked_NM
        told = selector.tell(seen)
        assert [row.goes_on for row in told] == more_NM.any(axis=1).tolist()
        for n, row in enumerate(told):
            if row.goes_on:
                assert row.agent == seen.agents[int(more_NM[n].argmax())]
            if row.gain is not None and row.price is not None and not (0 < max_calls <= asked_NM[n].sum()):
                assert (row.gain > row.price) == row.goes_on
            if row.probability is not None:
                assert 0 < row.probability <= 1
        assert any(row.gain is not None for row in told) == (learner == "stopping")
        assert any(row.probability is not None for row in told) == (learner == "ppo")
        assert {row.words for row in told if asked_NM.sum(axis=1)[told.index(row)] >= 2 and max_calls} <= {
            "it asks 2 at most"
        }

    def test_a_pool_that_the_papers_decider_chose(self) -> None:
        """It wants its pool until it has been asked, all at once."""
        fit = tables.random_table(3, questions=120, agents=tuple("abcd"), options=3)
        selector = MarlFocal(mode="paper", updates=1).fit(fit)
        members_NM = selector.select(fit.unanswered()).mask
        some_NM = members_NM & (np.arange(len(fit))[:, None] % 2 == 0)
        told = selector.tell(fit.blind().revealed(some_NM))
        assert [row.goes_on for row in told] == [n % 2 == 1 for n in range(len(fit))]
        assert {row.words for row in told} == {f"its pool of {members_NM[0].sum()} was chosen on past questions"}
        assert not any(row.goes_on for row in selector.tell(fit.blind()))

    def test_the_first_is_asked_whatever_it_gains(self) -> None:
        nobody = tables.random_table(4, questions=3, agents=tuple("abcd"), options=3).unanswered()
        for row in fitted("stopping").tell(nobody):
            assert (row.goes_on, row.gain, row.price, row.words) == (True, None, 0.02, f"it begins with {row.agent}")

    def test_a_call_of_many_tokens_costs_more(self) -> None:
        """Agent a takes 3 tokens, the others 1: of a mean of 1.5 that is 2 and 2/3 times the price."""
        fit = tables.random_table(3, questions=400, agents=tuple("abcd"), options=3)
        tokens_NM = np.tile(np.array([3, 1, 1, 1], dtype=np.int32), (len(fit), 1))
        selector = MarlFocal(costs="tokens", price=0.03)
        selector.fit(dataclasses.replace(fit, tokens_in=None, tokens_out=tokens_NM))
        all_but_one_NM = np.arange(len(fit))[:, None] % 4 != np.arange(4)
        prices = {row.agent: row.price for row in selector.tell(fit.blind().revealed(all_but_one_NM))}
        assert prices == pytest.approx({"a": 0.06, "b": 0.02, "c": 0.02, "d": 0.02})

    def test_refuses_what_select_refuses(self) -> None:
        table = tables.random_table(4, agents=tuple("abcd"), options=3)
        with pytest.raises(NotFitted):
            MarlFocal().tell(table)
        with pytest.raises(TableMismatch):
            fitted("stopping").tell(table.columns(["a", "b"]))

    @pytest.mark.parametrize("learner", ["stopping", "ppo"])
    def test_live(self, learner: Literal["stopping", "ppo"], tmp_path: Path) -> None:
        """Every step says what the selector says of the table as it was then; saved and loaded it says the same."""
        ensemble = Ensemble(pool("A", "B", "B", "C"), fitted(learner), "vote")
        answer = ask(ensemble)
        assert_replays(ensemble, answer)
        asked_NM = np.zeros((1, 4), dtype=bool)
        for step in answer.path:
            (said,) = ensemble.selector.tell(answer.table.blind().revealed(asked_NM))  # type: ignore[attr-defined]
            assert step.told == said
            assert step.agents == ((said.agent,) if said.goes_on else ())
            asked_NM[0, [ensemble.pool.names.index(name) for name in step.agents]] = True
        word = "expected to gain" if learner == "stopping" else "with probability"
        assert all(word in step.why for step in answer.path[1:] if step.told and step.told.agent)
        ensemble.save(tmp_path)
        assert ask(Ensemble.load(tmp_path)).path == answer.path


class TestCommand:
    POOL = """
version: 1
agents:
  - {name: ann, engine: "echo(replies=[A])", mode: generate}
  - {name: bob, engine: "echo(replies=[B])", mode: generate}
  - {name: "[c]", engine: "echo(replies=[B])", mode: generate}
"""

    @pytest.fixture
    def run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.chdir(tmp_path)
        Path("pool.yaml").write_text(self.POOL)

        def told(*words: str) -> command_line.Told:
            asked = ["ask", "Which is a fruit?", *(word for option in OPTIONS for word in ("--option", option))]
            found = command_line.run(capsys, [*asked, "--pool", "pool.yaml", *words])
            assert found.code == 0, found.error
            return found

        return told

    def test_a_round_is_two_lines(self, run: Any) -> None:
        lines = run().out.splitlines()
        assert "asked: all_agents takes 3 of 3 agents" in lines
        assert "stopped: all 3 agents had been asked" in lines
        settled = next(line for line in lines if line.startswith("settled: "))
        assert settled.startswith('settled: vote settled between "spade" (2 votes, probability 0.67) and "pear"')
        assert lines[-1] == "answer: B. spade"

    def test_max_calls(self, run: Any) -> None:
        told = run("--max-calls", "1").out
        assert "stopped: the limit of 1 call was reached: bob and [c] were not asked\n" in told
        assert told.splitlines()[-1] == "answer: A. pear"

    def test_json(self, run: Any) -> None:
        value = json.loads(run("--max-calls", "2", "--json", "-").out)
        first, end = value["path"]
        assert first["agents"] == ["ann", "bob"]
        assert (end["stop"], end["kept_out"]) == ("max_calls", ["[c]"])

    def test_rounds_are_a_table(self, run: Any, tmp_path: Path) -> None:
        fit = tables.random_table(0, questions=400, agents=("ann", "bob", "[c]"), options=3)
        Ensemble(fit.agents, MarlFocal(price=0.001), "vote").fit(fit).save(tmp_path / "e")
        lines = run("--ensemble", "e").out.splitlines()
        head = next(line for line in lines if "known before" in line)
        assert re.findall(r"\w[\w ]*\w", head) == ["step", "asked", "known before", "why"]
        assert any("is expected to gain" in line for line in lines)
        assert any("[c]" in line for line in lines)
