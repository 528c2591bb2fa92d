"""What the predictions of a test split say: metrics of the detector and of the trivial one, as tables."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from sare_core.config import Settings
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, SareError
from sare_core.evaluation.intervals import Run, measure_runs
from sare_core.evaluation.matched import matching_note, with_strata
from sare_core.evaluation.metrics import METRICS, WITHOUT_COPIES
from sare_core.evaluation.tables import (
    FIRST_SCREEN,
    TRIVIAL,
    Runs,
    result_tables,
    summary_table,
    to_csv,
    to_markdown,
    to_terminal,
)
from sare_core.evaluation.trivial import Trivial, trivial_predictions, trivial_warnings
from sare_core.index.expected import is_release

# Of the index, what the tables are made from: its paths and digests are most of it.
_COLUMNS = ("image_id", "subset", "split", "label", "shard", "error", "format", "width", "height", "bytes")


class Results(NamedTuple):
    """What `evaluate` found: every prediction, the metrics of each detector, and the notes to stand under tables.

    name: of this run's detector among the `runs`. trained: the generators that it was trained on, as far as the index
    of its dataset is at hand. paper: the layout whose tables of the paper may stand beside them;
    None where the test images are another set than the paper's, a small part of it, or seen in a view.
    """

    predictions: pl.DataFrame
    name: str
    trained: tuple[str, ...]
    paper: str | None
    runs: Runs
    notes: list[str]


def read_outputs(folder: Folder, shards: list[int]) -> pl.DataFrame:
    """All rows of the parquets of a folder's shards."""
    records = folder.records(shards).values()
    return pl.concat([pl.read_parquet(folder.output(record), glob=False) for record in records])


def read_results(
    settings: Settings,
    index: Index,
    trained_on: Index | None,
    folder: Folder,
    shards: list[int],
    run_name: str,
    threshold: float | None = None,
) -> Results:
    """Join all predictions, check them against the index, and measure them and the trivial detector.

    threshold: the logit that the detector's held-out images chose.
    """
    rows = index.frame(_COLUMNS)
    expected = rows.filter(pl.col("shard").is_in(shards))
    predictions = with_strata(read_outputs(folder, shards), expected)
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
    trained, copies = trained_generators(settings, trained_on), settings.evaluate.near_copies
    runs = {name: measure_runs([Run(predictions, threshold)], trained, copies)}
    notes += [note] if (note := matching_note(runs[name])) else []
    if threshold is None:
        notes.append(
            "No ACC val: the detector knows no threshold of held-out images: it had none, was imported, or was trained "
            "by a sare that kept none."
        )
    trivial = _trivial(settings, trained_on, expected)
    if trivial is None:
        notes.append("No trivial detector beside it: the index of the data that it was trained on is not at hand.")
    elif trivial.predictions is not None:
        runs[TRIVIAL] = measure_runs([Run(trivial.predictions)], trained, copies)
        notes += trivial_warnings(runs[TRIVIAL])
    elif trivial.reason:
        notes.append(trivial.reason)
    notes += [settings.note] if settings.note else []
    if predictions["label"].null_count() == len(predictions) > 0:
        notes.insert(0, "No labels: there is nothing to measure, the scores lie in the parquet files.")
    layout = index.about["layout"]
    paper = layout if settings.view == "raw" and is_release(layout, rows, "test") else None
    return Results(predictions, name, trained, paper, runs, notes)


def trained_generators(settings: Settings, trained_on: Index | None) -> tuple[str, ...]:
    """The subsets that a detector of these settings was trained on; () where that is not known."""
    if settings.train_subsets is not None or trained_on is None:
        return settings.train_subsets or ()
    return tuple(trained_on.select(["train"])["subset"].unique().sort())


def _trivial(settings: Settings, trained_on: Index | None, test: pl.DataFrame) -> Trivial | None:
    if trained_on is None:
        return None
    about = trained_on.frame(_COLUMNS).filter(pl.col("split").is_in(["train", "val"]))
    if settings.train_subsets is not None:
        about = about.filter(pl.col("subset").is_in(settings.train_subsets))
    return trivial_predictions(about, test)


def metric_names(chosen: str | None) -> tuple[str, ...]:
    """Of --metrics: `all`, or names with commas between them; None: those of the first screen.

    Raises ConfigError: no such metric.
    """
    if chosen is None:
        return FIRST_SCREEN
    names = tuple(METRICS) if chosen == "all" else tuple(name.strip() for name in chosen.split(","))
    if odd := [name for name in names if name not in METRICS]:
        raise ConfigError(f"--metrics {chosen}: no metric {odd[0]!r}. They are all, or some of {', '.join(METRICS)}.")
    return tuple(dict.fromkeys(names))


def write_tables(
    settings: Settings,
    index: Index,
    trained_on: Index | None,
    folder: Folder,
    shards: list[int],
    origin: str,
    run_name: str,
    threshold: float | None = None,
    shown: Sequence[str] = FIRST_SCREEN,
) -> None:
    """Write the tables beside the predictions, and print the metrics that are `shown`.

    origin: of the settings: a preset or a detector. threshold: as in `read_results`.
    """
    results = read_results(settings, index, trained_on, folder, shards, run_name, threshold)
    title = f"{folder.dataset}, {origin}" + ("" if settings.view == "raw" else f", view {settings.view}")
    trivial, metrics = results.runs.get(TRIVIAL), results.runs[results.name]
    summary = summary_table(f"{title}: {results.name}", metrics, shown, results.trained, trivial)
    generators = metrics.filter(pl.col("acc_over").is_null())
    notes = [f"Trained on {', '.join(results.trained)}."] if results.trained else []
    if WITHOUT_COPIES in metrics["subset"]:
        notes[0] += f" Near-copies of one another: {', '.join(settings.evaluate.near_copies)} (evaluate.near_copies)."
    if generators["n_real", "n_fake"].n_unique() == 1:
        notes.append(f"Of each generator {generators['n_real'][0]:,} real and {generators['n_fake'][0]:,} fake images.")
    if threshold is not None and "val_acc" in shown:
        notes.append(f"The threshold of the held-out images is a logit of {threshold:.3f}.")
    if results.paper:
        notes.append("The paper's numbers are in tables.md, and in sare compare.")
    more = "" if set(METRICS) <= set(shown) else "--metrics all prints all metrics, "
    notes.append(f"A score is sigmoid(logit), not a probability. {more}metrics.csv has all with intervals.")
    summary.notes.extend([*notes, *results.notes])
    tables = result_tables(title, results.runs, results.paper)
    about = {
        "dataset": folder.dataset,
        "detector": results.name,
        "view": settings.view,
        "trained_on": results.trained,
        "near_copies": settings.evaluate.near_copies,
        "threshold": threshold,
    }
    document = {**about, "metrics": metrics.to_dicts()}
    folder.store.write("metrics.csv", to_csv(results.runs).encode())
    folder.store.write("metrics.json", json.dumps(document, indent=1, ensure_ascii=False).encode())
    folder.store.write("tables.md", to_markdown([summary, *tables]).encode())
    labelled = metrics["n"].sum() > 0
    console.print(to_terminal(summary, console.width) if labelled else "\n".join(results.notes))
    console.print(f"tables: {folder.store.path('tables.md')}, {folder.store.path('metrics.csv')}", soft_wrap=True)
