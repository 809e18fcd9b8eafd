"""MARL-Focal's two agents, learned from many streams at once."""

import functools
import itertools

import numpy as np
import numpy.typing as npt
import pytest
import tables
import torch

from fusion.data import PredictionTable
from fusion.errors import InvalidTable, UsageError
from fusion.policies import (
    Aggregator,
    AggregatorOptions,
    Decider,
    DeciderOptions,
    DiversityWeights,
    Recorded,
    TrainingRun,
    play_stream,
    train_aggregator,
    train_decider,
)
from fusion.policies._paper import Parts, held_game, mean_reward
from fusion.policies._paper_learner import Look
from fusion.policies._paper_net import (
    CLIP,
    Batch,
    Net,
    Played,
    adam,
    answer,
    chances_of,
    clipped,
    gains,
    improve,
    loss_of,
    seeded,
    slopes,
)

pytestmark = pytest.mark.usefixtures("quick")
FEW = DeciderOptions(alpha=0.6, window=40, updates=40, streams=256, groups=16, horizon=8, seed=1)


@functools.cache
def pair_world(seed: int, questions: int = 400) -> PredictionTable:
    """Agents b and e are right on 19 questions of 20; all others say the same wrong thing."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, questions)
    answers_NM = np.repeat((labels_N + 1)[:, None] % 4, 6, axis=1)
    for agent in (1, 4):
        answers_NM[:, agent] = np.where(rng.random(questions) < 0.95, labels_N, answers_NM[:, agent])
    ids = [f"{seed}/{n}" for n in range(questions)]
    return tables.by_hand(answers_NM, labels_N.tolist(), question_ids=ids, num_options=[4] * questions)


@functools.cache
def learned() -> Decider:
    return train_decider(pair_world(0), options=FEW)


def joined(fit: PredictionTable, test: PredictionTable) -> tuple[Recorded, npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Both tables as one record, and which rows are whose."""
    answers_NM, labels_N = (
        np.concatenate([getattr(table, name) for table in (fit, test)]) for name in ("answers", "labels")
    )
    recorded = Recorded(answers_NM, labels_N, num_options=fit.max_options, accuracies=fit.accuracies)
    return recorded, np.arange(len(fit)), np.arange(len(fit), len(answers_NM))


class TestDecider:
    def test_it_finds_the_pair_that_is_right(self) -> None:
        """Everybody's vote is always wrong, a pool drawn at random nearly so; the pair is right on 19 of 20."""
        recorded, past, rows = joined(pair_world(0), pair_world(1))
        pools_NM = play_stream(learned(), recorded, rows, weights=FEW.weights, window=40, past=past)
        assert not pools_NM[:, [0, 2, 3, 5]].any()
        right_N = recorded.right(rows, pools_NM[:, :, None].astype(np.float64))[:, 0]
        assert right_N.mean() > 0.9

    def test_the_same_seed_gives_the_same_weights(self) -> None:
        few = DeciderOptions(updates=2, streams=32, groups=4, horizon=4, window=10, seed=3)
        one, same = (train_decider(pair_world(0), options=few) for _ in range(2))
        other = train_decider(pair_world(0), options=DeciderOptions(**(vars(few) | {"seed": 4})))
        for part, again in zip(one, same, strict=True):
            tables.equal(part, again)
        assert not np.array_equal(one.hidden, other.hidden)

    def test_progress_is_told_and_others_random_numbers_stay(self) -> None:
        told: list[tuple[int, int]] = []
        before, torchs = tables.global_randomness(), torch.get_rng_state()
        few = DeciderOptions(updates=3, streams=8, groups=4, horizon=2, window=10)
        train_decider(pair_world(0), options=few, run=TrainingRun(told=lambda what, *step: told.append(step)))
        assert told == [(1, 3), (2, 3), (3, 3)]
        assert tables.global_randomness() == before
        assert torch.equal(torch.get_rng_state(), torchs)

    def test_weights_are_arrays_of_their_own(self) -> None:
        assert [part.shape for part in learned()] == [(8, 128), (128,), (128, 6), (6,)]
        assert {part.dtype for part in learned()} == {np.dtype(np.float32)}

    def test_nobody_is_never_chosen(self) -> None:
        """Heads that all say no leave the likeliest one in."""
        decider = Decider(np.zeros((4, 3)), np.zeros(3), np.zeros((3, 2)), np.array([-2.0, -1.0]))
        assert decider.choose_pools(np.zeros((1, 4))).tolist() == [[False, True]]
        yes = decider._replace(heads_bias=np.array([1.0, -1.0]))
        assert yes.choose_pools(np.zeros((1, 4))).tolist() == [[True, False]]

    def test_few_questions_are_enough_to_run(self) -> None:
        few = DeciderOptions(updates=1, streams=4, groups=2, horizon=2, window=5)
        for questions in (1, 3, 12):
            assert train_decider(pair_world(0).rows(slice(0, questions)), options=few).heads.shape == (128, 6)


