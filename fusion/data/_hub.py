"""Rows of public data sets, pinned by commit: from the hub, its cache, or a folder in hub layout."""

import csv
import functools
import re
from collections.abc import Collection, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from fusion.errors import InputError, MissingDependency, UnknownName

Row = dict[str, Any]
"""One row of a data set; which columns are there is checked on reading."""

_SHARD = re.compile(r"-\d{5}-of-(\d{5})")


def read_rows(
    repo: str,
    revision: str,
    pattern: str,
    *,
    columns: Sequence[str],
    root: str | PathLike[str] | None = None,
) -> list[Row]:
    """Read the rows of the files that match `pattern`, in the order of their names.

    Args:
        repo: Data set on the hub, such as "cais/mmlu".
        revision: Full commit SHA.
        pattern: Files inside the data set, such as "all/test-*.parquet"; Parquet or CSV.
        columns: What every file must have.
        root: None for the hub and its cache, which respects HF_HOME and HF_HUB_OFFLINE. Otherwise a folder:
            the data set itself, a folder of data sets (root/cais/mmlu or root/mmlu) or a hub cache.

    Raises:
        InputError: When the files are not there, not reachable or not readable, or lack a column.
        MissingDependency: When the hub is to be asked and huggingface-hub is not installed.
    """
    find = _from_hub if root is None else functools.partial(_from_folder, root=Path(root))
    paths = find(repo, revision, pattern)
    return [row for path in paths for row in _read(path, columns)]


def require_split(split: str, splits: Collection[str]) -> None:
    """Check that a task has `split`.

    Raises:
        UnknownName: When it has not.
    """
    if split not in splits:
        raise UnknownName(kind="split", name=split, known=splits)


def choose_subsets(wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the names in `known` that are wanted, in their order there; all of them when none is named.

    Blanks, dashes and underscores are alike: "computer_science" finds "computer science".

    Raises:
        UnknownName: When a wanted name is not known.
    """
    folded = {_fold(name): name for name in known}
    for name in wanted:
        if _fold(name) not in folded:
            raise UnknownName(kind="subset", name=name, known=known)
    chosen = {folded[_fold(name)] for name in wanted} if wanted else set(known)
    return [name for name in known if name in chosen]


def _fold(name: str) -> str:
    return name.casefold().replace(" ", "_").replace("-", "_")


def _from_folder(repo: str, revision: str, pattern: str, *, root: Path) -> list[Path]:
    cached = f"datasets--{repo.replace('/', '--')}"
    homes = [root, root / repo, root / repo.rpartition("/")[2]]
    homes += [root / hub / cached / "snapshots" / revision for hub in ("", "hub")]
    for home in homes:
        paths = _complete(home, pattern)
        if paths:
            return paths
    others = sorted(path.name for hub in ("", "hub") for path in (root / hub / cached / "snapshots").glob("*"))
    why = f"looked in {', '.join(str(home) for home in homes)}"
    if others:
        why += f"; the cache has {', '.join(others)} instead, to use one of these pass its folder as root"
    raise _absent(repo, revision, pattern, why if root.is_dir() else f"{root} is not a folder")


def _from_hub(repo: str, revision: str, pattern: str) -> list[Path]:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
    except ModuleNotFoundError as error:
        raise MissingDependency("huggingface-hub", purpose=f"reading {repo} from the hub", extra="hub") from error
    transport: tuple[type[BaseException], ...] = (EntryNotFoundError, *HfHubHTTPError.__bases__)
    why = ""
    for local_files_only in (True, False):
        try:
            folder = snapshot_download(
                repo,
                repo_type="dataset",
                revision=revision,
                allow_patterns=[pattern],
                local_files_only=local_files_only,
            )
        except transport as error:
            why = f"it is not in the local cache and the hub did not deliver it ({_first_line(error)})"
            continue
        paths = _complete(Path(folder), pattern)
        if paths:
            return paths
        why = "that revision has no such file"
    raise _absent(repo, revision, pattern, why)


def _complete(folder: Path, pattern: str) -> list[Path]:
    """Return the matching files, sorted, or none of them when a shard is missing."""
    paths = sorted(folder.glob(pattern)) if folder.is_dir() else []
    shard = _SHARD.search(paths[0].name) if paths else None
    return paths if shard is None or len(paths) == int(shard.group(1)) else []


def _absent(repo: str, revision: str, pattern: str, why: str) -> InputError:
    return InputError(
        f"found no complete {pattern} of data set {repo} at revision {revision}: {why}. Either run, where there is a "
        f"network: hf download {repo} --repo-type dataset --revision {revision} --include '{pattern}'; "
        f"or pass root=FOLDER (--root FOLDER), a folder that holds {pattern} itself or {repo}/{pattern}"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _read(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    reader = {".parquet": _read_parquet, ".csv": _read_csv}[path.suffix]
    found, rows = reader(path)
    missing = [name for name in columns if name not in found]
    if missing:
        raise InputError(
            f"{path} must have the columns {', '.join(columns)}; it lacks {', '.join(missing)} and has "
            f"{', '.join(found) or 'none'}. Is it a file of another data set?"
        )
    yield from rows


def _read_parquet(path: Path) -> tuple[Sequence[str], list[Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {_first_line(error)}. Download it again") from error
    return table.column_names, table.to_pylist()


def _read_csv(path: Path) -> tuple[Sequence[str], list[Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows: list[Row] = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {_first_line(error)}. Download it again") from error
    return list(reader.fieldnames or ()), rows
