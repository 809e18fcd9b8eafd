"""Reports to render: one with every section, and ones that lack something."""

import itertools
from typing import Any

import numpy as np

from fusion.reports.html import (
    AnsweredPart,
    ConfidenceRow,
    MemberWorth,
    PolicyTable,
    ReportData,
    StabilityRow,
    SubsetCloud,
    SystemRow,
    WeightTable,
)

HOSTILE = '</script><script>window.hit=1</script>"\'<!--<img src=x onerror="window.hit=2">{{title}} \u00fc\u4e2d'


def make_report(num_questions: int = 40, num_agents: int = 4, **fields: Any) -> ReportData:
    """A report with every section, from seeded random answers."""
    rng = np.random.default_rng(7)
    answers = rng.integers(-1, 4, size=(num_questions, num_agents)).astype(np.int8)
    labels = rng.integers(0, 4, size=num_questions)
    labels[:2] = -1
    agents = tuple(f"agent-{number}" for number in range(num_agents))
    values: dict[str, Any] = {
        "title": "A report",
        "verdict": ("The vote wins.", "By 2 points."),
        "agents": agents,
        "answers": answers,
        "question_ids": tuple(f"q{number}" for number in range(num_questions)),
        "labels": labels,
        "categories": tuple(("law", "maths", "art")[number % 3] for number in range(num_questions)),
        "option_texts": tuple(("one", "two", "three", "four") for _ in range(num_questions)),
        "question_texts": tuple(f"What is {number}?" for number in range(num_questions)),
        "ensembles": {"all+vote": answers[:, 0], "top+vote": answers[:, -1]},
        "systems": (
            SystemRow(name="a", label="agent-0", role="member", accuracy=0.5, low=0.4, high=0.6, calls_per_question=1),
            SystemRow(name="s", label="all+vote", role="system", accuracy=0.7, low=0.6, high=0.8, calls_per_question=4),
        ),
        "subsets": make_cloud(num_agents),
        "worth": MemberWorth(
            agents=agents,
            loo=rng.normal(size=num_agents) / 100,
            shapley=np.zeros(num_agents),
            shapley_low=np.full(num_agents, -0.01),
            shapley_high=np.full(num_agents, 0.01),
        ),
        "stability": (StabilityRow(agents=agents[:2], share=0.75),),
        "confidences": (
            make_confidence("all+vote"),
            make_confidence("best single", role="baseline", counts=[40], coverage=[1.0]),
        ),
        "weights": (make_weights("all+weighted_vote", agents),),
        "policies": (make_policy("all+vote", agents),),
        "notes": ("no samples",),
        "provenance": {"command": "fusion report"},
    }
    return ReportData(**(values | fields))


def make_confidence(label: str = "all+vote", **fields: Any) -> ConfidenceRow:
    """What a system says: two bins, the second one promising too much, and a curve of three points."""
    counts = np.array(fields.pop("counts", [10, 30]))
    coverage = np.array(fields.pop("coverage", [0.25, 0.5, 1.0]))
    values: dict[str, Any] = {
        "label": label,
        "role": "system",
        "error": 0.1,
        "low": 0.05,
        "high": 0.2,
        "counts": counts,
        "confidence": np.array([0.5, 0.9])[: len(counts)],
        "accuracy": np.array([0.6, 0.8])[: len(counts)],
        "accuracy_low": np.array([0.3, 0.6])[: len(counts)],
        "accuracy_high": np.array([0.8, 0.9])[: len(counts)],
        "coverage": coverage,
        "risk": np.array([0.1, 0.2, 0.3])[-len(coverage) :],
        "aurc": 0.2,
        "answered": AnsweredPart(risk=0.2, coverage=0.5, error=0.2, low=0.1, high=0.4),
    }
    return ConfidenceRow(**(values | fields))


def make_weights(label: str, agents: tuple[str, ...]) -> WeightTable:
    """Weights of three categories, falling from agent to agent; the last one of several speaks against itself in art.

    Nobody listens to the first one of several in maths.
    """
    value = np.linspace(1.5, 0.5, len(agents)) * np.array([[1.0], [0.8], [0.6]])
    if len(agents) > 1:
        value[2, -1] = -0.25
        value[1, 0] = np.nan
    return WeightTable(
        label=label, agents=agents, categories=("law", "maths", "art"), counts=np.array([20, 12, 8]), value=value
    )


def make_policy(label: str, agents: tuple[str, ...], **fields: Any) -> PolicyTable:
    """A policy that always begins with the first agent, asks the second one in half of law, and nobody else."""
    asked = np.zeros((3, len(agents)))
    asked[:, 0] = 1
    asked[0, 1:2] = 0.5
    ends = np.zeros(len(agents))
    ends[0] = 0.75 if len(agents) > 1 else 1
    ends[1:2] = 0.25
    values: dict[str, Any] = {
        "label": label,
        "agents": agents,
        "rows": ("law", "maths", "art"),
        "counts": np.array([20, 12, 8]),
        "asked": asked,
        "accuracy": np.array([0.8, 0.5, 0.75]),
        "calls": asked.sum(axis=1),
        "first": np.eye(len(agents))[0],
        "ends": ends,
        "curve": np.array([[1.0, 0.6, 0.5, 0.7], [1.25, 0.7, 0.6, 0.8]]),
    }
    return PolicyTable(**(values | fields))


def make_cloud(num_agents: int, *, most: int = 3) -> SubsetCloud:
    """All sub-ensembles of up to `most` agents, with seeded random numbers."""
    sets = [chosen for size in range(1, most + 1) for chosen in itertools.combinations(range(num_agents), size)]
    members = np.full((len(sets), most), -1, dtype=np.int16)
    for row, chosen in enumerate(sets):
        members[row, : len(chosen)] = chosen
    rng = np.random.default_rng(11)
    focal, accuracy, objective, test, cost = rng.random((5, len(sets))).astype(np.float32)
    best = int(accuracy.argmax())
    front = np.unique([best, int(focal.argmax())])
    return SubsetCloud(
        members=members,
        focal=focal,
        accuracy=accuracy,
        objective=objective,
        test_accuracy=test,
        cost=cost / 1000,
        best=best,
        pareto=front,
    )


VARIANTS: dict[str, dict[str, Any]] = {
    "everything": {},
    "one question": {"num_questions": 1, "labels": np.array([1])},
    "one agent": {"num_agents": 1, "subsets": None},
    "sixty agents": {"num_agents": 60, "subsets": None},
    "no categories": {"categories": None},
    "no labels": {"labels": None},
    "no texts": {"option_texts": None, "question_texts": None},
    "no ensembles": {"ensembles": {}},
    "bare": {
        **dict.fromkeys(
            ("labels", "categories", "option_texts", "question_texts", "subsets", "worth", "stability"), None
        ),
        **{"confidences": (), "weights": (), "policies": ()},
        **{"ensembles": {}, "systems": (), "notes": (), "provenance": {}, "verdict": ()},
    },
    "all right": {"answers": np.zeros((40, 4), dtype=np.int16), "labels": np.zeros(40, dtype=np.int64)},
    "wide answers": {"answers": np.full((40, 4), 1000, dtype=np.int16)},
}
