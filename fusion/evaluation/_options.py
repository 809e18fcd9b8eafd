"""How an evaluation is run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fusion.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """How an evaluation is run.

    Args:
        fit_fraction: Share of the questions to fit on, in (0, 1).
        seed: Of the split and of the bootstrap.
        stratify: Whether the split keeps the shares of the categories.
        cluster: Whether questions of a category count as dependent: intervals and tests become
            cluster-robust, which needs many categories to say much.
        repeats: Bootstrap resamples.
        prices: USD per million tokens (read, written), by agent.
        abstain_at_risk: Share of wrong answers, in (0, 1), that is allowed among those given: systems are also
            evaluated answering only where they are sure enough. A fifth of the questions to fit on is kept to find out
            where that is. None to do without.

    Raises:
        UsageError: When a value is out of range.
    """

    fit_fraction: float = 0.7
    seed: int = 0
    stratify: Literal["category", "none"] = "category"
    cluster: Literal["none", "category"] = "none"
    repeats: int = 10_000
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    abstain_at_risk: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fit_fraction < 1:
            raise UsageError(f"fit_fraction must lie between 0 and 1, got {self.fit_fraction}")
        if self.abstain_at_risk is not None and not 0 < self.abstain_at_risk < 1:
            raise UsageError(f"abstain_at_risk must lie between 0 and 1, got {self.abstain_at_risk}; 0.05 is 5 %")
        if self.seed < 0 or self.repeats < 100:
            raise UsageError(f"expected seed >= 0 and repeats >= 100, got seed {self.seed} and repeats {self.repeats}")
        for name, value in (("stratify", self.stratify), ("cluster", self.cluster)):
            if value not in ("category", "none"):
                raise UsageError(f"{name} must be category or none, got {value!r}")
