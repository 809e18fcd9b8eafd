"""Recording a task: every call once, failures asked again, the same table whatever happened on the way."""

import asyncio
import dataclasses
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fusion import Agent, AgentPool, Spec, load_task, recording
from fusion.agents import Engines, Recorder, RecordStore
from fusion.agents.echo import Echo
from fusion.data import read_table, tabulate
from fusion.errors import ConfigError, EngineError, UnknownName, UsageError
from fusion.recording import RecordOptions, record, take
from fusion.schema import FINAL

REPLIES = ["(A)1", "(B)2", "(C)3"]
"""One word each, that states a letter where there are options and else a number."""


def agent(name: str, *, engine: dict[str, Any] | None = None, **how: Any) -> Agent:
    params = {"replies": REPLIES, **(engine or {})}
    return Agent(name=name, engine=Spec("echo", params), **{"mode": "generate", **how})


def pool(*agents: Agent) -> AgentPool:
    return AgentPool(agents)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Every request that reaches an echo engine: model, question, draw."""
    seen: list[tuple[str, str, int]] = []
    generate = Echo.generate

    def noted(self: Echo, requests: Sequence[Any]) -> Any:
        seen.extend((request.model, request.question_id, request.sample) for request in requests)
        return generate(self, requests)

    monkeypatch.setattr(Echo, "generate", noted)
    return seen


def options(limit: str = "40", **how: Any) -> RecordOptions:
    return RecordOptions(limit=limit, **how)


def test_what_is_written(tmp_path: Path) -> None:
    members = pool(agent("a", model="1", input_price=1.0, output_price=2.0), agent("b", model="2"))
    result = record(members, "micro", tmp_path / "out", options=options())
    table = read_table(tmp_path / "out" / "table.parquet")
    assert table.fingerprint == result.table.fingerprint
    assert (len(table), table.agents) == (40, ("a", "b"))
    assert table.answered.all()
    assert table.texts is not None
    told = json.loads((tmp_path / "out" / "record.json").read_text())
    assert told == result.to_json()
    assert told["table"] == table.fingerprint
    assert told["run"]["command"]["task"] == "micro"
    first, second = result.members
    assert first.statuses == {"ok": 40}
    assert first.failed_share == 0
    assert first.tokens_in is not None
    assert first.cost == pytest.approx((first.tokens_in * 1.0 + 40 * 2.0) / 1e6)
    assert second.cost is None
    assert first.accuracy == table.accuracies[0]
    assert table.provenance["statuses"] == {"a": {"ok": 40}, "b": {"ok": 40}}


def test_again_asks_nothing(tmp_path: Path, sent: list[tuple[str, str, int]]) -> None:
    members = pool(agent("a", model="1"), agent("twin", model="1"))
    first = record(members, "micro", tmp_path, options=options())
    assert len(sent) == 80, "twins are asked separately"
    sent.clear()
    second = record(members, "micro", tmp_path, options=options())
    assert sent == []
    assert second.table.fingerprint == first.table.fingerprint
    assert [member.recorded for member in second.members] == [40, 40]


def test_only_what_failed_is_asked_again(
    tmp_path: Path, sent: list[tuple[str, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failures of the line are asked again; answers that are empty, refused or cut are answers."""
    broken = [agent(status, engine={"fail_share": 0.5, "fail_status": status}) for status in ("timeout", "empty")]
    members = pool(*broken, agent("cut", engine={"replies": ["The answer is B I think"]}, max_tokens=2))
    first = record(members, "micro", tmp_path, options=options())
    by_name = {member.agent: member for member in first.members}
    lost = by_name["timeout"].statuses["timeout"]
    assert 0 < lost < 40
    assert by_name["timeout"].failed_share == lost / 40
    assert sum(by_name["timeout"].reasons.values()) == lost
    assert all(reason.startswith("timeout: ") for reason in by_name["timeout"].reasons)
    assert by_name["empty"].reasons == {}
    assert by_name["empty"].failed_share == 0
    assert by_name["empty"].unread_share == by_name["empty"].statuses["empty"] / 40
    assert by_name["cut"].statuses == {"truncated": 40}
    sent.clear()
    answer = Echo._answer

    def mended(self: Echo, request: Any) -> Any:
        # The line works again, while the script, and with it the key, is what it was.
        return answer(Echo(replies=self.replies), request)

    monkeypatch.setattr(Echo, "_answer", mended)
    second = record(members, "micro", tmp_path, options=options())
    assert len(sent) == lost
    assert second.members[0].statuses == {"ok": 40}
    assert second.table.answered[:, 0].all()


