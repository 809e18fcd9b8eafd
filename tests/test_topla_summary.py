"""topla_summary: that it learns whom to believe, confidence, saving, refusals, asking live."""

import asyncio
import copy
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tables
import torch
from tables import by_hand, everyone
from tiny_models import TinyModels, closed_words
from transformers import GenerationConfig, LlamaConfig, T5Config
from trust_world import WORDS, World, trust_world

from fusion.agents import Agent, AgentPool
from fusion.answer import Answer
from fusion.data import PredictionTable
from fusion.ensemble import Ensemble
from fusion.errors import ConfigError, InputError, InvalidTable, MissingDependency, NotFitted, TableMismatch
from fusion.fusers._writer import describe, load_tokenizer, load_writer, write
from fusion.fusers.topla_summary import ToplaSummary
from fusion.protocols import FolderMethod, NotingFuser, SlowFuser
from fusion.schema import Spec

pytestmark = pytest.mark.usefixtures("quick")

SHORT: dict[str, Any] = {"max_tokens": 3, "learning_rate": 3e-3, "batch_size": 16, "patience": 100}


@pytest.fixture(scope="module")
def learned(tiny: TinyModels) -> ToplaSummary:
    """A fuser that was trained on the world, a quarter of whose questions nobody can answer but by luck."""
    model = tiny.led(words=WORDS, hidden=64, layers=2, context=64)
    table = trust_world(600, 1, untold=0.25).table
    return ToplaSummary(model=str(model), epochs=6, **SHORT).fit(table, everyone(table))


@pytest.fixture(scope="module")
def unseen() -> World:
    return trust_world(300, 2, untold=0.25)


@pytest.fixture(scope="module")
def small(tiny: TinyModels) -> ToplaSummary:
    """A fuser that was hardly trained."""
    return quickly(tiny, trust_world(40, 3).table)


def quickly(tiny: TinyModels, table: PredictionTable, **how: Any) -> ToplaSummary:
    model = str(tiny.led(words=WORDS, context=64))
    return ToplaSummary(**{"model": model, "max_tokens": 3, "epochs": 1, "batch_size": 32, **how}).fit(
        table, everyone(table)
    )


class TestLearning:
    def test_it_reads_whom_to_believe(self, learned: ToplaSummary, unseen: World) -> None:
        """On questions never seen it is right wherever that can be known; agents and plurality are on half of them."""
        table, told_N = unseen
        right_N = learned.fuse(table, everyone(table)).answers == table.labels
        assert right_N[told_N].mean() > 0.95
        plurality_N = Ensemble(table.agents, "all_agents", "vote").fit(table).replay(table).decision.answers
        best = max(table.accuracies.max(), (plurality_N == table.labels).mean())
        assert right_N.mean() > 0.8 > 0.65 > best

    def test_confidence_is_calibrated(self, learned: ToplaSummary, unseen: World) -> None:
        """In [0, 1], higher where there is a cue than where there is luck, and about as high as it is right."""
        table, told_N = unseen
        decision = learned.fuse(table, everyone(table))
        assert decision.confidence is not None
        assert ((decision.confidence >= 0) & (decision.confidence <= 1)).all()
        assert decision.confidence[told_N].mean() > decision.confidence[~told_N].mean() + 0.02
        # 60 questions were held out: one standard error is 0.05, of the 300 here 0.02.
        assert abs(decision.confidence.mean() - (decision.answers == table.labels).mean()) < 0.12

    def test_what_it_says_of_training(self, learned: ToplaSummary) -> None:
        right, held = learned.held_out_
        assert held == 60
        assert isinstance(learned, NotingFuser)
        updates, loss, out = learned.notes()
        assert updates == "topla_summary: 204 updates, 6 epochs"
        assert loss.startswith("topla_summary: loss on questions held out: 0.")
        assert out == f"topla_summary: right on {right} of the 60 questions held out on which agents differ"

    def test_decoder_only(self, tiny: TinyModels) -> None:
        config = LlamaConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.1,
        )
        model = tiny.built(config, "llama-words", words=closed_words(WORDS))
        table, other = trust_world(500, 1).table, trust_world(100, 2).table
        fuser = ToplaSummary(model=str(model), epochs=8, **SHORT).fit(table, everyone(table))
        right_N = fuser.fuse(other, everyone(other)).answers == other.labels
        assert right_N.mean() > 0.8 > other.accuracies.max()

    def test_relative_positions(self, tiny: TinyModels) -> None:
        """T5 has no table of positions, so that nothing limits what it reads, and no global attention."""
        config = T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, dropout_rate=0.0)
        model = tiny.built(config, "t5-words", words=closed_words(WORDS))
        assert describe(str(model)) == (1 << 20, 1 << 20, False, False)
        table = trust_world(200, 1).table
        fuser = ToplaSummary(model=str(model), epochs=4, **SHORT).fit(table, everyone(table))
        assert fuser.trained_ is not None
        (_, first), *_, (_, last) = fuser.trained_.losses
        assert last < first - 0.2
        assert set(fuser.fuse(table, everyone(table)).texts or ()) <= {*WORDS, ""}

    def test_beams(self, learned: ToplaSummary, unseen: World) -> None:
        """Two beams find answers at least as likely as one does, of the same words."""
        writer, table = learned._ready(), unseen.table.rows(slice(0, 20))
        rows = list(learned._reader(writer.tokenizer, writer.about).rows(table, everyone(table)))
        one, one_N = write(writer, rows, max_tokens=3, num_beams=1)
        two, two_N = write(writer, rows, max_tokens=3, num_beams=3)
        assert set(one) | set(two) <= set(WORDS)
        assert (two_N >= one_N - 1e-5).all()
        assert (two_N <= 0).all()


