"""Ensemble: the ask loop, who gets to see what, the count of calls, and the folder it is saved to."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import tables
from tables import AGENTS, by_hand, everyone, random_table

from fusion._saved import _checksum
from fusion.agents import AgentPool
from fusion.data import PredictionTable
from fusion.ensemble import Ensemble, ask
from fusion.errors import (
    ConfigError,
    FusionError,
    InputError,
    InvalidSpec,
    InvalidTable,
    NotFitted,
    OutputError,
    TableMismatch,
    UnknownName,
    UsageError,
)
from fusion.fusers.vote import Vote
from fusion.fusers.weighted_vote import WeightedVote
from fusion.schema import Decision, Sees, Selection, Spec, System
from fusion.selectors.all_agents import AllAgents
from fusion.selectors.single_best import SingleBest
from fusion.selectors.top_k import TopK


@dataclass(kw_only=True)
class Cascade:
    """Asks the first agent, and the next ones as long as those asked so far disagree or keep silent."""

    drop_first: bool = False
    sees: ClassVar[Sees] = "answers"
    seen_: list[PredictionTable] = field(default_factory=list, init=False, repr=False)

    def fit(self, table: PredictionTable) -> Self:
        return self

    def select(self, table: PredictionTable) -> Selection:
        self.seen_.append(table)
        mask_NM = np.zeros((len(table), table.num_agents), dtype=bool)
        mask_NM[:, 0] = True
        for n, row in enumerate(table.answers.tolist()):
            said = [k for k in row if k >= 0]
            if said and (len(said) == 1 or len(set(said)) > 1):
                mask_NM[n, : min(len(said) + 1, len(row))] = True
            elif said:
                mask_NM[n, : len(said)] = True
                mask_NM[n, 0] = not self.drop_first
        return Selection(mask_NM)


@dataclass(kw_only=True)
class Spy:
    """Selects everybody and keeps what it was shown."""

    sees: ClassVar[Any] = "history"
    seen_: list[PredictionTable] = field(default_factory=list, init=False, repr=False)

    def fit(self, table: PredictionTable) -> Self:
        return self

    def select(self, table: PredictionTable) -> Selection:
        self.seen_.append(table)
        return everyone(table)


@dataclass(kw_only=True)
class SpyFuser:
    seen_: list[PredictionTable] = field(default_factory=list, init=False, repr=False)

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        table.require_labels()
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        self.seen_.append(table)
        return Decision(np.zeros(len(table), dtype=np.int64))


def spy(sees: str) -> Spy:
    kind: type[Spy] = type("Spying", (Spy,), {"sees": sees})
    return kind()


def assert_blind(table: PredictionTable) -> None:
    assert (table.labels, table.references, table.scores) == (None, None, None)


# ---- the ask loop


def test_cascade_pays_only_for_whom_it_asked() -> None:
    """q0: a and b agree, 2 calls. q1: a and b differ, c is asked too, 3 calls. q2: a is silent, 1 call."""
    table = by_hand([[1, 1, 0], [0, 1, 1], [-1, 1, 1]])
    replay = Ensemble(table.agents, Cascade(), Vote()).replay(table)
    assert replay.asked.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert replay.selection.mask.tolist() == replay.asked.tolist()
    assert replay.decision.answers.tolist() == [1, 1, -1]


@dataclass(kw_only=True)
class UntilAnAnswer:
    """Asks one agent after the other until one of them answers."""

    sees: ClassVar[Sees] = "answers"

    def fit(self, table: PredictionTable) -> Self:
        return self

    def select(self, table: PredictionTable) -> Selection:
        assert table.asked is not None
        mask_NM = table.asked.copy()
        silent_N = np.flatnonzero(~table.answered.any(axis=1) & (table.asked.sum(axis=1) < table.num_agents))
        mask_NM[silent_N, table.asked[silent_N].sum(axis=1)] = True
        return Selection(mask_NM)


def test_a_cascade_moves_on_when_an_agent_says_nothing() -> None:
    """a answers q0 (one call); on q1 a and b are silent and c answers (three); on q2 nobody does (three)."""
    table = by_hand([[0, 1, 1], [-1, -1, 1], [-1, -1, -1]])
    replay = Ensemble(table.agents, UntilAnAnswer(), "vote").replay(table)
    assert replay.asked.sum(axis=1).tolist() == [1, 3, 3]
    assert replay.decision.answers.tolist() == [0, 1, -1]


def test_an_agent_that_was_asked_and_dropped_was_still_paid_for() -> None:
    table = by_hand([[1, 1, 0], [0, 1, 1]])
    replay = Ensemble(table.agents, Cascade(drop_first=True), Vote()).replay(table)
    assert replay.asked.tolist() == [[True, True, False], [True, True, True]]
    assert replay.selection.mask.tolist() == [[False, True, False], [True, True, True]]


def test_answers_are_shown_only_of_agents_that_were_asked() -> None:
    table = random_table(1)
    cascade = Cascade()
    _, asked_NM = ask(cascade, table)
    assert 2 <= len(cascade.seen_) <= table.num_agents + 1
    assert not cascade.seen_[0].answered.any(), "nobody was asked yet"
    for seen in cascade.seen_:
        assert_blind(seen)
        for hidden in (seen.answers + 1, seen.probs, seen.sample_answers + 1, seen.tokens_in, seen.seconds):  # type: ignore[operator]
            assert hidden is not None
            assert not np.asarray(hidden)[~asked_NM].any()
        assert seen.texts is not None
        assert set(seen.texts[~asked_NM].tolist()) <= {""}


def test_the_loop_ends_for_a_selector_that_keeps_changing_its_mind() -> None:
    """It listens to one agent at a time, another one each time it is asked: it ends once everybody was asked."""

    @dataclass(kw_only=True)
    class Fickle:
        sees: ClassVar[Sees] = "answers"
        calls_: int = field(default=0, init=False)

        def fit(self, table: PredictionTable) -> Self:
            return self

        def select(self, table: PredictionTable) -> Selection:
            self.calls_ += 1
            return Selection(np.tile(np.arange(table.num_agents) == self.calls_ % table.num_agents, (len(table), 1)))

    selector = Fickle()
    _, asked_NM = ask(selector, random_table(1))
    assert asked_NM.all()
    assert selector.calls_ == 5


def test_no_questions() -> None:
    table = random_table(1).rows(slice(0, 0))
    for selector in (Cascade(), AllAgents(), spy("question")):
        selection, asked_NM = ask(selector, table)
        assert selection.mask.shape == asked_NM.shape == (0, 4)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((48, 4), dtype=bool), "selects nobody on question 'q1-0'"),
        (np.ones((48, 4), dtype=np.int8), r"bool mask of shape \[48, 4\], got int8 \[48, 4\]"),
        (np.ones((48, 3), dtype=bool), r"bool mask of shape \[48, 4\], got bool \[48, 3\]"),
    ],
)
@pytest.mark.parametrize("sees", ["history", "answers"])
def test_a_selection_that_is_none(sees: str, mask: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    selector = spy(sees)
    monkeypatch.setattr(type(selector), "select", lambda self, table: Selection(mask))
    with pytest.raises(FusionError, match=message):
        ask(selector, random_table(1))


# ---- who gets to see what


@pytest.mark.parametrize("sees", ["history", "question", "answers"])
def test_only_the_privileged_see_labels(sees: str) -> None:
    selector, fuser = spy(sees), SpyFuser()
    table = random_table(1)
    Ensemble(table.agents, selector, fuser).fit(table).replay(table)
    assert len(selector.seen_) >= 2
    for seen in (*selector.seen_, *fuser.seen_):
        assert_blind(seen)


def test_a_privileged_selector_sees_labels_and_its_fuser_does_not() -> None:
    selector, fuser = spy("labels"), SpyFuser()
    table = random_table(1)
    Ensemble(table.agents, selector, fuser).fit(table).replay(table)
    for seen in selector.seen_:
        tables.equal(seen.labels, table.labels)
    assert_blind(fuser.seen_[0])


def test_history_is_shown_no_question_and_question_no_answer() -> None:
    table = random_table(1)
    history, question = spy("history"), spy("question")
    ask(history, table)
    ask(question, table)
    (blank,), (asked) = history.seen_, question.seen_[0]
    for seen in (blank, asked):
        assert seen.question_ids.tolist() == table.question_ids.tolist()
        assert not seen.answered.any()
        hidden = (seen.probs, seen.sample_answers, seen.texts, seen.tokens_in, seen.tokens_out, seen.seconds)
        assert hidden == (None,) * 6
    assert (blank.categories, blank.options) == (None, None)
    assert set(blank.num_options.tolist()) == {table.max_options}
    assert asked.options == table.options
    assert asked.categories is not None


# ---- fit and replay


def test_the_fuser_is_fitted_on_the_selected_agents_of_the_pool() -> None:
    """The pool has its own order, and leaves d out: the selector sees c, b, a."""
    table = by_hand([[0, 0, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0]], [0, 0, 0])
    ensemble = Ensemble(["c", "b", "a"], "top_k(k=2)", "weighted_vote").fit(table)
    assert isinstance(ensemble.fuser, WeightedVote)
    assert ensemble.fuser.agents_ == ("c", "b", "a")
    replay = ensemble.replay(table)
    assert replay.selection.mask.tolist() == [[True, False, True]] * 3
    assert replay.decision.answers.tolist() == [0, 0, 0]


def test_fit_returns_self_and_needs_labels() -> None:
    ensemble = Ensemble(AGENTS[:4], "all_agents", "vote")
    assert ensemble.fit(random_table(1)) is ensemble
    with pytest.raises(InvalidTable, match="labelled table"):
        ensemble.fit(random_table(1).blind())


def test_a_table_without_an_agent_of_the_pool() -> None:
    with pytest.raises(UnknownName, match="unknown agent 'z'"):
        Ensemble(["a", "z"], "all_agents", "vote").replay(by_hand([[0, 1]]))


def test_unfitted() -> None:
    table = by_hand([[0, 1, 1]])
    assert Ensemble(table.agents, "all_agents", "vote").replay(table).decision.answers.tolist() == [1]
    with pytest.raises(NotFitted, match="single_best"):
        Ensemble(table.agents, "single_best", "vote").replay(table)


def test_a_table_with_more_agents_in_another_order_gives_the_same_decision() -> None:
    table = random_table(1, agents=AGENTS)
    ensemble = Ensemble(AGENTS[:3], "top_k(k=2)", "weighted_vote").fit(table)
    turned = table.columns(AGENTS[::-1])
    tables.equal(ensemble.replay(turned).decision.answers, ensemble.replay(table).decision.answers)


@pytest.mark.parametrize(
    ("selector", "fuser", "message"),
    [
        ("nobody", "vote", "unknown selector 'nobody'"),
        ("all_agents", "voet", "did you mean 'vote'"),
        ("all_agents", "oracle", r"oracle is a selector; write for example oracle\+vote"),
        (Vote(), "vote", "a selector must offer sees, fit and select"),
        ("all_agents", AllAgents(), "a fuser must offer fit and fuse"),
    ],
)
def test_methods_that_are_none(selector: Any, fuser: Any, message: str) -> None:
    with pytest.raises((UnknownName, InvalidSpec), match=message):
        Ensemble(["a"], selector, fuser)


def test_pools() -> None:
    with pytest.raises(ConfigError, match="at least one agent"):
        Ensemble([], "all_agents", "vote")
    with pytest.raises(ConfigError, match="a occurs more than once"):
        Ensemble(["a", "b", "a"], "all_agents", "vote")


def test_system_is_what_rebuilds_it() -> None:
    ensemble = Ensemble(["a", "b"], TopK(k=1), Spec("weighted_vote", {"weights": "accuracy"}))
    assert ensemble.system == System.parse("top_k(k=1)+weighted_vote(weights=accuracy)")


# ---- save and load


@pytest.mark.parametrize("selector", ["all_agents", "top_k(k=2)", "single_best_per_category", "oracle"])
@pytest.mark.parametrize(
    "fuser", ["vote", "weighted_vote", "weighted_vote(weights=log_odds)", "sample_vote(samples=2)"]
)
def test_saved_and_loaded(tmp_path: Path, selector: str, fuser: str) -> None:
    pool = AgentPool.of(AGENTS[:4], prices={"ash": (0.5, 1.5), "elm": (0.0, 2.0)})
    ensemble = Ensemble(pool, selector, fuser).fit(random_table(1))
    ensemble.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["ensemble.json", "state.npz"]
    again = Ensemble.load(tmp_path / "new" / "folder")
    assert (again.pool, again.system) == (pool, ensemble.system)
    table = random_table(2)
    found, expected = again.replay(table), ensemble.replay(table)
    tables.equal(found.decision.answers, expected.decision.answers)
    tables.equal(found.decision.probs, expected.decision.probs)
    tables.equal(found.asked, expected.asked)
    with pytest.raises(TableMismatch):
        again.fuser.fuse(table.columns(AGENTS[1:4]), everyone(table.columns(AGENTS[1:4])))


def test_a_pool_gives_engines_by_name(tmp_path: Path) -> None:
    """The saved order stays, agents beyond the saved ones are left out, and what was learned is theirs still."""
    table = random_table(1)
    ensemble = Ensemble(AGENTS[:4], "top_k(k=2)", "weighted_vote").fit(table)
    ensemble.save(tmp_path)
    pool = tables.answering_pool(AGENTS[::-1])
    again = Ensemble.load(tmp_path, pool=pool)
    assert again.pool.names == ensemble.pool.names
    assert all(agent.engine is not None for agent in again.pool)
    tables.equal(again.replay(table).decision.answers, ensemble.replay(table).decision.answers)
    assert Ensemble.load(tmp_path).pool == ensemble.pool, "the folder is as it was"
    with pytest.raises(UsageError, match=f"lacks the agents '{AGENTS[0]}', '{AGENTS[1]}' of the ensemble in"):
        Ensemble.load(tmp_path, pool=tables.answering_pool(AGENTS[2:5]))


def test_unfitted_ensembles_are_saved_too(tmp_path: Path) -> None:
    Ensemble(["a", "b"], "single_best", "vote").save(tmp_path)
    with pytest.raises(NotFitted):
        Ensemble.load(tmp_path).replay(by_hand([[0, 1]]))


def test_saving_again_replaces(tmp_path: Path) -> None:
    for seed in (1, 2):
        ensemble = Ensemble(AGENTS[:4], "single_best", "weighted_vote").fit(random_table(seed))
        ensemble.save(tmp_path)
    loaded = Ensemble.load(tmp_path)
    assert isinstance(loaded.selector, SingleBest)
    assert isinstance(ensemble.selector, SingleBest)
    assert loaded.selector.best_ == ensemble.selector.best_


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    ensemble = Ensemble(["a"], Spy(), Vote())
    ensemble.replay(by_hand([[0]]))
    with pytest.raises(
        FusionError, match=r"cannot save the selector .*: seen_ is a list .*must keep what it learned in"
    ):
        ensemble.save(tmp_path / "ensemble")
    assert not (tmp_path / "ensemble").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file"):
        Ensemble(["a"], "all_agents", "vote").save(tmp_path / "file")


def _set(*place: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        inner: Any = manifest
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("format", value="fusion.ensemble/9"), "not an ensemble of the format fusion.ensemble/1"),
        (_set("pool", value="ash"), "expected a list of agents"),
        (_set("pool", value=[]), "at least one agent"),
        (_set("pool", 0, "name", value=3), "0.name: .* got 3"),
        (_set("pool", 0, value={"nam": "ash"}), "expected a list of agents"),
        (_set("selector", value=None), "expected .*name"),
        (_set("selector", "name", value="nobody"), "unknown selector 'nobody'"),
        (_set("fuser", "params", value={"k": 1}), "no parameter 'k'"),
        (_set("fuser", "params", value={"weights": "accuracy"}), "changed after it was saved"),
        (_set("learned", value=None), "changed after it was saved"),
        (_set("learned", value={}), "changed after it was saved"),
        (_set("learned", "selector.best_", value=9), "changed after it was saved"),
        (_set("state_sha256", value="0"), "changed after it was saved"),
        (lambda manifest: manifest.pop("learned"), "lacks learned"),
    ],
)
def test_a_damaged_manifest(tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    Ensemble(AGENTS[:4], "single_best", "weighted_vote").fit(random_table(1)).save(tmp_path)
    manifest = json.loads((tmp_path / "ensemble.json").read_text())
    change(manifest)
    if not message.startswith("changed"):
        # Somebody who knows the checksum, or a version with a fault: what is wrong must be told all the same.
        manifest["state_sha256"] = _checksum((tmp_path / "state.npz").read_bytes(), manifest)
    (tmp_path / "ensemble.json").write_text(json.dumps(manifest))
    with pytest.raises(FusionError, match=message):
        Ensemble.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'"text"'])
def test_a_manifest_that_is_none(tmp_path: Path, content: bytes) -> None:
    Ensemble(["a"], "all_agents", "vote").save(tmp_path)
    (tmp_path / "ensemble.json").write_bytes(content)
    with pytest.raises(InputError, match=r"ensemble\.json is not"):
        Ensemble.load(tmp_path)


def test_damaged_or_missing_state(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected the files ensemble\.json and state\.npz"):
        Ensemble.load(tmp_path / "nothing")
    Ensemble(AGENTS[:4], "all_agents", "weighted_vote").fit(random_table(1)).save(tmp_path)
    state = bytearray((tmp_path / "state.npz").read_bytes())
    state[len(state) // 2] ^= 1
    (tmp_path / "state.npz").write_bytes(state)
    with pytest.raises(InputError, match=r"changed after it was saved: .*state\.npz"):
        Ensemble.load(tmp_path)
    (tmp_path / "state.npz").unlink()
    with pytest.raises(InputError, match="no ensemble in"):
        Ensemble.load(tmp_path)


def test_saved_by_a_version_that_learned_less(tmp_path: Path) -> None:
    """A field that the folder does not hold is named, not filled with None."""
    ensemble = Ensemble(AGENTS[:4], "single_best", "vote").fit(random_table(1))
    vars(ensemble.selector)["best_"] = 0
    fields = dict(type(ensemble.selector).__dataclass_fields__)
    older = {key: value for key, value in fields.items() if key != "best_"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(ensemble.selector), "__dataclass_fields__", older)
        ensemble.save(tmp_path)
    with pytest.raises(InputError, match=r"saved without selector\.best_; fit and save it again"):
        Ensemble.load(tmp_path)
