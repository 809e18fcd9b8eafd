"""Stacking: examples worked by hand, scikit-learn asked directly, what is saved, and recorded answers."""

import importlib
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tables
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from tables import AGENTS, NEAR_PAPER, by_hand, everyone, random_table

from fusion.data import PredictionTable, read_table, split
from fusion.ensemble import Ensemble
from fusion.errors import InvalidTable, MissingDependency, NotFitted, TableMismatch
from fusion.fusers.stacker import Stacker
from fusion.fusers.vote import Vote
from fusion.logit._threads import libraries, one_thread
from fusion.schema import Decision

MODELS: tuple[Literal["logistic", "boosting"], ...] = ("logistic", "boosting")


def fused(fuser: Stacker, fit: PredictionTable, table: PredictionTable) -> Decision:
    return fuser.fit(fit, everyone(fit)).fuse(table.blind(), everyone(table))


def probs_of(decision: Decision) -> Any:
    assert decision.probs is not None
    return decision.probs


# ---- logistic

ONE_PERFECT = by_hand([[n % 3, (n + 1) % 3] for n in range(60)], [n % 3 for n in range(60)], num_options=[3] * 60)
"""a is always right, b always wrong; an option of every question is named by nobody."""


def test_two_agents_one_of_them_perfect() -> None:
    """Of every question p_a = p(option of a) is right, p_b and p_0 (named by nobody) are wrong.

    At the optimum the constant, not penalised, has slope 0: 60 (1 - p_a) - 60 p_b - 60 p_0 = 0, so the three sum to 1
    and are the shares. A weight is C times its slope: a's C 60 (1 - p_a), b's -C 60 p_b; that of "more than none" and,
    each 1 where the option has one vote, C 60 (1 - p_a - p_b) = C 60 p_0, log 2 as much for log(1 + votes) and half as
    much for votes^2 / 2; "more than one" is 0 everywhere, and so is its weight.
    """
    table = by_hand([[2, 0], [1, 1], [-1, 2], [-1, -1]], num_options=[3] * 4)
    fuser = Stacker(strength=0.5)
    decision = fused(fuser, ONE_PERFECT, table)
    assert decision.answers.tolist() == [2, 1, 2, -1]
    p_b, p_0, p_a = probs_of(decision)[0].tolist()
    slopes = [1 - p_a, -p_b, p_0, 0, p_0 * np.log(2), p_0 / 2]
    # Shares are float32; the weights are 30 times them.
    np.testing.assert_allclose(np.asarray(fuser.weights_)[:6], 0.5 * 60 * np.array(slopes), atol=1e-4)
    assert p_a > 0.85
    assert p_a + p_b + p_0 == pytest.approx(1, abs=1e-6)
    assert decision.confidence is not None
    assert decision.confidence[0] == pytest.approx(p_a, abs=1e-6)
    assert decision.confidence[3] == 0
    assert not probs_of(decision)[3].any()


def test_follows_the_one_who_is_right_against_a_majority() -> None:
    """b and c agree on a wrong option in every question; the plain vote follows them."""
    rows = [[n % 4, (n + 1) % 4, (n + 1) % 4] for n in range(80)]
    fit = by_hand(rows, [n % 4 for n in range(80)], num_options=[4] * 80)
    table = by_hand([[0, 3, 3]], num_options=[4])
    assert Vote().fit(fit, everyone(fit)).fuse(table, everyone(table)).answers.tolist() == [3]
    for model in MODELS:
        assert fused(Stacker(model=model), fit, table).answers.tolist() == [0], model


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), strength=st.sampled_from([0.01, 0.1, 10.0]))
def test_logistic_is_that_of_scikit_learn(seed: int, strength: float) -> None:
    """Every option written out as a row, fitted by another solver, and p from its own predict_proba."""
    fit, table = (tables.without(random_table(seed + i), "probs", "sample_answers", "references") for i in (0, 1))
    design, right = written_out(fit)
    # Its solver stops where the slope is below tol: a millionth of a weight's worth, at these penalties.
    by_sklearn = LogisticRegression(C=strength, tol=1e-7, max_iter=100_000).fit(design, right)
    found = probs_of(fused(Stacker(strength=strength), fit, table))
    expected_R = by_sklearn.predict_proba(written_out(table)[0])[:, 1]
    start = 0
    for n, count in enumerate(table.num_options.tolist()):
        p_K = expected_R[start : start + count]
        start += count
        if not table.answered[n].any():
            continue
        share_K = p_K / p_K.sum()
        named_K = np.isin(np.arange(count), table.answers[n])
        if share_K[named_K].max() >= share_K.max():  # else likelier ones that nobody named share with the answer
            np.testing.assert_allclose(found[n, :count], share_K, atol=1e-4)


