"""Prequential evaluation: predicted before learned, what the yardsticks are, drift, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import NEAR_PAPER, by_hand, random_table, without

from fusion.data import PredictionTable, read_table
from fusion.ensemble import Ensemble
from fusion.errors import FusionError, InputError, InvalidTable, UnknownName, UsageError
from fusion.evaluation import Fault, PrequentialOptions, PrequentialResult, merged_blocks, prequential

WEIGHTED = "all_agents+weighted_vote"
BY_ACCURACY = "all_agents+weighted_vote(weights=accuracy)"
FEW = PrequentialOptions(block=50, warm_up=100, window=200, repeats=100)


def world(questions: int = 800, *, skills: tuple[float, ...] = (0.8, 0.6, 0.5, 0.5), seed: int = 0) -> PredictionTable:
    """Agents a, b, c, ... that are right at these shares on questions with four options, and wrong uniformly."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, questions)
    shape = (questions, len(skills))
    steps_NM = np.where(rng.random(shape) < skills, 0, rng.integers(1, 4, shape))
    return by_hand((labels_N[:, None] + steps_NM) % 4, labels=labels_N)


def relabelled(table: PredictionTable, labels_N: npt.NDArray[np.int64]) -> PredictionTable:
    return dataclasses.replace(table, labels=labels_N)


def changed(**given: object) -> PrequentialOptions:
    return dataclasses.replace(FEW, **given)  # type: ignore[arg-type]


def test_it_is_what_a_loop_by_hand_gives() -> None:
    table = world()
    result = prequential(table, "top_k(k=2)+weighted_vote", options=FEW)
    right = []
    for start in range(100, 800, 50):
        learned, block = table.rows(slice(max(0, start - 200), start)), table.rows(slice(start, start + 50))
        ensemble = Ensemble(table.agents, "top_k(k=2)", "weighted_vote").fit(learned)
        right += (ensemble.replay(block).decision.answers == block.require_labels()).tolist()
    assert result.outcomes.of(result.system).tolist() == right
    assert (result.n, result.n_warm_up, len(result.blocks)) == (700, 100, 14)
    assert result.whole.accuracy == pytest.approx(np.mean(right))
    assert result.whole.calls_per_question == 2


def test_the_yardsticks_are_what_ensembles_fitted_once_give() -> None:
    table = world()
    result = prequential(table, WEIGHTED, options=FEW)
    learned, rest = table.rows(slice(0, 100)), table.rows(slice(100, 800))
    for name, fuser, score in (
        (f"{WEIGHTED}, frozen", "weighted_vote", result.frozen),
        ("vote of all", "vote", result.plurality),
    ):
        once = Ensemble(table.agents, "all_agents", fuser).fit(learned).replay(rest).decision.answers
        right_N = once == rest.require_labels()
        assert result.outcomes.of(name).tolist() == right_N.tolist()
        assert score.accuracy == pytest.approx(right_N.mean())
    assert [(pair.a, pair.b, pair.n) for pair in result.paired] == [
        (WEIGHTED, f"{WEIGHTED}, frozen", 700),
        (WEIGHTED, "vote of all", 700),
    ]


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 999), place=st.integers(100, 799))
def test_nothing_is_known_beforehand(seed: int, place: int) -> None:
    """Other labels and answers from a block on change nothing that was said of the blocks before."""
    table, other = world(seed=1), world(seed=seed + 2)
    cut = 100 + (place - 100) // 50 * 50
    mixed = by_hand(
        np.concatenate([table.answers[:cut], other.answers[cut:]]),
        labels=np.concatenate([table.require_labels()[:cut], other.require_labels()[cut:]]).tolist(),
    )
    told = [prequential(one, BY_ACCURACY, options=FEW) for one in (table, mixed)]
    done = (cut - 100) // 50
    assert told[0].blocks[:done] == told[1].blocks[:done]
    # Of the next block only the labels could have told: whom it asks is settled before.
    assert told[0].blocks[done].call_shares == told[1].blocks[done].call_shares
    assert told[0].blocks[done].weight_shares == told[1].blocks[done].weight_shares


