"""Value types that everything shares, and the legend of shapes.

Shape suffixes, in the order in which axes appear:

    N questions     M agents      K options (the largest count; rows may use fewer)
    R samples       S members of a sub-ensemble      B batch      T tokens
    D hidden        L layers      E experts

Units: probability in [0, 1]; log-probability in nats; seconds; USD per million tokens.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from fusion._spec_text import MAX_DEPTH, NAME, Reader, listed, plain, systems, write
from fusion._spec_text import Json as Json
from fusion._spec_text import JsonScalar as JsonScalar
from fusion._spec_text import Param as Param
from fusion.errors import InvalidSpec

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.floating]

Sees = Literal["history", "question", "answers", "labels"]
"""What a selector may look at when it selects: nothing of the question at hand (`history`), the
question (`question`), the answers of the agents asked so far as well (`answers`), or the truth
(`labels`: privileged, for upper bounds only)."""


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question of a task.

    Args:
        id: Unique within the task and stable across versions of fusion.
        messages: The conversation an agent is asked to continue, shots included.
        options: Texts of the answers to choose from; empty for open questions.
        reference: The right answer as the data set writes it; "" when unknown.
        label: Index of the right option; None for open or unlabelled questions.
        category: Subject or subtask; "" when there is none.
        text: The question alone, without shots, options and instructions; "" where the last message is just that.
        meta: What else the data set says.
    """

    id: str
    messages: tuple[Message, ...]
    options: tuple[str, ...] = ()
    reference: str = ""
    label: int | None = None
    category: str = ""
    text: str = ""
    meta: Mapping[str, Json] = field(default_factory=dict)


Status = Literal[
    "ok",
    "truncated",
    "empty",
    "refused",
    "timeout",
    "rate_limited",
    "http_error",
    "engine_error",
    "cancelled",
    "over_budget",
]
"""How one call ended. `ok`, `truncated` (cut at the token limit), `empty` and `refused` are final; the others are
asked again when a recording goes on."""

FINAL: frozenset[Status] = frozenset({"ok", "truncated", "empty", "refused"})

