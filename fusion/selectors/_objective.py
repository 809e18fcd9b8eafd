"""What makes a sub-ensemble good: a weighted sum of measured terms."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

from fusion.errors import UnknownName, UsageError


class Term(NamedTuple):
    """Something measured of every sub-ensemble.

    Attributes:
        says: What it is, with its unit.
        higher_is_better: Which sign its weight usually has; None where that depends on what is wanted.
        pairs: Whether it needs at least two members.
    """

    says: str
    higher_is_better: bool | None = True
    pairs: bool = False


TERMS: Mapping[str, Term] = {
    "accuracy": Term("share of questions that the plurality vote answers right"),
    "weighted_accuracy": Term("share of questions that a vote weighted by accuracy answers right"),
    "mean_accuracy": Term("mean accuracy of the members"),
    "oracle": Term("share of questions that at least one member answers right"),
    "focal": Term("focal diversity (LLM-TOPLA)", pairs=True),
    "generalized": Term("generalized diversity (Partridge and Krzanowski 1997)", pairs=True),
    "disagreement": Term(
        "share of questions on which exactly one of two members is right, mean over pairs", pairs=True
    ),
    "entropy": Term("entropy measure E of right and wrong (Kuncheva and Whitaker 2003)", pairs=True),
    "double_fault": Term("share of questions on which two members both fail, mean over pairs", False, pairs=True),
    "q_statistic": Term("Yule's Q of two members' being right, mean over pairs", False, pairs=True),
    "correlation": Term("correlation of two members' being right, mean over pairs", False, pairs=True),
    "kappa": Term("Cohen's kappa of two members' being right, mean over pairs", False, pairs=True),
    "answer_kappa": Term("Cohen's kappa of two members' answers, mean over pairs", False, pairs=True),
    "fleiss_kappa": Term("Fleiss' kappa of all members' answers", False, pairs=True),
    "size": Term("number of members, which is the number of calls a question", False),
    "cost": Term("USD a question, all members asked", False),
    "latency": Term("seconds a question: that of the slowest member, all asked at once", False),
}

DEFAULT_OBJECTIVE = "focal=0.5,accuracy=0.5"


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms; sub-ensembles with the highest value are the best.

    Args:
        weights: Weight by name of the term (`TERMS`); zeros are left out.

    Raises:
        UnknownName: When there is no term of a name.
        UsageError: When no weight is left, or one is not finite.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if name not in TERMS:
                raise UnknownName(kind="objective term", name=name, known=TERMS)
            if not math.isfinite(weight):
                raise UsageError(f"the weight of {name} must be a finite number, got {weight}")
        kept = {name: float(weight) for name, weight in self.weights.items() if weight}
        if not kept:
            raise UsageError(f"an objective needs a term with a weight other than 0, such as {DEFAULT_OBJECTIVE}")
        object.__setattr__(self, "weights", kept)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "focal=0.5,accuracy=0.5"; a name alone has the weight 1.

        Raises:
            UnknownName: When there is no term of a name.
            UsageError: When a weight is not a number, or a term is given twice.
        """
        weights: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, number = (piece.strip() for piece in part.partition("="))
            name = name.replace("-", "_")
            if name in weights:
                raise UsageError(f"the objective {text!r} gives {name} twice; give every term one weight")
            try:
                weights[name] = float(number) if equals else 1.0
            except ValueError:
                raise UsageError(
                    f"the objective {text!r} gives {name} the weight {number!r}; expected a number, as in "
                    f"{DEFAULT_OBJECTIVE}"
                ) from None
        return cls(weights)

    def __str__(self) -> str:
        return ",".join(f"{name}={_written(weight)}" for name, weight in self.weights.items())

    def require_sizes(self, sizes: Iterable[int]) -> None:
        """Refuse sub-ensembles of one member where a term needs two.

        Raises:
            UsageError: When that is so.
        """
        undefined = [name for name in self.weights if TERMS[name].pairs]
        if undefined and min(sizes) < 2:
            raise UsageError(
                f"{', '.join(undefined)} cannot be measured on a single member; ask for sizes from 2 on, or for an "
                "objective such as accuracy"
            )

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence on every term whose weight rewards what is usually unwanted."""
        return tuple(
            f"{name}={weight:g} rewards {'high' if weight > 0 else 'low'} values of {name}: {TERMS[name].says}; "
            f"{name}={-weight:g} would do the opposite"
            for name, weight in self.weights.items()
            if TERMS[name].higher_is_better is (weight < 0)
        )


def _written(weight: float) -> str:
    """Return a number that reads back as the same one, as short as that allows."""
    short = f"{weight:g}"
    return short if float(short) == weight else repr(weight)
