"""Results as tables for the terminal. Percent only appears here; everything below works in fractions."""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from fusion.evaluation import BenchResult, CompareResult, PairedResult, SelectiveResult, SystemResult
from fusion.explanation import AgentPart, Explanation, OptionPart
from fusion.pruning import AdditionResult, Evidence, PruneResult, SubsetResult, WorthResult
from fusion.schema import Json

_NAME_WIDTH = 11  # of a column of names at the least: where all columns do not fit, names fold, never vanish
_MOST_ADDITIONS = 5
_STOPS = (1, 2, 4)  # calls at most after which the accuracy of a policy is shown
_MOST_CHARACTERS = 500  # of a question in the terminal
_STYLES = {"system": "bold", "baseline": "", "upper_bound": "dim", "member": ""}

_Column = tuple[str, Callable[[SystemResult], str]]


def bench_tables(result: BenchResult) -> list[Table]:
    """Return the tables of an evaluation: members, systems, what policies do if there are any, comparisons."""
    tables = [_members(result), _systems(result)]
    if any(item.policy is not None for item in result.systems):
        tables.append(_policies(result))
    return tables + ([_paired(result.paired, _labels(result))] if result.paired else [])


def compare_table(result: CompareResult) -> Table:
    """Return the table of a comparison of two runs."""
    return _paired([result.paired], {})


def prune_tables(result: PruneResult) -> list[Table]:
    """Return the tables of a pruning: the best sub-ensembles, and what the first of them is compared with."""
    if not result.paired:
        return [_subsets(result)]
    tables = [_subsets(result), _rivals(result), _paired(result.paired, {result.paired[0].a: "1"})]
    if result.evidence is not None and result.evidence.worth is not None:
        tables.append(_member_worth(result.evidence.worth, result.n))
    if result.evidence is not None and result.evidence.additions:
        tables.append(_additions(result.evidence.additions[:_MOST_ADDITIONS], result.n))
    return tables


def evidence_sentences(evidence: Evidence) -> tuple[str, ...]:
    """Return what the evidence says of the choice, in sentences."""
    told = []
    if evidence.stability is not None:
        found, best = evidence.stability, evidence.stability.subsets[0]
        told.append(
            f"in the top {found.top} in {best.in_top} of {found.resamples} resamples of the questions, the best in "
            f"{best.best}; {found.different_winners} different sub-ensembles came out best"
        )
    if evidence.optimism is not None:
        found_bias = evidence.optimism
        told.append(
            f"chosen on all folds but one, the winner is {100 * found_bias.optimism:+.1f} points better there than on "
            f"the fold left out (standard error {100 * found_bias.stderr:.1f}); corrected for that, its vote has "
            f"{percent(found_bias.corrected_accuracy)} %"
        )
    return tuple(told)


def fit_sentence(found: Mapping[str, Json]) -> str:
    """Return what `fusion fit` did, in a sentence; `found` is its JSON."""
    agents, accuracy = found["agents"], found["accuracy"]
    assert isinstance(agents, list), "the JSON of a fit lists its agents"
    fitted = f"fitted {found['system']} on {found['n']} questions and {len(agents)} agents"
    if not isinstance(accuracy, float):
        return f"{fitted}; how it does on others, fusion bench measures"
    return (
        f"{fitted}; it answers {percent(accuracy)} % of these right, which is optimistic: they are what it learned "
        "from (fusion bench measures on others)"
    )


