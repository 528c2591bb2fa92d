"""`sare index`: from the files of a dataset to its index. Which rows there are, in which split, in which shard.

The same files give the same index, byte for byte, however many processes read them and however often they were
stopped. A second index of a changed dataset leaves the shards of the first as they are, but for images that are gone.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import polars as pl
from rich.console import Console

from sare_core.engine.manifest import (
    INDEX_SCHEMA,
    Index,
    by_shard,
    check_name,
    has_index,
    read_index,
    require_whole,
    write_parts,
)
from sare_core.engine.progress import spinner
from sare_core.engine.signals import stop_at_once
from sare_core.errors import ConfigError
from sare_core.index.adapters import find
from sare_core.index.expected import compare
from sare_core.index.listing import Found, Problem, base_folder, normalised
from sare_core.index.rows import CONFLICT, SPLITS, find_copies, hold_out, number_shards, refuse_conflicts
from sare_core.index.scan import FILE, HELD_SCHEMA, SCAN_SCHEMA, Journal, scan
from sare_core.store.storage import Store

_FOUND_SCHEMA = pl.Schema({name: HELD_SCHEMA[name] for name in (f.removesuffix("_name") for f in Found._fields)})
_IMAGE = pl.col("error").is_null() & pl.col("copy_of").is_null()


@dataclass(frozen=True)
class IndexReport:
    """What `build_index` committed, and what its user should know.

    `table` has a row for each subset and split: real, fake and unlabelled images; then the files that are none:
    errors, conflicts (the same pixels labelled real and fake), duplicates (of an image of the subset), and those of
    them that are leaks (of a test image, found in train or val). `deviations` are from the known counts. `problems`
    has the columns path and problem.
    """

    index: Index
    table: pl.DataFrame
    deviations: list[str]
    problems: pl.DataFrame
    read: int  # files read by this run; of the others nothing had changed
    files: int


@stop_at_once()  # but for the scan, which has something to save, nothing here is lost or left half done
def build_index(
    dataset: str,
    layout: str,
    root: str,
    manifests: str,
    shard_size: int = 1000,
    holdout: float = 0.1,
    workers: int | None = None,
    console: Console | None = None,
) -> IndexReport:
    """Index a folder, URL or table of paths under the name `dataset`; again, if it is indexed already.

    `holdout` is the share of train that becomes val, chosen by image_id; `workers` the number of processes that read
    images, by default one a core.

    Raises ConfigError: no such layout or root, no file there that can be used, or settings or data other than those of
    an earlier index of this name. Stopped (by a signal) and StageError (a process that read images died):
    the same command goes on from there.
    """
    check_name(dataset)
    console = console or Console(quiet=True)
    if dataset == "expected":
        raise ConfigError("dataset name 'expected': taken by the known counts. Use another --name.")
    store = Store(manifests).at(dataset)
    settings = {"layout": layout, "shard_size": shard_size, "holdout": holdout}
    before = read_index(manifests, dataset) if has_index(manifests, dataset) else None
    if before:
        _check_settings(settings, before)
        require_whole(before)  # what it says of files that did not change is kept
    old = (before.frame() if before else INDEX_SCHEMA.to_frame()).cast(HELD_SCHEMA)

    problems: list[Problem] = []
    with spinner(console, f"listing {root}"):
        rows = _frame(find(layout, root, problems))
    files = rows.select(FILE).filter(pl.col("path").is_first_distinct())
    if before:
        _require_same_data(before, old, root, files)
    journal = Journal(store.at("scan"))
    known = pl.concat([old.select(SCAN_SCHEMA.names()), journal.read()])
    scanned, read = scan(files, base_folder(root), known, journal, workers or os.cpu_count() or 1, console)
    count = len(files)
    del files

    # What is decided by. The other facts of a file wait, so that the steps to the index hold little.
    known = scanned.select("path", "image_id", "error")
    rows = rows.drop("bytes", "mtime_ns").join(known, on="path", how="left", maintain_order="left")
    deviations = compare(layout, rows)
    rows = hold_out(rows, holdout)
    again = pl.col("image_id").is_duplicated()  # few: only these can be in conflict, or copies
    rows = pl.concat([rows.filter(~again), find_copies(refuse_conflicts(rows.filter(again)))], how="diagonal")
    rows = rows.with_columns(pl.col("duplicates").fill_null([]))
    if not len(rows.filter(_IMAGE)):
        first = f" The first of them, {rows['path'][0]}: {rows['error'][0]}" if len(rows) else ""
        raise ConfigError(f"{root}: no image that can be used, among {len(rows):,} files.{first}")
    problems += [Problem("", line) for line in deviations] + _trouble(rows)
    table = _table(rows)
    first_new = before.about["next_shard"] if before else 0
    errors = rows.filter(pl.col("error").is_not_null()).with_columns(image_id=pl.lit(None, pl.String))
    rows = rows.filter(_IMAGE).drop("error", "copy_of", "copy_of_split")
    rows = number_shards(rows, old, shard_size, first_new)
    last = rows.select(pl.col("shard").max()).item()
    about = {"dataset": dataset, "root": base_folder(root), "source": normalised(root)} | settings
    about |= {"next_shard": max(first_new, last + 1), "images": len(rows), "errors": len(errors)}
    # Copies have no row in the index: if they were not in the journal, they would be read again by each run.
    copies = scanned.filter(pl.col("error").is_null()).join(rows, on="path", how="anti")
    rows = pl.concat([rows.sort("shard", "image_id"), errors.sort("path", "subset")], how="diagonal_relaxed")
    rows = rows.with_columns(dataset=pl.lit(dataset, HELD_SCHEMA["dataset"]))
    facts = scanned.drop("image_id", "error")
    parts = by_shard(rows.join(facts, on="path", how="left", maintain_order="left"))
    del rows, errors, old, known, scanned, facts  # while they are written, the parts are all that is held
    index = write_parts(manifests, dataset, parts, about)
    journal.replace(copies)
    listed = pl.DataFrame(problems, {"path": pl.String, "problem": pl.String}, orient="row")
    store.write("problems.csv", listed.write_csv().encode())
    return IndexReport(index, table, deviations, listed, read, count)


def _check_settings(settings: dict[str, object], before: Index) -> None:
    for name, value in settings.items():
        if before.about[name] != value:
            raise ConfigError(
                f"{before.store.url}: indexed with {name} {before.about[name]}, now {value}: its shards would not "
                f"hold. Say --{name.replace('_', '-')} {before.about[name]}, use another --name, or delete the folder."
            )


def _require_same_data(before: Index, old: pl.DataFrame, root: str, files: pl.DataFrame) -> None:
    """Data may move, and then most of its files are under the new root. Raises ConfigError: those of other data are."""
    source = before.about.get("source", before.about["root"])
    images = old.filter(pl.col("error").is_null()).unique("path")
    kept = len(images.join(files, on=["path", "bytes"], how="semi"))
    if source != normalised(root) and 2 * kept < len(images):
        raise ConfigError(
            f"{before.store.url}: indexed from {source}, of whose {len(images):,} images {root} holds {kept:,}: other "
            "data, which would replace them. Use another --name; or, if they are to be replaced, delete the folder."
        )


def _frame(found: Iterator[Found]) -> pl.DataFrame:
    """In pieces, since a data set of millions would take gigabytes as Python objects."""
    frames = [_FOUND_SCHEMA.to_frame()]
    while piece := list(islice(found, 1000)):
        frames.append(pl.DataFrame(piece, _FOUND_SCHEMA, orient="row"))
    return pl.concat(frames)


def _table(rows: pl.DataFrame) -> pl.DataFrame:
    label, conflict = pl.col("label"), pl.col("error").str.starts_with(CONFLICT).fill_null(False)
    table = rows.group_by("subset", "split").agg(
        real=(_IMAGE & (label == 0)).sum(),
        fake=(_IMAGE & (label == 1)).sum(),
        unlabelled=(_IMAGE & label.is_null()).sum(),
        errors=(pl.col("error").is_not_null() & ~conflict).sum(),
        conflicts=conflict.sum(),
        duplicates=pl.col("copy_of").is_not_null().sum(),
        leaks=_leak().sum(),
    )
    return table.sort("subset", pl.col("split").replace_strict({split: i for i, split in enumerate(SPLITS)}))


def _leak() -> pl.Expr:
    return (pl.col("copy_of_split") == "test") & (pl.col("split") != "test")


def _trouble(rows: pl.DataFrame) -> list[Problem]:
    """Files that cannot be used; images of which the splits or subsets contradict each other."""
    unusable = rows.filter(pl.col("error").is_not_null()).sort("path", "subset").select("path", "error")
    problems = [Problem(path, error) for path, error in unusable.rows()]
    for path, kept in rows.filter(_leak()).sort("path").select("path", "copy_of").rows():
        problems.append(Problem(path, f"left out of training: same pixels as the test image {kept}"))
    images = rows.filter(_IMAGE, pl.col("image_id").is_duplicated())
    contradicted = images.filter(pl.col("label").n_unique().over("image_id") > 1, pl.col("label").is_not_null())
    both = contradicted.filter(pl.col("label") == 1).join(contradicted.filter(pl.col("label") == 0), on="image_id")
    for path, real in both.sort("path", "path_right").select("path", "path_right").rows():
        problems.append(Problem(path, f"labelled fake here, real in another subset as {real}: both are kept"))
    trained = images.filter(pl.col("split") != "test").select("image_id").unique()
    shared = images.filter(pl.col("split") == "test").join(trained, on="image_id", how="semi").sort("path")
    if len(shared):
        text = f"{len(shared):,} test images are training images of another subset; the first is {shared['path'][0]}"
        problems.append(Problem("", text))
    return problems
