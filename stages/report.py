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

from sare_core.engine.checkpoints import read_checkpoint
from sare_core.engine.folders import COMMANDS, Folder, check_run_name
from sare_core.engine.manifest import Index, read_index
from sare_core.engine.progress import bar
from sare_core.errors import ConfigError
from sare_core.evaluation.results import read_results
from sare_core.evaluation.tables import result_tables, to_csv
from sare_core.graph import Graph, chosen_detector, run_settings, source_of
from sare_core.report.examples import examples
from sare_core.report.measures import keep, measure_maps, read_kept, without_captions
from sare_core.report.page import Page, render
from sare_core.report.parts import distributions_part, shift_part, training_part
from sare_core.report.plate import examples_plate
from sare_core.report.provenance import failures, libraries, stage_row
from sare_core.report.verdict import result_sentence, verdict
from sare_core.store.storage import Store
from stages.options import (
    Dataset,
    Detector,
    Manifests,
    OtherPreset,
    RunName,
    Set,
    TrainedOn,
    View,
    Work,
    console,
    filled,
    run_command,
    source_name,
)

NAME = "report"
KEPT = "measures.parquet"
Out = Annotated[
    str | None, typer.Option("--out", callback=filled, help="Folder or URL of the report. Default: in the work folder.")
]


def report(
    dataset: Dataset,
    preset: OtherPreset = None,
    set_: Set = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    trained_on: TrainedOn = None,
    detector: Detector = None,
    view: View = None,
    out: Out = None,
    run_name: RunName = None,
) -> None:
    """Write a page of all that a run found: pictures, tables, figures, settings."""
    index = read_index(manifests, dataset)
    source = None if detector else read_index(manifests, trained_on or dataset)
    settings = run_settings(source or index, preset, set_, detector, view, work)
    found = chosen_detector(detector, preset, set_, source, work)
    source, best, preset = source or source_of(found, manifests), found.best, source_name(preset, detector)
    graph = Graph(settings, dataset, work)
    last = read_checkpoint(found.store, "last") or best
    predictions = graph.predictions(best)
    reconstructions = graph.reconstructions  # of a detector that reads no map, too: the page shows them
    shards = graph.tested_shards(index)
    which = f"--detector {detector}" if detector else f"--preset {preset}"
    for folder in (reconstructions, predictions):
        require_done(folder, index, shards, f"--dataset {dataset} {which} (with the same --set)")
    store = Store(out or f"{work}/{dataset}/{NAME}/{predictions.fingerprint}")

    run_name = predictions.runs()[-1] if run_name is None else check_run_name(run_name)
    results = read_results(settings, index, source, predictions, shards, run_name)
    if results.predictions.is_empty():
        raise ConfigError(
            f"{predictions.store.url}: none of the test images has a prediction, so there is nothing to report. "
            "sare status shows why they failed."
        )
    variants, missing = measure(reconstructions, index, shards, store)
    measures = next(iter(variants.values()))
    shift = shift_part(variants, missing)
    distributions = distributions_part(results.predictions, measures)
    training = training_part(last, best)

    everything = () if source is None else tuple(source.select(["train"])["subset"].unique().sort())
    trained = settings.train_subsets or everything
    elsewhere = found.about.dataset not in ("", dataset)
    seen = set() if elsewhere else set(trained)
    groups = examples(reconstructions, index, results.predictions, measures, settings)
    tables = result_tables(f"{dataset}, preset {preset}", results.runs, results.paper)
    folders = [reconstructions.upstream["captions"], reconstructions, found.folder(), predictions]
    page = Page(
        dataset=dataset,
        preset=preset,
        run=run_name,
        detector=results.name,
        paper=any(row[0].endswith("(paper)") for row in tables[0].rows),
        trained_on=", ".join(trained) + (f" of {found.about.dataset}" if elsewhere else ""),
        images=len(results.predictions),
        note=settings.note,
        verdict=verdict(results.predictions, results.name, results.runs, seen),
        groups=groups,
        tables=tables,
        notes=[note for note in results.notes if note != settings.note],
        shift=shift,
        distributions=distributions,
        training=training,
        settings=yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        stages=[stage_row(folder) for folder in folders],
        failures=failures(folders),
        libraries=libraries(folders),
    )
    for figure in [*shift.figures, *distributions.figures, *training.figures]:
        store.write(f"figures/{figure.name}.png", figure.png)
        store.write(f"tables/{figure.name}.csv", figure.data.write_csv().encode())
    if shown := next((subset for subset in groups if subset in seen), next(iter(groups), None)):
        store.write("figures/examples.png", examples_plate(shown, groups[shown]))
    store.write("tables/metrics.csv", to_csv(results.runs).encode())
    store.write("index.html", render(page).encode())
    console.print(result_sentence(results.name, results.runs, seen), soft_wrap=True)
    console.print(f"report: {store.path('index.html')}", soft_wrap=True)


def measure(
    reconstructions: Folder, index: Index, shards: list[int], store: Store
) -> tuple[dict[str, pl.DataFrame], str]:
    """MEASURES of this run's maps, and of those without captions where there are any; else a sentence that says why."""
    silent = reconstructions.upstream["captions"].made_by["settings"]["captioner"] == "none"
    plain, missing = without_captions(reconstructions, index, shards)
    found = {"without" if silent else "with": reconstructions} | ({"without": plain} if plain else {})
    kept = read_kept(store, KEPT)
    images = sum(record.ok for folder in found.values() for record in folder.records(shards).values())
    with bar(console, NAME, images) as advance:
        variants = {kind: measure_maps(folder, shards, kept, advance) for kind, folder in found.items()}
    keep(store, KEPT, pl.concat(variants.values()))
    return variants, missing


def require_done(folder: Folder, index: Index, shards: list[int], arguments: str) -> None:
    """Raises ConfigError, naming the command to run, unless every shard is done."""
    states = folder.states({shard: index.digests[shard] for shard in shards})
    undone = [shard for shard, state in states.items() if state.kind != "done"]
    if undone:
        first = states[undone[0]]
        command = f"sare {COMMANDS[folder.stage]}"
        raise ConfigError(
            f"{folder.store.url}: {len(undone)} of {len(shards)} test shards have no {folder.stage}, the first is "
            f"{undone[0]} ({first}). Run: {command} {arguments}."
        )


if __name__ == "__main__":
    run_command(report)
