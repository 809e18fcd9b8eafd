"""Training runs in a folder: what they leave, going on after they were cut short, stopping, and what they refuse."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tables
import torch
import transformers
from tensorboard_log import logged_scalars
from tiny_models import TinyModels, closed_words
from transformers import LlamaConfig
from trust_world import ANSWERS

from fusion.curves import TENSORBOARD
from fusion.errors import FusionError, InputError, MissingDependency, OutputError
from fusion.fusers._sequence import Row
from fusion.fusers._writer import Collate, example, load_tokenizer, load_writer
from fusion.training import OwnFolder, Trained, TrainOptions, finished, is_main, keep_folder, train

pytestmark = pytest.mark.usefixtures("quick")

OPTIONS = TrainOptions(epochs=3, learning_rate=3e-3, batch_size=4, patience=9, evaluations=2)


class CutShort(Exception):
    """Stands for whatever ends a process."""


class Job(NamedTuple):
    """Everything to train with but the folder, the mark and how."""

    make: Callable[[], Any]
    examples: list[dict[str, list[int]]]
    held_out: list[dict[str, list[int]]]
    collate: Collate

    def run(
        self,
        folder: Path,
        options: TrainOptions = OPTIONS,
        *,
        mark: str = "m",
        told: Any = None,
        tensorboard: bool = False,
    ) -> Trained:
        return train(
            self.make,
            self.examples,
            self.held_out,
            collate=self.collate,
            folder=folder,
            mark=mark,
            options=options,
            told=told or (lambda *_: None),
            tensorboard=tensorboard,
        )

    def without_held_out(self) -> "Job":
        return self._replace(held_out=[])


@pytest.fixture(scope="module")
def job(tiny: TinyModels) -> Job:
    """Learn to repeat the last word; a third of the activations are dropped, so randomness matters."""
    model = str(tiny.led(words=ANSWERS, context=64, dropout=0.3))
    return made(model, causal=False)


def made(model: str, *, causal: bool, seed: int = 0, aimless: bool = False) -> Job:
    rng = np.random.default_rng(seed)
    tokenizer = load_tokenizer(model, 1)
    known = tokenizer.convert_tokens_to_ids(list(ANSWERS))
    examples = []
    for _ in range(48):
        words = rng.choice(known, int(rng.integers(2, 6))).tolist()
        target = rng.choice(known, 1).tolist() if aimless else words[-1:]
        examples.append(example(Row(words, 1), target, causal=causal, end=2))
    return Job(
        lambda: load_writer(model, tokenizer).model,
        examples[:40],
        examples[40:],
        Collate(3, attends=not causal),
    )


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def stopping_at(step: int) -> Callable[[str, int, int], None]:
    def told(what: str, done: int, total: int) -> None:
        if done == step:
            raise CutShort

    return told


class TestARun:
    def test_what_it_leaves(self, job: Job, tmp_path: Path) -> None:
        """40 examples in batches of 4 are 10 steps an epoch; the loss is measured twice in each."""
        steps: list[tuple[str, int, int]] = []
        result = job.run(tmp_path, told=lambda *step: steps.append(step))
        assert (result.steps, result.epochs, result.resumed, result.stopped) == (30, 3.0, 0, False)
        assert [step for step, _ in result.losses] == [5, 10, 15, 20, 25, 30]
        assert result.loss == min(loss for _, loss in result.losses)
        assert result.losses[-1][1] < result.losses[0][1] - 0.1
        assert steps == [("training", step, 30) for step in range(1, 31)]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "trained.json", "training.json"]

    def test_it_is_not_repeated(self, job: Job, tmp_path: Path) -> None:
        def never() -> Any:
            raise AssertionError

        result = job.run(tmp_path)
        before = weights(tmp_path)
        assert finished(tmp_path, "m") == result
        assert finished(tmp_path, "other") is None
        assert job._replace(make=never).run(tmp_path) == result
        assert weights(tmp_path) == before
        shutil.rmtree(tmp_path / "model")
        assert finished(tmp_path, "m") is None
        assert job.run(tmp_path)._replace(seconds=0) == result._replace(seconds=0)
        assert weights(tmp_path) == before

    def test_another_run_takes_its_place(self, job: Job, tmp_path: Path) -> None:
        job.run(tmp_path)
        with pytest.raises(CutShort):
            job.run(tmp_path, mark="other", told=stopping_at(1))
        assert finished(tmp_path, "m") is None
        assert not (tmp_path / "model").exists()
        assert job.run(tmp_path, mark="other").resumed == 0

    def test_nothing_held_out(self, job: Job, tmp_path: Path) -> None:
        result = job.without_held_out().run(tmp_path)
        assert (result.steps, result.loss, result.losses) == (30, None, ())

    def test_less_than_an_epoch(self, job: Job, tmp_path: Path) -> None:
        """The last step is measured too, so that a loss is always known."""
        result = job.run(tmp_path, dataclasses.replace(OPTIONS, epochs=0.3, evaluations=1))
        assert [step for step, _ in result.losses] == [3]
        assert result.loss is not None

    def test_losses_go_to_tensorboard_when_asked(self, job: Job, tmp_path: Path) -> None:
        """A run that goes on after step 10 logs the losses of every step once; weights are those without a log."""
        expected = job.run(tmp_path / "quiet")
        with pytest.raises(CutShort):
            job.run(tmp_path / "cut", told=stopping_at(14), tensorboard=True)
        result = job.run(tmp_path / "cut", tensorboard=True)
        assert logged_scalars(tmp_path / "cut")["eval/loss"] == [
            (step, pytest.approx(loss, rel=1e-5)) for step, loss in result.losses
        ]
        assert weights(tmp_path / "cut") == weights(tmp_path / "quiet")
        assert result.losses == expected.losses
        assert not (tmp_path / "quiet" / TENSORBOARD).exists()

    def test_silence(self, job: Job, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        train(*job[:3], collate=job.collate, folder=tmp_path, mark="m", options=OPTIONS)
        assert capfd.readouterr() == ("", "")

    def test_global_randomness_is_left_alone(self, job: Job, tmp_path: Path) -> None:
        before, tensors = tables.global_randomness(), torch.get_rng_state()
        job.run(tmp_path)
        assert tables.global_randomness() == before
        assert torch.equal(torch.get_rng_state(), tensors)

    def test_only_the_first_process_writes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert is_main()
        monkeypatch.setenv("RANK", "1")
        assert not is_main()


class TestGoingOn:
    @pytest.mark.parametrize("step", [6, 14, 29])
    def test_same_weights(self, job: Job, tmp_path: Path, step: int) -> None:
        """Cut short anywhere, also in the middle of an epoch, it ends with the same weights, bit for bit."""
        expected = job.run(tmp_path / "whole")
        with pytest.raises(CutShort):
            job.run(tmp_path / "cut", told=stopping_at(step))
        result = job.run(tmp_path / "cut")
        assert result.resumed == step // 5 * 5 > 0
        assert result[:4] == expected[:4]
        assert weights(tmp_path / "cut") == weights(tmp_path / "whole")

    def test_cut_short_before_a_checkpoint(self, job: Job, tmp_path: Path) -> None:
        with pytest.raises(CutShort):
            job.run(tmp_path, told=stopping_at(4))
        assert job.run(tmp_path).resumed == 0

    @pytest.mark.parametrize("damage", ["", "{}", '{"global_step": 10', None])
    def test_a_damaged_checkpoint_is_passed_over(self, job: Job, tmp_path: Path, damage: str | None) -> None:
        with pytest.raises(CutShort):
            job.run(tmp_path, told=stopping_at(14))
        state = tmp_path / "checkpoints" / "checkpoint-10" / "trainer_state.json"
        state.unlink()
        if damage is not None:
            state.write_text(damage)
        assert job.run(tmp_path).resumed == 5

    def test_patience_is_remembered(self, tiny: TinyModels, tmp_path: Path) -> None:
        """Evaluations without a lower loss count also when they were before the cut."""
        job = made(str(tiny.led(words=ANSWERS, context=64, hidden=32)), causal=False, aimless=True)
        options = dataclasses.replace(OPTIONS, epochs=30, learning_rate=1e-2, patience=3)
        whole = job.run(tmp_path / "whole", options)
        assert whole.stopped
        with pytest.raises(CutShort):
            job.run(tmp_path / "cut", options, told=stopping_at(whole.steps - 1))
        result = job.run(tmp_path / "cut", options)
        assert result.resumed == whole.steps - 5
        assert (result.steps, result.stopped, result.losses) == (whole.steps, True, whole.losses)
        assert weights(tmp_path / "cut") == weights(tmp_path / "whole")

    def test_cut_short_after_the_last_step(
        self, tiny: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run that had stopped, but was not noted as done, stops where it had stopped."""
        job = made(str(tiny.led(words=ANSWERS, context=64, hidden=32)), causal=False, aimless=True)
        options = dataclasses.replace(OPTIONS, epochs=30, learning_rate=1e-2, patience=3)
        whole = job.run(tmp_path / "whole", options)
        save = transformers.Trainer.save_model

        def cut(trainer: Any, output_dir: str, **how: Any) -> None:
            if output_dir.endswith("model"):
                raise CutShort
            save(trainer, output_dir, **how)

        with monkeypatch.context() as patched:
            patched.setattr(transformers.Trainer, "save_model", cut)
            with pytest.raises(CutShort):
                job.run(tmp_path / "cut", options)
        result = job.run(tmp_path / "cut", options)
        assert 0 < result.resumed < whole.steps
        assert (result.steps, result.losses) == (whole.steps, whole.losses)
        assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


