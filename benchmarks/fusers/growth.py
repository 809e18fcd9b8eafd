"""How long fitting and fusing take as questions and agents grow, on tables made from the recorded one."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.fusers.systems import LEARNED, STACKER, Outcome, Told, outcome
from fusion.data import PredictionTable

SYSTEMS = (LEARNED, STACKER)
QUESTIONS, QUICK_QUESTIONS = (1_000, 3_000, 10_000, 30_000, 100_000), (1_000, 3_000)
AGENTS, QUICK_AGENTS = (6, 12, 24, 48), (6, 24)
USUAL_QUESTIONS, QUICK_USUAL_QUESTIONS, USUAL_AGENTS = 5_000, 1_000, 24
FUSED, QUICK_FUSED = 100_000, 5_000
FIT_GOAL, FUSE_GOAL = 5.0, 2.0
"""Seconds to fit 24 agents on 5,000 questions, and to fuse 100,000."""

FLIPPED, COPY_FLIPPED = 0.05, 0.2
"""Share of answers that are changed at random: of every agent, and of an agent's copy."""


def grown(table: PredictionTable, num_questions: int, num_agents: int, *, seed: int) -> PredictionTable:
    """Return a random table: recorded rows drawn again and again under new ids, agents evenly or twice.

    Some answers are changed to random options, so that no two questions need be the same.
    """
    rng = np.random.default_rng([seed, num_questions, num_agents])
    row_N = rng.integers(0, len(table), num_questions)
    step = max(1, table.num_agents // num_agents)
    agent_M = np.arange(0, num_agents * step, step)
    source_M = agent_M % table.num_agents
    answers_NM = table.answers[np.ix_(row_N, source_M)].astype(np.int16)
    num_options_N = table.num_options[row_N]
    share_M = np.where(agent_M < table.num_agents, FLIPPED, COPY_FLIPPED)
    flipped_NM = rng.random(answers_NM.shape) < share_M
    random_NM = rng.integers(0, num_options_N[:, None], answers_NM.shape)
    return PredictionTable(
        question_ids=[f"{seed}/{n}" for n in range(num_questions)],
        agents=[f"{table.agents[source]}/{m}" for m, source in enumerate(source_M.tolist())],
        answers=np.where(flipped_NM, random_NM, answers_NM),
        labels=table.require_labels()[row_N],
        num_options=num_options_N,
        categories=table.require_categories()[row_N],
    )


def compared(table: PredictionTable, *, quick: bool, repeats: int, told: Told) -> dict[str, Any]:
    """Return seconds by system: over questions with 24 agents, over agents, and for the goals."""
    usual = QUICK_USUAL_QUESTIONS if quick else USUAL_QUESTIONS
    by_questions = [(count, USUAL_AGENTS) for count in (QUICK_QUESTIONS if quick else QUESTIONS)]
    by_agents = [(usual, count) for count in (QUICK_AGENTS if quick else AGENTS)]
    goal = (usual, QUICK_FUSED if quick else FUSED, USUAL_AGENTS)
    found: dict[str, Any] = {}
    for system in SYSTEMS:
        found[system] = {"questions": [], "agents": []}
        for kind, sizes in (("questions", by_questions), ("agents", by_agents)):
            for questions, agents in sizes:
                told(f"growth: {system}, {questions:,} questions, {agents} agents")
                times = 1 if questions > 2 * usual else repeats
                found[system][kind].append(_seconds(table, system, (questions, questions, agents), times))
        told(f"growth: {system}, goals")
        found[system]["goals"] = _seconds(table, system, goal, repeats)
    return found | {"fit_goal": FIT_GOAL, "fuse_goal": FUSE_GOAL}


def _seconds(table: PredictionTable, system: str, sizes: tuple[int, int, int], repeats: int) -> dict[str, Any]:
    """Return medians over repeats: fitting on the first number of questions, fusing the second."""
    num_fit, num_fused, agents = sizes
    fit, fused = grown(table, num_fit, agents, seed=0), grown(table, num_fused, agents, seed=1)
    results = [outcome(system, fit, fused) for _ in range(repeats)]
    return {"fitted": num_fit, "fused": num_fused, "agents": agents, **_medians(results)}


def _medians(results: Sequence[Outcome]) -> dict[str, list[float]]:
    return {
        kind: [statistics.median(part) for part in zip(*(getattr(result, kind) for result in results), strict=True)]
        for kind in ("fit", "fuse")
    }
