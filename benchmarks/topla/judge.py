"""Sub-ensembles compared on the questions that they were not chosen on, and over several splits."""

import math
from collections.abc import Sequence

import numpy as np

from fusion.data import Split
from fusion.pruning._outcomes import Members, Outcomes, make_fuser
from fusion.significance import paired_difference

FUSERS = ("vote", "weighted_vote")
REPEATS = 1000

Difference = list[float]
"""Difference of two accuracies, the ends of its 95 % interval, and the exact McNemar p-value."""


class Judge:
    """Fits fusers on one part and tells what sub-ensembles get right on the other; everything is computed once.

    Args:
        parts: The questions to fit on, and the others.
    """

    def __init__(self, parts: Split) -> None:
        self.outcomes = {fuser: Outcomes(parts, make_fuser(fuser)) for fuser in FUSERS}
        self._known: dict[tuple[Members, Members, str], Difference] = {}

    def accuracy(self, members: Members, fuser: str) -> float:
        """Return the accuracy on the other questions."""
        return float(self.outcomes[fuser].right(members).mean())

    def difference(self, a: Members, b: Members, fuser: str) -> Difference:
        """Compare two sub-ensembles under the same fuser; one with itself is certainly no better."""
        if set(a) == set(b):
            return [0.0, 0.0, 0.0, 1.0]
        if (a, b, fuser) not in self._known:
            right = self.outcomes[fuser].right
            found = paired_difference(right(a), right(b), repeats=REPEATS, rng=np.random.default_rng(0))
            self._known[a, b, fuser] = [found.difference, *found.interval, found.p]
        return self._known[a, b, fuser]


def over_splits(differences: Sequence[Difference], ratio: float) -> dict[str, float | None]:
    """Return the mean difference over random splits with the corrected resampled t interval (95 %).

    Splits of one table share most of their questions, so their differences are not independent, and s / sqrt(J) is far
    too short. Nadeau and Bengio (2003) replace 1 / J in the variance by 1 / J + n_test / n_fit; the interval
    is a t interval with J - 1 degrees of freedom. It is an approximation, and with few splits s is a rough one.

    Args:
        differences: Of each of J splits.
        ratio: n_test / n_fit.

    Returns:
        Mean; low and high, None where the splits do not differ; the numbers of splits where McNemar's test finds a
        better or worse than b at the 5 % level, and where both were the same or equally accurate.
    """
    from scipy.special import stdtrit

    values_J = np.array([difference[0] for difference in differences])
    count, mean, spread = (
        len(values_J),
        float(values_J.mean()),
        float(values_J.std(ddof=1)) if len(values_J) > 1 else 0.0,
    )
    half = float(stdtrit(count - 1, 0.975)) * math.sqrt(1 / count + ratio) * spread if spread > 0 else None
    return {
        "mean": mean,
        "low": None if half is None else mean - half,
        "high": None if half is None else mean + half,
        "better": sum(d > 0 and p < 0.05 for d, _, _, p in differences),
        "worse": sum(d < 0 and p < 0.05 for d, _, _, p in differences),
        "equal": sum(d == 0 for d, *_ in differences),
    }
