"""Importing is cheap: nothing heavy is loaded before it is used."""

import json
import subprocess
import sys

import pytest

import fusion

HEAVY = [
    "torch",
    "transformers",
    "peft",
    "vllm",
    "ray",
    "pandas",
    "pyarrow",
    "numba",
    "scipy",
    "sklearn",
    "gymnasium",
    "starlette",
    "matplotlib",
    "pydantic",
    "rich",
    "huggingface_hub",
]


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(told.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import fusion", set()),
        ("import fusion.cli", {"rich"}),
        ("import fusion.data", set()),
        ("import fusion.ensemble", set()),
        ("import fusion.evaluation", set()),
        ("import fusion.pruning", set()),
        ("import fusion.reports.html", set()),
        ("import fusion.selectors", set()),
        ("import fusion.discovery; fusion.discovery.names('fusers'); fusion.discovery.names('data')", set()),
    ],
)
def test_nothing_heavy_is_loaded(statement: str, allowed: set[str]) -> None:
    assert modules_after(statement) & (set(HEAVY) - allowed) == set()


def test_importing_fusion_does_not_even_load_numpy() -> None:
    assert "numpy" not in modules_after("import fusion")


def test_every_public_name_resolves() -> None:
    for name in fusion.__all__:
        assert getattr(fusion, name) is not None
    assert set(fusion._HOMES) | {"__version__"} == set(fusion.__all__)
    assert dir(fusion) == sorted(fusion.__all__)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fusion.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("package", ["agents", "data", "evaluation"])
def test_lazy_packages_resolve_every_name(package: str) -> None:
    module = __import__(f"fusion.{package}", fromlist=["__all__"])
    for name in module.__all__:
        assert getattr(module, name) is not None
