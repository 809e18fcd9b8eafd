"""Asking an ensemble now: who is asked, when it stops, what is kept, and that replay decides the same."""

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pytest

from fusion import Agent, AgentPool, Ensemble, Spec, load_task
from fusion.agents import RecordStore
from fusion.agents.echo import Echo
from fusion.answer import Answer
from fusion.data import PredictionTable
from fusion.errors import ConfigError, FusionError, NoQuorum, NotFitted, UsageError
from fusion.fusers.vote import Vote
from fusion.live import Limits
from fusion.schema import Decision, Question, Selection

TASK = load_task("micro")
QUESTIONS = [question for question in TASK.load("test")[:16] if question.options]
GENEROUS_S = 10.0
"""Far below the 30 s that a stalled agent takes, far above what a busy machine needs."""


def echo(name: str, *replies: str, **how: Any) -> Agent:
    """An agent that says one of `replies`; what is no field of an agent is a parameter of its engine."""
    fields = {field.name for field in dataclasses.fields(Agent)}
    engine = Spec("echo", {"replies": list(replies), **{key: how[key] for key in how if key not in fields}})
    return Agent(name=name, engine=engine, mode="generate", **{key: how[key] for key in how if key in fields})


def pool(*agents: Agent) -> AgentPool:
    return AgentPool(agents)


def statuses(answer: Answer) -> dict[str, str]:
    return {member.agent: member.status for member in answer.members}


def assert_replays(ensemble: Ensemble, answer: Answer) -> None:
    """Replaying what the decision saw gives the decision."""
    again = ensemble.replay(answer.table).decision
    assert again.answers.tolist() == answer.decision.answers.tolist()
    if answer.decision.probs is not None and again.probs is not None:
        np.testing.assert_array_equal(again.probs, answer.decision.probs)


def test_an_answer_by_hand() -> None:
    """Two of three say A (the first option), one says B: A wins by 2/3."""
    ensemble = Ensemble(pool(echo("x", "A"), echo("y", "B"), echo("z", "The answer is A.")), "all_agents", "vote")
    with ensemble:
        answer = ensemble.answer("Which is first?", options=["one", "two"])
    assert (answer.text, answer.label) == ("one", "A")
    assert answer.votes == {"one": ("x", "z"), "two": ("y",)}
    assert answer.agreement == pytest.approx(2 / 3)
    assert answer.probs == pytest.approx({"one": 2 / 3, "two": 1 / 3})
    assert answer.usage.tokens_out == 1 + 1 + 4
    assert_replays(ensemble, answer)


def test_an_open_question() -> None:
    with Ensemble(pool(echo("x", "Paris"), echo("y", "Rome"), echo("z", "paris.")), "all_agents", "vote") as ensemble:
        answer = ensemble.answer("Capital of France?")
    assert answer.text == "Paris"
    assert answer.label is None
    assert answer.votes["Paris"] == ("x", "z")


def test_a_task_reads_the_answers() -> None:
    agents = pool(echo("x", "5 * 32 = 160, less 47 is 113.\n#### 113"), echo("y", "It is 113.0"), echo("z", "160"))
    gsm8k = load_task("gsm8k")
    with Ensemble(agents, "all_agents", "vote") as ensemble:
        answer = ensemble.answer(gsm8k.samples()[0], reader=gsm8k)
    assert answer.text == "113"
    assert answer.table.accuracies.tolist() == [1, 1, 0]


def test_a_decided_vote_cancels_what_is_left(tmp_path: Any) -> None:
    """Four of five agree, the fifth stalls for 30 s: the vote returns at once and the call is recorded as cancelled."""
    agents = pool(*(echo(f"fast{i}", "A") for i in range(4)), echo("stalled", "B", delay_s=30.0))
    start = time.monotonic()
    with RecordStore.open(tmp_path) as store, Ensemble(agents, "all_agents", "vote") as ensemble:
        answer = ensemble.answer(QUESTIONS[0], reader=TASK, store=store)
        assert time.monotonic() - start < GENEROUS_S
        assert statuses(answer) == {**{f"fast{i}": "ok" for i in range(4)}, "stalled": "cancelled"}
        assert answer.label == "A"
        assert {(tally.agent, tally.status) for tally in store.summary()} == {
            *((f"fast{i}", "ok") for i in range(4)),
            ("stalled", "cancelled"),
        }
        assert answer.table.asked is None, "who was cancelled was asked"
        assert_replays(ensemble, answer)


