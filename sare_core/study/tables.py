"""The study's results as files and in the terminal: each number with its interval, how it was made on top."""

import math
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from sare_core.evaluation.tables import UNDEFINED, ResultTable, to_markdown, to_terminal

WITHIN = "within tenths of the pixel statistics' score"
INTERVALS = "[a, b]: 95 % percentile interval of 1,000 paired bootstrap resamples"


def detector_tables(results: pl.DataFrame, seeds: int, notes: list[str]) -> list[ResultTable]:
    """AUC and ACC of `compare_detectors`."""
    notes = [
        *notes,
        f"{INTERVALS}: of images, within subset and class, and of the {seeds} training seeds, alike for all variants.",
        "Means over unseen generators draw the generators again too.",
        "Of few seeds an interval is somewhat narrow: n seeds show (n − 1)/n of the variance between seeds.",
        "Means over training seeds; ACC at 0.5. Differences are in points.",
    ]
    titles = {"auc": "AUC (%)", "auc within": f"AUC (%) {WITHIN}", "acc": "ACC (%)"}
    return [
        _pivot(title, results.filter(pl.col("measure") == name), 100, 1, notes)
        for name, title in titles.items()
        if name in results["measure"]
    ]


def error_tables(results: pl.DataFrame, notes: list[str]) -> list[ResultTable]:
    """Δ and AUC of `compare_errors`."""
    notes = [
        *notes,
        f"{INTERVALS}: of images, within subset and class, alike for all rows.",
        "Δ: mean over real − mean over fake. net: each image's value less that of the autoencoder alone.",
        "AUC: of this one number an image, with no training; above 50 in the paper's direction, fakes move less.",
    ]
    titles = {
        "delta error": ("Δ of the mean |x − x̂|, in 8-bit levels", 1, 3),
        "auc error": ("AUC of the mean |x − x̂| alone (%)", 100, 1),
        "auc error within": (f"AUC of the mean |x − x̂| alone (%) {WITHIN}", 100, 1),
        "delta lpips": ("Δ of LPIPS (equation 7)", 1, 4),
        "auc lpips": ("AUC of LPIPS alone (%)", 100, 1),
        "auc lpips within": (f"AUC of LPIPS alone (%) {WITHIN}", 100, 1),
    }
    return [
        _pivot(title, results.filter(pl.col("measure") == name), scale, digits, notes)
        for name, (title, scale, digits) in titles.items()
        if name in results["measure"]
    ]


def sweep_tables(results: pl.DataFrame) -> list[ResultTable]:
    """The grid of `sweep_results`, one row a cell."""
    columns = ["strength", "guidance", "caption", "Δ", "Δ net", "caption's share", "AUC (%)", "kept real", "kept fake"]
    rows = [
        [
            number(row["strength"], 1),
            number(row["guidance"], 1),
            row["caption"],
            interval(row, "delta", 1, 3),
            interval(row, "net", 1, 3),
            interval(row, "share", 1, 3),
            interval(row, "auc", 100, 1),
            number(row["kept_real"], 1, 100),
            number(row["kept_fake"], 1, 100),
        ]
        for row in results.iter_rows(named=True)
    ]
    notes = [
        f"{results['n_real'][0]:,} real and {results['n_fake'][0]:,} fake validation images, none of the test split.",
        f"{INTERVALS} of images, within class, alike for all rows.",
        "Δ of the mean |x − x̂| in 8-bit levels, real − fake. net: less the autoencoder's own error.",
        "The caption's share: less Δ without caption at the same strength. AUC: of the mean |x − x̂| alone.",
        "kept: % of reconstructions that a classifier names as it names the image.",
    ]
    return [ResultTable("Strength, guidance and caption", columns, rows, notes)]


def fairness_tables(results: pl.DataFrame, notes: list[str]) -> list[ResultTable]:
    """AUC without semantics: `what`, subset, value, low, high."""
    notes = [
        *notes,
        f"{INTERVALS} of images, within subset and class, of what was fitted once: a little narrow. 50 is chance.",
    ]
    return [_pivot("AUC without semantics (%)", results, 100, 1, notes)]


def transfer_tables(results: pl.DataFrame, notes: list[str]) -> list[ResultTable]:
    """The matrix of `transfer`: a row trained on, a column tested on."""
    results = results.rename({"trained_on": "what"})
    notes = [*notes, "Row: trained on its train split. Column: tested on its test split.", f"{INTERVALS} of images."]
    return [_pivot("AUC of the plain image encoder (%)", results, 100, 1, notes)]


def write(
    folder: Path, name: str, head: list[str], tables: list[ResultTable], results: pl.DataFrame, console: Console
) -> None:
    """`name.md` for readers and `name.csv` with all digits, both with the lines of `head` on top; and the terminal."""
    folder.mkdir(parents=True, exist_ok=True)
    top = "\n".join(f"    {line}" for line in head)
    (folder / f"{name}.md").write_text(f"# {name}\n\n{top}\n\n{to_markdown(tables)}", encoding="utf-8")
    comments = "".join(f"# {line}\n" for line in head)
    (folder / f"{name}.csv").write_text(comments + results.write_csv(), encoding="utf-8")
    for table in tables:
        console.print(to_terminal(table, console.width))
    console.print(f"tables: {folder / name}.md and .csv", soft_wrap=True)


def _pivot(title: str, results: pl.DataFrame, scale: float, digits: int, notes: list[str]) -> ResultTable:
    """One row a `what`, one column a subset."""
    subsets = results["subset"].unique(maintain_order=True).to_list()
    rows = []
    for (what,), group in results.group_by("what", maintain_order=True):
        cells = {row["subset"]: row for row in group.iter_rows(named=True)}
        rows.append([str(what), *(interval(cells.get(subset, {}), "value", scale, digits) for subset in subsets)])
    return ResultTable(title, ["", *subsets], rows, notes)


def number(value: float | None, digits: int, scale: float = 1) -> str:
    return UNDEFINED if value is None else f"{scale * value:.{digits}f}".replace("-", "−")


def interval(row: dict[str, Any], what: str, scale: float, digits: int) -> str:
    """ "81.2 [80.1, 82.3]" """
    value, ends = row.get(what), ("low", "high") if what == "value" else (f"{what}_low", f"{what}_high")
    if value is None or math.isnan(value):
        return UNDEFINED
    shown, low, high = (number(each, digits, scale) for each in (value, *(row[end] for end in ends)))
    return f"{shown} [{low}, {high}]"
