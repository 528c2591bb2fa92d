"""What the predictions of a test split say: metrics of the detector and of the trivial one, as tables.

Paper 4.1: ACC at 0.5 and AUC per subset, real and fake together, and their plain mean.
"""

from typing import NamedTuple

import polars as pl

from sare_core.config import Settings
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.terminal import console
from sare_core.errors import SareError
from sare_core.evaluation.metrics import subset_metrics
from sare_core.evaluation.tables import TRIVIAL, Runs, result_tables, to_csv, to_markdown, to_terminal
from sare_core.evaluation.trivial import Trivial, trivial_predictions, trivial_warnings
from sare_core.index.expected import is_release


class Results(NamedTuple):
    """What `evaluate` found: every prediction, the metrics of each detector, and the notes to stand under tables.

    name: of this run's detector among the `runs`. paper: the layout whose tables of the paper may stand beside them;
    None where the test images are another set than the paper's, or a small part of it.
    """

    predictions: pl.DataFrame
    name: str
    paper: str | None
    runs: Runs
    notes: list[str]


def read_outputs(folder: Folder, shards: list[int]) -> pl.DataFrame:
    """All rows of the parquets of a folder's shards."""
    records = folder.records(shards).values()
    return pl.concat([pl.read_parquet(folder.output(record), glob=False) for record in records])


def read_results(
    settings: Settings, index: Index, trained_on: Index | None, folder: Folder, shards: list[int], run_name: str
) -> Results:
    """Join all predictions, check them against the index, and measure them and the trivial detector."""
    predictions = read_outputs(folder, shards)
    rows = index.frame()
    expected = rows.filter(pl.col("shard").is_in(shards))
    missing = expected.join(predictions, on=["image_id", "subset"], how="anti")
    if len(expected.join(predictions, on=["image_id", "subset"])) != len(predictions):
        raise SareError(f"{folder.store.url}: holds predictions that the index does not know; run sare verify.")
    unreadable = rows.filter(pl.col("error").is_not_null(), pl.col("split") == "test")

    notes = []
    for what, frame in (("failed in a stage (sare status shows why)", missing), ("could not be indexed", unreadable)):
        counts = frame.group_by("subset").len().sort("subset")
        if len(frame):
            per_subset = ", ".join(f"{count} of {subset}" for subset, count in counts.iter_rows())
            notes.append(f"{len(frame)} test images have no prediction because they {what}: {per_subset}.")
    if settings.view != "raw":
        notes.append(f"Images were looked at through {settings.view}; the trivial detector sees the files as they are.")

    name = f"{settings.detector.detector} · {run_name}"
    runs = {name: subset_metrics(predictions)}
    trivial = _trivial(settings, trained_on, expected)
    if trivial is None:
        notes.append("No trivial detector beside it: the index of the data that it was trained on is not at hand.")
    elif trivial.predictions is not None:
        runs[TRIVIAL] = subset_metrics(trivial.predictions)
        notes += trivial_warnings(runs[TRIVIAL])
    elif trivial.reason:
        notes.append(trivial.reason)
    notes += [settings.note] if settings.note else []
    if predictions["label"].null_count() == len(predictions) > 0:
        notes.insert(0, "No labels: there is nothing to measure, the scores lie in the parquet files.")
    layout = index.about["layout"]
    paper = layout if is_release(layout, rows, "test") else None
    return Results(predictions, name, paper, runs, notes)


def _trivial(settings: Settings, trained_on: Index | None, test: pl.DataFrame) -> Trivial | None:
    if trained_on is None:
        return None
    about = trained_on.frame().filter(pl.col("split").is_in(["train", "val"]))
    if settings.train_subsets is not None:
        about = about.filter(pl.col("subset").is_in(settings.train_subsets))
    return trivial_predictions(about, test)


def write_tables(
    settings: Settings,
    index: Index,
    trained_on: Index | None,
    folder: Folder,
    shards: list[int],
    origin: str,
    run_name: str,
) -> None:
    """Write the tables beside the predictions, and print them. origin: of the settings: a preset or a detector."""
    results = read_results(settings, index, trained_on, folder, shards, run_name)
    title = f"{folder.dataset}, {origin}" + ("" if settings.view == "raw" else f", view {settings.view}")
    tables = result_tables(title, results.runs, results.paper, results.notes)
    folder.store.write("metrics.csv", to_csv(results.runs).encode())
    folder.store.write("tables.md", to_markdown(tables).encode())
    for table in tables:
        console.print(to_terminal(table, console.width))
    console.print(f"tables: {folder.store.path('tables.md')}, {folder.store.path('metrics.csv')}", soft_wrap=True)
