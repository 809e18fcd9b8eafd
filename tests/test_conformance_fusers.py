"""What every fuser must do, whoever wrote it: found by file name and by entry point, with no test written for it.

A check takes `make`, which makes the fuser for a pool of agents, filling the parameters that it requires. Where the
order of the pool may decide, nothing ties: no two agents of a fit table are equally accurate, and probabilities are
drawn from a continuum.
"""

import functools
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pytest
import tables
from tables import AGENTS, Recipe, equal, everyone, random_table, some

from fusion import discovery
from fusion.agents import AgentPool, Engines
from fusion.data import PredictionTable
from fusion.ensemble import Ensemble
from fusion.errors import FusionError, InvalidTable, NotFitted, TableMismatch
from fusion.protocols import Fuser, SettlingFuser
from fusion.schema import Decision, Selection, Spec

Make = Callable[[Sequence[str]], Any]
POOL = AGENTS[:4]
# Probabilities are float32, and other columns beside an agent's may change the order of a sum.
SUM_TOLERANCE = 1e-5


def fit_table(**how: Any) -> PredictionTable:
    return random_table(11, prefix="fit", **how)


def held_out(**how: Any) -> PredictionTable:
    return random_table(12, prefix="test", **how)


def fitted(make: Make, table: PredictionTable | None = None) -> Any:
    table = fit_table() if table is None else table
    return make(table.agents).fit(table, everyone(table))


def fused(fuser: Fuser, table: PredictionTable, selection: Selection | None = None) -> Decision:
    """The decision, after checking that it is one."""
    selection = everyone(table) if selection is None else selection
    decision = fuser.fuse(table, selection)
    answers_N = decision.answers
    assert answers_N.shape == (len(table),)
    assert answers_N.dtype == np.int64
    assert (answers_N >= -1).all()
    assert (answers_N < table.num_options).all(), "an answer beyond the question's options"
    assert decision.samples >= 1
    if decision.texts is not None:
        assert len(decision.texts) == len(table)
    if decision.probs is not None:
        _check_probs(decision.probs, answers_N, table)
    return decision


def same(found: Decision, expected: Decision, rows: Any = slice(None)) -> None:
    """Assert that a decision equals the `rows` of another."""
    equal(found.answers, expected.answers[rows])
    assert (found.texts is None) == (expected.texts is None)
    if found.texts is not None and expected.texts is not None:
        assert found.texts == tuple(np.array(expected.texts, dtype=object)[rows])
    assert (found.probs is None) == (expected.probs is None)
    assert found.samples == expected.samples
    if found.probs is not None and expected.probs is not None:
        width = min(found.probs.shape[1], expected.probs.shape[1])  # rows with fewer options have fewer columns
        np.testing.assert_allclose(found.probs[:, :width], expected.probs[rows, :width], atol=SUM_TOLERANCE)
        assert not found.probs[:, width:].any()
        assert not expected.probs[rows, width:].any()


def check_protocol(make: Make) -> None:
    fuser = make(POOL)
    before = discovery.spec_of(fuser)
    assert isinstance(fuser, Fuser)
    assert fuser.fit(fit_table(), everyone(fit_table())) is fuser
    fused(fuser, held_out())
    assert discovery.spec_of(fuser) == before, "fit and fuse must leave the parameters as they were"


def check_unanimity(make: Make) -> None:
    """Where all that are listened to and answer say the same thing, surely, it is the answer."""
    fuser, table, selection = fitted(make), held_out(), some(held_out(), 3)
    said_N = np.random.default_rng(0).integers(0, table.num_options)
    answers_NM = np.where(
        table.answered | (np.arange(4) == selection.mask.argmax(axis=1)[:, None]), said_N[:, None], -1
    )
    agreed = tables.answering(table, answers_NM)
    equal(fused(fuser, agreed).answers, said_N)
    equal(fused(fuser, tables.noise(agreed, ~selection.mask, 4), selection).answers, said_N)


