"""Detectors that differ in a setting, side by side; and whether their maps can tell real from fake at all."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import polars as pl

from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.evaluation.baselines import difference_rows, difference_table
from sare_core.evaluation.bootstrap import draw_by_name, estimate, mean_gap
from sare_core.evaluation.grid import headline
from sare_core.evaluation.intervals import Run, measure_runs, with_means
from sare_core.evaluation.metrics import MEAN, is_mean, paper_order, pool_shared_reals
from sare_core.evaluation.results import read_outputs, trained_generators
from sare_core.evaluation.tables import UNDEFINED, ResultTable, heading, marked
from sare_core.report.numbers import CLASSES, shift_measure
from sare_core.report.parts import MEASURED
from sare_core.study.comparison import MARGIN
from sare_core.study.measures import Classifier, read_kept
from sare_core.study.rows import Found
from sare_core.study.tables import interval, number

SHOWN = ("acc", "auc")
DIGITS = {"lpips": 3, "sare": 2}  # of Δ, by what it is of


class Ablation(NamedTuple):
    """metrics, premise, differences: the frames behind the tables; empty where there are none."""

    tables: list[ResultTable]
    metrics: pl.DataFrame
    premise: pl.DataFrame
    differences: pl.DataFrame


def ablation(
    title: str,
    rows: Sequence[Found],
    index: Index,
    shards: list[int],
    measures: Mapping[str, pl.DataFrame],
    classify: Classifier | None,
    paper: Sequence[tuple[str, float, float]],
) -> Ablation:
    """Of rows with predictions. measures: MEASURES of each row's maps. paper: rows to follow, as printed."""
    settings = rows[-1].settings  # the first may be a detector from elsewhere
    trained, copies = trained_generators(settings, index), settings.evaluate.near_copies
    runs = {row.name: [Run(read_outputs(one.folder, shards), one.threshold) for one in row.scored] for row in rows}
    measured = {name: measure_runs(of, trained, copies, SHOWN) for name, of in runs.items()}
    tables, gaps = [_results(title, measured, paper)], pl.DataFrame()
    if len(runs) > 1:
        baseline = rows[0].name
        gaps = difference_rows(runs, baseline, trained, copies, MARGIN)
        tables.append(difference_table(gaps, baseline, MARGIN))
    found = pl.DataFrame()
    if mapped := [row for row in rows if row.name in measures]:
        measure = shift_measure(measures.values())
        told = (premise(row, index, shards, measures[row.name], measure, trained, copies, classify) for row in mapped)
        found = pl.concat(told)
        tables.append(premise_table(found))
    return Ablation(tables, _named(measured), found, gaps)


