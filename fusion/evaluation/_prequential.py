"""Prequential evaluation: every block of a stream is predicted with what earlier blocks taught, then learned from.

Reference: Dawid 1984, Statistical theory: the prequential approach, J. R. Statist. Soc. A 147; with old questions
fading, Gama, Sebastiao and Rodrigues 2013, On evaluating stream learning algorithms, Machine Learning 90.
"""

import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from fusion.data import PredictionTable, read_table, table_notes
from fusion.ensemble import Replay
from fusion.evaluation._bench import compare_pairs, file_name
from fusion.evaluation._drift import Fall
from fusion.evaluation._options import BenchOptions
from fusion.evaluation._prequential_result import BlockResult, DriftAlarm, PrequentialResult, StreamScore
from fusion.evaluation._result import Outcomes, PairedResult, digits, gold_marks
from fusion.evaluation._stream import Block, PrequentialOptions, Stream, calls
from fusion.evaluation._verdict import beats, p_value, points
from fusion.schema import BoolArray, FloatArray, System
from fusion.stopwatch import Stopwatch

Told = Callable[[str, int, int], None]
"""Told what is done next, how many questions are done and how many there are."""

_ALPHA = 0.05

_TOGETHER = 3
"""Agents that must fall at once, and be half of the pool, before the questions are suspected."""


def prequential(
    table: PredictionTable | str | os.PathLike[str],
    system: System | str,
    *,
    options: PrequentialOptions | None = None,
    told: Told | None = None,
) -> PrequentialResult:
    """Evaluate a system on a stream of questions: predict a block, learn its labels, predict the next.

    For every block the system is made anew and fitted on the latest questions whose labels are known by then. After
    every block each agent's outcomes are tested for a fall (`DriftDetector`). Beside the system stand, on the same
    blocks, the same system fitted after the warm-up and never again, and a vote of all agents.

    A label of -1 is one that nobody knows: the question is predicted, not learned from and not scored. Only of open
    questions with a reference does it mean that nobody gave the right answer.

    Args:
        table: Answers to questions, most of them labelled, or the file they are in.
        system: `selector+fuser`.
        options: How; see `PrequentialOptions`.
        told: Told before each block.

    Returns:
        Accuracy by block and in all, whom the system asked, alarms, paired comparisons and the verdict.

    Raises:
        UsageError: When the selector reads labels, a fault starts behind the last question, or a name is not known.
        InvalidTable: When there are no labels, or too few questions for the warm-up and one more.
    """
    watch = Stopwatch()
    options = options or PrequentialOptions()
    system = system if isinstance(system, System) else System.parse(system)
    given = table if isinstance(table, PredictionTable) else read_table(table)
    blocks: list[Block] = []
    falls: list[tuple[int, Fall]] = []
    with contextlib.closing(Stream(given, system, options)) as stream:
        for start in range(stream.first, len(stream.table), options.block):
            if told is not None:
                told(f"{system} from question {start}", start, len(stream.table))
            blocks.append(stream.predict(start))
            falls += [(len(blocks) - 1, fall) for fall in stream.look(blocks[-1].stop)]
        notes = (*table_notes(given), *stream.notes())
    found = _tally(stream, blocks, options)
    alarms = tuple(_alarm(given.agents, blocks, at, fall) for at, fall in falls)
    return PrequentialResult(
        system=str(system),
        agents=given.agents,
        n=len(stream.table) - stream.first,
        n_warm_up=stream.first,
        whole=found.scores[0],
        frozen=found.scores[1],
        plurality=found.scores[2],
        blocks=found.blocks,
        alarms=alarms,
        paired=found.paired,
        verdict=_verdict(found.paired, options, stream.first),
        notes=(*notes, *_together(alarms, len(given.agents))),
        run=watch.record(_command(system, options, file_name(table)), {"stream": given.fingerprint}),
        outcomes=found.outcomes,
    )


def _command(system: System, options: PrequentialOptions, source: str | None) -> dict[str, object]:
    faults = [dataclasses.asdict(fault) for fault in options.faults]
    return {"stream": str(system), **dataclasses.asdict(options), "faults": faults, "table": source}


class _Tally(NamedTuple):
    """Who was right: the system, the frozen one and the vote, in this order."""

    scores: tuple[StreamScore, ...]
    blocks: tuple[BlockResult, ...]
    paired: tuple[PairedResult, ...]
    outcomes: Outcomes


