"""Pool files: every key arrives, every wrong one is named, no secret gets in, none gets out."""

import asyncio
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion import discovery
from fusion.agents import Agent, AgentPool, Engines, pool_schema, read_pool, show_pool
from fusion.cli import main
from fusion.errors import ConfigError, FusionError, InvalidSpec, UnknownName, UsageError
from fusion.schema import Question, Spec

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples" / "pools").glob("*.yaml"))
FULL = """
version: 1
engines:
  local: {kind: echo, replies: [A, B], fail-share: 0.25}
defaults: {temperature: 0.7, max_tokens: 1024, stop: ["\\n\\n"]}
agents:
  - name: qwen
    engine: local
    model: Qwen/Qwen3-8B
    revision: abc
    adapter: ./my-lora
    template: none
    system: "Be brief."
    mode: generate
    top_p: 0.9
    top_k: 20
    seed: 7
    samples: 4
    extra: {a: [1, {b: null}]}
    input_price: 0.1
    output_price: 0.4
  - name: gemma
    engine: echo(replies=[C])
    temperature: 0
    stop: []
"""
ONE = "agents: [{{name: a, engine: echo{}}}]\n"


@pytest.fixture
def pool(tmp_path: Path) -> Any:
    """Write a pool file and read it."""

    def read(text: str, overrides: Mapping[str, object] | None = None) -> AgentPool:
        (tmp_path / "pool.yaml").write_text(text)
        return read_pool(tmp_path / "pool.yaml", overrides=overrides)

    return read


