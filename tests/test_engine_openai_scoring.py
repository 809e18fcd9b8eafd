"""Scoring options by what servers tell: every means against the log-probabilities that the server really has."""

import asyncio
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from http_replies import ASSISTANT, chat_prompt, next_logprobs, text_logprob, tokens_of
from http_server import HttpServer
from hypothesis import given
from hypothesis import strategies as st

from fusion.agents._http_retry import WrongShapeError
from fusion.agents._openai_score import NoLabelError, TokensTold, label_logprobs, tail_logprob
from fusion.agents.openai import Openai
from fusion.errors import EngineError, InvalidSpec
from fusion.schema import Completion, Message, Request

LETTERS = ("A", "B", "C", "D")
TEXTS = ("the cat", "a dog, perhaps", "nobody")
PROMPT = "Which of A to D?\nAnswer:"
TURNS = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def running() -> Iterator[HttpServer]:
    with HttpServer() as server:
        yield server


@pytest.fixture
def server(running: HttpServer, monkeypatch: pytest.MonkeyPatch) -> HttpServer:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running.configure(reset=True)
    return running


def make(server: HttpServer, **params: Any) -> Openai:
    return Openai(**{"base_url": server.url, "retries": 0, **params})


def request(model: str, continuations: Sequence[str] = LETTERS, scoring: str = "", prompt: str = PROMPT) -> Request:
    return Request(
        question_id="q",
        messages=(Message("user", prompt),),
        model=model,
        continuations=tuple(continuations),
        scoring=scoring,
    )


def score(engine: Openai, *requests: Request) -> list[Completion]:
    async def answers() -> dict[int, Completion]:
        return {index: completion async for index, completion in engine.generate(requests)}

    found = asyncio.run(answers())
    return [found[index] for index in range(len(requests))]


def best(engine: Openai, one: Request) -> str | None:
    return asyncio.run(engine.scoring(one))


def after_blank(texts: Sequence[str]) -> list[float]:
    return [text_logprob(PROMPT, f" {text}") for text in texts]


@pytest.mark.parametrize("texts", [LETTERS, TEXTS], ids=["letters", "texts"])
@pytest.mark.parametrize("flags", ["", "+bos", "+stripped", "+bos+stripped"])
@pytest.mark.parametrize("means", ["prompt_logprobs", "echo"])
def test_the_tokens_of_a_prompt_give_the_continuation_exactly(
    server: HttpServer, means: str, flags: str, texts: Sequence[str]
) -> None:
    engine = make(server, api="completions")
    (found,) = score(engine, request(f"letter+{means}{flags}", texts, means))
    expected = after_blank(texts)
    assert found.option_logprobs == pytest.approx(expected)
    assert (found.status, found.text) == ("ok", texts[expected.index(max(expected))])
    # One call for each continuation, all of them paid.
    assert found.attempts == server.stats()["total"] == len(texts)
    read = sum(len(tokens_of(f"{PROMPT} {text}")) for text in texts)
    assert found.usage.tokens_in == read
    assert found.served_by.endswith(" fp_test")


def test_a_turn_to_continue_gives_the_continuation_on_chat(server: HttpServer) -> None:
    (found,) = score(make(server), request("ok+prompt_logprobs", TEXTS, "prompt_logprobs"))
    assert found.option_logprobs == pytest.approx([text_logprob(chat_prompt({"messages": TURNS}), t) for t in TEXTS])
    sent = server.stats()["last"]
    assert sent["messages"][-1]["role"] == "assistant"
    assert (sent["add_generation_prompt"], sent["continue_final_message"]) == (False, True)