class TestFrozen:
    def test_playing_and_judging_change_nothing(self) -> None:
        recorded, past, rows = joined(pair_world(0), pair_world(1))
        before = [part.copy() for part in learned()]
        parts = Parts.of(len(past))
        held = held_game(recorded, parts, FEW)
        assert mean_reward(learned(), held, recorded) == mean_reward(learned(), held, recorded)
        assert held.position == 0
        play = functools.partial(play_stream, learned(), recorded, rows, weights=FEW.weights, window=40, past=past)
        tables.equal(play(), play())
        for part, kept in zip(learned(), before, strict=True):
            tables.equal(part, kept)

    def test_labels_to_come_change_no_pool(self) -> None:
        """A decider that goes by the score alone, here how often the pool was right; labels differ from 150 on."""
        fit, test = pair_world(0), pair_world(1)
        labels_N = np.where(np.arange(400) < 150, test.require_labels(), (test.require_labels() + 2) % 4)
        other = tables.by_hand(test.answers, labels_N.tolist(), num_options=[4] * 400)
        hidden_DH = np.zeros((8, 1))
        hidden_DH[6] = 1
        # Where the score is below 0.5 it takes the pair that is right, else agent 3, and is back the next time.
        heads_HM, bias_M = np.array([[0.0, -1, 0, 1, -1, 0]]), np.array([-1, 0.5, -1, -0.5, 0.5, -1])
        decider = Decider(hidden_DH, np.zeros(1), heads_HM, bias_M)
        votes = DiversityWeights(focal=0, fleiss_kappa=0, plurality=1)
        pools = []
        for table in (test, other):
            recorded, past, rows = joined(fit, table)
            play = functools.partial(play_stream, decider, recorded, rows, weights=votes, window=20, past=past)
            pools.append((play(), play(answered=False)))
        np.testing.assert_array_equal(pools[0][0][:151], pools[1][0][:151])
        assert not np.array_equal(pools[0][0], pools[1][0])
        np.testing.assert_array_equal(pools[0][1], pools[1][1])


class TestValidation:
    @pytest.mark.parametrize("questions", [10, 99, 400, 5031])
    def test_every_tenth_block_is_never_trained_on(self, questions: int) -> None:
        parts = Parts.of(questions)
        assert not set(parts.train) & set(parts.held.ravel())
        assert sorted([*parts.train, *parts.held.ravel()]) == list(range(questions))
        assert len(parts.train) / questions == pytest.approx(0.9, abs=0.1)
        assert (np.diff(parts.held, axis=1) == 1).all()

    def test_what_is_held_out_does_not_change_what_is_learned(self) -> None:
        """With one look, at the end, the weights are those of the last update whatever it sees."""
        table = pair_world(0)
        held_n = Parts.of(len(table)).held.ravel()
        answers_NM = np.array(table.answers)
        labels_N = np.array(table.require_labels())
        # Accuracies settle ties: agents stay as accurate as they were where all are moved alike.
        answers_NM[held_n], labels_N[held_n] = (answers_NM[held_n] + 1) % 4, (labels_N[held_n] + 1) % 4
        other = tables.by_hand(answers_NM, labels_N.tolist(), num_options=[4] * len(table))
        few = DeciderOptions(updates=1, streams=32, groups=4, horizon=4, window=10)
        for part, same in zip(train_decider(table, options=few), train_decider(other, options=few), strict=True):
            tables.equal(part, same)


