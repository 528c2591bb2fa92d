"""A table of your own images: .csv (or separated by ; or tabs), .tsv, .jsonl or .parquet, one row an image.

Columns: the path, and if you like label, subset, split and class; other usual names for them are taken too. Paths are
relative to the table's folder, or absolute, or URLs.
"""

import io
import posixpath
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool

import fsspec
import polars as pl

from sare_core.errors import ConfigError
from sare_core.images.sources import locate
from sare_core.index.listing import Found, Problem, base_folder, stat
from sare_core.index.words import LABELS, SPLITS, plain

# Our name first; where a table has it, other names of the same are columns without a meaning.
_NAMES = {
    "path": ("path", "filename", "file", "filepath", "image", "imagepath", "img", "imgpath", "url", "imageurl"),
    "label": ("label", "labels", "isfake", "isai", "isgenerated"),
    "subset": ("subset", "generator"),
    "split": ("split",),
    "class": ("class",),
}
_UNCLEAR = {"isreal", "real", "fake", "ai", "target", "targets", "y", "gt", "groundtruth", "annotation"}  # as labels
_NUMBERS = {"0": 0, "0.0": 0, "1": 1, "1.0": 1, "": None}  # pandas writes 1.0 beside empty cells
_TRUTH = {"true": 1, "false": 0}  # in a column is_fake
_SEPARATORS = (",", ";", "\t")
_AT_ONCE = 16  # files looked up at a time: a network answers late
_SLICE = 1000

_Row = tuple[str, str, str, int | None, str | None]


def find_rows(root: str, problems: list[Problem], unnamed: str) -> Iterator[Found]:
    """Each row of a table. unnamed: the subset of a row that has none.

    Raises ConfigError: no such file, no column of paths or two, a value that makes no sense.
    """
    table, base = _read(root), base_folder(root)
    columns = _columns(root, table.columns)
    if unused := [name for name in table.columns if name not in columns.values()]:
        problems.append(Problem("", f"{root}: columns that the index has no use for: {', '.join(unused)}"))
    _require_meaning(root, table, columns)
    table = table.select(pl.col(columns[name]).cast(pl.String).alias(name) for name in columns)
    table = table.with_columns(pl.all().str.strip_chars().fill_null(""))
    numbers = _NUMBERS | (_TRUTH if plain(columns.get("label", "")).startswith("is") else {})
    number = 0
    with ThreadPool(_AT_ONCE) as threads:  # daemons: a stopped run does not wait for their answers
        for part in table.iter_slices(_SLICE):
            rows, before = [], number
            for row in part.iter_rows(named=True):
                number += 1  # row 1 is the first below the header
                rows.append(_row(f"{root}, row {number}", row, numbers))
            places = [(f"{root}, row {at}", locate(base, row[0])) for at, row in enumerate(rows, before + 1)]
            sizes = threads.imap(_size_and_time, places)
            for (path, subset, split, label, kind), (size, time) in zip(rows, sizes, strict=True):
                yield Found(path, size, time, subset or unnamed, split, label, kind)


def find_paths(root: str) -> Iterator[str]:
    """The paths or URLs of a table's rows, as they can be opened; "" where a row has none. Other columns play no part.

    Raises ConfigError: no such file, no column of paths or two.
    """
    table = _read(root)
    if (name := _column(root, table.columns, "path")) is None:
        raise _no_paths(root, table.columns)
    for path in table[name].cast(pl.String).str.strip_chars().fill_null(""):
        yield locate(base_folder(root), path) if path else ""


def _size_and_time(row: tuple[str, str]) -> tuple[int | None, int | None]:
    where, place = row
    try:
        return stat(place)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error} Correct the path, or drop the row.") from error


def _row(where: str, row: dict[str, str], numbers: dict[str, int | None]) -> _Row:
    """Path, subset, split, label and class. Raises ConfigError: no path, no such label or split."""
    path, label, split = row["path"], row.get("label", ""), row.get("split", "")
    known = numbers if label.lower() in numbers else {label.lower(): LABELS.get(plain(label))}
    if not path:
        raise ConfigError(f"{where}: no path.")
    if "\0" in path:
        raise ConfigError(f"{where}: the path {path!r} contains a null character. Correct the path, or drop the row.")
    if label and known[label.lower()] is None:
        raise ConfigError(f"{where}: label {label!r}; use 0 or real, 1 or fake, or leave it empty.")
    if split and plain(split) not in SPLITS:
        raise ConfigError(f"{where}: split {split!r}; use train, val or test, or leave it empty.")
    if "://" not in path:
        path = posixpath.normpath(path)
    return path, row.get("subset", ""), SPLITS.get(plain(split), "test"), known[label.lower()], row.get("class") or None


def _columns(root: str, names: list[str]) -> dict[str, str]:
    """The table's own name of each of our columns that it has."""
    columns: dict[str, str] = {}
    for ours in _NAMES:
        if found := _column(root, names, ours):
            columns[ours] = found
    if "path" not in columns:
        raise _no_paths(root, names)
    if "label" not in columns and (like := [name for name in names if plain(name) in _UNCLEAR]):
        raise ConfigError(
            f"{root}: no column `label`, but {like[0]!r}, whose values may mean either. Call it label, "
            "with 0 for real and 1 for fake, or drop it."
        )
    return columns


def _column(root: str, names: list[str], ours: str) -> str | None:
    """The table's own name of one of our columns. Raises ConfigError: it may be either of two."""
    found = [name for name in names if plain(name) in _NAMES[ours]]
    if len(exact := [name for name in found if plain(name) == ours]) == 1:
        found = exact
    if len(found) > 1:
        raise ConfigError(f"{root}: columns {', '.join(found)}: each may be the {ours}. Call the right one {ours!r}.")
    return found[0] if found else None


def _no_paths(root: str, names: list[str]) -> ConfigError:
    return ConfigError(f"{root}: no column `path`. It holds: {', '.join(names)}.")


def _require_meaning(root: str, table: pl.DataFrame, columns: dict[str, str]) -> None:
    """Raises ConfigError: labels or splits in a column that is not read as such, for they would be lost."""
    for meant, words in (("label", LABELS), ("split", SPLITS)):
        if meant in columns:
            continue
        for name in table.columns:
            if name == columns["path"] or table[name].dtype.is_nested():
                continue
            values = {plain(value) for value in table[name].cast(pl.String).drop_nulls().unique().to_list()} - {""}
            known = values & words.keys()
            digits = meant == "label" and values == {"0", "1"} and name in (columns.get("class"), columns.get("subset"))
            # One that is none of ours beside them (unknown, sdxl) does not make the others something else.
            if digits or (known and len(known) >= len(values) / 2 and (len(known) > 1 or meant == "split")):
                raise ConfigError(f"{root}: column {name!r} holds {meant}s. Call it {meant!r}, or drop it.")


def _read(root: str) -> pl.DataFrame:
    try:
        with fsspec.open(root, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError(f"{root}: cannot be read ({error.strerror or error}).") from error
    kind = root.lower().rpartition(".")[2]
    try:
        if kind == "parquet":
            return pl.read_parquet(io.BytesIO(data))
        if kind == "jsonl":
            return pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)
        return pl.read_csv(data, separator=_separator(data), infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"{root}: not readable as a table: {error}") from error


def _separator(data: bytes) -> str:
    """The one that gives the header a column of paths."""
    header = data.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].decode("utf-8", errors="replace")
    for separator in _SEPARATORS:
        if any(plain(name) in _NAMES["path"] for name in header.split(separator)):
            return separator
    return ","
