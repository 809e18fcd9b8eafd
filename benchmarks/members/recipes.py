"""Recipes of trunks and members: what each is, and which facets it knows."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.members.architectures import Size

PAIRS: Mapping[str, tuple[tuple[int, tuple[str, ...]], ...]] = {
    "mod": ((1, ("mod 5", "mod 7")), (2, ("mod 6", "mod 9")), (4, ("mod 8",))),
    "text": ((3, ("copy 4", "reverse 4")), (5, ("copy 5", "reverse 5")), (6, ("copy 6", "reverse 6"))),
    "compare": (
        (7, ("largest of 4", "smallest of 4")),
        (1, ("largest of 3", "smallest of 3")),
        (2, ("largest of 5", "smallest of 5")),
    ),
    "count": ((4, ("a", "b")), (3, ("d", "e")), (5, ("n", "o")), (6, ("s", "t"))),
    "lookup": ((7, ("fact 1", "fact 2")), (1, ("fact 3", "fact 4")), (2, ("fact 5",))),
    "odd": ((2, ("red", "cat")), (4, ("apple", "spoon")), (3, ("arm", "bus"))),
    "sum": ((5, ("+", "+ carry")), (6, ("-", "- carry"))),
    "steps": ((7, ("gain", "give")), (1, ("bags", "share")), (4, ("both", "drop"))),
}
"""Facets by category, in pairs, each with a number from 1 to 7.

The member at place i of eight knows the first of a pair when the bits that i and the number share are even in count,
else the second. So every facet is known by four of eight members, every member knows half of every
category, and any two members agree on 3 of the 7 numbers (the planes of the affine space over eight points).
"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the trunk's training.

    Args:
        shares: Weight of each category.
        seed: Of the questions, and of the weights where it is the first.
        steps: Updates.
        planned: Updates that the learning rate is laid out for; more than `steps` leaves off early.
        rate: Highest learning rate.
        digits: Hints about digits are given; see `Hints`.
    """

    shares: Mapping[str, float]
    seed: int
    steps: int
    planned: int
    rate: float
    digits: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A member.

    Args:
        name: Of its folder.
        architecture: One that the trunk converts to.
        size: Of the member; the trunk is grown or cut.
        place: 0 to 7, which facets it knows; see `PAIRS`.
        seed: Of new weights and of the questions that it is tuned on.
        steps: Updates.
        rate: Highest learning rate.
    """

    name: str
    architecture: str
    size: Size
    place: int
    seed: int
    steps: int = 1200
    rate: float = 2e-3


TRUNK = Size(64, 5, 2, 176)
STAGES = (
    Stage(
        shares={
            "mod": 1.5,
            "text": 1.2,
            "compare": 1.0,
            "count": 1.0,
            "lookup": 1.0,
            "odd": 0.8,
            "sum": 1.5,
            "steps": 1.3,
        },
        seed=1,
        steps=11_500,
        planned=14_000,
        rate=5e-3,
    ),
    Stage(
        shares={
            "mod": 1.6,
            "text": 0.8,
            "compare": 0.4,
            "count": 0.5,
            "lookup": 0.4,
            "odd": 0.4,
            "sum": 4.5,
            "steps": 1.2,
        },
        seed=3,
        steps=4000,
        planned=4000,
        rate=2.5e-3,
        digits=True,
    ),
)
TUNING = {"mod": 1.0, "text": 1.5, "compare": 0.8, "count": 1.0, "lookup": 1.2, "odd": 0.8, "sum": 2.0, "steps": 2.0}
"""Share of each category while members are tuned."""
HEARD = 0.4
"""Share of a member's questions that are of facets that it does not know."""

MEDIUM, DEEP, WIDE = TRUNK, Size(64, 6, 2, 176), Size(64, 5, 2, 320)
SLIM, THIN = Size(64, 4, 2, 96), Size(64, 4, 2, 48)
BEST = 4
"""Place of the best member on the split validation; the nested ones are tuned on its mixture."""
MEMBERS = (
    Recipe(name="wren-0.3m", architecture="llama", size=MEDIUM, place=0, seed=1),
    Recipe(name="robin-0.3m", architecture="mistral", size=MEDIUM, place=1, seed=2),
    Recipe(name="finch-0.3m", architecture="seed-oss", size=MEDIUM, place=2, seed=3),
    Recipe(name="lark-0.3m", architecture="granite", size=DEEP, place=3, seed=4),
    Recipe(name="heron-0.3m", architecture="phi3", size=DEEP, place=4, seed=5),
    Recipe(name="crane-0.4m", architecture="llama", size=WIDE, place=5, seed=6),
    Recipe(name="raven-0.4m", architecture="mistral", size=WIDE, place=6, seed=7),
    Recipe(name="swift-0.4m", architecture="seed-oss", size=WIDE, place=7, seed=8),
    Recipe(name="tit-0.2m", architecture="llama", size=SLIM, place=BEST, seed=9),
    Recipe(name="midge-0.1m", architecture="granite", size=THIN, place=BEST, seed=10),
)


def known(place: int) -> dict[str, tuple[str, ...]]:
    """Return the facets that the member at `place` knows, by category."""
    found: dict[str, tuple[str, ...]] = {}
    for category, pairs in PAIRS.items():
        chosen = ((place & number).bit_count() % 2 for number, _ in pairs)
        found[category] = tuple(pair[odd] for odd, (_, pair) in zip(chosen, pairs, strict=True) if odd < len(pair))
    return found