def _named(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(table.select(pl.lit(name).alias("row"), pl.all()) for name, table in tables.items())


def means_shown(subsets: Collection[str]) -> list[str]:
    """The mean over all generators, as in the paper, and the one that counts most."""
    return list(dict.fromkeys([MEAN, headline(subsets)]))


def _results(
    title: str, measured: Mapping[str, pl.DataFrame], paper: Sequence[tuple[str, float, float]]
) -> ResultTable:
    """A row a detector: ACC and AUC, in the mean over all generators and in the one that counts most."""
    means = means_shown(next(iter(measured.values()))["subset"].to_list())
    plain, rows = [], []
    for name, table in measured.items():
        by_mean = {row["subset"]: row for row in table.filter(is_mean()).iter_rows(named=True)}
        cells = [(by_mean[mean], measure) for mean in means for measure in SHOWN]
        plain.append([name, *(number(row[measure], 2, 100) for row, measure in cells)])
        rows.append([name, *(interval(row, measure, 100, 1) for row, measure in cells)])
    columns = ["", *(f"{measure.upper()} {heading(mean)}" for mean in means for measure in SHOWN)]
    for name, acc, auc in paper:
        rows.append([f"{name} (paper)", f"{acc:.2f}", f"{auc:.2f}", *[UNDEFINED] * (len(columns) - 3)])
    notes = [
        f"In %. Avg: of all generators{f'; {heading(means[-1])}: {means[-1]}' if len(means) > 1 else ''}. [a, b]: 95 % "
        "interval over images and generators, and over training seeds where there are several. Best bold, second "
        "underlined, of the rows measured here.",
    ]
    marks = marked(ResultTable(title, columns, plain, notes), len(plain))  # of numbers without their intervals
    return replace(marks, rows=rows)


def premise(
    row: Found,
    index: Index,
    shards: list[int],
    measures: pl.DataFrame,
    measure: str,
    trained: Collection[str],
    near_copies: Collection[str],
    classify: Classifier | None,
) -> pl.DataFrame:
    """Whether a row's maps can tell real from fake: row, measure, subset, delta, auc, and their ends, by generator and
    in means; words_real, words_fake, kept_real, kept_fake of all images.

    measure: of `shift_measure`. delta: mean over real less mean over fake of it (equation 7). auc: of it alone,
    fakes being nearer to x̂. words: of a caption. kept: the share of reconstructions that the classifier names as it
    names the image.
    """
    assert row.maps is not None
    images = measures.drop_nulls("label").sort("subset", "label", "image_id")
    groups = pool_shared_reals(images)
    gaps = {
        name: mean_gap(groups[name][measure].to_numpy(), groups[name]["label"].to_numpy(), draw_by_name(groups[name]))
        for name in paper_order(groups)
        if groups[name]["label"].n_unique() == len(CLASSES)
    }
    deltas = [(name, *estimate(values)) for name, values in with_means(gaps, trained, near_copies).items()]
    alone = images.with_columns(logit=-pl.col(measure), score=pl.lit(0.0))
    areas = measure_runs([Run(alone)], trained, near_copies, ("auc",)).select("subset", "auc", "auc_low", "auc_high")
    shares = _by_class(_words(row.maps.upstream.get("captions"), index, shards), "words")
    kept = None if classify is None else read_kept(row.maps, index, shards, classify)
    shares |= _by_class(kept, "kept")
    found = pl.DataFrame(deltas, ["subset", "delta", "delta_low", "delta_high"], orient="row")
    return found.join(areas, on="subset", maintain_order="left").select(
        pl.lit(row.name).alias("row"),
        pl.lit(measure).alias("measure"),
        pl.all(),
        *(pl.lit(share, pl.Float64).alias(name) for name, share in shares.items()),
    )


def _words(captions: Folder | None, index: Index, shards: list[int]) -> pl.DataFrame | None:
    """How many words each image's caption has; None: the reconstructions read no captions."""
    if captions is None:
        return None
    said = read_outputs(captions, shards).select("image_id", words=pl.col("caption").str.count_matches(r"\S+"))
    said = said.unique("image_id")
    return index.frame().filter(pl.col("shard").is_in(shards)).select("image_id", "label").join(said, on="image_id")


def _by_class(images: pl.DataFrame | None, column: str) -> dict[str, float | None]:
    """The mean of a column over real and over fake images; None where it is not known."""
    means = {} if images is None else dict(images.group_by("label").agg(pl.col(column).mean()).iter_rows())
    return {f"{column}_{kind}": means.get(label) for label, kind in CLASSES.items()}


def premise_table(premise: pl.DataFrame) -> ResultTable:
    """One row a row of `premise`, on the mean that counts most."""
    mean, measure = headline(premise["subset"].to_list()), premise["measure"][0]
    kept = premise["kept_real"].null_count() < len(premise)
    rows = []
    for (name,), part in premise.group_by("row", maintain_order=True):
        generators = part.filter(~pl.col("subset").str.starts_with(MEAN))
        row = part.filter(pl.col("subset") == mean).row(0, named=True)
        cells = [
            interval(row, "delta", 1, DIGITS[measure]),
            f"{int((generators['delta_low'] > 0).sum())} of {len(generators)}",
            interval(row, "auc", 100, 1),
            _of_classes(row, "words", 1),
            *([_of_classes(row, "kept", 100)] if kept else []),
        ]
        rows.append([str(name), *cells])
    notes = [
        f"Δ = real − fake of {MEASURED[measure][0]}, and the AUC of this number alone: {mean}. Δ > 0: generators whose "
        "whole interval is above zero. An AUC above 50 is in the paper's direction, fakes move less.",
        "Words of a caption, real and fake."
        + " Kept: % of reconstructions that the classifier names as it names the image." * kept,
    ]
    columns = ["", "Δ", "Δ > 0", "its AUC (%)", "words", *(["kept"] if kept else [])]
    return ResultTable("Can the maps tell real from fake?", columns, rows, notes)


def _of_classes(row: dict[str, Any], name: str, scale: float) -> str:
    return " / ".join(number(row[f"{name}_{kind}"], 1, scale) for kind in CLASSES.values())
