"""What TensorBoard's log in a folder holds."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fusion.curves import TENSORBOARD


def logged_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    log = EventAccumulator(str(folder / TENSORBOARD))
    log.Reload()
    return {name: [(one.step, one.value) for one in log.Scalars(name)] for name in log.Tags()["scalars"]}
