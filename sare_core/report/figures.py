"""The report's figures, each a function of the frame that it draws."""

from itertools import cycle
from typing import Any

import polars as pl

from sare_core.engine.terminal import printable
from sare_core.report.drawing import FAKE, INK, PAPER, REAL, SOFT, Figure, drawn
from sare_core.report.numbers import GAIN

LONGEST = 20  # characters of a subset's name beside a figure
_CAPTIONS = {"with": "with captions", "without": "without captions"}  # of variants of the report
_STYLES: list[tuple[str, Any, str]] = [("s", "-", INK), ("D", (0, (2, 1.2)), PAPER), ("o", "-", PAPER), ("^", ":", INK)]


def _rows(axes: Any, subsets: list[str]) -> None:
    """Subsets from top to bottom, named at the left; a long name is cut, or it would leave no room for the panels."""
    axes.set_yticks(range(len(subsets)), [short(subset, LONGEST) for subset in subsets])
    axes.set_ylim(len(subsets) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)


def short(name: str, longest: int) -> str:
    """A name for a figure: on one line, of so many characters at most."""
    name = printable(name).replace("\n", " ")
    return name if len(name) <= longest else f"{name[:longest]}…"


def means_figure(means: pl.DataFrame, unit: str) -> Figure:
    """Figures 4a and 7a: mean shift of real and fake images, a panel a variant."""
    kinds, subsets = means["captions"].unique(maintain_order=True).to_list(), _subsets(means)

    def draw(canvas: Any) -> None:
        panels = canvas.subplots(1, len(kinds), sharex=True, sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            axes.grid(axis="x")
            for name, colour, marker, offset in (("real", REAL, "o", -0.12), ("fake", FAKE, "^", 0.12)):
                part = means.filter(pl.col("captions") == kind, pl.col("class") == name)
                at = [subsets.index(subset) + offset for subset in part["subset"]]
                axes.hlines(at, part["low"], part["high"], color=colour, linewidth=1.6)
                face = colour if name == "real" else PAPER
                axes.plot(part["mean"], at, marker, color=colour, markerfacecolor=face, markersize=5, label=name)
            _rows(axes, subsets)
            axes.set_title(_CAPTIONS.get(kind, kind), loc="left")
            axes.set_xlim(left=0)
        canvas.supxlabel(unit, fontsize="medium")
        handles, labels = panels[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside upper right", ncols=2)

    said = "; ".join(
        f"{subset}: " + ", ".join(f"{row['class']} {row['mean']:.3g}" for row in part.iter_rows(named=True))
        for (subset,), part in means.filter(pl.col("captions") == kinds[0]).group_by("subset", maintain_order=True)
    )
    alt = f"Mean shift ({unit}) {_CAPTIONS.get(kinds[0], kinds[0])}. {said}."
    return drawn("shift", alt, means, 0.9 + 0.3 * len(subsets), draw)


def gaps_figure(gaps: pl.DataFrame, unit: str) -> Figure:
    """Figures 4b and 7b: Δ = real − fake per subset, of each variant."""
    subsets = _subsets(gaps)
    kinds = [kind for kind in gaps["captions"].unique(maintain_order=True) if kind != GAIN]

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        axes.grid(axis="x")
        axes.axvline(0, color=SOFT, linewidth=1)
        for number, (kind, (marker, style, face)) in enumerate(zip(kinds, cycle(_STYLES), strict=False)):
            part = gaps.filter(pl.col("captions") == kind)
            offset = 0.24 * (number - (len(kinds) - 1) / 2)
            at = [subsets.index(subset) + offset for subset in part["subset"]]
            axes.hlines(at, part["low"], part["high"], color=INK, linewidth=1.6, linestyle=style)
            label = _CAPTIONS.get(kind, kind)
            axes.plot(part["delta"], at, marker, color=INK, markerfacecolor=face, markersize=5, label=label)
        _rows(axes, subsets)
        axes.set_xlabel(f"Δ = real − fake, {unit}")
        canvas.legend(loc="outside upper right", ncols=2)

    said = "; ".join(
        f"{row['subset']} {row['delta']:+.3g}"
        for row in gaps.filter(pl.col("captions") == kinds[0]).iter_rows(named=True)
    )
    alt = f"Δ {_CAPTIONS.get(kinds[0], kinds[0])}, {unit}: {said}."
    return drawn("delta", alt, gaps, 0.9 + 0.3 * len(subsets), draw)


def rows_figure(setting: str, points: pl.DataFrame, panels: dict[str, str]) -> Figure:
    """Figure 8: numbers of several settings side by side, a panel a measure, a line a mean over generators.

    setting: what the rows differ in. points: row, subset (of the mean), and of each measure <measure>, <measure>_low
    and <measure>_high. panels: titles by measure.
    """
    names, means = points["row"].unique(maintain_order=True).to_list(), _subsets(points)

    def draw(canvas: Any) -> None:
        grid = canvas.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (measure, title) in zip(grid, panels.items(), strict=True):
            axes.grid(axis="y")
            for number, (mean, (marker, style, face)) in enumerate(zip(means, cycle(_STYLES), strict=False)):
                part = points.filter(pl.col("subset") == mean).drop_nulls(measure)
                at = [names.index(name) + 0.06 * (2 * number - len(means) + 1) for name in part["row"]]
                axes.vlines(at, part[f"{measure}_low"], part[f"{measure}_high"], color=INK, linewidth=1.2, alpha=0.6)
                look = {"marker": marker, "markersize": 4, "markerfacecolor": face, "linestyle": style}
                axes.plot(at, part[measure], color=INK, label=mean, **look)
            axes.set_title(title, loc="left")
            if measure == "delta":
                axes.axhline(0, color=SOFT, linewidth=1)
        grid[-1].set_xticks(range(len(names)), names)
        grid[-1].set_xlim(-0.5, len(names) - 0.5)
        grid[-1].set_xlabel(setting)
        canvas.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(means))

    measure, title = next(iter(panels.items()))
    said = "; ".join(f"{name} {value:.1f}" for name, value in points.filter(subset=means[0])["row", measure].rows())
    return drawn("rows", f"{title}, {means[0]}: {said}.", points, 0.7 + 1.5 * len(panels), draw)


def mirror_figure(name: str, bins: pl.DataFrame, label: str, what: str, threshold: float | None = None) -> Figure:
    """Real above the line, fake below it, a row a subset; a tick at each class's median."""
    subsets, tallest = _subsets(bins), bins["share"].max()

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        axes.grid(axis="x")
        if threshold is not None:
            axes.axvline(threshold, color=SOFT, linewidth=0.9, linestyle=(0, (4, 2)))
        for (subset, kind), part in bins.group_by("subset", "class", maintain_order=True):
            row, real = subsets.index(str(subset)), kind == "real"
            colour, hatch, sign = (REAL, None, -1) if real else (FAKE, "//////", 1)
            edges = [*part["low"], part["high"][-1]]
            heights = row + sign * part["share"].to_numpy() / tallest * 0.46
            face = colour if real else PAPER
            axes.stairs(
                heights, edges, baseline=row, fill=True, facecolor=face, edgecolor=colour, hatch=hatch, linewidth=0.8
            )
            median = part["median"][0]
            axes.plot([median, median], [row, row + sign * 0.46], color=INK, linewidth=1.4)
        for row in range(len(subsets)):
            axes.axhline(row, color=SOFT, linewidth=0.6)
        _rows(axes, subsets)
        axes.set_xlim(bins["low"].min(), bins["high"].max())
        axes.set_xlabel(label)
        canvas.legend(handles=_keys(), loc="outside upper right", ncols=3, handlelength=1.4, columnspacing=1.2)

    said = "; ".join(
        f"{subset}: "
        + ", ".join(f"{c} {m:.3g}" for c, m in part.select("class", "median").unique(maintain_order=True).rows())
        for (subset,), part in bins.group_by("subset", maintain_order=True)
    )
    return drawn(name, f"Distributions of {what}. Medians: {said}.", bins, 0.9 + 0.5 * len(subsets), draw)


def _keys() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=REAL, edgecolor=REAL, label="real, above"),
        Patch(facecolor=PAPER, edgecolor=FAKE, hatch="//////", label="fake, below"),
        Line2D([], [], color=INK, marker="|", linestyle="none", markersize=9, label="median"),
    ]