def test_more_questions_agents_and_samples(tmp_path: Path, sent: list[tuple[str, str, int]]) -> None:
    warm = {"temperature": 0.8}
    record(pool(agent("a", **warm)), "micro", tmp_path, options=options("10"))
    assert len(sent) == 10
    record(pool(agent("a", **warm)), "micro", tmp_path, options=options("25"))
    assert len(sent) == 25
    record(pool(agent("a", **warm), agent("b", **warm)), "micro", tmp_path, options=options("25"))
    assert len(sent) == 50
    result = record(pool(agent("a", **warm), agent("b", **warm)), "micro", tmp_path, options=options("25", samples=3))
    assert len(sent) == 150
    assert len(set(sent)) == 75, "two agents of one model send the same requests but for the seed"
    assert result.table.sample_answers is not None
    assert result.table.sample_answers.shape == (25, 2, 3)
    assert not (result.table.sample_answers[:, :, 0] == result.table.sample_answers[:, :, 1]).all()


def test_several_samples_are_generated(tmp_path: Path) -> None:
    """Scores of options are not drawn: an agent that may do either generates when it is to draw."""
    drawn = agent("a", mode="auto", temperature=1.0, samples=3)
    result = record(pool(drawn), "micro", tmp_path, options=options())
    assert result.table.probs is None
    assert result.table.sample_answers is not None
    assert len(set(map(tuple, result.table.sample_answers[:, 0].tolist()))) > 3
    with pytest.raises(ConfigError, match="not drawn"):
        agent("a", mode="options", temperature=1.0, samples=3)


def test_samples_at_temperature_0_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"several samples of a at temperature 0.*--set defaults.temperature"):
        record(pool(agent("a")), "micro", tmp_path, options=options(samples=3))


def test_a_table_is_not_replaced_by_a_poorer_one(tmp_path: Path) -> None:
    """An engine that cannot start any more does not take its answers out of the table; the others' are kept."""
    record(pool(agent("a")), "micro", tmp_path / "first", options=options("30"))
    (tmp_path / "first" / "table.parquet").rename(tmp_path / "moving.parquet")
    replayed = Agent(name="r", engine=Spec("replay", {"table": str(tmp_path / "moving.parquet")}), model="a")
    out = tmp_path / "out"
    whole = record(pool(agent("a"), replayed), "micro", out, options=options("30"))
    assert whole.table.answered.all()
    (tmp_path / "moving.parquet").unlink()
    with pytest.raises(EngineError, match=r"'r' cannot be asked .* has 30 answers of it.*left as it is"):
        record(pool(agent("a"), replayed), "micro", out, options=options("40"))
    assert read_table(out / "table.parquet").fingerprint == whole.table.fingerprint
    with RecordStore.open(out) as store:
        assert {tally.agent: tally.answers for tally in store.summary()} == {"a": 40, "r": 30}
    alone = record(pool(agent("a")), "micro", out, options=options("40"))
    assert alone.members[0].recorded == 40


def test_options_that_are_not_shown_must_be_scored(tmp_path: Path) -> None:
    """A model that is asked to write cannot choose from what it does not see: an error, not 0 % right."""
    from fusion.agents import Asker

    task = load_task("truthfulqa_mc1")
    writing = agent("a")

    async def means(member: Agent, question: Any) -> str:
        return await Asker(Engines(pool(member))).scoring(member, question)

    with pytest.raises(EngineError, match=r"does not show the options.*style=generate"):
        asyncio.run(means(writing, task.samples()[0]))
    assert asyncio.run(means(agent("a", mode="auto"), task.samples()[0])) == "hash"
    listed = load_task("truthfulqa_mc1(style=generate)").samples()[0]
    assert asyncio.run(means(writing, listed)) == ""


