"""Sample files of lm-evaluation-harness (`samples_<task>_<time>.jsonl`, written by --log_samples).

Three kinds of tasks are understood:

* log-likelihoods over options (mmlu, arc, truthfulqa_mc1): `probs` is the softmax of the options' summed
  log-likelihoods, the answer the highest of them, as in the harness's `acc` (not the length-normalised
  `acc_norm`);
* generated letters (mmlu_pro, mmlu_generative): the filtered response is an option of the document;
* generated answers (gsm8k): the filtered response is an open answer.

In the last two a response that no filter rule matched ("[invalid]") or an empty one abstains.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fusion.data._assemble import Answer, QuestionInfo, assemble, chosen
from fusion.data._lm_eval_sample import SAMPLE, Sample, option_index, read_sample, references
from fusion.data._records import Kind, Paths, as_paths, given_names, read_document, read_lines
from fusion.data._table import PredictionTable
from fusion.errors import InvalidTable, UnknownName, UnreadableTable
from fusion.schema import Json

_RESULTS = Kind("the results of lm-evaluation-harness", "repair or remove the file, or name the agents")
_NAME = re.compile(r"samples_(?P<task>.+?)_(?P<time>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)")


def read_lm_eval(paths: Paths, *, agents: Sequence[str] | None = None, filter: str | None = None) -> PredictionTable:
    """Read what lm-evaluation-harness logged of one or several models.

    Question ids are `task/doc_id`, or the document's own `question_id` where all documents of a task have
    one that no other has. Categories are the document's `subject` or `category`, else the task's name.
    An agent is named after the `model_name` in the results file beside its samples, else after the
    folder. Repeats become samples where the filter keeps them all.

    Args:
        paths: Sample files and folders of them (searched through).
        agents: Names of the agents, one for each path.
        filter: Which of a task's filters to take the answers from; tasks that have only one keep to it.
            By default flexible-extract where there is one, else the last.

    Raises:
        UnreadableTable: When a file is missing, empty, cut off or of another kind.
        InvalidTable: When files contradict each other, or a task has no single right option.
        UnknownName: When a task has several filters but not `filter`, or no task has it.
        UsageError: When there are no paths, or not as many names.
    """
    sources = as_paths(paths)
    files = [
        _read_file(path, name)
        for source, name in zip(sources, given_names(sources, agents), strict=True)
        for path in _sample_files(source)
    ]
    files = _with_filter(files, filter)
    own_ids = _tasks_with_own_ids(files)
    answers: list[Answer] = []
    questions: list[QuestionInfo] = []
    labels = _right_options(files)
    for file in files:
        for sample in sorted(file.samples, key=lambda sample: sample.doc_id):
            id = sample.own_id if file.task in own_ids else f"{file.task}/{sample.doc_id}"
            questions.append(_question(id, file.task, sample, labels.get(sample.place)))
            answers.extend(_answers(id, file.agent, sample))
    notes: dict[str, Json] = {
        "format": "lm-eval",
        "files": [f"{file.path.parent.name}/{file.path.name}" for file in files],
        "filters": {file.task: file.samples[0].filter for file in files},
    }
    return assemble(answers, questions=questions, provenance=notes)


@dataclass(frozen=True, slots=True)
class _File:
    """The samples of one model on one task."""

    path: Path
    task: str
    agent: str
    samples: tuple[Sample, ...]


def _sample_files(source: Path) -> list[Path]:
    if not source.is_dir():
        if source.suffix == ".json" or source.name.startswith("results_"):
            raise UnreadableTable(f"{source} is not a file of samples; {SAMPLE.remedy}")
        return [source]
    found = sorted(source.rglob("samples_*.jsonl"))
    if not found:
        summary = " (only results, without single answers)" if any(source.rglob("results_*.json")) else ""
        raise UnreadableTable(f"{source} has no samples_*.jsonl in it{summary}; {SAMPLE.remedy}")
    return found


def _read_file(path: Path, agent: str | None) -> _File:
    samples = tuple(read_sample(record) for record in read_lines(path, SAMPLE))
    named = _NAME.match(path.name)
    task = named.group("task") if named else path.stem.removeprefix("samples_")
    return _File(path, task, agent or _model_name(path), samples)


def _model_name(path: Path) -> str:
    named = _NAME.match(path.name)
    same_run = sorted(path.parent.glob(f"*_{named.group('time')}.json")) if named else []
    for results in same_run or sorted(path.parent.glob("results_*.json"), reverse=True):
        name = read_document(results, _RESULTS).content.get("model_name")
        if isinstance(name, str) and name:
            return name
    return path.resolve().parent.name.replace("__", "/")


def _with_filter(files: Sequence[_File], filter: str | None) -> list[_File]:
    """Keep of every file the samples of one filter."""
    known = list(dict.fromkeys(sample.filter for file in files for sample in file.samples))
    if filter is not None and filter not in known:
        raise UnknownName(kind="filter", name=filter, known=known)
    kept = []
    for file in files:
        names = list(dict.fromkeys(sample.filter for sample in file.samples))
        name = filter or ("flexible-extract" if "flexible-extract" in names else names[-1])
        if len(names) == 1:
            name = names[0]
        elif name not in names:
            raise UnknownName(kind=f"filter (of {file.path})", name=name, known=names)
        kept.append(replace(file, samples=tuple(sample for sample in file.samples if sample.filter == name)))
    return kept


def _tasks_with_own_ids(files: Sequence[_File]) -> set[str]:
    """Return the tasks whose documents have ids of their own that tell all questions apart."""
    ids: dict[str, set[str]] = {}
    for file in files:
        ids.setdefault(file.task, set()).update(sample.own_id for sample in file.samples)
    counts = Counter(id for own in ids.values() for id in own)
    lacking = {file.task for file in files if len({s.own_id for s in file.samples}) < len(file.samples)}
    return {task for task, own in ids.items() if "" not in own and all(counts[id] == 1 for id in own)} - lacking


def _right_options(files: Sequence[_File]) -> dict[str, int]:
    """Return by place the right option of every sample with log-likelihoods."""
    samples: dict[str, list[Sample]] = {}
    for file in files:
        samples.setdefault(file.task, []).extend(sample for sample in file.samples if sample.logprobs)
    return {
        place: label
        for task, members in samples.items()
        if members
        for place, label in _right_options_of_task(task, members).items()
    }


def _right_options_of_task(task: str, samples: Sequence[Sample]) -> dict[str, int]:
    # The harness writes an index and a text alike, and sometimes neither, so every reading of the target
    # is held against the scores that the task gave.
    for reading in (_label_as_index, _label_as_text, _label_from_outcome):
        labels = {sample.place: reading(sample) for sample in samples}
        known = {place: label for place, label in labels.items() if label is not None}
        told = len(known) == len(labels) and any(label >= 0 for label in known.values())
        if told and all(_fits(sample, known[sample.place]) for sample in samples):
            return known
    raise InvalidTable(
        f"task {task}, {samples[0].place}: which option is right cannot be told, as no reading of target "
        "agrees with acc. Tasks with several right options (truthfulqa_mc2) or a scoring of their own cannot "
        "be imported; take one with a single right option (truthfulqa_mc1)"
    )


def _label_as_index(sample: Sample) -> int | None:
    if re.fullmatch("[0-9]{1,9}", sample.target) is None:
        return None
    index = int(sample.target)
    return index if index < len(sample.options) else -1


def _label_as_text(sample: Sample) -> int | None:
    text = sample.target.strip()
    return sample.names.index(text) if text in sample.names else -1


def _label_from_outcome(sample: Sample) -> int | None:
    best = chosen(sample.logprobs)
    if best is None or sample.outcome not in (0, 1):
        return None
    if sample.outcome == 1:
        return best
    return 1 - best if len(sample.options) == 2 else None


def _fits(sample: Sample, label: int) -> bool:
    best = chosen(sample.logprobs)
    return sample.outcome is None or best is None or sample.outcome == (best == label)


def _question(id: str, task: str, sample: Sample, label: int | None) -> QuestionInfo:
    info = QuestionInfo(id=id, source=sample.place, category=sample.category or task, text=sample.question)
    if sample.options:
        label = option_index(sample.target, sample) if label is None else label
        return replace(info, options=sample.options, label=label)
    return replace(info, references=references(sample.target))


def _answers(id: str, agent: str, sample: Sample) -> list[Answer]:
    if sample.logprobs:
        choice = chosen(sample.logprobs)
        logprobs = None if choice is None else sample.logprobs
        return [
            Answer(
                question_id=id,
                agent=agent,
                source=sample.place,
                choice=choice,
                logprobs=logprobs,
                failed=choice is None,
            )
        ]
    answers = []
    for r, text in enumerate(sample.filtered):
        unread = text.strip().casefold() in ("", "[invalid]")
        answers.append(
            Answer(
                question_id=id,
                agent=agent,
                source=sample.place,
                sample=r,
                choice=option_index(text, sample) if sample.options else None,
                text=None if sample.options or unread else text,
                right=None if sample.outcome is None else sample.outcome == 1,
                raw=sample.raw[r] if r < len(sample.raw) else None,
            )
        )
    return answers