def test_the_window() -> None:
    table = world()
    found = [(block.fitted_from, block.n_fit) for block in prequential(table, WEIGHTED, options=FEW).blocks]
    assert found[:5] == [(0, 100), (0, 150), (0, 200), (50, 200), (100, 200)]
    every = prequential(table, WEIGHTED, options=changed(window=0)).blocks
    assert [(block.fitted_from, block.n_fit) for block in every] == [(0, 100 + 50 * b) for b in range(14)]


def test_labels_that_come_late() -> None:
    """30 questions late: the first prediction waits for the warm-up, and labels of the latest 30 are never used."""
    table = world()
    result = prequential(table, BY_ACCURACY, options=changed(delay=30))
    assert result.n_warm_up == 130
    assert [(block.start, block.fitted_from, block.n_fit) for block in result.blocks][:4] == [
        (130, 0, 100),
        (180, 0, 150),
        (230, 0, 200),
        (280, 50, 200),
    ]
    labels_N = table.require_labels().copy()
    labels_N[150:180] = (labels_N[150:180] + 1) % 4
    other = prequential(relabelled(table, labels_N), BY_ACCURACY, options=changed(delay=30))
    assert other.blocks[1].weight_shares == result.blocks[1].weight_shares
    assert other.blocks[2].weight_shares != result.blocks[2].weight_shares


def test_labels_that_never_come() -> None:
    table = world()
    labels_N = np.where(np.arange(800) % 2 == 1, -1, table.require_labels())
    result = prequential(relabelled(table, labels_N), WEIGHTED, options=FEW)
    assert (result.n_warm_up, result.n, result.whole.n) == (199, 601, 300)
    assert result.blocks[0].n_fit == 100
    assert [block.n_fit for block in result.blocks][:4] == [100, 125, 150, 175]
    assert "400 questions have no known label" in " ".join(result.notes)
    assert len(result.outcomes.question_ids) == 300
    known = table.rows(np.arange(0, 800, 2))
    there = prequential(known, WEIGHTED, options=changed(block=25))
    assert result.outcomes.of(WEIGHTED).tolist() == there.outcomes.of(WEIGHTED).tolist()


def test_of_open_questions_nobody_may_be_right() -> None:
    """A reference that no agent gave is known, and everybody is wrong; without one nothing is known."""
    table = random_table(0, questions=300)
    assert table.references is not None
    nobody_N = table.require_labels() < 0
    assert nobody_N[100:].any()
    named = dataclasses.replace(table, references=np.where(nobody_N, "another", table.references))
    result = prequential(named, "vote", options=FEW)
    assert result.whole.n == 200
    assert not result.outcomes.of(result.system)[nobody_N[100:]].any()
    nameless = prequential(table, "vote", options=FEW)
    assert nameless.whole.n == 200 - nobody_N.sum()


def test_no_label_is_known_after_the_warm_up() -> None:
    table = world(300)
    labels_N = np.where(np.arange(300) < 100, table.require_labels(), -1)
    result = prequential(relabelled(table, labels_N), WEIGHTED, options=FEW)
    assert (result.whole.n, result.whole.accuracy, result.paired) == (0, None, ())
    assert result.verdict == "No label is known of the questions that were predicted."
    assert result.blocks[-1].cumulative is None


def test_accuracy_so_far_and_faded_by_hand() -> None:
    """a is right on blocks 1 and 3 of two, wrong on the second; faded by 0.5 the last two weigh 1.5 of 1.96875."""
    answers_N = np.zeros((8, 1), dtype=np.int64)
    answers_N[4:6] = 1
    table = by_hand(answers_N, labels=[0] * 8, num_options=[2] * 8)
    options = PrequentialOptions(block=2, warm_up=2, fade=0.5, repeats=100)
    blocks = prequential(table, "vote", options=options).blocks
    assert [block.system.accuracy for block in blocks] == [1, 0, 1]
    assert [block.cumulative for block in blocks] == [1, 0.5, pytest.approx(2 / 3)]
    weights = 0.5 ** np.arange(5, -1, -1)
    assert blocks[-1].faded == pytest.approx((weights[:2].sum() + weights[4:].sum()) / weights.sum())
    assert blocks[1].faded == pytest.approx(0.375 / 1.875)


