"""Detectors that differ in a setting, side by side; and whether their maps can tell real from fake at all."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import polars as pl

from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.evaluation.baselines import difference_rows, difference_table, told_means
from sare_core.evaluation.bootstrap import draw_by_name, estimate, mean_gap
from sare_core.evaluation.grid import headline
from sare_core.evaluation.intervals import Run, measure_runs, with_means
from sare_core.evaluation.metrics import (
    MEAN,
    WITHOUT_COPIES,
    is_mean,
    mean_groups,
    paper_order,
    pool_shared_reals,
    unseen_of,
)
from sare_core.evaluation.results import read_outputs
from sare_core.evaluation.tables import UNDEFINED, ResultTable, heading, marked
from sare_core.report.numbers import CLASSES, shift_measure
from sare_core.report.parts import MEASURED
from sare_core.study.comparison import MARGIN
from sare_core.study.measures import KEPT, Classifier, read_kept
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
    baseline: str,
    index: Index,
    shards: list[int],
    measures: Mapping[str, pl.DataFrame],
    classify: Classifier | None,
    paper: Sequence[tuple[str, float, float]],
) -> Ablation:
    """Of rows with predictions. baseline: the row that the others are held against; where it is not among them there
    are no differences. measures: MEASURES of each row's maps. paper: rows to follow, as printed.
    """
    runs = {row.name: [Run(read_outputs(one.folder, shards), one.threshold) for one in row.scored] for row in rows}
    measured = {row.name: measure_runs(runs[row.name], row.trained, _copies(row), SHOWN) for row in rows}
    tables, gaps = [_results(title, rows, measured, paper)], pl.DataFrame()
    by_name = {row.name: row for row in rows}
    if (first := by_name.pop(baseline, None)) and by_name:
        gaps = pl.concat(_less(first, row, runs) for row in by_name.values())
        tables.append(difference_table(gaps, baseline, MARGIN))
    found = pl.DataFrame()
    if mapped := [row for row in rows if row.name in measures]:
        measure = shift_measure(measures.values())
        told = [premise(row, index, shards, measures[row.name], measure, classify) for row in mapped]
        found = pl.concat([each for each in told if len(each)] or [found])
        tables += [premise_table(found)] if len(found) else []
    return Ablation(tables, _named(measured), found, gaps)


def _copies(row: Found) -> tuple[str, ...]:
    return row.settings.evaluate.near_copies


def _less(first: Found, row: Found, runs: dict[str, list[Run]]) -> pl.DataFrame:
    """A row less the first, in means over the generators that neither was trained on."""
    both = {one.name: runs[one.name] for one in (first, row)}
    known = first.trained and row.trained  # else no generator is known to be unseen
    trained, copies = ({*of(first), *of(row)} for of in (lambda one: one.trained, _copies))
    return difference_rows(both, first.name, trained if known else (), copies, MARGIN)


def _named(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(table.select(pl.lit(name).alias("row"), pl.all()) for name, table in tables.items())


def means_shown(subsets: Collection[str]) -> list[str]:
    """The mean over all generators, as in the paper, and the one that counts most."""
    return list(dict.fromkeys([MEAN, headline(subsets)]))


def _results(
    title: str, found: Sequence[Found], measured: Mapping[str, pl.DataFrame], paper: Sequence[tuple[str, float, float]]
) -> ResultTable:
    """A row a detector: ACC and AUC, in the mean over all generators and in the one that counts most."""
    means = means_shown({subset for table in measured.values() for subset in table["subset"]})
    alike = len({(row.trained, _copies(row)) for row in found}) == 1
    plain, rows = [], []
    for one in found:
        table = measured[one.name]
        by_mean = {row["subset"]: row for row in table.filter(is_mean()).iter_rows(named=True)}
        of = {mean: by_mean.get(_mean_of(one, table, mean), {}) for mean in means}
        cells = [(of[mean], measure) for mean in means for measure in SHOWN]
        plain.append([one.name, *(number(row.get(measure), 2, 100) for row, measure in cells)])
        rows.append([one.name, *(interval(row, measure, 100, 1) for row, measure in cells)])
    columns = ["", *(f"{measure.upper()} {heading(mean)}" for mean in means for measure in SHOWN)]
    for name, acc, auc in paper:
        rows.append([f"{name} (paper)", f"{acc:.2f}", f"{auc:.2f}", *[UNDEFINED] * (len(columns) - 3)])
    notes = [
        f"In %. Avg: of all generators{f'; {heading(means[-1])}: {means[-1]}' if len(means) > 1 else ''}. [a, b]: 95 % "
        "interval over images and generators, and over training seeds where there are several.",
        *_training_notes(found, alike),
    ]
    compared = columns if alike else columns[: 1 + len(SHOWN)]
    marks = marked(ResultTable(title, compared, plain, notes), len(plain))  # of numbers without their intervals
    if marks.best:
        notes[0] += " Best bold, second underlined, of the rows measured here."
    return replace(marks, columns=columns, rows=rows)


def _mean_of(row: Found, metrics: pl.DataFrame, mean: str) -> str:
    """The row's own mean for a column that another row may have named; "" where it has none."""
    if mean == MEAN:
        return MEAN
    subsets = paper_order(metrics.filter(~is_mean())["subset"].to_list())
    unseen = [name for name in subsets if name not in row.trained]
    wanted = unseen_of(subsets, row.trained, _copies(row)) if mean == WITHOUT_COPIES else unseen
    groups = mean_groups(subsets, row.trained, _copies(row)) if row.trained else {}
    return next((name for name, names in groups.items() if names == wanted), "")


