"""Evidence beside the winner of a pruning: would other questions choose it, whom does it need, whom does it lack?"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fusion.errors import UnknownName, UsageError
from fusion.evaluation import BenchOptions, compare_pairs
from fusion.pruning._outcomes import Members, Outcomes, in_pool_order, make_fuser
from fusion.pruning._stability import OptimismResult, StabilityResult, optimism, search_method, stability, votes_of
from fusion.pruning._worth import EXACT_MEMBERS, PoolWorthResult, WorthResult, member_worth, pool_worth

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusion.pruning._prune import Progress, Setting


@dataclass(frozen=True, kw_only=True)
class AdditionResult:
    """What one more agent adds to the best sub-ensemble.

    Args:
        agent: Which.
        test_accuracy: With it, on the questions to evaluate on.
        difference: That less the accuracy without it.
        ci95: 95 % interval of the difference.
        only_with, only_without: Questions that only one of the two answers right.
        p: Exact two-sided McNemar test.
        holm_p: `p` adjusted over all agents that could be added (Holm 1979).
    """

    agent: str
    test_accuracy: float
    difference: float
    ci95: tuple[float, float]
    only_with: int
    only_without: int
    p: float
    holm_p: float


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What speaks for and against the best sub-ensemble.

    `worth` and `additions` are read off the questions to evaluate on. To add the agent that gains most, or to drop the
    member that is worth least, is a choice made on those questions: they can then no longer tell what it is worth, and
    the highest of many gains flatters itself. The other parts are read off the questions to choose on.

    Args:
        agents: The best sub-ensemble, in pool order.
        additions: Every other agent that is not excluded, the highest gain first.
        worth: What each member is worth to it; None when interrupted before.
        pool_worth: What each agent of the pool is worth to the plurality vote of all; None when interrupted before.
        optimism: How far the choice flatters itself; None when interrupted before, or with a single question.
        stability: What comes out on top on resampled questions; None when interrupted before the first of them.
        complete: False when interrupted.
        notes: What else is worth knowing.
    """

    agents: tuple[str, ...]
    additions: tuple[AdditionResult, ...] = ()
    worth: WorthResult | None = None
    pool_worth: PoolWorthResult | None = None
    optimism: OptimismResult | None = None
    stability: StabilityResult | None = None
    complete: bool = True
    notes: tuple[str, ...] = ()
    format: Literal["fusion.prune.evidence/1"] = "fusion.prune.evidence/1"


def gather(
    setting: Setting,
    best: Members,
    *,
    fuser: str = "vote",
    resamples: int = 100,
    num_folds: int = 5,
    told: Progress,
) -> Evidence:
    """Gather evidence for and against a sub-ensemble that a pruning found.

    Args:
        setting: The pruning, which also holds the questions to evaluate on.
        best: The sub-ensemble.
        fuser: What settles its members' answers.
        resamples: How often to search on resampled questions.
        num_folds: Folds of the cross-validation; fewer where there are fewer questions to choose on.
        told: Told what is done, how many steps of it are done, and how many there are.

    Returns:
        The evidence; what was gathered so far, with a note, when interrupted (KeyboardInterrupt).

    Raises:
        UnknownName: When the pool has no such agent, or there is no such fuser.
        UsageError: When there are no members, no resamples, or fewer than two folds.
    """
    fit = setting.parts.fit
    for name in best:
        if name not in fit.agents:
            raise UnknownName(kind="agent", name=name, known=fit.agents)
    if not best or resamples < 1 or num_folds < 2:
        raise UsageError(
            f"evidence needs a member, a resample and two folds at least, got {len(best)}, {resamples} and {num_folds}"
        )
    outcomes = Outcomes(setting.parts, make_fuser(fuser))
    best = in_pool_order(fit, best)
    options, num_folds = setting.options, min(num_folds, len(fit))
    evidence = Evidence(agents=best, notes=_notes(setting, best, num_folds, resamples))
    with contextlib.suppress(KeyboardInterrupt):
        # Quick steps first: whoever does not wait for the last has most of it.
        evidence = dataclasses.replace(
            evidence, additions=_additions(setting, outcomes, best, _step(told, "additions"))
        )
        worth = member_worth(
            outcomes, best, repeats=options.repeats, seed=options.seed, told=_step(told, "worth of the members")
        )
        evidence = dataclasses.replace(evidence, worth=worth)
        of_pool = pool_worth(
            votes_of(fit), setting.scorer.bits.ranked, seed=options.seed, told=_step(told, "worth of the pool")
        )
        evidence = dataclasses.replace(evidence, pool_worth=of_pool)
        if num_folds > 1:
            found = optimism(setting, best, num_folds=num_folds, told=_step(told, "cross-validating"))
            evidence = dataclasses.replace(evidence, optimism=found)
        resampled = stability(setting, best, resamples=resamples, told=_step(told, "resampling"))
        evidence = dataclasses.replace(evidence, stability=resampled)
    done = evidence.stability.resamples if evidence.stability else 0
    if done < resamples:
        note = f"interrupted: {_gathered(evidence)}, {done} of {resamples} resamples were searched"
        evidence = dataclasses.replace(evidence, complete=False, notes=(*evidence.notes, note))
    return evidence


def _additions(
    setting: Setting, outcomes: Outcomes, best: Members, told: Callable[[int, int], None]
) -> tuple[AdditionResult, ...]:
    """Return what each other agent that is not excluded adds to a sub-ensemble, on the questions to evaluate on."""
    options = setting.options
    others = [name for name in setting.parts.fit.agents if name not in best and name not in options.exclude]
    correct = {"": outcomes.right(best)}
    for done, name in enumerate(others):
        told(done, len(others))
        correct[name] = outcomes.right((*best, name))
    pairs = compare_pairs(
        "additions",
        [(name, "") for name in others],
        correct,
        None,
        BenchOptions(repeats=options.repeats, seed=options.seed),
    )
    found = [
        AdditionResult(
            agent=pair.a,
            test_accuracy=float(correct[pair.a].mean()),
            difference=pair.difference,
            ci95=pair.ci95,
            only_with=pair.only_a,
            only_without=pair.only_b,
            p=pair.p,
            holm_p=pair.holm_p,
        )
        for pair in pairs
    ]
    return tuple(sorted(found, key=lambda addition: -addition.difference))


def _step(told: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: told(name, done, total)


def _gathered(evidence: Evidence) -> str:
    """Say which of the quick steps were finished."""
    steps = {
        "additions": evidence.additions,
        "worth of the members": evidence.worth,
        "worth of the pool": evidence.pool_worth,
        "cross-validation": evidence.optimism,
    }
    finished = [name for name, found in steps.items() if found]
    return f"{', '.join(finished)} finished" if finished else "nothing finished"


def _notes(setting: Setting, best: Members, num_folds: int, resamples: int) -> tuple[str, ...]:
    options = setting.options
    notes = []
    if len(best) > EXACT_MEMBERS:
        notes.append(
            f"{len(best)} members have too many coalitions to evaluate all of them; their Shapley values are from some "
            "orders of joining, and the intervals say how far that may be off"
        )
    if options.fuser is not None:
        notes.append(
            f"resamples and folds are searched by objective; comparing the best candidates by {options.fuser} is not "
            "repeated there"
        )
    method = search_method(setting, resamples)
    if method != "exhaustive" and options.method == "auto":
        notes.append(
            f"{setting.space.total} sub-ensembles are too many to score all of them in {resamples} resamples, which "
            f"were searched by {method} search; it need not have found the best"
        )
    if num_folds < 2:
        notes.append("a single question to choose on cannot be left out: there is no cross-validation")
    return tuple(notes)
