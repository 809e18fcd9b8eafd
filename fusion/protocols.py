"""What a method must offer. Protocols, and what they hand over: no implementation, nothing to inherit.

A method is a keyword-only dataclass whose init fields are its hyper-parameters. `fit` writes what it
learned to attributes whose names end with an underscore and returns the method itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from fusion.agents import AgentPool
    from fusion.data import PredictionTable
    from fusion.schema import (
        BoolArray,
        Completion,
        Decision,
        Finding,
        FloatArray,
        Json,
        Question,
        Request,
        Sees,
        Selection,
    )

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@runtime_checkable
class Engine(Protocol):
    """Who answers: one server, or one process with models in it, shared by the agents that name it.

    Constructing an engine does nothing: no import of heavy libraries, no connection, no model loaded. An engine may
    be used from several event loops, one after another.
    """

    def identity(self, request: Request) -> Mapping[str, Json]:
        """Return what of the engine itself can change the answer to `request`: kind, dtype, content of the model.

        It enters the record's key. Where to find a server does not belong here, what it serves does.

        Raises:
            FusionError: When the model cannot be found, or a package is missing.
        """
        ...

    def render(self, request: Request) -> str:
        """Return the prompt exactly as the model reads it; "" when the server renders it."""
        ...

    async def scoring(self, request: Request) -> str | None:
        """Return the name of the best means to score `request.continuations`; None when there is none.

        The means that it names is put in `request.scoring`, recorded, and followed by `generate`.
        """
        ...

    def generate(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        """Answer `requests`, yielding (index, completion) as they come, each index once.

        What fails for one request is a status of its completion; closing the generator cancels the rest.

        Raises:
            FusionError: When nothing at all can be answered (missing package, key or model).
        """
        ...

    async def examine(self, request: Request) -> Sequence[Finding]:
        """Find out, without generating, what would go wrong with requests like this one (`fusion doctor`)."""
        ...

    def prompt_tokens(self, request: Request) -> int | None:
        """Return how many tokens the prompt has; None when that cannot be known without asking."""
        ...

    def memory_bytes(self, request: Request) -> int | None:
        """Return an estimate of the memory that answering needs here; None when it is needed elsewhere."""
        ...

    async def aclose(self) -> None:
        """Give back connections, memory and processes; may be called twice, and the engine used again."""
        ...


@runtime_checkable
class SharedEngine(Protocol):
    """An engine that prepares for all agents that share it: what starts servers wants to know them beforehand."""

    def expect(self, request: Request) -> None:
        """Take note that requests of this model and adapter will come; called for every agent, before any is asked."""
        ...

    def placement(self, request: Request) -> str:
        """Return where the request would be answered, in words (`fusion record --plan`).

        Raises:
            FusionError: When the model cannot be found, or a package is missing.
        """
        ...


@runtime_checkable
class Task(Protocol):
    """A set of questions, and how an answer is read and scored."""

    revision: ClassVar[str]
    """Commit of the hub data set that the task is pinned to; "generated" for tasks that make their own."""
    splits: ClassVar[tuple[str, ...]]
    extractor: str
    """Name and version of the rule that reads an answer from text, such as "gsm8k/flexible@1"."""

    def load(self, split: str, *, root: Path | None = None) -> Sequence[Question]:
        """Return the questions of `split`, from the hub or from `root`, a folder in hub layout."""
        ...

    def samples(self) -> Sequence[Question]:
        """Return at least three questions that need no download."""
        ...

    def parse(self, text: str, question: Question) -> str | None:
        """Return the answer that `text` states, normalised; None when it states none."""
        ...

    def score(self, text: str, question: Question) -> float:
        """Return how right `text` is, in [0, 1]; text that states no answer scores 0."""
        ...


@runtime_checkable
class Selector(Protocol):
    """Whom to ask, or to listen to, on each question."""

    sees: ClassVar[Sees]

    def fit(self, table: PredictionTable) -> Self:
        """Learn from labelled answers; returns self."""
        ...

    def select(self, table: PredictionTable) -> Selection:
        """Choose agents for every row, reading only what `sees` allows."""
        ...


class Telling(NamedTuple):
    """What an adaptive selector says of one question; None is what it does not say.

    Attributes:
        agent: Who comes next: is asked, or would be if it did not stop. None where nobody is left.
        goes_on: Whether it wants more agents than have been asked.
        gain: Accuracy that asking on is expected to gain, what later calls cost taken off.
        price: Accuracy that the next call has to be worth.
        probability: Probability of what it does, under its policy.
        words: Why, in its own words, to go before those that are made from the numbers; "" for none.
    """

    agent: str | None
    goes_on: bool
    gain: float | None = None
    price: float | None = None
    probability: float | None = None
    words: str = ""


@runtime_checkable
class TellingSelector(Selector, Protocol):
    """A selector that says why it asks on or stops."""

    def tell(self, table: PredictionTable) -> tuple[Telling, ...]:
        """Say of every row why `select`, given the same table, does what it does.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        ...


