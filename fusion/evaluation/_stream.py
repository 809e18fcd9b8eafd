"""A stream of questions: what is known at which place, and a system that is fitted again and again on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from fusion.agents import AgentPool
from fusion.data import PredictionTable, name_keys, right_answers
from fusion.ensemble import Ensemble, Replay
from fusion.errors import InvalidTable, UsageError
from fusion.evaluation._drift import DriftDetector, Fall
from fusion.evaluation._faults import Fault, inject
from fusion.protocols import AskingFuser, NotingFuser, WeighingFuser
from fusion.schema import BoolArray, FloatArray, IntArray, System

LEAST_FIT = 100
"""Questions that are fitted on at least after an alarm, though some may be from before the change."""

PLURALITY = System.parse("all_agents+vote")


@dataclass(frozen=True, kw_only=True)
class PrequentialOptions:
    """How a stream is evaluated.

    Args:
        block: Questions predicted between two fits.
        warm_up: Questions with a known label before the first prediction.
        window: How many of the latest questions with a known label are fitted on; 0 for all so far.
        order: "table": the rows are the stream; "shuffled": at random, the same way whatever their order.
        seed: Of the order, the faults and the bootstrap.
        delay: Questions that go by before a label is known.
        reset_on_drift: After an alarm fit only on questions since the fall began (the latest 100 at the least).
        alpha: Share of streams without drift in which there is any alarm, at most.
        fade: Weight that a question keeps with every later one in the faded accuracy, as 0.995; None without it.
        faults: What happens to agents on purpose, by places in the stream.
        repeats: Bootstrap resamples.

    Raises:
        UsageError: When a value is out of range.
    """

    block: int = 200
    warm_up: int = 500
    window: int = 2000
    order: Literal["table", "shuffled"] = "table"
    seed: int = 0
    delay: int = 0
    reset_on_drift: bool = True
    alpha: float = 0.01
    fade: float | None = None
    faults: tuple[Fault, ...] = ()
    repeats: int = 10_000

    def __post_init__(self) -> None:
        least = {"block": 1, "warm_up": 1, "window": 0, "seed": 0, "delay": 0, "repeats": 100}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UsageError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.order not in ("table", "shuffled"):
            raise UsageError(f"order must be table or shuffled, got {self.order!r}")
        if not 0 < self.alpha < 1:
            raise UsageError(
                f"alpha must lie between 0 and 1, got {self.alpha}; 0.01 allows 1 false alarm in 100 streams"
            )
        if self.fade is not None and not 0 < self.fade < 1:
            raise UsageError(
                f"fade must lie between 0 and 1, got {self.fade}; with 0.995 a question halves in 138 more"
            )


class Block(NamedTuple):
    """What happened to one block.

    Attributes:
        start, stop: Its places in the stream.
        fitted_from: Place of the first question fitted on.
        n_fit: Questions fitted on.
        replays: Of the system, the frozen one and the vote of all.
        weights: float [M], mean weight of each agent's votes; NaN for agents that are never listened to. None where the
            fuser does not say weights.
    """

    start: int
    stop: int
    fitted_from: int
    n_fit: int
    replays: tuple[Replay, ...]
    weights: FloatArray | None


class Stream:
    """Predicts block after block of a table.

    Args:
        given: The questions.
        system: What predicts them.
        options: How.

    Raises:
        UsageError: When the selector reads labels, or a fault starts behind the last question.
        UnknownName: When a method or the agent of a fault is not known.
        InvalidTable: When there are no labels, or too few questions for the warm-up and one more.
    """

    def __init__(self, given: PredictionTable, system: System, options: PrequentialOptions) -> None:
        given.require_labels()
        self.system = system
        self.options = options
        self.pool = AgentPool.of(given.agents)
        # Made before anything is worked out: a name that is not known is said at once.
        self._current = self._made(system)
        self.table = _faulty(_ordered(given, options), options)
        self.known_N = _known(self.table)
        self._known_places = np.flatnonzero(self.known_N)
        self.first = self._first()
        self._frozen: tuple[Ensemble, ...] = ()
        self._since = 0
        self._heard = 0
        self._category_N = np.zeros(len(self.table), dtype=np.intp)
        if self.table.categories is not None:
            self._category_N = np.unique(self.table.categories, return_inverse=True)[1]
        num_categories = int(self._category_N.max(initial=0)) + 1
        self._detector = DriftDetector(len(self.pool), num_categories=num_categories, alpha=options.alpha)
        self.look(self.first)

    def predict(self, start: int) -> Block:
        """Fit the system on what is known before `start`, and predict the block from there."""
        stop = min(start + self.options.block, len(self.table))
        places = self._fit_places(start)
        learned = self.table.rows(places)
        if self._frozen:
            self._close_current()
            self._current = self._made(self.system)
        self._current.fit(learned)
        if not self._frozen:
            self._frozen = self._current, self._made(PLURALITY).fit(learned)
        block = self.table.rows(slice(start, stop))
        replays = [self._current.replay(block)]
        # At first they are one.
        replays += [replays[0] if one is self._current else one.replay(block) for one in self._frozen]
        return Block(
            start=start,
            stop=stop,
            fitted_from=int(places[0]),
            n_fit=len(places),
            replays=tuple(replays),
            weights=_mean_weights(self._current, block, replays[0]),
        )

    def look(self, stop: int) -> list[Fall]:
        """Look at the outcomes that are known by `stop`; agents that fell move the start of what is fitted on."""
        known = int(np.searchsorted(self._known_places, stop - self.options.delay))
        new = self._known_places[self._heard : known]
        self._heard = max(self._heard, known)
        falls = self._detector.look(self.table.correct[new], self._category_N[new])
        falls = [fall._replace(begun=int(self._known_places[fall.begun])) for fall in falls]
        if self.options.reset_on_drift:
            self._since = max([self._since, *(fall.begun for fall in falls)])
        return falls

    def scored(self, start: int, stop: int) -> IntArray:
        """Return int [n], the places with a known label from `start` to before `stop`."""
        return start + np.flatnonzero(self.known_N[start:stop])

    def correct(self, block: Block) -> tuple[BoolArray, ...]:
        """Return for each replay of a block bool [n], whether it is right where the label is known."""
        known_n = self.known_N[block.start : block.stop]
        questions = self.table.rows(slice(block.start, block.stop))
        return tuple(right_answers(replay.decision, questions)[known_n] for replay in block.replays)

    def notes(self) -> list[str]:
        """Return what is worth knowing of the stream, and what the fuser has to say of its last fit."""
        found = []
        unknown = int((~self.known_N).sum())
        if unknown:
            found.append(
                f"{unknown} questions have no known label: they are predicted, not learned from and not scored"
            )
        changes = int((np.diff(self._category_N) != 0).sum())
        if self.options.order == "table" and changes and changes == self._category_N.max():
            found.append(
                "questions come category by category, so what was learned is about other categories; order shuffled "
                "mixes them"
            )
        fuser = self._current.fuser
        return found + list(fuser.notes() if isinstance(fuser, NotingFuser) else ())

    def close(self) -> None:
        """Give back what asking took."""
        for ensemble in {id(one): one for one in (self._current, *self._frozen)}.values():
            if isinstance(ensemble.fuser, AskingFuser):
                ensemble.fuser.close()

    def _made(self, system: System) -> Ensemble:
        ensemble = Ensemble(self.pool, system.selector, system.fuser)
        if ensemble.selector.sees == "labels":
            raise UsageError(
                f"{system.selector} reads the right answers, which nobody has before a question is answered; it is an "
                "upper bound for fusion bench"
            )
        return ensemble

    def _close_current(self) -> None:
        if self._current not in self._frozen and isinstance(self._current.fuser, AskingFuser):
            self._current.fuser.close()

    def _first(self) -> int:
        """Return the place of the first question to predict: as soon as enough labels are known."""
        wanted, num = self.options.warm_up, len(self._known_places)
        first = len(self.table)
        if num >= wanted:
            first = int(self._known_places[wanted - 1]) + 1 + self.options.delay
        if first >= len(self.table):
            late = f", each {self.options.delay} questions late" if self.options.delay else ""
            raise InvalidTable(
                f"the warm-up takes {wanted} questions with a known label and must leave some to predict, but of the "
                f"stream's {len(self.table)} questions {num} have one{late}; give more questions or a shorter warm-up"
            )
        return first

    def _fit_places(self, start: int) -> IntArray:
        """Return int [n_fit], the places to fit on before the block from `start` is predicted."""
        known = int(np.searchsorted(self._known_places, start - self.options.delay))
        places = self._known_places[:known]
        if self.options.window:
            places = places[-self.options.window :]
        recent = places[places >= self._since]
        return recent if len(recent) >= LEAST_FIT or not self._since else places[-LEAST_FIT:]


def _ordered(table: PredictionTable, options: PrequentialOptions) -> PredictionTable:
    if options.order == "table":
        return table
    return table.rows(np.argsort(name_keys(table.question_ids.tolist(), f"stream {options.seed}"), kind="stable"))


def _faulty(table: PredictionTable, options: PrequentialOptions) -> PredictionTable:
    for fault in options.faults:
        table = inject(
            table,
            agent=fault.agent,
            start=fault.start,
            kind=fault.kind,
            share=fault.share,
            category=fault.category,
            seed=options.seed,
        )
    return table


def _known(table: PredictionTable) -> BoolArray:
    """Return bool [N], whose right answer is known: an option, or of open questions a reference that nobody gave."""
    known_N: BoolArray = table.require_labels() >= 0
    return known_N if table.references is None else known_N | (table.references != "")


def _mean_weights(ensemble: Ensemble, block: PredictionTable, replay: Replay) -> FloatArray | None:
    weights_NM = ensemble.fuser.vote_weights(block.blind()) if isinstance(ensemble.fuser, WeighingFuser) else None
    if weights_NM is None:
        return None
    heard_NM = replay.selection.mask
    counts_M = heard_NM.sum(axis=0)
    sums_M = np.where(heard_NM, weights_NM, 0.0).sum(axis=0)
    means_M: FloatArray = np.full(len(counts_M), np.nan)
    np.divide(sums_M, counts_M, out=means_M, where=counts_M > 0)
    return means_M


def calls(replays: Sequence[Replay]) -> float:
    """Return the mean number of answers asked for over the questions of replays, those of the fuser among them."""
    total = num = 0.0
    for replay in replays:
        total += float(replay.asked.sum()) * replay.decision.samples
        total += 0.0 if replay.decision.spent is None else float(replay.decision.spent.calls.sum())
        num += len(replay.asked)
    return total / num
