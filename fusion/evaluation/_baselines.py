"""The baselines that belong beside a system by default: what else could be had for as many calls."""

from collections.abc import Mapping
from typing import NamedTuple

from fusion.data import Split, by_accuracy
from fusion.schema import Spec, System

BEST_SINGLE = System(Spec("single_best"), Spec("vote"))
BEST_PER_CATEGORY = System(Spec("single_best_per_category"), Spec("vote"))
ORACLE = System(Spec("oracle"), Spec("vote"))


class Cost(NamedTuple):
    """What a system asks for.

    Attributes:
        calls: Mean number of answers a question.
        samples: Answers drawn from every agent that it asks.
    """

    calls: float
    samples: int


class Plan(NamedTuple):
    """Which baselines to evaluate.

    Attributes:
        baselines: All of them, the best single member first.
        rivals: For each system, by name, those that it is compared with besides the best single member.
        notes: What cannot be had, and why.
    """

    baselines: tuple[System, ...]
    rivals: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]


def plan(costs: Mapping[System, Cost], parts: Split) -> Plan:
    """Choose the baselines of some systems: best single sampled k times, random subset, best single per category.

    Args:
        costs: The systems, and what each asks for.
        parts: The tables to fit on and to evaluate on.
    """
    notes: list[str] = []
    most = _num_samples(parts)
    if most < 2:
        bare = any(part.sample_answers is None for part in parts)
        had = "no samples" if bare else "one draw only of the best single member"
        notes.append(f"the table has {had}, so the best single member sampled k times is not among the baselines")
    routed = [BEST_PER_CATEGORY]
    if parts.fit.categories is None or parts.test.categories is None:
        notes.append("the table has no categories, so the best single member per category is not among the baselines")
        routed = []
    sampled: dict[int, System] = {}
    random: list[System] = []
    rivals: dict[str, tuple[str, ...]] = {}
    for system, cost in costs.items():
        own = []
        size = max(1, round(cost.calls))
        count = min(size, most)
        if count > 1:
            own.append(sampled.setdefault(count, _sampled(count)))
        if 1 < most < size:
            notes.append(
                f"the best single member beside {system} is sampled {most} times, not {size}: no more are recorded"
            )
        subset = _random(system, cost, min(size, parts.fit.num_agents))
        if size < parts.fit.num_agents:
            own.append(subset)
            random.append(subset)
        elif (system.selector.name, system.fuser) != ("all_agents", subset.fuser):
            random.append(subset)
            notes.append(f"{subset} is the whole pool: there is one subset of that size")
        rivals[str(system)] = tuple(str(other) for other in own + routed if other != system)
    baselines = (BEST_SINGLE, *(sampled[count] for count in sorted(sampled)), *random, *routed)
    return Plan(tuple(dict.fromkeys(baselines)), rivals, tuple(dict.fromkeys(notes)))


def _num_samples(parts: Split) -> int:
    """Return how many draws of the best single member both parts have; agents of one record may differ in that."""
    best = parts.fit.agents[by_accuracy(parts.fit.accuracies)[0]]
    recorded = []
    for part in parts:
        if part.sample_answers is None:
            return 0
        drawn_R = (part.sample_answers[:, part.agents.index(best)] >= 0).any(axis=0)
        recorded.append(int(drawn_R.sum()))
    return min(recorded)


def _sampled(count: int) -> System:
    return System(BEST_SINGLE.selector, Spec("sample_vote", {"samples": count}))


def _random(system: System, cost: Cost, size: int) -> System:
    # Votes over samples become one vote each: the subset shall cost as much as the system, not a multiple.
    return System(Spec("random_subset", {"size": size}), Spec("vote") if cost.samples > 1 else system.fuser)