def test_the_likeliest_first_tokens_give_labels_in_one_call(server: HttpServer) -> None:
    """The probability of a label is that of the label with and without a blank before it."""
    (found,) = score(make(server), request("letter+top_logprobs", scoring="top_logprobs"))
    told = next_logprobs(PROMPT_ON_CHAT)
    expected = [math.log(math.exp(told[letter]) + math.exp(told[f" {letter}"])) for letter in LETTERS]
    assert found.option_logprobs == pytest.approx(expected)
    assert (found.attempts, server.stats()["total"]) == (1, 1)
    sent = server.stats()["last"]
    assert (sent["logprobs"], sent["top_logprobs"], sent["max_tokens"]) == (True, 20, 1)
    assert not {"top_p", "stop", "seed"} & set(sent)


PROMPT_ON_CHAT = chat_prompt({"messages": TURNS})


def test_labels_that_are_not_told_get_the_stand_in(server: HttpServer) -> None:
    """The five likeliest tokens after the prompt are told; J is not among them."""
    (found,) = score(make(server, api="completions"), request("letter+top_logprobs", (*LETTERS, "J"), "top_logprobs"))
    told = [value for token, value in next_logprobs(PROMPT).items() if token][:5]
    assert found.option_logprobs is not None
    assert found.option_logprobs[-1] == pytest.approx(told[-1] - 1)
    assert max(found.option_logprobs) == pytest.approx(told[0])


@pytest.mark.parametrize(
    ("api", "flags", "texts", "expected"),
    [
        ("completions", "+prompt_logprobs+echo+top_logprobs", LETTERS, "prompt_logprobs"),
        ("completions", "+echo+top_logprobs", LETTERS, "echo"),
        ("completions", "+top_logprobs", LETTERS, "top_logprobs"),
        ("completions", "+top_logprobs", TEXTS, None),
        ("completions", "+echo", TEXTS, "echo"),
        ("completions", "", LETTERS, None),
        ("completions", "+ignores", LETTERS, None),
        ("chat", "+top_logprobs+prompt_logprobs", LETTERS, "top_logprobs"),
        ("chat", "+prompt_logprobs", LETTERS, "prompt_logprobs"),
        ("chat", "+top_logprobs+prompt_logprobs", TEXTS, "prompt_logprobs"),
        ("chat", "+top_logprobs", TEXTS, None),
        ("chat", "+top_logprobs", ("P", "Q"), None),
        # Of two characters, but never told: it may be two tokens.
        ("chat", "+top_logprobs", ("A", "10"), None),
        ("chat", "+top_logprobs", ("A", "no"), "top_logprobs"),
        ("chat", "+echo", LETTERS, None),
        ("chat", "+ignores", LETTERS, None),
        ("chat", "", (), None),
    ],
)
def test_the_probe_finds_the_best_means(
    server: HttpServer, api: str, flags: str, texts: Sequence[str], expected: str | None
) -> None:
    engine = make(server, api=api)
    one = request(f"letter{flags}", texts)
    assert best(engine, one) == expected
    calls = server.stats()["total"]
    assert calls <= 3
    assert best(engine, one) == expected
    assert server.stats()["total"] == calls, "what was found is remembered"
    if expected:
        (found,) = score(engine, request(f"letter{flags}", texts, expected))
        assert found.status == "ok"
        assert found.option_logprobs is not None
        assert len(found.option_logprobs) == len(texts)


def test_five_tokens_where_a_server_gives_no_more(server: HttpServer) -> None:
    """The means has a name of its own, as it gives other numbers."""
    assert best(make(server), request("letter+top_logprobs+five")) == "top_logprobs_5"
    (found,) = score(make(server), request("letter+top_logprobs+five", (*LETTERS, "J"), "top_logprobs_5"))
    assert found.option_logprobs is not None
    assert min(found.option_logprobs) == found.option_logprobs[-1]
    (found,) = score(make(server), request("letter+top_logprobs+five", scoring="top_logprobs"))
    assert (found.status, found.attempts) == ("http_error", 1)
    assert "at most 5 log-probabilities" in found.detail


def test_all_means_agree_on_the_winner(server: HttpServer) -> None:
    engine = make(server, api="completions")
    for n in range(20):
        prompt = f"Question {n}: A, B, C or D?\nAnswer:"
        model = "letter+prompt_logprobs+echo+top_logprobs"
        found = score(engine, *(request(model, scoring=m, prompt=prompt) for m in ("prompt_logprobs", "echo")))
        assert found[0].option_logprobs == pytest.approx(found[1].option_logprobs)
        assert found[0].text == found[1].text


