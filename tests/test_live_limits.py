"""No selector, however greedy, gets past the limits of a question, whatever its agents do."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from greedy import GREEDY, OPTIONS, Deputies, Greedy, Headcount, ask, assert_replays, echo, last, pool, spying
from http_server import HttpServer
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import TinyModels

from fusion import Agent, AgentPool, Ensemble, Limits, Spec, make_question
from fusion.agents import RecordStore
from fusion.answer import Answer
from fusion.errors import ConfigError, NoQuorum, UsageError
from fusion.schema import Request

STALL_S = 30.0
MARGIN_S = 5.0
"""What a busy machine may need beyond a deadline; far below the stall."""


@pytest.fixture
def sent() -> Iterator[list[Request]]:
    with spying() as found:
        yield found


class TestCalls:
    @pytest.mark.parametrize("selector", [*GREEDY, "all_agents"], ids=str)
    @pytest.mark.parametrize("max_calls", [1, 3, 8])
    def test_a_greedy_selector_gets_no_more(self, selector: Any, max_calls: int, sent: list[Request]) -> None:
        ensemble = Ensemble(pool(*"ABCABCAB"), selector, Headcount())
        answer = ask(ensemble, limits=Limits(max_calls=max_calls))
        assert len(sent) == max_calls == sum(member.calls for member in answer.members)
        assert sum(len(step.agents) for step in answer.path) == max_calls
        # Who wants one at a time is told no once.
        together = not isinstance(selector, Greedy) or selector.how == "at once"
        assert len(last(answer).kept_out) == (8 - max_calls if together else max_calls < 8)
        assert last(answer).stop == ("max_calls" if max_calls < 8 else "everybody")
        assert answer.table.answered.sum() == max_calls
        assert_replays(ensemble, answer)

    def test_which_agents_and_what_is_said_by_hand(self, sent: list[Request]) -> None:
        """From the last: d and c may be asked, b and a not."""
        answer = ask(Ensemble(pool(*"ABCC"), Greedy(), "vote"), limits=Limits(max_calls=2))
        first, end = answer.path
        assert first.agents == ("d", "c")
        assert (end.asked, end.answered, end.kept_out) == (2, 2, ("b", "a"))
        assert end.why == "the limit of 2 calls was reached: b and a were not asked"
        assert (answer.text, answer.agreement) == ("lamp", 1.0)
        assert {member.agent: member.status for member in answer.members} == {
            "a": "over_budget",
            "b": "over_budget",
            "c": "ok",
            "d": "ok",
        }
        assert "2 of 2 calls are made" in answer.members[0].detail
        assert answer.table.asked is not None
        assert answer.table.asked.tolist() == [[False, False, True, True]]

    def test_every_draw_counts(self, sent: list[Request]) -> None:
        """Of three agents with four draws the first gets four, the second two."""
        ensemble = Ensemble(pool(*"ABC", samples=4), "all_agents", "sample_vote")
        answer = ask(ensemble, limits=Limits(max_calls=6))
        assert len(sent) == 6
        assert [member.calls for member in answer.members] == [4, 2, 0]
        assert answer.path[0].agents == ("a", "b")
        assert last(answer).kept_out == ("c",)
        short = ask(ensemble, limits=Limits(max_calls=10))
        assert last(short).why == "the limit of 10 calls was reached: c was not asked for every draw"
        assert_replays(ensemble, answer)

    def test_what_fails_counts(self, sent: list[Request]) -> None:
        """From the last: two fail and count all the same; the third is the last that may be asked."""
        failing = pool("A", "A", fail_share=1.0).agents
        ensemble = Ensemble(AgentPool((echo("d"), echo("c", "B"), *failing)), Greedy(how="one by one"), "vote")
        answer = ask(ensemble, limits=Limits(max_calls=3, quorum=1))
        assert len(sent) == 3
        assert (answer.label, [step.agents for step in answer.path]) == ("B", [("b",), ("a",), ("c",), ()])
        with pytest.raises(NoQuorum) as failure:
            ask(ensemble, limits=Limits(max_calls=2))
        assert (failure.value.needed, failure.value.answered) == (1, 0)
        assert "2 of 2 calls are made" in str(failure.value)

    def test_what_is_on_record_is_free(self, tmp_path: Path, sent: list[Request]) -> None:
        """Two calls at a time: the third question knows four agents, and asks two more."""
        ensemble = Ensemble(pool(*"AABBCC"), "all_agents", "vote")
        with RecordStore.open(tmp_path) as store:
            for known in (0, 2, 4):
                answer = ask(ensemble, limits=Limits(max_calls=2), store=store)
                assert sum(member.recorded for member in answer.members) == known
                assert answer.table.answered.sum() == known + 2
                assert_replays(ensemble, answer)
            assert len(sent) == 6
            assert last(answer).stop == "everybody"
            again = ask(ensemble, limits=Limits(max_calls=0), store=store)
        assert len(sent) == 6
        assert again.votes == answer.votes
        assert [member.recorded for member in again.members] == [1] * 6

    def test_quorum_is_of_those_that_are_asked(self) -> None:
        """Of eight that are wanted three may be asked; half of three is two."""
        members = AgentPool((echo("a"), echo("b", fail_share=1.0), *pool(*"????????").agents[2:]))
        with pytest.raises(NoQuorum) as failure:
            ask(Ensemble(members, "all_agents", "vote"), limits=Limits(max_calls=3))
        assert (failure.value.needed, failure.value.answered) == (2, 1)
        assert ask(Ensemble(members, "all_agents", "vote"), limits=Limits(max_calls=3, quorum=1)).label == "A"
        with pytest.raises(NoQuorum):
            ask(Ensemble(pool(*"AB"), "all_agents", "vote"), limits=Limits(max_calls=0))
        with pytest.raises(UsageError, match="quorum of 3 cannot be met with 2 calls"):
            ask(Ensemble(pool(*"ABC"), "all_agents", "vote"), limits=Limits(max_calls=2, quorum=3))

    def test_a_decided_vote_is_seen_among_those_that_may_be_asked(self) -> None:
        """Four of eight may be asked, and half of these must answer; three agree: the fourth is let go."""
        members = AgentPool((*pool("A", "A", "A").agents, *(echo(name, "B", delay_s=STALL_S) for name in "stuvw")))
        started = time.monotonic()
        answer = ask(Ensemble(members, "all_agents", "vote"), limits=Limits(max_calls=4))
        assert time.monotonic() - started < STALL_S / 2
        assert last(answer).stop == "max_calls"
        assert "the others had decided the answer: s was not waited for" in last(answer).why

    @pytest.mark.parametrize("wrong", [-1, 1.5, True, "3"])
    def test_out_of_range(self, wrong: Any) -> None:
        with pytest.raises(ConfigError, match="max_calls must be a number of calls"):
            Limits(max_calls=wrong)

    @settings(max_examples=40, deadline=None)
    @given(
        how=st.sampled_from(GREEDY),
        max_calls=st.integers(0, 12),
        max_cost=st.none() | st.integers(0, 40),
        draws=st.lists(st.sampled_from([1, 1, 2, 3]), min_size=1, max_size=6),
        fails=st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0]), min_size=6, max_size=6),
        status=st.sampled_from(["timeout", "http_error", "engine_error", "rate_limited"]),
    )
    def test_any_greed_and_any_failure(
        self, how: Any, max_calls: int, max_cost: int | None, draws: list[int], fails: list[float], status: str
    ) -> None:
        """Calls and money stay within their limits, the path adds up, and the replay decides the same."""
        members = AgentPool(
            tuple(
                echo(name, "ABC"[m % 3], model=name, samples=count, price=1.0, fail_share=fails[m], fail_status=status)
                for m, (name, count) in enumerate(zip("abcdef", draws, strict=False))
            )
        )
        ensemble = Ensemble(members, how, Headcount())
        with spying() as sent:
            answer = ask(ensemble, limits=Limits(quorum=0, max_calls=max_calls, max_cost=max_cost))
        assert len(sent) <= max_calls
        assert answer.cost is not None
        assert max_cost is None or answer.cost <= max_cost
        told = [name for step in answer.path for name in step.agents]
        assert set(told) == {request.model for request in sent}
        assert len(told) == len(set(told))
        assert not {*told} & {*last(answer).kept_out}
        if how.how == "at once" or not last(answer).kept_out:
            assert {*told, *last(answer).kept_out} == set(members.names)
        assert answer.table.asked is None or answer.table.asked.sum() == len(told)
        assert (last(answer).stop in ("max_calls", "max_cost")) >= bool(last(answer).kept_out)
        assert_replays(ensemble, answer)


class TestDeadline:
    @pytest.mark.parametrize("selector", [*GREEDY, "all_agents"], ids=str)
    def test_stalling_agents(self, selector: Any) -> None:
        """The last two answer, the others stall: whoever wants them all gets two answers, and soon."""
        members = AgentPool(
            (*(echo(name, "B", delay_s=STALL_S) for name in "abc"), *(echo(name, "C") for name in "de"))
        )
        ensemble = Ensemble(members, selector, Headcount())
        answer = ask(ensemble, limits=Limits(deadline_s=0.5, quorum=1))
        assert 0.5 <= answer.seconds < 0.5 + MARGIN_S
        assert last(answer).stop == "deadline"
        assert set(answer.votes) == {"lamp"}
        assert_replays(ensemble, answer)

    def test_whom_it_keeps_out_by_hand(self) -> None:
        """One by one from the last: d answers, c stalls, and b is wanted in vain."""
        members = AgentPool((echo("a"), echo("b"), echo("c", delay_s=STALL_S), echo("d", "B")))
        ensemble = Ensemble(members, Greedy(how="one by one"), Headcount())
        answer = ask(ensemble, limits=Limits(deadline_s=0.3))
        assert [step.agents for step in answer.path] == [("d",), ("c",), ()]
        assert last(answer).kept_out == ("b",)
        assert last(answer).why == "the deadline of 0.3 s came: c had not answered, b was not asked"
        assert [member.agent for member in answer.members] == ["c", "d"]
        assert answer.text == OPTIONS[3 % 3], "three are listened to, as on replay"
        assert_replays(ensemble, answer)

    def test_no_deputy_is_called_for_who_is_late(self) -> None:
        members = AgentPool((echo("a", delay_s=STALL_S), *pool(*"?ABC").agents[1:]))
        ensemble = Ensemble(members, Deputies(), Headcount())
        answer = ask(ensemble, limits=Limits(deadline_s=0.3, quorum=0))
        assert last(answer).kept_out == ("b",)
        assert_replays(ensemble, answer)


class TestMoney:
    @pytest.mark.parametrize("selector", [*GREEDY, "all_agents"], ids=str)
    def test_a_greedy_selector_spends_no_more(self, selector: Any, sent: list[Request]) -> None:
        """A call may cost 4 USD and costs 1: of 6.5 USD 2.5 are spent when no fourth one surely fits."""
        ensemble = Ensemble(pool(*"ABCABCAB", price=1.0), selector, Headcount())
        answer = ask(ensemble, limits=Limits(max_cost=6.5))
        assert answer.cost == len(sent) == 3
        assert last(answer).stop == "max_cost"
        assert last(answer).kept_out
        assert last(answer).why.startswith("the limit of 6.5 USD might have been exceeded: ")
        assert_replays(ensemble, answer)

    def test_money_that_does_not_suffice_takes_no_call(self) -> None:
        """The first is too dear, and the one call that is allowed is left to the second."""
        members = AgentPool((echo("a", price=100.0), echo("b", "B", price=1.0), echo("c", price=1.0)))
        answer = ask(Ensemble(members, "all_agents", "vote"), limits=Limits(max_cost=50, max_calls=1))
        assert answer.path[0].agents == ("b",)
        assert last(answer).why == (
            "the limit of 1 call was reached: c was not asked; "
            "the limit of 50 USD might have been exceeded: a was not asked"
        )


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer() as running:
        yield running


def behind(server: HttpServer, *models: str) -> AgentPool:
    """Agents of a server, whose behaviour is the model's name, at 1 USD for a million tokens."""
    engine = Spec("openai", {"base_url": server.url, "backoff_s": 0.01, "retries": 1})
    return AgentPool(
        tuple(
            Agent(
                name=f"{i}-{model}",
                engine=engine,
                model=model,
                mode="generate",
                max_tokens=8,
                input_price=1.0,
                output_price=1.0,
            )
            for i, model in enumerate(models)
        )
    )


