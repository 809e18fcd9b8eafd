"""The replay engine: what is on record is said again, and nothing else."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import by_hand, random_table

from fusion.agents import Agent
from fusion.data import Call, PredictionTable, load_task, tabulate, write_table
from fusion.discovery import build, spec_of
from fusion.errors import EngineError, InvalidSpec, UnreadableTable
from fusion.protocols import Engine
from fusion.schema import Completion, Message, Request, Spec

LETTERED = (Message("user", "Which?\nA. one\nB. two\nAnswer:"),)


@pytest.fixture
def replay(tmp_path: Path) -> Any:
    """Make the engine of a table."""

    def made(table: PredictionTable, **params: Any) -> Any:
        path = tmp_path / f"{table.fingerprint[:8]}.parquet"
        write_table(table, path)
        return build("agents", f'replay(table="{path}")') if not params else _with(path, params)

    return made


def _with(path: Path, params: dict[str, Any]) -> object:
    listed = ", ".join(f"{key}={value}" for key, value in params.items())
    return build("agents", f'replay(table="{path}", {listed})')


def ask(engine: Engine, *requests: Request) -> list[Completion]:
    async def all_of_them() -> list[tuple[int, Completion]]:
        async with aclosing(engine.generate(requests)) as answers:
            return [answer async for answer in answers]

    found = dict(asyncio.run(all_of_them()))
    return [found[i] for i in range(len(requests))]


def request(question: str = "q0", model: str = "a", **fields: Any) -> Request:
    return Request(question_id=question, messages=fields.pop("messages", ()), model=model, **fields)


class TestWords:
    def test_letters_where_options_have_no_texts(self, replay: Any) -> None:
        engine = replay(by_hand([[0, 3], [1, -1]]))
        said = ask(engine, request(), request(model="b"), request("q1"), request("q1", "b"))
        assert [(item.status, item.text) for item in said] == [("ok", "A"), ("ok", "D"), ("ok", "B"), ("empty", "")]
        assert said[3].detail == "an abstention is on record"

    def test_the_texts_of_options_of_open_questions(self, replay: Any) -> None:
        table = by_hand([[1, 0]], [0], options=[["7", "eight"]], references=["7"])
        said = ask(replay(table), request(), request(model="b"), request(messages=LETTERED))
        assert [item.text for item in said] == ["eight", "7", "eight"]

    def test_letters_where_the_prompt_lists_options_under_them(self, replay: Any) -> None:
        engine = replay(by_hand([[1]], options=[["one", "two"]]))
        plain = (Message("user", "Which: one or two?"),)
        bracketed = (Message("user", "Which?\n(A) one\n(B) two"),)
        said = ask(engine, request(messages=LETTERED), request(messages=plain), request(messages=bracketed))
        assert [item.text for item in said] == ["B", "two", "B"]

    def test_continuations(self, replay: Any) -> None:
        engine = replay(by_hand([[1]], options=[["one", "two"]]))
        assert ask(engine, request(continuations=("first", "second")))[0].text == "second"

    def test_recorded_texts_win_even_where_no_answer_was_read(self, replay: Any) -> None:
        table = by_hand([[1, -1, -1, 0]], texts=[["I say B.", "No idea.", " ", ""]], num_options=[2])
        said = ask(replay(table), *(request(model=name) for name in "abcd"))
        assert [(item.status, item.text) for item in said] == [
            ("ok", "I say B."),
            ("ok", "No idea."),
            ("empty", ""),
            ("ok", "A"),
        ]

    def test_an_option_beyond_the_letters(self, replay: Any) -> None:
        said = ask(replay(by_hand([[30]], num_options=[40])), request())[0]
        assert said.status == "engine_error"
        assert "option 30, cannot be said" in said.detail

    def test_an_option_without_text_is_not_given_a_letter(self, replay: Any) -> None:
        table = by_hand([[0]], [0], options=[[" ", "x"]], references=["x"])
        assert ask(replay(table), request())[0].status == "engine_error"


class TestSamples:
    TABLE: ClassVar[dict[str, Any]] = {"sample_answers": [[[0, 1, -1]]], "texts": [["first"]], "num_options": [2]}

    def test_draws(self, replay: Any) -> None:
        engine = replay(by_hand([[0]], **self.TABLE))
        said = ask(engine, *(request(sample=r, temperature=1.0, seed=r) for r in range(4)))
        assert [(item.status, item.text) for item in said[:3]] == [("ok", "first"), ("ok", "B"), ("empty", "")]
        assert said[3].status == "engine_error"
        assert said[3].detail == "draw 4 is wanted, 3 of each answer are on record"

    def test_the_first_draw_is_drawn_only_when_one_is_wanted(self, replay: Any) -> None:
        """The table's answer, B, is not its first draw, A; the recorded text belongs to the answer."""
        engine = replay(by_hand([[1]], **self.TABLE))
        assert [item.text for item in ask(engine, request(), request(temperature=1.0, seed=5))] == ["first", "A"]

    def test_a_table_without_draws_has_one(self, replay: Any) -> None:
        said = ask(replay(by_hand([[0]])), request(temperature=1.0, seed=1), request(sample=1, temperature=1.0, seed=2))
        assert [item.status for item in said] == ["ok", "engine_error"]


