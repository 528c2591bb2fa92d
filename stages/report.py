"""All that a run found, as one page to look at: pictures, tables, figures, settings.

    sare report --dataset mini --preset mini
    sare report --dataset forensynths --preset paper --trained-on genimage

Reads what the other stages left, and loads no model. Writes WORK/<dataset>/report/<fp of the predictions>/:
index.html, which needs nothing beside it; figures/*.png; tables/*.csv, the numbers behind tables and figures.
"""

from typing import Annotated

import polars as pl
import typer
import yaml

from sare_core.checkpoints import Checkpoint, read_checkpoint
from sare_core.config import load_settings
from sare_core.errors import ConfigError
from sare_core.manifest import Index, read_index
from sare_core.metrics import THRESHOLD
from sare_core.progress import bar
from sare_core.records import Folder
from sare_core.report.drawing import Figure
from sare_core.report.examples import LONGEST, examples
from sare_core.report.figures import gaps_figure, means_figure, mirror_figure, training_figure
from sare_core.report.measures import keep, measure_maps, read_kept, without_captions
from sare_core.report.numbers import histograms, semantic_shift
from sare_core.report.page import Page, render
from sare_core.report.provenance import failures, libraries, stage_row
from sare_core.report.tables import result_tables, to_csv
from sare_core.report.verdict import shift_sentences, verdict
from sare_core.storage import Store
from stages.evaluate import TrainedOn, read_results, tested_shards, trained_detector
from stages.evaluate import folder_of as predictions_folder
from stages.options import Dataset, Manifests, Preset, Set, Work, console, run_command

NAME = "report"
KEPT = "measures.parquet"
HISTORY = ("epoch", "train_loss", "loss", "accuracy", "auc")
MEASURED = {  # unit of the axes, and what the page says
    "lpips": ("LPIPS", "The shift is LPIPS between x and x̂, as in the paper."),
    "sare": (
        "mean |x − x̂| of 255 levels",
        "The shift is the mean of |x − x̂| over the stored maps, in 8-bit levels; the paper takes LPIPS, which these "
        "reconstructions do not hold (reconstruct.lpips).",
    ),
}