def test_an_open_vote_waits() -> None:
    """Two against one with two to come is not decided: all five are heard."""
    agents = pool(
        echo("a", "A"), echo("b", "A"), echo("c", "B"), echo("d", "B", delay_s=0.2), echo("e", "B", delay_s=0.2)
    )
    with Ensemble(agents, "all_agents", "vote") as ensemble:
        answer = ensemble.answer(QUESTIONS[0], reader=TASK)
    assert set(statuses(answer).values()) == {"ok"}
    assert answer.label == "B"


def test_settling_can_be_turned_off() -> None:
    agents = pool(echo("a", "A"), echo("b", "A"), echo("c", "B", delay_s=0.2))
    with Ensemble(agents, "all_agents", "vote") as ensemble:
        answer = ensemble.answer(QUESTIONS[0], reader=TASK, limits=Limits(settle=False))
    assert statuses(answer)["c"] == "ok"


def test_a_fuser_that_cannot_tell_waits_for_all() -> None:
    class Patient:
        """A vote that does not know when it is settled."""

        def fit(self, table: PredictionTable, selection: Selection) -> Self:
            return self

        def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
            return Vote().fuse(table, selection)

    agents = pool(echo("a", "A"), echo("b", "A"), echo("c", "B", delay_s=0.2))
    with Ensemble(agents, "all_agents", Patient()) as ensemble:
        assert statuses(ensemble.answer(QUESTIONS[0], reader=TASK))["c"] == "ok"


@pytest.mark.parametrize("status", ["empty", "refused", "timeout", "rate_limited", "http_error", "engine_error"])
def test_a_member_that_fails_abstains(status: str) -> None:
    agents = pool(echo("a", "A"), echo("b", "B", fail_share=1.0, fail_status=status), echo("c", "A"))
    with Ensemble(agents, "all_agents", "vote") as ensemble:
        answer = ensemble.answer(QUESTIONS[0], reader=TASK)
        assert statuses(answer)["b"] == status
        assert answer.votes == {QUESTIONS[0].options[0]: ("a", "c")}
        assert_replays(ensemble, answer)


def test_a_truncated_answer_counts_when_it_can_be_read() -> None:
    agents = pool(echo("a", "The answer is B because of this and that", max_tokens=4), echo("b", "so so", max_tokens=1))
    with Ensemble(agents, "all_agents", "vote") as ensemble:
        answer = ensemble.answer(QUESTIONS[0], reader=TASK)
    assert statuses(answer) == {"a": "truncated", "b": "truncated"}
    assert answer.votes == {QUESTIONS[0].options[1]: ("a",)}


def test_no_error_text_reaches_a_fuser() -> None:
    seen: list[PredictionTable] = []

    class Spy:
        """A vote that remembers what it was shown."""

        def fit(self, table: PredictionTable, selection: Selection) -> Self:
            return self

        def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
            seen.append(table)
            return Vote().fuse(table, selection)

    agents = pool(
        echo("a", "A"), echo("b", fail_share=1.0), Agent(name="c", engine=Spec("replay", {"table": "nowhere"}))
    )
    with Ensemble(agents, "all_agents", Spy()) as ensemble:
        answer = ensemble.answer(QUESTIONS[0], reader=TASK, limits=Limits(quorum=1))
    details = [member.detail for member in answer.members if member.detail]
    assert len(details) == 2
    shown = repr([[table.texts, table.options, table.provenance, table.answers] for table in seen])
    assert not any(detail in shown for detail in details)
    assert "scripted failure" not in shown


def test_no_quorum_lists_every_cause() -> None:
    agents = pool(
        echo("fine", "A"),
        echo("broken", fail_share=1.0),
        echo("mute", fail_share=1.0, fail_status="empty"),
        echo("babbling", "who knows"),
        echo("late", "A", delay_s=30.0),
    )
    start = time.monotonic()
    with Ensemble(agents, "all_agents", "vote") as ensemble, pytest.raises(NoQuorum) as failure:
        ensemble.answer(QUESTIONS[0], reader=TASK, limits=Limits(quorum=2, deadline_s=0.3))
    assert time.monotonic() - start < GENEROUS_S
    assert (failure.value.needed, failure.value.answered) == (2, 1)
    assert set(failure.value.causes) == {"broken", "mute", "babbling", "late"}
    for part in ("http_error (scripted failure)", "mute: empty", "'who knows'", "late: timeout", "fusion doctor"):
        assert part in str(failure.value)