def refused(pool: Any, text: str, overrides: Mapping[str, object] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        pool(text, overrides)
    assert caught.value.exit_code == 2
    assert "pool.yaml" in str(caught.value)
    return str(caught.value)


class TestContent:
    def test_every_key(self, pool: Any, tmp_path: Path) -> None:
        qwen, gemma = pool(FULL)
        assert qwen == Agent(
            name="qwen",
            engine=Spec("echo", {"replies": ["A", "B"], "fail_share": 0.25}),
            model="Qwen/Qwen3-8B",
            revision="abc",
            adapter=str(tmp_path / "my-lora"),
            template="",
            system="Be brief.",
            mode="generate",
            temperature=0.7,
            top_p=0.9,
            top_k=20,
            max_tokens=1024,
            stop=("\n\n",),
            seed=7,
            samples=4,
            extra={"a": [1, {"b": None}]},
            input_price=0.1,
            output_price=0.4,
        )
        assert gemma == Agent(name="gemma", engine=Spec("echo", {"replies": ["C"]}), max_tokens=1024)

    def test_the_file_can_say_all_that_an_agent_is(self) -> None:
        keys = pool_schema()["$defs"]["AgentConfig"]["properties"]  # type: ignore[call-overload, index]
        assert set(keys) == {field.name for field in dataclasses.fields(Agent)} | {"template_file"}

    def test_what_is_not_said_is_as_in_code(self, pool: Any) -> None:
        assert pool(ONE.format("")).agents == (Agent(name="a", engine=Spec("echo")),)

    def test_null_is_said_too(self, pool: Any) -> None:
        text = "defaults: {top_k: 5, template: none, engine: echo}\nagents: [{name: a, top_k: null, template: null}]"
        assert pool(text).agents == (Agent(name="a", engine=Spec("echo")),)

    @pytest.mark.parametrize(
        ("engine", "spec"),
        [
            ("echo", Spec("echo")),
            ("echo(delay-s=1)", Spec("echo", {"delay_s": 1})),
            ("{kind: echo, delay-s: 1}", Spec("echo", {"delay_s": 1})),
            ("mine", Spec("echo", {"delay_s": 2})),
            ("mine too", Spec("echo", {"delay_s": 3})),
        ],
    )
    def test_forms_of_an_engine(self, pool: Any, engine: str, spec: Spec) -> None:
        engines = "engines: {mine: {kind: echo, delay_s: 2}, mine too: 'echo(delay_s=3)'}\n"
        assert pool(f"{engines}agents: [{{name: a, engine: {engine}}}]").agents[0].engine == spec

    def test_a_name_of_the_file_wins_over_a_kind(self, pool: Any) -> None:
        text = "engines: {echo: {kind: echo, delay_s: 2}}\nagents: [{name: a, engine: echo}]"
        assert pool(text).agents[0].engine == Spec("echo", {"delay_s": 2})


class TestWrong:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "the key 'agents' is required"),
            ("agents: []", "a pool needs at least one agent"),
            ("agents: {a: {}}", "agents: input should be a valid list, got {'a': {}}"),
            ("agents: [a]", "agents.0: input should be a valid dictionary"),
            ("version: 2\n" + ONE.format(""), "version: input should be 1, got 2"),
            (ONE.format(", temprature: 1"), "unknown key 'agents.0.temprature'; did you mean 'temperature'"),
            ("defaults: {smaples: 2}\n" + ONE.format(""), "unknown key 'defaults.smaples'; did you mean 'samples'"),
            ("defaults: {name: b}\n" + ONE.format(""), "unknown key 'defaults.name'"),
            (ONE.format(", top_p: 2"), "agents.0.top_p: input should be less than or equal to 1, got 2"),
            (ONE.format(", temperature: .nan"), "agents.0.temperature: input should be a finite number, got nan"),
            (ONE.format(", top_k: 0"), "agents.0.top_k: input should be greater than or equal to 1, got 0"),
            (ONE.format(", input_price: -1"), "agents.0.input_price: .* greater than or equal to 0, got -1"),
            (
                ONE.format(", mode: guess"),
                "agents.0.mode: input should be 'auto', 'generate' or 'options', got 'guess'",
            ),
            (ONE.format(", stop: x"), "agents.0.stop: input should be a valid list, got 'x'"),
            (ONE.format(", revision: 1"), "agents.0.revision: input should be a valid string, got 1"),
            (ONE.format(", extra: {x: .inf}"), "agents.0.extra: expected numbers that are finite"),
            (ONE.format(", extra: {x: 2020-01-01}"), "agents.0.extra.x: input was not a valid JSON value"),
            (ONE.format(", samples: 2"), r"agent 'a' \(agents.0\): several samples at temperature 0"),
            (ONE.format("}, {name: a, engine: echo"), "names must be unique in a pool, but a occurs more than once"),
            ("agents: [{name: a}]", r"agent 'a' \(agents.0\): the key 'engine' is required; .* a kind: echo"),
            ("agents: [{name: a, engine: 5}]", "agents.0.engine: expected the name of an engine, .* got 5"),
            ("agents: [{name: a, engine: {knd: echo}}]", "agents.0.engine: expected .* a mapping with a kind"),
            (
                "agents: [{name: a, engine: ehco}]",
                r"agent 'a' \(agents.0\): unknown engine 'ehco'; did you mean 'echo'",
            ),
            ("agents: [{name: a, engine: ehco(x=1)}]", "unknown engine 'ehco'; did you mean 'echo'"),
            ("agents: [{name: a, engine: echo(delay=1)}]", "'echo' has no parameter 'delay'; did you mean 'delay_s'"),
            (
                "agents: [{name: a, engine: echo(delay_s=-1)}]",
                r"agent 'a' \(agents.0\): echo\(delay_s=-1\): .*equal to 0",
            ),
            (
                "agents: [{name: a, engine: {kind: echo, replies: {a: 1}}}]",
                "a parameter must be a number, word or list",
            ),
            ("agents: [{name: a, engine: replay}]", r"agent 'a' \(agents.0\): engine 'replay' needs table"),
            ("engines: {e: {kind: echo, x: 1}}\nagents: [{name: a, engine: e}]", r"'a' \(agents.0\), engines.e: .*'x'"),
            ("engines: {e: {kind: echo, x: 1}}\n" + ONE.format(""), "pool.yaml: engines.e: engine 'echo' has no"),
            (
                "engines: {loca1: echo}\nagents: [{name: a, engine: local}]",
                "unknown engine 'local'; did you mean 'loca1'",
            ),
        ],
    )
    def test_it_is_named(self, pool: Any, text: str, reason: str) -> None:
        assert re.search(reason, refused(pool, text)), refused(pool, text)

    def test_an_engine_that_cannot_be_imported_is_no_mistake_of_the_file(
        self, pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(discovery, "_targets", lambda package: {"heavy": "nowhere_to_be_found"})
        agent = pool("agents: [{name: a, engine: {kind: heavy, x: 1}}]").agents[0]
        assert agent.engine == Spec("heavy", {"x": 1})
        assert show_pool(tmp_path / "pool.yaml")["agents"][0]["engine"] == {"kind": "heavy", "x": 1}  # type: ignore[call-overload, index]
        with pytest.raises(FusionError, match="cannot be imported"):
            Engines(AgentPool((agent,))).engine_of(agent)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["echo", "none"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["kind", "name", "x"]), inner, max_size=2)
    ),
    max_leaves=5,
)
TEXT = st.text("ab \u00e9\n:#'\"{-", max_size=5)
RIGHT = {
    **dict.fromkeys(("model", "adapter", "revision", "system"), TEXT),
    **dict.fromkeys(("temperature", "input_price"), st.floats(0, 2)),
    **dict.fromkeys(("seed", "max_tokens"), st.integers(1, 9)),
    "stop": st.lists(TEXT, max_size=2),
    "extra": st.dictionaries(TEXT, st.lists(TEXT, max_size=2), max_size=2),
}
KEYS = st.sampled_from([*(field.name for field in dataclasses.fields(Agent)), "template_file", "sede"])
SOUND = st.fixed_dictionaries({}, optional=RIGHT)
FIELDS = st.dictionaries(KEYS, JSON, max_size=3) | SOUND


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(FIELDS | JSON, max_size=3) | JSON, FIELDS, st.booleans(), st.just({}) | JSON)
def test_any_content_is_read_or_refused(
    tmp_path_factory: Any, agents: Any, defaults: dict[str, Any], sound: bool, engines: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    if sound and isinstance(agents, list):
        agents = [{"engine": "echo", **agent, "name": f"a{i}"} for i, agent in enumerate(agents) if type(agent) is dict]
    path.write_text(yaml.safe_dump({"agents": agents, "defaults": defaults, "engines": engines}))
    try:
        assert len(read_pool(path)) == len(agents)
    except ConfigError as error:
        told = str(error)
    else:
        return
    assert "any.yaml" in told


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(SOUND, min_size=1, max_size=3), SOUND)
def test_what_is_shown_reads_the_same(
    tmp_path_factory: Any, agents: list[dict[str, Any]], defaults: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "sound.yaml"
    listed = [{**agent, "name": f"a{i}"} for i, agent in enumerate(agents)]
    path.write_text(yaml.safe_dump({"agents": listed, "defaults": {**defaults, "engine": "echo"}}))
    pool = read_pool(path)
    for agent, said in zip(pool, agents, strict=True):
        for key, value in {**defaults, **said}.items():
            assert getattr(agent, key) == (tuple(value) if key == "stop" else value)
    path.write_text(yaml.safe_dump(show_pool(path)))
    for old, new in zip(pool, read_pool(path), strict=True):
        assert dataclasses.replace(new, engine=old.engine) == old


class TestTemplates:
    def test_inline_none_and_file(self, pool: Any, tmp_path: Path) -> None:
        (tmp_path / "chat.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}\n")
        for said, template in (
            ('template: "{{ messages }}"', "{{ messages }}"),
            ("template: none", ""),
            ("template: ''", ""),
            ("template: null", None),
            ("template_file: chat.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}\n"),
            (f"template_file: {tmp_path}/chat.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}\n"),
        ):
            assert pool(ONE.format(f", {said}")).agents[0].template == template

    def test_an_agents_own_replaces_the_default_of_either_kind(self, pool: Any, tmp_path: Path) -> None:
        (tmp_path / "chat.jinja").write_text("{{ a }}")
        assert pool("defaults: {template_file: chat.jinja}\n" + ONE.format(", template: none")).agents[0].template == ""
        text = "defaults: {template: none}\n" + ONE.format(", template_file: chat.jinja")
        assert pool(text).agents[0].template == "{{ a }}"

    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            ("template: chatml", "expected Jinja text, or none for plain text, got 'chatml'; a file is named with"),
            ("template: none, template_file: x", "template and template_file say the same thing twice"),
            ("template_file: x.jinja", "x.jinja cannot be read: No such file or directory"),
            ("template_file: .", "cannot be read: Is a directory"),
            ("template_file: blank", "blank is empty; for plain text write template: none"),
            ("template_file: binary", "binary cannot be read: it is no text in UTF-8"),
        ],
    )
    def test_wrong(self, pool: Any, tmp_path: Path, said: str, reason: str) -> None:
        (tmp_path / "blank").write_text(" \n")
        (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
        assert reason in refused(pool, ONE.format(f", {said}"))


class TestPaths:
    def test_from_the_folder_of_the_file(self, pool: Any, tmp_path: Path) -> None:
        for name in ("org/model", "lora"):
            (tmp_path / name).mkdir(parents=True)
        for said, found in (
            ("org/model", str(tmp_path / "org" / "model")),
            ("./lora", str(tmp_path / "lora")),
            ("lora", str(tmp_path / "lora")),
            ("../x", str(tmp_path.parent / "x")),
            ("./not-there", str(tmp_path / "not-there")),
            ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
            ("gpt2", "gpt2"),
            ("/models/x", "/models/x"),
            ("~/x", str(Path.home() / "x")),
            ("~nobody/x", "~nobody/x"),
            ("a" * 5000, "a" * 5000),
        ):
            agent = pool(ONE.format(f", model: {said}, adapter: {said}")).agents[0]
            assert (agent.model, agent.adapter) == (found, found)

    def test_names_of_a_server_stay(self, pool: Any, tmp_path: Path) -> None:
        """A vLLM server started with ./lora serves a model of that very name."""
        (tmp_path / "lora").mkdir()
        engine = "{kind: openai, base_url: http://127.0.0.1:1/v1}"
        agent = pool(f"agents: [{{name: a, engine: {engine}, model: ./lora, adapter: lora}}]").agents[0]
        assert (agent.model, agent.adapter) == ("./lora", "lora")
        assert pool("agents: [{name: a, engine: openai, model: lora}]").agents[0].model == "lora"

    def test_files_of_an_engine(self, pool: Any, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("question_id,a\nq,A\n")
        for table, found in (("t.csv", str(tmp_path / "t.csv")), ("u.csv", "u.csv")):
            agent = pool(f"agents: [{{name: a, engine: {{kind: replay, table: {table}}}}}]").agents[0]
            assert agent.engine == Spec("replay", {"table": found})


SECRETS = [
    "api_key: abc",
    "apiKey: abc",
    "api-key: EMPTY",
    "token: abc",
    "hf_token: abc",
    "password: 12345",
    "client_secret: abc",
    "x: {headers: {Authorization: abc}}",
    "x: [{OPENAI_API_KEY: abc}]",
    "x: sk-abcdef123456",
    "x: [a, 'my key: sk-proj-abcdef_123']",
    "x: hf_abcdefghijklmnopqrst",
    "x: ghp_abcdefghijklmnopqrst",
    "x: AKIAABCDEFGHIJKLMNOP",
    "x: Bearer abcdefghijklmnop",
    "x: https://me:pass@example.org/v1",
    "x: '-----BEGIN RSA PRIVATE KEY-----'",
    "sk-abcdef123456: x",
    "key_env: not a name",
    "api_key_env: sk-abcdef123456",
]
HARMLESS = [
    "max_tokens: 3",
    "stop_token_ids: [1]",
    "eos_token: </s>",
    "api_key_env: OPENAI_API_KEY",
    "prompt_cache_key: x",
    "x: task-description-of-some-length",
    "x: risk-averse-but-bold",
    "x: hf_transfer",
    "x: https://example.org:8000/v1",
    "x: keys and tokens are secret",
    "token: null",
]


class TestSecrets:
    @pytest.mark.parametrize("said", SECRETS)
    def test_refused_wherever_they_stand(self, pool: Any, said: str) -> None:
        value = said.rpartition(": ")[2].strip("}]'")
        for text in (
            ONE.format(f", extra: {{{said}}}"),
            f"defaults: {{extra: {{{said}}}}}\n" + ONE.format(""),
            f"engines: {{e: {{kind: echo, {said}}}}}\n" + ONE.format(""),
        ):
            told = refused(pool, text)
            assert "Secrets do not belong in a file" in told
            assert "api_key_env: NAME" in told
            assert len(value) < 6 or value not in told

    def test_in_texts_overrides_and_specs(self, pool: Any) -> None:
        assert "agents.0.system looks like a secret" in refused(pool, ONE.format(", system: 'use sk-abcdef123456'"))
        assert "engines.e.api_key holds" in refused(
            pool, ONE.format(""), {"engines.e": {"kind": "echo", "api_key": "x"}}
        )
        assert "api_key holds a secret" in refused(pool, "agents: [{name: a, engine: echo(api_key=abc)}]")

    @pytest.mark.parametrize("said", HARMLESS)
    def test_what_only_sounds_like_one_passes(self, pool: Any, said: str) -> None:
        assert pool(ONE.format(f", extra: {{{said}}}")).agents[0].extra == yaml.safe_load(f"{{{said}}}")

    @settings(max_examples=50, deadline=None)
    @given(st.from_regex(r"\A(sk-[A-Za-z0-9]{20,40}|hf_[A-Za-z0-9]{30,40})\Z"), st.text("ab :/\"'=,", max_size=5))
    def test_no_key_is_ever_repeated(self, tmp_path_factory: Any, key: str, around: str) -> None:
        path = tmp_path_factory.getbasetemp() / "pool.yaml"
        path.write_text(yaml.safe_dump({"agents": [{"name": "a", "engine": "echo", "model": f"{around} {key}"}]}))
        with pytest.raises(ConfigError, match=r"agents\.0\.model looks like a secret") as caught:
            read_pool(path)
        assert key not in str(caught.value)


class TestEnvironment:
    def test_values_of_texts(self, pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WHERE", "there")
        monkeypatch.setenv("HOW_MANY", "4")
        said = (
            ", model: '${WHERE}/${WHERE}', max_tokens: '${HOW_MANY}', extra: {x: ['a${WHERE}']}, system: '$${WHERE} $5'"
        )
        agent = pool(ONE.format(said)).agents[0]
        assert (agent.model, agent.max_tokens, agent.extra) == ("there/there", 4, {"x": ["athere"]})
        assert agent.system == "${WHERE} $5"

    def test_jinja_is_left_alone(self, pool: Any) -> None:
        assert pool(ONE.format(", template: 'USD ${{ price }}'")).agents[0].template == "USD ${{ price }}"

    def test_all_that_are_missing_are_named(self, pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NOT_SET", raising=False)
        told = refused(pool, ONE.format(", model: '${NOT_SET}', extra: {x: ['${NOT_SET_2}']}"))
        assert "agents.0.model: the environment variable NOT_SET is not set" in told
        assert "agents.0.extra.x.0: the environment variable NOT_SET_2 is not set" in told

    @pytest.mark.parametrize("name", ["OPENAI_API_KEY", "HF_TOKEN", "my_password"])
    def test_secrets_do_not_come_in_by_name(self, pool: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, "value-of-it")
        told = refused(pool, ONE.format(f", extra: {{x: '${{{name}}}'}}"))
        assert f"agents.0.extra.x: ${{{name}}} is a secret by its name" in told
        assert "value-of-it" not in told

    def test_nor_by_value(self, pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HARMLESS", "sk-abcdef123456")
        told = refused(pool, ONE.format(", model: 'x/${HARMLESS}'"))
        assert "agents.0.model looks like a secret" in told
        assert "sk-abcdef" not in told

    def test_a_variable_is_not_read_twice(self, pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OUTER", "${INNER}")
        assert pool(ONE.format(", model: '${OUTER}'")).agents[0].model == "${INNER}"


class TestOverrides:
    def test_they_win(self, pool: Any) -> None:
        overrides = {
            "agents.qwen.model": "other",
            "agents.1.seed": 3,
            "defaults.max_tokens": 9,
            "engines.local.fail_share": 0.5,
        }
        qwen, gemma = pool(FULL.replace("fail-share", "fail_share"), overrides)
        assert (qwen.model, gemma.seed, gemma.max_tokens) == ("other", 3, 9)
        assert qwen.engine == Spec("echo", {"replies": ["A", "B"], "fail_share": 0.5})

    def test_a_name_that_is_a_number_or_has_dots(self, pool: Any) -> None:
        text = "agents: [{name: '1', engine: echo}, {name: b.c, engine: echo}]"
        one, other = pool(text, {"agents.1.seed": 5, 'agents."b.c".seed': 6})
        assert (one.seed, other.seed) == (5, 6)

    def test_all_agents_at_once(self, pool: Any) -> None:
        assert pool(FULL, {"agents": [{"name": "z", "engine": "echo"}]}).names == ("z",)

    def test_unknown_ones(self, pool: Any) -> None:
        assert "no agent 'qwne' to override; did you mean 'qwen'" in refused(pool, FULL, {"agents.qwne.seed": 1})
        assert "no agent '7' to override" in refused(pool, FULL, {"agents.7.seed": 1})
        assert "unknown key 'agents.0.sede'" in refused(pool, FULL, {"agents.qwen.sede": 1})


class TestShow:
    def test_it_reads_as_the_same_pool(self, pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WHERE", "there")
        (tmp_path / "chat.jinja").write_text("{{ a }}")
        more = "  - {name: c, engine: local, template_file: chat.jinja, model: 'x${WHERE}', system: '$${WHERE}'}\n"
        first = pool(FULL + more)
        shown = yaml.safe_dump(show_pool(tmp_path / "pool.yaml"), sort_keys=False)
        elsewhere = tmp_path / "sub"
        elsewhere.mkdir()
        (elsewhere / "shown.yaml").write_text(shown)
        again = read_pool(elsewhere / "shown.yaml")
        engines = Engines(first)
        for old, new in zip(first, again, strict=True):
            assert dataclasses.replace(new, engine=old.engine) == old
            assert discovery.build("agents", new.engine) == engines.engine_of(old)  # type: ignore[arg-type]

    def test_every_default_is_filled_in(self, pool: Any, tmp_path: Path) -> None:
        pool(ONE.format(""))
        shown = show_pool(tmp_path / "pool.yaml")["agents"]
        assert shown == [
            {
                "name": "a",
                "engine": {
                    "kind": "echo",
                    "replies": [],
                    "delay_s": 0.0,
                    "fail_share": 0.0,
                    "fail_status": "http_error",
                },
                **dict.fromkeys(("revision", "adapter", "template", "top_k", "input_price", "output_price")),
                **{"model": "", "system": "", "mode": "auto", "temperature": 0.0, "top_p": 1.0, "max_tokens": 512},
                **{"stop": [], "seed": 0, "samples": 1, "extra": {}},
            }
        ]

    def test_what_is_in_the_environment_is_not_shown(
        self, pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HIDDEN", "hidden-value")
        pool(
            "engines: {e: {kind: openai, base-url: 'https://${HIDDEN}/v1'}, f: 'echo(replies=[\"${HIDDEN}\"])'}\n"
            "defaults: {system: '${HIDDEN}'}\n"
            "agents: [{name: a, engine: e, extra: {x-y: [1, '${HIDDEN}']}, stop: ['${HIDDEN}'], model: '${HIDDEN}'},\n"
            "  {name: b, engine: f}]"
        )
        shown = json.dumps(show_pool(tmp_path / "pool.yaml"))
        assert "hidden-value" not in shown
        assert shown.count("${HIDDEN}") == 7


class TestSchema:
    def test_examples_and_the_full_file_meet_it(self, tmp_path: Path) -> None:
        from jsonschema import Draft202012Validator

        schema = pool_schema()
        Draft202012Validator.check_schema(schema)
        validator = Draft202012Validator(schema)
        for text in [FULL.replace("fail-share", "fail_share"), *(path.read_text() for path in EXAMPLES)]:
            assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []
        for text in ("agents: []", ONE.format(", sede: 1"), "agents: [{name: a, engine: {kind: echo, x: 1}}]"):
            assert not validator.is_valid(yaml.safe_load(text)), text

    def test_everything_is_described(self) -> None:
        schema: Any = pool_schema()
        groups = [schema["properties"], schema["$defs"]["AgentConfig"]["properties"]]
        engines = [item for item in schema["$defs"]["Engine"]["anyOf"] if item["type"] == "object"]
        assert tuple(item["title"] for item in engines) == discovery.names("agents")
        for group in [*groups, *(item["properties"] for item in engines)]:
            assert [key for key, item in group.items() if not item.get("description")] == []

    def test_an_engine_that_cannot_be_imported_is_let_pass(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(discovery, "_targets", lambda package: {"heavy": "nowhere_to_be_found"})
        shape: Any = pool_schema()["$defs"]["Engine"]["anyOf"][1]  # type: ignore[call-overload, index]
        assert "cannot be imported" in shape["description"]
        assert "additionalProperties" not in shape


def question() -> Question:
    return Question(id="q", messages=(), meta={"continuations": ["A", "B"]})


class Partial:
    def render(self) -> str:
        return ""


class TestEngines:
    def test_agents_that_mean_the_same_share_one(self) -> None:
        specs = ["echo", "echo(fail_share=0.0)", "echo(replies=[A])", "echo"]
        pool = AgentPool(tuple(Agent(name=str(i), engine=Spec.parse(text)) for i, text in enumerate(specs)))
        engines = Engines(pool)
        found = [engines.engine_of(agent) for agent in pool]
        assert found[0] is found[1] is found[3]
        assert found[2] is not found[0]

    def test_given_objects_win(self) -> None:
        pool = AgentPool((Agent(name="a"), Agent(name="b", engine=Spec("echo"))))
        given: Any = discovery.build("agents", "echo")
        engines = Engines(pool, given={"a": given, "b": given})
        assert [engines.engine_of(agent) is given for agent in pool] == [True, True]
        with pytest.raises(UnknownName, match=r"unknown agent \(for an engine\) 'c'"):
            Engines(pool, given={"c": given})

    def test_a_pool_that_is_only_on_record(self) -> None:
        pool = AgentPool.of(["a"])
        with pytest.raises(
            UsageError, match=r"'a' has no engine: its answers are only on record\. Give it one"
        ) as caught:
            Engines(pool).engine_of(pool.agents[0])
        assert 'replay(table="TABLE"), model: a' in str(caught.value)

        async def entered() -> None:
            async with Engines(pool):
                pass

        with pytest.raises(UsageError, match="has no engine"):
            asyncio.run(entered())

    def test_what_is_no_engine(self) -> None:
        pool = AgentPool((Agent(name="a", engine=Spec("echo", {"nope": 1})),))
        with pytest.raises(InvalidSpec):
            Engines(pool).engine_of(pool.agents[0])
        with pytest.raises(FusionError, match="the engine given for agent 'a' is a Partial without identity, scoring"):
            Engines(pool, given={"a": Partial()})  # type: ignore[dict-item]

    def test_closing_is_for_all_once_and_does_not_stop_at_an_error(self) -> None:
        closed = []

        class Closing(discovery.load("agents", "echo")):  # type: ignore[misc]
            async def aclose(self) -> None:
                closed.append(self.fail_share)
                if self.fail_share:
                    raise EOFError(f"cannot close {self.fail_share}")

        engines = [Closing(fail_share=share) for share in (0.5, 0.0, 1.0)]
        pool = AgentPool(tuple(Agent(name=name) for name in "abcd"))
        made = Engines(pool, given=dict(zip("abcd", [*engines, engines[1]], strict=True)))
        with pytest.raises(EOFError, match=r"cannot close 0\.5") as caught:
            asyncio.run(made.aclose())
        assert closed == [0.5, 0.0, 1.0]
        assert caught.value.__notes__ == ["another engine failed to close as well: EOFError: cannot close 1.0"]


class TestExamples:
    @pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
    def test_each_can_be_read(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VLLM_URL", "http://127.0.0.1:8000/v1")
        pool = read_pool(path)
        assert len(pool) >= 3
        engines = Engines(pool)
        for agent in pool:
            engines.engine_of(agent)

    def test_there_are_three(self) -> None:
        assert [path.stem for path in EXAMPLES] == ["adapters", "echo", "endpoints"]

    def test_endpoints(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VLLM_URL", "http://127.0.0.1:8000/v1")
        pool = read_pool(ROOT / "examples" / "pools" / "endpoints.yaml")
        addresses = [agent.engine.params.get("base_url") for agent in pool if agent.engine]
        assert addresses == ["http://127.0.0.1:8000/v1", "https://llm.example.org/v1", None]
        assert all(agent.engine and agent.engine.name == "openai" and None not in agent.prices for agent in pool)

    def test_adapters_share_a_model(self) -> None:
        folder = ROOT / "examples" / "pools"
        pool = read_pool(folder / "adapters.yaml")
        engines = Engines(pool)
        assert len({id(engines.engine_of(agent)) for agent in pool}) == 1
        assert len({(agent.model, agent.revision) for agent in pool}) == 1
        assert [agent.adapter for agent in pool] == [
            None,
            str(folder / "adapters" / "maths"),
            str(folder / "adapters" / "law"),
            None,
        ]

    def test_echo_answers_offline(self) -> None:
        pool = read_pool(ROOT / "examples" / "pools" / "echo.yaml")

        async def answers() -> dict[str, str]:
            told: dict[str, str] = {}
            async with Engines(pool) as engines:
                for agent in pool:
                    async with aclosing(engines.engine_of(agent).generate([agent.request(question())])) as found:
                        async for _, item in found:
                            told[agent.name] = item.text
            return told

        assert set(asyncio.run(answers()).values()) <= {"A", "B", "C", "D", ""}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(words)
    told = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, told.out, told.err


class TestCommand:
    def test_validate_tells_the_kind_from_the_content(self, tmp_path: Path, capsys: Any) -> None:
        (tmp_path / "p.yaml").write_text(ONE.format(""))
        (tmp_path / "b.yaml").write_text("table: t.csv\n")
        assert run(capsys, "config", "validate", f"{tmp_path}/p.yaml")[:2] == (
            0,
            f"{tmp_path}/p.yaml is a valid pool file\n",
        )
        assert run(capsys, "config", "validate", f"{tmp_path}/b.yaml")[:2] == (
            0,
            f"{tmp_path}/b.yaml is a valid bench file\n",
        )
        code, _, error = run(capsys, "config", "validate", f"{tmp_path}/b.yaml", "--kind", "pool")
        assert code == 2
        assert "the key 'agents' is required" in error
        code, _, error = run(capsys, "config", "validate", f"{tmp_path}/p.yaml", "--kind", "bnech")
        assert code == 2
        assert "unknown kind of configuration 'bnech'; did you mean 'bench'" in error

    def test_show(self, tmp_path: Path, capsys: Any) -> None:
        (tmp_path / "p.yaml").write_text(ONE.format(""))
        code, out, _ = run(capsys, "config", "show", f"{tmp_path}/p.yaml", "--set", "agents.a.temperature=0.5")
        assert code == 0
        assert yaml.safe_load(out)["agents"][0]["temperature"] == 0.5

    def test_schema(self, capsys: Any) -> None:
        assert "agents" in json.loads(run(capsys, "config", "schema")[1])["properties"]
        assert "agents" in json.loads(run(capsys, "config", "schema", "pool")[1])["properties"]
        assert "systems" in json.loads(run(capsys, "config", "schema", "bench")[1])["properties"]
        code, _, error = run(capsys, "config", "schema", "pol")
        assert code == 2
        assert "unknown kind of configuration 'pol'; did you mean 'pool'" in error


def test_the_page_describes_every_key_and_parameter() -> None:
    page = (ROOT / "docs" / "pools.md").read_text(encoding="utf-8")
    schema: Any = pool_schema()
    keys = {*schema["properties"], *schema["$defs"]["AgentConfig"]["properties"]}
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []
    assert [kind for kind in discovery.names("agents") if f"`{kind}`" not in page] == []


def test_the_files_on_the_page_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_URL", "http://127.0.0.1:8000/v1")
    page = (ROOT / "docs" / "pools.md").read_text(encoding="utf-8")
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    found = [text for text in re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S) if "agents:" in text]
    assert found
    for text in found:
        (tmp_path / "pool.yaml").write_text(text)
        assert len(read_pool(tmp_path / "pool.yaml"))


def test_reading_a_pool_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(ONE.format(""))
    code = f"""
import sys
from fusion.agents import read_pool
read_pool({str(tmp_path / "p.yaml")!r})
print(sorted({{"torch", "transformers", "peft", "pandas", "pyarrow", "httpx"}} & set(sys.modules)))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