class TestHow:
    def test_the_best_weights_are_kept(self, tiny: TinyModels, tmp_path: Path) -> None:
        """Where there is nothing to learn the loss on held-out examples rises soon, and the lowest is kept."""
        job = made(str(tiny.led(words=ANSWERS, context=64, hidden=32)), causal=False, aimless=True)
        options = dataclasses.replace(OPTIONS, epochs=30, learning_rate=1e-2, patience=2)
        result = job.run(tmp_path, options)
        losses = [loss for _, loss in result.losses]
        assert result.stopped
        assert result.steps < 300
        assert losses.index(min(losses)) == len(losses) - 3
        assert result.loss == min(losses) < losses[-1] - 0.01
        model = load_writer(tmp_path / "model", load_tokenizer(str(tiny.led(words=ANSWERS)), 1)).model.eval()
        with torch.inference_mode():
            found = [float(model(**job.collate(job.held_out[n : n + 4])).loss) for n in (0, 4)]
        assert np.mean(found) == pytest.approx(result.loss, abs=1e-4)

    def test_a_run_that_diverges(self, job: Job, tmp_path: Path) -> None:
        options = dataclasses.replace(OPTIONS, learning_rate=1e9)
        for one in (job, job.without_held_out()):
            with pytest.raises(FusionError, match=r"training diverged: the loss became .*; lower learning_rate, or"):
                one.run(tmp_path, options)
            assert finished(tmp_path, "m") is None

    @pytest.mark.parametrize("causal", [False, True])
    def test_bfloat16_and_gradient_checkpointing(self, tiny: TinyModels, tmp_path: Path, causal: bool) -> None:
        """Half precision and less memory give a loss near the plain one, and leave later runs as they were."""
        model = str(tiny.built(llama(), "llama-words", words=closed_words(ANSWERS)))
        job = made(model if causal else str(tiny.led(words=ANSWERS, context=64)), causal=causal)
        plain = job.run(tmp_path / "plain")
        assert plain.loss is not None
        for name, change in {"low": {"precision": "bfloat16"}, "less": {"gradient_checkpointing": True}}.items():
            result = job.run(tmp_path / name, dataclasses.replace(OPTIONS, **change))  # type: ignore[arg-type]
            assert result.loss == pytest.approx(plain.loss, abs=0.05)
        assert job.run(tmp_path / "again").losses == plain.losses
        assert weights(tmp_path / "again") == weights(tmp_path / "plain")

    @pytest.mark.parametrize("causal", [False, True])
    def test_accumulation_is_a_larger_batch(self, tiny: TinyModels, tmp_path: Path, causal: bool) -> None:
        """4 batches of 2 are 1 of 8: the same gradients and losses but for rounding, as all targets have two tokens.

        Adam makes steps of one size of gradients that are nothing but rounding, so later losses differ a little.
        """
        model = str(tiny.built(llama(), "llama-words", words=closed_words(ANSWERS)))
        job = made(model if causal else str(tiny.led(words=ANSWERS, context=64)), causal=causal)
        logged = []
        for name, batch in {"whole": (8, 1), "parts": (2, 4)}.items():
            options = dataclasses.replace(OPTIONS, batch_size=batch[0], accumulate=batch[1])
            with pytest.raises(CutShort):
                job.run(tmp_path / name, options, told=stopping_at(14))
            state = json.loads((tmp_path / name / "checkpoints" / "checkpoint-12" / "trainer_state.json").read_text())
            logged.append(
                [[row.get(key, 0) for key in ("loss", "eval_loss", "grad_norm")] for row in state["log_history"]]
            )
        np.testing.assert_allclose(*logged, rtol=1e-2)