def test_a_deadline_leaves_the_late_out() -> None:
    agents = pool(echo("a", "A"), echo("b", "B"), echo("late", "B", delay_s=30.0))
    with Ensemble(agents, "all_agents", "vote") as ensemble:
        answer = ensemble.answer(QUESTIONS[0], reader=TASK, limits=Limits(deadline_s=0.3))
        assert statuses(answer)["late"] == "timeout"
        assert answer.label == "A", "a tie goes to the first of the pool"
        assert_replays(ensemble, answer)


@pytest.mark.parametrize(
    ("quorum", "asked", "needed"),
    [(0.5, 5, 3), (0.5, 4, 2), (0.5, 1, 1), (1.0, 3, 3), (0.0, 3, 0), (2, 5, 2), (0, 5, 0)],
)
def test_quorum(quorum: float, asked: int, needed: int) -> None:
    assert Limits(quorum=quorum).needed(asked) == needed


@pytest.mark.parametrize(
    "wrong",
    [
        {"quorum": 1.5},
        {"quorum": -1},
        {"quorum": "2"},
        {"quorum": True},
        {"deadline_s": 0.0},
        {"max_cost": -1.0},
        {"max_cost": float("nan")},
        {"quorum": float("nan")},
    ],
)
def test_limits_out_of_range(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="got"):
        Limits(**wrong)


def test_a_budget_is_never_exceeded() -> None:
    """A call may cost 10 tokens x 1 USD and costs 8: with 17 USD two fit one after the other, with 15 only one."""
    said = "A " + "x " * 7
    priced = [
        dataclasses.replace(echo(name, said), input_price=0.0, output_price=1e6, max_tokens=10)
        for name in ("a", "b", "c")
    ]
    question = dataclasses.replace(QUESTIONS[0], options=("A x x x x x x x", "y", "z"))
    with Ensemble(AgentPool(tuple(priced)), "all_agents", "vote") as ensemble:
        answer = ensemble.answer(question, limits=Limits(max_cost=15, quorum=0))
        assert sorted(statuses(answer).values()) == ["ok", "over_budget", "over_budget"]
        assert answer.cost == 8
        assert answer.table.asked is not None
        assert int(answer.table.asked.sum()) == 1
        assert_replays(ensemble, answer)
        more = ensemble.answer(question, limits=Limits(max_cost=18, quorum=0))
        assert sorted(statuses(more).values()) == ["ok", "ok", "over_budget"]
        assert more.cost == 16
        with pytest.raises(NoQuorum, match="not asked: 0"):
            ensemble.answer(question, limits=Limits(max_cost=0.5, quorum=1))


@pytest.mark.parametrize(("status", "others"), [("rate_limited", "ok"), ("timeout", "over_budget")])
def test_who_pays_for_failures(status: Any, others: str) -> None:
    """A server that refused is not paid; one that was too late may send a bill."""
    failing = dataclasses.replace(
        echo("a", fail_share=1.0, fail_status=status), input_price=0.0, output_price=1e6, max_tokens=10
    )
    fine = dataclasses.replace(echo("b", "A", delay_s=0.1), input_price=0.0, output_price=1e6, max_tokens=10)
    with Ensemble(AgentPool((failing, fine)), "all_agents", "vote") as ensemble:
        answer = ensemble.answer(QUESTIONS[0], reader=TASK, limits=Limits(max_cost=15, quorum=0))
    assert statuses(answer)["b"] == others


def escalating(asked: int) -> Any:
    """Asks the first agents, and everybody when these are not of one mind and complete."""

    class Escalating:
        sees: ClassVar[Literal["answers"]] = "answers"

        def fit(self, table: PredictionTable) -> Self:
            return self

        def select(self, table: PredictionTable) -> Selection:
            mask_NM = np.zeros((len(table), table.num_agents), dtype=bool)
            mask_NM[:, :asked] = True
            first_NM = table.answers[:, :asked]
            known_N = table.asked is None or table.asked[:, :asked].all(axis=1)
            mask_NM[known_N & ((first_NM < 0) | (first_NM != first_NM[:, :1])).any(axis=1)] = True
            return Selection(mask_NM)

    return Escalating()


def test_a_selector_that_looks_at_answers_sees_all_of_a_round() -> None:
    """Two of three agree at once; the third is awaited, for its silence would bring in four who say otherwise."""
    agents = pool(
        *(echo(f"x{i}", "A") for i in range(2)), echo("x2", "A", delay_s=0.2), *(echo(f"y{i}", "B") for i in range(4))
    )
    with Ensemble(agents, escalating(3), "vote") as ensemble:
        answer = ensemble.answer(QUESTIONS[0], reader=TASK)
    assert answer.label == "A"
    assert [member.agent for member in answer.members] == ["x0", "x1", "x2"]