def test_the_best_weights_are_kept_and_as_a_copy() -> None:
    """The second of four looks is the best, and two worse ones after it are enough."""
    draws, look = seeded(0), Look(2)
    net, kept = Net((4, 8, 2), draws), []
    ends = []
    for value in (1.0, 3.0, 2.0, 3.0):
        weights = net.weights()
        kept.append([part.copy() for parts in weights for part in parts])
        look.see(value, weights)
        ends.append(look.over)
        with torch.no_grad():
            for part in net.parameters:
                part += 1
    assert ends == [False, False, False, True]
    for part, expected in zip(itertools.chain(*look.kept), kept[1], strict=True):
        tables.equal(part, expected)


def a_batch(seed: int, *, rows: int = 300, agents: int = 5) -> tuple[Net, Batch]:
    draws = seeded(seed)
    net = Net((agents + 2, 16, agents), draws)
    numbers = functools.partial(torch.randn, generator=draws)
    chosen = (torch.rand(rows, agents, generator=draws) < 0.5).float()
    before = numbers(rows) * 0.3 - agents * float(np.log(2))
    return net, Batch(numbers(rows, agents + 2), chosen, before, numbers(rows), numbers(rows))


class TestClip:
    def test_the_loss_by_hand(self) -> None:
        """Ratios 2 and 1/2. A gain of 1 counts 1.2 and 0.5, a loss of 1 counts -2 and -0.8."""
        ratio, gain = torch.tensor([2.0, 0.5, 2.0, 0.5]), torch.tensor([1.0, 1.0, -1.0, -1.0])
        each = [float(clipped(ratio[i : i + 1].log(), torch.zeros(1), gain[i : i + 1])) for i in range(4)]
        assert each == pytest.approx([-1.2, -0.5, 2.0, 0.8])

    @pytest.mark.parametrize("entropy", [0.0, 0.05])
    @pytest.mark.parametrize("rows", [300, 2500])
    def test_the_closed_form_is_the_gradient(self, entropy: float, rows: int) -> None:
        """Of means over float32, so they agree to about their precision times the largest slope."""
        net, batch = a_batch(0, rows=rows)
        expected = torch.autograd.grad(loss_of(net, batch, entropy), net.parameters)
        with torch.no_grad():
            found = slopes(net, batch, entropy)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize(("shift", "gain"), [(-1.0, 1.0), (1.0, -1.0)])
    def test_choices_that_moved_too_far_are_not_pushed_on(self, shift: float, gain: float) -> None:
        """Had the old log-probabilities been computed again, the ratio would be 1 and every slope something."""
        net, batch = a_batch(1)
        with torch.no_grad():
            scores, value = net(batch.seen)
            now = chances_of(scores, batch.chosen)
            moved = batch._replace(gain=torch.full_like(now, gain), aim=value, before=now + shift)
            assert all(not slope.any() for slope in slopes(net, moved, 0.0))
            assert any(slope.any() for slope in slopes(net, moved._replace(before=now), 0.0))

    def test_an_update_keeps_the_probabilities_that_acted(self) -> None:
        """Four hundred passes would drive the choice to certainty; the clip stops it soon after 1 + CLIP.

        One stream, one agent, which was chosen with a gain on one question of two and left out with a loss on the
        other: with the ratio against fresh probabilities, which is always 1, it would go on for ever.
        """
        draws = seeded(0)
        net = Net((3, 16, 1), draws)
        seen = torch.ones(2, 1, 3)
        chosen = torch.tensor([[[1.0]], [[0.0]]])
        with torch.no_grad():
            scores, value = net(seen[:, 0])
            logprob = chances_of(scores, chosen[:, 0])[:, None]
        reward = torch.tensor([[1.0], [-1.0]])
        played = Played(seen, chosen, logprob, torch.cat([value[:, None], value[:1, None]]), reward)
        improve(net, adam(net, 1e-3), played, groups=1, gamma=0.0, passes=400, entropy=0.0, draws=draws, batches=1)
        with torch.no_grad():
            ratio = float((chances_of(net(seen[:1, 0])[0], chosen[:1, 0]) - logprob[0]).exp())
        assert 1 + CLIP / 2 < ratio < 1 + 3 * CLIP

    def test_advantages_by_hand(self) -> None:
        """Rewards 1 and -1, values 0.5, 0.2 and 0.4, gamma 0.5, lambda 0.95.

        Surprises: 1 + 0.1 - 0.5 = 0.6 and -1 + 0.2 - 0.2 = -1; the first gain is 0.6 - 0.475 = 0.125.
        """
        found = gains(torch.tensor([[1.0], [-1.0]]), torch.tensor([[0.5], [0.2], [0.4]]), 0.5)
        assert found[:, 0].tolist() == pytest.approx([0.125, -1.0])


