"""The doctor: every agent is examined, whatever is wrong with the others."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import by_hand

from fusion import discovery
from fusion.agents import Agent, AgentPool, Diagnosis, Engines, examine_pool
from fusion.agents._doctor import machine_memory_bytes
from fusion.agents._examine import as_finding
from fusion.cli import main
from fusion.data import write_table
from fusion.errors import EngineError, FusionError, MissingDependency
from fusion.schema import Completion, Finding, Json, Request, Spec

GIB = 2**30


@dataclass(kw_only=True)
class Patient:
    """An engine that finds what it is told to, or fails as it is told to."""

    findings: Sequence[Any] = ()
    trouble: BaseException | None = None
    closing_trouble: BaseException | None = None
    means: str | None = "exact"
    memory: int | None = None
    wait_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    closed: int = 0

    def identity(self, request: Request) -> Mapping[str, Json]:
        return {}

    def render(self, request: Request) -> str:
        return ""

    async def scoring(self, request: Request) -> str | None:
        return self.means

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        raise AssertionError("the doctor never generates")
        yield

    async def examine(self, request: Request) -> Sequence[Finding]:
        self.asked.append(request.model)
        await asyncio.sleep(self.wait_s)
        if self.trouble is not None:
            raise self.trouble
        return self.findings

    def prompt_tokens(self, request: Request) -> int | None:
        return None

    def memory_bytes(self, request: Request) -> int | None:
        return self.memory

    async def aclose(self) -> None:
        self.closed += 1
        if self.closing_trouble is not None:
            raise self.closing_trouble


def pool_of(*names: str, **fields: Any) -> AgentPool:
    prices = {"input_price": 0.0, "output_price": 0.0}
    return AgentPool(tuple(Agent(name=name, model=name, **(prices | fields)) for name in names))


def examined(engines: Mapping[str, Any], pool: AgentPool | None = None, **options: Any) -> Diagnosis:
    pool = pool or pool_of(*engines)
    return examine_pool(pool, engines=Engines(pool, given=engines), **options)


def said(found: Diagnosis, agent: str) -> list[tuple[str, str]]:
    return [(finding.level, finding.what) for name, finding in found.findings if name == agent]


class TestEngines:
    def test_findings_come_back_in_order(self) -> None:
        note, warning, error = (Finding(level, f"a {level}", "mend it") for level in ("note", "warning", "error"))  # type: ignore[arg-type]
        found = examined({"b": Patient(findings=[note, error, warning]), "a": Patient(findings=[warning])})
        assert [(name, finding) for name, finding in found.findings] == [
            ("b", error),
            ("b", warning),
            ("b", note),
            ("a", warning),
        ]
        assert (found.errors, found.warnings, found.agents) == (1, 2, ("b", "a"))

    def test_nothing_wrong(self) -> None:
        found = examined({"a": Patient(), "b": Patient()})
        assert found.findings == ()
        assert (found.errors, found.warnings) == (0, 0)

    @pytest.mark.parametrize(
        ("trouble", "what", "remedy"),
        [
            (EngineError("no server at x; start it"), "no server at x", "start it"),
            (EngineError("no server"), "no server", ""),
            (MissingDependency("torch", purpose="the engine hf", extra="hf"), "needs the package torch", "fusion[hf]"),
            (KeyError("x"), "KeyError: 'x'", "report it"),
            (ZeroDivisionError(), "ZeroDivisionError", "report it"),
            (asyncio.CancelledError(), "CancelledError", "report it"),
            (TimeoutError("of its own"), "TimeoutError: of its own", "report it"),
            (ModuleNotFoundError("No module named 'peft'", name="peft.tuners"), "ModuleNotFound", "'fusion[hf]'"),
        ],
    )
    def test_one_agents_trouble_is_its_own(self, trouble: BaseException, what: str, remedy: str) -> None:
        found = examined({"a": Patient(trouble=trouble), "b": Patient(findings=[Finding("note", "fine")])})
        ((level, told),) = said(found, "a")
        assert (level, what in told) == ("error", True)
        assert remedy in found.findings[0].finding.remedy
        assert said(found, "b") == [("note", "fine")]

    @pytest.mark.parametrize("findings", [["text"], [Finding("fatal", "x")], None, [None]])  # type: ignore[arg-type]
    def test_what_is_no_finding(self, findings: Any) -> None:
        ((level, what),) = said(examined({"a": Patient(findings=findings)}), "a")
        assert (level, what.split(":")[0]) == ("error", "TypeError")

    def test_an_engine_is_asked_once_for_each_of_its_agents_and_closed(self) -> None:
        engine = Patient()
        examined({"a": engine, "b": engine, "c": engine})
        assert (sorted(engine.asked), engine.closed) == (["a", "b", "c"], 1)

    def test_trouble_with_closing_is_a_warning(self) -> None:
        found = examined({"a": Patient(findings=[Finding("note", "fine")], closing_trouble=OSError("stuck"))})
        assert said(found, "a") == [("warning", "the engine could not be closed: OSError: stuck"), ("note", "fine")]

    def test_side_by_side(self) -> None:
        """Ten agents of one server and five of others wait 0.2 s each: 0.2 s in all, not 3 s."""
        one = Patient(wait_s=0.2)
        engines = {f"one{i}": one for i in range(10)} | {f"own{i}": Patient(wait_s=0.2) for i in range(5)}
        start = time.monotonic()
        assert examined(engines).findings == ()
        assert time.monotonic() - start < 2.5

    def test_agents_of_this_process_take_turns(self) -> None:
        running, most = [0], [0]

        class Heavy(Patient):
            async def examine(self, request: Request) -> Sequence[Finding]:
                running[0] += 1
                most[0] = max(most[0], running[0])
                await asyncio.sleep(0.01)
                running[0] -= 1
                return ()

        engine = Heavy(memory=1)
        assert examined({"a": engine, "b": engine, "c": engine}).findings == ()
        assert most == [1]

    def test_too_slow(self) -> None:
        found = examined({"slow": Patient(wait_s=30), "quick": Patient()}, timeout_s=0.1)
        assert said(found, "slow") == [("error", "no answer within 0.1 s")]
        assert "--timeout" in found.findings[0].finding.remedy
        assert said(found, "quick") == []

    def test_hanging_without_giving_way(self) -> None:
        released = threading.Event()

        class Stuck(Patient):
            async def examine(self, request: Request) -> Sequence[Finding]:
                released.wait(60)
                return ()

        stuck = Stuck(memory=1)
        start = time.monotonic()
        try:
            found = examined({"a": stuck, "b": stuck, "c": Patient(findings=[Finding("note", "fine")])}, timeout_s=0.1)
        finally:
            released.set()
        assert time.monotonic() - start < 10
        assert [said(found, name) for name in "abc"] == [
            [("error", "no answer within 0.1 s")],
            [("error", "no answer within 0.1 s")],
            [("note", "fine")],
        ]

    def test_slow_agents_of_one_engine_have_their_time_each(self) -> None:
        """Three agents block for 0.3 s each, 0.9 s together, with a limit of 0.5 s: none is too slow."""

        class Blocking(Patient):
            async def examine(self, request: Request) -> Sequence[Finding]:
                time.sleep(0.3)
                return ()

        engine = Blocking(memory=1)
        assert examined({"a": engine, "b": engine, "c": engine}, timeout_s=0.5).findings == ()

    def test_without_network_no_engine_is_asked(self) -> None:
        engine = Patient(trouble=KeyError("asked"))
        found = examined({"a": engine}, network=False)
        assert (found.findings, engine.asked, found.needed_bytes) == ((), [], None)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.sampled_from(["fine", "error", "crash", "cancel"]), min_size=1, max_size=6))
    def test_each_agent_is_told_what_its_engine_says_whatever_the_others_do(self, kinds: list[str]) -> None:
        made = {
            "fine": lambda: Patient(),
            "error": lambda: Patient(trouble=EngineError("e")),
            "crash": lambda: Patient(trouble=KeyError("k")),
            "cancel": lambda: Patient(trouble=asyncio.CancelledError()),
        }
        found = examined({f"{i}": made[kind]() for i, kind in enumerate(kinds)})
        assert [len(said(found, str(i))) for i in range(len(kinds))] == [int(kind != "fine") for kind in kinds]


class TestAgents:
    def test_an_engine_without_means_to_score(self) -> None:
        for mode, levels in (("options", ["error"]), ("auto", ["note"]), ("generate", [])):
            found = examined({"a": Patient(means=None)}, pool_of("a", mode=mode))
            assert [level for level, _ in said(found, "a")] == levels

    def test_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BLANK_KEY", "  ")
        monkeypatch.delenv("MISSING_KEY", raising=False)
        monkeypatch.setenv("GOOD_KEY", "x")
        for name, told in (
            ("MISSING_KEY", [("error", "the environment variable MISSING_KEY (api_key_env) is not set")]),
            ("BLANK_KEY", [("error", "the environment variable BLANK_KEY (api_key_env) is blank")]),
            ("GOOD_KEY", []),
        ):
            engine = Patient()
            pool = pool_of("a", engine=Spec("openai", {"api_key_env": name}))
            assert said(examined({"a": engine}, pool), "a") == told
            assert engine.asked == ([] if told else ["a"])

    def test_an_agent_without_engine(self) -> None:
        pool = AgentPool((*pool_of("a"), *pool_of("b", engine=Spec("echo"))))
        found = examine_pool(pool)
        ((level, what),) = said(found, "a")
        assert level == "error"
        assert "has no engine" in what
        assert said(found, "b") == []

    def test_an_engine_that_cannot_be_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        targets = discovery._targets("agents")
        monkeypatch.setattr(discovery, "_targets", lambda package: targets | {"heavy": "nowhere_to_be_found"})
        pool = AgentPool((*pool_of("a", engine=Spec("heavy")), *pool_of("b", engine=Spec("echo"))))
        agent, (level, what, remedy) = examine_pool(pool).findings[0]
        assert (agent, level) == ("a", "error")
        assert "cannot be imported: No module named 'nowhere_to_be_found'" in what
        assert remedy == "install it with: pip install nowhere-to-be-found"

    def test_draws_and_short_answers(self) -> None:
        found = examined({"a": Patient()}, pool_of("a", samples=3, temperature=1.0, max_tokens=8))
        assert said(found, "a") == [
            ("note", "3 draws per question: 3 calls where others make one"),
            ("note", "at most 8 tokens are written: an answer that reasons first is cut off"),
        ]

    def test_prices(self) -> None:
        pool = AgentPool((*pool_of("a"), *pool_of("b", "c", input_price=None)))
        found = examined({"a": Patient(), "b": Patient(), "c": Patient()}, pool)
        assert said(found, "") == [("note", "no prices of b, c: cost is counted in tokens, not in USD")]


class TestTwins:
    def twins(self, **second: Any) -> bool:
        shared = {"engine": Spec("echo", {"replies": ["A"], "delay_s": 0}), "model": "m", "seed": 1, "top_k": 5}
        pool = AgentPool((Agent(name="a", **shared), Agent(name="b", **(shared | second))))
        told = [what for level, what in said(examine_pool(pool, network=False), "b") if level == "warning"]
        assert all("differs from 'a' in nothing but its name" in what for what in told)
        return bool(told)

    @pytest.mark.parametrize(
        "second",
        [
            {},
            {"seed": 2},
            {"top_k": 7, "top_p": 0.5},
            {"input_price": 1.0},
            {"engine": Spec("echo", {"delay_s": 0.0, "replies": ["A"]})},
        ],
    )
    def test_same(self, second: dict[str, Any]) -> None:
        assert self.twins(**second)

    @pytest.mark.parametrize(
        "second",
        [
            {"model": "n"},
            {"adapter": "x"},
            {"revision": "x"},
            {"template": ""},
            {"system": "x"},
            {"mode": "generate"},
            {"temperature": 0.5},
            {"max_tokens": 100},
            {"stop": ("x",)},
            {"extra": {"x": 1}},
            {"engine": Spec("echo")},
        ],
    )
    def test_different(self, second: dict[str, Any]) -> None:
        assert not self.twins(**second)

    def test_draws_differ(self) -> None:
        pool = pool_of("a", "b", engine=Spec("echo"), temperature=0.5)
        pool = AgentPool(tuple(Agent(name=a.name, engine=a.engine, model="m", temperature=0.5) for a in pool))
        assert examine_pool(pool, network=False).warnings == 0


class TestMemory:
    def found(self, monkeypatch: pytest.MonkeyPatch, *agents: tuple[str, str, int | None]) -> Diagnosis:
        """Agents (name, model, memory) on a machine of 8 GiB; those of one memory share an engine."""
        monkeypatch.setattr("fusion.agents._doctor.machine_memory_bytes", lambda: 8 * GIB)
        engines = {memory: Patient(memory=memory) for _, _, memory in agents}
        pool = AgentPool(
            tuple(Agent(name=name, model=model, input_price=0, output_price=0) for name, model, _ in agents)
        )
        prompts = tuple(Agent(name=a.name, model=a.model, system=a.name, input_price=0, output_price=0) for a in pool)
        return examined({name: engines[memory] for name, _, memory in agents}, AgentPool(prompts))

    def test_by_hand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two agents on one model of 3 GiB count once; with one of 6 GiB that makes 9 of 8. Servers do not count."""
        found = self.found(monkeypatch, ("a", "m", 3 * GIB), ("b", "m", 3 * GIB), ("c", "n", 6 * GIB), ("d", "o", None))
        assert (found.needed_bytes, found.machine_bytes) == (9 * GIB, 8 * GIB)
        assert said(found, "") == [
            (
                "warning",
                "2 models in this process need about 9.0 GiB together; this machine has 8.0 GiB, an accelerator's own "
                "memory not counted",
            )
        ]

    def test_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.found(monkeypatch, ("a", "m", 8 * GIB))
        ((level, what),) = said(found, "")
        assert (level, what.split(";")[0]) == ("note", "the model in this process needs about 8.0 GiB")

    def test_small_models_are_not_worth_a_word(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.found(monkeypatch, ("a", "m", 1000), ("b", "n", 0), ("c", "o", None)).findings == ()

    def test_the_machine_has_some(self) -> None:
        assert (machine_memory_bytes() or GIB) > 2**20


def test_remedies_of_missing_modules() -> None:
    """An extra of fusion where one brings the module, else the package; inner modules name their package."""
    for name, target in (
        ("torch.nn", "'fusion[hf]'"),
        ("ray", "'fusion[ray]'"),
        ("no_such.x", "no-such"),
        ("tor", "tor"),
    ):
        try:
            try:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            except ModuleNotFoundError as error:
                raise FusionError("it cannot be imported; mend it") from error
        except FusionError as error:
            found = as_finding(error)
        assert found == Finding("error", "it cannot be imported", f"install it with: pip install {target}")


POOL = """
version: 1
agents:
  - {name: good, engine: echo, input_price: 0, output_price: 0, model: x}
  - {name: "odd [red]name[/]", engine: echo, input_price: 0, output_price: 0, model: y}
  - {name: twin, engine: echo, input_price: 0, output_price: 0, model: x}
  - {name: gone, engine: {kind: replay, table: gone.csv}, model: good}
  - {name: lost, engine: {kind: replay, table: table.parquet}, model: godo}
"""


@pytest.fixture
def pool_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_table(by_hand([[0]], agents=("good",)), tmp_path / "table.parquet")
    (tmp_path / "pool.yaml").write_text(POOL)
    return tmp_path / "pool.yaml"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(("doctor", *words))
    told = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, told.out, told.err


class TestCommand:
    def test_table(self, pool_file: Path, capsys: Any) -> None:
        code, out, error = run(capsys, "pool.yaml")
        assert (code, error) == (1, "")
        lines = out.splitlines()
        assert lines[-1] == "5 agents: 2 errors, 1 warning"
        first = {line.split("  ")[0]: line for line in lines}
        assert "ok" in first["good"]
        assert "ok" in first["odd [red]name[/]"]
        assert "warning" in first["twin"]
        assert "no file gone.csv" in first["gone"]
        assert "error" in first["lost"]

    def test_json(self, pool_file: Path, capsys: Any) -> None:
        code, out, _ = run(capsys, "pool.yaml", "--json")
        found = json.loads(out)
        assert code == 1
        assert (found["format"], found["pool"], found["network"]) == ("fusion.doctor/1", "pool.yaml", True)
        assert (found["errors"], found["warnings"], len(found["agents"])) == (2, 1, 5)
        lost = next(item for item in found["findings"] if item["agent"] == "lost")
        assert lost["level"] == "error"
        assert "has no agent 'godo'; did you mean 'good'" in lost["what"]

    def test_no_errors_is_success(self, pool_file: Path, capsys: Any) -> None:
        code, out, _ = run(capsys, "pool.yaml", "--no-network")
        assert code == 0
        assert out.splitlines()[-2:] == [
            "engines were not asked (--no-network): servers, models and memory are unchecked",
            "5 agents: 0 errors, 1 warning",
        ]

    def test_overrides_and_wrong_files(self, pool_file: Path, capsys: Any) -> None:
        told = run(capsys, "pool.yaml", "--no-network", "--set", "agents.twin.model=z")
        assert told[1].splitlines()[-1] == "5 agents: 0 errors, 0 warnings"
        code, _, error = run(capsys, "pool.yaml", "--set", "agents.twin.modle=z")
        assert code == 2
        assert "unknown key 'agents.2.modle'; did you mean 'mode' or 'model'?" in error
        code, _, error = run(capsys, "none.yaml")
        assert code == 2
        assert "no configuration none.yaml" in error

    def test_one_agent(self, pool_file: Path, capsys: Any) -> None:
        pool_file.write_text("agents: [{name: a, engine: echo, input_price: 0, output_price: 0}]")
        assert run(capsys, "pool.yaml", "--timeout", "5")[1].splitlines()[-1] == "1 agent: 0 errors, 0 warnings"
        assert run(capsys, "pool.yaml", "--timeout", "0")[0] == 2
