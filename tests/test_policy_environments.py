"""Environments of Gymnasium and PettingZoo over recorded answers: what they reward, and that they keep to the rules."""

import functools
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import tables
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pettingzoo.test import parallel_api_test
from pettingzoo.test.seed_test import parallel_seed_test

import fusion.policies
from fusion.data import PredictionTable
from fusion.errors import InvalidTable, MissingDependency, TableMismatch, UsageError
from fusion.policies import (
    AggregatorEnv,
    AskingEnv,
    DeciderEnv,
    DeciderVectorEnv,
    DiversityWeights,
    Recorded,
    Streams,
    focal_game,
)
from fusion.schema import Selection

WEIGHTS = DiversityWeights(focal=0.4, plurality=0.4, fleiss_kappa=0.2)


@functools.cache
def small(questions: int = 30) -> PredictionTable:
    return tables.random_table(7, questions=questions, agents=tables.AGENTS)


def three() -> PredictionTable:
    """Agents a and b are right on the first question, c alone on the second; a abstains on the third."""
    return tables.by_hand([[0, 0, 1], [1, 1, 0], [-1, 1, 0]], [0, 0, 0])


MAKERS: dict[str, Callable[[], gymnasium.Env[Any, Any]]] = {
    "decider": lambda: DeciderEnv(small(), alpha=0.6, weights=WEIGHTS, window=10),
    "aggregator": lambda: AggregatorEnv(small(), selection=tables.some(small(), 3)),
    "asking": lambda: AskingEnv(small(), price=0.01, max_calls=3),
}


@pytest.fixture(params=MAKERS)
def env(request: pytest.FixtureRequest) -> Iterator[gymnasium.Env[Any, Any]]:
    """An environment as Gymnasium makes it, so that its checker knows how to make another."""
    name = f"fusion-{request.param}-v0"
    gymnasium.register(name, entry_point=MAKERS[request.param])
    yield gymnasium.make(name, disable_env_checker=True).unwrapped
    gymnasium.registry.pop(name)


def test_gymnasiums_checker_has_nothing_to_say(env: gymnasium.Env[Any, Any]) -> None:
    check_env(env)


def test_a_seed_makes_whole_episodes_the_same(env: gymnasium.Env[Any, Any]) -> None:
    played = []
    for _ in range(2):
        env.action_space.seed(3)
        steps: list[Any] = [env.reset(seed=5)]
        while len(steps) == 1 or not steps[-1][2]:
            steps.append(env.step(env.action_space.sample()))
        played.append(steps)
    assert data_equivalence(*played)


class TestDecider:
    def test_rewards_by_hand(self) -> None:
        """Wrong costs 1 + 0.6 of the share chosen: 1.2 for one of three; the empty pool costs 1."""
        env = DeciderEnv(three(), alpha=0.6, order="kept")
        env.reset()
        taken = [env.step(np.array(pool, dtype=np.int8)) for pool in ([1, 1, 1], [1, 0, 0], [0, 0, 0])]
        assert [step[1] for step in taken] == [1.0, pytest.approx(-1.2), -1.0]
        assert [step[2] for step in taken] == [False, False, True]
        assert [step[4]["right"] for step in taken] == [True, False, False]
        assert taken[1][0][:3].tolist() == [1, 0, 0]
        assert taken[1][0][4] == pytest.approx(1 / 3)

    def test_who_abstains_votes_for_nothing(self) -> None:
        env = DeciderEnv(three(), alpha=0.0, order="kept")
        env.reset()
        env.step(np.zeros(3)), env.step(np.zeros(3))
        assert env.step(np.array([1, 0, 1]))[1] == 1
        env.reset()
        env.step(np.zeros(3)), env.step(np.zeros(3))
        assert env.step(np.array([1, 0, 0]))[1] == -1

    def test_the_window_is_empty_at_first_and_then_holds_what_was_answered(self) -> None:
        env = DeciderEnv(
            three(), alpha=0.0, order="kept", weights=DiversityWeights(focal=0, fleiss_kappa=0, plurality=1)
        )
        assert env.reset()[0].tolist() == [1, 1, 1, 0, 1]
        scores = [env.step(np.array([1, 0, 0]))[0][3] for _ in range(3)]
        assert scores == [1, 1 / 2, pytest.approx(1 / 3)]

    @pytest.mark.parametrize("order", ["kept", "rotated", "shuffled"])
    def test_an_episode_is_every_question_once(self, order: Any) -> None:
        env = DeciderEnv(small(), alpha=0.6, order=order, seed=2)
        env.reset()
        rows = []
        while (row := env.next_row) is not None:
            rows.append(row)
            env.step(np.ones(6))
        assert sorted(rows) == list(range(30))
        shifts = {(after - before) % 30 for before, after in itertools.pairwise(rows)}
        assert (shifts == {1}) == (order != "shuffled")
        assert (rows == sorted(rows)) == (order == "kept")

    def test_the_future_changes_no_past_observation(self) -> None:
        """The same pools on tables that differ from question 12 on: the same is seen up to it, and not after."""
        table, changed = small(), tables.relabelled(small(), 1)[0]
        rows_N = np.arange(30)
        other = tables.by_hand(
            np.where(rows_N[:, None] < 12, table.answers, changed.answers),
            np.where(rows_N < 12, table.require_labels(), changed.require_labels()).tolist(),
            num_options=table.num_options,
        )
        pools_NM = np.random.default_rng(0).random((30, 6)) < 0.6
        seen = []
        for each in (table, other):
            env = DeciderEnv(each, alpha=0.6, weights=WEIGHTS, window=10, order="kept")
            streams = Streams(Recorded.of(each), rows_N[None], per_group=1, alpha=0.6, weights=WEIGHTS, window=10)
            observations = [env.reset()[0]]
            for pool_M in pools_NM:
                np.testing.assert_allclose(streams.observe()[0], observations[-1], atol=1e-6)
                streams.step(pool_M[None])
                observations.append(env.step(pool_M.astype(np.int8))[0])
            seen.append(np.stack(observations))
        np.testing.assert_array_equal(seen[0][:13], seen[1][:13])
        assert not np.array_equal(seen[0][13:], seen[1][13:])