class TestAggregator:
    def world(self, seed: int, questions: int = 300) -> PredictionTable:
        """Agent a is always right, the other two always say 0."""
        rng = np.random.default_rng(seed)
        labels_N = rng.integers(0, 3, questions)
        answers_NM = np.stack([labels_N, np.zeros_like(labels_N), np.zeros_like(labels_N)], axis=1)
        return tables.by_hand(answers_NM, labels_N.tolist(), num_options=[3] * questions)

    def test_it_learns_whom_to_believe_and_is_no_constant(self) -> None:
        """A vote says 0 always, and is right on a third."""
        fit, test = self.world(0), self.world(1)
        everyone = np.ones(fit.answers.shape, dtype=bool)
        found = train_aggregator(fit, everyone, options=AggregatorOptions(updates=80, batch=64))
        seen_ND = (test.answers[:, :, None] == np.arange(3)).reshape(len(test), -1)
        chosen_N = found.choose_options(seen_ND.astype(np.float32))
        assert (chosen_N == test.labels).mean() > 0.95
        assert [part.shape for part in found.weights] == [(9, 100), (100, 100), (100, 3)]

    def test_who_is_not_in_the_pool_is_not_heard(self) -> None:
        fit = self.world(0)
        without = np.ones(fit.answers.shape, dtype=bool)
        without[:, 0] = False
        found = train_aggregator(fit, without, options=AggregatorOptions(updates=10, batch=64))
        seen_ND = np.zeros((2, 9), dtype=np.float32)
        seen_ND[:, [3, 6]] = 1
        assert len(set(found.choose_options(seen_ND).tolist())) == 1

    def test_the_same_seed_gives_the_same_weights_and_progress_is_told(self) -> None:
        fit, told = self.world(0), []
        everyone = np.ones(fit.answers.shape, dtype=bool)
        made: list[Aggregator] = [
            train_aggregator(
                fit,
                everyone,
                options=AggregatorOptions(updates=2, seed=seed),
                run=TrainingRun(told=lambda what, *step: told.append(step)),
            )
            for seed in (0, 0, 1)
        ]
        tables.equal(made[0].weights[0], made[1].weights[0])
        assert not np.array_equal(made[0].weights[0], made[2].weights[0])
        assert told == [(1, 2), (2, 2)] * 3

    def test_it_draws_what_it_answers(self) -> None:
        """From a network that is nearly indifferent all options are tried, so all can be learned."""
        draws, seen_ND = seeded(0), np.ones((200, 6), dtype=np.float32)
        net = Net((6, 8, 3), draws)
        before = [part.detach().clone() for part in net.parameters]
        for label in range(3):
            labels_N = np.full(200, label)
            rewarded = net.parameters[-1].detach().clone()
            answer(net, adam(net, 1e-2), (seen_ND, labels_N), batch=200, gamma=0.0, passes=1, entropy=0.0, draws=draws)
            assert net.parameters[-1][label] > rewarded[label]
        assert not torch.equal(before[0], net.parameters[0])


class TestRefusals:
    def test_no_labels_or_questions(self) -> None:
        for table in (pair_world(0).blind(), pair_world(0).rows(slice(0, 0))):
            with pytest.raises(InvalidTable):
                train_decider(table, options=FEW)
            with pytest.raises(InvalidTable):
                train_aggregator(table, np.ones(table.answers.shape, dtype=bool), options=AggregatorOptions())

    def test_groups_that_do_not_share_evenly(self) -> None:
        with pytest.raises(UsageError, match="share the streams evenly"):
            DeciderOptions(streams=10, groups=3)

    def test_pools_of_other_questions(self) -> None:
        with pytest.raises(UsageError, match="pools"):
            train_aggregator(pair_world(0), np.ones((2, 6), dtype=bool), options=AggregatorOptions())


def test_the_paper_weights_are_the_defaults() -> None:
    assert DeciderOptions().weights == DiversityWeights(focal=0.5, fleiss_kappa=0.5)