class TestModels:
    def test_windows_are_padded_within_the_positions(self, tiny: TinyModels) -> None:
        """100 positions are 6 windows of 16: what is longer than 96 would be padded beyond the last position."""
        model = tiny.led(words=WORDS, context=100)
        assert describe(str(model)) == (96, 32, False, True)
        table = trust_world(10, 1).table
        long = tables.by_hand(
            table.answers,
            table.labels,
            options=table.options,
            questions=["ant " * 200] * 10,
            references=table.references,
        )
        fuser = ToplaSummary(model=str(model), max_tokens=2, epochs=1).fit(long, everyone(long))
        assert len(fuser.fuse(long, everyone(long)).answers) == 10

    def test_generation_settings_of_the_publisher_are_dropped(self, tiny: TinyModels) -> None:
        """What a summariser was published with would make every answer twenty tokens long."""
        model = tiny.edited(tiny.led(words=WORDS), "published")
        GenerationConfig(
            min_length=20, num_beams=4, early_stopping=True, no_repeat_ngram_size=3, eos_token_id=2, pad_token_id=3
        ).save_pretrained(model)
        kept = load_writer(str(model), load_tokenizer(str(model), 3)).model.generation_config
        assert (kept.min_length, kept.num_beams, kept.no_repeat_ngram_size) == (None, None, None)
        assert (kept.eos_token_id, kept.pad_token_id, kept.decoder_start_token_id) == (2, 3, 2)

    def test_more_than_it_can_write(self, tiny: TinyModels) -> None:
        with pytest.raises(ConfigError, match="max_tokens is 40, and the model writes 32 at most"):
            quickly(tiny, trust_world(10, 1).table, max_tokens=40)

    @pytest.mark.parametrize("batch", [1, 3])
    def test_batches_change_nothing(
        self, learned: ToplaSummary, unseen: World, batch: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = unseen.table.rows(slice(0, 12))
        expected = learned.fuse(table, everyone(table))
        monkeypatch.setattr("fusion.fusers._writer._most_rows", lambda *_: batch)
        found = learned.fuse(table, everyone(table))
        assert found.texts == expected.texts
        np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-5)  # type: ignore[arg-type]


