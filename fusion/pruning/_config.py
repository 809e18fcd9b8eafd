"""The file that describes a pruning."""

from typing import Annotated, Literal

from pydantic import Field

from fusion.config import Config
from fusion.evaluation import Price
from fusion.pruning._options import PruneOptions
from fusion.selectors import DEFAULT_OBJECTIVE, parse_sizes


class PruneConfig(Config):
    """A pruning: what `fusion prune` takes, as a file."""

    version: Literal[1] = 1
    table: Annotated[str, Field(description="labelled table to choose on")]
    test: Annotated[str | None, Field(description="table to evaluate on instead of a part of `table`")] = None
    sizes: Annotated[str | int | list[int], Field(description="numbers of members: 3, 2-5, [2, 3]")] = "2-5"
    objective: str = DEFAULT_OBJECTIVE
    top: Annotated[int, Field(ge=1)] = 10
    include: Annotated[list[str], Field(description="agents of every sub-ensemble", default_factory=list)]
    exclude: Annotated[list[str], Field(description="agents of none", default_factory=list)]
    max_cost: Annotated[float | None, Field(ge=0, description="USD a question")] = None
    max_latency: Annotated[float | None, Field(ge=0, description="seconds a question")] = None
    search: str = "auto"
    budget: Annotated[int | None, Field(ge=1)] = None
    fuser: str | None = None
    candidates: Annotated[int, Field(ge=1)] = 200
    folds: Annotated[int, Field(ge=2)] = 5
    fit_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.7
    seed: Annotated[int, Field(ge=0)] = 0
    stratify: Literal["category", "none"] = "category"
    repeats: Annotated[int, Field(ge=100)] = 10_000
    evidence: bool = False
    resamples: Annotated[int, Field(ge=1, description="searches on resampled questions, for the evidence")] = 100
    prices: Annotated[dict[str, Price], Field(description="USD per million tokens, by agent", default_factory=dict)]

    def options(self) -> PruneOptions:
        """Return the part that `prune` takes as options.

        Raises:
            UsageError: When sizes or objective cannot be read.
        """
        sizes = ",".join(map(str, self.sizes)) if isinstance(self.sizes, list) else str(self.sizes)
        own = {"version", "table", "test", "sizes", "search", "prices"}
        return PruneOptions(
            sizes=parse_sizes(sizes),
            method=self.search,
            prices={name: (price.input, price.output) for name, price in self.prices.items()},
            include=tuple(self.include),
            exclude=tuple(self.exclude),
            **self.model_dump(exclude={*own, "include", "exclude"}),
        )
