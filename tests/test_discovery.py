"""Methods by name: built-in ones from file names, foreign ones from entry points."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusion import discovery
from fusion.discovery import PLUGINS, build, load, names, spec_of, summary
from fusion.errors import InvalidSpec, UnknownName
from fusion.schema import Param, Spec

ALL = [(package, name) for package in PLUGINS for name in names(package)]
VALUES: dict[str, Param] = {"k": 2, "size": 2, "agents": ["a", "b c"], "table": "answers.csv"}
"""Values for parameters without a default."""


def required(package: str, name: str) -> dict[str, Param]:
    fields = [field for field in dataclasses.fields(load(package, name)) if field.init]  # type: ignore[arg-type]
    return {
        field.name: VALUES[field.name]
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }


class TestBuiltIn:
    @pytest.mark.parametrize("package", PLUGINS)
    def test_names_are_those_of_the_files(self, package: str) -> None:
        folder = Path(discovery.__file__).parent / package
        files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
        assert names(package) == tuple(sorted(files))
        assert files

    @pytest.mark.parametrize(("package", "name"), ALL)
    def test_spec_survives_building(self, package: str, name: str) -> None:
        spec = Spec(name, required(package, name))
        assert spec_of(build(package, spec)) == spec
        assert spec_of(build(package, str(spec))) == spec
        assert spec_of(build(package, str(spec).replace("_", "-"))) == spec

    @pytest.mark.parametrize(("package", "name"), ALL)
    def test_values_that_differ_from_the_default_survive_too(self, package: str, name: str) -> None:
        """Whole numbers are moved by one, where the method allows that; other fields are left alone."""
        method = build(package, Spec(name, required(package, name)))
        for field in dataclasses.fields(method):  # type: ignore[arg-type]
            value = getattr(method, field.name)
            if field.init and isinstance(value, int) and not isinstance(value, bool):
                spec = Spec(name, required(package, name) | {field.name: value + 1})
                with contextlib.suppress(InvalidSpec):
                    assert spec_of(build(package, spec)) == spec

    @pytest.mark.parametrize(("package", "name"), ALL)
    def test_summary_is_a_line(self, package: str, name: str) -> None:
        told = summary(package, name)
        assert told
        assert "\n" not in told
        for parameter in required(package, name):
            assert parameter in told

    def test_listing_imports_no_method(self) -> None:
        code = f"""
            import json, sys
            from fusion.discovery import names
            for package in {list(PLUGINS)}:
                names(package)
            print(json.dumps(sorted(sys.modules)))
        """
        told = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
        loaded = json.loads(told.stdout)
        assert not [name for name in loaded if name.startswith(tuple(f"fusion.{package}" for package in PLUGINS))]


class TestUnknown:
    def test_near_names_come_first(self) -> None:
        with pytest.raises(UnknownName, match=r"unknown selector 'topk'; did you mean 'top_k'\?") as caught:
            load("selectors", "topk")
        assert caught.value.known == names("selectors")

    def test_package(self) -> None:
        with pytest.raises(UnknownName, match="unknown plug-in package 'selector'; did you mean 'selectors'"):
            names("selector")

    def test_machinery_is_no_method(self) -> None:
        for name in ("_static", "__init__"):
            with pytest.raises(UnknownName):
                load("selectors", name)

    def test_name_with_a_path(self) -> None:
        for name in ("../errors", "top_k.TopK", "os", ""):
            with pytest.raises(UnknownName):
                load("selectors", name)


class TestParameters:
    @pytest.mark.parametrize(
        ("spec", "reason"),
        [
            ("top_k(n=3)", "has no parameter 'n'; known: k"),
            ("random_subset(sise=3)", "has no parameter 'sise'; did you mean 'size'?"),
            ("top_k", r"needs k; write top_k\(k=\.\.\.\)"),
            ("top_k(k=0)", "k=0.*greater than or equal to 1"),
            ("top_k(k=three)", "k='three'.*valid integer"),
            ("top_k(k=true)", "k=True.*valid integer"),
            ('top_k(k="3")', "k='3'.*valid integer"),
            ("top_k(k=2.5)", "k=2.5.*valid integer"),
            ("top_k(k=none)", "k=None.*valid integer"),
            ("top_k(k=[3])", "valid integer"),
            ("fixed_subset(agents=a)", "agents='a'.*valid array"),
            ("fixed_subset(agents=[1])", "valid string"),
            ("single_best(k=3)", "has no parameter 'k'; there is none to choose from"),
        ],
    )
    def test_refused(self, spec: str, reason: str) -> None:
        with pytest.raises(InvalidSpec, match=reason) as caught:
            build("selectors", spec)
        assert caught.value.exit_code == 2

    def test_wrong_choice_lists_the_right_ones(self) -> None:
        with pytest.raises(InvalidSpec, match="'power', 'log_odds' or 'accuracy'"):
            build("fusers", "weighted_vote(weights=foo)")

    @pytest.mark.parametrize("floor", ["nan", "inf", "-1"])
    def test_odd_numbers(self, floor: str) -> None:
        with pytest.raises(InvalidSpec, match="floor"):
            build("fusers", f"mean_probability(floor={floor})")

    def test_value_that_is_not_json(self) -> None:
        with pytest.raises(InvalidSpec, match="must be a number, word or list"):
            build("selectors", Spec("top_k", {"k": object()}))  # type: ignore[dict-item]

    def test_learned_fields_are_no_parameters(self) -> None:
        with pytest.raises(InvalidSpec, match="has no parameter 'chosen_'"):
            build("selectors", "top_k(k=1, chosen_=[0])")

    def test_spec_that_is_no_spec(self) -> None:
        with pytest.raises(InvalidSpec, match="cannot read"):
            build("selectors", "top_k(k=3")


METHOD = """
    '''Follow the first agent.

    More words.
    '''
    from dataclasses import dataclass

    @dataclass(kw_only=True)
    class First:
        '''A class.'''

        times: int = 1

    @dataclass(kw_only=True)
    class Second:
        '''Another class.'''