class TestScoring:
    OPTIONS = ("A", "B", "C")

    def scored(self, **fields: Any) -> Request:
        return request(continuations=self.OPTIONS, scoring="recorded", **fields)

    def test_by_hand(self, replay: Any) -> None:
        """Probabilities 1/4, 3/4, 0: log(1/4) = -1.386, log(3/4) = -0.288, log 0 = -inf."""
        engine = replay(by_hand([[1]], probs=[[[0.25, 0.75, 0.0]]]))
        assert asyncio.run(engine.scoring(self.scored())) == "recorded"
        said = ask(engine, self.scored())[0]
        assert said.text == "B"
        assert said.option_logprobs == pytest.approx((-1.3862943, -0.2876821, -math.inf))

    def test_without_probabilities(self, replay: Any) -> None:
        engine = replay(by_hand([[1]], num_options=[3]))
        assert asyncio.run(engine.scoring(self.scored())) is None
        assert ask(engine, self.scored())[0].detail.endswith("has no probabilities")

    def test_an_agent_without_any_probability(self, replay: Any) -> None:
        engine = replay(by_hand([[0, -1]], probs=[[[1.0, 0, 0], [0, 0, 0]]]))
        assert asyncio.run(engine.scoring(self.scored(model="b"))) is None
        said = ask(engine, self.scored(model="b"))[0]
        assert (said.status, said.option_logprobs) == ("empty", None)

    def test_among_equals_the_recorded_answer(self, replay: Any) -> None:
        engine = replay(by_hand([[1], [2]], probs=[[[0.5, 0.5, 0.0]], [[0.5, 0.5, 0.0]]]))
        assert [item.text for item in ask(engine, self.scored(), self.scored(question="q1"))] == ["B", "A"]

    def test_another_means_or_number_of_options(self, replay: Any) -> None:
        engine = replay(by_hand([[1]], probs=[[[0.25, 0.75, 0.0]]]))
        other, fewer = request(continuations=self.OPTIONS, scoring="hash"), request(continuations=("A",))
        assert [item.detail for item in ask(engine, other, fewer)] == [
            "options are scored by 'recorded' here, not by 'hash'",
            "question 'q0' has 3 options on record, but 1 continuations were given",
        ]

    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.integers(0, 50), min_size=2, max_size=6).filter(any))
    def test_softmax_gives_the_probabilities_back(self, tmp_path_factory: Any, weights: list[int]) -> None:
        """exp undoes log: what a table makes of the log-probabilities is what was in the table, to float32."""
        probs_K = np.array(weights) / sum(weights)
        table = PredictionTable(question_ids=["q0"], agents=["a"], probs=probs_K.reshape(1, 1, -1))
        path = tmp_path_factory.mktemp("replay") / "t.parquet"
        write_table(table, path)
        continuations = tuple("ABCDEF"[: len(weights)])
        said = ask(_with(path, {"delay_s": 0}), request(continuations=continuations, scoring="recorded"))[0]  # type: ignore[arg-type]
        assert np.exp(said.option_logprobs) == pytest.approx(probs_K, abs=1e-6)
        assert said.text == continuations[int(probs_K.argmax())]