def test_a_round_after_the_deadline_is_not_begun() -> None:
    agents = pool(echo("a", "A"), echo("b", "B", delay_s=30.0), echo("c", "A"))
    with Ensemble(agents, escalating(2), "vote") as ensemble:
        answer = ensemble.answer(QUESTIONS[0], reader=TASK, limits=Limits(deadline_s=0.2))
    assert statuses(answer) == {"a": "ok", "b": "timeout"}


def test_log_odds_of_an_open_question_wait() -> None:
    """What a vote weighs grows with the number of different answers: two late ones of one mind win."""
    fit = PredictionTable(
        question_ids=list(map(str, range(20))),
        agents=["a", "b", "c", "d"],
        answers=np.array([[n >= 8, n >= 10, n >= 10, n >= 12] for n in range(20)], dtype=np.int8) * 1,
        labels=[0] * 20,
        num_options=[2] * 20,
    )
    agents = pool(echo("a", "x"), echo("b", "y", delay_s=0.2), echo("c", "y", delay_s=0.2), echo("d", "z"))
    ensemble = Ensemble(agents, "all_agents", "weighted_vote(weights=log_odds)").fit(
        dataclasses.replace(fit, labels=1 - np.asarray(fit.labels))
    )
    with ensemble:
        eager = ensemble.answer("Which?")
        patient = ensemble.answer("Which?", limits=Limits(settle=False))
    assert eager.text == patient.text


def test_cost_and_usage_count_every_draw() -> None:
    """Three agents draw four answers of one word each at 2 USD; the first draw of one fails: 11 calls, 22 USD."""
    draws = {"temperature": 1.0, "samples": 4, "input_price": 0.0, "output_price": 2e6}
    agents = pool(*(echo(name, "A", fail_share=0.15, **draws) for name in ("a", "b", "c", "d", "e", "f")))
    with Ensemble(agents, "all_agents", "sample_vote") as ensemble:
        for question in QUESTIONS:
            answer = ensemble.answer(question, reader=TASK, limits=Limits(quorum=0))
            calls = sum(member.calls for member in answer.members)
            assert answer.cost == 2 * calls
            assert answer.usage.tokens_out == calls
            assert answer.usage.tokens_in is not None
            votes = sum(map(len, answer.votes.values()))
            assert votes == calls
            assert answer.agreement == (1.0 if votes else 0.0)


def test_options_of_the_same_text_are_told_apart() -> None:
    question = Question(id="q", messages=(), options=("x", "x", "y"))
    with Ensemble(pool(echo("a", "A"), echo("b", "B"), echo("c", "C")), "all_agents", "vote") as ensemble:
        answer = ensemble.answer(question)
    assert answer.votes == {"A. x": ("a",), "B. x": ("b",), "C. y": ("c",)}
    assert (answer.text, answer.label) == ("x", "A")
    assert answer.probs is not None
    assert sum(answer.probs.values()) == pytest.approx(1)


def test_what_cannot_work_is_said_before_anybody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(self: Echo, requests: Sequence[Any]) -> Any:
        raise AssertionError("asked")

    monkeypatch.setattr(Echo, "generate", asked)
    agents = varied_pool()
    with pytest.raises(UsageError, match="quorum of 9"):
        Ensemble(agents, "all_agents", "vote").answer(QUESTIONS[0], limits=Limits(quorum=9))
    with pytest.raises(NotFitted):
        Ensemble(agents, "all_agents", "weighted_vote").answer(QUESTIONS[0], reader=TASK)
    with pytest.raises(UsageError, match="none of bbh"):
        Ensemble(agents, "all_agents", "vote").answer("q", reader="bbh")
    wrong = AgentPool((*agents.agents, Agent(name="typo", engine=Spec("ecko"))))
    with pytest.raises(UsageError, match="echo"):
        Ensemble(wrong, "all_agents", "vote").answer("q")


@pytest.mark.parametrize(
    "how",
    [
        {"question": None}, {"question": 5}, {"question": "q", "limits": {"quorum": 1}},
        {"question": "q", "store": "rec"}, {"question": "q", "options": "pear"},
        {"question": "q", "options": [f"o{i}" for i in range(27)]},
    ],
)  # fmt: skip
def test_arguments_of_the_wrong_kind(how: Any) -> None:
    with pytest.raises(UsageError):
        Ensemble(varied_pool(), "all_agents", "vote").answer(how.pop("question"), **how)