class TestVector:
    @pytest.mark.parametrize("order", ["rotated", "shuffled"])
    def test_as_many_groups_do_what_single_environments_do(self, order: Any) -> None:
        """Over more than two episodes, so that both begin anew."""
        make = functools.partial(DeciderEnv, small(), alpha=0.6, weights=WEIGHTS, window=10, order=order)
        single = SyncVectorEnv([make] * 3, autoreset_mode=AutoresetMode.NEXT_STEP)
        many = DeciderVectorEnv(small(), 3, alpha=0.6, weights=WEIGHTS, window=10, order=order)
        assert many.observation_space == single.observation_space
        assert many.action_space == single.action_space
        assert many.metadata["autoreset_mode"] == single.metadata["autoreset_mode"]
        np.testing.assert_allclose(many.reset(seed=4)[0], single.reset(seed=4)[0])
        many.action_space.seed(0)
        for _ in range(70):
            actions = many.action_space.sample()
            found, expected = many.step(actions), single.step(actions)
            for one, other in zip(found[:4], expected[:4], strict=True):
                np.testing.assert_allclose(one, other, atol=1e-6)
                assert one.dtype == other.dtype
            assert found[4].keys() == expected[4].keys()
            for key, value in found[4].items():
                np.testing.assert_array_equal(value, expected[4][key])
            assert found[0] in many.observation_space
        single.close()
        many.close()

    def test_streams_of_a_group_take_the_same_questions(self) -> None:
        many = DeciderVectorEnv(small(), 6, groups=2, alpha=0.6, seed=0)
        many.reset()
        right_B = many.step(np.ones((6, 6), dtype=np.int8))[4]["right"]
        assert len(set(right_B[:3])) == len(set(right_B[3:])) == 1
        assert len(many._streams.rows) == 2

    def test_gymnasiums_wrappers_fit(self) -> None:
        wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(DeciderVectorEnv(small(), 2, alpha=0.0))
        wrapped.reset(seed=0)
        for _ in range(30):
            infos = wrapped.step(np.ones((2, 6), dtype=np.int8))[4]
        assert infos["episode"]["l"].tolist() == [30, 30]

    def test_uneven_groups(self) -> None:
        with pytest.raises(UsageError, match="share the environments evenly"):
            DeciderVectorEnv(small(), 5, groups=2, alpha=0.0)


class TestAggregator:
    def test_what_it_sees_and_earns_by_hand(self) -> None:
        """Agent a says 0 with probability 0.7, b abstains, c is not listened to on the second question."""
        probs = np.array([[[0.7, 0.3], [0, 0], [0.5, 0.5]], [[0.2, 0.8], [0, 0], [1, 0]]])
        table = tables.by_hand([[0, -1, 0], [1, -1, 0]], [0, 0], probs=probs)
        mask = np.array([[True, True, True], [True, True, False]])
        env = AggregatorEnv(table, selection=Selection(mask), order="kept")
        np.testing.assert_allclose(env.reset()[0], [0.7, 0.3, 0, 0, 0.5, 0.5], atol=1e-6)
        seen, reward, over, _, info = env.step(np.int64(0))
        np.testing.assert_allclose(seen, [0.2, 0.8, 0, 0, 0, 0], atol=1e-6)
        assert (reward, over, info["right"]) == (1.0, False, True)
        seen, reward, over, _, _ = env.step(np.int64(1))
        assert (seen.tolist(), reward, over) == ([0] * 6, -1.0, True)

    def test_an_answer_stands_for_probabilities_that_are_not_there(self) -> None:
        env = AggregatorEnv(three(), order="kept")
        assert env.reset()[0].tolist() == [1, 0, 1, 0, 0, 1]

    def test_a_selection_of_other_questions(self) -> None:
        with pytest.raises(TableMismatch, match="the answers"):
            AggregatorEnv(three(), selection=Selection(np.ones((2, 3), dtype=bool)))