class TestWhatIsNotOnRecord:
    def test_an_unknown_question_fails_alone(self, replay: Any) -> None:
        engine = replay(by_hand([[0]]))
        known, unknown = ask(engine, request(), request("q9"))
        assert known.status == "ok"
        assert (unknown.status, unknown.text) == ("engine_error", "")
        assert unknown.detail.startswith("question 'q9' is not in the table")

    def test_an_unknown_agent_stops_everything(self, replay: Any) -> None:
        engine = replay(by_hand([[0, 1]], agents=("qwen", "gemma")))
        with pytest.raises(EngineError, match=r"has no agent 'qwne'; did you mean 'qwen'.*give the name of a column"):
            ask(engine, request(model="qwen"), request(model="qwne"))
        ((level, what, remedy),) = _examined(engine, request(model="qwne"))
        assert (level, remedy) == ("error", "give the name of a column as model")
        assert "has no agent 'qwne'; did you mean 'qwen'" in what
        with pytest.raises(EngineError, match="has no agent ''; known: qwen, gemma"):
            asyncio.run(engine.scoring(request(model="")))

    def test_who_was_not_asked_did_not_abstain(self, replay: Any) -> None:
        engine = replay(by_hand([[0, -1], [1, 1]], asked=[[True, False], [True, True]]))
        said = ask(engine, request(model="b"), request("q1", "b"))
        assert [item.status for item in said] == ["engine_error", "ok"]
        assert said[0].detail == "'b' was never asked question 'q0'"
        level, what, _ = _examined(engine, request(model="b"))[0]
        assert (level, what.split(" in ")[0]) == ("warning", "1 of 2 questions were never put to 'b'")
        assert _examined(engine, request()) == ()

    def test_a_missing_table(self, tmp_path: Path) -> None:
        engine: Any = build("agents", f'replay(table="{tmp_path}/none.csv")')
        ((level, what, _),) = _examined(engine, request())
        assert (level, what) == ("error", f"no file {tmp_path}/none.csv")
        for call in (engine.identity, engine.memory_bytes, lambda item: ask(engine, item)):
            with pytest.raises(UnreadableTable, match="no file"):
                call(request())

    def test_parameters(self) -> None:
        with pytest.raises(InvalidSpec, match="needs table"):
            build("agents", "replay")
        with pytest.raises(InvalidSpec, match="greater than or equal to 0"):
            build("agents", "replay(table=t, delay_s=-1)")


def _examined(engine: Any, asked: Request) -> Any:
    return asyncio.run(engine.examine(asked))