def llama() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.1,
    )


class TestFolders:
    def test_damaged_notes(self, job: Job, tmp_path: Path) -> None:
        job.run(tmp_path)
        note = tmp_path / "trained.json"
        content = json.loads(note.read_text())
        for damaged in ('{"mark": ', json.dumps(content | {"trained": {"steps": 3}}), json.dumps({"mark": "m"})):
            note.write_text(damaged)
            with pytest.raises(InputError, match=r"remove \S+ and fit again"):
                job.run(tmp_path)

    def test_a_file_is_in_the_way(self, job: Job, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="give a folder that can be"):
            job.run(tmp_path / "file" / "run")

    def test_no_library(self, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "accelerate", None)
        with pytest.raises(MissingDependency, match=r"accelerate.*fusion\[hf\]"):
            job.run(tmp_path / "run")

    def test_copies_are_whole(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "new" / "target"
        with pytest.raises(InputError, match=r"no folder .* with a trained model; fit again"):
            keep_folder(source, target)
        source.mkdir()
        (source / "a").write_text("1")
        keep_folder(source, target)
        keep_folder(source, source)
        (source / "a").rename(source / "b")
        keep_folder(source, target)
        assert [path.name for path in target.iterdir()] == ["b"]
        assert [path.name for path in target.parent.iterdir()] == ["target"]
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="give a folder that can be"):
            keep_folder(source, tmp_path / "file" / "target")

    def test_own_folder(self) -> None:
        own = OwnFolder()
        path = own.path
        assert path.is_dir()
        del own
        assert not path.exists()