def explanation_lines(found: Explanation) -> tuple[list[str], list[str]]:
    """Return what is said of a question above the tables of an explanation, and below them."""
    head = [f"question {found.question_id}" + (f", category {found.category}" if found.category else "")]
    if found.question is not None:
        head.append(textwrap.indent(_bounded(found.question), "  "))
    names = [chr(ord("A") + k) if k < 26 else str(k) for k in range(len(found.texts or ()))]
    head += [f"  {name}: {text}" for name, text in zip(names, found.texts or (), strict=True)]
    if found.correct is not None:
        head.append(f"right answer: {found.right_answer or 'none of the options'}")
    verdict = {None: "", True: " (right)", False: " (wrong)"}[found.correct]
    said = [f"answer: {found.answer or 'none'}{verdict}"]
    if found.written:
        said.append("written by the fuser")
    if found.confidence is not None and found.answer is not None:
        said.append(f"{'confidence' if found.stated else 'share'} {percent(found.confidence)} %")
    if found.runner_up is not None and found.margin is not None:
        margin = f"{percent(found.margin)} points" if found.measure == "probability" else f"{found.margin:.3g}"
        said.append(f"runner-up {found.runner_up}, {margin} of {found.measure} behind")
    return head, [", ".join(said), f"why: {found.decided}.", *(f"note: {note}" for note in found.notes)]


def explanation_tables(found: Explanation) -> list[Table]:
    """Return the tables of an explanation: agents, those that were followed first, and options."""
    return [_agents(found), *([_options(found)] if found.options else [])]


def _bounded(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS].rstrip()} [...]"


def percent(fraction: float) -> str:
    """Return a fraction as a percentage with one decimal."""
    return f"{100 * fraction:.1f}"


def _members(result: BenchResult) -> Table:
    table = _empty(f"Members alone ({result.n} questions)")
    ordered = sorted(result.members, key=lambda member: -member.accuracy)
    return _filled(table, ordered, "agent", lambda member: member.name, with_calls=False)


def _systems(result: BenchResult) -> Table:
    table = _empty(f"Systems, fitted on {result.n_fit} other questions")
    return _filled(table, result.systems, "system", lambda system: system.label, with_calls=True)


def _policies(result: BenchResult) -> Table:
    table = _empty("What policies do; more of it in fusion report")
    table.add_column("system", overflow="fold", min_width=_NAME_WIDTH)
    table.add_column("asks first", overflow="fold", min_width=_NAME_WIDTH)
    stops = [f"right %, if\nstopped at {most}" if most == _STOPS[0] else f"\n{most}" for most in _STOPS]
    for heading in ("end after\none call %", "most\ncalls", *stops, "\nnever"):
        table.add_column(heading, justify="right", no_wrap=True)
    for item in result.systems:
        card = item.policy
        if card is None:
            continue
        first = max(range(len(card.agents)), key=card.first.__getitem__)
        right = [percent(point.accuracy) for point in card.curve]
        longest = max((count for count, share in enumerate(card.ends, start=1) if share), default=0)
        stopped = (right[most - 1] if most < len(right) else "" if right else "-" for most in _STOPS)
        table.add_row(
            Text(item.label),
            Text(f"{card.agents[first]} ({100 * card.first[first]:.0f} %)"),
            percent(card.ends[0]),
            str(longest),
            *stopped,
            percent(item.accuracy),
        )
    return table


def _subsets(result: PruneResult) -> Table:
    kind = "all" if result.exhaustive else f"{result.searched} of"
    searched = f"{kind} {result.total} sub-ensembles of {len(result.pool)} agents in {result.seconds:.2f} s"
    table = _empty(f"Best by {result.objective} on {result.n_fit} questions: {searched}")
    judged = result.subsets[0].cv_accuracy is not None
    columns: list[tuple[str, Callable[[SubsetResult], str]]] = [
        ("objective", lambda item: f"{item.objective:.4f}"),
        ("focal\ndiversity", lambda item: _optional(item.focal_diversity, "{:.3f}")),
        ("vote\n%", lambda item: percent(item.accuracy)),
    ]
    if judged:
        columns.append(("fuser,\ncross-val. %", lambda item: _optional(item.cv_accuracy, "{:.1%}").rstrip("%")))
    columns += [
        ("on other\nquestions %", lambda item: percent(item.test_accuracy)),
        ("95 % CI", lambda item: f"{percent(item.test_ci95[0])} to {percent(item.test_ci95[1])}"),
    ]
    if any(item.usd_per_question is not None for item in result.subsets):
        columns.append(("USD/\n1000", lambda item: _optional(_thousand(item.usd_per_question), "{:.3f}")))
    if any(item.seconds_per_question is not None for item in result.subsets):
        columns.append(("seconds", lambda item: _optional(item.seconds_per_question, "{:.2f}")))
    table.add_column("", justify="right")
    table.add_column("agents", overflow="fold", min_width=2 * _NAME_WIDTH)
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for place, item in enumerate(result.subsets, start=1):
        style = "bold" if place == 1 else ""
        table.add_row(str(place), Text(", ".join(item.agents)), *(cell(item) for _, cell in columns), style=style)
    return table


