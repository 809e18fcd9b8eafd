"""What a system says of its own answers: how far to trust it, and when it should rather not answer."""

from typing import NamedTuple

import numpy as np

from fusion.calibration import CalibrationError, calibration_error, threshold_at_risk
from fusion.data import PredictionTable, right_answers
from fusion.evaluation._result import SelectiveResult
from fusion.schema import BoolArray, Decision, FloatArray
from fusion.significance import wilson_interval

CALIBRATE_FRACTION = 0.2
"""Share of the questions to fit on that are kept to find out from which confidence to answer."""


class Stated(NamedTuple):
    """Answers of a system with what it says of them.

    Attributes:
        confidence: float64 [N], how likely each answer is right; None where the system does not say.
        answered: bool [N].
        correct: bool [N].
    """

    confidence: FloatArray | None
    answered: BoolArray
    correct: BoolArray

    @classmethod
    def of(cls, decision: Decision, table: PredictionTable) -> "Stated":
        """Return what a decision on a labelled table says; without a confidence, the share of the answer."""
        return cls(decision.certainty, decision.answered, right_answers(decision, table))


def error_of_confidence(stated: Stated, *, seed: int) -> CalibrationError | None:
    """Return the calibration error over the questions that were answered, with its bins; None where unknown."""
    if stated.confidence is None or not stated.answered.any():
        return None
    return calibration_error(
        stated.confidence[stated.answered], stated.correct[stated.answered], rng=np.random.default_rng(seed)
    )


def selective(calibration: Stated, test: Stated, *, risk: float) -> SelectiveResult | None:
    """Return what is left when a system answers only where its confidence is high enough; None where it states none.

    Args:
        calibration: Answers to questions that nothing was fitted on, to choose the threshold.
        test: Answers to others, to measure it.
        risk: Share of wrong answers that is allowed among those given.
    """
    if calibration.confidence is None or test.confidence is None or not calibration.answered.any():
        return None
    chosen = threshold_at_risk(
        calibration.confidence[calibration.answered], calibration.correct[calibration.answered], risk=risk
    )
    given_N = test.answered & (test.confidence >= chosen.threshold)
    given, wrong = int(given_N.sum()), int((given_N & ~test.correct).sum())
    interval = wilson_interval(wrong, given) if given else None
    return SelectiveResult(
        risk=risk,
        threshold=chosen.threshold if np.isfinite(chosen.threshold) else None,
        n_calibration=len(calibration.correct),
        coverage=given / len(test.correct),
        error=wrong / given if given else None,
        error_ci95=None if interval is None else (float(interval.low), float(interval.high)),
    )
