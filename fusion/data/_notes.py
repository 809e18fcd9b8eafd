"""What somebody who reads figures of a table should know about how its answers were made and read."""

from collections.abc import Iterator

from fusion.data._table import PredictionTable
from fusion.schema import FINAL


def table_notes(table: PredictionTable) -> tuple[str, ...]:
    """Return sentences on calls that failed, cells that could not be read, answers read as text, missed answers."""
    notes = [*_failures(table)]
    unreadable = table.provenance.get("unreadable")
    for name, seen in unreadable.items() if isinstance(unreadable, dict) else ():
        if isinstance(seen, dict):
            notes.append(
                f"{seen.get('count')} answers of {name} are not a letter and count as none, such as "
                f"{seen.get('example')!r}"
            )
    if table.provenance.get("cells") == "text":
        notes.append("answers are read as text: the options of a question are the distinct answers to it")
    missed = 0 if table.labels is None else int((table.labels < 0).sum())
    if missed and table.provenance.get("open"):
        notes.append(f"on {missed} questions nobody gave the right answer, or it is not among the options")
    elif missed:
        # Where options are what agents answered, a fuser may write an answer that is none of them.
        whom = "everybody" if table.references is None else "everybody who chooses among the answers given"
        notes.append(f"the right answer is not among the options of {missed} questions; they are wrong for {whom}")
    return tuple(notes)


def _failures(table: PredictionTable) -> Iterator[str]:
    """Yield, for every agent of a recording that lost calls, how many and why."""
    recorded = table.provenance.get("statuses")
    for name, counts in recorded.items() if isinstance(recorded, dict) else ():
        if not isinstance(counts, dict) or name not in table.agents:
            continue
        numbers = {status: count for status, count in counts.items() if isinstance(count, int)}
        lost = {status: count for status, count in numbers.items() if status not in FINAL}
        if lost:
            share = 100 * sum(lost.values()) / sum(numbers.values())
            listed = ", ".join(f"{count} {status}" for status, count in sorted(lost.items()))
            yield f"{share:.1f} % of the calls of {name} failed when it was recorded ({listed}) and count as no answer"