@pytest.mark.parametrize(
    ("score_by", "api", "texts", "expected"),
    [
        ("none", "chat", LETTERS, None),
        (None, "chat", LETTERS, None),
        ("echo", "completions", TEXTS, "echo"),
        ("top_logprobs", "chat", LETTERS, "top_logprobs"),
        ("top_logprobs", "chat", TEXTS, None),
    ],
)
def test_a_means_that_is_named_is_not_looked_for(
    server: HttpServer, score_by: str | None, api: str, texts: Sequence[str], expected: str | None
) -> None:
    assert best(make(server, api=api, score_by=score_by), request("letter", texts)) == expected
    assert server.stats()["total"] == 0


def test_a_means_of_the_other_api_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="the chat API can score by top_logprobs"):
        Openai(score_by="echo")
    with pytest.raises(InvalidSpec, match="the completions API can score by"):
        Openai(api="completions", score_by="top_logprobs_5")


def test_a_server_that_cannot_be_asked_is_an_error(server: HttpServer) -> None:
    with pytest.raises(EngineError, match=r"cannot find out how .* scores options: HTTP 503"):
        best(make(server), request("error-503"))
    with pytest.raises(EngineError, match="serves no model"):
        best(make(server), request("nothing"))
    with pytest.raises(EngineError, match="cannot connect"):
        best(Openai(base_url="http://127.0.0.1:9/v1", retries=0), request("letter"))


def test_a_request_none_of_whose_labels_is_told_is_empty(server: HttpServer) -> None:
    (found,) = score(make(server), request("letter+top_logprobs", ("P", "Q"), "top_logprobs"))
    assert (found.status, found.option_logprobs, found.text) == ("empty", None, "")
    assert "none of the labels P, Q is among" in found.detail


def test_a_means_that_the_server_does_not_offer_is_a_failure_of_the_request(server: HttpServer) -> None:
    engine = make(server, api="completions", retries=3)
    refused, ignored = score(
        engine, request("letter", scoring="echo"), request("letter+ignores", scoring="prompt_logprobs")
    )
    assert (refused.status, refused.detail) == ("http_error", "HTTP 400: echo is not supported")
    assert (ignored.status, ignored.option_logprobs) == ("http_error", None)
    assert "scoring by prompt_logprobs: no log-probabilities of the prompt were told" in ignored.detail


def test_one_failed_call_fails_the_whole(server: HttpServer) -> None:
    """Of the calls for 20 questions some break; a question is answered exactly when none of its calls did."""
    engine = make(server, api="completions", concurrency=3)
    found = score(engine, *(request("broken-0.2+echo", scoring="echo", prompt=f"Question {n}:") for n in range(20)))
    good = [completion for completion in found if completion.status == "ok"]
    bad = [completion for completion in found if completion.status != "ok"]
    assert 0 < len(good) < 20
    assert all(completion.option_logprobs and len(completion.option_logprobs) == 4 for completion in good)
    assert all(completion.option_logprobs is None and completion.detail for completion in bad)


def test_calls_of_one_request_go_out_together(server: HttpServer) -> None:
    (found,) = score(make(server, api="completions"), request("slow-0.2+echo", scoring="echo"))
    assert found.status == "ok"
    assert server.stats()["peak"] == 4
    assert 0.2 <= found.seconds < 0.7


def told(tokens: Sequence[str], generated: int = 0) -> TokensTold:
    """Tokens with the log-probabilities -1, -2, -4, ...; the first has none."""
    return TokensTold(tokens, [None, *(-(2.0**n) for n in range(len(tokens) - 1))], generated)


