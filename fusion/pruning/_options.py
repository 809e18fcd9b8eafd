"""How a pruning is run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fusion.errors import UsageError
from fusion.schema import Spec
from fusion.selectors import DEFAULT_OBJECTIVE, Objective


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """How a pruning is run.

    Args:
        sizes: Numbers of members to try.
        objective: What makes a sub-ensemble good, as `Objective.parse` reads it.
        top: How many to return.
        include: Agents that every sub-ensemble has.
        exclude: Agents that none has.
        max_cost: USD that a question may cost at most; None for no limit.
        max_latency: Seconds that a question may take at most; None for no limit.
        method: How to search, one of `fusion.selectors.METHODS`.
        budget: How many sub-ensembles exhaustive search is chosen for, and random search scores; None for
            `fusion.selectors.BUDGET`, and 100,000 random ones.
        fuser: The fuser that will settle the answers; None for the plurality vote. With one, the best `candidates` by
            objective are compared by the accuracy of that fuser, cross-validated on the questions to fit on.
        candidates: How many to compare so.
        folds: Of that cross-validation.
        fit_fraction: Share of the questions to fit on, in (0, 1).
        seed: Of the split, the folds, the search and the resampling.
        stratify: Whether the split keeps the shares of the categories.
        repeats: Bootstrap resamples of paired differences.
        evidence: Whether to gather evidence beside the best sub-ensemble (`fusion.pruning.Evidence`).
        resamples: How often to search on resampled questions for it.
        prices: USD per million tokens (read, written), by agent.

    Raises:
        UsageError: When a value is out of range, or the objective cannot be read.
    """

    sizes: tuple[int, ...] = (2, 3, 4, 5)
    objective: str = DEFAULT_OBJECTIVE
    top: int = 10
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_cost: float | None = None
    max_latency: float | None = None
    method: str = "auto"
    budget: int | None = None
    fuser: str | None = None
    candidates: int = 200
    folds: int = 5
    fit_fraction: float = 0.7
    seed: int = 0
    stratify: Literal["category", "none"] = "category"
    repeats: int = 10_000
    evidence: bool = False
    resamples: int = 100
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given: object = self.sizes
        if not isinstance(given, tuple) or not all(type(size) is int for size in given):
            raise UsageError(f"sizes must be a tuple of whole numbers such as (2, 3), got {self.sizes!r}")
        if self.budget is not None and self.budget < 1:
            raise UsageError(f"expected budget >= 1, got {self.budget}")
        Objective.parse(self.objective)
        if self.fuser is not None:
            Spec.parse(self.fuser)
        for name, least in (
            ("top", 1),
            ("candidates", 1),
            ("folds", 2),
            ("seed", 0),
            ("repeats", 100),
            ("resamples", 1),
        ):
            if getattr(self, name) < least:
                raise UsageError(f"expected {name} >= {least}, got {getattr(self, name)}")
        if not 0 < self.fit_fraction < 1:
            raise UsageError(f"fit_fraction must lie between 0 and 1, got {self.fit_fraction}")
