"""Tables and figures like the paper's, written from the runs that are there."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import polars as pl

from sare_core.engine.progress import bar
from sare_core.engine.shardfiles import TarReader
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, StageError
from sare_core.evaluation.latex import to_latex
from sare_core.evaluation.metrics import has_both_classes
from sare_core.evaluation.results import read_outputs
from sare_core.evaluation.tables import ResultTable, to_markdown
from sare_core.index.expected import is_release
from sare_core.report.drawing import Figure
from sare_core.report.examples import Example, example
from sare_core.report.figures import gaps_figure, means_figure, rows_figure
from sare_core.report.measures import keep, measure_maps, read_kept
from sare_core.report.numbers import GAIN, semantic_shift
from sare_core.report.parts import MEASURED
from sare_core.report.plate import Column, columns_plate
from sare_core.report.premise import premise_part
from sare_core.store.storage import Store
from sare_core.study.ablation import DIGITS, SHOWN, Ablation, ablation, means_shown
from sare_core.study.dataset import Study
from sare_core.study.measures import Classifier
from sare_core.study.pairs import matched
from sare_core.study.published import Kind, Published
from sare_core.study.rows import Found
from sare_core.study.tables import interval

GENIMAGE = "genimage"  # the layout of the images of the paper's ablations
_TEXTS = ("generator", "kind", "both", "image_id", "path", "row", "caption")  # both: what the pair agrees in
_EXAMPLES: dict[str, Any] = dict.fromkeys(_TEXTS, pl.String) | {"error": pl.Float64, "lpips": pl.Float64}
_PARTS, _KINDS = ("", "a", "b", "-premise", "-differences"), ("png", "csv", "md", "tex")
_ENDS = [f"{part}.{kind}" for part in _PARTS for kind in _KINDS]  # of the names of all files that there may be


class Content(NamedTuple):
    """What is written: pictures and frames by the ends of their names, and tables for files and for the terminal."""

    pictures: dict[str, bytes]
    frames: dict[str, pl.DataFrame]
    tables: list[ResultTable]


def home(work: str, dataset: str) -> str:
    """Where the files lie unless another place is named."""
    return f"{work}/{dataset}/paper"


def unfit(study: Study, published: Published) -> str:
    """Why no run could fill it, whatever its settings; "" where one could."""
    test = study.index.frame().filter(pl.col("split") == "test", pl.col("error").is_null())
    labelled = test.drop_nulls("label")
    if labelled.is_empty():
        return f"{study.dataset!r} has no labelled test images."
    if not published.kind.of_detectors and not has_both_classes(labelled):
        return f"no generator of {study.dataset!r} has both real and fake test images."
    return ""


def write(
    study: Study, published: Published, rows: Sequence[Found], store: Store, name: str, classify: Classifier | None
) -> tuple[list[str], list[ResultTable]]:
    """Write a table or figure of those rows that are whole, at least one, in the place of what an earlier call wrote.
    Returns the files' paths, and the tables.

    name: how the files' names begin. Raises StageError: too few images; ConfigError: no x̂ was kept.
    """
    if published.kind.of_detectors:
        content = _ablation(study, published, rows, classify)
    elif published.kind is Kind.shift:
        content = _shift(study, published, rows)
    else:
        content = _pictures(study, published, rows)
    if content.tables and (note := _missing(rows)):
        content.tables[0].notes.append(note)
    files = {f"{end}.png": picture for end, picture in content.pictures.items()}
    files |= {f"{end}.csv": frame.write_csv().encode() for end, frame in content.frames.items()}
    if content.tables:
        files |= {".md": to_markdown(content.tables).encode(), ".tex": to_latex(content.tables).encode()}
    stale = {name + end for end in _ENDS if end not in files}
    store.delete_many(sorted(stale.intersection(store.names())))
    for end, data in files.items():
        store.write(name + end, data)
    return [store.path(name + end) for end in files], content.tables


def _missing(rows: Sequence[Found]) -> str:
    lacking = [row.name + f" (the same run as {row.same_as})" * bool(row.same_as) for row in rows if not row.whole]
    return f"Missing: {', '.join(lacking)}." if lacking else ""


def _ablation(study: Study, published: Published, wanted: Sequence[Found], classify: Classifier | None) -> Content:
    index, shards = study.index, study.shards("test")
    as_is = index.about["layout"] == GENIMAGE and study.settings().view == "raw"
    is_papers = as_is and is_release(GENIMAGE, index.frame(), "test")
    baseline, rows = wanted[0].name, [row for row in wanted if row.whole]
    measures = _measures(study, rows)
    detectors = dict.fromkeys(row.settings.detector.detector for row in rows)
    title = f"{_title(study, published)}; {', '.join(detectors)}"
    found = ablation(title, rows, baseline, index, shards, measures, classify, published.paper if is_papers else ())
    if not wanted[0].whole and len(wanted) > 1:
        found.tables[0].notes.append(f"No differences: {baseline}, the row that the others are less, is missing.")
    made_from = ", ".join(one.folder.fingerprint for row in rows for one in row.scored)
    note = study.settings().note
    found.tables[0].notes.extend([f"From predictions {made_from}.", *([note] if note else [])])
    frames = {"": found.metrics, "-premise": found.premise, "-differences": found.differences}
    frames = {end: frame for end, frame in frames.items() if len(frame)}
    tables = [*found.tables, *_premise_of_images(index.about["root"])]
    drawn = rows_figure(published.title, *_points(found)).png if published.kind is Kind.curve else None
    return Content({"": drawn} if drawn else {}, frames, tables)


def _points(found: Ablation) -> tuple[pl.DataFrame, dict[str, str]]:
    """ACC and AUC in percent, and Δ where the maps are there, of each row and mean; and the panels' titles."""
    ends = [f"{measure}{end}" for measure in SHOWN for end in ("", "_low", "_high")]
    means = found.metrics.filter(pl.col("subset").is_in(means_shown(found.metrics["subset"].to_list())))
    points, panels = means.select("row", "subset", pl.col(ends) * 100), {"acc": "ACC (%)", "auc": "AUC (%)"}
    if len(found.premise):
        shift = found.premise.select("row", "subset", "delta", "delta_low", "delta_high")
        points = points.join(shift, on=["row", "subset"], how="left", maintain_order="left")
        panels["delta"] = f"Δ, {MEASURED[found.premise['measure'][0]][0]}"
    return points, panels


