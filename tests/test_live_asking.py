"""Limits of a question hold for the calls that its fuser makes, too."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tables
from tables import by_hand

from fusion.agents import Agent, AgentPool, Allowance, Budget, allowed, allowing, paid_answers
from fusion.agents.echo import Echo
from fusion.answer import Answer
from fusion.ensemble import Ensemble
from fusion.errors import ConfigError
from fusion.live import Limits
from fusion.schema import Completion, Message, Request, Spec

OPTIONS = ("alpha", "beta", "gamma")
STALL_S = 30.0
MARGIN_S = 5.0
"""What a busy machine may need beyond a deadline; far below the stall."""


def member(name: str, reply: str, *, price: float | None = 1e6, max_tokens: int = 4, **engine: Any) -> Agent:
    """An agent that says `reply`; every word that it writes costs 1 USD, what it reads is free."""
    spec = Spec(engine.pop("engine", "echo"), {"replies": [reply], **engine})
    free = None if price is None else 0.0
    return Agent(name=name, engine=spec, mode="generate", max_tokens=max_tokens, input_price=free, output_price=price)


def ensemble(fuser: str, judge: Agent, *replies: str, late: str = "") -> Ensemble:
    """Members a, b, ... that say `replies`, of whom `late` stalls, and the agent "judge", whom the fuser asks."""
    delays = {late: STALL_S}
    members = [
        member(name, reply, delay_s=delays.get(name, 0.0)) for name, reply in zip("abcdef", replies, strict=False)
    ]
    pool = AgentPool((*members, judge))
    names = [agent.name for agent in members]
    fit = by_hand([[0] * len(pool)], [0], agents=pool.names, questions=["Which, then?"], options=[OPTIONS], texts=None)
    return Ensemble(pool, Spec("fixed_subset", {"agents": names}), fuser).fit(fit)


def writing(*, delay_s: float = 0.0, store: str = "") -> Ensemble:
    """A, B and B are said, the writer says C with 4 words; it may write 10."""
    fuser = f'synthesize(agent=judge, max_tokens=10, store="{store}")'
    return ensemble(fuser, member("judge", "The answer is C.", delay_s=delay_s), "A", "B", "B")


def notes(of: Ensemble) -> str:
    return "\n".join(of.fuser.notes())  # type: ignore[attr-defined]


def calls(answer: Answer) -> int:
    return 0 if answer.decision.spent is None else int(answer.decision.spent.calls[0])


class TestMoney:
    """Each of three members sets 4 USD aside and takes 1, so that 12 USD ask them all and leave 9."""

    def test_what_members_leave_is_for_the_writer(self) -> None:
        """It may cost 10 USD: of 13 that is just what is left; it takes 4, so the answer costs 7."""
        with writing() as system:
            answer = system.answer("Which?", options=OPTIONS, limits=Limits(max_cost=13))
        assert (answer.label, answer.cost) == ("C", 7)
        assert notes(system) == ""

    @pytest.mark.parametrize("max_cost", [12, 12.99])
    def test_a_dear_writer_is_not_asked(self, max_cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = _spy(monkeypatch)
        with writing() as system:
            answer = system.answer("Which?", options=OPTIONS, limits=Limits(max_cost=max_cost))
            assert (answer.label, answer.cost, answer.fusing) == ("B", 3, None)
            assert "1 of 1 calls failed (over_budget: not asked" in notes(system)
            assert len(asked) == 3, "the members alone"
            assert system.answer("Which?", options=OPTIONS).label == "C"

    @pytest.mark.parametrize(
        ("comparisons", "max_cost", "expected"),
        [("all", 16, 4), ("all", 18, 6), ("knockout", 15, 3), ("knockout", 16, 4), ("all", 12.5, 0)],
    )
    def test_a_judge_goes_as_far_as_it_surely_can(self, comparisons: str, max_cost: float, expected: int) -> None:
        """Members take 3 USD; a judgement may cost 10 and takes 1, one after another.

        Of 16 USD 13 are left: after n judgements 13 - n are, which is enough for another up to n = 3, so 4 are made of
        the 6 that three answers need; of 15 it is 3, in both rounds of the knock-out together.
        """
        fuser = f"rank(agent=judge, max_tokens=10, comparisons={comparisons})"
        with ensemble(fuser, member("judge", "1"), "A", "B", "C") as system:
            answer = system.answer("Which?", options=OPTIONS, limits=Limits(max_cost=max_cost))
        assert calls(answer) == expected
        assert answer.cost == 3 + expected <= max_cost
        assert answer.label == "A", "a judge that prefers the first place leaves it to the first of equals"

    def test_what_is_on_record_needs_no_money(self, tmp_path: Path) -> None:
        with writing(store=str(tmp_path)) as system:
            assert system.answer("Which?", options=OPTIONS).label == "C"
            assert system.answer("Which?", options=OPTIONS, limits=Limits(max_cost=12)).label == "C"
            assert system.answer("Which else?", options=OPTIONS, limits=Limits(max_cost=12)).label == "B"

    @pytest.mark.parametrize("name", ["synthesize", "rank"])
    def test_prices_are_missed_before_anybody_is_paid(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "pool.yaml"
        path.write_text(
            "version: 1\nagents:\n  - {name: free, engine: {kind: echo, replies: [The answer is C.]}, mode: generate}\n"
        )
        asked = _spy(monkeypatch)
        fuser = f'{name}(pool="{path}", agent=free)'
        with ensemble(fuser, member("judge", ""), "A", "B", "B") as system:
            with pytest.raises(ConfigError, match=r"needs every agent's prices, and free has none.*input_price"):
                system.answer("Which?", options=OPTIONS, limits=Limits(max_cost=100))
            assert asked == []
            assert system.answer("Which?", options=OPTIONS).label in ("B", "C")

    def test_a_call_that_nobody_waits_for_counts_at_the_most(self) -> None:
        """It may cost 4 USD and is cancelled on its way: of 10 USD 6 are left."""
        agent = member("a", "A")

        async def run() -> float | None:
            budget = Budget(AgentPool((agent,)), 10)
            requests = [Request(question_id="q", messages=(Message("user", "q"),), max_tokens=4)]

            def stalled(agent: Agent, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
                return Echo(delay_s=STALL_S).generate(requests)

            async def ask() -> None:
                async with aclosing(paid_answers(budget, agent, requests, stalled)) as answers:
                    async for _ in answers:
                        pass

            task = asyncio.create_task(ask())
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return budget.left

        assert asyncio.run(run()) == 6


class TestTime:
    @pytest.mark.parametrize("fuser", ["synthesize(agent=judge)", "rank(agent=judge)"])
    def test_a_stalling_judge_is_not_waited_for(self, fuser: str) -> None:
        started = time.monotonic()
        with ensemble(fuser, member("judge", "A", delay_s=STALL_S), "A", "B", "B") as system:
            answer = system.answer("Which?", options=OPTIONS, limits=Limits(deadline_s=0.5))
            taken = time.monotonic() - started
        assert 0.5 <= answer.seconds < 0.5 + MARGIN_S
        assert taken < 0.5 + MARGIN_S
        assert (answer.label, answer.fusing) == ("B", None)
        assert "calls failed (timeout: no answer in the time that the deadline left)" in notes(system)

    def test_when_members_take_all_the_time_nobody_else_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = _spy(monkeypatch)
        judge = member("judge", "The answer is C.")
        with ensemble("synthesize(agent=judge)", judge, "A", "B", "B", "C", late="d") as system:
            answer = system.answer("Which?", options=OPTIONS, limits=Limits(deadline_s=0.3))
        assert answer.members[3].status == "timeout"
        assert (answer.label, answer.fusing) == ("B", None)
        assert len(asked) == 4

    def test_judgements_that_came_in_time_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two of the six come at once: that beta beats alpha, both ways round; the others would take 30 s each."""
        tables.install(monkeypatch, "agents", "two_then_stall", TwoThenStall)
        judge = member("judge", "", engine="two_then_stall")
        with ensemble("rank(agent=judge)", judge, "A", "B", "C") as system:
            answer = system.answer("Which?", options=OPTIONS, limits=Limits(deadline_s=1.0))
            assert calls(answer) == 2
            assert answer.label == "B"
            assert "4 of 6 calls failed (timeout" in notes(system)