def test_a_store_that_cannot_keep_is_an_error(tmp_path: Any) -> None:
    store = RecordStore.open(tmp_path)
    store.close()
    with Ensemble(varied_pool(), "all_agents", "vote") as ensemble, pytest.raises(FusionError, match="clos"):
        ensemble.answer(QUESTIONS[0], reader=TASK, store=store)


def test_a_task_that_was_not_made_for_options() -> None:
    """It reads numbers where letters are wanted: nobody's answer can be read, and nothing breaks."""
    with Ensemble(varied_pool(), "all_agents", "vote") as ensemble:
        answer = ensemble.answer("q?", options=["x", "y"], reader="gsm8k", limits=Limits(quorum=0))
    assert answer.votes == {}


def test_a_budget_needs_prices() -> None:
    with (
        Ensemble(pool(echo("a", "A")), "all_agents", "vote") as ensemble,
        pytest.raises(ConfigError, match="input_price"),
    ):
        ensemble.answer(QUESTIONS[0], limits=Limits(max_cost=1))


class Cascade:
    """Asks the first agent; the others only when it says nothing or the last option."""

    sees: ClassVar[Literal["answers"]] = "answers"

    def fit(self, table: PredictionTable) -> Self:
        return self

    def select(self, table: PredictionTable) -> Selection:
        mask_NM = np.zeros((len(table), table.num_agents), dtype=bool)
        mask_NM[:, 0] = True
        asked_N = np.ones(len(table), dtype=bool) if table.asked is None else table.asked[:, 0]
        unsure_N = asked_N & ((table.answers[:, 0] < 0) | (table.answers[:, 0] == table.num_options - 1))
        mask_NM[unsure_N] = True
        return Selection(mask_NM)


def varied_pool() -> AgentPool:
    letters = ("A", "B", "C", "D")
    return pool(
        echo("a", *letters, model="1"),
        echo("b", *letters, "no idea", model="2"),
        echo("c", *letters, model="3", fail_share=0.3),
        echo("d", *letters, model="4", temperature=0.7, samples=3),
        echo("e", "The answer is B", "C", model="5", fail_share=0.2, fail_status="timeout"),
    )


@pytest.mark.parametrize("selector", ["all_agents", "random_subset(size=3)", "fixed_subset(agents=[b, d])", "cascade"])
@pytest.mark.parametrize("fuser", ["vote", "weighted_vote", "weighted_vote(weights=log_odds)", "sample_vote"])
def test_live_equals_replay(selector: str, fuser: str, tmp_path: Any) -> None:
    chosen: Any = Cascade() if selector == "cascade" else selector
    ensemble = Ensemble(varied_pool(), chosen, fuser)
    if fuser.startswith("weighted"):
        names = ensemble.pool.names
        answers = np.random.default_rng(0).integers(0, 4, (60, 5))
        ensemble.fit(
            PredictionTable(question_ids=list(map(str, range(60))), agents=names, answers=answers, labels=[1] * 60)
        )
    with RecordStore.open(tmp_path) as store, ensemble:
        for question in QUESTIONS:
            answer = ensemble.answer(question, reader=TASK, store=store, limits=Limits(quorum=0))
            replay = ensemble.replay(answer.table)
            assert_replays(ensemble, answer)
            told = {member.agent for member in answer.members}
            assert told == {name for name, asked in zip(ensemble.pool.names, replay.asked[0], strict=True) if asked}


def test_what_is_on_record_is_not_asked_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    generate = Echo.generate

    def counted(self: Echo, requests: Sequence[Any]) -> Any:
        sent.extend(request.model for request in requests)
        return generate(self, requests)

    monkeypatch.setattr(Echo, "generate", counted)
    agents = pool(echo("a", "A", model="x"), echo("twin", "A", model="x"), echo("c", model="z", fail_share=1.0))
    with RecordStore.open(tmp_path) as store, Ensemble(agents, "all_agents", "vote") as ensemble:
        first = ensemble.answer(QUESTIONS[0], reader=TASK, store=store)
        assert sorted(sent) == ["x", "x", "z"], "twins are asked separately"
        sent.clear()
        second = ensemble.answer(QUESTIONS[0], reader=TASK, store=store)
    assert sent == ["z"], "only what failed is asked again"
    assert second.votes == first.votes
    assert second.table.fingerprint == first.table.fingerprint


