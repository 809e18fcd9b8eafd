"""The command line, run in this process."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from fusion.cli import main


class Told(NamedTuple):
    code: int
    out: str
    error: str


Run = Callable[..., Told]


def run(capsys: pytest.CaptureFixture[str], words: Sequence[str]) -> Told:
    with pytest.raises(SystemExit) as caught:
        main(words)
    captured = capsys.readouterr()
    code = caught.value.code
    assert isinstance(code, int)
    return Told(code, captured.out, captured.err)
