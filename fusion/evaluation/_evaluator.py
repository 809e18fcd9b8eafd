"""Fit a system on one part of the questions and score it on another."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fusion.agents import AgentPool
from fusion.data import PredictionTable, Split
from fusion.ensemble import Ensemble, Replay
from fusion.errors import UsageError
from fusion.evaluation._baselines import BEST_PER_CATEGORY, BEST_SINGLE, ORACLE, Cost
from fusion.evaluation._confidence import Stated, error_of_confidence, selective
from fusion.evaluation._options import BenchOptions
from fusion.evaluation._policy import CostPoint, Course, PolicyCard, policy_card
from fusion.evaluation._result import Role, SelectiveResult, SystemResult, Weights
from fusion.evaluation._trust import Groups, confidence_bins, mean_weights, risk_coverage_curve
from fusion.protocols import AskingFuser, NotingFuser, is_slow
from fusion.schema import BoolArray, Decision, IntArray, Spent, System
from fusion.significance import accuracy_interval

_MODELS = "the fuser runs or asks models, which is not done again for every number of calls"
_WRITTEN = (
    "answers that no agent gave count as right when they equal the reference but for case, blanks, quotation marks "
    "around them, a full stop at the end and the form of numbers"
)


class Evaluated(NamedTuple):
    result: SystemResult
    correct: BoolArray
    cost: Cost


class Evaluator:
    """Fits systems on one part and scores them on the other."""

    def __init__(self, pool: AgentPool, parts: Split, kept: PredictionTable | None, options: BenchOptions) -> None:
        self.pool = pool
        self.parts = parts
        self.kept = kept
        self.options = options
        self.notes: list[str] = []
        self.clusters_N = None
        if options.cluster != "none":
            self.clusters_N = clusters(parts.test.require_categories().tolist(), options)
        self.prices_M = np.array(
            [[np.nan if p is None else p for p in (agent.input_price, agent.output_price)] for agent in pool]
        )

    def __call__(self, system: System, role: Role) -> Evaluated:
        """Evaluate a system in a role; one that reads the labels is an upper bound, whatever it was asked for."""
        ensemble = Ensemble(self.pool, system.selector, system.fuser).fit(self.parts.fit)
        replay, course = self._replay(ensemble)
        if isinstance(ensemble.fuser, NotingFuser):
            self.notes.extend(ensemble.fuser.notes())
        if replay.decision.texts is not None and self.parts.test.references is not None:
            self.notes.append(_WRITTEN)
        stated = Stated.of(replay.decision, self.parts.test)
        slow = is_slow(ensemble.fuser)
        on_fit = None if slow else Stated.of(ensemble.replay(self.parts.fit).decision, self.parts.fit)
        tokens, usd = self._token_cost(replay.asked, samples=replay.decision.samples, spent=replay.decision.spent)
        calls = float(replay.asked.sum(axis=1).mean()) * replay.decision.samples
        if replay.decision.spent is not None:
            calls += float(replay.decision.spent.calls.mean())
        privileged = ensemble.selector.sees == "labels"
        trusted = None if privileged else error_of_confidence(stated, seed=self.options.seed)
        result = SystemResult(
            name=str(system),
            label=self._label(system, replay, privileged=privileged),
            role="upper_bound" if privileged else role,
            n=len(stated.correct),
            accuracy=float(stated.correct.mean()),
            ci95=self._interval(stated.correct),
            abstained=float((~stated.answered).mean()),
            fit_accuracy=None if on_fit is None else float(on_fit.correct.mean()),
            calls_per_question=calls,
            tokens_per_question=tokens,
            usd_per_question=usd,
            calibration_error=None if trusted is None else trusted.ece,
            calibration_ci95=None if trusted is None else (float(trusted.interval.low), float(trusted.interval.high)),
            selective=None if privileged else self._selective(ensemble, stated),
            reliability=None if trusted is None else confidence_bins(trusted),
            risk_coverage=None if privileged else risk_coverage_curve(stated),
            weights=None if privileged else self._weights(ensemble, replay),
            policy=None if course is None else self._policy(ensemble, replay.decision, course, stated.correct),
        )
        if isinstance(ensemble.fuser, AskingFuser):
            ensemble.fuser.close()
        return Evaluated(result, stated.correct, Cost(result.calls_per_question, replay.decision.samples))

    def _replay(self, ensemble: Ensemble) -> tuple[Replay, Course | None]:
        """Replay the questions evaluated on; also say in which order a policy asked."""
        test = self.parts.test
        if ensemble.selector.sees != "answers":
            return ensemble.replay(test), None
        course = Course.of(ensemble.selector, test)
        return Replay(ensemble.fuser.fuse(test.blind(), course.selection), course.selection, course.asked), course

    def _policy(self, ensemble: Ensemble, decision: Decision, course: Course, right_N: BoolArray) -> PolicyCard:
        points, left_out = [], _MODELS if is_slow(ensemble.fuser) or decision.spent is not None else None
        if left_out is None:
            for most, asked_NM, stopped_N in course.stopped(ensemble.fuser, self.parts.test, right_N):
                points.append(
                    CostPoint(
                        most=most,
                        calls=float(asked_NM.sum(axis=1).mean()) * decision.samples,
                        tokens=self._token_cost(asked_NM, samples=decision.samples)[0],
                        accuracy=float(stopped_N.mean()),
                        ci95=self._interval(stopped_N),
                    )
                )
        return policy_card(
            course,
            right_N,
            agents=self.pool.names,
            groups=self.groups,
            samples=decision.samples,
            curve=tuple(points),
            curve_left_out=left_out,
        )

    def _selective(self, ensemble: Ensemble, stated: Stated) -> SelectiveResult | None:
        if self.kept is None or self.options.abstain_at_risk is None:
            return None
        calibration = Stated.of(ensemble.replay(self.kept).decision, self.kept)
        return selective(calibration, stated, risk=self.options.abstain_at_risk)

    def _weights(self, ensemble: Ensemble, replay: Replay) -> Weights | None:
        return mean_weights(ensemble.fuser, self.parts.test, replay.selection.mask, groups=self.groups)

    @cached_property
    def groups(self) -> Groups:
        """Categories of the questions evaluated on."""
        return Groups.of(self.parts.test)

    def members(self) -> tuple[SystemResult, ...]:
        """Return each agent alone, in pool order."""
        test = self.parts.test
        found = []
        for j, name in enumerate(self.pool.names):
            mask_NM = np.broadcast_to(np.arange(len(self.pool)) == j, test.answers.shape)
            tokens, usd = self._token_cost(mask_NM, samples=1)
            found.append(
                SystemResult(
                    name=name,
                    label=name,
                    role="member",
                    n=len(test),
                    accuracy=float(test.correct[:, j].mean()),
                    ci95=self._interval(test.correct[:, j]),
                    abstained=float((~test.answered[:, j]).mean()),
                    fit_accuracy=float(self.parts.fit.accuracies[j]),
                    calls_per_question=1.0,
                    tokens_per_question=tokens,
                    usd_per_question=usd,
                )
            )
        return tuple(found)

    def best_single(self) -> str:
        """Return the agent that was most accurate on the fit part."""
        return self.pool.names[int(self.parts.fit.accuracies.argmax())]

    def _interval(self, correct_N: BoolArray) -> tuple[float, float]:
        low, high = accuracy_interval(correct_N, clusters_N=self.clusters_N)
        return float(low), float(high)

    def _label(self, system: System, replay: Replay, *, privileged: bool) -> str:
        samples = replay.decision.samples
        if system.selector == BEST_SINGLE.selector and (system == BEST_SINGLE or samples > 1):
            return f"best single{f' x {samples} samples' if samples > 1 else ''}: {self.best_single()}"
        if system == BEST_PER_CATEGORY:
            return "best single per category"
        if privileged:
            return f"{'oracle' if system == ORACLE else system} (reads the labels)"
        return str(system)

    def _token_cost(
        self, asked_NM: BoolArray, *, samples: int, spent: Spent | None = None
    ) -> tuple[float | None, float | None]:
        """Return tokens and USD a question, of the agents and of the fuser; None where they are not known."""
        test = self.parts.test
        if test.tokens_in is None or test.tokens_out is None:
            return None, None
        read_M = np.where(asked_NM, test.tokens_in, 0).sum(axis=0) * samples
        written_M = np.where(asked_NM, test.tokens_out, 0).sum(axis=0) * samples
        usd_M = (read_M * self.prices_M[:, 0] + written_M * self.prices_M[:, 1]) / 1e6
        usd = float(usd_M[asked_NM.any(axis=0)].sum()) / len(test)
        tokens = float(read_M.sum() + written_M.sum()) / len(test)
        if spent is not None:
            for used_N in (spent.tokens_in, spent.tokens_out):
                tokens += np.nan if used_N is None else float(used_N.mean())
            usd += np.nan if spent.usd is None else float(spent.usd.mean())
        return None if np.isnan(tokens) else tokens, None if np.isnan(usd) else usd


def clusters(categories: Sequence[str], options: BenchOptions) -> IntArray | None:
    """Return int [N], the cluster of every question; None when questions are independent.

    Raises:
        UsageError: When all questions are in one category.
    """
    if options.cluster == "none":
        return None
    names, clusters_N = np.unique(np.array(categories), return_inverse=True)
    if len(names) == 1:
        raise UsageError(
            f"all {len(categories)} questions are in the category {str(names[0])!r}: there is nothing to cluster by; "
            "leave cluster=category out"
        )
    return clusters_N