def written_out(table: PredictionTable) -> tuple[Any, Any]:
    rows, right = [], []
    assert table.categories is not None
    assert table.labels is not None
    for n, count in enumerate(table.num_options.tolist()):
        for k in range(count):
            votes = [float(answer == k) for answer in table.answers[n].tolist()]
            total = sum(votes)
            category = [float(table.categories[n] == name) for name in tables.CATEGORIES]
            counts = [float(total > 0), float(total > 1), np.log1p(total), total**2 / len(votes)]
            rows.append(votes + counts + category)
            right.append(table.labels[n] == k)
    return np.array(rows), np.array(right)


# ---- categories


def specialists(seed: int, questions: int, names: tuple[str, str] = ("law", "maths")) -> PredictionTable:
    """a is right on law, b on maths; elsewhere they guess. c guesses always."""
    rng = np.random.default_rng(seed)
    law_N = rng.random(questions) < 0.5
    labels_N = rng.integers(0, 5, questions)
    answers_NM = rng.integers(0, 5, (questions, 3))
    answers_NM[law_N, 0], answers_NM[~law_N, 1] = labels_N[law_N], labels_N[~law_N]
    return by_hand(
        answers_NM,
        labels_N.tolist(),
        question_ids=[f"{seed}-{n}" for n in range(questions)],
        num_options=[5] * questions,
        categories=np.where(law_N, *names),
    )


def accuracy(fuser: Stacker, fit: PredictionTable, table: PredictionTable) -> float:
    return float((fused(fuser, fit, table).answers == table.labels).mean())


def test_trees_tell_categories_apart() -> None:
    """Without the category one of two differing specialists is as likely as the other: at most 0.2 + 0.8 / 2 = 0.6.

    They agree by chance on 1 of 5; c helps little.
    """
    fit, table = specialists(1, 2000), specialists(2, 1000)
    assert accuracy(Stacker(model="boosting"), fit, table) > 0.98
    for fuser in (Stacker(), Stacker(model="boosting")):
        blind_fit, blind = (tables.without(part, "categories") for part in (fit, table))
        assert 0.5 < accuracy(fuser, blind_fit, blind) < 0.7
    assert accuracy(Stacker(), fit, table) < 0.7


@pytest.mark.parametrize("model", MODELS)
def test_categories_that_fit_did_not_see(model: Literal["logistic", "boosting"]) -> None:
    fit, table = specialists(1, 500), specialists(2, 200, ("art", "music"))
    new, none = (fused(Stacker(model=model), fit, part) for part in (table, tables.without(table, "categories")))
    tables.equal(new.answers, none.answers)
    tables.equal(new.probs, none.probs)


@pytest.mark.parametrize("model", MODELS)
def test_more_categories_than_trees_hold(model: Literal["logistic", "boosting"]) -> None:
    """Of 301 the 254 with most questions are kept: 000 has 201, the others 1 each, and the first by name are kept."""
    names = [f"{max(n - 200, 0):03d}" for n in range(501)]
    fit = by_hand([[n % 2, 0] for n in range(501)], [n % 2 for n in range(501)], categories=names)
    fuser = Stacker(model=model)
    assert fused(fuser, fit, fit).answers.tolist() == [n % 2 for n in range(501)]
    assert fuser.categories_ == tuple(f"{n:03d}" for n in range(254))


# ---- probabilities and open questions