@runtime_checkable
class Fuser(Protocol):
    """How the answers of the selected agents become one.

    Which place an option has carries no information: permuting options moves the answer along. A fuser that may tell
    options apart by their place says so by a property `positional` that is True.
    """

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        """Learn from labelled answers of the selected agents; returns self."""
        ...

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        """Fuse every row; agents outside the selection have no influence."""
        ...


@runtime_checkable
class SettlingFuser(Fuser, Protocol):
    """A fuser that can tell, before all answers are in, that the missing ones cannot change its answer."""

    def settled(self, table: PredictionTable, selection: Selection, pending: BoolArray) -> BoolArray:
        """Return bool [N]: whatever the agents in `pending`, bool [N, M], say, `fuse` would answer the same.

        Pending agents count as abstaining in `table`.
        """
        ...


@runtime_checkable
class WeighingFuser(Fuser, Protocol):
    """A fuser to whose scores every vote adds an amount of its own, whatever the others say."""

    def vote_weights(self, table: PredictionTable) -> FloatArray | None:
        """Return float64 [N, M]: what one vote of each agent adds to the score of the option that it chooses.

        None where votes do not simply add up, as with some parameters of the fuser.

        Raises:
            NotFitted: Before fit, where the weights are learned.
            TableMismatch: When the agents are not those of fit.
        """
        ...


@runtime_checkable
class SlowFuser(Fuser, Protocol):
    """A fuser that runs or asks models of its own: live, it works in a thread, so that other questions go on."""

    slow: ClassVar[bool]


def is_slow(fuser: Fuser) -> bool:
    """Return whether the fuser runs or asks models of its own."""
    return isinstance(fuser, SlowFuser) and fuser.slow


@runtime_checkable
class AskingFuser(Fuser, Protocol):
    """A fuser that asks agents, those of its ensemble among them."""

    def meet(self, pool: AgentPool) -> None:
        """Take note of the ensemble's agents, before anything is fitted or fused."""
        ...

    def close(self) -> None:
        """Give back what asking took; may be called twice, and the fuser used again."""
        ...


@runtime_checkable
class LearningMethod(Protocol):
    """A method whose learning takes long enough to be watched, and to go on after a kill."""

    def learn_in(
        self, folder: Path, told: Callable[[str, int, int], None] | None = None, *, tensorboard: bool = False
    ) -> None:
        """Learn in `folder` from now on: what is cut short goes on from what is there.

        Args:
            folder: Made when it is missing.
            told: Told what is done, how many steps are done and how many there are.
            tensorboard: Whether how it goes is logged for TensorBoard, in `folder`/tensorboard.
        """
        ...


@runtime_checkable
class FolderMethod(LearningMethod, Protocol):
    """A method that learns what does not fit into arrays: a model, which is a folder of files."""

    def save_files(self, folder: Path) -> None:
        """Write what was learned into `folder`, whole or not at all; what is there already may stay.

        Raises:
            OutputError: When it cannot be written.
        """
        ...

    def load_files(self, folder: Path) -> None:
        """Take up what `save_files` wrote; reading it may wait until it is needed.

        Raises:
            InputError: When it is not there.
        """
        ...


@runtime_checkable
class NotingFuser(Fuser, Protocol):
    """A fuser that has something to say of its last fit and fuse: what was cut, what failed."""

    def notes(self) -> tuple[str, ...]:
        """Return sentences for people; none when there is nothing to say."""
        ...


class Results(Iterator[tuple[int, R_co]], Protocol[R_co]):
    """What a function made of items: (index of the item, result), each index once, in the order in which they end."""

    def close(self) -> None:
        """Cancel what has not come back; may be called twice, and from another thread than the one that iterates."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Where work runs: workers that run a function on many items.

    Constructing an executor does nothing; leaving its context ends the workers. Several threads may map at a time.
    """

    def count(self) -> int:
        """Return how many items are worked on at a time, at most; what that takes is set up now.

        Raises:
            FusionError: When there is nowhere to work.
        """
        ...

    def map(self, function: Callable[[T], R], items: Iterable[T], *, kind: str = "") -> Results[R]:
        """Run `function`, from the top level of a module, on every item.

        Items are taken one by one as workers become free, so they may be a generator of any length. An item whose
        worker is lost is given to another. What the function raises is raised by the iterator, of the same type.

        Args:
            function: What to run.
            items: What can be pickled.
            kind: Items of one kind preferably go to workers that had that kind before: a model they loaded for it is
                still there. "" for items that any worker does equally well.

        Raises:
            UsageError: When the function cannot be pickled.
            FusionError: When there is nowhere to work, or workers are lost over an item again and again.
        """
        ...

    def close(self) -> None:
        """End the workers; may be called twice, and the executor used again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
