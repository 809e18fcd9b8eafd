"""The verdict: what came out, in one sentence, said plainly when the ensemble does not win."""

from collections.abc import Sequence

from fusion.evaluation._result import PairedResult, SystemResult

_ALPHA = 0.05


def verdict(systems: Sequence[SystemResult], paired: Sequence[PairedResult], *, best: str) -> str:
    """Return one sentence on every system that was asked for.

    A system beats another when its accuracy is higher and the p-value, adjusted over the family, is below 5 %.

    Args:
        systems: All results, baselines included.
        paired: The comparisons.
        best: The agent behind the best-single baseline.
    """
    clauses: list[str] = []
    by_name = {result.name: result for result in systems}
    for result in systems:
        if result.role != "system":
            continue
        against_best = [pair for pair in paired if pair.a == result.name and pair.family == "best single"]
        if not against_best:
            clauses.append(f"{result.name} is the best single member, {best}, itself")
            continue
        clauses.append(_clause(result, against_best[0], best, first=not clauses))
        others = [pair for pair in paired if pair.a == result.name and pair.family == "other baselines"]
        unbeaten = [pair for pair in others if not beats(pair)]
        if beats(against_best[0]) and unbeaten:
            named = " and ".join(
                f"{said(pair)} {by_name[pair.b].label} ({points(pair.difference)})" for pair in unbeaten
            )
            clauses[-1] += f", but {named}"
    if not clauses:
        return "No system was asked for that could win: upper bounds read the labels."
    return "; ".join(clauses) + "."


def beats(pair: PairedResult) -> bool:
    """Tell whether `pair.a` is better than `pair.b` beyond chance."""
    return pair.difference > 0 and pair.holm_p < _ALPHA


def said(pair: PairedResult) -> str:
    """Return in words how `pair.a` stands to `pair.b`."""
    if beats(pair):
        return "beats"
    return "is worse than" if pair.difference < 0 and pair.holm_p < _ALPHA else "does not beat"


def _clause(result: SystemResult, pair: PairedResult, best: str, *, first: bool) -> str:
    """Say how one system stands against the best single member; only the first clause says it at length."""
    interval = f"95 % CI {points(pair.ci95[0])} to {points(pair.ci95[1])}"
    calls = f"at {_calls(result.calls_per_question)} a question"
    if first:
        against = f"the best single member, {best}: {points(pair.difference)} points"
        return f"{result.name} {said(pair)} {against} ({interval}, {p_value(pair)}, n = {pair.n}) {calls} against 1"
    figures = f"{points(pair.difference)} ({interval}, Holm p {_p(pair.holm_p)})"
    return f"{result.name} {said(pair)} that member: {figures} {calls}"


def _calls(count: float) -> str:
    return "1 call" if count == 1 else f"{count:.3g} calls"


def points(fraction: float) -> str:
    """Return a difference of fractions as signed percentage points."""
    return f"{100 * fraction:+.1f}"


def p_value(pair: PairedResult) -> str:
    """Return the p-value that counts in words, with the test it came from."""
    adjusted = f", Holm {_p(pair.holm_p)}" if pair.holm_p != pair.p else ""
    return f"{pair.test} p {_p(pair.p)}{adjusted}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"