def test_order() -> None:
    table = world()
    shuffled = prequential(table, WEIGHTED, options=changed(order="shuffled"))
    moved = table.rows(np.random.default_rng(0).permutation(800))
    assert prequential(moved, WEIGHTED, options=changed(order="shuffled")).outcomes == shuffled.outcomes
    assert prequential(table, WEIGHTED, options=changed(order="shuffled", seed=1)).outcomes != shuffled.outcomes
    assert shuffled.outcomes.question_ids != table.question_ids[100:].tolist()


def test_questions_in_order_of_category_are_noted() -> None:
    table = world()
    named = dataclasses.replace(table, categories=np.repeat(["x", "y"], 400))
    assert "category by category" in " ".join(prequential(named, WEIGHTED, options=FEW).notes)
    mixed = dataclasses.replace(table, categories=np.tile(["x", "y"], 400))
    for one, options in ((mixed, FEW), (named, changed(order="shuffled")), (table, FEW)):
        assert prequential(one, WEIGHTED, options=options).notes == ()


def test_shares_of_calls_and_weights() -> None:
    asked = prequential(world(), "single_best+vote", options=FEW)
    assert {block.call_shares for block in asked.blocks} == {(1.0, 0.0, 0.0, 0.0)}
    weighed = prequential(world(), WEIGHTED, options=FEW).blocks[-1]
    assert weighed.call_shares == (0.25,) * 4
    assert weighed.weight_shares is not None
    assert sum(share or 0 for share in weighed.weight_shares) == pytest.approx(1)
    assert weighed.weight_shares[0] == max(share or 0 for share in weighed.weight_shares)
    assert prequential(world(), "all_agents+dawid_skene", options=FEW).blocks[0].system.n == 50


def test_a_system_that_asks_one_agent_moves_to_the_next() -> None:
    """The best agent turns wrong after 420 questions. Fitted since then only, the next block goes to the second."""
    fault = Fault(agent="a", start=420)
    result = prequential(world(), "single_best+vote", options=changed(faults=(fault,)))
    (alarm,) = result.alarms
    assert (alarm.agent, alarm.question, alarm.measure) == ("a", 450, "calls")
    assert abs(alarm.begun - 420) <= 2
    assert (alarm.share_before, alarm.share_after) == (1.0, 0.0)
    assert alarm.after == pytest.approx(0, abs=0.05)
    assert alarm.before == pytest.approx(0.8, abs=0.05)
    assert alarm.p <= alarm.level < 0.01
    assert alarm.sentence().startswith("a fell from ")
    assert alarm.sentence().endswith("its share of the calls went from 100.0 to 0.0 %")
    kept = prequential(world(), "single_best+vote", options=changed(faults=(fault,), reset_on_drift=False))
    assert [other.agent for other in kept.alarms] == ["a"]
    assert kept.alarms[0].share_after == 1.0
    assert result.whole.accuracy is not None
    assert kept.whole.accuracy is not None
    assert result.whole.accuracy > kept.whole.accuracy + 0.03
    assert result.frozen == kept.frozen
    assert "beats the same system frozen after the first 100" in result.verdict


def test_where_everybody_is_asked_weights_are_told() -> None:
    result = prequential(world(), BY_ACCURACY, options=changed(faults=(Fault(agent="a", start=450),)))
    (alarm,) = result.alarms
    assert alarm.measure == "weights"
    assert alarm.share_before is not None
    assert alarm.share_after is not None
    assert alarm.share_before > 0.3 > alarm.share_after
    assert "its share of the votes' weight went from" in alarm.sentence()