def report(
    dataset: Dataset,
    preset: Preset = "mini",
    set_: Set = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    trained_on: TrainedOn = None,
    out: Annotated[
        str | None, typer.Option("--out", help="Folder or URL of the report. Default: in the work folder.")
    ] = None,
) -> None:
    """Write a page of all that a run found: pictures, tables, figures, settings."""
    settings, index = load_settings(preset, set_), read_index(manifests, dataset)
    source = read_index(manifests, trained_on or dataset)
    detector, best = trained_detector(settings, source, work, preset)
    predictions = predictions_folder(settings, dataset, work, best)
    reconstructions = predictions.upstream
    assert reconstructions is not None and reconstructions.upstream is not None
    shards = tested_shards(settings, index)
    require_done(predictions, index, shards, f"--dataset {dataset} --preset {preset} (with the same --set)")
    store = Store(out or f"{work}/{dataset}/{NAME}/{predictions.fingerprint}")

    results = read_results(settings, index, source, predictions, shards)
    plain_folder, plain_reason = without_captions(reconstructions, index, shards)
    kept = read_kept(store, KEPT)
    with bar(console, NAME, len(results.predictions) * (2 if plain_folder else 1)) as advance:
        captioned = measure_maps(reconstructions, shards, kept, advance)
        plain = measure_maps(plain_folder, shards, kept, advance) if plain_folder else None
    keep(store, KEPT, captioned if plain is None else pl.concat([captioned, plain]))

    missing = {}
    if not settings.reconstruct.keep_reconstruction:
        missing["reconstruction"] = "x̂ is not shown: these shards do not keep it (reconstruct.keep_reconstruction)."
    if plain is None:
        missing["shift"] = f"{plain_reason} To compare, run caption and reconstruct with --set caption.captioner=none."
    shift_figures, distributions, sentences, measured = [], [], [], ""
    if captioned["label"].drop_nulls().n_unique() == 2:
        shift = semantic_shift(captioned, plain)
        unit, measured = MEASURED[shift.measure]
        shift_figures = [means_figure(shift.means, unit)] + ([gaps_figure(shift.gaps, unit)] if len(shift.gaps) else [])
        sentences = shift_sentences(shift)
        scores = histograms(results.predictions, "score", 0, 1)
        largest = float(captioned["sare"].quantile(0.995) or 1)
        maps = histograms(captioned, "sare", 0, largest)
        distributions = [
            mirror_figure("scores", scores, "score (0 real, 1 fake)", "scores", THRESHOLD),
            mirror_figure("maps", maps, "mean |x − x̂| of an image, of 255 levels", "the mean of SARE maps"),
        ]
    else:
        missing["shift"] = missing["distributions"] = "Left out: it takes labelled images of both classes."

    trained = (
        set(settings.train_subsets or source.select(["train"])["subset"])
        if source.store.url == index.store.url
        else set()
    )
    folders = [reconstructions.upstream, reconstructions, detector, predictions]
    training, training_sentence = training_curve(detector, best)
    page = Page(
        dataset=dataset,
        preset=preset,
        trained_on=", ".join(settings.train_subsets or ["all subsets"]) + (f" of {trained_on}" if trained_on else ""),
        images=len(results.predictions),
        note=settings.note,
        verdict=verdict(results.predictions, results.runs, trained),
        groups=examples(reconstructions, index, results.predictions, captioned, settings),
        reduced=settings.reconstruct.longer_side > LONGEST,
        tables=result_tables(f"{dataset}, preset {preset}", results.runs, index.about["layout"]),
        notes=[note for note in results.notes if note != settings.note],
        shift=shift_figures,
        shift_measure=measured,
        shift_sentences=sentences,
        distributions=distributions,
        training=training,
        training_sentence=training_sentence,
        missing=missing,
        settings=yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        stages=[stage_row(folder) for folder in folders],
        failures=failures(folders),
        libraries=libraries(folders),
    )
    for figure in [*shift_figures, *distributions, training]:
        store.write(f"figures/{figure.name}.png", figure.png)
        store.write(f"tables/{figure.name}.csv", figure.data.write_csv().encode())
    store.write("tables/metrics.csv", to_csv(results.runs).encode())
    store.write("index.html", render(page).encode())
    console.print(f"report: {store.path('index.html')}", soft_wrap=True)


def require_done(folder: Folder, index: Index, shards: list[int], arguments: str) -> None:
    """Raises ConfigError, naming the command to run, unless every shard has its predictions."""
    states = folder.states({shard: index.digests[shard] for shard in shards})
    undone = [shard for shard, state in states.items() if state.kind != "done"]
    if undone:
        first = states[undone[0]]
        command = "sare reconstruct" if first.waiting else "sare evaluate"
        raise ConfigError(
            f"{folder.store.url}: {len(undone)} of {len(shards)} test shards have no predictions, the first is "
            f"{undone[0]} ({first}). Run: {command} {arguments}."
        )


def training_curve(detector: Folder, best: Checkpoint) -> tuple[Figure, str]:
    """The curve of the whole training, and a sentence on the epoch that was chosen."""
    last = read_checkpoint(detector.store, "last")
    assert last is not None
    history = pl.DataFrame(last.history, schema=dict.fromkeys(HISTORY, pl.Float64))
    chosen = best.history[-1]
    epoch = int(chosen["epoch"] or 0)
    if chosen["accuracy"] is None:
        why = "as the last one: no images were held out to choose by"
    else:
        auc = "undefined" if chosen["auc"] is None else f"{100 * chosen['auc']:.1f} %"
        why = f"for its accuracy on held-out training images, {100 * chosen['accuracy']:.1f} % (AUC {auc})"
    return training_figure(history, epoch), f"Epoch {epoch} of {len(history)} was chosen {why}."


if __name__ == "__main__":
    run_command(report)