def _tally(stream: Stream, blocks: Sequence[Block], options: PrequentialOptions) -> _Tally:
    names = (str(stream.system), f"{stream.system}, frozen", "vote of all")
    correct_by_block = [stream.correct(block) for block in blocks]
    correct = {name: np.concatenate([part[at] for part in correct_by_block]) for at, name in enumerate(names)}
    scored = stream.table.rows(stream.scored(stream.first, len(stream.table)))
    paired: list[PairedResult] = []
    if len(scored):
        pairs = [(names[0], other) for other in names[1:]]
        drawn = BenchOptions(seed=options.seed, repeats=options.repeats)
        paired = compare_pairs("yardsticks", pairs, correct, None, drawn)
    return _Tally(
        scores=tuple(_score(correct[name], [block.replays[at] for block in blocks]) for at, name in enumerate(names)),
        blocks=_block_results(blocks, correct_by_block, options.fade),
        paired=tuple(paired),
        outcomes=Outcomes(
            question_ids=tuple(scored.question_ids.tolist()),
            categories=None if scored.categories is None else tuple(scored.categories.tolist()),
            correct={name: digits(correct_N) for name, correct_N in correct.items()},
            gold=gold_marks(scored),
        ),
    )


def _score(correct_N: BoolArray, replays: Sequence[Replay]) -> StreamScore:
    return StreamScore.of(int(correct_N.sum()), len(correct_N), calls=calls(replays))


def _block_results(
    blocks: Sequence[Block], correct_by_block: Sequence[tuple[BoolArray, ...]], fade: float | None
) -> tuple[BlockResult, ...]:
    found = []
    right = known = 0
    faded_right = faded_known = 0.0
    for block, correct in zip(blocks, correct_by_block, strict=True):
        right, known = right + int(correct[0].sum()), known + len(correct[0])
        if fade is not None:
            ages_N = fade ** np.arange(len(correct[0]) - 1, -1, -1, dtype=np.float64)
            kept = fade ** len(correct[0])
            faded_right = faded_right * kept + float(ages_N @ correct[0])
            faded_known = faded_known * kept + float(ages_N.sum())
        scores = [_score(correct_N, [replay]) for correct_N, replay in zip(correct, block.replays, strict=True)]
        found.append(
            BlockResult(
                start=block.start,
                n=block.stop - block.start,
                fitted_from=block.fitted_from,
                n_fit=block.n_fit,
                system=scores[0],
                frozen=scores[1],
                plurality=scores[2],
                cumulative=right / known if known else None,
                faded=faded_right / faded_known if faded_known else None,
                call_shares=tuple(_call_shares(block).tolist()),
                weight_shares=_weight_shares(block),
            )
        )
    return tuple(found)


def _call_shares(block: Block) -> FloatArray:
    asked_M = block.replays[0].asked.sum(axis=0)
    return np.asarray(asked_M / asked_M.sum())


def _weight_shares(block: Block) -> tuple[float | None, ...] | None:
    if block.weights is None:
        return None
    total = float(np.abs(block.weights[np.isfinite(block.weights)]).sum())
    return tuple(weight / total if np.isfinite(weight) and total else None for weight in block.weights.tolist())


def _alarm(agents: Sequence[str], blocks: Sequence[Block], at: int, fall: Fall) -> DriftAlarm:
    """Return the alarm after block `at`, with what the system did between the fall and the next block."""
    # Fitted on what was known before the fall.
    before = blocks[max((b for b in range(at + 1) if blocks[b].start <= fall.begun), default=0)]
    after = blocks[at + 1] if at + 1 < len(blocks) else None
    measure: Literal["calls", "weights"] = "calls"
    seen = [block for block in (before, after) if block is not None]
    if all(block.weights is not None and block.replays[0].asked.all() for block in seen):
        measure = "weights"
    shares = []
    for block in (before, after):
        of_calls = None if block is None else _call_shares(block).tolist()
        of_weights = None if block is None else _weight_shares(block)
        chosen = of_calls if measure == "calls" else of_weights
        shares.append(None if chosen is None else chosen[fall.agent])
    return DriftAlarm(
        agent=agents[fall.agent],
        question=blocks[at].stop,
        begun=fall.begun,
        before=fall.before,
        after=fall.after,
        n_before=fall.n_before,
        n_after=fall.n_after,
        p=fall.p,
        level=fall.level,
        measure=measure,
        share_before=shares[0],
        share_after=shares[1],
    )


def _together(alarms: Sequence[DriftAlarm], num_agents: int) -> tuple[str, ...]:
    """Say so where many agents fell at once."""
    counts = Counter(alarm.question for alarm in alarms)
    return tuple(
        f"{count} of {num_agents} agents fell at once, noticed at question {question}: the questions may have become "
        "harder, rather than the agents worse"
        for question, count in counts.items()
        if count >= max(_TOGETHER, num_agents / 2)
    )


def _verdict(paired: Sequence[PairedResult], options: PrequentialOptions, first: int) -> str:
    if not paired:
        return "No label is known of the questions that were predicted."
    pair = paired[0]
    said = "beats" if beats(pair) else "is not shown to differ from"
    if pair.difference < 0 and pair.holm_p < _ALPHA:
        said = "is worse than"
    window = f"the latest {options.window} questions" if options.window else "all questions so far"
    return (
        f"{pair.a}, fitted again on {window} every {options.block}, {said} the same system frozen after the first "
        f"{first}: {points(pair.difference)} points (95 % CI {points(pair.ci95[0])} to {points(pair.ci95[1])}, "
        f"{p_value(pair)}, n = {pair.n})."
    )
