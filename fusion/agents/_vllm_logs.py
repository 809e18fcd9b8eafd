"""Where servers write, and which of it is kept."""

import contextlib
import re
import time
from pathlib import Path

from fusion.agents._server_reap import make_private, state_folder

_KEPT = 50
_OURS = re.compile(r"\d{8}-\d{6}-.+-\d{1,5}\.log")


def new_log(model: str, port: int, folder: str | None) -> Path:
    """Return the file that a server shall write to.

    Args:
        model: Name or folder of the model.
        port: Where the server will listen.
        folder: Where logs are kept, all of them; None for the user's state folder, where the oldest go, but for those
            of servers that are on record as running.
    """
    name = re.sub(r"[^\w.-]+", "-", Path(model).name) or "model"
    file = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{port}.log"
    if folder is not None:
        return Path(folder).expanduser() / file
    state = state_folder()
    logs = make_private(state / "logs")
    running = "".join(_text(record) for record in state.glob("*.json"))
    kept = sorted(path for path in logs.iterdir() if _OURS.fullmatch(path.name))
    for old in kept[: max(0, len(kept) - _KEPT + 1)]:
        if old.name not in running:
            # Another process may tidy at the same time.
            with contextlib.suppress(OSError):
                old.unlink()
    return logs / file


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