def _rivals(result: PruneResult) -> Table:
    table = _empty(f"What the first is compared with, {result.fuser} on {result.n} other questions")
    table.add_column("what", overflow="fold", min_width=_NAME_WIDTH)
    for heading in ("accuracy\n%", "95 % CI"):
        table.add_column(heading, justify="right", no_wrap=True)
    for rival in result.rivals:
        low, high = (percent(bound) for bound in rival.test_ci95)
        table.add_row(Text(rival.name), percent(rival.test_accuracy), f"{low} to {high}")
    return table


def _member_worth(worth: WorthResult, num_questions: int) -> Table:
    table = _empty(f"What each member is worth, in points of accuracy on {num_questions} other questions")
    table.add_column("agent", overflow="fold", min_width=_NAME_WIDTH)
    for heading in ("without it,\nlost", "95 % CI", "Shapley\nvalue", "95 % CI"):
        table.add_column(heading, justify="right", no_wrap=True)
    for member in worth.members:
        table.add_row(
            Text(member.agent),
            f"{100 * member.leave_one_out:+.1f}",
            _range(member.leave_one_out_ci95),
            f"{100 * member.shapley:+.1f}",
            _range(member.shapley_ci95),
        )
    return table


def _additions(additions: Sequence[AdditionResult], num_questions: int) -> Table:
    table = _empty(f"What one more agent would add, on {num_questions} other questions")
    table.add_column("agent", overflow="fold", min_width=_NAME_WIDTH)
    for heading in ("points", "95 % CI", "p", "Holm\np"):
        table.add_column(heading, justify="right", no_wrap=True)
    for item in additions:
        table.add_row(Text(item.agent), f"{100 * item.difference:+.1f}", _range(item.ci95), _p(item.p), _p(item.holm_p))
    return table


def _agents(found: Explanation) -> Table:
    place = {option.name: position for position, option in enumerate(found.options)}

    def followed_first(item: AgentPart) -> tuple[bool, bool, int, float]:
        others = place.get(item.answer or "", len(place))
        return not item.listened, item.answer is None or item.answer != found.answer, others, -(item.weight or 0.0)

    columns: list[tuple[str, Callable[[AgentPart], str]]] = [
        ("asked", lambda item: "yes" if item.asked else "no"),
        ("listened to", lambda item: "yes" if item.listened else "no"),
        ("answer", lambda item: item.answer or "-"),
    ]
    if any(item.draws for item in found.agents):
        columns.append(("draws", lambda item: " ".join(draw or "-" for draw in item.draws or ())))
    if any(item.weight is not None for item in found.agents):
        columns.append(("weight", lambda item: _optional(item.weight, "{:.3f}")))
    columns.append(("without it", lambda item: (item.without or "no answer") if item.changes else "the same"))
    table = _empty(f"Agents of {found.system}")
    table.add_column("agent", overflow="fold", min_width=_NAME_WIDTH)
    for heading, _ in columns:
        table.add_column(heading, overflow="fold", justify="right" if heading == "weight" else "left")
    for item in sorted(found.agents, key=followed_first):
        style = "" if item.listened else "dim"
        table.add_row(Text(item.agent), *(Text(cell(item)) for _, cell in columns), style=style)
    return table