class TestFusing:
    def test_protocols(self, small: ToplaSummary) -> None:
        assert isinstance(small, SlowFuser)
        assert small.slow
        assert isinstance(small, FolderMethod)

    def test_agreement_needs_no_model(self, small: ToplaSummary) -> None:
        """In fit nobody ever agreed, so one right and one wrong are all that is known: a half."""
        table = trust_world(4, 9).table
        agreed = tables.answering(table, np.array([[0, 0, 0], [1, -1, 1], [-1, -1, -1], [-1, 1, -1]]))
        decision = small.fuse(agreed, everyone(agreed))
        assert decision.answers.tolist() == [0, 1, -1, 1]
        assert table.options is not None
        assert decision.texts == (table.options[0][0], table.options[1][1], "", table.options[3][1])
        np.testing.assert_allclose(decision.confidence, [0.5, 0.5, 0, 0.5])  # type: ignore[arg-type]

    def test_confidence_where_all_agree(self, tiny: TinyModels) -> None:
        """All agree on 8 questions and are right on 6: (6 + 1) / (8 + 2)."""
        table = by_hand(
            [[0, 0]] * 8 + [[0, 1]] * 2,
            [0] * 6 + [1] * 2 + [0] * 2,
            options=[("red", "blue")] * 10,
            questions=["ant"] * 10,
        )
        fuser = quickly(tiny, table)
        assert fuser.agreed_ == pytest.approx(0.7)
        confidence = fuser.fuse(table, everyone(table)).confidence
        assert confidence is not None
        assert confidence[:8].tolist() == pytest.approx([0.7] * 8)

    def test_closed_questions_have_no_texts(self, tiny: TinyModels) -> None:
        """What is written and no option gives way to the plurality."""
        table = tables.without(trust_world(30, 4).table, "references")
        decision = quickly(tiny, table).fuse(table, everyone(table))
        assert decision.texts is None
        assert (decision.answers >= 0).all()

    def test_words_of_an_agent_are_read_as_the_agents(
        self, small: ToplaSummary, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is written is what b wrote, in which the option 1 was read; on q1 it is nobody's."""
        table = by_hand(
            [[0, 1, 0], [0, 1, 0]],
            [1, 1],
            options=[("red", "blue")] * 2,
            references=["blue"] * 2,
            questions=["ant"] * 2,
            texts=[["red", "plum grey", "red"], ["red", "blue", "red"]],
        )
        monkeypatch.setattr(ToplaSummary, "_write", lambda self, rows: (["Plum  grey."] * 2, np.zeros(2)))
        decision = small.fuse(table, everyone(table))
        assert decision.answers.tolist() == [1, -1]
        assert decision.texts == ("Plum  grey.", "Plum  grey.")

    def test_not_fitted(self, small: ToplaSummary) -> None:
        table = trust_world(4, 9).table
        with pytest.raises(NotFitted, match="fit"):
            ToplaSummary().fuse(table, everyone(table))
        with pytest.raises(TableMismatch):
            small.fuse(tables.renamed(table, ("x", "y", "z")), everyone(table))

    def test_no_question_at_all(self, small: ToplaSummary) -> None:
        none = trust_world(4, 9).table.rows(slice(0, 0))
        assert len(small.fuse(none, everyone(none)).answers) == 0

    def test_global_randomness_is_left_alone(self, tiny: TinyModels) -> None:
        before, tensors = tables.global_randomness(), torch.get_rng_state()
        table = trust_world(20, 6).table
        quickly(tiny, table).fuse(table, everyone(table))
        assert tables.global_randomness() == before
        assert torch.equal(torch.get_rng_state(), tensors)


class TestSaving:
    def test_saved_and_loaded(self, small: ToplaSummary, tmp_path: Path) -> None:
        """The folder holds all that is needed; the model to begin with and the folder of training do not matter."""
        table = trust_world(30, 7).table
        ensemble = Ensemble(table.agents, "all_agents", copy.deepcopy(small))
        expected = ensemble.replay(table).decision
        ensemble.save(tmp_path / "e")
        shutil.move(tmp_path / "e", tmp_path / "moved")
        again = Ensemble.load(tmp_path / "moved")
        found = again.replay(table).decision
        assert found.texts == expected.texts
        np.testing.assert_array_equal(found.confidence, expected.confidence)  # type: ignore[arg-type]
        assert isinstance(again.fuser, ToplaSummary)
        assert again.fuser.trained_ == small.trained_
        assert again.fuser.notes()[:3] == small.notes()[:3]
        again.save(tmp_path / "copy")
        assert (tmp_path / "copy/fuser/model/model.safetensors").is_file()

    def test_another_fit_leaves_what_was_saved(self, small: ToplaSummary, tmp_path: Path) -> None:
        """Neither that of a loaded ensemble nor that of a copy touches files of the first."""
        table = trust_world(30, 7).table
        Ensemble(table.agents, "all_agents", small).save(tmp_path / "e")
        before = (tmp_path / "e/fuser/model/model.safetensors").read_bytes()
        expected = small.fuse(table, everyone(table))
        Ensemble.load(tmp_path / "e").fit(table)
        copy.deepcopy(small).fit(table, everyone(table))
        assert (tmp_path / "e/fuser/model/model.safetensors").read_bytes() == before
        small._writer = None
        assert small.fuse(table, everyone(table)).texts == expected.texts

    @pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
    @pytest.mark.parametrize("damage", [b"", b"{}", b"abc", None])
    def test_damaged(self, small: ToplaSummary, tmp_path: Path, file: str, damage: bytes | None) -> None:
        table = trust_world(4, 7).table
        Ensemble(table.agents, "all_agents", small).save(tmp_path)
        path = tmp_path / "fuser" / "model" / file
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)
        with pytest.raises(InputError, match=r"the trained model in \S+ cannot be read: .*; fit again"):
            Ensemble.load(tmp_path).replay(table)

    def test_work_in_a_folder(self, tiny: TinyModels, tmp_path: Path) -> None:
        """A run that is done is taken up; another table, parameter or model starts anew."""
        steps: list[str] = []

        def fitted(table: PredictionTable, **how: Any) -> list[str]:
            steps.clear()
            fuser = ToplaSummary(**{"model": model, "max_tokens": 3, "epochs": 1, **how})
            fuser.learn_in(tmp_path, lambda what, *_: steps.append(what))
            fuser.fit(table, everyone(table))
            return [what for what in steps if what == "training"]

        model, table = str(tiny.led(words=WORDS, context=64)), trust_world(40, 3).table
        assert fitted(table)
        assert not fitted(table)
        assert not fitted(table, num_beams=2)
        assert fitted(trust_world(40, 4).table)
        assert fitted(table)
        assert fitted(table, learning_rate=1e-3)
        assert fitted(table, model=str(tiny.led(words=WORDS, context=64, seed=1)))

    def test_missing(self, small: ToplaSummary, tmp_path: Path) -> None:
        Ensemble(("a", "b", "c"), "all_agents", small).save(tmp_path)
        shutil.rmtree(tmp_path / "fuser")
        with pytest.raises(InputError, match=r"no trained model in .*; fit and save the ensemble again"):
            Ensemble.load(tmp_path)

    def test_own_folder_goes_with_the_fuser(self, tiny: TinyModels) -> None:
        fuser = quickly(tiny, trust_world(10, 1).table)
        home = fuser._home
        assert home is not None
        assert (home / "model").is_dir()
        twin = copy.deepcopy(fuser)
        del fuser
        assert home.is_dir()
        del twin
        assert not home.exists()


