"""Index a dataset: find its images, read each once, give each a split and a shard.

    sare index --layout genimage --root /data/GenImage --name genimage
    sare index --layout forensynths --root /data/CNN_synth_testset --name forensynths
    sare index --layout folder --root photos/ --name mine        # or a .csv, .tsv, .jsonl or .parquet of paths

The same command again takes up new and changed files, and leaves the shards of the others as they are. Stopped or
killed, it goes on where it was. Writes manifests/<name>/: index.json, two parquet files and problems.csv.
"""

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sare_core.engine.terminal import console
from sare_core.index.indexing import IndexReport, build_index
from stages.options import Manifests, filled, run_command

SHOWN = 10  # problems in the terminal; problems.csv has all


def index(
    layout: Annotated[str, typer.Option(help="How the files lie: genimage, forensynths, folder or unlabelled.")],
    root: Annotated[
        str,
        typer.Option(callback=filled, help="Folder, URL (s3://…), or for layout folder a table of paths (.csv …)."),
    ],
    name: Annotated[str, typer.Option(help="What the dataset is called from now on.")],
    shard_size: Annotated[
        int, typer.Option(min=1, help="Images a shard: the unit of work of all later stages.")
    ] = 1000,
    holdout: Annotated[float, typer.Option(min=0, max=0.9, help="Share of train that is held out as val.")] = 0.1,
    manifests: Manifests = "manifests",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that read images; default: one a core.")] = None,
) -> None:
    """Find the images of a dataset, read each once, give each a split and a shard."""
    report = build_index(name, layout, root, manifests, shard_size, holdout, workers, console)
    show(report, console)


def show(report: IndexReport, console: Console) -> None:
    """What was committed and what the user should know."""
    table = Table(title=report.index.about["dataset"], box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in report.table.columns:
        words = column in ("subset", "split")
        table.add_column(column, justify="left" if words else "right", no_wrap=words, overflow="fold")
    for row in report.table.rows():
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else cell for cell in row))
    console.print(table)
    images, shards = report.index.about["images"], len(report.index.shards)
    console.print(f"{images:,} images in {shards:,} shards; {report.read:,} of {report.files:,} files read by this run")
    for path, problem in report.problems.head(SHOWN).rows():
        console.print(f"- {path}: {problem}" if path else f"- {problem}")
    store = report.index.store
    if len(report.problems) > SHOWN:
        console.print(f"… {len(report.problems):,} problems in all: {store.path('problems.csv')}")
    console.print(f"wrote {store.path('index.json')}")


if __name__ == "__main__":
    run_command(index)
