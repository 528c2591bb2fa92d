"""Strength, guidance and caption on the validation images: what each place of the grid gives."""

import numpy as np
import polars as pl

from sare_core.evaluation.bootstrap import RESAMPLES, auc, draw_images, estimate, mean_gap
from sare_core.study.comparison import wide_values
from sare_core.study.variants import Cell

# error in 8-bit levels. net: less the autoencoder's own error. share: less the uncaptioned Δ of the same strength.
SWEEP = pl.Schema(
    {
        "strength": pl.Float64,
        "guidance": pl.Float64,
        "caption": pl.String,
        "n_real": pl.Int64,
        "n_fake": pl.Int64,
        **{f"{what}{end}": pl.Float64 for what in ("delta", "net", "share", "auc") for end in ("", "_low", "_high")},
        "kept_real": pl.Float64,
        "kept_fake": pl.Float64,
    }
)


def sweep_results(
    cells: list[Cell],
    errors: list[pl.DataFrame],
    autoencoder: pl.DataFrame,
    kept: list[pl.DataFrame],
    seed: int,
    resamples: int = RESAMPLES,
) -> pl.DataFrame:
    """SWEEP, one row a cell. errors (ERRORS), and kept (KEPT; empty: no classifier): one a cell.

    autoencoder: ERRORS at strength 0. The images of all training subsets are pooled; those that every cell has count.
    """
    frames = [autoencoder, *errors]
    together = pl.concat(frame.with_columns(run=pl.lit(str(number))) for number, frame in enumerate(frames))
    _, labels, (alone, *values) = wide_values(together, "run", "error")
    counts = draw_images(labels, np.random.default_rng(seed), resamples)
    deltas = [mean_gap(value, labels, counts) for value in values]
    uncaptioned = {cell.strength: delta for cell, delta in zip(cells, deltas, strict=True) if cell.guidance is None}
    rows = []
    for number, (cell, delta, value) in enumerate(zip(cells, deltas, values, strict=True)):
        share = [None] * 3 if cell.guidance is None else estimate(delta - uncaptioned[cell.strength])
        shares = dict(kept[number].group_by("label").agg(pl.col("kept").mean()).iter_rows()) if kept else {}
        rows.append(
            [
                *(cell.strength, cell.guidance, cell.level, int((labels == 0).sum()), int((labels == 1).sum())),
                *estimate(delta),
                *estimate(mean_gap(value - alone, labels, counts)),
                *share,
                *estimate(auc(-value, labels, counts)),
                *(shares.get(0), shares.get(1)),
            ]
        )
    return pl.DataFrame(rows, schema=SWEEP, orient="row")
