"""What the documentation says is run, not believed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import fusion
from fusion.demo import simulated_table

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


@pytest.fixture(scope="module")
def readme_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the answers.csv and the pool.yaml that the README speaks of; scripted agents stand for models."""
    folder = tmp_path_factory.mktemp("readme")
    scripted = (ROOT / "examples" / "pools" / "echo.yaml").read_text(encoding="utf-8")
    (folder / "pool.yaml").write_text(scripted.replace("fail_share: 0.2", "fail_share: 0.0"), encoding="utf-8")
    simulated_table(600).to_pandas().to_csv(folder / "answers.csv", index=False)
    return folder


def run(command: list[str], folder: Path) -> str:
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert told.returncode == 0, f"{shlex.join(command)}\n{told.stdout}\n{told.stderr}"
    return told.stdout


@pytest.mark.parametrize("code", blocks("python"))
def test_readme_python(code: str, readme_folder: Path) -> None:
    assert run([sys.executable, "-c", code], readme_folder)


def test_readme_commands(readme_folder: Path) -> None:
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("fusion ")]
    assert len(lines) >= 5
    for line in lines:
        run([sys.executable, "-m", *shlex.split(line)], readme_folder)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_readme_pool_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "pool.yaml").write_text(text, encoding="utf-8")
    assert len(fusion.read_pool(tmp_path / "pool.yaml")) > 1


def test_readme_opens_with_the_two_commands() -> None:
    first = blocks("console")[0].splitlines()
    assert [line.split("#")[0].strip() for line in first] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo:", makefile, re.M)
    assert re.search(r"^test:", makefile, re.M)


def test_readme_shows_what_the_demo_prints(readme_folder: Path) -> None:
    """But for digits: on another processor a close choice of a model may turn."""
    told = run([sys.executable, "-m", "fusion", "demo"], readme_folder)
    printed = {without_digits(line) for line in told.splitlines()}
    shown = [line for line in blocks("text")[0].splitlines() if line != "..."]
    assert [line for line in shown if without_digits(line) not in printed] == []


def without_digits(line: str) -> str:
    return re.sub(r" *\d+", " 0", line).rstrip()


def test_generated_pages_are_fresh() -> None:
    told = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, f"{told.stdout}{told.stderr}: run make docs and commit the result"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_public_name_is_mentioned() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in fusion.__all__ if name not in text] == []


def test_examples_are_short() -> None:
    for path in (ROOT / "examples").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 60, path.name