@pytest.mark.parametrize("model", MODELS)
def test_an_option_that_nobody_chose_may_be_the_likeliest(model: Literal["logistic", "boosting"]) -> None:
    """a and b prefer different wrong options, 0.50, and both find the right one nearly as likely, 0.45."""
    probs_NMK = np.zeros((200, 2, 4))
    labels_N = np.arange(200) % 4
    for n, k in enumerate(labels_N.tolist()):
        for j in (0, 1):
            probs_NMK[n, j] = 0.025
            probs_NMK[n, j, k], probs_NMK[n, j, (k + 1 + j) % 4] = 0.45, 0.5
    fit = by_hand(probs_NMK.argmax(axis=2), labels_N.tolist(), probs=probs_NMK)
    decision = fused(Stacker(model=model), fit, fit)
    tables.equal(decision.answers, labels_N.astype(np.int64))
    with pytest.raises(InvalidTable, match="has none"):
        fused(Stacker(model=model), fit, tables.without(fit, "probs"))


def test_an_open_question_may_have_another_answer() -> None:
    """Both agree always and are right on half: named p = 1/2, another answer p = 1/2. No other has a share in probs."""
    rows = [[0, 0]] * 20
    open_fit = by_hand(
        rows,
        [0 if n % 2 else -1 for n in range(20)],
        num_options=[1] * 20,
        options=[("x",)] * 20,
        references=["x" if n % 2 else "y" for n in range(20)],
    )
    decision = fused(Stacker(), open_fit, open_fit)
    assert decision.answers.tolist() == [0] * 20
    np.testing.assert_allclose(probs_of(decision), 1)
    np.testing.assert_allclose(decision.confidence, 0.5, atol=1e-6)  # type: ignore[arg-type]  # it is set


# ---- little to learn from


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("skill", ["silent", "right", "wrong"])
def test_one_class_or_silence_gives_the_plain_vote(model: Literal["logistic", "boosting"], skill: Any) -> None:
    """With more than one option there is still a wrong one where all are right."""
    fit = tables.without(random_table(1, skill=skill, options=1 if skill != "silent" else 5), "references", "probs")
    table = tables.without(random_table(2), "probs", "sample_answers")
    expected = Vote().fit(fit, everyone(fit)).fuse(table, everyone(table)).answers
    tables.equal(fused(Stacker(model=model), fit, table).answers, expected)


def test_votes_count_for_one_each() -> None:
    """log odds of v votes of 4: v - 4. Shares of p: p(2) = 0.1192, p(1) = 0.0474 twice, p(0) = 0.0180 once."""
    fit = by_hand([[-1] * 4] * 3, [0, 1, 2], num_options=[4] * 3)
    decision = fused(Stacker(model="boosting"), fit, by_hand([[0, 1, 1, 2]], num_options=[4]))
    assert decision.answers.tolist() == [1]
    np.testing.assert_allclose(probs_of(decision)[0], np.array([474, 1192, 474, 180]) / 2320, atol=1e-3)


def test_trees_too_small_to_split_give_the_plain_vote() -> None:
    """Ten questions have 20 rows, fewer than two leaves hold."""
    fit = by_hand([[0, 1, 1]] * 10, [0] * 10)
    fuser = Stacker(model="boosting")
    assert fused(fuser, fit, by_hand([[0, 1, 1]])).answers.tolist() == [1]
    assert fuser.rows_ is None


@pytest.mark.parametrize("model", MODELS)
def test_one_question(model: Literal["logistic", "boosting"]) -> None:
    fit = by_hand([[1, 1, 0]], [1], num_options=[3])
    decision = fused(Stacker(model=model), fit, by_hand([[0, 0, 2], [-1, -1, 2]], num_options=[3] * 2))
    assert decision.answers.tolist() == [0, 2]


def test_what_is_refused() -> None:
    with pytest.raises(NotFitted, match=r"stacker .* call fit"):
        Stacker().fuse(ONE_PERFECT, everyone(ONE_PERFECT))
    with pytest.raises(InvalidTable, match="labels"):
        Stacker().fit(ONE_PERFECT.blind(), everyone(ONE_PERFECT))
    with pytest.raises(InvalidTable, match="no questions"):
        Stacker().fit(ONE_PERFECT.rows(slice(0, 0)), everyone(ONE_PERFECT.rows(slice(0, 0))))
    fuser = Stacker().fit(ONE_PERFECT, everyone(ONE_PERFECT))
    alone = ONE_PERFECT.columns(["a"])
    with pytest.raises(TableMismatch, match="missing b"):
        fuser.fuse(alone, everyone(alone))


