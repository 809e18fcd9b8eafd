"""One training run in a folder: it goes on after a kill, and is not repeated once it is done."""

import contextlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.curves import tensorboard_writer
from fusion.errors import FusionError, InputError, OutputError
from fusion.files import write_text
from fusion.training._models import load_library, quiet
from fusion.training._options import Told, Trained, TrainOptions
from fusion.training._progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

MODEL = "model"
"""Where in the folder the trained model is."""
DONE = "trained.json"
FORMAT = "fusion.training/1"
_STARTED = "training.json"
_CHECKPOINTS = "checkpoints"
_HOPELESS = 2.0
"""A loss of so many times that of guessing is no start that more training would mend."""

Example = Mapping[str, Sequence[int]]
Collate = Callable[[Sequence[Example]], Mapping[str, Any]]


def is_main() -> bool:
    """Return whether this is the process that writes files, of those that a launcher started together."""
    return os.environ.get("RANK", "0") == "0"


def finished(folder: Path, mark: str) -> Trained | None:
    """Return what the run marked `mark` came to, when it is done and its model is in `folder`/model; else None.

    Raises:
        InputError: When the note on it is damaged.
    """
    note = _read(folder / DONE)
    if note is None or note.get("mark") != mark or not (folder / MODEL).is_dir():
        return None
    try:
        fields = dict(note["trained"])
        return Trained(**{**fields, "losses": tuple((int(step), float(loss)) for step, loss in fields["losses"])})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / DONE} is damaged ({error}); remove {folder} and fit again") from error