def test_how_options_are_scored_is_remembered_from_the_first_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is down later need not be asked again how it scores: its answers stay in the table."""
    scored = agent("a", mode="auto")
    first = record(pool(scored), "micro", tmp_path, options=options("6"))
    assert first.table.probs is not None, "the first six questions have options"

    async def down(self: Echo, request: Any) -> str | None:
        raise EngineError("the server is down")

    monkeypatch.setattr(Echo, "scoring", down)
    again = record(pool(scored, agent("b")), "micro", tmp_path, options=options("6"))
    assert [member.error for member in again.members] == ["", ""]
    assert again.members[0].recorded == 6


def test_a_budget_is_used_up_before_calls_are_refused(tmp_path: Path) -> None:
    """What calls did not cost of what was set aside for them is there for others: all are made, and paid."""
    members = pool(*(agent(name, input_price=1.0, output_price=1.0, max_tokens=4) for name in ("a", "b")))
    free = record(members, "micro", tmp_path / "free", options=options())
    real = sum(member.cost or 0 for member in free.members)
    # The last call needs its worst case to fit: 4 tokens written, and a token for every byte read.
    capped = record(members, "micro", tmp_path / "capped", options=options(max_cost=real + 4e-4))
    assert all(member.statuses == {"ok": 40} for member in capped.members)


def test_an_agent_that_cannot_be_asked_does_not_stop_the_others(tmp_path: Path) -> None:
    missing = Agent(name="gone", engine=Spec("replay", {"table": str(tmp_path / "no-such.parquet")}))
    result = record(pool(agent("a"), missing), "micro", tmp_path, options=options())
    fine, gone = result.members
    assert fine.statuses == {"ok": 40}
    assert gone.failed_share == 1
    assert "no-such.parquet" in gone.error
    assert not result.table.answered[:, 1].any()
    assert result.table.agents == ("a", "gone")


def test_an_engine_that_breaks_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was answered before stays; the error is told; the next recording asks the rest."""
    answer, asked = Echo._answer, []

    def breaking(self: Echo, request: Any) -> Any:
        asked.append(request)
        if len(asked) > 15:
            raise EngineError("the model is gone")
        return answer(self, request)

    monkeypatch.setattr(Echo, "_answer", breaking)
    result = record(pool(agent("a")), "micro", tmp_path, options=options())
    assert result.members[0].error == "the model is gone"
    assert result.members[0].statuses == {"ok": 15, "cancelled": 25}
    assert int(result.table.answered.sum()) == 15
    assert result.table.asked is not None
    assert int(result.table.asked.sum()) == 15
    monkeypatch.setattr(Echo, "_answer", answer)
    again = record(pool(agent("a")), "micro", tmp_path, options=options())
    assert again.members[0].recorded == 15
    assert again.members[0].statuses == {"ok": 40}


def test_a_bug_in_an_engine_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Echo, request: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(Echo, "_answer", broken)
    with pytest.raises(ZeroDivisionError):
        record(pool(agent("a")), "micro", tmp_path, options=options())


@pytest.mark.parametrize("limit", [0.0, 3.5e-5, 1.0])
def test_the_budget_holds(limit: float, tmp_path: Path) -> None:
    """Every call may cost at most 16 + len(prompt) bytes read and 1 token written; what is spent stays below."""
    members = pool(*(agent(name, input_price=0.1, output_price=1.0, max_tokens=1) for name in ("a", "b")))
    result = record(members, "micro", tmp_path, options=options(max_cost=limit))
    spent = sum(member.cost or 0 for member in result.members)
    assert spent <= limit
    over = sum(member.statuses.get("over_budget", 0) for member in result.members)
    assert (over > 0) == (limit < 1)
    assert (over < 80) == (limit > 0)
    with RecordStore.open(tmp_path) as store:
        statuses = {tally.status for tally in store.summary()}
    assert "over_budget" not in statuses or over
    whole = record(members, "micro", tmp_path, options=options())
    assert all(member.statuses == {"ok": 40} for member in whole.members), "without the limit the rest is asked"


def test_the_folder_of_another_task(tmp_path: Path) -> None:
    record(pool(agent("a")), "micro", tmp_path, options=options())
    with pytest.raises(UsageError, match="holds a record of task micro"):
        record(pool(agent("a")), "micro(variant=b)", tmp_path, options=options())
    with pytest.raises(UsageError, match="holds a record of split test"):
        record(pool(agent("a")), "micro", tmp_path, options=options(split="train"))


def test_wrong_names(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="micro"):
        record(pool(agent("a")), "mikro", tmp_path)
    with pytest.raises(UsageError, match="split"):
        record(pool(agent("a")), "micro", tmp_path, options=options(split="tset"))
    with pytest.raises(UsageError, match="engine"):
        record(AgentPool.of(["a"]), "micro", tmp_path, options=options())
    assert not (tmp_path / "table.parquet").exists()


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, range(50)),
        ("7", range(7)),
        ("0.1", range(5)),
        (".5", range(25)),
        ("1.0", range(50)),
        ("10-20", range(10, 20)),
        ("99", range(50)),
    ],
)
def test_limits(limit: str | None, expected: range) -> None:
    assert list(take(range(50), limit)) == list(expected)  # type: ignore[arg-type]  # any sequence can be cut


@pytest.mark.parametrize("limit", ["0", "x", "-3", "50-60", "20-10", "1.5", "0.001", "5%"])
def test_limits_that_make_no_sense(limit: str) -> None:
    with pytest.raises(UsageError, match="limit"):
        take(range(50), limit)  # type: ignore[arg-type]  # any sequence can be cut


