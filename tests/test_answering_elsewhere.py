"""Requests answered in an executor's workers give the same record as requests answered here."""

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusion import discovery
from fusion.agents import Agent, AgentPool, RemoteAnswerer
from fusion.errors import EngineError, FusionError, UnknownName
from fusion.protocols import Executor
from fusion.recording import RecordOptions, answerer, record
from fusion.schema import Completion, Message, Request, Spec

POOL = AgentPool(
    (
        Agent(name="ash", engine=Spec("echo", {"replies": ["A", "B", "C"]})),
        Agent(name="birch", engine=Spec("echo", {"replies": ["The answer is B", "D"], "fail_share": 0.1})),
    )
)


def built(spec: str) -> Executor:
    made = discovery.build("executors", spec)
    assert isinstance(made, Executor)
    return made


@pytest.fixture(scope="module")
def local() -> Iterator[Executor]:
    with built("local(workers=2)") as executor:
        yield executor


def test_a_record_is_the_same_wherever_it_is_answered(tmp_path: Path) -> None:
    here = record(POOL, "micro", tmp_path / "here", options=RecordOptions(limit="60"))
    with answerer("local(workers=2)", POOL) as elsewhere:
        options = RecordOptions(limit="60", answerer=elsewhere)
        there = record(POOL, "micro", tmp_path / "there", options=options)
        assert there.table.fingerprint == here.table.fingerprint
        assert [member.statuses for member in there.members] == [member.statuses for member in here.members]
        again = record(POOL, "micro", tmp_path / "there", options=options)
    assert [member.recorded for member in again.members] == [60, 60 - there.members[1].statuses["http_error"]]


def test_here_is_no_executor() -> None:
    with answerer("here", POOL) as elsewhere:
        assert elsewhere is None


def test_unknown_executor() -> None:
    with pytest.raises(UnknownName, match="unknown executor 'rya'; did you mean 'ray'"), answerer("rya", POOL):
        pass


def test_few_requests_still_keep_all_workers_busy(local: Executor) -> None:
    """Six requests for two workers are two chunks of three; of a hundred, chunks are as large as allowed."""
    seen = _Chunks(local)
    _ask(RemoteAnswerer(seen, POOL), POOL.agents[0], 6)
    assert seen.sizes == [3, 3]
    _ask(RemoteAnswerer(seen, POOL), POOL.agents[0], 100)
    assert seen.sizes == [16] * 6 + [4]
    _ask(RemoteAnswerer(seen, POOL), POOL.agents[0], 0)
    assert seen.sizes == [16] * 6 + [4]


def test_completions_find_their_requests(local: Executor) -> None:
    agent = Agent(name="ash", engine=Spec("echo"))
    answers = _ask(RemoteAnswerer(local, AgentPool((agent,)), chunk=7), agent, 40)
    assert {index: completion.text for index, completion in answers} == {i: f"question {i}" for i in range(40)}
    assert len(answers) == 40


def test_engine_that_cannot_answer(local: Executor, tmp_path: Path) -> None:
    """The table is there when the record asks what the engine is, and gone when the workers look for it."""
    path = tmp_path / "answers.csv"
    path.write_text("question_id,answer,ash\nq0,A,A\n")
    agent = Agent(name="ash", engine=Spec("replay", {"table": str(path)}), model="ash")
    remote = RemoteAnswerer(local, AgentPool((agent,)))
    assert _ask(remote, agent, 1)[0][1].text == "A"
    path.unlink()
    other = Agent(name="oak", engine=agent.engine, model="oak")
    with pytest.raises(FusionError, match=r"no agent 'oak'|answers\.csv"):
        _ask(remote, other, 1)


def test_engine_that_is_another_one_there(local: Executor, tmp_path: Path) -> None:
    """A worker must not answer from other weights than those that the record names; here: another table."""
    path = tmp_path / "answers.csv"
    path.write_text("question_id,answer,ash\nq0,A,A\n")
    agent = Agent(name="ash", engine=Spec("replay", {"table": str(path)}), model="ash")
    seen = _Chunks(local)
    remote = RemoteAnswerer(seen, AgentPool((agent,)))
    _ask(remote, agent, 1)
    path.write_text("question_id,answer,ash\nq0,A,B\n")
    with built("local(workers=1)") as fresh:
        # A worker that has seen neither, where the record has seen the first.
        seen.executor = fresh
        with pytest.raises(EngineError, match="not the same on all machines"):
            _ask(remote, agent, 1)


def test_secrets_do_not_travel(local: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_THE_TEST", "sk-0123456789abcdef")
    engine = Spec("openai", {"base_url": "http://localhost:9/v1", "api_key_env": "KEY_OF_THE_TEST"})
    agent = Agent(name="ash", engine=engine, model="m")
    seen = _Chunks(local)
    seen.send = False
    _ask(RemoteAnswerer(seen, AgentPool((agent,))), agent, 3)
    assert b"KEY_OF_THE_TEST" in seen.sent
    assert b"sk-0123456789abcdef" not in seen.sent


class _Chunks:
    """An executor that notes what it is given, and passes it on."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.sizes: list[int] = []
        self.sent = b""
        self.send = True

    def count(self) -> int:
        return self.executor.count()

    def map(self, function: Any, items: Any, *, kind: str = "") -> Any:
        chunks = list(items)
        self.sizes = [len(chunk.requests) for chunk in chunks]
        self.sent = pickle.dumps(chunks)
        return self.executor.map(function, chunks if self.send else [], kind=kind)

    def close(self) -> None: ...

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None: ...


def _ask(remote: RemoteAnswerer, agent: Agent, number: int) -> list[tuple[int, Completion]]:
    requests = [
        Request(question_id=f"q{i}", messages=(Message("user", f"question {i}"),), model=agent.model)
        for i in range(number)
    ]

    async def ask() -> list[tuple[int, Completion]]:
        return [answer async for answer in remote(agent, requests)]

    return asyncio.run(ask())