def test_what_the_system_did_before_is_what_it_did_when_the_fall_began() -> None:
    """Labels come two blocks late, and so does the alarm."""
    options = changed(faults=(Fault(agent="a", start=450),), delay=110)
    result = prequential(world(), BY_ACCURACY, options=options)
    (alarm,) = result.alarms
    (block,) = [block for block in result.blocks if block.start <= alarm.begun < block.start + block.n]
    (after,) = [block for block in result.blocks if block.start == alarm.question]
    assert block.start + 2 * block.n < alarm.question
    assert block.weight_shares is not None
    assert after.weight_shares is not None
    assert (alarm.share_before, alarm.share_after) == (block.weight_shares[0], after.weight_shares[0])


def test_after_the_last_block_there_is_nothing_to_tell() -> None:
    (alarm,) = prequential(world(), WEIGHTED, options=changed(faults=(Fault(agent="a", start=755),))).alarms
    assert alarm.question == 800
    assert alarm.share_after is None
    assert alarm.sentence().endswith("and nothing was predicted after that")


def test_after_a_reset_at_least_a_hundred_questions_are_fitted_on() -> None:
    result = prequential(world(), WEIGHTED, options=changed(faults=(Fault(agent="a", start=420),)))
    by_start = {block.start: block for block in result.blocks}
    assert (by_start[450].fitted_from, by_start[450].n_fit) == (350, 100)
    assert by_start[600].fitted_from == result.alarms[0].begun


def test_agents_that_fall_together_are_noted() -> None:
    faults = tuple(Fault(agent=name, start=400, kind="random") for name in "abcd")
    result = prequential(world(skills=(0.9,) * 4), WEIGHTED, options=changed(faults=faults))
    assert len(result.alarms) == 4
    assert (
        "4 of 4 agents fell at once, noticed at question 450: the questions may have become harder" in result.notes[-1]
    )


def test_json_and_back(tmp_path: Path) -> None:
    table = world()
    result = prequential(table, WEIGHTED, options=changed(faults=(Fault(agent="a", start=450),), fade=0.99))
    result.save(tmp_path / "run.json")
    assert PrequentialResult.load(tmp_path / "run.json").to_json() == result.to_json()
    fields = result.to_json()
    assert next(iter(fields.items())) == ("format", "fusion.prequential/1")
    command = dict(result.run.command)
    assert command["stream"] == WEIGHTED
    assert command["window"] == 200
    assert command["table"] is None
    assert command["faults"] == [{"agent": "a", "start": 450, "kind": "wrong", "share": 1.0, "category": None}]
    assert result.run.tables == {"stream": table.fingerprint}
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="fusion stream SYSTEM TABLE --json FILE"):
        PrequentialResult.load(tmp_path / "other.json")


@pytest.mark.parametrize("most", [1, 3, 14, 99])
def test_merged_blocks(most: int) -> None:
    result = prequential(world(), "top_k(k=2)+weighted_vote", options=FEW)
    rows = merged_blocks(result.blocks, most=most)
    assert len(rows) <= most
    assert sum(row.n for row in rows) == 700
    assert [row.start for row in rows][1:] == (100 + np.cumsum([row.n for row in rows])[:-1]).tolist()
    right = sum(round((row.system.accuracy or 0) * row.system.n) for row in rows)
    assert right == round((result.whole.accuracy or 0) * 700)
    assert all(sum(row.call_shares) == pytest.approx(1) for row in rows)
    assert rows[-1].cumulative == result.blocks[-1].cumulative
    if most == 1:
        assert rows[0].system == result.whole


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    prequential(world(), WEIGHTED, options=FEW, told=lambda step, done, total: told.append((step, done, total)))
    assert [done for _, done, _ in told] == list(range(100, 800, 50))
    assert {total for _, _, total in told} == {800}


BROKEN: list[tuple[dict[str, object], str]] = [
    ({"block": 0}, "block must be at least 1, got 0"),
    ({"warm_up": 0}, "warm_up must be at least 1"),
    ({"window": -1}, "window must be at least 0"),
    ({"delay": -1}, "delay must be at least 0"),
    ({"seed": -1}, "seed must be at least 0"),
    ({"repeats": 99}, "repeats must be at least 100"),
    ({"order": "backwards"}, "table or shuffled, got 'backwards'"),
    ({"alpha": 0.0}, "alpha must lie between 0 and 1"),
    ({"fade": 1.0}, "fade must lie between 0 and 1"),
]


