"""Ensembles of members behind real HTTP servers that stall, fail, and die."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_server import HttpServer

from fusion import Agent, AgentPool, Ensemble, Limits, Spec, load_task
from fusion.agents import RecordStore
from fusion.answer import Answer
from fusion.errors import NoQuorum

TASK = load_task("micro")
QUESTION = TASK.samples()[0]
GENEROUS_S = 15.0
"""Half of the 30 s that a stalled member takes."""


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer() as running:
        yield running


def pool(server: HttpServer, *models: str, **params: Any) -> AgentPool:
    """One member for each behaviour; all share an engine."""
    engine = Spec("openai", {"base_url": server.url, "backoff_s": 0.01, "retries": 1, **params})
    return AgentPool(
        tuple(
            Agent(name=f"{i}-{model}", engine=engine, model=model, mode="generate", max_tokens=8)
            for i, model in enumerate(models)
        )
    )


def statuses(answer: Answer) -> list[str]:
    return [member.status for member in answer.members]


def test_a_stalled_member_is_cancelled_and_its_server_notices(server: HttpServer, tmp_path: Path) -> None:
    """Five members, one silent for 30 s: the vote of four returns at once, and the server sees the line closed."""
    start = time.monotonic()
    members = pool(server, "letter-C", "letter-C", "letter-C", "letter-C", "stall-30")
    with RecordStore.open(tmp_path) as store, Ensemble(members, "all_agents", "vote") as ensemble:
        answer = ensemble.answer(QUESTION, reader=TASK, store=store)
        assert time.monotonic() - start < GENEROUS_S
        assert statuses(answer) == ["ok"] * 4 + ["cancelled"]
        assert answer.label == "C"
        noticed = time.monotonic() + 10
        while server.stats()["cancelled"] == 0 and time.monotonic() < noticed:
            time.sleep(0.01)
        assert server.stats()["cancelled"] == 1
        assert server.stats()["open"] == 0
        kept = {tally.agent: tally.status for tally in store.summary()}
        assert kept["4-stall-30"] == "cancelled"
        assert (ensemble.replay(answer.table).decision.answers == answer.decision.answers).all()


def test_every_way_to_fail_at_once(server: HttpServer) -> None:
    members = pool(
        server, "letter-A", "error-500", "empty", "length", "nonsense", "cut-body", "always-429", "refusal",
        "length-empty-reasoning", "letter-A", "no-usage",
    )  # fmt: skip
    with Ensemble(members, "all_agents", "vote") as ensemble:
        answer = ensemble.answer(QUESTION, reader=TASK, limits=Limits(quorum=2, deadline_s=GENEROUS_S))
    found = dict(zip([member.agent.split("-", 1)[1] for member in answer.members], statuses(answer), strict=True))
    assert answer.label == "A"
    assert found["error-500"] == found["nonsense"] == found["cut-body"] == "http_error"
    assert found["always-429"] == "rate_limited"
    assert found["empty"] == "empty"
    assert found["length"] == found["length-empty-reasoning"] == "truncated"
    assert found["refusal"] == "refused"
    told = [member.usage for member in answer.members if member.status in ("ok", "truncated", "empty", "refused")]
    known = [usage.tokens_in for usage in told if usage.tokens_in is not None]
    assert len(known) < len(told)
    assert answer.usage.tokens_in is None, "the sum is unknown where a member's tokens are"
    texts = answer.table.texts
    assert texts is not None
    assert not any(word in " ".join(texts[0].tolist()) for word in ("error", "refus", "html", "429"))


def test_usage_adds_up(server: HttpServer) -> None:
    members = pool(server, "letter-A", "letter-B", "letter-A")
    with Ensemble(members, "all_agents", "vote") as ensemble:
        answer = ensemble.answer(QUESTION, reader=TASK, limits=Limits(settle=False))
    assert answer.usage.tokens_in == sum(member.usage.tokens_in or 0 for member in answer.members)
    assert answer.usage.tokens_out == sum(member.usage.tokens_out or 0 for member in answer.members)
    assert answer.usage.tokens_in > 0


def test_a_server_that_dies_while_it_is_asked(server: HttpServer) -> None:
    """One server dies with its calls in the air: those members fail, the others answer."""
    with HttpServer() as other:
        engine = Spec("openai", {"base_url": other.url, "retries": 0})
        doomed = tuple(Agent(name=f"doomed-{i}", engine=engine, model="stall-30", mode="generate") for i in range(2))
        members = AgentPool((*pool(server, "letter-B", "letter-B", "letter-B").agents, *doomed))

        async def ask() -> Answer:
            ensemble = Ensemble(members, "all_agents", "vote")
            task = asyncio.create_task(ensemble.aanswer(QUESTION, reader=TASK, limits=Limits(settle=False)))
            while (await asyncio.to_thread(other.stats))["open"] < 2:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(other.kill)
            answer = await task
            await ensemble.aclose()
            return answer

        start = time.monotonic()
        answer = asyncio.run(ask())
        assert time.monotonic() - start < GENEROUS_S
    assert statuses(answer) == ["ok"] * 3 + ["http_error"] * 2
    assert answer.label == "B"


def test_no_quorum_names_every_cause(server: HttpServer) -> None:
    members = pool(server, "letter-A", "error-503", "stall-30", "not-found")
    with Ensemble(members, "all_agents", "vote") as ensemble, pytest.raises(NoQuorum) as failure:
        ensemble.answer(QUESTION, reader=TASK, limits=Limits(quorum=2, deadline_s=1.0))
    causes = failure.value.causes
    assert set(causes) == {"1-error-503", "2-stall-30", "3-not-found"}
    assert causes["1-error-503"].startswith("http_error (")
    assert "503" in causes["1-error-503"]
    assert causes["2-stall-30"].startswith("timeout (")
    assert causes["3-not-found"].startswith("engine_error (")


def test_a_key_never_shows(server: HttpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A refused key is told by the name of its variable, in errors, answers and on disk."""
    monkeypatch.setenv("SOME_KEY", "sk-do-not-show-me")
    server.configure(api_key="another")
    members = pool(server, "letter-A", api_key_env="SOME_KEY")
    with (
        RecordStore.open(tmp_path) as store,
        Ensemble(members, "all_agents", "vote") as ensemble,
        pytest.raises(NoQuorum) as failure,
    ):
        ensemble.answer(QUESTION, reader=TASK, store=store)
    assert "SOME_KEY" in str(failure.value)
    assert "do-not-show" not in str(failure.value)
    assert not any(b"do-not-show" in path.read_bytes() for path in tmp_path.iterdir())


def test_connections_are_kept_from_question_to_question(server: HttpServer) -> None:
    with Ensemble(pool(server, "letter-A", "letter-B"), "all_agents", "vote") as ensemble:
        for question in TASK.load("test")[:20]:
            ensemble.answer(question, reader=TASK, limits=Limits(quorum=0, settle=False))
        seen = server.stats()
    assert seen["total"] == 40
    # Two for the calls; the looks at the counts take others.
    assert seen["connections"] <= 4