"""
Run = Callable[..., Any]


@pytest.fixture
def foreign(tmp_path: Path) -> Run:
    """Install packages with entry points, then run code that prints JSON in a fresh interpreter."""

    def run(code: str, packages: dict[str, dict[str, str]], modules: dict[str, str]) -> Any:
        for module, source in modules.items():
            path = tmp_path / f"{module.replace('.', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))
        for package, entries in packages.items():
            info = tmp_path / f"{package}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
            lines = [f"{name} = {target}" for name, target in entries.items()]
            (info / "entry_points.txt").write_text("\n".join(["[fusion.fusers]", *lines, ""]))
        head = f"import json, sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom fusion.discovery import *\n"
        head += (
            "from fusion.discovery import build, load, names, spec_of, summary\nfrom fusion.errors import FusionError\n"
        )
        told = subprocess.run(
            [sys.executable, "-c", head + textwrap.dedent(code)], capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)

    return run


def refused(call: str) -> str:
    return textwrap.dedent(
        f"""
        try:
            {call}
            print(json.dumps("nothing was raised"))
        except FusionError as error:
            print(json.dumps(str(error)))
        """
    )


class TestForeign:
    def test_class_of_an_installed_package(self, foreign: Run) -> None:
        """The name is the entry point's, whatever the module and the class are called."""
        code = """
            listed = "first_agent" in names("fusers"), "other" in sys.modules
            method = build("fusers", "first-agent(times=2)")
            told = summary("fusers", "first_agent")
            print(json.dumps([*listed, type(method).__name__, str(spec_of(method)), told]))
        """
        found = foreign(code, {"other": {"first-agent": "other:First"}}, {"other": METHOD})
        assert found == [True, False, "First", "first_agent(times=2)", "Follow the first agent. (times=1)"]

    def test_module_of_an_installed_package(self, foreign: Run) -> None:
        code = 'print(json.dumps(str(spec_of(build("fusers", "fine(times=3)")))))'
        source = textwrap.dedent(METHOD) + '__all__ = ["First"]\n'
        assert foreign(code, {"other": {"fine": "other.methods.one"}}, {"other.methods.one": source}) == "fine(times=3)"

    def test_class_that_is_exported_from_elsewhere(self, foreign: Run) -> None:
        code = 'print(json.dumps(str(spec_of(build("fusers", "fine")))))'
        modules = {"other.__init__": "from other._inner import First", "other._inner": METHOD}
        assert foreign(code, {"other": {"fine": "other:First"}}, modules) == "fine"

    def test_extras_of_an_entry_point_do_not_matter(self, foreign: Run) -> None:
        code = 'print(json.dumps(str(spec_of(build("fusers", "fine")))))'
        assert foreign(code, {"other": {"fine": "other:First [extra]"}}, {"other": METHOD}) == "fine"

    def test_class_that_nobody_registered_goes_by_its_module(self, foreign: Run) -> None:
        code = "import other\nprint(json.dumps(str(spec_of(other.Second()))))"
        assert foreign(code, {"other": {"fine": "other:First"}}, {"other": METHOD}) == "other"

    def test_built_in_name_is_taken(self, foreign: Run) -> None:
        told = foreign(refused('names("fusers")'), {"other": {"vote": "other:First"}}, {"other": METHOD})
        assert "fuser 'vote' is offered twice" in told
        assert "fusion.fusers.vote" in told
        assert "other:First" in told
        assert "uninstall" in told

    def test_two_packages_offer_one_name(self, foreign: Run) -> None:
        packages = {"one": {"fine": "one:First"}, "two": {"fine": "two:First"}}
        told = foreign(refused('names("fusers")'), packages, {"one": METHOD, "two": METHOD})
        assert "fuser 'fine' is offered twice" in told
        assert "one:First" in told
        assert "two:First" in told

    @pytest.mark.parametrize("exported", ["[]", "['First', 'Second']", "['nothing']", "['__doc__']"])
    def test_module_must_export_one_class(self, foreign: Run, exported: str) -> None:
        source = textwrap.dedent(METHOD) + f"__all__ = {exported}\n"
        told = foreign(refused('load("fusers", "fine")'), {"other": {"fine": "other"}}, {"other": source})
        assert "other must name exactly one class in __all__, it names" in told

    def test_module_without_all(self, foreign: Run) -> None:
        told = foreign(refused('load("fusers", "fine")'), {"other": {"fine": "other"}}, {"other": METHOD})
        assert "it names nothing" in told

    def test_class_that_is_missing(self, foreign: Run) -> None:
        told = foreign(refused('load("fusers", "fine")'), {"other": {"fine": "other:Third"}}, {"other": METHOD})
        assert "other must name exactly one class" in told
        assert "Third" in told

    @pytest.mark.parametrize("source", ["import a_package_that_is_not_there", "from json import nothing_like_it"])
    def test_module_that_cannot_be_imported(self, foreign: Run, source: str) -> None:
        told = foreign(refused('load("fusers", "fine")'), {"other": {"fine": "other:First"}}, {"other": source})
        assert "fuser 'fine' is in other, which cannot be imported" in told
        assert "install what it needs" in told

    def test_class_that_is_no_dataclass(self, foreign: Run) -> None:
        source = "class Plain:\n    pass\n"
        told = foreign(refused('build("fusers", "fine")'), {"other": {"fine": "other:Plain"}}, {"other": source})
        assert told == "other.Plain must be a dataclass"