@pytest.mark.parametrize(("given", "message"), BROKEN, ids=lambda value: str(value)[:20])
def test_broken_options(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        changed(**given)


REFUSED: list[tuple[str, dict[str, object], type[FusionError], str]] = [
    ("oracle+vote", {}, UsageError, "reads the right answers.*upper bound for fusion bench"),
    ("nobody+vote", {}, UnknownName, "selector 'nobody'"),
    ("vote", {"warm_up": 800}, InvalidTable, "takes 800 questions with a known label.*stream's 800 questions 800 have"),
    ("vote", {"warm_up": 801}, InvalidTable, "shorter warm-up"),
    ("vote", {"warm_up": 700, "delay": 100}, InvalidTable, "each 100 questions late"),
    ("vote", {"faults": (Fault(agent="z", start=1),)}, UnknownName, "agent 'z'"),
    ("vote", {"faults": (Fault(agent="a", start=800),)}, UsageError, "after 800 questions, but there are 800"),
]


@pytest.mark.parametrize(("system", "given", "error", "message"), REFUSED)
def test_refused(system: str, given: dict[str, object], error: type[FusionError], message: str) -> None:
    with pytest.raises(error, match=message):
        prequential(world(), system, options=changed(**given))


def test_labels_are_needed() -> None:
    with pytest.raises(InvalidTable, match="no labels"):
        prequential(without(world(), "labels"), "vote", options=FEW)
    with pytest.raises(InvalidTable, match="800 questions 0 have one"):
        prequential(relabelled(world(), np.full(800, -1)), "vote", options=FEW)


@pytest.fixture(scope="module")
def recorded(recorded_data: Path) -> PredictionTable:
    return read_table(recorded_data / "mmlu_pro" / "predictions.csv.gz")


BEST = "Mixtral-8x7B-Instruct-v0.1"


@pytest.mark.parametrize("system", ["top_k(k=3)+weighted_vote", "all_agents+weighted_vote"])
def test_of_recorded_models_the_best_turns_wrong(recorded: PredictionTable, system: str) -> None:
    """The frozen system loses 5 to 12 points or more; the other wins most of it back, and knows why."""
    table = recorded.columns(NEAR_PAPER)
    options = PrequentialOptions(order="shuffled", repeats=500)
    healthy = prequential(table, system, options=options)
    assert healthy.alarms == ()
    broken = prequential(table, system, options=dataclasses.replace(options, faults=(Fault(agent=BEST, start=4100),)))
    (alarm,) = broken.alarms
    assert (alarm.agent, alarm.question) == (BEST, 4300)
    assert abs(alarm.begun - 4100) <= 3
    assert alarm.share_after == pytest.approx(0, abs=0.01)

    def lost(result: PrequentialResult, name: str) -> float:
        after_N = np.arange(healthy.n) >= 4100 - healthy.n_warm_up
        return float(healthy.outcomes.of(name)[after_N].mean() - result.outcomes.of(name)[after_N].mean())

    frozen = lost(broken, f"{system}, frozen")
    assert frozen > 0.1
    assert lost(broken, system) < 0.4 * frozen
    assert broken.paired[0].ci95[0] > 0.03
    kept = dataclasses.replace(options, faults=(Fault(agent=BEST, start=4100),), reset_on_drift=False)
    assert prequential(table, system, options=kept).alarms[0].agent == BEST


def test_real_outages_are_found_and_nothing_else(recorded: PredictionTable) -> None:
    """In the record of one of 24 models three stretches are missing; questions come category by category."""
    result = prequential(recorded, "all_agents+vote", options=PrequentialOptions(repeats=100))
    silent_N = ~recorded.answered[:, recorded.agents.index("DeepSeek-Coder-V2")]
    assert [alarm.agent for alarm in result.alarms] == ["DeepSeek-Coder-V2"] * 3
    for alarm in result.alarms:
        assert alarm.question - alarm.begun <= 400
        assert silent_N[alarm.begun : alarm.begun + 40].all()
        assert silent_N[alarm.begun - 40 : alarm.begun].mean() < 0.3
