"""The report as a whole: what every other module of this folder finds, written as one page with its files."""

from typing import NamedTuple

import polars as pl
import yaml

from sare_core.config import Settings
from sare_core.detectors.folder import DetectorFolder
from sare_core.engine.checkpoints import read_checkpoint
from sare_core.engine.folders import COMMANDS, Folder
from sare_core.engine.manifest import Index
from sare_core.engine.progress import bar
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, needs_extra
from sare_core.evaluation.intervals import Run, measure_runs
from sare_core.evaluation.metrics import CLASS_ONLY
from sare_core.evaluation.results import read_outputs, read_results
from sare_core.evaluation.tables import result_tables, to_csv
from sare_core.graph import Graph
from sare_core.report.examples import examples
from sare_core.report.measures import keep, measure_maps, read_kept, without_captions
from sare_core.report.page import render
from sare_core.report.parts import distributions_part, shift_part, training_part
from sare_core.report.plate import examples_plate
from sare_core.report.premise import premise_part
from sare_core.report.provenance import failures, libraries, stage_row
from sare_core.report.verdict import closing, gain_sentence, gains_over, verdict
from sare_core.store.storage import Store

NAME = "report"


class Report(NamedTuple):
    """What was written: the result in sentences, and where the page is."""

    result: list[str]
    page: str


Controls = dict[str, tuple[Settings, DetectorFolder]]  # by what each has in place of the map


def write_report(
    settings: Settings,
    index: Index,
    detector: DetectorFolder,
    trained_on: Index | None,
    work: str,
    origin: str,
    run: str | None,
    out: str | None,
    controls: Controls | None = None,
) -> Report:
    """Write the page, its figures and its tables to `out`, by default in the work folder.

    trained_on: the index of the detector's dataset, where it is at hand. origin: of the settings, as "preset mini".
    run: the name of the run; None: the latest of these predictions. controls: detectors to stand beside it.
    Raises ConfigError: no trained detector, test shards without predictions, an extra that is not installed.
    """
    with needs_extra("report"):  # before the maps are read, which takes long
        import jinja2  # noqa: F401
        import matplotlib as mpl  # noqa: F401

    dataset, source, best = index.about["dataset"], detector.about.dataset, detector.best
    graph, elsewhere = Graph(settings, dataset, work), source not in ("", dataset)
    last = read_checkpoint(detector.store, "last") or best
    predictions = graph.predictions(best)
    reconstructions = graph.reconstructions  # of a detector that reads no map, too: the page shows them
    shards = graph.tested_shards(index)
    arguments = f"--dataset {dataset} --{origin} (with the same --set)"
    for folder in (reconstructions, predictions):
        require_done(folder, index, shards, arguments)
    store = Store(out or f"{work}/{dataset}/{NAME}/{predictions.fingerprint}")

    run = run or predictions.runs()[-1]
    results = read_results(settings, index, trained_on, predictions, shards, run, detector.threshold)
    if results.predictions.is_empty():
        raise ConfigError(
            f"{predictions.store.url}: none of the test images has a prediction, so there is nothing to report. "
            "sare status shows why they failed."
        )
    beside, further = dict[str, pl.DataFrame](), list[Folder]()
    for name, (chosen, other) in (controls or {}).items():
        if name in results.runs or name.endswith("(paper)"):
            raise ConfigError(f"--control {name}: a row of the tables has that name; take another.")
        if other.folder().fingerprint == detector.folder().fingerprint:
            raise ConfigError(f"--control {name}: that setting makes this very detector.")
        folder = Graph(chosen, dataset, work).predictions(other.best)
        further += [other.folder(), folder]
        require_done(folder, index, shards, f"{arguments} --set … of {name}")
        beside[name] = read_outputs(folder, shards)
    variants, missing = measure(reconstructions, index, shards, store)
    measures = next(iter(variants.values()))
    shift = shift_part(variants, missing)
    distributions = distributions_part(results.predictions, measures)
    training = training_part(last, best)

    trained, copies = results.trained, settings.evaluate.near_copies
    seen = set() if elsewhere else set(trained)
    groups = examples(reconstructions, index, results.predictions, measures, settings)
    runs = results.runs | {name: measure_runs([Run(found)], trained, copies) for name, found in beside.items()}
    tables = result_tables(f"{dataset}, {origin}", runs, results.paper)
    ours = results.runs[results.name]
    gains = gains_over(results.predictions, beside, ours, seen, copies)
    said = [gain_sentence(name, gain) for name, gain in gains.items()]
    found = verdict(results.predictions, results.name, results.runs, seen, gains, copies)
    ending = closing(found.lead, said, shift.shift, ours, seen)
    folders = [*reconstructions.upstream.values(), reconstructions, detector.folder(), predictions, *further]
    shown = next((subset for subset in groups if subset in seen), next(iter(groups), None))
    page = render(
        dataset=dataset,
        preset=origin,
        run=run,
        detector=results.name,
        paper=any(row[0].endswith("(paper)") for row in tables[0].rows),
        trained_on=", ".join(trained) + (f" of {source}" if elsewhere else ""),
        images=len(results.predictions),
        note=settings.note,
        verdict=found,
        gains=said,
        class_only=sorted(CLASS_ONLY & set(ours["subset"])),
        premise=premise_part(index.about["root"]),
        closing=ending,
        groups=groups,
        shown=shown,
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
    if shown:
        store.write("figures/examples.png", examples_plate(shown, groups[shown]))
    store.write("tables/metrics.csv", to_csv(runs).encode())
    store.write("index.html", page.encode())
    return Report(ending, store.path("index.html"))


def measure(
    reconstructions: Folder, index: Index, shards: list[int], store: Store
) -> tuple[dict[str, pl.DataFrame], str]:
    """MEASURES of this run's maps, and of those without captions where there are any; else a sentence that says why."""
    captions = reconstructions.upstream.get("captions")
    silent = captions is None or captions.made_by["settings"]["captioner"] == "none"
    plain, missing = without_captions(reconstructions, index, shards)
    found = {"without" if silent else "with": reconstructions} | ({"without": plain} if plain else {})
    kept = read_kept(store)
    images = sum(record.ok for folder in found.values() for record in folder.records(shards).values())
    with bar(console, NAME, images) as advance:
        variants = {kind: measure_maps(folder, shards, kept, advance) for kind, folder in found.items()}
    keep(store, pl.concat(variants.values()))
    return variants, missing


def require_done(folder: Folder, index: Index, shards: list[int], arguments: str) -> None:
    """Raises ConfigError, naming the command to run, unless every shard is done."""
    if undone := folder.undone(index, shards):
        first, state = next(iter(undone.items()))
        raise ConfigError(
            f"{folder.store.url}: {len(undone)} of {len(shards)} test shards have no {folder.stage}, the first is "
            f"{first} ({state}). Run: sare {COMMANDS[folder.stage]} {arguments}."
        )