class TestRefusals:
    @pytest.mark.parametrize("model", ["nowhere/at-all", "/no/such/folder"])
    def test_no_model(self, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        table = trust_world(4, 1).table
        with pytest.raises(
            InputError, match=f"found no model that it can train at '{model}': .*; give model= the folder"
        ):
            ToplaSummary(model=model).fit(table, everyone(table))

    def test_no_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        table = trust_world(4, 1).table
        with pytest.raises(MissingDependency, match=r"transformers.*pip install 'fusion\[hf\]'"):
            ToplaSummary().fit(table, everyone(table))

    @pytest.mark.parametrize(
        ("dropped", "message"),
        [
            (["labels"], "needs a labelled table"),
            (["questions"], "reads the questions, and the table does not have them; record it anew, or import it"),
            (["texts", "options"], "reads what agents wrote, and the table has neither texts nor options; import one"),
            (["references", "options"], "the table has only their numbers; import one with references or options"),
        ],
    )
    def test_tables_that_lack_something(self, tiny: TinyModels, dropped: list[str], message: str) -> None:
        with pytest.raises(InvalidTable, match=message):
            quickly(tiny, tables.without(trust_world(4, 1).table, *dropped))

    def test_no_right_answer_is_known(self, tiny: TinyModels) -> None:
        table = by_hand([[0, 1]], [-1], options=[("red", "blue")], questions=["ant"])
        with pytest.raises(InvalidTable, match="learns to write right answers, and the table has none"):
            quickly(tiny, table)


class TestLive:
    def test_the_loop_goes_on_while_it_writes(self, learned: ToplaSummary, monkeypatch: pytest.MonkeyPatch) -> None:
        """Agents that echo their word disagree; a heart in the loop beats on while the model writes its answer."""
        names = ("a", "b", "c")
        engines = [Spec("echo", {"replies": [word]}) for word in ("red", "blue", "red")]
        pool = AgentPool(
            tuple(Agent(name=name, engine=engine, mode="generate") for name, engine in zip(names, engines, strict=True))
        )
        ensemble = Ensemble(pool, "all_agents", learned)
        beats: list[int] = []
        at_work: list[tuple[int, int]] = []

        def slowly(*words: Any, **how: Any) -> Any:
            before = len(beats)
            result = write(*words, **how)
            time.sleep(0.05)
            at_work.append((before, len(beats)))
            return result

        async def heart() -> None:
            while True:
                beats.append(len(beats))
                await asyncio.sleep(0.001)

        async def asked() -> list[Answer]:
            beating = asyncio.create_task(heart())
            said = [
                ensemble.aanswer(question) for question in ("ant left bee cat", "right ant bee cat", "ant eel left")
            ]
            answers = await asyncio.gather(*said)
            beating.cancel()
            return answers

        monkeypatch.setattr("fusion.fusers.topla_summary.write", slowly)
        answers = asyncio.run(asked())
        assert [answer.text for answer in answers] == ["red", "blue", "red"]
        assert len(at_work) == 3
        assert all(after - before >= 5 for before, after in at_work)
        assert ensemble.answer("dog right ant ant").text == "blue"
