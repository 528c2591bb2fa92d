"""Detectors side by side in the shape of the paper's Tables 1 to 4, from predictions that are there.

    sare compare --dataset genimage                                  # all that was evaluated on it
    sare compare sare image /shared/my-detector --dataset genimage --baseline image
    sare compare first-try zeros --dataset mini --margin 2

A name is a run's, a detector's, a fingerprint (of predictions or of a detector), or a detector's folder. Where one has
no predictions yet, the last lines say which commands make them, and the exit code is 1. Runs that differ in train.seed
alone are one row. Writes WORK/<dataset>/compare/: compare.{csv,md,tex}, differences.csv. Loads no model; see
docs/evaluation.md.
"""

from functools import partial
from typing import Annotated

import polars as pl
import typer

from sare_core.config.evaluation import NEAR_COPIES
from sare_core.engine.manifest import has_index, read_index
from sare_core.engine.progress import bar
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from sare_core.evaluation.baselines import (
    control_sentence,
    controls,
    difference_rows,
    difference_table,
    hardest,
)
from sare_core.evaluation.compare import Compared, chosen, compared, read_predictions
from sare_core.evaluation.intervals import measure_runs
from sare_core.evaluation.latex import to_latex
from sare_core.evaluation.matched import matching_note, with_strata
from sare_core.evaluation.metrics import UNSEEN
from sare_core.evaluation.tables import heading, marked, result_tables, to_csv, to_markdown, to_terminal
from sare_core.images.views import validate_view
from sare_core.index.expected import is_release
from sare_core.store.storage import Store
from stages.options import Dataset, Manifests, Work, filled, run_command


def compare(
    dataset: Dataset,
    names: Annotated[
        list[str] | None, typer.Argument(help="Runs, detectors, fingerprints or detectors' folders. Default: all.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The row that the others are held against. Default: the hardest control.")
    ] = None,
    margin: Annotated[float, typer.Option(min=0, help="Points of AUC or ACC that would not matter.")] = 1.0,
    near_copies: Annotated[
        str, typer.Option(help="Generators that are near-copies of one another: one mean is without.")
    ] = ",".join(NEAR_COPIES),
    view: Annotated[str, typer.Option(help="Of the test images.")] = "raw",
    out: Annotated[
        str | None, typer.Option(callback=filled, help="Folder or URL for the files. Default: in the work folder.")
    ] = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
) -> None:
    """Put detectors side by side: tables of ACC and AUC with the best marked, and each one's gain over a baseline."""
    index = read_index(manifests, dataset)
    frame, shards = index.frame(), index.select(["test"])["shard"].to_list()
    copies = [stripped for name in near_copies.split(",") if (stripped := name.strip())]
    if odd := [name for name in copies if name not in {*NEAR_COPIES, *frame["subset"]}]:
        raise ConfigError(f"--near-copies {near_copies}: {dataset!r} has no generator {odd[0]!r}.")
    known = read_predictions(work, dataset, validate_view(view))
    taken, missing = chosen(known, names or [], index, shards, work, view)
    if not taken:
        nothing = f"{work}: no whole predictions of {dataset!r} in view {view}. `sare evaluate` makes them."
        raise ConfigError("\n".join(missing) or nothing)
    if frame.filter(pl.col("split") == "test")["label"].drop_nulls().is_empty():
        raise ConfigError(f"{dataset!r} has no labelled test images: there is nothing to compare by.")
    store = Store(out or f"{work}/{dataset}/compare")
    store.require_writable()
    rows = compared(taken, shards, manifests, partial(with_strata, index=frame))
    trained = sorted({generator for row in rows for generator in row.trained})
    source = next((row.source for row in rows if row.source and has_index(manifests, row.source)), None)
    held, notes = controls(
        index,
        read_index(manifests, source) if source else None,
        trained,
        shards,
        view,
        Store(f"{work}/{dataset}/compare"),
        partial(bar, console, "pixel statistics"),
    )
    detectors = {row.name: row.runs for row in rows}
    everything = {**{name: [run] for name, run in held.items()}, **detectors}
    measured = {name: measure_runs(runs, trained, copies) for name, runs in everything.items()}
    hard = hardest(measured, held)
    order = sorted(measured, key=lambda name: (name != hard, name not in held))  # the hardest control at the head
    runs = {name: measured[name] for name in order}

    layout = index.about["layout"]
    notes += [control_sentence(hard, measured, detectors)] if hard else []
    notes += [note] if (note := matching_note(measured[rows[0].name])) else []
    notes += [row.differs for row in rows if row.differs]
    notes += _training_notes(rows, trained, copies)
    title = dataset if view == "raw" else f"{dataset}, view {view}"
    paper = layout if view == "raw" and is_release(layout, frame, "test") else None
    tables = result_tables(title, runs, paper)
    tables = [marked(table, len(runs)) for table in tables]
    marks = "Best bold, second underlined, of the rows measured here. " if any(table.best for table in tables) else ""
    unseen = ", then the unseen alone" * any(heading(UNSEEN) in table.columns for table in tables)
    tables[-1].notes.extend([*notes, f"{marks}Avg: all generators{unseen}."])
    against = _named(baseline, list(runs)) if baseline else hard
    if against and len(everything) > 1:
        gaps = difference_rows(everything, against, trained, copies, margin / 100)
        tables.append(difference_table(gaps, against, margin / 100))
        store.write("differences.csv", gaps.write_csv().encode())
    store.write("compare.csv", to_csv(runs).encode())
    store.write("compare.md", to_markdown(tables).encode())
    store.write("compare.tex", to_latex(tables).encode())
    for table in tables:
        console.print(to_terminal(table, console.width), "")
    console.print(f"tables: {store.path('compare')}.md, .tex and .csv", soft_wrap=True)
    if missing:
        console.print("Missing, and what makes it:", *(f"  {line}" for line in missing), sep="\n", soft_wrap=True)
        raise typer.Exit(1)


def _training_notes(rows: list[Compared], trained: list[str], copies: list[str]) -> list[str]:
    """What unseen means here: by none of the detectors."""
    told = [f"Trained on {', '.join(trained)}; near-copies of one another: {', '.join(copies) or 'none'}."] * bool(
        trained
    )
    different = {row.trained for row in rows if row.trained}
    if len(different) > 1:
        told += [f"{row.name} was trained on {', '.join(row.trained)}." for row in rows if row.trained]
    told += [
        f"What {row.name} was trained on is not known: it may have seen any of these."
        for row in rows
        if not row.trained
    ]
    return told


def _named(name: str, rows: list[str]) -> str:
    """The row that --baseline means, by its whole name, its first words or how it begins.

    Raises ConfigError: it means none or several.
    """
    ways = ([row for row in rows if f"{row} ".startswith(name + end)] for end in (" ", ""))
    found = [name] if name in rows else next(filter(None, ways), [])
    if len(found) != 1:
        raise ConfigError(f"--baseline {name}: means {len(found)} rows; name one of {'; '.join(rows)}.")
    return found[0]


if __name__ == "__main__":
    run_command(compare)