def check_masked_agents_are_not_heard(make: Make) -> None:
    """Agents outside the selection, replaced by noise or by silence, change nothing."""
    table, selection = held_out(), some(held_out(), 5)
    fuser = make(POOL).fit(fit_table(), some(fit_table(), 6))
    expected = fused(fuser, table, selection)
    for seed in range(3):
        same(fused(fuser, tables.noise(table, ~selection.mask, seed), selection), expected)
    same(fused(fuser, tables.abstaining(table, ~selection.mask), selection), expected)
    for j in range(table.num_agents):
        alone = Selection(np.tile(np.arange(4) == j, (len(table), 1)))
        equal(fused(fuser, tables.noise(table, ~alone.mask, j), alone).answers, fused(fuser, table, alone).answers)


def check_options_permute(make: Make) -> None:
    """Which letter an option has carries no information: in another order, the same option wins.

    A fuser that says it reads positions (`positional`) is excused.
    """
    if getattr(make(POOL), "positional", False):
        return
    for seed in range(3):
        fit, table = random_table(seed, prefix="fit"), random_table(seed + 50, prefix="test")
        selection = some(table, seed)
        expected = fused(fitted(make, fit), table, selection)
        other, moved = tables.relabelled(table, seed)
        for fuser in (fitted(make, fit), fitted(make, tables.relabelled(fit, seed + 1)[0])):
            found = fused(fuser, other, selection)
            equal(found.answers, moved[np.arange(len(table)), expected.answers])
            if expected.probs is not None and found.probs is not None:
                back = np.take_along_axis(found.probs, moved[:, : found.probs.shape[1]], axis=1)
                np.testing.assert_allclose(back, expected.probs, atol=SUM_TOLERANCE)


def check_abstentions(make: Make) -> None:
    """To abstain is not to be listened to; where everybody does, so does the ensemble."""
    fuser, table, quiet = fitted(make), held_out(), ~some(held_out(), 7).mask
    silenced = tables.abstaining(table, quiet)
    same(
        fused(fuser, silenced),
        fused(fuser, silenced, Selection(silenced.answered | ~silenced.answered.any(axis=1)[:, None])),
    )
    nobody = fused(fuser, tables.abstaining(table, np.ones_like(quiet)))
    assert (nobody.answers == -1).all()
    assert nobody.probs is None or not nobody.probs.any()
    one_row = tables.abstaining(table, np.arange(len(table))[:, None] == np.full(4, 9))
    assert fused(fuser, one_row).answers[9] == -1
    silent = random_table(13, prefix="silent", silent=POOL[:1])
    fused(fitted(make, silent), table)
    fused(fitted(make, fit_table(skill="silent")), table)


def check_agents_permute(make: Make) -> None:
    for seed in range(3):
        fit, table = random_table(seed, prefix="fit"), random_table(seed + 50, prefix="test")
        selection = some(table, seed)
        moved, order_M = tables.shuffled_agents(table, seed)
        expected = fused(fitted(make, fit), table, selection)
        found = fused(fitted(make, fit.columns(moved.agents)), moved, Selection(selection.mask[:, order_M]))
        same(found, expected)


def check_every_world(make: Make) -> None:
    """N = 1 and 0; M = 1; K = 1 and 2; everybody right, wrong, equally good, silent."""
    worlds: list[dict[str, Any]] = [{"skill": skill} for skill in ("mixed", "right", "wrong", "equal", "silent")]
    worlds += [{"agents": AGENTS[:1]}, {"agents": AGENTS}, {"options": 1}, {"options": 2}, {"options": 40}]
    for world in worlds:
        fuser, table = fitted(make, fit_table(**world)), held_out(**world)
        fused(fuser, table)
        fused(fuser, table, some(table, 8))
        fused(fuser, table.rows(slice(0, 0)))
        fused(fitted(make, fit_table(**world, questions=1)), table)


def check_more_options_than_in_fit(make: Make) -> None:
    for before, after in ((2, 7), (7, 2)):
        fused(fitted(make, fit_table(options=before)), held_out(options=after))