class TestHttp:
    MODELS = ("letter-A", "error-500", "letter-B", "stall-30", "letter-A", "always-429", "letter-C", "letter-A")

    @pytest.mark.parametrize("selector", GREEDY, ids=str)
    def test_calls(self, selector: Any, server: HttpServer) -> None:
        """From the last: A, C, and one that is refused again and again, whose two sendings are one call."""
        ensemble = Ensemble(behind(server, *self.MODELS), selector, "vote")
        answer = ask(ensemble, limits=Limits(max_calls=3, deadline_s=STALL_S / 2))
        seen = server.stats()["requests"]
        assert seen == {"letter-A": 1, "letter-C": 1, "always-429": 2}
        assert last(answer).stop == "max_calls"
        assert "2-letter-B" not in answer.path[0].agents
        assert_replays(ensemble, answer)

    @pytest.mark.parametrize("selector", GREEDY, ids=str)
    def test_time(self, selector: Any, server: HttpServer) -> None:
        """The stalled one is hung up on at the deadline; asked one by one those after it are not asked."""
        ensemble = Ensemble(behind(server, *self.MODELS), selector, "vote")
        answer = ask(ensemble, limits=Limits(deadline_s=2.0))
        assert 2.0 <= answer.seconds < 2.0 + MARGIN_S
        assert last(answer).stop == "deadline"
        assert "3-stall-30 had not answered" in last(answer).why
        expected = () if selector.how == "at once" else ("2-letter-B",)
        assert last(answer).kept_out == expected
        assert server.stats()["requests"].get("letter-B", 0) == (not expected)
        assert_replays(ensemble, answer)

    @pytest.mark.parametrize("selector", GREEDY, ids=str)
    def test_money(self, selector: Any, server: HttpServer) -> None:
        """A call may cost some 90 millionths: with 130 the first fits, and others where it costs less than that."""
        ensemble = Ensemble(behind(server, *self.MODELS), selector, "vote")
        answer = ask(ensemble, limits=Limits(max_cost=130e-6, deadline_s=STALL_S / 2, quorum=1))
        assert answer.cost is not None
        assert 0 < answer.cost <= 130e-6
        assert last(answer).stop == "max_cost"
        assert_replays(ensemble, answer)

    def test_many_questions_do_not_share_their_limits(self, server: HttpServer) -> None:
        async def run() -> list[Answer]:
            ensemble = Ensemble(behind(server, *["letter-A"] * 6), Greedy(how="one by one"), "vote")
            found = await asyncio.gather(
                *(
                    ensemble.aanswer(f"Which, {n}?", options=OPTIONS, limits=Limits(max_calls=1 + n % 3))
                    for n in range(30)
                )
            )
            await ensemble.aclose()
            return found

        answers = asyncio.run(run())
        assert [len(answer.path) - 1 for answer in answers] == [1 + n % 3 for n in range(30)]
        assert server.stats()["total"] == 60