class TestSideBySide:
    def test_questions_do_not_share_their_limits(self) -> None:
        """64 at once on one fuser: each third may take 12 USD, too little, 13, or anything."""
        limits = [Limits(max_cost=12), Limits(max_cost=13), Limits()]

        async def run() -> list[Answer]:
            system = writing(delay_s=0.1)
            found = await asyncio.gather(
                *(system.aanswer(f"Which, {n}?", options=OPTIONS, limits=limits[n % 3]) for n in range(64))
            )
            await system.aclose()
            return found

        answers = asyncio.run(run())
        assert [answer.label for answer in answers] == [("B", "C", "C")[n % 3] for n in range(64)]
        assert [answer.cost for answer in answers] == [(3, 7, 7)[n % 3] for n in range(64)]

    def test_one_in_a_hurry_and_many_with_time(self) -> None:
        """The writer takes 1.5 s; who has 0.5 s does without, and the others get their answers."""

        async def run() -> list[Answer]:
            system = writing(delay_s=1.5)
            hurried = Limits(deadline_s=0.5)
            found = await asyncio.gather(
                *(system.aanswer(f"Which, {n}?", options=OPTIONS) for n in range(40)),
                system.aanswer("Which?", options=OPTIONS, limits=hurried),
            )
            await system.aclose()
            return found

        *others, hurried = asyncio.run(run())
        assert (hurried.label, hurried.fusing) == ("B", None)
        assert {answer.label for answer in others} == {"C"}

    def test_no_thread_of_the_event_loop_is_needed(self) -> None:
        """All that the loop has are busy: engines and connections may want them while a fuser waits."""

        async def run() -> Answer:
            loop, release = asyncio.get_running_loop(), threading.Event()
            loop.set_default_executor(ThreadPoolExecutor(max_workers=1))
            busy = loop.run_in_executor(None, release.wait)
            system = writing()
            try:
                return await asyncio.wait_for(system.aanswer("Which?", options=OPTIONS), timeout=STALL_S)
            finally:
                release.set()
                await busy
                await system.aclose()

        assert asyncio.run(run()).label == "C"