def _premise_of_images(root: str) -> list[ResultTable]:
    """What was measured of the images themselves, where the data set comes with it."""
    if (found := premise_part(root)) is None:
        return []
    rows = [
        [name, f"{extras:.2f}", f"{fit:.1f}", f"{kept:.1f}", missed] for name, extras, fit, kept, missed in found.rows
    ]
    things, right = found.photographs
    notes = [
        "From premise.csv beside the images. Things: shown beside the one of the prompt. Fit: AUC in % of how well an "
        "image fits its prompt, against photographs. Kept: % of reconstructions that keep the class. Fails: limits "
        "that were set before and are not met.",
        f"Photographs show {things:.2f} things more; the captioner names the right one of {right:.1f} % of them.",
    ]
    return [ResultTable("Premise of the images", ["", "things", "fit", "kept", "fails"], rows, notes)]


def _title(study: Study, published: Published) -> str:
    return f"{study.dataset}, preset {study.preset}: {published.title}"


def _measures(study: Study, rows: Sequence[Found]) -> dict[str, pl.DataFrame]:
    """MEASURES of those rows' maps that are there, of the test split; kept in the work folder, for they take long."""
    store = Store(home(study.work, study.dataset))
    folders = {row.name: row.maps for row in rows if row.maps is not None}
    if not folders:
        return {}
    kept, shards = read_kept(store), study.shards("test")
    images = sum(record.ok for folder in folders.values() for record in folder.records(shards).values())
    with bar(console, "maps", images) as advance:
        found = {name: measure_maps(folder, shards, kept, advance) for name, folder in folders.items()}
    with suppress(ConfigError):  # a work folder may be for reading alone
        keep(store, pl.concat([kept, *found.values()]).unique(maintain_order=True))
    return found


