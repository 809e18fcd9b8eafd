"""Tables as Parquet: what is written is read, and damage never goes unseen. A million questions fit in memory."""

import dataclasses
import hashlib
import json
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.data import PredictionTable, read_table, write_table
from fusion.data._io import is_table, read_parquet
from fusion.errors import FusionError, InvalidTable, UnreadableTable

STEADY = settings(deadline=None, derandomize=True, max_examples=60)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.lists(TEXTS.filter(bool) | st.sampled_from(["a/b", "answers/a", "a b", "\u00e9"]), min_size=1, unique=True)


def made(num_questions: int, agents: list[str], seed: int, keep: set[str]) -> PredictionTable:
    """Return a table with the optional fields in `keep`, filled at random."""
    rng = np.random.default_rng(seed)
    shape, most = (num_questions, len(agents)), int(rng.integers(1, 5)) if seed % 3 else 200
    counts = rng.integers(1, most + 1, num_questions)
    probs = rng.random((*shape, most)) * (np.arange(most) < counts[:, None])[:, None, :]
    probs /= np.maximum(probs.sum(axis=2, keepdims=True), 1e-9)
    probs[rng.random(shape) < 0.2] = 0
    words = np.array(["", "yes", "a\nb", "\u00e9\U0001f600", '"', "\0"], dtype=object)
    fields = {
        "asked": np.ones(shape, dtype=bool),
        "labels": rng.integers(-1, counts),
        "options": [[f"{k}\u00e9" for k in range(count)] for count in counts],
        "probs": probs,
        "sample_answers": rng.integers(-1, np.broadcast_to(counts[:, None, None], (*shape, 3))),
        "categories": rng.choice(words, num_questions),
        "references": rng.choice(words, num_questions),
        "questions": rng.choice(words, num_questions),
        "texts": rng.choice(words, shape),
        "scores": rng.random(shape),
        "tokens_in": rng.integers(0, 1000, shape),
        "tokens_out": rng.integers(0, 1000, shape),
        "seconds": rng.random(shape),
    }
    assert {"question_ids", "agents", "answers", "num_options", "provenance", *fields} == {
        field.name for field in dataclasses.fields(PredictionTable)
    }
    return PredictionTable(
        question_ids=[f"q\u00e9/{n}" for n in range(num_questions)],
        agents=agents,
        answers=rng.integers(-1, np.broadcast_to(counts[:, None], shape)),
        num_options=counts,
        provenance={"seed": seed, "nested": [1, None, {"a": "\u00e9"}]},
        **{name: value for name, value in fields.items() if name in keep},  # type: ignore[arg-type]
    )


