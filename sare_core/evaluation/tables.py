"""Results as tables: one detector with a row a subset; several in the shape of the paper's Tables 1 to 4, with a row a
detector, a column a subset, then averages.

runs = {"sare · mini": metrics, TRIVIAL: trivial_metrics}
tables = result_tables("mini on embedded", runs, paper=None, notes=["The weights are random."])
console.print(to_terminal(tables[0], console.width))
markdown, csv = to_markdown(tables), to_csv(runs)
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import polars as pl

from sare_core.engine.terminal import printable
from sare_core.evaluation.metrics import (
    MEAN,
    METRICS,
    METRICS_SCHEMA,
    UNSEEN,
    WITHOUT_COPIES,
    WORST,
    is_mean,
    paper_mean,
    paper_order,
)
from sare_core.evaluation.paper import PAPER_TABLES, Measure, PaperTable

if TYPE_CHECKING:
    from rich.console import Group

TRIVIAL = "trivial (format, size, bytes)"
UNDEFINED = "–"
_SHORT = {WITHOUT_COPIES: "of these, no near-copies"}  # in a table's first column, under the mean of unseen
_HEADINGS = {UNSEEN: "Avg unseen", WITHOUT_COPIES: "no near-copies", WORST: "Worst"}  # of columns
FIRST_SCREEN = ("acc", "val_acc", "auc", "tpr_at_5_fpr")  # what fits beside names of generators in 80 columns

Runs = dict[str, pl.DataFrame]  # detector: what sare_core.evaluation.metrics.subset_metrics gave


@dataclass(frozen=True)
class ResultTable:
    """A table, ready to print: every cell is text. best, second: the places (row, column) to be marked so."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]
    best: frozenset[tuple[int, int]] = frozenset()
    second: frozenset[tuple[int, int]] = frozenset()


def summary_table(
    title: str, metrics: pl.DataFrame, shown: Sequence[str], trained: Collection[str], trivial: pl.DataFrame | None
) -> ResultTable:
    """One detector: a row a subset and mean, a column each of METRICS that is `shown` and defined somewhere.

    metrics: of `sare_core.evaluation.intervals.measure_runs`. trivial: the metrics of the trivial detector, whose AUC
    stands beside. The note says what the columns are.
    """
    chosen = [name for name in shown if metrics[name].null_count() < len(metrics)]
    beside = {} if trivial is None else dict(trivial.select("subset", "auc").iter_rows())
    rows = []
    for row in metrics.iter_rows(named=True):
        name, mean = row["subset"], row["acc_over"] is not None
        name = _SHORT.get(name, name) if mean else f"{name} (trained)" if name in trained else name
        rows.append([name, *(_number(row, metric) for metric in chosen)])
        rows[-1] += [_percent(beside.get(row["subset"]))] if beside else []
    meanings = ["In %."] + [f"{METRICS[name].title}: {METRICS[name].meaning}." for name in chosen]
    meanings += ["trivial: AUC of a detector that sees only format, size and bytes of the files."] if beside else []
    if "auc" in chosen:
        meanings.append("[a, b]: 95 % interval over images, and in means over generators too.")
    columns = ["Generator", *(METRICS[name].title for name in chosen), *(["trivial"] if beside else [])]
    return ResultTable(title, columns, rows, [" ".join(meanings)])


def _number(row: dict[str, Any], name: str) -> str:
    """ "71.3", and of the AUC "71.3 [64.0, 78.1]"; of a metric that is no share "0.612"."""
    if (value := row[name]) is None:
        return UNDEFINED
    if not METRICS[name].percent:
        return f"{value:.3f}"
    ends = [row.get("auc_low"), row.get("auc_high")] if name == "auc" else [None]
    return _percent(value) + ("" if None in ends else f" [{', '.join(map(_percent, ends))}]")


def _percent(share: float | None) -> str:
    return UNDEFINED if share is None else f"{100 * share:.1f}"


def result_tables(title: str, runs: Runs, paper: str | None, notes: Sequence[str] = ()) -> list[ResultTable]:
    """The tables of ACC and of AUC, titled "title: ACC (%)" and so on, in percent with two decimals.

    runs: this run's detectors, in row order. paper: the released data set that the images are, "genimage" or
    "forensynths": rows of the paper's table follow where it shares a subset with the runs, and its averages where the
    runs hold all of the subsets that it averaged. notes: lines to stand under each table.
    """
    measures: tuple[Measure, ...] = get_args(Measure)
    return [_table(title, runs, measure, PAPER_TABLES.get((paper or "", measure)), notes) for measure in measures]


