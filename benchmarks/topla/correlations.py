"""How well what is known when choosing orders sub-ensembles by what their vote is worth on other questions."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from benchmarks.topla.columns import MEASURED, TARGETS, Columns
from fusion.schema import FloatArray
from fusion.selectors import TERMS

FEWEST = 20
"""Sub-ensembles below which no correlation is told."""

COSTLY_MOST = 50_000
"""Sub-ensembles up to which what takes longer is computed."""

PARTIALS = (("accuracy", "mean_accuracy"), ("gain over best", "mean_accuracy"), ("accuracy", "accuracy"))
"""Targets, and the term that is held fixed."""

FEWEST_A_COLUMN = 5
"""Sub-ensembles for each number that a partial correlation fits."""

Figures = dict[str, dict[str, float]]


def correlations(columns: Columns, sizes: Sequence[int]) -> Figures:
    """Return correlations of every term with every target over all sub-ensembles of some sizes.

    The terms of which less means more diverse change their sign, so a positive value always says: the more diverse, or
    the more accurate, on the questions to choose on, the better on the others.

    Returns:
        By term: Spearman's rho under the target's name, and partial rank correlations (`PARTIALS`) as "TARGET | FIXED".
        Where there are not too many sub-ensembles, also Kendall's tau-b with the vote's accuracy, "tau accuracy"; and,
        of a single size, `_fixed_members`. What a constant leaves undefined is left out.
    """
    terms = {name: _signed(name, np.concatenate([columns.fit[size][name] for size in sizes])) for name in MEASURED}
    targets = {name: np.concatenate([columns.test[size][name] for size in sizes]) for name in TARGETS}
    count = len(targets["accuracy"])
    if count < FEWEST:
        return {}
    # A row of ranks less their mean, of length 1: a correlation is the product of two.
    of_terms = {name: _unit(stats.rankdata(values_P)) for name, values_P in terms.items()}
    of_targets = {name: _unit(stats.rankdata(values_P)) for name, values_P in targets.items()}
    bases = {name: _basis(of_terms[name][:, None]) for name in {fixed for _, fixed in PARTIALS}}
    left = {(target, fixed): _left(of_targets[target], bases[fixed]) for target, fixed in PARTIALS}
    more = _fixed_members(columns, sizes[0]) if len(sizes) == 1 and count <= COSTLY_MOST else {}
    found: Figures = {}
    for term, ranks_P in of_terms.items():
        figures = {target: float(ranks_P @ of_targets[target]) for target in TARGETS}
        own = {name: _left(ranks_P, basis_PC) for name, basis_PC in bases.items()}
        figures |= {f"{target} | {name}": float(own[name] @ left_P) for (target, name), left_P in left.items()}
        figures |= more.get(term, {})
        if count <= COSTLY_MOST:
            figures["tau accuracy"] = float(stats.kendalltau(terms[term], targets["accuracy"]).statistic)
        found[term] = {key: value for key, value in figures.items() if np.isfinite(value)}
    return found


def _fixed_members(columns: Columns, size: int) -> Figures:
    """Return partial correlations (of the values, not of their ranks) with the members held fixed.

    Returns:
        By term: "TARGET | accuracies", with a quadratic form of the members' accuracies on the questions to choose on,
        from the best to the worst, held fixed; and "accuracy | who", with an effect of every member that is in, and one
        of the one that is best, held fixed. The gains over the best member and over the members' mean are the
        accuracy less such effects, so for them the latter would be the same number.
    """
    rows_PS = columns.rows[size]
    accuracies_PS = columns.accuracies[rows_PS]
    first, second = np.triu_indices(size)
    member_PM = np.zeros((len(rows_PS), len(columns.accuracies)))
    np.put_along_axis(member_PM, rows_PS.astype(np.intp), 1, axis=1)
    best_PM = np.zeros_like(member_PM)
    np.put_along_axis(best_PM, rows_PS[:, :1].astype(np.intp), 1, axis=1)
    forms = {
        "accuracies": np.hstack([accuracies_PS, accuracies_PS[:, first] * accuracies_PS[:, second]]),
        "who": np.hstack([member_PM, best_PM]),
    }
    bases = {name: _basis(_centred(form_PC)) for name, form_PC in forms.items()}
    bases = {name: basis_PC for name, basis_PC in bases.items() if len(rows_PS) >= FEWEST_A_COLUMN * basis_PC.shape[1]}
    wanted = [("accuracy", "accuracies"), ("gain over best", "accuracies"), ("accuracy", "who")]
    targets = {
        (target, name): _left(_unit(columns.test[size][target]), bases[name])
        for target, name in wanted
        if name in bases
    }
    found: Figures = {}
    for term in MEASURED:
        values_P = _unit(_signed(term, columns.fit[size][term]))
        own = {name: _left(values_P, basis_PC) for name, basis_PC in bases.items()}
        found[term] = {f"{target} | {name}": float(own[name] @ left_P) for (target, name), left_P in targets.items()}
    return found


def shared(results: Sequence[Mapping[str, Figures]]) -> list[dict[str, Figures]]:
    """Return the figures of several splits without those that are undefined on one of them."""
    return [
        {
            size: {
                term: {
                    key: value for key, value in figures.items() if all(key in other[size][term] for other in results)
                }
                for term, figures in terms.items()
            }
            for size, terms in result.items()
        }
        for result in results
    ]


def _signed(name: str, values_P: FloatArray) -> FloatArray:
    return -values_P if TERMS[name].higher_is_better is False else values_P


def _unit(values_P: FloatArray) -> FloatArray:
    """Return values less their mean, scaled to length 1; nan where nothing is left."""
    centred_P = values_P - values_P.mean()
    length = float(np.sqrt(centred_P @ centred_P))
    # Next to the ranks of thousands of sub-ensembles, or to rows of length 1, this is rounding.
    return np.asarray(centred_P / length if length > 1e-6 else np.full_like(centred_P, np.nan))


def _centred(form_PC: FloatArray) -> FloatArray:
    """Return columns less their means, scaled to length 1; constant ones are left out."""
    centred_PC = form_PC - form_PC.mean(axis=0)
    lengths_C = np.sqrt((centred_PC**2).sum(axis=0))
    kept_C = lengths_C > 1e-9
    return np.asarray(centred_PC[:, kept_C] / lengths_C[kept_C])


def _basis(form_PC: FloatArray) -> FloatArray:
    """Return orthonormal columns that span the given ones, which are finite and of length 1."""
    vectors_PC, values_C, _ = np.linalg.svd(form_PC, full_matrices=False)
    return np.asarray(vectors_PC[:, values_C > 1e-9])


def _left(ranks_P: FloatArray, basis_PC: FloatArray) -> FloatArray:
    """Return what a straight line in the basis does not explain, scaled to length 1."""
    return _unit(ranks_P - basis_PC @ (basis_PC.T @ ranks_P))