class TestAsking:
    def test_calls_cost_and_the_answer_counts(self) -> None:
        table = tables.by_hand(np.tile(np.arange(40)[:, None] % 2, (1, 2)), (np.arange(40) % 2).tolist())
        env = AskingEnv(table, price=0.1)
        _, info = env.reset(seed=0)
        assert info["action_mask"].tolist() == [1, 1, 0]
        _, reward, over, _, info = env.step(np.int64(1))
        assert (reward, over, info["action_mask"].tolist(), info["calls"]) == (pytest.approx(-0.1), False, [1, 0, 1], 1)
        _, reward, over, _, _ = env.step(np.int64(2))
        assert (reward, over) == (1.0, True)

    def test_nobody_asked_is_nothing_known(self) -> None:
        env = AskingEnv(three(), price=0.1)
        env.reset(seed=0)
        assert env.step(np.int64(3))[1:3] == (0.0, True)

    def test_asking_again_costs_and_the_last_call_answers(self) -> None:
        env = AskingEnv(small(), price=0.1, max_calls=2)
        env.reset(seed=0)
        first = env.step(np.int64(0))
        again = env.step(np.int64(0))
        np.testing.assert_array_equal(first[0], again[0])
        assert again[1] in (pytest.approx(-0.1), pytest.approx(0.9))
        assert (again[2], again[4]["calls"]) == (True, 2)

    @pytest.mark.parametrize("price", [0.0, -1.0, 2.0])
    def test_a_price_that_makes_no_sense(self, price: float) -> None:
        with pytest.raises(UsageError, match="price of a call"):
            AskingEnv(three(), price=price)


class TestGame:
    def test_pettingzoos_tests(self, capsys: pytest.CaptureFixture[str]) -> None:
        make = functools.partial(focal_game, small(), alpha=0.6, weights=WEIGHTS, window=10)
        parallel_api_test(make(), num_cycles=100)
        parallel_seed_test(make)
        assert "Passed" in capsys.readouterr().out

    def test_the_decider_chooses_and_then_the_aggregator_answers(self) -> None:
        """With order kept: the aggregator hears the pool of each question one step after it was chosen."""
        table = three()
        game = focal_game(table, alpha=0.6, order="kept")
        seen, _ = game.reset(seed=0)
        assert seen["aggregator"].tolist() == [0] * 6
        pools = [[1, 0, 1], [1, 1, 1], [0, 1, 0], [1, 1, 1]]
        earned, heard = [], []
        for pool in pools:
            seen, rewards, ended, _, _ = game.step({"decider": np.array(pool), "aggregator": 0})
            earned.append((rewards["decider"], rewards["aggregator"]))
            heard.append(seen["aggregator"].tolist())
        assert heard == [[1, 0, 0, 0, 0, 1], [0, 1, 0, 1, 1, 0], [0, 0, 0, 1, 0, 0], [0] * 6]
        assert earned == [(1, 0), (pytest.approx(-1.6), 1), (pytest.approx(-1.2), 1), (0, 1)]
        assert ended == {"decider": True, "aggregator": True}
        assert game.agents == []

    def test_its_decider_is_that_of_the_environment(self) -> None:
        game, env = (make(small(), alpha=0.6, seed=1) for make in (focal_game, DeciderEnv))
        pools_NM = np.random.default_rng(0).integers(0, 2, (30, 6))
        np.testing.assert_array_equal(game.reset()[0]["decider"], env.reset()[0])
        for pool_M in pools_NM:
            seen, rewards, *_ = game.step({"decider": pool_M, "aggregator": 1})
            expected = env.step(pool_M)
            np.testing.assert_array_equal(seen["decider"], expected[0])
            assert rewards["decider"] == expected[1]


@pytest.mark.parametrize("make", [DeciderEnv, focal_game], ids=["decider", "game"])
def test_nothing_to_play_on(make: Callable[..., object]) -> None:
    with pytest.raises(InvalidTable, match="empty"):
        make(small().rows(slice(0, 0)), alpha=0.6)
    with pytest.raises(InvalidTable, match="no labels"):
        make(small().blind(), alpha=0.6)


@pytest.mark.parametrize(("package", "name"), [("gymnasium", "DeciderEnv"), ("pettingzoo", "focal_game")])
def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, package: str, name: str) -> None:
    for module in ("fusion.policies.environments", "fusion.policies._focal_game"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf"{package}; install it with: pip install 'fusion\[marl\]'"):
        getattr(fusion.policies, name)
    importlib.import_module("fusion.policies._window")


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_stable_baselines_trains_on_it(name: str) -> None:
    from stable_baselines3 import PPO

    made = MAKERS[name]()
    model = PPO("MlpPolicy", made, n_steps=64, batch_size=32, n_epochs=2, seed=0, device="cpu")
    model.learn(total_timesteps=320)
    seen, _ = made.reset(seed=0)
    action, _ = model.predict(seen, deterministic=True)
    assert action in made.action_space
