"""Fixtures that several test files use."""

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tiny_models import TinyModels

GIVEN = os.environ.get("FUSION_DATA")


@pytest.fixture(scope="session")
def recorded_data() -> Path:
    """The folder of recorded answers: FUSION_DATA, else shared/data beside the checkout.

    Without it tests are skipped; where FUSION_DATA names a folder that is not one, they fail.
    """
    folder = Path(GIVEN or Path(__file__).parents[2] / "shared" / "data")
    if (folder / "mmlu_pro" / "predictions.csv.gz").is_file():
        return folder
    if GIVEN:
        pytest.fail(f"FUSION_DATA={GIVEN} holds no recorded answers: mmlu_pro/predictions.csv.gz is missing")
    pytest.skip(f"needs recorded answers, and there is no folder {folder}; set FUSION_DATA")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder for a command line, and no settings from outside."""
    for name in [name for name in os.environ if name.startswith("FUSION_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    # Typer draws boxes as wide as the terminal, which would break the sentences that are looked for.
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> "TinyModels":
    """Models with a few thousand weights, made when they are named."""
    from tiny_models import TinyModels

    return TinyModels(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Take one thread, as models this small lose by more, and leave what is there to no garbage collection."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that wants recorded answers and skips itself although FUSION_DATA says that they are there."""
    report = yield
    if GIVEN and report.skipped and "recorded_data" in getattr(item, "fixturenames", ()):
        report.outcome = "failed"
        report.longrepr = f"skipped although FUSION_DATA is set: {report.longrepr}"
    return report
