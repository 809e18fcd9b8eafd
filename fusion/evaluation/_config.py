"""The file that describes an evaluation."""

from typing import Annotated, Literal

from pydantic import Field

from fusion.config import Config
from fusion.evaluation._bench import DEFAULT_SYSTEMS
from fusion.evaluation._options import BenchOptions


class Price(Config):
    """USD per million tokens."""

    input: Annotated[float, Field(ge=0, description="per million tokens read")]
    output: Annotated[float, Field(ge=0, description="per million tokens written")]


class Prices(Config):
    """A file with prices alone."""

    prices: dict[str, Price]


class BenchConfig(Config):
    """An evaluation: what `fusion bench` takes, as a file."""

    version: Literal[1] = 1
    table: Annotated[str, Field(description="table to fit on and evaluate on")]
    test: Annotated[str | None, Field(description="table to evaluate on instead of a part of `table`")] = None
    systems: Annotated[list[str] | str, Field(description="selector+fuser, a list or separated by commas")] = (
        DEFAULT_SYSTEMS
    )
    fit_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.7
    seed: Annotated[int, Field(ge=0)] = 0
    stratify: Literal["category", "none"] = "category"
    cluster: Literal["none", "category"] = "none"
    repeats: Annotated[int, Field(ge=100)] = 10_000
    prices: Annotated[dict[str, Price], Field(description="USD per million tokens, by agent", default_factory=dict)]

    abstain_at_risk: Annotated[
        float | None, Field(gt=0, lt=1, description="share of wrong answers allowed among those given")
    ] = None

    def options(self) -> BenchOptions:
        """Return the part that `bench` takes as options."""
        return BenchOptions(
            fit_fraction=self.fit_fraction,
            seed=self.seed,
            stratify=self.stratify,
            cluster=self.cluster,
            repeats=self.repeats,
            prices={name: (price.input, price.output) for name, price in self.prices.items()},
            abstain_at_risk=self.abstain_at_risk,
        )