def check_rows_on_their_own(make: Make) -> None:
    """Neither the order of the questions nor which others there are changes a decision."""
    fuser, table, selection = fitted(make), held_out(), some(held_out(), 9)
    expected = fused(fuser, table, selection)
    singles = [np.array([n]) for n in range(len(table))]
    for rows in (np.random.default_rng(0).permutation(len(table)), np.flatnonzero(table.num_options == 2), *singles):
        same(fused(fuser, table.rows(rows), Selection(selection.mask[rows])), expected, rows)


def check_blind(make: Make) -> None:
    """Without labels, references and scores the decision is the same."""
    fuser, table, selection = fitted(make), held_out(), some(held_out(), 10)
    expected = fused(fuser, table, selection)
    same(fused(fuser, table.blind(), selection), expected)
    same(fused(fuser, tables.scrambled(table, {"labels", "references", "scores"}, 1), selection), expected)


def check_kinds_of_tables(make: Make) -> None:
    """Votes only, with probabilities, with samples; with what was said about which questions, or without any of it:
    used, or refused with a reason; one kind at least is used.
    """
    used = 0
    notes = ("references", "scores", "tokens_in", "tokens_out", "seconds")
    said = ("options", "categories", "questions", "texts")
    kinds = (("probs", "sample_answers"), ("sample_answers",), ("probs",), ())
    for dropped, extra in itertools.product(kinds, ((*notes, *said), (*notes, "questions"), notes, ())):
        fit, table = (tables.without(part, *dropped, *extra) for part in (fit_table(), held_out()))
        found, refusal = tables.attempted(lambda fit=fit, table=table: fused(fitted(make, fit), table), InvalidTable)
        used += found is not None
        assert found is not None or any(word in refusal for word in ("probabilities", "samples", *extra)), refusal
    assert used, "there is no kind of table that it takes"


def check_repeatable(make: Make) -> None:
    table, state = held_out(), tables.global_randomness()
    first = fitted(make)
    expected = fused(first, table)
    same(fused(first, table), expected)
    same(fused(fitted(make), table), expected)
    assert tables.global_randomness() == state


def check_refit(make: Make) -> None:
    """A second fit forgets the first."""
    fuser = fitted(make, random_table(14, prefix="first"))
    same(fused(fuser.fit(fit_table(), everyone(fit_table())), held_out()), fused(fitted(make), held_out()))


def check_inputs_kept(make: Make) -> None:
    fit, table, chosen = fit_table(), held_out(), some(held_out(), 3)
    selection = Selection(chosen.mask.copy())
    fused(make(POOL).fit(fit, everyone(fit)), table, selection)
    assert fit.rows(slice(None)).fingerprint == fit_table().fingerprint
    assert table.rows(slice(None)).fingerprint == held_out().fingerprint
    equal(selection.mask, chosen.mask)


def check_before_fit(make: Make) -> None:
    """Unfitted it works, or says so."""
    found, refusal = tables.attempted(lambda: fused(make(POOL), held_out()), NotFitted)
    assert found is not None or "fit" in refusal


def check_spec(make: Make) -> None:
    fuser = make(POOL)
    spec = discovery.spec_of(fuser)
    assert discovery.build("fusers", spec) == fuser
    assert discovery.build("fusers", Spec.parse(str(spec))) == fuser
    assert discovery.build("fusers", Spec.from_json(spec.to_json())) == fuser


def check_saved_and_loaded(make: Make) -> None:
    ensemble = Ensemble(tables.answering_pool(POOL), "random_subset(size=3)", make(POOL)).fit(fit_table())
    with tempfile.TemporaryDirectory() as folder:
        ensemble.save(folder)
        again = Ensemble.load(folder)
        assert again.system == ensemble.system
        same(again.replay(held_out()).decision, ensemble.replay(held_out()).decision)


def check_other_agents(make: Make) -> None:
    """Agents other than those of fit are refused, or the fuser treats all agents alike."""
    fuser, table = fitted(make), held_out()
    found, refusal = tables.attempted(lambda: fused(fuser, table.columns(POOL[::-1])), TableMismatch)
    if found is None:
        assert any(name in refusal for name in POOL), "the message must name an agent"
    else:
        same(found, fused(fuser, table))
    names = ("oak", "pine", "rowan", "sorb")
    strangers, fit = tables.renamed(table, names), tables.renamed(fit_table().columns(POOL[::-1]), names)
    found, refusal = tables.attempted(lambda: fused(fuser, strangers), TableMismatch)
    if found is None:
        assert "oak" in refusal
    else:
        same(found, fused(fitted(make, fit), strangers))