@pytest.mark.parametrize(
    ("tokens", "generated", "expected"),
    [
        (["Say", ":", " yes"], 0, -2.0),
        (["<s>", "Say", ":", " y", "es"], 0, -4.0 - 8.0),
        # A token that straddles the end of the prompt counts.
        (["Say", ": y", "es"], 0, -1.0 - 2.0),
        # Blanks of their own belong to the continuation, what is generated does not.
        (["Say", ":", " ", "yes", " yes"], 1, -2.0 - 4.0),
        (["Say", ":", " yes", "</s>"], 1, -2.0),
        # The first token is not told; the tail is.
        (["", ":", " yes"], 0, -2.0),
        # Tokens told without blanks, or as a vocabulary writes them.
        (["<s>", "Say", ":", "yes"], 0, -4.0),
        (["\u2581Say", ":", "\u2581yes"], 0, -2.0),
        (["Say", ":", "\u0120yes"], 0, -2.0),
        # Bytes of one character, told as nothing until it is whole.
        (["Say", ":", "", " yes"], 0, -2.0 - 4.0),
    ],
)
def test_the_tokens_of_the_tail(tokens: Sequence[str], generated: int, expected: float) -> None:
    assert tail_logprob(told(tokens, generated), "Say: yes", " yes") == expected


@pytest.mark.parametrize("tokens", [["Say", ":", " no"], [], ["Say", ":"]])
def test_tokens_that_spell_something_else_are_refused(tokens: Sequence[str]) -> None:
    with pytest.raises(WrongShapeError, match="do not spell ' yes'"):
        tail_logprob(TokensTold(tokens, [-1.0] * len(tokens), 0), "Say: yes", " yes")


def test_a_tail_without_log_probability_is_refused() -> None:
    """With an empty prompt the first token of the continuation is the first of all."""
    with pytest.raises(WrongShapeError, match="has no log-probability"):
        tail_logprob(told([" yes"]), " yes", " yes")


@given(
    prompt=st.text("ab c", min_size=1, max_size=12),
    tail=st.text("ab", min_size=1, max_size=6).map(lambda text: f" {text}"),
    cuts=st.sets(st.integers(1, 18)),
    start=st.sampled_from([[], ["<s>"]]),
    end=st.sampled_from([[], ["a"], ["</s>"]]),
)
def test_however_a_prompt_is_cut_the_tail_is_what_reaches_beyond_its_end(
    prompt: str, tail: str, cuts: set[int], start: list[str], end: list[str]
) -> None:
    whole = prompt + tail
    places = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    pieces = [whole[a:b] for a, b in itertools.pairwise(places)]
    tokens = [*start, *pieces, *end]
    values = [-float(2**n) for n in range(len(tokens))]
    reaching = [n + len(start) for n, b in enumerate(places[1:]) if b > len(prompt)]
    found = tail_logprob(TokensTold(tokens, values, len(end)), whole, tail)
    assert found == sum(values[n] for n in reaching)


def test_labels_among_the_likeliest_tokens() -> None:
    """By hand: A is told twice, 0.5 and 0.125, together 0.625; C once; B not: ln(1/16) - 1."""
    tops = [("A", math.log(0.5)), ("\u0120A", math.log(0.125)), ("\u2581C", math.log(0.25)), ("The", math.log(1 / 16))]
    found = label_logprobs(tops, ["A", "B", " C"])
    assert found == pytest.approx((math.log(0.625), math.log(1 / 16) - 1, math.log(0.25)))
    with pytest.raises(NoLabelError, match="none of the labels D, E"):
        label_logprobs(tops, ["D", "E"])


def test_the_server_is_consistent() -> None:
    """The test server's own log-probabilities: they sum to 1, and the assistant's turn starts without a blank."""
    for context in ("Answer:", f"Hi{ASSISTANT}"):
        assert math.fsum(math.exp(value) for value in next_logprobs(context).values()) == pytest.approx(1)
    assert next(iter(next_logprobs("Answer:"))).startswith(" ")
    assert not next(iter(next_logprobs(f"Hi{ASSISTANT}"))).startswith(" ")
