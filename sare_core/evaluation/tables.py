"""Results in the shape of the paper's Tables 1 to 4: one row a detector, one column a subset, then the average.

runs = {"sare · mini": metrics, TRIVIAL: trivial_metrics}
tables = result_tables("mini on embedded", runs, paper=None, notes=["The weights are random."])
console.print(to_terminal(tables[0], console.width))
markdown, csv = to_markdown(tables), to_csv(runs)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import polars as pl

from sare_core.engine.terminal import printable
from sare_core.evaluation.metrics import METRICS_SCHEMA, is_mean, paper_mean, paper_order
from sare_core.evaluation.paper import PAPER_TABLES, Measure, PaperTable

if TYPE_CHECKING:
    from rich.console import Group

TRIVIAL = "trivial (format, size, bytes)"
UNDEFINED = "–"

Runs = dict[str, pl.DataFrame]  # detector: what sare_core.evaluation.metrics.subset_metrics gave


@dataclass(frozen=True)
class ResultTable:
    """One measure, ready to print: every cell is text, in percent with two decimals."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


def result_tables(title: str, runs: Runs, paper: str | None, notes: Sequence[str] = ()) -> list[ResultTable]:
    """The tables of ACC and of AUC, titled "title: ACC (%)" and so on.

    runs: this run's detectors, in row order. paper: the released data set that the images are, "genimage" or
    "forensynths": rows of the paper's table follow where it shares a subset with the runs, and its averages where the
    runs hold all of the subsets that it averaged. notes: lines to stand under each table.
    """
    measures: tuple[Measure, ...] = get_args(Measure)
    return [_table(title, runs, measure, PAPER_TABLES.get((paper or "", measure)), notes) for measure in measures]


def to_terminal(table: ResultTable, width: int) -> "Group":
    """For a PlainConsole of `width` columns: what does not fit beside goes into a block below."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group, RenderableType
    from rich.styled import Styled
    from rich.table import Table

    blocks: list[RenderableType] = []
    for positions in _blocks(table, width):
        block = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for position in positions:
            block.add_column(table.columns[position], justify="right" if position else "left", no_wrap=True)
        for row in table.rows:
            block.add_row(*(row[position] for position in positions))
        blocks += [block, ""]
    return Group(Styled(table.title, "bold"), "", *blocks, *table.notes)


def to_markdown(tables: Sequence[ResultTable]) -> str:
    """The tables one after another, each with its notes as a list under it."""
    parts = []
    for table in tables:
        rule = ["---"] + ["---:"] * (len(table.columns) - 1)
        lines = ["| " + " | ".join(map(_escape, row)) + " |" for row in [table.columns, rule, *table.rows]]
        parts.append("\n".join([f"## {_escape(table.title)}", "", *lines]))
        if table.notes:
            parts.append("\n".join(f"- {_escape(note)}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def to_csv(runs: Runs) -> str:
    """All metrics with their counts, one row a detector and subset (or mean), in [0, 1] with all digits."""
    empty = pl.DataFrame(schema={"detector": pl.String, **METRICS_SCHEMA})
    frames = [metrics.select(pl.lit(detector).alias("detector"), pl.all()) for detector, metrics in runs.items()]
    return pl.concat([empty, *frames]).write_csv()


def _table(title: str, runs: Runs, measure: Measure, paper: PaperTable | None, notes: Sequence[str]) -> ResultTable:
    subsets = paper_order({name for metrics in runs.values() for name in metrics.filter(~is_mean())["subset"]})
    averages = list(dict.fromkeys(name for metrics in runs.values() for name in metrics.filter(is_mean())["subset"]))
    rows = [[detector, *_run_cells(metrics, measure, subsets, averages)] for detector, metrics in runs.items()]
    all_notes = [note for detector, metrics in runs.items() for note in _run_notes(detector, metrics, measure)]
    if paper and set(paper.subsets) & set(subsets):
        rows += [_paper_row(paper, detector, subsets, averages) for detector in paper.rows]
        all_notes += _paper_notes(paper, subsets)
    columns = ["Detector", *subsets, *(average.replace("mean", "Avg", 1) for average in averages)]
    return ResultTable(f"{title}: {measure.upper()} (%)", columns, rows, [*all_notes, *notes])


def _run_cells(metrics: pl.DataFrame, measure: Measure, subsets: list[str], averages: list[str]) -> list[str]:
    by_subset = dict(metrics.filter(~is_mean()).select("subset", measure).iter_rows())
    by_mean = dict(metrics.filter(is_mean()).select("subset", measure).iter_rows())
    values = [by_subset.get(name) for name in subsets] + [by_mean.get(name) for name in averages]
    return [UNDEFINED if value is None else f"{100 * value:.2f}" for value in values]


def _run_notes(detector: str, metrics: pl.DataFrame, measure: Measure) -> list[str]:
    n_subsets = len(metrics.filter(~is_mean()))
    over = metrics.filter(is_mean())[f"{measure}_over"][0]
    if over == n_subsets:
        return []
    needs = "labelled images" if measure == "acc" else "both real and fake images"
    return [f"{detector}: the average is over {over} of {n_subsets} subsets; the others lack {needs}."]


def _paper_row(paper: PaperTable, detector: str, subsets: list[str], averages: list[str]) -> list[str]:
    cells = paper.cells(detector)
    average_column = paper_mean(paper.subsets) if set(paper.subsets) < set(subsets) else "mean"
    comparable = set(paper.subsets) <= set(subsets)
    return [
        f"{detector} (paper)",
        *(f"{cells[name]:.2f}" if name in cells else UNDEFINED for name in subsets),
        *(
            f"{paper.printed_average(detector):.2f}" if comparable and name == average_column else UNDEFINED
            for name in averages
        ),
    ]


def _paper_notes(paper: PaperTable, subsets: list[str]) -> list[str]:
    notes = [f"(paper): Table {paper.number}, all detectors trained on GenImage's SDv1.4."]
    present = set(paper.subsets) & set(subsets)
    if len(present) < len(paper.subsets):
        notes.append(
            f"The paper averages over {len(paper.subsets)} subsets, of which this run has {len(present)}: "
            "its averages are not comparable and left out."
        )
        return notes
    return notes + [
        f"{detector} (paper): {paper.printed_average(detector):.2f} is the average as printed; "
        f"the printed cells average {paper.cell_average(detector):.2f}."
        for detector in paper.rows
        if paper.misprinted(detector)
    ]


def _blocks(table: ResultTable, width: int) -> list[list[int]]:
    """Column positions that fit side by side, each block led by the detectors' names."""
    widths = [2 + max(len(printable(cell)) for cell in cells) for cells in zip(table.columns, *table.rows, strict=True)]
    blocks = [[0]]
    for position in range(1, len(widths)):
        if len(blocks[-1]) > 1 and sum(widths[p] for p in [*blocks[-1], position]) > width:
            blocks.append([0])
        blocks[-1].append(position)
    return blocks


def _escape(text: str) -> str:
    """Text for a line of Markdown: names from a dataset may hold anything, a line break or HTML among it."""
    text = printable(text).replace("\n", "\\n")
    return re.sub(r"[\\|`<*&]|(?<=\])\(", r"\\\g<0>", text)
