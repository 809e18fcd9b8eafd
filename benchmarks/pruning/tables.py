"""The tables that sub-ensembles are scored on."""

import os
from pathlib import Path

import numpy as np

from fusion.data import PredictionTable

RECORDED_SHAPE = (24, 8_386)
OPTIONS = 10


def recorded_path() -> Path | None:
    """Return where the recorded answers of 24 models to 8,386 questions of MMLU-Pro are, if there are any."""
    data = Path(os.environ.get("FUSION_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    path = data / "mmlu_pro" / "predictions.csv.gz"
    return path if path.is_file() else None


def random_table(num_agents: int, num_questions: int) -> PredictionTable:
    """Return a votes-only table of agents that know 20 to 70 % of the answers, guess others and abstain on 5 %."""
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, OPTIONS, num_questions, dtype=np.int8)
    answers_NM = np.empty((num_questions, num_agents), np.int8)
    for j, skill in enumerate(rng.uniform(0.2, 0.7, num_agents)):
        guesses_N = rng.integers(0, OPTIONS, num_questions, dtype=np.int8)
        answers_NM[:, j] = np.where(rng.random(num_questions) < skill, labels_N, guesses_N)
        answers_NM[rng.random(num_questions) < 0.05, j] = -1
    return PredictionTable(
        question_ids=[f"q{n}" for n in range(num_questions)],
        agents=[f"agent-{j}" for j in range(num_agents)],
        answers=answers_NM,
        labels=labels_N.astype(np.int64),
    )