# ---- what is learned depends on no order


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dropped", [(), ("probs",)])
def test_the_order_of_questions_is_nothing(model: Literal["logistic", "boosting"], dropped: tuple[str, ...]) -> None:
    """To the last bit, also with options and agents in another order."""
    fit = tables.without(random_table(1, questions=300), *dropped)
    first = Stacker(model=model).fit(fit, everyone(fit))
    order_N = np.random.default_rng(0).permutation(len(fit))
    other = tables.shuffled_agents(tables.relabelled(fit.rows(order_N), 3)[0], 4)[0]
    second = Stacker(model=model).fit(other, everyone(other))
    assert (first.rows_ is None) == (model == "logistic")
    for name in ("weights_", "rows_", "right_", "times_"):
        assert (getattr(first, name) is None) == (getattr(second, name) is None)
        if getattr(first, name) is not None:
            tables.equal(getattr(first, name), getattr(second, name))


# ---- saved and loaded


@pytest.mark.parametrize("model", MODELS)
def test_saved_and_loaded(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, table = random_table(1, questions=300), random_table(2)
    ensemble = Ensemble(AGENTS[:4], "all_agents", f"stacker(model={model})").fit(fit)
    expected = ensemble.replay(table).decision
    ensemble.save(tmp_path)
    loaded = Ensemble.load(tmp_path)
    if model == "logistic":  # its weights are read with nothing but NumPy
        monkeypatch.setitem(sys.modules, "sklearn", None)
    for _ in range(2):
        found = loaded.replay(table).decision
        for name in ("answers", "probs", "confidence"):
            tables.equal(getattr(found, name), getattr(expected, name))


def test_trees_of_another_version_give_a_warning(tmp_path: Path) -> None:
    fit = random_table(1, questions=300)
    ensemble = Ensemble(AGENTS[:4], "all_agents", "stacker(model=boosting)").fit(fit)
    ensemble.fuser.release_ = "1.5.0"  # type: ignore[attr-defined]  # a stacker has it
    ensemble.save(tmp_path)
    with pytest.warns(UserWarning, match=r"scikit-learn 1\.5\.0.* install scikit-learn==1\.5\.0, or fit"):
        Ensemble.load(tmp_path).replay(fit)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fit = random_table(1, questions=300)
    Ensemble(AGENTS[:4], "all_agents", "stacker(model=boosting)").fit(fit).save(tmp_path)
    for name in ("sklearn", "sklearn.linear_model", "sklearn.ensemble"):
        monkeypatch.setitem(sys.modules, name, None)
    loaded = Ensemble.load(tmp_path)
    wanted = r"stacker needs .* pip install scikit-learn"
    with pytest.raises(MissingDependency, match=wanted):
        loaded.replay(fit)
    for model in MODELS:
        with pytest.raises(MissingDependency, match=wanted):
            Stacker(model=model).fit(fit, everyone(fit))


def test_threads_are_given_back() -> None:
    importlib.import_module("sklearn.ensemble")  # so that its threads are among them
    before = [item["num_threads"] for item in libraries(sklearn=True).info()]
    with one_thread():
        assert {item["num_threads"] for item in libraries(sklearn=True).info()} == {1}
    assert [item["num_threads"] for item in libraries(sklearn=True).info()] == before


# ---- recorded answers


@pytest.mark.parametrize(("pool", "ahead"), [(NEAR_PAPER, 0.02), (None, 0.09)], ids=["eight", "all"])
def test_beats_the_plain_vote_on_recorded_answers(recorded_data: Path, pool: Any, ahead: float) -> None:
    """Over eight middling models, and over all, where the plain vote falls far below the best one.

    Confidence is near the share of right answers.
    """
    table = read_table(recorded_data / "mmlu_pro" / "predictions.csv.gz")
    fit, test = split(table if pool is None else table.columns(pool))
    by_vote = Vote().fit(fit, everyone(fit)).fuse(test, everyone(test)).answers
    for model in MODELS:
        decision = fused(Stacker(model=model), fit, test)
        right_N = decision.answers == test.labels
        assert right_N.mean() > (by_vote == test.labels).mean() + ahead, model
        assert decision.confidence is not None
        assert abs(decision.confidence.mean() - right_N.mean()) < 0.05, model
