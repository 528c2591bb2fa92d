"""What `sare evaluate --views` does: one detector, the test images looked at in many ways, each stage in turn."""

import polars as pl
import typer

from sare_core.config.stored import changed
from sare_core.detectors.folder import DetectorFolder
from sare_core.engine.manifest import Index
from sare_core.engine.runner import run
from sare_core.engine.stage import Stage
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, StageError, needs_extra
from sare_core.evaluation.metrics import has_both_classes
from sare_core.evaluation.results import read_outputs, trained_generators
from sare_core.evaluation.tables import to_terminal
from sare_core.graph import Graph, Scoring
from sare_core.miniature.foreign import refuse_foreign_images
from sare_core.report.views import write_views
from sare_core.store.storage import Store
from stages.exits import tell_outcome


def evaluate_views(
    index: Index,
    scored: Scoring,
    views: list[str],
    work: str,
    origin: str,
    preset: str,
    run_name: str | None,
    make: bool,
) -> None:
    """Predict the test images in each view, and in that of the settings, then write and print what comes of it.

    make: caption and reconstruct what is missing for that. Raises StageError: something is missing.
    """
    with needs_extra("report"):  # before the stages, which take long
        import matplotlib as mpl  # noqa: F401
    settings, detector, source = scored
    dataset, base = index.about["dataset"], settings.view
    if set(views) <= {base}:
        raise ConfigError(f"--views: names no view but {base}, that of the detector itself.")
    test = index.frame().filter(pl.col("split") == "test", pl.col("error").is_null())
    if not has_both_classes(test):
        raise ConfigError(
            f"--views: no generator of {dataset!r} has both real and fake test images, so there is no AUC to draw. "
            "Predict one view at a time, with --view."
        )
    graphs = {view: Graph(changed(settings, {"view": view}), dataset, work) for view in dict.fromkeys([base, *views])}
    shards = graphs[base].tested_shards(index)
    for graph in graphs.values():
        graph.check(detector)
    made = {view: _maps(graph, index) for view, graph in graphs.items()}
    if make and any(made.values()):
        refuse_foreign_images([settings.caption.model, settings.reconstruct.model], index)
    if not make:
        missing = [v for v, stages in made.items() if any(stage.folder.undone(index, shards) for stage in stages)]
        _require_maps(missing, int(index.select(["test"])["images"].sum()), dataset, detector, work)
    predictions = {}
    for view, graph in graphs.items():
        stage = graph.predict(index, detector)
        for each in [*(made[view] if make else []), stage]:
            folder = each.folder
            if not folder.undone(index, shards):
                continue
            notes = {"detector": detector.store.url} if each is stage else {}
            name = folder.describe(
                run_name, preset=preset, train_subsets=settings.train_subsets, splits=["test"], **notes
            )
            outcome = run(each, index, shards, console)
            tell_outcome(outcome, f"{view}: {folder.stage}", f"{folder.store.url} ({name})")
            if not outcome.complete:
                raise typer.Exit(1)
        predictions[view] = read_outputs(stage.folder, shards)
    store = Store(work).at(f"{dataset}/report/{graphs[base].predictions(detector.best).fingerprint}")
    title = f"{dataset}, {origin}: {settings.detector.detector}, trained on {base} images"
    trained, copies = trained_generators(settings, source), settings.evaluate.near_copies
    written = write_views(store, title, base, predictions, trained, copies)
    console.print(to_terminal(written.table, console.width))
    console.print(f"written: {', '.join(written.files)}", soft_wrap=True)


def _maps(graph: Graph, index: Index) -> list[Stage]:
    """The stages that make the maps that the detector reads, captions first where these read some."""
    maps = graph.reconstruct_stages(index) if graph.maps else []
    read = {before.fingerprint for stage in maps for before in stage.folder.upstream.values()}
    return [*(stage for stage in graph.caption_stages(index) if stage.folder.fingerprint in read), *maps]


def _require_maps(views: list[str], images: int, dataset: str, detector: DetectorFolder, work: str) -> None:
    """Raises StageError, with the commands that make them, unless all views have their maps."""
    if views:
        named = f"--dataset {dataset} --detector {detector.reference(work)}"
        commands = "\n".join(f"  sare {stage} {named} --view {views[0]}" for stage in ("caption", "reconstruct"))
        number = "1 view" if len(views) == 1 else f"{len(views)} views"
        raise StageError(
            f"the maps of {number} are not made ({', '.join(views)}), of {images:,} test images each. Add "
            "--make-maps to make them here, one view after the other; or run for each view, on a cluster perhaps:\n"
            f"{commands}"
        )