def test_inside_a_running_loop_and_from_several() -> None:
    with Ensemble(varied_pool(), "all_agents", "vote") as ensemble:

        async def ask() -> str | None:
            return (await ensemble.aanswer(QUESTIONS[1], reader=TASK)).text

        async def notebook() -> str | None:
            # A synchronous call where a loop runs already, as in a notebook.
            return ensemble.answer(QUESTIONS[1], reader=TASK).text

        assert asyncio.run(ask()) == asyncio.run(ask()) == asyncio.run(notebook())


def test_many_at_once() -> None:
    with Ensemble(varied_pool(), "all_agents", "vote") as ensemble:

        async def all_of_them() -> list[Answer]:
            asked = (ensemble.aanswer(question, reader=TASK, limits=Limits(quorum=0)) for question in QUESTIONS)
            return await asyncio.gather(*asked)

        together = asyncio.run(all_of_them())
        alone = [ensemble.answer(question, reader=TASK, limits=Limits(quorum=0)) for question in QUESTIONS]
        assert [answer.text for answer in together] == [answer.text for answer in alone]


def test_cancelling_an_answer_cancels_its_members() -> None:
    async def cancel() -> float:
        ensemble = Ensemble(pool(echo("a", "A", delay_s=30.0)), "all_agents", "vote")
        task = asyncio.create_task(ensemble.aanswer(QUESTIONS[0], reader=TASK))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(asyncio.all_tasks())

    start = time.monotonic()
    assert asyncio.run(cancel()) == 1, "only the test's own task is left"
    assert time.monotonic() - start < GENEROUS_S


def test_wrong_usage() -> None:
    recorded = Ensemble(["a", "b"], "all_agents", "vote")
    with pytest.raises(UsageError, match="engine"):
        recorded.answer("Hello?")
    with pytest.raises(UsageError, match="right answers"):
        Ensemble(varied_pool(), "oracle", "vote").answer(QUESTIONS[0])
    with pytest.raises(NotFitted):
        Ensemble(varied_pool(), "all_agents", "weighted_vote").answer(QUESTIONS[0], reader=TASK)
    with pytest.raises(UsageError, match="text"):
        Ensemble(varied_pool(), "all_agents", "vote").answer(QUESTIONS[0], options=["a", "b"])
    for wrong in ([], ["one"], ["a", "a"]):
        if wrong:
            with pytest.raises(UsageError, match="two different"):
                Ensemble(varied_pool(), "all_agents", "vote").answer("q", options=wrong)
    with pytest.raises(UsageError, match="blank"):
        Ensemble(varied_pool(), "all_agents", "vote").answer("  ")


def test_a_saved_ensemble_can_be_asked(tmp_path: Any) -> None:
    Ensemble(varied_pool(), "all_agents", "vote").save(tmp_path)
    with Ensemble.load(tmp_path) as ensemble:
        assert ensemble.pool == varied_pool()
        assert ensemble.answer(QUESTIONS[0], reader=TASK).members


def test_an_ensemble_of_recorded_answers_can_be_asked_with_a_pool(tmp_path: Any) -> None:
    Ensemble(["y", "x"], "all_agents", "vote").save(tmp_path)
    asked = pool(echo("x", "A"), echo("y", "A"), echo("z", "B"))
    with Ensemble.load(tmp_path, pool=asked) as ensemble:
        answer = ensemble.answer("Which?", options=["one", "two"])
    assert [member.agent for member in answer.members] == ["y", "x"]
    assert answer.text == "one"
    with pytest.raises(UsageError, match="no engine"):
        Ensemble.load(tmp_path).answer("Which?", options=["one", "two"])


def test_json_has_no_prompt() -> None:
    with Ensemble(varied_pool(), "all_agents", "vote") as ensemble:
        told = ensemble.answer(QUESTIONS[0], reader=TASK).to_json()
    assert set(told) == {
        "question_id", "text", "label", "probs", "votes", "agreement", "usage", "cost_usd", "fuser_usage", "seconds",
        "members", "path",
    }  # fmt: skip


def test_scored_options() -> None:
    """An engine that scores options gives probabilities, which a mean can use."""
    agents = AgentPool(
        (Agent(name="a", engine=Spec("echo"), model="1"), Agent(name="b", engine=Spec("echo"), model="2"))
    )
    with Ensemble(agents, "all_agents", "mean_probability") as ensemble:
        question: Question = QUESTIONS[0]
        answer = ensemble.answer(question, reader=TASK)
        assert answer.table.probs is not None
        assert answer.table.probs.sum() == pytest.approx(2)
        assert_replays(ensemble, answer)
