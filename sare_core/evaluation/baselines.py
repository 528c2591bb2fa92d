"""What detectors are held against: controls that see no content, and a baseline that each is less.

A high number is about generation only where the trivial detector and the pixel statistics have a low one.
"""

import hashlib
import io
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any

import polars as pl
from PIL import Image

from sare_core.engine.manifest import Index
from sare_core.errors import ConfigError, SareError
from sare_core.evaluation.bootstrap import Estimate, reading
from sare_core.evaluation.grid import headline
from sare_core.evaluation.intervals import Run, differences
from sare_core.evaluation.metrics import PREDICTION_SCHEMA, is_mean
from sare_core.evaluation.statistics import PER_CELL, carried_over, chosen_rows
from sare_core.evaluation.tables import TRIVIAL, UNDEFINED, ResultTable
from sare_core.evaluation.trivial import trivial_predictions
from sare_core.images.sources import read_source, view_image
from sare_core.store.storage import Store

PIXELS = "pixel statistics"


def controls(
    index: Index,
    source: Index | None,
    trained: Collection[str],
    shards: list[int],
    view: str,
    store: Store,
    bar: Callable[[int], AbstractContextManager[Callable[[int], None]]],
) -> tuple[dict[str, Run], list[str]]:
    """What every detector has to beat: the trivial detector, and a logistic regression on pixel statistics.

    Both are fitted to the training images of `source` (None: not at hand, no controls), as they are; view: of the test
    images. Pixel statistics are of at most PER_CELL images a subset, split and class, and kept in `store`. With them
    the reasons why one is missing, or is of fewer images.
    """
    if source is None:
        return {}, ["No controls beside them: the index of the data that they were trained on is not at hand."]
    own = pl.col("subset").is_in(list(trained)) if trained else pl.lit(True)
    train = source.frame().filter(pl.col("split").is_in(["train", "val"]), own)
    test = index.frame().filter(pl.col("shard").is_in(shards))
    found, notes = {}, []
    trivial = trivial_predictions(train, test)
    if trivial.predictions is None:
        notes.append(str(trivial.reason))
    else:
        found[TRIVIAL] = Run(trivial.predictions)
    tested = chosen_rows(test, ["test"])
    rows = pl.concat([chosen_rows(train, ["train"]), tested])
    told = f"{PIXELS}: of {len(tested):,} test images, the first {PER_CELL:,} of each generator and class."
    cut = [told] * (len(tested) < len(test.filter(pl.col("error").is_null(), pl.col("label").is_not_null())))
    roots = {one.about["dataset"]: one.about["root"] for one in (source, index)}
    looked_at = {"train": "raw", "test": view}  # as by the detectors
    known = f"{looked_at} {rows['split', 'image_id', 'subset', 'label'].write_csv()}"
    name = f"pixel-statistics-{hashlib.sha256(known.encode()).hexdigest()[:12]}.parquet"
    if store.exists(name):
        found[PIXELS] = Run(pl.read_parquet(io.BytesIO(store.read(name))))
        return found, notes + cut
    try:
        with bar(len(rows)) as advance:

            def load(row: dict[str, Any]) -> Image.Image:
                return view_image(read_source(roots[row["dataset"]], row), row, looked_at[row["split"]])

            scores = carried_over(rows, load, None, advance)
    except SareError as error:  # the predictions are there without the images
        return found, [*notes, f"No pixel statistics beside them: {error}"]
    scores = scores.with_columns(score=1 / (1 + (-pl.col("logit")).exp())).cast(PREDICTION_SCHEMA)
    out = io.BytesIO()
    scores.write_parquet(out)
    with suppress(ConfigError):  # a work folder may be for reading alone
        store.write(name, out.getvalue())
    return found | {PIXELS: Run(scores)}, notes + cut


def hardest(runs: dict[str, pl.DataFrame], names: Collection[str]) -> str | None:
    """Of some of the runs (metrics by name) the one with the highest AUC on the mean that counts most."""
    areas = {name: _headline_auc(runs[name]) for name in names}
    return max((name for name in areas if areas[name] is not None), key=lambda name: areas[name] or 0, default=None)


def control_sentence(control: str, runs: dict[str, pl.DataFrame], detectors: Collection[str]) -> str:
    """How hard the hardest control is, and which detectors stand above it."""
    mean, area = headline(runs[control]["subset"].to_list()), _headline_auc(runs[control]) or 0
    above = [name for name in detectors if (_headline_auc(runs[name]) or 0) > area]
    return (
        f"The control that is hardest to beat is {control}: AUC {100 * area:.1f} %, {mean}. "
        f"Above it: {', '.join(above) if above else 'none'}."
    )


def _headline_auc(metrics: pl.DataFrame) -> float | None:
    mean = headline(metrics["subset"].to_list())
    return metrics.filter(pl.col("subset") == mean, is_mean())["auc"].item()


def difference_rows(
    detectors: dict[str, list[Run]],
    baseline: str,
    trained: Collection[str],
    near_copies: Collection[str],
    margin: float,
) -> pl.DataFrame:
    """detector, metric, subset, value, low, high, images, reading: each less the baseline, in ACC and AUC."""
    parts = []
    for name, runs in detectors.items():
        if name != baseline:
            found = differences(runs, detectors[baseline], ["acc", "auc"], trained, near_copies)
            said = [reading(Estimate(*ends), margin) for ends in found.select("value", "low", "high").iter_rows()]
            parts.append(found.select(pl.lit(name).alias("detector"), pl.all(), pl.Series("reading", said, pl.String)))
    return pl.concat(parts)


def difference_table(rows: pl.DataFrame, baseline: str, margin: float) -> ResultTable:
    """One row a detector, on the mean that counts most."""
    shown, means = [], {}
    for (detector,), part in rows.group_by("detector", maintain_order=True):
        name, mean = str(detector), headline(part["subset"].to_list())
        cells = {row["metric"]: row for row in part.filter(pl.col("subset") == mean).to_dicts()}
        auc, acc, means[name] = cells.get("auc"), cells.get("acc"), mean
        shown.append([name, _points(auc), auc["reading"].partition(":")[0] if auc else UNDEFINED, _points(acc)])
    notes = [
        f"Points, {told_means(means)}; [a, b]: paired 95 % interval over images, training seeds and generators, on the "
        f"images that both have. No gain: the AUC's interval lies within ± {100 * margin:g} points, which is the two "
        "one-sided tests of equivalence at 2.5 %.",
    ]
    return ResultTable(f"Less {baseline}", ["Detector", "AUC", "", "ACC"], shown, notes)


def told_means(by_row: Mapping[str, str]) -> str:
    """Which mean the rows' numbers are of; by row, where it is not one."""
    means = dict.fromkeys(by_row.values())
    return next(iter(means)) if len(means) == 1 else "; ".join(f"{row}: {mean}" for row, mean in by_row.items())


def _points(row: dict[str, Any] | None) -> str:
    if row is None:
        return UNDEFINED
    value, low, high = (f"{100 * row[key]:+.1f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