_SPEAKING: frozenset[Status] = frozenset({"ok", "truncated"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens of one call; None where the engine does not say.

    Args:
        tokens_in, tokens_out: Tokens read, cached ones included, and written, reasoning included.
        tokens_cached: Of those read, how many came from the server's cache.
        tokens_reasoning: Of those written, how many were reasoning.
    """

    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None
    tokens_reasoning: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One question put to one model: everything that can change the answer except the engine itself.

    Every field is part of the record's key; a field added here must be added there (`fusion.agents` says where).

    Args:
        question_id: Id of the question.
        messages: The conversation to continue, the agent's system prompt included.
        continuations: Texts to score instead of generating one; empty to generate.
        scoring: By what means the engine scores them (its `scoring` named it); "" to generate.
        model: Name or path of the model.
        revision: Commit, branch or tag of the model; None for its default.
        adapter: Name or path of the adapter; None for none.
        template: Chat template as Jinja text; None for the model's own; "" for none: plain text.
        temperature: 0 takes the likeliest token.
        top_p: Share of the probability mass to sample from, in (0, 1].
        top_k: Number of tokens to sample from; None for all.
        max_tokens: Most tokens to write, at least 1.
        stop: Texts at which writing stops.
        sample: Number of the draw, from 0.
        seed: Of the draw; None when nothing is drawn.
        extra: Further fields for the engine, as JSON.
    """

    question_id: str
    messages: tuple[Message, ...]
    continuations: tuple[str, ...] = ()
    scoring: str = ""
    model: str = ""
    revision: str | None = None
    adapter: str | None = None
    template: str | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    sample: int = 0
    seed: int | None = None
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What came back from one call. A failure is a status, never text.

    Args:
        status: How it ended.
        text: The answer; of a scored request the likeliest continuation. "" unless status is ok or truncated.
        option_logprobs: Log-probability of each continuation after the prompt, in nats; None when generated.
        reasoning: What the model thought before it answered; not part of the text.
        usage: Tokens.
        seconds: From sending to the end, retries and waits included.
        finish_reason: The engine's own word for why it stopped.
        detail: What went wrong, for people; never reaches a fuser.
        attempts: Times the request was sent.
        served_by: What the server says that answered: model name, system fingerprint.

    Raises:
        ValueError: When a failure carries text or log-probabilities.
    """

    status: Status
    text: str = ""
    option_logprobs: tuple[float, ...] | None = None
    reasoning: str = ""
    usage: Usage = Usage()
    seconds: float = 0.0
    finish_reason: str = ""
    detail: str = ""
    attempts: int = 1
    served_by: str = ""

    def __post_init__(self) -> None:
        if self.status not in _SPEAKING and (self.text or self.option_logprobs is not None):
            raise ValueError(f"a completion of status {self.status} must not carry an answer, got {self.text!r}")
        if self.status == "ok" and not self.text.strip():
            raise ValueError("a completion without text has the status empty or truncated, not ok")


class Finding(NamedTuple):
    """What an examination of an agent found.

    Attributes:
        level: "error" when asking it would fail, "warning" when the answers may not be what was meant.
        what: What is wrong.
        remedy: How to mend it.
    """

    level: Literal["error", "warning", "note"]
    what: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """Whom to listen to.

    Args:
        mask: bool [N, M]; every row has at least one True.
        order: int [N, M], the rank in which to ask (0 first), or None when order is immaterial.
    """

    mask: BoolArray
    order: IntArray | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What a fuser itself asked of models, beside the agents' answers.

    Args:
        calls, tokens_in, tokens_out: int64 [N]; tokens are None where an engine does not say.
        usd: float64 [N], their price; None when prices or tokens are unknown.
    """

    calls: IntArray
    tokens_in: IntArray | None = None
    tokens_out: IntArray | None = None
    usd: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The fused answers.

    Args:
        answers: int64 [N], index of the chosen option, -1 where the ensemble abstains or says what no agent did.
        probs: float [N, K], rows sum to 1 (all 0 where it abstains), or None.
        texts: One fused text a question, "" where the ensemble abstains; None where options are all there is to say.
        samples: Answers drawn from every selected agent; cost is counted this many times.
        confidence: float [N], how likely each answer is right, 0 where it abstains; None where that is not known.
            Not the largest of `probs` where the right answer may be none of the options.
        spent: What fusing itself cost; None when it asked nobody.
    """

    answers: IntArray
    probs: FloatArray | None = None
    texts: tuple[str, ...] | None = None
    samples: int = 1
    confidence: FloatArray | None = None
    spent: Spent | None = None

    @property
    def answered(self) -> BoolArray:
        """Bool [N], where there is an answer, be it an option or a text."""
        chosen_N: BoolArray = self.answers >= 0
        return chosen_N if self.texts is None else chosen_N | np.array([bool(text) for text in self.texts], dtype=bool)

    @property
    def certainty(self) -> FloatArray | None:
        """Float64 [N] in [0, 1], `confidence`, else what `probs` gives the answer; None where neither is known."""
        found_N = self.confidence
        if found_N is None and self.probs is not None:
            found_N = self.probs[np.arange(len(self.answers)), np.maximum(self.answers, 0)]
        if found_N is None:
            return None
        # Shares are sums of float32, which may pass 1 by rounding.
        return np.where(self.answered, np.clip(found_N.astype(np.float64), 0, 1), 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What made a result: enough to make it again.

    Args:
        command: What was asked for, as JSON: method specs, seeds, fractions.
        tables: Fingerprints of the tables that went in, by role ("fit", "test").
        versions: Version of fusion, of Python and of the packages that computed.
        commit: Commit of fusion's source when run from a checkout, with "+" when it had changes; else "".
        hardware: Processor and number of cores in words.
        started: UTC time, ISO 8601.
        seconds: Wall time.
    """

    command: Mapping[str, object]
    tables: Mapping[str, str]
    versions: Mapping[str, str]
    commit: str
    hardware: str
    started: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Spec:
    """A method by name with its parameters: the form in which results remember what made them.

    The textual form is `name` or `name(key=value, ...)`; values are numbers, true, false, none,
    words, "quoted strings" and [lists] of these.

    Example:
        >>> Spec.parse("top_k(k=3)")
        Spec(name='top_k', params={'k': 3})
        >>> str(Spec("fixed_subset", {"agents": ["a b", "c"]}))
        'fixed_subset(agents=["a b", c])'
    """

    name: str
    params: Mapping[str, Param] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the textual form.

        Raises:
            InvalidSpec: When the text is not of that form; the message points at the place.
        """
        reader = Reader(text)
        name, params = reader.spec()
        reader.end()
        return cls(name, params)

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Read what `to_json` wrote.

        Raises:
            InvalidSpec: When `value` is not {"name": ..., "params": {...}}.
        """
        if not isinstance(value, dict) or not isinstance(value.get("name"), str) or set(value) - {"name", "params"}:
            raise InvalidSpec(f'expected {{"name": ..., "params": {{...}}}}, got {value!r}')
        name, params = str(value["name"]), value.get("params", {})
        if not isinstance(params, dict):
            raise InvalidSpec(f"params of {name!r} must be an object, got {params!r}")
        for word in (name, *params):
            if not NAME.fullmatch(word):
                raise InvalidSpec(f"a name is a letter, then letters, digits and dashes, such as top_k; got {word!r}")
        return cls(plain(name), {plain(key): _as_param(item) for key, item in params.items()})

    def to_json(self) -> dict[str, Json]:
        """Return {"name": ..., "params": {...}}."""
        return {"name": self.name, "params": {key: listed(value) for key, value in self.params.items()}}

    def __str__(self) -> str:
        if not self.params:
            return self.name
        return f"{self.name}({', '.join(f'{key}={write(value)}' for key, value in self.params.items())})"

    def __hash__(self) -> int:
        # Equal specs may be written differently: 1 == 1.0, and the order of parameters does not count.
        return hash((self.name, frozenset(self.params)))


@dataclass(frozen=True, slots=True)
class System:
    """A selector and a fuser, written `selector+fuser`.

    A fuser alone stands for `all_agents+fuser`. Which of the two a lone name is cannot be seen
    from the text, so a lone name is always read as a fuser.

    Example:
        >>> str(System.parse("top_k(k=3)+weighted_vote(weights=power)"))
        'top_k(k=3)+weighted_vote(weights=power)'
        >>> str(System.parse("vote"))
        'all_agents+vote'
    """

    selector: Spec
    fuser: Spec

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one system.

        Raises:
            InvalidSpec: When the text is not `selector+fuser` or `fuser`.
        """
        systems = cls.parse_list(text)
        if len(systems) != 1:
            raise InvalidSpec(f"expected one system, selector+fuser, got {len(systems)} in {text!r}")
        return systems[0]

    @classmethod
    def parse_list(cls, text: str) -> tuple[Self, ...]:
        """Read systems separated by commas; commas inside parentheses belong to the arguments.

        Raises:
            InvalidSpec: When one of them cannot be read.
        """
        reader = Reader(text)
        pairs = list(systems(reader))
        return tuple(cls(*(Spec(*part) for part in pair)) for pair in pairs)

    def __str__(self) -> str:
        return f"{self.selector}+{self.fuser}"


def _as_param(value: Json, depth: int = 0) -> Param:
    if isinstance(value, dict) or (isinstance(value, list) and depth == MAX_DEPTH):
        raise InvalidSpec(
            f"a parameter must be a number, word or list (at most {MAX_DEPTH} within each other), "
            f"got {reprlib.repr(value)}"
        )
    return [_as_param(item, depth + 1) for item in value] if isinstance(value, list) else value
