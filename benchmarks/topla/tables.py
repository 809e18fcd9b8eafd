"""The tables of README.md, from the figures of a run."""

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.topla.judge import FUSERS, over_splits

Figures = dict[str, Any]

RIVALS = ("best single", "full pool", "top k")
SHOWN_SPACES = ("3", "5", "2-8")
SHOWN_SIZES = ("4",)
FIXED_SIZES = ("2", "3", "5", "8")
PREDICTED = {
    "gain over best": "gain over its best member",
    "gain over mean": "gain over its members' mean",
    "accuracy | mean_accuracy": "accuracy, mean member accuracy fixed",
    "accuracy | accuracies": "accuracy, all member accuracies fixed",
    "gain over best | accuracies": "gain over best, all member accuracies fixed",
    "accuracy | who": "accuracy or gain, who is in it fixed",
    "accuracy | accuracy": "accuracy, the vote's on fit fixed",
}


def markdown(result: Figures, *, everything: bool) -> str:
    """Return the tables.

    Args:
        result: What a run wrote.
        everything: Whether to tell of all sizes and spaces, or of those that README.md shows.
    """
    ratio = result["n_test"] / result["n_fit"]
    parts = [
        f"{result['splits']} splits, {result['n_fit']:,} questions to choose on, {result['n_test']:,} others; "
        f"{result['seconds']:.0f} seconds."
    ]
    for name, pool in result["pools"].items():
        title = f"{name}, {len(pool['agents'])} models"
        parts += [f"### A. Spearman's rho with the vote's accuracy on other questions: {title}", _by_size(pool)]
        for size in pool["correlations"] if everything else SHOWN_SIZES:
            if size in pool["correlations"]:
                parts += [f"### A. Rank correlations at size {size}: {title}", _at_size(pool, size)]
        if everything:
            parts += [
                f"### A. Kendall's tau with the vote's accuracy on other questions: {title}",
                _by_size(pool, "tau "),
            ]
        for fuser in FUSERS:
            spaces = (
                list(pool["spaces"]) if everything else [space for space in SHOWN_SPACES if space in pool["spaces"]]
            )
            parts += [
                f"### B. What is chosen is worth, settled by {fuser}: {title}",
                _worth(pool, fuser, spaces, ratio),
            ]
        for fuser in FUSERS:
            parts += [f"### C. Criteria against each other, settled by {fuser}: {title}", _paired(pool, fuser, ratio)]
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _by_size(pool: Figures, kind: str = "") -> str:
    known = pool["correlations"]
    sizes = [size for size, terms in known.items() if f"{kind}accuracy" in terms["accuracy"]]

    def rows() -> Iterator[Sequence[str]]:
        for term in known[sizes[0]]:
            yield [_code(term), *(_mean(known[size][term][f"{kind}accuracy"]) for size in sizes)]

    spread = max(
        max(figures[f"{kind}accuracy"]) - min(figures[f"{kind}accuracy"])
        for size in sizes
        for figures in known[size].values()
    )
    table = _table(["measured on the questions to choose on", *sizes], rows())
    return f"{table}\n\nMeans over the splits; the widest range over splits of any of these figures is {spread:.2f}."


def _at_size(pool: Figures, size: str) -> str:
    known = pool["correlations"][size]
    columns = [name for name in PREDICTED if any(name in figures for figures in known.values())]

    def rows() -> Iterator[Sequence[str]]:
        for term, figures in known.items():
            yield [_code(term), *(_ranged(figures.get(name)) for name in columns)]

    return _table(["measured", *(PREDICTED[name] for name in columns)], rows())


def _worth(pool: Figures, fuser: str, spaces: Sequence[str], ratio: float) -> str:
    single, full = pool["best single"], pool["full pool"][fuser]

    def rows() -> Iterator[Sequence[str]]:
        yield ["", "best single member", _percent(single["accuracy"]), "", "", "", ""]
        yield ["", "full pool", _percent(full), "", "", "", ""]
        for space in spaces:
            scale, chosen = pool["spaces"][space]["all"], pool["spaces"][space]["chosen"]
            for name, figures in _grouped(chosen):
                fit = figures["fit"]["accuracy" if fuser == "vote" else "weighted_vote"]
                test = figures["test"][fuser]
                optimism = [a - b for a, b in zip(fit, test, strict=True)]
                against = (_difference(over_splits(figures["against"][fuser][rival], ratio)) for rival in RIVALS)
                yield [space, name, _percent(test), f"{100 * _average(optimism):+.1f}", *against]
            if fuser == "vote":
                optimism = [a - b for a, b in zip(scale["mean fit"], scale["mean test"], strict=True)]
                mean = _percent(scale["mean test"])
                yield [space, "*one at random*", mean, f"{100 * _average(optimism):+.1f}", "", "", ""]
                yield [space, "*best on test, in hindsight*", _percent(scale["best on test"]), "", "", "", ""]

    head = ["sizes", "chosen by", "test, %", "fit less test", *(f"less {rival}" for rival in RIVALS)]
    return _table(head, rows())


def _grouped(chosen: Figures) -> list[tuple[str, Figures]]:
    """Return criteria with their figures, those that chose the same on all splits as one."""
    names: dict[str, list[str]] = {}
    for name, figures in chosen.items():
        names.setdefault(str(figures["agents"]), []).append(name)
    return [("; ".join(same), chosen[same[0]]) for same in names.values()]


def _paired(pool: Figures, fuser: str, ratio: float) -> str:
    spaces = [
        space for space in FIXED_SIZES if pool["spaces"].get(space, {}).get("all", {"count": [1]})["count"][0] > 1
    ]

    def rows() -> Iterator[Sequence[str]]:
        for pair in pool["spaces"][spaces[0]]["pairs"]:
            cells = (_difference(over_splits(pool["spaces"][space]["pairs"][pair][fuser], ratio)) for space in spaces)
            yield [pair.replace(" - ", " less "), *cells]

    return _table(["difference on other questions", *spaces], rows())


def _difference(found: dict[str, float | None]) -> str:
    """Return "mean (interval), better:worse" in points; the counts are of splits."""
    mean, low, high = found["mean"], found["low"], found["high"]
    assert mean is not None
    if low is None or high is None:
        return "same" if mean == 0 else _points(mean)
    return f"{_points(mean)} ({_points(low)} to {_points(high)}), {found['better']}:{found['worse']}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _percent(values: Sequence[float]) -> str:
    return f"{100 * _average(values):.1f}"


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean(values: Sequence[float]) -> str:
    return f"{_average(values):.2f}"


def _ranged(values: Sequence[float] | None) -> str:
    return "" if values is None else f"{_average(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _code(term: str) -> str:
    return f"`{term}`"