def training_figure(history: pl.DataFrame, chosen: int) -> Figure:
    """Loss, and held-out accuracy and AUC, by epoch; the chosen epoch is marked."""
    measures = [name for name in ("accuracy", "auc") if history[name].null_count() < len(history)]

    def draw(canvas: Any) -> None:
        panels = canvas.subplots(1 + bool(measures), 1, sharex=True, squeeze=False)[:, 0]
        lines = [("train_loss", "training", "o", "-"), ("loss", "held out", "s", (0, (3, 1.5)))]
        for name, label, marker, style in lines:
            if history[name].null_count() < len(history):
                _line(panels[0], history, name, label, marker, style)
        panels[0].set_ylabel("loss")
        panels[0].set_ylim(bottom=0)
        for name, label, marker, style in (("accuracy", "ACC", "s", "-"), ("auc", "AUC", "^", (0, (3, 1.5)))):
            if name in measures:
                _line(panels[-1], history.with_columns(pl.col(name) * 100), name, label, marker, style)
        if measures:
            panels[-1].set_ylabel("held out, %")
        for axes in panels:
            axes.grid(axis="y")
            axes.axvline(chosen, color=SOFT, linewidth=1, linestyle=(0, (1, 1)))
            axes.legend(loc="best", fontsize="small")
        panels[0].annotate(
            f"chosen: {chosen}",
            (chosen, 1),
            (0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            fontsize="small",
            annotation_clip=False,
        )
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.get_major_locator().set_params(integer=True)

    last = history.row(-1, named=True)
    epochs = f"{last['epoch']:.0f} epochs; epoch {chosen} was chosen"
    alt = f"Training over {epochs}. Last mean training loss {last['train_loss']:.3f}."
    return drawn("training", alt, history, 3.4 if measures else 2.2, draw)


def _line(axes: Any, history: pl.DataFrame, name: str, label: str, marker: str, style: Any) -> None:
    axes.plot(
        history["epoch"],
        history[name],
        color=INK,
        marker=marker,
        markersize=4,
        linestyle=style,
        label=label,
        markerfacecolor=INK if style == "-" else PAPER,
    )


def _subsets(frame: pl.DataFrame) -> list[str]:
    return frame["subset"].unique(maintain_order=True).to_list()