def check_settled(make: Make) -> None:
    """A fuser that says so early is right: whatever the pending agents say, its answer stays; all in means settled."""
    fuser, table = fitted(make), held_out()
    if not isinstance(fuser, SettlingFuser):
        return
    selection, nobody_NM = some(table, 9), np.zeros(table.answers.shape, dtype=bool)
    assert fuser.settled(table.blind(), selection, nobody_NM).all(), "with nobody pending everything is settled"
    for seed in range(4):
        rng = np.random.default_rng(seed)
        pending_NM = rng.random(table.answers.shape) < (0.25, 0.5)[seed % 2]
        so_far = tables.abstaining(table, pending_NM)
        settled_N = fuser.settled(so_far.blind(), selection, pending_NM)
        assert settled_N.shape == (len(table),)
        assert settled_N.dtype == np.bool_
        expected_N = fused(fuser, so_far, selection).answers
        # Every answer of every pending agent at once, the same for all of them, and drawn one by one.
        for say in (*range(table.max_options), *([None] * 12)):
            said_NM = rng.integers(-1, table.num_options[:, None], table.answers.shape) if say is None else say
            said_NM = np.minimum(said_NM, table.num_options[:, None] - 1)
            late = tables.answering(table, np.where(pending_NM, said_NM, so_far.answers))
            answers_N = fused(fuser, late, selection).answers
            equal(answers_N[settled_N], expected_N[settled_N])


