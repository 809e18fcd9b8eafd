"""Whom to ask, or to listen to: a plug-in package, one selector a file; diversity, and the search for sub-ensembles.

The search imports numba, so its names are resolved on first use.
"""

from typing import TYPE_CHECKING

from fusion._lazy import lazy

if TYPE_CHECKING:
    from fusion.diversity import (
        MEASURES,
        answer_kappa,
        binary_entropy,
        correlation,
        disagreement,
        double_fault,
        entropy,
        fleiss_kappa,
        focal_diversities,
        focal_diversity,
        generalized_diversity,
        kappa,
        q_statistic,
    )
    from fusion.selectors._bitset import BitTable, warm_up
    from fusion.selectors._objective import DEFAULT_OBJECTIVE, TERMS, Objective
    from fusion.selectors._score import Prices, Scorer, Scores
    from fusion.selectors._search import BUDGET, METHODS, Cloud, Found, search
    from fusion.selectors._subsets import Best, Scored, Space, parse_sizes

_HOMES = {
    "BUDGET": "fusion.selectors._search",
    "DEFAULT_OBJECTIVE": "fusion.selectors._objective",
    "MEASURES": "fusion.diversity",
    "METHODS": "fusion.selectors._search",
    "TERMS": "fusion.selectors._objective",
    "Best": "fusion.selectors._subsets",
    "BitTable": "fusion.selectors._bitset",
    "Cloud": "fusion.selectors._search",
    "Found": "fusion.selectors._search",
    "Objective": "fusion.selectors._objective",
    "Prices": "fusion.selectors._score",
    "Scored": "fusion.selectors._subsets",
    "Scorer": "fusion.selectors._score",
    "Scores": "fusion.selectors._score",
    "Space": "fusion.selectors._subsets",
    "answer_kappa": "fusion.diversity",
    "binary_entropy": "fusion.diversity",
    "correlation": "fusion.diversity",
    "disagreement": "fusion.diversity",
    "double_fault": "fusion.diversity",
    "entropy": "fusion.diversity",
    "fleiss_kappa": "fusion.diversity",
    "focal_diversities": "fusion.diversity",
    "focal_diversity": "fusion.diversity",
    "generalized_diversity": "fusion.diversity",
    "kappa": "fusion.diversity",
    "parse_sizes": "fusion.selectors._subsets",
    "q_statistic": "fusion.diversity",
    "search": "fusion.selectors._search",
    "warm_up": "fusion.selectors._bitset",
}

__all__ = [
    "BUDGET",
    "DEFAULT_OBJECTIVE",
    "MEASURES",
    "METHODS",
    "TERMS",
    "Best",
    "BitTable",
    "Cloud",
    "Found",
    "Objective",
    "Prices",
    "Scored",
    "Scorer",
    "Scores",
    "Space",
    "answer_kappa",
    "binary_entropy",
    "correlation",
    "disagreement",
    "double_fault",
    "entropy",
    "fleiss_kappa",
    "focal_diversities",
    "focal_diversity",
    "generalized_diversity",
    "kappa",
    "parse_sizes",
    "q_statistic",
    "search",
    "warm_up",
]

__getattr__ = lazy(__name__, _HOMES)