def _training_notes(rows: Sequence[Found], alike: bool) -> list[str]:
    """What the rows' means of the unseen are without, where that is not one thing."""
    told = list[str]()
    for row in rows:
        if not row.trained:
            told.append(f"What {row.name} was trained on is not known: it may have seen any of these.")
        elif not alike:
            copies = ", ".join(_copies(row)) or "none"
            told.append(f"{row.name}: trained on {', '.join(row.trained)}; near-copies of one another: {copies}.")
    return told


def premise(
    row: Found,
    index: Index,
    shards: list[int],
    measures: pl.DataFrame,
    measure: str,
    classify: Classifier | None,
) -> pl.DataFrame:
    """Whether a row's maps can tell real from fake, by generator and in means: row, measure, subset, counted, delta,
    auc, and their ends; words_real, words_fake, kept_real, kept_fake.

    measure: of `shift_measure`. counted: whether the generator is in the mean that counts most; null of a mean. delta:
    mean over real less mean over fake of the measure (equation 7). auc: of it alone, fakes being nearer to x̂. words: of
    a caption. kept: the share of reconstructions that the classifier names as it names the image.
    """
    assert row.maps is not None
    images = measures.drop_nulls("label").sort("subset", "label", "image_id")
    groups = pool_shared_reals(images)
    gaps = {
        name: mean_gap(groups[name][measure].to_numpy(), groups[name]["label"].to_numpy(), draw_by_name(groups[name]))
        for name in paper_order(groups)
        if groups[name]["label"].n_unique() == len(CLASSES)
    }
    trained, copies = row.trained, _copies(row)
    deltas = [(name, *estimate(values)) for name, values in with_means(gaps, trained, copies).items()]
    alone = images.with_columns(logit=-pl.col(measure), score=pl.lit(0.0))
    areas = measure_runs([Run(alone)], trained, copies, ("auc",)).select("subset", "auc", "auc_low", "auc_high")
    of_means = mean_groups(gaps, trained, copies)
    counted = of_means[headline(of_means)]
    own = {name: groups[name] for name in gaps}
    words = _by_class(_words(row.maps.upstream.get("captions"), shards), "words", own, of_means)
    kept = pl.DataFrame(schema=KEPT) if classify is None else read_kept(row.maps, index, shards, classify)
    shares = words.join(_by_class(kept, "kept", own, of_means), on="subset")
    found = pl.DataFrame(deltas, ["subset", "delta", "delta_low", "delta_high"], orient="row")
    found = found.with_columns(
        counted=pl.when(~pl.col("subset").is_in(list(of_means))).then(pl.col("subset").is_in(counted))
    )
    of_subsets = found.join(areas, on="subset", maintain_order="left").join(shares, on="subset", maintain_order="left")
    return of_subsets.select(pl.lit(row.name).alias("row"), pl.lit(measure).alias("measure"), pl.all())


def _words(captions: Folder | None, shards: list[int]) -> pl.DataFrame:
    """image_id, words: how many each image's caption has; of none where the reconstructions read no captions."""
    if captions is None:
        return pl.DataFrame(schema={"image_id": pl.String, "words": pl.UInt32})
    return read_outputs(captions, shards).select("image_id", words=pl.col("caption").str.count_matches(r"\S+"))


def _by_class(
    images: pl.DataFrame, column: str, groups: Mapping[str, pl.DataFrame], of_means: Mapping[str, Collection[str]]
) -> pl.DataFrame:
    """subset, <column>_real, <column>_fake: means over the images of each generator, then over generators."""
    value, rows = images.select("image_id", pl.col(column).cast(pl.Float64)).unique("image_id"), []
    for subset, group in groups.items():
        means = group.join(value, on="image_id").group_by("label").agg(pl.col(column).mean())
        rows.append((subset, *map(dict(means.iter_rows()).get, CLASSES)))
    ends = [f"{column}_{kind}" for kind in CLASSES.values()]
    found = pl.DataFrame(rows, {"subset": pl.String, **dict.fromkeys(ends, pl.Float64)}, orient="row")
    of = [
        found.filter(pl.col("subset").is_in(list(names))).select(pl.lit(mean).alias("subset"), pl.col(ends).mean())
        for mean, names in of_means.items()
    ]
    return pl.concat([found, *of])


def premise_table(premise: pl.DataFrame) -> ResultTable:
    """One row a row of `premise`, on the mean that counts most."""
    means, measure = dict[str, str](), premise["measure"][0]
    kept = premise["kept_real"].null_count() < len(premise)
    rows = []
    for (name,), part in premise.group_by("row", maintain_order=True):
        generators, mean = part.filter("counted"), headline(part["subset"].to_list())
        row, means[str(name)] = part.filter(pl.col("subset") == mean).row(0, named=True), mean
        cells = [
            interval(row, "delta", 1, DIGITS[measure]),
            f"{int((generators['delta_low'] > 0).sum())} of {len(generators)}",
            interval(row, "auc", 100, 1),
            _of_classes(row, "words", 1),
            *([_of_classes(row, "kept", 100)] if kept else []),
        ]
        rows.append([str(name), *cells])
    notes = [
        f"Δ = real − fake of {MEASURED[measure][0]}, and the AUC of this number alone: {told_means(means)}. Δ > 0: "
        "generators of that mean whose whole interval is above zero. An AUC above 50 is in the paper's direction: "
        "fakes move less.",
        "Words of a caption, real and fake, over the same generators."
        + " Kept: % of reconstructions that the classifier names as it names the image." * kept,
    ]
    columns = ["", "Δ", "Δ > 0", "its AUC (%)", "words", *(["kept"] if kept else [])]
    return ResultTable("Can the maps tell real from fake?", columns, rows, notes)


def _of_classes(row: dict[str, Any], name: str, scale: float) -> str:
    return " / ".join(number(row[f"{name}_{kind}"], 1, scale) for kind in CLASSES.values())