CHECKS: Sequence[Callable[[Make], None]] = (
    check_protocol,
    check_unanimity,
    check_masked_agents_are_not_heard,
    check_options_permute,
    check_abstentions,
    check_agents_permute,
    check_every_world,
    check_more_options_than_in_fit,
    check_rows_on_their_own,
    check_blind,
    check_kinds_of_tables,
    check_repeatable,
    check_refit,
    check_inputs_kept,
    check_before_fit,
    check_spec,
    check_saved_and_loaded,
    check_other_agents,
    check_settled,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("recipe", tables.recipes("fusers"), ids=str)
def test_fuser(recipe: Recipe, check: Callable[[Make], None]) -> None:
    check(recipe)


def _check_probs(probs_NK: Any, answers_N: Any, table: PredictionTable) -> None:
    assert probs_NK.shape == (len(table), table.max_options)
    assert np.issubdtype(probs_NK.dtype, np.floating)
    assert (probs_NK >= 0).all()
    totals_N = probs_NK.sum(axis=1)
    np.testing.assert_allclose(totals_N[answers_N >= 0], 1, atol=SUM_TOLERANCE)
    assert not totals_N[answers_N < 0].any(), "probabilities on a question where it abstains"
    assert not probs_NK[np.arange(probs_NK.shape[1]) >= table.num_options[:, None]].any(), "mass beyond the options"
    for answer, row in zip(answers_N.tolist(), probs_NK, strict=True):
        likeliest = np.flatnonzero(row >= row.max(initial=0) - SUM_TOLERANCE)
        assert answer < 0 or len(likeliest) != 1 or likeliest[0] == answer, "the answer is not the likeliest option"


# ---- Somebody else's fusers, installed under the entry-point group: a good one, and broken ones for every check.


@dataclass(kw_only=True)
class Toy:
    """Follows the most accurate of the agents that are listened to and answer."""

    shout: bool = False
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    ranked_: tuple[int, ...] = field(default=(), init=False, repr=False)

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        self.agents_ = table.agents
        self.ranked_ = tuple(np.argsort(-table.accuracies, kind="stable").tolist())
        return self

    def heard(self, table: PredictionTable, selection: Selection) -> Any:
        return selection.mask & table.answered

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        if not self.ranked_:
            raise NotFitted("call fit first")
        table.require_agents(self.agents_)
        return Decision(self.follow(table, self.heard(table, selection)))

    def follow(self, table: PredictionTable, heard_NM: Any) -> Any:
        answers_N = np.full(len(table), -1)
        for j in reversed(self.ranked_):
            answers_N = np.where(heard_NM[:, j], table.answers[:, j], answers_N)
        return answers_N


class Asking(Toy):
    """Asks the agents that it meets: here it only sees to it that they could answer."""

    def meet(self, pool: AgentPool) -> None:
        self.engines = Engines(pool)  # type: ignore[attr-defined]
        self.met = pool  # type: ignore[attr-defined]

    def close(self) -> None:
        """Nothing was taken."""

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        for agent in self.met:  # type: ignore[attr-defined]
            self.engines.engine_of(agent)  # type: ignore[attr-defined]
        return super().fuse(table, selection)


class LowLetters(Toy):
    """Breaks every disagreement in favour of the lowest letter."""

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        table.require_agents(self.agents_)
        votes_NM = np.where(self.heard(table, selection), table.answers.astype(np.int64), 999)
        lowest_N = votes_NM.min(axis=1, initial=999)
        return Decision(np.where(lowest_N == 999, -1, lowest_N))


class ListensToEverybody(Toy):
    def heard(self, table: PredictionTable, selection: Selection) -> Any:
        return table.answered


class Contrarian(Toy):
    def follow(self, table: PredictionTable, heard_NM: Any) -> Any:
        answers_N = super().follow(table, heard_NM)
        return np.where(answers_N < 0, -1, (answers_N + 1) % table.num_options)


class NeverAbstains(Toy):
    def follow(self, table: PredictionTable, heard_NM: Any) -> Any:
        return np.maximum(super().follow(table, heard_NM), 0)


class FirstColumnLeads(Toy):
    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        self.agents_, self.ranked_ = table.agents, tuple(range(table.num_agents))
        return self


class BeyondTheOptions(Toy):
    def follow(self, table: PredictionTable, heard_NM: Any) -> Any:
        answers_N = super().follow(table, heard_NM)
        return np.where(heard_NM.any(axis=1) & (table.num_options == 1), 1, answers_N)


class LettersOfFitOnly(Toy):
    most_: int = 0

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        self.most_ = table.max_options
        return super().fit(table, selection)

    def follow(self, table: PredictionTable, heard_NM: Any) -> Any:
        answers_N = super().follow(table, heard_NM)
        counts_N = np.zeros(self.most_)
        counts_N[answers_N[answers_N >= 0]] += 1
        return answers_N


class ByBatch(Toy):
    def follow(self, table: PredictionTable, heard_NM: Any) -> Any:
        answers_N = super().follow(table, heard_NM)
        return np.where(answers_N < 0, -1, np.bincount(answers_N[answers_N >= 0], minlength=1).argmax())


class PeeksAtLabels(Toy):
    def follow(self, table: PredictionTable, heard_NM: Any) -> Any:
        answers_N = super().follow(table, heard_NM)
        return answers_N if table.labels is None else np.where(heard_NM.any(axis=1), table.labels, -1)


class PeeksAtScores(Toy):
    def follow(self, table: PredictionTable, heard_NM: Any) -> Any:
        best_NM = heard_NM if table.scores is None else heard_NM & (table.scores > 0)
        return np.where(best_NM.any(axis=1), super().follow(table, best_NM), super().follow(table, heard_NM))


class TakesNothing(Toy):
    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        raise InvalidTable("needs samples of a kind that no table has")


_FITS = itertools.count()


class Unseeded(Toy):
    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        super().fit(table, selection)
        # Another order at every fit, as randomness without a seed gives nearly always.
        self.ranked_ = tuple(np.roll(np.arange(table.num_agents), next(_FITS)).tolist())
        return self


class GlobalState(Toy):
    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        np.random.rand()
        return super().fit(table, selection)


class Remembers(Toy):
    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        return self if self.ranked_ else super().fit(table, selection)


class Mutates(Toy):
    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        decision = super().fuse(table, selection)
        selection.mask[:] = True
        return decision


class CrashesUnfitted(Toy):
    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        return Decision(table.answers[:, self.ranked_[0]].astype(np.int64))


class Forgetful(Toy):
    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        super().fit(table, selection)
        self.learned, self.ranked_ = self.ranked_, (3, 2, 1, 0)  # type: ignore[attr-defined]
        return self

    def follow(self, table: PredictionTable, heard_NM: Any) -> Any:
        kept, self.ranked_ = self.ranked_, getattr(self, "learned", self.ranked_)
        answers_N, self.ranked_ = super().follow(table, heard_NM), kept
        return answers_N


class AnyAgents(Toy):
    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        return Decision(self.follow(table, self.heard(table, selection)))


class Narrow(Toy):
    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        return Decision(super().fuse(table, selection).answers.astype(np.int8))


class Percentages(Toy):
    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        answers_N = super().fuse(table, selection).answers
        return Decision(answers_N, probs=100.0 * (np.arange(table.max_options) == answers_N[:, None]))


class Lopsided(Toy):
    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        answers_N = super().fuse(table, selection).answers
        return Decision(answers_N, probs=(np.arange(table.max_options) == (answers_N[:, None] >= 0) - 1).astype(float))


class Hasty(Toy):
    def settled(self, table: PredictionTable, selection: Selection, pending: Any) -> Any:
        return self.heard(table, selection).any(axis=1)


class NeverDone(Toy):
    def settled(self, table: PredictionTable, selection: Selection, pending: Any) -> Any:
        return np.zeros(len(table), dtype=bool)


BROKEN: Sequence[tuple[type[Toy], Callable[[Make], None]]] = (
    (Narrow, check_protocol),
    (Percentages, check_protocol),
    (Lopsided, check_protocol),
    (Contrarian, check_unanimity),
    (ListensToEverybody, check_unanimity),
    (ListensToEverybody, check_masked_agents_are_not_heard),
    (LowLetters, check_options_permute),
    (Contrarian, check_options_permute),
    (NeverAbstains, check_abstentions),
    (FirstColumnLeads, check_agents_permute),
    (BeyondTheOptions, check_every_world),
    (LettersOfFitOnly, check_more_options_than_in_fit),
    (ByBatch, check_rows_on_their_own),
    (PeeksAtLabels, check_blind),
    (PeeksAtScores, check_blind),
    (TakesNothing, check_kinds_of_tables),
    (Unseeded, check_repeatable),
    (GlobalState, check_repeatable),
    (Remembers, check_refit),
    (Mutates, check_inputs_kept),
    (CrashesUnfitted, check_before_fit),
    (Forgetful, check_saved_and_loaded),
    (AnyAgents, check_other_agents),
    (Hasty, check_settled),
    (NeverDone, check_settled),
)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[object]], str]:
    """Offer a class as an installed package would, and return the name that it goes by."""
    return functools.partial(tables.install, monkeypatch, "fusers", "toy-fuser")


def test_third_party_fuser_is_found_and_meets_every_check(install: Callable[[type[object]], str]) -> None:
    name = install(Toy)
    assert name in discovery.names("fusers")
    found = [recipe for recipe in tables.recipes("fusers") if recipe.name == name]
    assert [str(recipe) for recipe in found] == ["toy_fuser", "toy_fuser(shout=true)"]
    for recipe in found:
        for check in CHECKS:
            check(recipe)


def test_third_party_fuser_that_asks_meets_agents_that_answer(install: Callable[[type[object]], str]) -> None:
    recipe = Recipe("fusers", install(Asking))
    for check in CHECKS:
        check(recipe)


@pytest.mark.parametrize(("broken", "check"), BROKEN, ids=lambda item: item.__name__)
def test_checks_can_fail(
    broken: type[Toy], check: Callable[[Make], None], install: Callable[[type[object]], str]
) -> None:
    recipe = Recipe("fusers", install(broken))
    with pytest.raises((AssertionError, FusionError, IndexError)):
        check(recipe)


def test_every_check_is_shown_to_fail() -> None:
    assert {check for _, check in BROKEN} == set(CHECKS) - {
        check_spec
    }  # build() itself makes what spec_of is asked about