def marked(table: ResultTable, rows: int) -> ResultTable:
    """The table with the highest and second highest of the first `rows` rows marked in each column; equals alike.

    A number that stands alone in its column is the best of nothing.
    """
    places: tuple[set[tuple[int, int]], set[tuple[int, int]]] = (set(), set())
    for column in range(1, len(table.columns)):
        values = {
            row: float(cells[column]) for row, cells in enumerate(table.rows[:rows]) if cells[column] != UNDEFINED
        }
        ordered = sorted(set(values.values()), reverse=True) if len(values) > 1 else []
        for found, wanted in zip(places, ordered, strict=False):
            found |= {(row, column) for row, value in values.items() if value == wanted}
    return replace(table, best=frozenset(places[0]), second=frozenset(places[1]))


def to_terminal(table: ResultTable, width: int) -> "Group":
    """For a PlainConsole of `width` columns: what does not fit beside goes into a block below."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group, RenderableType
    from rich.styled import Styled
    from rich.table import Table
    from rich.text import Text

    blocks: list[RenderableType] = []
    for positions in _blocks(table, width):
        block = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for position in positions:
            block.add_column(table.columns[position], justify="right" if position else "left", no_wrap=True)
        for number, row in enumerate(table.rows):
            block.add_row(*(Text.assemble((printable(row[p]), _style(table, number, p))) for p in positions))
        blocks += [block, ""]
    return Group(Styled(table.title, "bold"), "", *blocks, *table.notes)


def _style(table: ResultTable, row: int, column: int) -> str:
    return "bold" if (row, column) in table.best else "underline" if (row, column) in table.second else ""


def to_markdown(tables: Sequence[ResultTable]) -> str:
    """The tables one after another, each with its notes as a list under it."""
    parts = []
    for table in tables:
        rule = ["---"] + ["---:"] * (len(table.columns) - 1)
        rows = [list(map(_escape, table.columns)), rule, *marked_rows(table, _escape, "**{}**", "<u>{}</u>")]
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        parts.append("\n".join([f"## {_escape(table.title)}", "", *lines]))
        if table.notes:
            parts.append("\n".join(f"- {_escape(note)}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def marked_rows(table: ResultTable, escape: Callable[[str], str], best: str, second: str) -> list[list[str]]:
    """The cells, escaped; those that are marked within a frame, as "**{}**"."""

    def cell(row: int, column: int, text: str) -> str:
        frame = best if (row, column) in table.best else second if (row, column) in table.second else "{}"
        return frame.format(escape(text))

    return [[cell(r, c, text) for c, text in enumerate(row)] for r, row in enumerate(table.rows)]


def to_csv(runs: Runs) -> str:
    """All metrics with their counts and intervals, one row a detector and subset (or mean), with all digits."""
    empty = pl.DataFrame(schema={"detector": pl.String, **METRICS_SCHEMA})
    frames = [metrics.select(pl.lit(detector).alias("detector"), pl.all()) for detector, metrics in runs.items()]
    return pl.concat([empty, *frames], how="diagonal").write_csv()


def _table(title: str, runs: Runs, measure: Measure, paper: PaperTable | None, notes: Sequence[str]) -> ResultTable:
    subsets = paper_order({name for metrics in runs.values() for name in metrics.filter(~is_mean())["subset"]})
    averages = list(dict.fromkeys(name for metrics in runs.values() for name in metrics.filter(is_mean())["subset"]))
    rows = [[detector, *_run_cells(metrics, measure, subsets, averages)] for detector, metrics in runs.items()]
    all_notes = [note for detector, metrics in runs.items() for note in _run_notes(detector, metrics, measure)]
    if paper and set(paper.subsets) & set(subsets):
        rows += [_paper_row(paper, detector, subsets, averages) for detector in paper.rows]
        all_notes += _paper_notes(paper, subsets)
    columns = ["Detector", *subsets, *map(heading, averages)]
    return ResultTable(f"{title}: {measure.upper()} (%)", columns, rows, [*all_notes, *notes])


def heading(average: str) -> str:
    """Of the column of a mean, or of the worst."""
    return _HEADINGS.get(average) or average.replace("mean", "Avg", 1)


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
    average_column = paper_mean(paper.subsets) if set(paper.subsets) < set(subsets) else MEAN
    known = {}
    if set(paper.subsets) <= set(subsets):
        known[average_column] = paper.printed_average(detector)
    if set(subsets) <= set(paper.subsets):
        known[WORST] = min(cells[name] for name in subsets)
    shown = [*(cells.get(name) for name in subsets), *(known.get(name) for name in averages)]
    return [f"{detector} (paper)", *(UNDEFINED if value is None else f"{value:.2f}" for value in shown)]


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