@pytest.mark.usefixtures("quick")
class TestInProcess:
    def members(self, tiny: TinyModels, **how: Any) -> AgentPool:
        """Five agents of one tiny model, which writes what it likes."""
        return AgentPool(
            tuple(
                Agent(
                    name=name,
                    engine=Spec("hf", {"device": "cpu", "threads": 1}),
                    model=str(tiny.llama()),
                    input_price=1.0,
                    output_price=1.0,
                    **how,
                )
                for name in "abcde"
            )
        )

    @pytest.mark.parametrize("selector", GREEDY, ids=str)
    def test_calls(self, selector: Any, tiny: TinyModels) -> None:
        """They score the options, so all that are asked answer, and the same."""
        ensemble = Ensemble(self.members(tiny, mode="options"), selector, "mean_probability")
        answer = ask(ensemble, limits=Limits(max_calls=2))
        assert sum(len(step.agents) for step in answer.path) == 2
        assert answer.table.answered.sum() == 2
        assert last(answer).stop == "max_calls"
        assert last(answer).conflict.startswith("nobody disagreed")
        assert_replays(ensemble, answer)

    def test_time(self, tiny: TinyModels) -> None:
        """A thousand draws take a while; the deadline ends them, and none is waited for."""
        members = self.members(tiny, mode="generate", max_tokens=100, temperature=1.0, samples=1000)
        with Ensemble(members, Greedy(), "vote") as ensemble:
            question = make_question("Which is a fruit?")
            answer = ensemble.answer(question, limits=Limits(deadline_s=2.0, quorum=0))
        assert 2.0 <= answer.seconds < 2.0 + MARGIN_S
        assert last(answer).stop == "deadline"

    @pytest.mark.parametrize("selector", GREEDY, ids=str)
    def test_money(self, selector: Any, tiny: TinyModels) -> None:
        """A call may cost some 250 millionths and costs 41: some are paid, and then none surely fits."""
        ensemble = Ensemble(self.members(tiny, mode="options"), selector, "mean_probability")
        answer = ask(ensemble, limits=Limits(max_cost=290e-6, quorum=0))
        assert answer.cost is not None
        assert 0 < answer.cost <= 290e-6
        assert last(answer).stop == "max_cost"
        assert_replays(ensemble, answer)