def test_nothing_is_limited_elsewhere() -> None:
    assert (allowed().usd, allowed().seconds) == (None, None)
    with allowing(Allowance(usd=1.0, seconds=60)):
        assert allowed().usd == 1
        assert 50 < (allowed().seconds or 0) <= 60
    assert allowed().usd is None


def test_a_replay_has_no_limits() -> None:
    """What was fused without the writer, as money was up, is fused with it where nothing is limited."""
    with writing() as system:
        answer = system.answer("Which?", options=OPTIONS, limits=Limits(max_cost=12))
        assert answer.label == "B"
        assert system.replay(answer.table).decision.answers.tolist() == [2]


@dataclass(kw_only=True)
class TwoThenStall(Echo):
    """Prefers beta, and takes 30 s for every judgement but the first two."""

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        for index, request in enumerate(requests):
            if index > 1:
                await asyncio.sleep(STALL_S)
            first, second = [line for line in request.messages[-1].content.split("\n") if line.startswith('{"id"')]
            yield index, Completion(status="ok", text="1" if "beta" in first else "2" if "beta" in second else "?")


def _spy(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Return where the requests that echoes get are written down."""
    asked: list[Request] = []
    plain = Echo.generate

    def generate(self: Echo, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        asked.extend(requests)
        return plain(self, requests)

    monkeypatch.setattr(Echo, "generate", generate)
    return asked
