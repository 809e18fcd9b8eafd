"""What topla_summary reads: layout, cuts, masks, who is not heard; letters are tokens, so that it can be read here."""

from typing import Any

import numpy as np
import pytest
import tables
from tables import by_hand, everyone
from tiny_models import TinyModels
from trust_world import WORDS, trust_world

from fusion.errors import ConfigError
from fusion.fusers._sequence import Cuts, Keep, Reader, delimiters
from fusion.fusers._writer import Collate, example, load_tokenizer
from fusion.fusers.topla_summary import ToplaSummary
from fusion.schema import Selection

pytestmark = pytest.mark.usefixtures("quick")

LETTERS = tuple("pqrstuvwxyz") + tuple("0123456789")


class TestReading:
    @pytest.fixture
    def reader(self, tiny: TinyModels) -> Reader:
        return self.made(tiny)

    def made(self, tiny: TinyModels, *, agents: int = 2, keep: Keep = "both", **how: Any) -> Reader:
        tokenizer = load_tokenizer(str(tiny.led(words=LETTERS)), agents)
        given = {"order": range(agents), "limit": 100, "question_tokens": 50, "candidate_tokens": 50}
        return Reader(tokenizer=tokenizer, keep=keep, **{"answers_follow": False, **given, **how})

    def read(self, reader: Reader, question: str, *said: str) -> tuple[str, int]:
        """What is read, as text, and the number of global tokens."""
        row = reader._row(question, said)
        return " ".join(reader.tokenizer.convert_ids_to_tokens(row.tokens)), row.asked

    def test_layout(self, reader: Reader) -> None:
        """[BOQ] 2 2 [EOQ] [BOC0] 4 [EOC0] [BOC1] x y [EOC1]: the question with its delimiters is 4 tokens."""
        assert self.read(reader, "2 2", "4", "x y") == ("[BOQ] 2 2 [EOQ] [BOC0] 4 [EOC0] [BOC1] x y [EOC1]", 4)
        assert reader.cuts == Cuts(2, 0, 1, 0, 0)

    def test_causal_layout(self, tiny: TinyModels) -> None:
        reader = self.made(tiny, agents=1, answers_follow=True)
        assert self.read(reader, "2", "4")[0] == "[BOQ] 2 [EOQ] [BOC0] 4 [EOC0] [ANS]"
        row = reader._row("2", ["4"])
        assert example(row, [7, 8], causal=True, end=2) == {
            "input_ids": [*row.tokens, 7, 8, 2],
            "labels": [-100] * 7 + [7, 8, 2],
            "asked": [3],
        }

    def test_batch(self, reader: Reader) -> None:
        """The global mask covers the question with its delimiters, and nothing else."""
        rows = [reader._row("2 2", ["4", "x y"]), reader._row("2", ["", ""])]
        examples = [example(rows[0], [7, 8], causal=False, end=2), example(rows[1], [], causal=False, end=2)]
        batch = Collate(0, attends=True)(examples)
        assert batch["input_ids"].tolist() == [rows[0].tokens, rows[1].tokens + [0] * 4]
        assert batch["attention_mask"].tolist() == [[1] * 11, [1] * 7 + [0] * 4]
        assert batch["global_attention_mask"].tolist() == [[1] * 4 + [0] * 7, [1] * 3 + [0] * 8]
        assert batch["labels"].tolist() == [[7, 8, 2], [2, -100, -100]]
        assert "global_attention_mask" not in Collate(0, attends=False)(examples)

    @pytest.mark.parametrize(("keep", "left"), [("start", "p q r"), ("end", "r s t"), ("both", "p q t")])
    def test_long_candidate(self, tiny: TinyModels, keep: Keep, left: str) -> None:
        reader = self.made(tiny, keep=keep, candidate_tokens=3)
        assert self.read(reader, "2", "p q r s t", "x y")[0] == (
            f"[BOQ] 2 [EOQ] [BOC0] {left} [EOC0] [BOC1] x y [EOC1]"
        )
        assert reader.cuts == Cuts(2, 1, 1, 0, 2)

    def test_long_question(self, tiny: TinyModels) -> None:
        reader = self.made(tiny, keep="start", question_tokens=2)
        assert self.read(reader, "1 2 3 4", "x", "") == ("[BOQ] 1 2 [EOQ] [BOC0] x [EOC0] [BOC1] [EOC1]", 4)
        assert reader.cuts == Cuts(1, 0, 1, 1, 2)
        self.read(reader, "1", "x", "y")
        assert str(reader.cuts) == "0 of 3 candidates and 1 of 2 questions were cut (2 tokens left out)"

    def test_candidates_share_what_is_left(self, tiny: TinyModels) -> None:
        """18 tokens, less 7 delimiters (that before an answer is reserved), are 11; the question takes 2 of them.

        Of the 9 left x takes 1, as it wants no more, and the others 4 each.
        """
        reader = self.made(tiny, agents=3, keep="start", limit=20)
        words, _ = self.read(reader, "1 2", "p q r s t u", "x", "p q r s t u")
        assert words == ("[BOQ] 1 2 [EOQ] [BOC0] p q r s [EOC0] [BOC1] x [EOC1] [BOC2] p q r s [EOC2]")
        assert len(words.split()) == 19

    def test_a_long_question_leaves_room_for_candidates(self, tiny: TinyModels) -> None:
        """17 tokens, less 7 delimiters, are 10: half for the question where candidates want as much, else more."""
        reader = self.made(tiny, keep="start", limit=17)
        letters = "p q r s t u v w x y z"
        assert self.read(reader, letters, letters, letters)[0].split("[EOQ]")[0] == "[BOQ] p q r s t "
        assert self.read(reader, letters, "1", "")[0] == f"[BOQ] {letters[:17]} [EOQ] [BOC0] 1 [EOC0] [BOC1] [EOC1]"

    def test_delimiters_alone_are_too_long(self, tiny: TinyModels) -> None:
        with pytest.raises(
            ConfigError, match=r"reads 7 tokens, and the delimiters of 2 candidates alone take 7; prune"
        ):
            self.made(tiny, limit=7)._row("1", ["2", "3"])

    def test_text_that_looks_like_a_delimiter(self, tiny: TinyModels) -> None:
        model = str(tiny.led())
        tokenizer = load_tokenizer(model, 2)
        reader = Reader(
            tokenizer=tokenizer,
            order=(0, 1),
            limit=256,
            question_tokens=99,
            candidate_tokens=99,
            keep="both",
            answers_follow=False,
        )
        marks = set(tokenizer.convert_tokens_to_ids(list(delimiters(2)))) | set(tokenizer.all_special_ids)
        text = "so [EOC0][BOC1] [ANS]</s>"
        ids = reader.tokens(text)
        assert not marks & set(ids)
        assert tokenizer.decode(ids) == text
        row = reader._row("[EOQ]?", [text, text])
        assert [token for token in row.tokens if token in marks] == tokenizer.convert_tokens_to_ids(
            ["[BOQ]", "[EOQ]", "[BOC0]", "[EOC0]", "[BOC1]", "[EOC1]"]
        )

    def test_who_is_not_heard_leaves_a_place_empty(self, tiny: TinyModels) -> None:
        table = by_hand(
            [[0, 1, -1], [0, 1, 0]],
            options=[("p", "q"), ("p", "q")],
            questions=["1", "2"],
            texts=[["x", "y", "silence"], ["x", "y", "z"]],
        )
        mask_NM = np.array([[True, True, True], [False, True, True]])
        reader = self.made(tiny, agents=3, order=(1, 2, 0))
        rows = list(reader.rows(table, Selection(mask_NM)))
        said = [" ".join(reader.tokenizer.convert_ids_to_tokens(row.tokens)) for row in rows]
        assert said == [
            "[BOQ] 1 [EOQ] [BOC0] y [EOC0] [BOC1] [EOC1] [BOC2] x [EOC2]",
            "[BOQ] 2 [EOQ] [BOC0] y [EOC0] [BOC1] z [EOC1] [BOC2] [EOC2]",
        ]
        unwritten = tables.without(table, "texts")
        rows = list(self.made(tiny, agents=3).rows(unwritten, Selection(mask_NM)))
        assert reader.tokenizer.decode(rows[0].tokens) == "[BOQ] 1 [EOQ] [BOC0] p [EOC0] [BOC1] q [EOC1] [BOC2] [EOC2]"

    def test_best_agent_first_whatever_the_pool_order(self, tiny: TinyModels) -> None:
        """b is right on both, c on one, a on none."""
        table = by_hand(
            [[1, 0, 0], [1, 0, 1]],
            [0, 0],
            options=[("red", "blue")] * 2,
            questions=["ant", "bee"],
        )
        first = ToplaSummary(model=str(tiny.led(words=WORDS)), max_tokens=3, epochs=1)
        first.fit(table, everyone(table))
        moved = table.columns(("c", "a", "b"))
        second = ToplaSummary(model=first.model, max_tokens=3, epochs=1).fit(moved, everyone(moved))
        for fuser, seen in ((first, table), (second, moved)):
            writer = fuser._ready()
            (row, *_) = fuser._reader(writer.tokenizer, writer.about).rows(seen, everyone(seen))
            assert writer.tokenizer.decode(row.tokens) == (
                "[BOQ] ant [EOQ] [BOC0] red [EOC0] [BOC1] red [EOC1] [BOC2] blue [EOC2]"
            )

    def test_cuts_are_told(self, tiny: TinyModels) -> None:
        table = trust_world(20, 5).table
        model = str(tiny.led(words=WORDS, context=64))
        fuser = ToplaSummary(model=model, max_tokens=3, epochs=1, question_tokens=3).fit(table, everyone(table))
        assert Cuts(*fuser.cuts_) == Cuts(60, 0, 20, 20, 20)
        fuser.fuse(table.rows(slice(0, 5)), everyone(table.rows(slice(0, 5))))
        *_, fit, now = fuser.notes()
        assert fit == ("topla_summary: in fit, 0 of 60 candidates and 20 of 20 questions were cut (20 tokens left out)")
        assert now == "topla_summary: now, 0 of 15 candidates and 5 of 5 questions were cut (5 tokens left out)"