def train(
    make: Callable[[], "PreTrainedModel"],
    examples: Sequence[Example],
    held_out: Sequence[Example],
    *,
    collate: Collate,
    folder: Path,
    mark: str,
    options: TrainOptions,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    told: Told | None = None,
    tensorboard: bool = False,
) -> Trained:
    """Train a model, and leave it in `folder`/model.

    A run that was cut short goes on from its last checkpoint; one that is done is not repeated. A run of another mark
    in the folder is removed first. Under `accelerate launch` the work is shared as the launcher says (data parallel,
    FSDP); every process calls this function. Random numbers of the caller are left as they were.

    Args:
        make: Makes the model to begin with.
        examples: What to learn from; "input_ids" gives an example's length.
        held_out: Examples to stop by; may be empty.
        collate: Makes a batch of tensors, labels among them.
        folder: Where checkpoints and the model go.
        mark: Names everything that the result depends on.
        options: How.
        tokenizer: Is left beside the model.
        told: Told of every step; by default a bar on stderr when that is a terminal.
        tensorboard: Whether losses are logged for TensorBoard, in `folder`/tensorboard.

    Raises:
        MissingDependency: When transformers is not installed; TensorBoard, where its log is wanted.
        OutputError: When the folder cannot be written.
        FusionError: When training diverges.
    """
    done = finished(folder, mark)
    if done is not None:
        return done
    transformers = load_library("training")
    started = time.monotonic()
    with _kept_randomness(), quiet(), progress(told) as step_done:
        arguments = _arguments(transformers, folder, options, len(examples), bool(held_out))
        # What is left of another run has to be gone before any process looks for a checkpoint.
        with arguments.main_process_first():
            checkpoint = _prepare(folder, mark)
        transformers.set_seed(options.seed)
        model: Any = make()
        if model.config.is_encoder_decoder:
            # These swallow the number of tokens in a batch and take the mean all the same; told that they use it, the
            # Trainer would scale their loss by the number of processes and of batches that are added up.
            model.accepts_loss_kwargs = False
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=list(examples),
            eval_dataset=list(held_out) if held_out else None,
            data_collator=collate,
            processing_class=tokenizer,
            callbacks=_callbacks(transformers, options, step_done, held_out=bool(held_out)),
        )
        if tensorboard and is_main():
            log = tensorboard_writer(folder, since=_step(checkpoint))
            trainer.add_callback(transformers.integrations.TensorBoardCallback(log))
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer.remove_callback(transformers.trainer_callback.ProgressCallback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        result = _result(trainer, checkpoint, time.monotonic() - started)
        if trainer.is_fsdp_enabled:
            trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        trainer.save_model(str(folder / MODEL))
        if is_main():
            note = {"format": FORMAT, "mark": mark, "trained": result._asdict()}
            write_text(folder / DONE, json.dumps(note, indent=1) + "\n")
            shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
    return result


def _arguments(transformers: Any, folder: Path, options: TrainOptions, num_examples: int, evaluates: bool) -> Any:
    import torch

    cuda = torch.cuda.is_available()
    low = options.precision == "bfloat16" or (options.precision == "auto" and cuda and torch.cuda.is_bf16_supported())
    world = int(os.environ.get("WORLD_SIZE", 0)) or max(torch.cuda.device_count() if cuda else 1, 1)
    per_step = options.batch_size * options.accumulate * world
    every = max(-(-num_examples // per_step) // options.evaluations, 1)
    return transformers.TrainingArguments(
        # Without this neither bfloat16 nor several processes are for machines that have no accelerator.
        use_cpu=not torch.accelerator.is_available(),
        output_dir=str(folder / _CHECKPOINTS),
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulate,
        warmup_steps=options.warmup,
        weight_decay=options.weight_decay,
        lr_scheduler_type="cosine",
        eval_strategy="steps" if evaluates else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=evaluates,
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model="eval_loss" if evaluates else None,
        greater_is_better=False if evaluates else None,
        bf16=low,
        gradient_checkpointing=options.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if options.gradient_checkpointing else None,
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        prediction_loss_only=True,
        logging_steps=every,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=cuda,
        disable_tqdm=True,
        report_to="none",
        log_level_replica="error",
        seed=options.seed,
    )


def _callbacks(transformers: Any, options: TrainOptions, step_done: Told, *, held_out: bool) -> list["TrainerCallback"]:
    import torch

    class Progress(transformers.TrainerCallback):  # type: ignore[misc]  # the package is known only here
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            step_done("training", state.global_step, state.max_steps)

    class Order(transformers.TrainerCallback):  # type: ignore[misc]
        """Draws the order of every epoch from its number alone, so that it is the same when training goes on."""

        def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
            batches = train_dataloader.batch_sampler
            # Of several processes each sees its part of the batches.
            batches = getattr(batches, "batch_sampler", batches)
            batches.sampler.generator = torch.Generator().manual_seed(options.seed + 1_000_003 * int(state.epoch or 0))

    callbacks: list[Any] = [Progress(), Order()]
    if held_out:
        callbacks.append(transformers.EarlyStoppingCallback(early_stopping_patience=options.patience))
    return callbacks


def _result(trainer: Any, checkpoint: Path | None, seconds: float) -> Trained:
    state = trainer.state
    losses = tuple((int(row["step"]), float(row["eval_loss"])) for row in state.log_history if "eval_loss" in row)
    seen = [loss for _, loss in losses] or [float(row["loss"]) for row in state.log_history if "loss" in row]
    guessing = float(np.log(trainer.model.get_input_embeddings().num_embeddings))
    if not all(np.isfinite(seen)) or min(seen, default=0.0) > _HOPELESS * guessing:
        raise FusionError(
            f"training diverged: the loss became {seen[-1]:.3g}, and guessing costs {guessing:.3g} nats a token; lower "
            "learning_rate, or take more warm-up"
        )
    return Trained(
        steps=int(state.global_step),
        epochs=float(state.epoch or 0),
        loss=min((loss for _, loss in losses), default=None),
        losses=losses,
        resumed=_step(checkpoint),
        stopped=int(state.global_step) < int(state.max_steps),
        seconds=seconds,
    )


def _prepare(folder: Path, mark: str) -> Path | None:
    """Make the folder ready, and return the newest whole checkpoint of this run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = _read(folder / _STARTED)
        if before is None or before.get("mark") != mark:
            for name in (_CHECKPOINTS, MODEL):
                shutil.rmtree(folder / name, ignore_errors=True)
            (folder / DONE).unlink(missing_ok=True)
            write_text(folder / _STARTED, json.dumps({"format": FORMAT, "mark": mark}) + "\n")
    except OSError as error:
        raise OutputError(f"cannot train in {folder}: {error.strerror or error}; give a folder that can be") from error
    found = [path.parent for path in (folder / _CHECKPOINTS).glob("checkpoint-*/trainer_state.json")]
    return max(filter(_goes_on, found), key=_step, default=None)


def _step(checkpoint: Path | None) -> int:
    """Return the step after which a checkpoint was written; 0 for none."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _goes_on(checkpoint: Path) -> bool:
    """Return whether a checkpoint is whole, and one from which the Trainer stops where it would have stopped."""
    try:
        # The Trainer writes this file last.
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        ended = bool(state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"])
        return not ended or int(state["global_step"]) >= int(state["max_steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; remove {path.parent} and fit again") from error
    return content if isinstance(content, dict) else None


@contextlib.contextmanager
def _kept_randomness() -> Iterator[None]:
    """Leave the global streams of random numbers, which the Trainer seeds, as they were."""
    import torch

    plain, numeric, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(plain)
        np.random.set_state(numeric)
        torch.set_rng_state(tensors)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
