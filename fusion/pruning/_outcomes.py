"""What sub-ensembles get right on questions that nothing was fitted on."""

import copy
import functools
from collections.abc import Sequence

from fusion.data import PredictionTable, Split
from fusion.ensemble import Ensemble
from fusion.protocols import Fuser, Selector
from fusion.schema import BoolArray

Members = tuple[str, ...]


class Outcomes:
    """Fits a fuser to sub-ensembles and tells where they are right; each is computed once.

    Args:
        parts: The tables to fit on and to evaluate on, with the same agents.
        fuser: What settles the members' answers, not fitted.
    """

    def __init__(self, parts: Split, fuser: Fuser) -> None:
        self.parts = parts
        self.fuser = fuser
        self._known: dict[Members, BoolArray] = {}

    def right(self, agents: Sequence[str]) -> BoolArray:
        """Return bool [N], where the sub-ensemble is right on the questions to evaluate on."""
        members = in_pool_order(self.parts.fit, agents)
        if members not in self._known:
            self._known[members] = right(self.parts, members, self.fuser)
        return self._known[members]


def make_fuser(spec: str) -> Fuser:
    """Return the fuser that a spec describes, not fitted.

    Raises:
        UnknownName: When there is none of that name.
        InvalidSpec: When its parameters are refused, or it is no fuser.
    """
    return Ensemble(["any"], "all_agents", spec).fuser


def right(parts: Split, members: Members, fuser: Fuser) -> BoolArray:
    """Fit a sub-ensemble on one part and return where it is right on the other, bool [N]."""
    own = Split(*(part.columns(members) for part in parts))
    # Building a method from its spec looks for installed plug-ins each time; a copy does not.
    ensemble = Ensemble(members, _everybody(), copy.deepcopy(fuser)).fit(own.fit)
    answers_N = ensemble.replay(own.test).decision.answers
    right_N: BoolArray = (answers_N == own.test.require_labels()) & (answers_N >= 0)
    return right_N


@functools.cache
def _everybody() -> Selector:
    return Ensemble(["any"], "all_agents", "vote").selector


def in_pool_order(table: PredictionTable, agents: Sequence[str]) -> Members:
    """Return agents in the order of the table's columns."""
    return tuple(name for name in table.agents if name in agents)