class TestEngine:
    def test_usage_time_and_server(self, replay: Any) -> None:
        table = by_hand([[0]], tokens_in=[[12]], tokens_out=[[3]], seconds=[[0.5]])
        engine = replay(table)
        said = ask(engine, request())[0]
        assert (said.usage.tokens_in, said.usage.tokens_out, said.seconds) == (12, 3, 0.5)
        assert said.served_by == f"replay/{table.fingerprint[:16]}"
        assert engine.prompt_tokens(request()) == 12
        assert engine.prompt_tokens(request("q9")) is None

    def test_unknown_usage_is_unknown(self, replay: Any) -> None:
        engine = replay(by_hand([[0]]), delay_s=0.01)
        said = ask(engine, request())[0]
        assert (said.usage.tokens_in, said.usage.tokens_out, said.seconds) == (None, None, 0.01)
        assert engine.prompt_tokens(request()) is None

    def test_identity_is_the_content_of_the_table(self, replay: Any, tmp_path: Path) -> None:
        table = by_hand([[0]])
        engine = replay(table)
        assert engine.identity(request()) == {"engine": "replay", "table": table.fingerprint}
        for name, answer, same in (("same.csv", "A", True), ("other.csv", "B", False)):
            (tmp_path / name).write_text(f"question_id,a\nq0,{answer}\n")
            other: Any = build("agents", f'replay(table="{tmp_path}/{name}")')
            assert (other.identity(request())["table"] == table.fingerprint) == same

    def test_the_table_is_read_once_and_again_after_closing(self, replay: Any, tmp_path: Path) -> None:
        engine = replay(by_hand([[0]]))
        assert engine.memory_bytes(request()) > 0
        for path in tmp_path.glob("*.parquet"):
            path.unlink()
        assert ask(engine, request())[0].text == "A"
        asyncio.run(engine.aclose())
        asyncio.run(engine.aclose())
        with pytest.raises(UnreadableTable):
            ask(engine, request())

    def test_protocol_and_spec(self, replay: Any) -> None:
        engine = replay(by_hand([[0]]))
        assert isinstance(engine, Engine)
        assert spec_of(engine).params == {"table": engine.table}
        assert engine.render(request(messages=LETTERED)) == ""
        assert ask(engine) == []


def test_every_recorded_answer_comes_back(replay: Any) -> None:
    """Scored, a table gives its own probabilities and answers back, cell by cell."""
    table = random_table(3, questions=20)
    assert table.probs is not None
    engine = replay(table)
    for m, agent in enumerate(table.agents):
        asked = [_scored(table, n, agent) for n in range(len(table))]
        for n, completion in enumerate(ask(engine, *asked)):
            answer, count = int(table.answers[n, m]), int(table.num_options[n])
            if answer < 0:
                assert completion.status == "empty"
                continue
            assert completion.text == asked[n].continuations[answer]
            assert np.exp(completion.option_logprobs) == pytest.approx(table.probs[n, m, :count], abs=1e-6)


def _scored(table: PredictionTable, n: int, agent: str) -> Request:
    assert table.options is not None
    options: Sequence[str] = table.options[n]
    return request(str(table.question_ids[n]), agent, continuations=tuple(options), scoring="recorded")


@pytest.mark.parametrize("mode", ["generate", "options"])
@pytest.mark.parametrize("task", ["mmlu", "gsm8k"])
def test_a_replayed_recording_makes_the_same_table(replay: Any, task: str, mode: Any) -> None:
    """Echo answers a task's samples; the table of that is replayed, and the table of that is the same."""
    reader = load_task(task)
    questions = reader.samples()
    agents = [Agent(name=name, engine=Spec("echo"), model=name, mode=mode, system=name) for name in ("a", "b", "c")]
    echo: Any = build("agents", "echo(replies=[A, B, '#### 4', 'So B.', '4', 'no idea'])")

    def recorded(engine: Any, scoring: str) -> PredictionTable:
        calls = []
        for m, agent in enumerate(agents):
            asked = [agent.request(item, scoring=scoring if item.options else "") for item in questions]
            calls += [Call(n, m, 0, completion) for n, completion in enumerate(ask(engine, *asked))]
        return tabulate(questions, [agent.name for agent in agents], calls, reader=reader)

    first = recorded(echo, "hash" if mode == "options" else "")
    again = recorded(replay(first), "recorded" if mode == "options" else "")
    assert first.answered.any()
    assert again.answers.tolist() == first.answers.tolist()
    assert again.options == first.options
    assert (again.probs is None) == (first.probs is None)
    if first.probs is not None:
        assert again.probs == pytest.approx(first.probs, abs=1e-6)
