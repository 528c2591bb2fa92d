"""Your own images, in one of three forms.

    [train|val|test/]{real,fake/<generator>}/…   labelled; fake/ with files right in it is a generator called "fake"
    a .csv or .parquet file                      one row an image: path, and if you like label, subset, split, class
    any other folder                             unlabelled: scores only

What has no split is test data. With one generator the reals belong to its subset; with several they are a subset of
their own, "real", that the evaluation holds against each of them.
"""

import io
import posixpath
from collections.abc import Iterator

import fsspec
import polars as pl

from sare_core.data.listing import Found, Problem, base_folder, is_table, locate, stat, walk
from sare_core.errors import ConfigError

_SPLITS = ("train", "val", "test")
_LABELS = {"0": 0, "0.0": 0, "real": 0, "1": 1, "1.0": 1, "fake": 1, "": None}  # pandas writes 1.0 beside empty cells
_COLUMNS = ("path", "label", "subset", "split", "class")
_UNNAMED = "images"  # the subset of what is told no subset


def find(root: str, problems: list[Problem]) -> Iterator[Found]:
    """Each file of a labelled or unlabelled folder, or each row of a table.

    Raises ConfigError: no such root, a table without a `path` column or with a value that cannot be meant.
    """
    yield from _table(root, problems) if is_table(root) else _folder(root, problems)


def _folder(root: str, problems: list[Problem]) -> Iterator[Found]:
    folders = list(walk(root, problems))
    places = [_place(folder) for folder, _ in folders]
    labelled = any(places)
    generators = {place[1] for place in places if place and place[1]}
    reals = generators.pop() if len(generators) == 1 else "real"
    for (folder, files), place in zip(folders, places, strict=True):
        if labelled and place is None:
            problems.append(Problem(folder, f"{len(files):,} files not read: neither in real/ nor in fake/"))
            continue
        split, generator = place or ("test", _UNNAMED)
        label = None if place is None else int(generator is not None)
        for file in files:
            path = f"{folder}/{file.name}".lstrip("/")
            yield Found(path, file.bytes, file.mtime_ns, generator or reals, split, label, None)


def _place(folder: str) -> tuple[str, str | None] | None:
    """Split, and generator (null for a real), from a folder's path; null if it is neither in real/ nor in fake/."""
    names = folder.split("/")
    split = names.pop(0) if names[0] in _SPLITS else "test"
    if names[:1] == ["real"]:
        return split, None
    if names[:1] == ["fake"]:
        return split, names[1] if len(names) > 1 else "fake"
    return None


def _table(root: str, problems: list[Problem]) -> Iterator[Found]:
    table, base = _read(root), base_folder(root)
    if unused := [name for name in table.columns if name not in _COLUMNS]:
        problems.append(Problem("", f"{root}: columns that the index has no use for: {', '.join(unused)}"))
    # Row 1 is the first below the header.
    for number, row in enumerate(table.iter_rows(named=True), 1):
        given = {name: (row.get(name) or "").strip() for name in _COLUMNS}
        path, label, split = given["path"], given["label"].lower(), given["split"] or "test"
        if not path:
            raise ConfigError(f"{root}, row {number}: no path.")
        if label not in _LABELS:
            raise ConfigError(f"{root}, row {number}: label {label!r}; use 0 or real, 1 or fake, or leave it empty.")
        if split not in _SPLITS:
            raise ConfigError(f"{root}, row {number}: split {split!r}; use train, val or test, or leave it empty.")
        if "://" not in path:
            path = posixpath.normpath(path)
        size, time = stat(locate(base, path))
        yield Found(path, size, time, given["subset"] or _UNNAMED, split, _LABELS[label], given["class"] or None)


def _read(root: str) -> pl.DataFrame:
    try:
        with fsspec.open(root, "rb") as file:
            data = io.BytesIO(file.read())
    except OSError as error:
        raise ConfigError(f"{root}: cannot be read ({error.strerror or error}).") from error
    try:
        if root.lower().endswith(".csv"):
            table = pl.read_csv(data, infer_schema=False)
        else:
            table = pl.read_parquet(data)
            table = table.with_columns(pl.col(name).cast(pl.String) for name in _COLUMNS if name in table.columns)
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"{root}: not readable as a table: {error}") from error
    if "path" not in table.columns:
        raise ConfigError(f"{root}: no column `path`. It holds: {', '.join(table.columns)}.")
    return table