def _options(found: Explanation) -> Table:
    columns: list[tuple[str, Callable[[OptionPart], str]]] = [("votes", lambda item: str(item.votes))]
    if any(item.weight is not None for item in found.options):
        columns.append(("weight", lambda item: _optional(item.weight, "{:.3f}")))
    if any(item.probability is not None for item in found.options):
        columns.append(("probability %", lambda item: _optional(_hundred(item.probability), "{:.1f}")))
    table = _empty("What the options got")
    table.add_column("option", overflow="fold", min_width=_NAME_WIDTH)
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for item in found.options:
        style = "bold" if item.name == found.answer else ""
        table.add_row(Text(item.name), *(cell(item) for _, cell in columns), style=style)
    return table


def _range(interval: tuple[float, float]) -> str:
    low, high = (f"{100 * bound:+.1f}" for bound in interval)
    return f"{low} to {high}"


def _empty(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)


def _filled(
    table: Table,
    results: Sequence[SystemResult],
    first: str,
    name: Callable[[SystemResult], str],
    *,
    with_calls: bool,
) -> Table:
    columns: list[_Column] = [
        ("accuracy\n%", lambda item: percent(item.accuracy)),
        ("95 % CI", lambda item: f"{percent(item.ci95[0])} to {percent(item.ci95[1])}"),
        ("no\nanswer %", lambda item: percent(item.abstained)),
    ]
    if with_calls:
        columns.append(("calls/\nquestion", lambda item: f"{item.calls_per_question:.3g}"))
    if any(item.tokens_per_question is not None for item in results):
        columns.append(("tokens/\nquestion", lambda item: _optional(item.tokens_per_question, "{:.0f}")))
    if any(item.usd_per_question is not None for item in results):
        columns.append(("USD/\n1000", lambda item: _optional(_thousand(item.usd_per_question), "{:.3f}")))
    asked = next((item.selective for item in results if item.selective is not None), None)
    if asked is not None:
        columns += [
            ("calibr.\nerror %", lambda item: _optional(_hundred(item.calibration_error), "{:.1f}")),
            (f"answers, at\nmost {percent(asked.risk)} % off", lambda item: _answers(item.selective)),
            ("of these\nwrong %", lambda item: _wrong(item.selective)),
        ]
    table.add_column(first, overflow="fold", min_width=_NAME_WIDTH)
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for item in results:
        table.add_row(Text(name(item)), *(cell(item) for _, cell in columns), style=_STYLES[item.role])
    return table


def _hundred(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _answers(found: SelectiveResult | None) -> str:
    return "" if found is None else f"{percent(found.coverage)} %"


def _wrong(found: SelectiveResult | None) -> str:
    if found is None or found.error is None or found.error_ci95 is None:
        return ""
    return f"{percent(found.error)} ({percent(found.error_ci95[0])} to {percent(found.error_ci95[1])})"


def _labels(result: BenchResult) -> dict[str, str]:
    return {system.name: system.label for system in result.systems}


def _paired(pairs: Iterable[PairedResult], labels: Mapping[str, str]) -> Table:
    pairs = list(pairs)
    table = _empty(f"Paired differences in points, {pairs[0].test} test")
    table.add_column("a", overflow="fold", min_width=_NAME_WIDTH)
    table.add_column("b", overflow="fold", min_width=_NAME_WIDTH)
    for heading in ("a - b", "95 % CI", "only\na", "only\nb", "p", "Holm\np"):
        table.add_column(heading, justify="right", no_wrap=True)
    family = None
    for pair in pairs:
        if family not in (None, pair.family):
            table.add_section()
        family = pair.family
        table.add_row(
            Text(labels.get(pair.a, pair.a)),
            Text(labels.get(pair.b, pair.b)),
            f"{100 * pair.difference:+.1f}",
            _range(pair.ci95),
            str(pair.only_a),
            str(pair.only_b),
            _p(pair.p),
            _p(pair.holm_p),
        )
    return table


def _p(value: float) -> str:
    return "<0.0001" if value < 1e-4 else f"{value:.2g}"


def _optional(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _thousand(usd: float | None) -> float | None:
    return None if usd is None else 1000 * usd