def _shift(study: Study, published: Published, wanted: Sequence[Found]) -> Content:
    shift = semantic_shift(_measures(study, [row for row in wanted if row.whole]))
    if not all(row.whole for row in wanted):  # else two of three would have one
        shift = shift._replace(gaps=shift.gaps.filter(pl.col("captions") != GAIN))
    if shift.gaps.is_empty():
        raise StageError(f"no generator of {study.dataset!r} has real and fake images that all rows have maps of.")
    unit, explained = MEASURED[shift.measure]
    figures: dict[str, Figure] = {"a": means_figure(shift.means, unit), "b": gaps_figure(shift.gaps, unit)}
    kinds, subsets = (shift.gaps[key].unique(maintain_order=True).to_list() for key in ("captions", "subset"))
    cells = {
        (row["subset"], row["captions"]): interval({**row, "value": row["delta"]}, "value", 1, DIGITS[shift.measure])
        for row in shift.gaps.iter_rows(named=True)
    }
    table = ResultTable(
        f"{_title(study, published)}: Δ = real − fake, {unit}",
        ["", *("difference" if kind == GAIN else kind for kind in kinds)],
        [[subset, *(cells[subset, kind] for kind in kinds)] for subset in subsets],
        [explained, f"[a, b]: 95 % interval over images{'; the difference is paired by image' * (GAIN in kinds)}."],
    )
    frames = {end: figure.data for end, figure in figures.items()}
    return Content({end: figure.png for end, figure in figures.items()}, frames, [table])


def _pictures(study: Study, published: Published, wanted: Sequence[Found]) -> Content:
    rows = [row for row in wanted if row.whole]
    pairs = matched(_images(study, rows), published.pairs.stop)[published.pairs.start :]
    if not pairs:
        first, last = published.pairs.start + 1, published.pairs.stop
        raise StageError(
            f"shows pairs {first} to {last} of a real and a fake image; the test split of {study.dataset!r} has fewer."
        )
    bands, about = [], []
    for kind in published.classes:
        band = []
        for pair in pairs:
            row = pair.images[kind]
            column = Column(kind, pair.subset, [_example(study, each, row) for each in rows])
            band.append(column)
            about += [
                (pair.subset, kind, pair.both, one.image_id, row["path"], each.name, one.caption, one.shift, one.lpips)
                for each, one in zip(rows, column.examples, strict=True)
            ]
        bands.append(band)
    picture = columns_plate(bands, [row.name for row in rows], _missing(wanted))
    return Content({"": picture}, {"": pl.DataFrame(about, _EXAMPLES, orient="row")}, [])


def _images(study: Study, rows: Sequence[Found]) -> pl.DataFrame:
    """The test images that all rows have maps of, with their captions in the first row."""
    shards = study.shards("test")
    images = study.index.frame().filter(pl.col("shard").is_in(shards), pl.col("error").is_null())
    failed = [each.image_id for row in rows if row.maps for each in row.maps.failures(shards)]
    captions = rows[0].maps.upstream.get("captions") if rows[0].maps else None
    images = images.filter(~pl.col("image_id").is_in(failed))
    if captions is None:
        return images.with_columns(caption=pl.lit(None, pl.String))
    said = read_outputs(captions, shards).select("image_id", "caption").unique("image_id")
    return images.join(said, on="image_id", how="left")


def _example(study: Study, row: Found, image: dict[str, Any]) -> Example:
    assert row.maps is not None
    (record,) = row.maps.records([image["shard"]]).values()
    found = example(TarReader(row.maps.output(record)), image, study.index, row.settings)
    if found.reconstruction is None:
        raise ConfigError(f"{row.maps.store.url}: holds no x̂ to show; it takes reconstruct.keep_reconstruction=true.")
    return found


def listing(word: str, published: Sequence[Published], found: dict[int, list[Found]]) -> ResultTable:
    """What there is, and of a dataset which rows its runs fill. found: by number; empty: without a dataset."""
    rows = []
    for each in published:
        states = found.get(each.number, [])
        lacking = ", ".join(row.name for row in states if not row.whole)
        filled = f"{sum(row.whole for row in states)} of {len(states)}" + (f"; not {lacking}" if lacking else "")
        is_command = each.kind is Kind.compare
        rows.append([f"{word} {each.number}: {each.title}", "sare compare" if is_command else filled])
    columns = ["", "rows that are there"]
    if not found:
        rows, columns = [row[:1] for row in rows], [""]
    return ResultTable(f"The paper's {word}s", columns, rows, [])
