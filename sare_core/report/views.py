"""How a detector fares in many views, as a figure, a table and a CSV beside the report of its predictions."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import polars as pl

from sare_core.evaluation.grid import BOTH, FAKES, REALS, grid, headline
from sare_core.evaluation.tables import UNDEFINED, ResultTable, to_markdown
from sare_core.report.drawing import FAKE, INK, PAPER, REAL, SOFT, Figure, drawn
from sare_core.store.storage import Store

# Which class is changed: how its line is named and drawn, and how far aside of its place.
LINES: dict[str, tuple[str, str, str, Any, float]] = {
    BOTH: ("both classes", INK, "s", "-", 0),
    FAKES: ("fakes only", FAKE, "^", (0, (3, 1.5)), -0.1),
    REALS: ("reals only", REAL, "o", (0, (1, 1)), 0.1),
}
UNITS = {
    "jpeg": "JPEG quality",
    "webp": "WebP quality",
    "blur": "blur, sigma in pixels",
    "resize": "resize, factor",
    "crop": "centre crop, fraction",
    "noise": "noise, sd in levels",
}
FALLING = {"jpeg", "webp", "crop"}  # the less, the more an image is changed


class Views(NamedTuple):
    """The table for the terminal, and where its files are."""

    table: ResultTable
    files: list[str]


def write_views(
    store: Store,
    title: str,
    base: str,
    predictions: Mapping[str, pl.DataFrame],
    trained: Collection[str],
    near_copies: Collection[str],
) -> Views:
    """Write tables/views.{csv,md} and figures/views.png. predictions: by view, `base` as the detector knows images."""
    results = grid(predictions[base], predictions, trained, near_copies)
    over = headline(results["subset"].unique().to_list())
    table = views_table(title, results, base, over)
    figure = views_figure(results, base, over)
    files = {
        "figures/views.png": figure.png,
        "tables/views.csv": results.write_csv().encode(),
        "tables/views.md": to_markdown([table]).encode(),
    }
    for name, data in files.items():
        store.write(name, data)
    return Views(table, [store.path(name) for name in files])


def views_table(title: str, results: pl.DataFrame, base: str, over: str) -> ResultTable:
    """One row a view, on the mean `over`."""
    cells = {(row["view"], row["changed"]): row for row in _rows_of(results, over).iter_rows(named=True)}
    rows = []
    for view in results["view"].unique(maintain_order=True):
        both, fakes, reals = (cells.get((view, changed)) for changed in (BOTH, FAKES, REALS))
        low, high = (_percent(both, f"auc_{end}") for end in ("low", "high"))
        auc = f"{_percent(both, 'auc')} [{low}, {high}]"
        rows.append([view, auc, _percent(fakes, "auc"), _percent(reals, "auc"), _percent(both, "acc")])
    notes = [
        f"AUC and ACC in %, {over}; [a, b]: 95 % interval over images and generators. The detector was trained on "
        f"images as {base}; captions and maps, where it reads any, are made anew in each view.",
        "Fakes only, reals only: the images of the other class stay as they were. What moves the AUC there and not "
        "with both classes is the change itself, which the detector takes for a trace of one class.",
    ]
    return ResultTable(title, ["View", "AUC", "fakes only", "reals only", "ACC"], rows, notes)


def _percent(row: dict[str, Any] | None, name: str) -> str:
    return UNDEFINED if row is None or row[name] is None else f"{100 * row[name]:.1f}"


def _rows_of(results: pl.DataFrame, over: str) -> pl.DataFrame:
    return results.filter(pl.col("subset") == over).unique(["view", "changed"], keep="last", maintain_order=True)


def views_figure(results: pl.DataFrame, base: str, over: str) -> Figure:
    """A panel a step with its numbers from the weakest change on; views without a number share the last panel."""
    rows = _rows_of(results, over)
    plain = 100 * rows.filter(pl.col("view") == base)["auc"].item()
    changed = rows.filter(pl.col("view") != base)
    panels = [(step, part) for (step,), part in changed.drop_nulls("step").group_by("step", maintain_order=True)]
    if len(others := changed.filter(pl.col("step").is_null())):
        panels.append(("", others))

    def draw(canvas: Any) -> None:
        grid_of_axes = canvas.subplots(-(-len(panels) // 2), min(2, len(panels)), sharey=True, squeeze=False)
        for axes in grid_of_axes.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (step, part) in zip(grid_of_axes.flat, panels, strict=False):
            _draw_panel(axes, str(step), part)
            axes.axhline(plain, color=SOFT, linewidth=0.9, linestyle=(0, (4, 2)), label=base)
        handles, labels = grid_of_axes.flat[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside upper center", ncols=2, title=over)
        canvas.supylabel("AUC (%)", fontsize="medium")

    said = "; ".join(f"{row['view']} {100 * row['auc']:.1f}" for row in changed.filter(changed="both").to_dicts())
    alt = f"AUC in %, {over}, with both classes changed: {base} {plain:.1f}; {said}."
    return drawn("views", alt, results, 0.9 + 1.75 * -(-len(panels) // 2), draw)


def _draw_panel(axes: Any, step: str, part: pl.DataFrame) -> None:
    places = part.unique("view", maintain_order=True)
    if step:
        places = places.sort("number", descending=step in FALLING)
    views = places["view"].to_list()
    for which, (label, colour, marker, style, aside) in LINES.items():
        line = part.filter(pl.col("changed") == which)
        line = line.with_columns(at=pl.Series(map(views.index, line["view"]), dtype=pl.Int64)).sort("at")
        if which == BOTH:
            axes.vlines(line["at"], line["auc_low"] * 100, line["auc_high"] * 100, color=INK, linewidth=1.2, alpha=0.6)
        axes.plot(
            line["at"] + aside,
            line["auc"] * 100,
            marker=marker,
            markersize=4,
            color=colour,
            markerfacecolor=colour if which == BOTH else PAPER,
            linestyle=style if step else "none",
            label=label,
        )
    names = [f"{number:g}" for number in places["number"]] if step else views
    axes.set_xticks(range(len(views)), names, rotation=0 if step else 20)
    axes.set_xlim(-0.5, len(views) - 0.5)
    axes.set_xlabel(UNITS.get(step, "other views"))
    axes.grid(axis="y")
