"""Training a policy in a folder: it can be watched, and goes on after a kill as if nothing had been."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tables
import torch
from tensorboard_log import logged_scalars
from test_paper_policy import pair_world

from fusion.curves import TENSORBOARD, Curves, read_curves
from fusion.data import category_names
from fusion.errors import InputError, OutputError
from fusion.policies import (
    AggregatorOptions,
    DeciderOptions,
    PpoOptions,
    TrainingRun,
    World,
    train_aggregator,
    train_decider,
    train_policy,
)
from fusion.protocols import FolderMethod, LearningMethod
from fusion.selectors.marl_focal import MarlFocal

pytestmark = pytest.mark.usefixtures("quick")
Arrays = list[npt.NDArray[np.float32]]
UPDATES = 12


class Cut(Exception):
    """What cuts training short."""


def policy(run: TrainingRun) -> Arrays:
    table = pair_world(0)
    found = World.to_learn_from(table, category_names(table), seed=0)
    run.begin("policy")
    layers = train_policy(found, table.require_labels(), options=PpoOptions(updates=UPDATES, seed=1), run=run)
    return [*layers.weights, *layers.biases]


def decider(run: TrainingRun) -> Arrays:
    few = DeciderOptions(updates=UPDATES, streams=32, groups=4, horizon=4, window=10, seed=3)
    run.begin("decider")
    return list(train_decider(pair_world(0), options=few, run=run))


def patient_decider(run: TrainingRun) -> Arrays:
    """Ends at the tenth update, as nothing gets better: it does not learn."""
    few = DeciderOptions(updates=50, streams=8, groups=4, horizon=1, window=5, patience=1, learning_rate=0.0)
    run.begin("patient")
    return list(train_decider(pair_world(0), options=few, run=run))


def aggregator(run: TrainingRun) -> Arrays:
    table = pair_world(0)
    run.begin("aggregator")
    everybody = np.ones(table.answers.shape, dtype=bool)
    found = train_aggregator(table, everybody, options=AggregatorOptions(updates=UPDATES, seed=2), run=run)
    return [*found.weights, *found.biases]


def cut_after(update: int) -> Callable[[str, int, int], None]:
    def told(what: str, done: int, total: int) -> None:
        if done > update:
            raise Cut

    return told


@pytest.mark.parametrize("train", [policy, decider, aggregator])
@pytest.mark.parametrize("after", [1, 7])
def test_who_is_cut_short_ends_as_without(train: Callable[[TrainingRun], Arrays], after: int, tmp_path: Path) -> None:
    """Weights and curves are the same to the last bit, cut before the first look at validation and between two."""
    whole = train(TrainingRun(tmp_path / "whole", seconds=0))
    with pytest.raises(Cut):
        train(TrainingRun(tmp_path / "cut", told=cut_after(after), seconds=0))
    assert [row["step"] for row in read_curves(tmp_path / "cut")] == list(range(1, after + 1))
    told: list[int] = []
    resumed = train(TrainingRun(tmp_path / "cut", told=lambda what, done, total: told.append(done), seconds=0))
    assert told == list(range(after + 1, UPDATES + 1))
    for part, expected in zip(resumed, whole, strict=True):
        tables.equal(part, expected)
    assert read_curves(tmp_path / "cut") == read_curves(tmp_path / "whole")
    for part, expected in zip(train(TrainingRun()), whole, strict=True):
        tables.equal(part, expected)


@pytest.mark.parametrize("train", [policy, decider, patient_decider, aggregator])
def test_what_is_done_is_not_done_again(train: Callable[[TrainingRun], Arrays], tmp_path: Path) -> None:
    whole, told = train(TrainingRun(tmp_path)), []
    again = train(TrainingRun(tmp_path, told=lambda what, done, total: told.append(done)))
    assert told == []
    for part, expected in zip(again, whole, strict=True):
        tables.equal(part, expected)


def test_early_ends_are_ends(tmp_path: Path) -> None:
    patient_decider(TrainingRun(tmp_path))
    assert [row["step"] for row in read_curves(tmp_path)][-1] == 10


def test_another_run_in_the_folder_begins_anew(tmp_path: Path) -> None:
    policy(TrainingRun(tmp_path, seconds=0))
    run = TrainingRun(tmp_path, seconds=0)
    decider(run)
    assert [set(row) - {"validation"} for row in read_curves(tmp_path)] == [{"step", "reward", "pool"}] * UPDATES


def test_figures_are_those_of_what_was_played(tmp_path: Path) -> None:
    """Calls of a question are between 1 and 6, what is earned is at most 1, and it looks every fifth update."""
    policy(TrainingRun(tmp_path / "policy"))
    rows = read_curves(tmp_path / "policy")
    assert all(1 <= row["calls"] <= 6 and row["reward"] < 1 and 0 <= row["entropy"] <= np.log(7) for row in rows)
    assert rows[-1]["reward"] > rows[0]["reward"]
    decider(TrainingRun(tmp_path / "decider"))
    assert [row["step"] for row in read_curves(tmp_path / "decider") if "validation" in row] == [5, 10, 12]


class TestTensorBoard:
    def test_it_logs_what_the_curves_have(self, tmp_path: Path) -> None:
        policy(TrainingRun(tmp_path, tensorboard=True))
        found = logged_scalars(tmp_path)
        assert set(found) == {"reward", "calls", "entropy"}
        for name, values in found.items():
            expected = [(int(row["step"]), pytest.approx(row[name], rel=1e-4)) for row in read_curves(tmp_path)]
            assert values == expected

    def test_a_run_that_goes_on_logs_no_step_twice(self, tmp_path: Path) -> None:
        with pytest.raises(Cut):
            policy(TrainingRun(tmp_path, told=cut_after(5), seconds=0, tensorboard=True))
        policy(TrainingRun(tmp_path, seconds=0, tensorboard=True))
        assert [step for step, _ in logged_scalars(tmp_path)["reward"]] == list(range(1, UPDATES + 1))

    def test_a_run_that_begins_anew_removes_the_other_log(self, tmp_path: Path) -> None:
        policy(TrainingRun(tmp_path, tensorboard=True))
        decider(TrainingRun(tmp_path, tensorboard=True))
        assert set(logged_scalars(tmp_path)) == {"reward", "pool", "validation"}

    def test_without_it_nothing_is_logged(self, tmp_path: Path) -> None:
        policy(TrainingRun(tmp_path))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "curves.csv", "training.json"]


class TestCurves:
    def test_by_hand(self, tmp_path: Path) -> None:
        """Figures that a step lacks stay empty; going on after step 1 drops the second."""
        curves = Curves(tmp_path)
        curves.add(1, {"reward": 0.25})
        curves.add(2, {"reward": 0.5, "validation": 0.125})
        curves.write()
        assert (tmp_path / "curves.csv").read_text() == "step,reward,validation\n1,0.25,\n2,0.5,0.125\n"
        later = Curves(tmp_path, since=1)
        later.add(2, {"reward": 1.0})
        later.close()
        assert read_curves(tmp_path) == [{"step": 1, "reward": 0.25}, {"step": 2, "reward": 1.0}]

    def test_there_are_none_in_an_empty_folder(self, tmp_path: Path) -> None:
        assert read_curves(tmp_path) == []

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "curves.csv").write_text("step,reward\n1,much\n")
        with pytest.raises(InputError, match=r"curves\.csv cannot be read .*much.*; remove it"):
            read_curves(tmp_path)


class TestErrors:
    @pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04"])
    def test_a_damaged_checkpoint_is_named(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(InputError, match=r"checkpoint\.pt is damaged; remove .* and fit again"):
            TrainingRun(tmp_path).begin("any")

    def test_a_folder_that_cannot_be_is_refused_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="cannot write"):
            TrainingRun(tmp_path / "file" / "inside").begin("any")


class TestMethods:
    def test_both_learn_in_folders_and_keep_no_files(self) -> None:
        assert isinstance(MarlFocal(), LearningMethod)
        assert not isinstance(MarlFocal(), FolderMethod)

    def test_every_step_is_told(self) -> None:
        """Least squares tells of both of its parts, on hand of 6 agents."""
        told: list[tuple[str, int, int]] = []
        method = MarlFocal()
        method.learn_in(Path("unused"), lambda *step: told.append(step))
        method.fit(pair_world(0))
        assert told == [
            *(("learning what answers say", fold, 5) for fold in range(5)),
            *(("learning whom to ask after whom", place, 6) for place in range(6)),
        ]
        assert not Path("unused").exists()

    def test_what_prices_are_chosen_for_is_not_learned_again(self, tmp_path: Path) -> None:
        """One network has all prices in it."""
        told: list[str] = []
        for calls in (0.0, 2.0):
            method = MarlFocal(learner="ppo", updates=3, calls=calls)
            method.learn_in(tmp_path, lambda what, done, total: told.append(what))
            method.fit(pair_world(0))
        assert told.count("training the policy") == 3
        other = MarlFocal(learner="ppo", updates=3, seed=1)
        other.learn_in(tmp_path, lambda what, done, total: told.append(what))
        other.fit(pair_world(0))
        assert told.count("training the policy") == 6


SYSTEM = "marl_focal(learner=ppo,updates=100)+topla_weighted"
FIT = "import sys; from fusion.cli import main; sys.exit(main())"


class TestCommand:
    @pytest.fixture
    def table(self, tmp_path: Path) -> Path:
        from fusion.data import write_table

        path = tmp_path / "table.parquet"
        write_table(pair_world(0), path)
        return path

    def fit(self, table: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", FIT, "fit", SYSTEM, str(table), "--out", str(out), *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def test_it_goes_on_after_a_kill(self, table: Path, tmp_path: Path) -> None:
        """Killed once a checkpoint is there, and started again, it comes to what it comes to undisturbed."""
        whole, out = tmp_path / "whole", tmp_path / "out"
        undisturbed = self.fit(table, whole)
        assert undisturbed.communicate()[1] == ""
        assert undisturbed.returncode == 0
        first = self.fit(table, out)
        checkpoint = out / "selector" / "checkpoint.pt"
        for _ in range(600):
            if checkpoint.exists() or first.poll() is not None:
                break
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        assert first.returncode == -signal.SIGKILL
        kept = torch.load(checkpoint, weights_only=True)
        assert 1 <= kept["update"] < 100
        assert not (out / "ensemble.json").exists()
        again = self.fit(table, out, "--tensorboard")
        assert again.communicate()[1] == ""
        assert (
            json.loads((out / "fit.json").read_text())["accuracy"]
            == json.loads((whole / "fit.json").read_text())["accuracy"]
        )
        with np.load(out / "state.npz") as found, np.load(whole / "state.npz") as expected:
            for name in expected.files:
                tables.equal(found[name], expected[name])
        assert any((out / "selector" / TENSORBOARD).iterdir())