def test_a_plan_asks_and_writes_nothing(tmp_path: Path, sent: list[tuple[str, str, int]]) -> None:
    members = pool(agent("a", input_price=1.0, output_price=1.0, max_tokens=5), agent("b", mode="auto"))
    out = tmp_path / "out"
    first, second = recording.plan(members, "micro", out, options=options())
    assert not out.exists()
    assert (first.calls, first.recorded, first.means, second.means) == (40, 0, "generate", "generate, hash")
    assert first.most_tokens_out == 200
    assert first.most_cost is not None
    assert first.most_cost > 0
    assert first.cost is None, "how much will be written is unknown before anything was"
    assert second.most_cost is None
    record(members, "micro", out, options=options("20"))
    sent.clear()
    later, _ = recording.plan(members, "micro", out, options=options())
    assert sent == []
    assert (later.calls, later.recorded) == (40, 20)
    assert later.tokens_out == 20, "one token an answer on record"
    assert later.cost is not None
    assert later.most_cost is not None
    assert 0 < later.cost <= later.most_cost


def test_progress_is_told_of_every_call(tmp_path: Path) -> None:
    told: list[tuple[str, int, int, int]] = []

    def note(agent: str, *, done: int, total: int, failed: int) -> None:
        told.append((agent, done, total, failed))

    members = pool(agent("a"), agent("b", engine={"fail_share": 0.5}))
    record(members, "micro", tmp_path, options=options(), progress=note)
    for name in ("a", "b"):
        mine = [(done, total) for who, done, total, _ in told if who == name]
        assert mine == [(i + 1, 40) for i in range(40)]
    lost = [failed for who, _, _, failed in told if who == "b"][-1]
    told.clear()
    record(members, "micro", tmp_path, options=options(), progress=note)
    assert [who for who, *_ in told] == ["b"] * lost
    assert told[0][1] == 40 - lost + 1, "what is on record counts as done"


def test_the_order_of_asking_is_by_engine_and_model(tmp_path: Path, sent: list[tuple[str, str, int]]) -> None:
    """Agents of one model are asked next to each other, so that it is loaded once."""
    members = pool(*(agent(name, model=model) for name, model in (("a", "x"), ("b", "y"), ("c", "x"))))
    record(members, "micro", tmp_path, options=options("5"))
    assert [model for model, *_ in sent] == ["x"] * 10 + ["y"] * 5


def test_two_recordings_at_once(tmp_path: Path) -> None:
    """They share one store; each ends with the whole table, and both tables are the same."""
    members = pool(agent("a", engine={"delay_s": 0.002}), agent("b", engine={"delay_s": 0.002}))
    results: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(record(members, "micro", tmp_path, options=options("100")).table.fingerprint)
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert len(set(results)) == 1


def test_recorder_and_tabulate_by_hand(tmp_path: Path) -> None:
    """What `record` does, step by step, for those who keep their own questions."""
    task = load_task("micro")
    questions = task.load("test")[:8]
    members = pool(agent("a"), agent("b"))

    async def run() -> Any:
        with RecordStore.open(tmp_path) as store:
            async with Engines(members) as engines:
                recorder = Recorder(members, engines, store)
                found = await recorder.record(questions)
                return found, found.calls

    found, calls = asyncio.run(run())
    assert found.statuses == {"a": {"ok": 8}, "b": {"ok": 8}}
    assert len(calls) == 16
    assert all(call.completion.status in FINAL for call in calls)
    table = tabulate(questions, members.names, calls, reader=task)
    assert table.answered.all()


def test_every_option_of_an_agent_is_in_the_key(tmp_path: Path, sent: list[tuple[str, str, int]]) -> None:
    """Changing anything about an agent that can change its answers asks anew; prices change nothing."""
    plain = agent("a", model="m")
    changes: dict[str, Any] = {
        "name": "other", "model": "n", "revision": "r", "adapter": "l", "template": "", "system": "Be brief.",
        "mode": "auto", "temperature": 0.5, "top_p": 0.5, "top_k": 3, "max_tokens": 7, "stop": ("x",), "samples": None,
        "extra": {"x": 1}, "engine": Spec("echo", {"replies": ["A"]}), "seed": None,
        "input_price": None, "output_price": None,
    }  # fmt: skip
    assert set(changes) == {field.name for field in dataclasses.fields(Agent)}
    record(pool(plain), "micro", tmp_path, options=options("3"))
    for name, value in changes.items():
        sent.clear()
        if name in ("input_price", "output_price"):
            record(pool(dataclasses.replace(plain, **{name: 1.0})), "micro", tmp_path, options=options("3"))
            assert not sent
        elif name in ("seed", "samples"):
            warm = dataclasses.replace(plain, temperature=0.5)
            more = 2 if name == "samples" else 3
            record(pool(dataclasses.replace(warm, **{name: more})), "micro", tmp_path, options=options("3"))
            assert sent
        else:
            record(pool(dataclasses.replace(plain, **{name: value})), "micro", tmp_path, options=options("3"))
            assert len(sent) == 3, name