OPTIONAL = {
    "labels",
    "options",
    "probs",
    "sample_answers",
    "categories",
    "references",
    "questions",
    "texts",
    "scores",
} | {
    "tokens_in",
    "tokens_out",
    "seconds",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.parquet"


def equal(one: PredictionTable, other: PredictionTable) -> bool:
    for field in dataclasses.fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            if right is None or left.dtype != right.dtype or not np.array_equal(left, right):
                return False
        elif left != right:
            return False
    return True


class TestRoundTrip:
    @STEADY
    @given(st.integers(0, 5), NAMES, st.integers(0, 1000), st.sets(st.sampled_from(sorted(OPTIONAL))))
    def test_every_field(
        self, tmp_path_factory: Any, num_questions: int, agents: list[str], seed: int, keep: set[str]
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "round.parquet"
        one = made(num_questions, agents, seed, keep)
        write_table(one, path)
        other = read_table(path)
        assert equal(one, other)
        assert one.fingerprint == other.fingerprint

    def test_it_overwrites(self, path: Path) -> None:
        for seed in (1, 2):
            write_table(made(3, ["a"], seed, OPTIONAL), path)
        assert read_table(path).provenance["seed"] == 2

    def test_any_parquet_reader_can_use_the_columns(self, path: Path) -> None:
        write_table(made(3, ["a", "b/c"], 1, {"labels", "categories"}), path)
        names = ["question_id", "category", "label", "num_options", "answers/a", "answers/b/c"]
        assert pq.read_table(path).column_names == names

    def test_folders_named_like_columns_add_none(self, tmp_path: Path) -> None:
        path = tmp_path / "label=1" / "seed=3" / "table.parquet"
        one = made(3, ["a"], 1, set())
        write_table(one, path)
        assert equal(read_table(path), one)

    def test_the_name_of_the_file_does_not_matter(self, tmp_path: Path) -> None:
        one = made(3, ["a"], 1, OPTIONAL)
        for name in ("_hidden", ".x", "table.csv", "table.tsv", "t\u00e9 b"):
            write_table(one, tmp_path / name)
            assert equal(read_table(tmp_path / name), one)

    def test_provenance_that_is_not_json(self, path: Path) -> None:
        for value in ({1, 2}, object(), np.int64(3)):
            one = PredictionTable(question_ids=["q"], agents=["a"], answers=[[0]], provenance={"x": value})  # type: ignore[dict-item]
            with pytest.raises(InvalidTable, match="the table's provenance must be JSON"):
                write_table(one, path)
        assert not path.exists()


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a table's notes, with the right checksum, as some other program may."""
    content = pq.read_table(path)
    notes = json.loads(content.schema.metadata[b"fusion.table"])
    notes = change(notes) or notes
    rewritten(path, content, json.dumps(notes).encode())


def rewritten(path: Path, content: pa.Table, notes: bytes) -> None:
    checksum = hashlib.sha256(notes).hexdigest().encode()
    pq.write_table(content.replace_schema_metadata({b"fusion.table": notes, b"fusion.table.sha256": checksum}), path)


class TestDamage:
    def refuses(self, path: Path, message: str) -> None:
        for read in (read_table, read_parquet):
            with pytest.raises(UnreadableTable, match=message) as caught:
                read(path)
            assert str(path) in str(caught.value)

    @pytest.mark.parametrize(
        ("notes", "message"),
        [
            (b"{", "notes that cannot be read"),
            (b"\xff", "notes that cannot be read"),
            (b"[]", "notes that cannot be read"),
            (b"null", "notes that cannot be read"),
            (b"[" * 100_000, "notes that cannot be read"),
            (b"{}", "notes that cannot be read: 'format'"),
            (b'{"format": 1}', "notes that cannot be read: 'agents'"),
            (b'{"format": 1, "agents": 5, "provenance": {}, "fingerprint": ""}', "notes that cannot be read"),
            (b'{"format": 1, "agents": [], "provenance": 5, "fingerprint": ""}', "notes that cannot be read"),
            (b'{"format": 2}', "has table format 2, this version of fusion reads format 1; upgrade fusion"),
            (b'{"format": null}', "has table format None"),
        ],
    )
    def test_notes(self, path: Path, notes: bytes, message: str) -> None:
        write_table(made(3, ["a"], 1, OPTIONAL), path)
        rewritten(path, pq.read_table(path), notes)
        self.refuses(path, message)

    def test_notes_that_somebody_edited(self, path: Path) -> None:
        write_table(made(3, ["a"], 1, OPTIONAL), path)
        content = pq.read_table(path)
        metadata = dict(content.schema.metadata)
        metadata[b"fusion.table"] = metadata[b"fusion.table"].replace(b'"seed": 1', b'"seed": 7')
        pq.write_table(content.replace_schema_metadata(metadata), path)
        self.refuses(path, "its notes are not what was written")

    @pytest.mark.parametrize("column", ["question_id", "label", "category", "answers/a", "texts/b"])
    def test_column_that_is_gone(self, path: Path, column: str) -> None:
        write_table(made(3, ["a", "b"], 1, OPTIONAL), path)
        content = pq.read_table(path)
        pq.write_table(content.drop_columns([column]), path)
        self.refuses(path, "not a complete table|does not hold what was written")

    @pytest.mark.parametrize("column", ["question_id", "num_options", "label", "answers/a", "texts/b", "probs/a"])
    @pytest.mark.parametrize(
        "values",
        [["x", "y", "z"], [1.5, 2.5, 3.5], [None, None, None], [[1], [2, 3], []], [True, False, True]],
        ids=str,
    )
    def test_column_of_another_type(self, path: Path, column: str, values: list[Any]) -> None:
        write_table(made(3, ["a", "b"], 1, OPTIONAL), path)
        content = pq.read_table(path)
        k = content.column_names.index(column)
        pq.write_table(content.set_column(k, column, pa.array(values)), path)
        with pytest.raises((UnreadableTable, InvalidTable), match=r"table\.parquet"):
            read_table(path)

    def test_column_that_occurs_twice(self, path: Path) -> None:
        write_table(made(3, ["a", "b"], 1, OPTIONAL), path)
        content = pq.read_table(path)
        pq.write_table(content.append_column("answers/a", content.column("answers/b")), path)
        self.refuses(path, "not a complete table")

    def test_values_that_somebody_changed(self, path: Path) -> None:
        write_table(made(3, ["a", "b"], 1, OPTIONAL), path)
        content = pq.read_table(path)
        k = content.column_names.index("answers/a")
        pq.write_table(content.set_column(k, "answers/a", pa.array([0, 0, -1], pa.int8())), path)
        self.refuses(path, r"does not hold what was written to it \(fingerprint .* instead of .*\): it is damaged, or")

    def test_rows_that_somebody_dropped(self, path: Path) -> None:
        write_table(made(3, ["a", "b"], 1, OPTIONAL), path)
        pq.write_table(pq.read_table(path).slice(0, 2), path)
        self.refuses(path, "does not hold what was written")

    def test_agents_that_somebody_renamed(self, path: Path) -> None:
        write_table(made(3, ["a", "b"], 1, OPTIONAL), path)
        changed(path, lambda notes: notes.update(agents=["a", "c"]))
        self.refuses(path, "not a complete table")
        write_table(made(3, ["a", "b"], 1, OPTIONAL), path)
        changed(path, lambda notes: notes.update(agents=["b", "a"]))
        self.refuses(path, "does not hold what was written")

    def test_metadata_that_another_program_dropped(self, path: Path) -> None:
        """It must not be taken for a wide table whose agents are called label and num_options."""
        write_table(made(3, ["a", "b"], 1, {"labels"}), path)
        pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
        assert is_table(path)
        self.refuses(path, "a Parquet file but not a table of fusion; .* fusion import wide FILE --out TABLE")

    def test_invariants_hold_for_files_too(self, path: Path) -> None:
        write_table(made(3, ["a", "b"], 1, set()), path)
        content = pq.read_table(path)
        pq.write_table(content.set_column(0, "question_id", pa.array(["x", "x", "y"])), path)
        with pytest.raises(InvalidTable, match=r"table\.parquet: every question id must occur once, but 'x'"):
            read_table(path)

    def test_every_kind_of_damage_to_the_bytes(self, path: Path) -> None:
        """Flipped, overwritten, cut off or lost bytes anywhere: an error that names the file, or the same content."""
        one = made(20, ["a", "b/c"], 1, OPTIONAL)
        write_table(one, path)
        data = path.read_bytes()
        source = random.Random(0)
        refused = 0
        for _ in range(1500):
            place = source.randrange(len(data))
            damaged = bytearray(data)
            kind = source.randrange(4)
            if kind == 0:
                damaged[place] ^= 1 << source.randrange(8)
            elif kind == 1:
                damaged[place] = source.randrange(256)
            elif kind == 2:
                del damaged[place:]
            else:
                del damaged[place : place + source.randrange(1, 30)]
            path.write_bytes(damaged)
            try:
                other = read_table(path)
            except FusionError as error:
                refused += 1
                told = str(error)
            else:
                assert equal(one, other), (place, kind)
                continue
            assert str(path) in told
        assert refused > 1000


class TestNotATable:
    @pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + b"\0" * 100, b"PAR1" * 3, b"PAR1\xff\xff\xff\xffPAR1"])
    def test_parquet_in_name_only(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        for read in (read_table, read_parquet):
            with pytest.raises(
                UnreadableTable, match=r"table\.parquet cannot be read as Parquet: .*; import or copy it"
            ):
                read(path)

    def test_read_parquet_wants_parquet(self, path: Path) -> None:
        path.write_text("question_id,answer,a\nq,A,A\n")
        with pytest.raises(UnreadableTable, match="cannot be read as Parquet"):
            read_parquet(path)

    def test_other_parquet(self, path: Path) -> None:
        pq.write_table(pa.table({"x": [1, 2]}), path)
        assert not is_table(path)
        with pytest.raises(UnreadableTable, match="not a table of fusion"):
            read_parquet(path)
        with pytest.raises(FusionError, match="question_id"):
            read_table(path)

    @pytest.mark.parametrize("read", [read_table, read_parquet])
    def test_no_file(self, read: Callable[[Path], object], tmp_path: Path) -> None:
        for path, message in (
            (tmp_path / "none.parquet", "no file .*none.parquet; give the path of a table"),
            (tmp_path, "is a folder; give the path of a table file in it"),
            (Path("/dev/null"), "is a device or a pipe, .* save it as a file first"),
            (Path("/proc/self/mem"), "cannot be opened: Input/output error"),
        ):
            with pytest.raises(UnreadableTable, match=message):
                read(path)

    def test_empty_file(self, path: Path) -> None:
        path.touch()
        with pytest.raises(UnreadableTable, match=r"table.parquet is empty; expected a header question_id,category,"):
            read_table(path)

    def test_process_substitution_is_not_read_by_halves(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("question_id,answer,a\nq,A,A\n")
        code = "import sys; from fusion import read_table; read_table(sys.argv[1])"
        command = f'{sys.executable} -c "{code}" <(cat {tmp_path / "t.csv"})'
        told = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
        assert "is a device or a pipe" in told.stderr


LIMIT = 3 * 2**29
"""Bytes: 1.5 GiB."""
NUM_QUESTIONS, NUM_AGENTS = 1_000_000, 24


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A million questions x 24 agents, votes alone, as a table and as a wide CSV."""
    folder = tmp_path_factory.mktemp("million")
    files = {"parquet": folder / "t.parquet", "csv": folder / "t.csv"}
    rng = np.random.default_rng(0)
    answers = rng.integers(-1, 4, (NUM_QUESTIONS, NUM_AGENTS), dtype=np.int8)
    labels = rng.integers(0, 4, NUM_QUESTIONS)
    one = PredictionTable(
        question_ids=[f"question-{n:07d}" for n in range(NUM_QUESTIONS)],
        agents=[f"model-{m}" for m in range(NUM_AGENTS)],
        answers=answers,
        labels=labels,
        num_options=np.full(NUM_QUESTIONS, 4),
        categories=[f"category-{n % 14}" for n in range(NUM_QUESTIONS)],
    )
    write_table(one, files["parquet"])
    # Cells of two bytes, a letter or nothing and what ends it, as the rows of one array.
    ends = np.array([b","] * (NUM_AGENTS - 1) + [b"\n"])
    cells = np.array([b"A", b"B", b"C", b"D", b""])[answers]
    rows = np.char.add(cells, ends)
    with files["csv"].open("wb") as handle:
        handle.write(b"question_id,category,answer," + ",".join(one.agents).encode() + b"\n")
        for n, (label, row) in enumerate(zip(labels.tolist(), rows, strict=True)):
            handle.write(b"question-%07d,category-%d,%c," % (n, n % 14, 65 + label) + b"".join(row.tolist()))
    return files


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_million_questions_load_and_vote_within_the_limit(million: Mapping[str, Path], kind: str) -> None:
    code = """
        import json, re, sys
        from pathlib import Path
        from fusion import Ensemble, read_table
        table = read_table(sys.argv[1])
        decision = Ensemble(list(table.agents), "all_agents", "vote").replay(table).decision
        # Not ru_maxrss, in which what the process that started this one once held counts.
        peak = int(re.search("VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1]) * 1024
        print(json.dumps([repr(table), table.fingerprint, decision.answers[:5].tolist(), peak]))
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(million[kind])], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    shown, fingerprint, answers, peak = json.loads(told.stdout)
    assert shown == "PredictionTable(1000000 questions x 24 agents, votes, labelled)"
    assert fingerprint == json.loads(pq.read_schema(million["parquet"]).metadata[b"fusion.table"])["fingerprint"]
    assert all(0 <= answer < 4 for answer in answers)
    assert peak < LIMIT, f"{peak / 2**20:.0f} MiB"
