"""A detector to predictions and to tables of metrics (sare_core/evaluation; docs/evaluation.md).

    sare evaluate --dataset genimage --preset paper
    sare evaluate --dataset forensynths --preset paper --trained-on genimage       # Tables 3 and 4
    sare evaluate --dataset forensynths --detector /shared/detectors/0123456789ab --view jpeg:70
    sare evaluate --dataset genimage --preset paper --views jpeg:95..50,blur,square      # curves; raw is always there
    accelerate launch --num_processes 8 --multi_gpu -m stages.evaluate --dataset genimage --preset paper

Once all shards of the test split are predicted, beside them: metrics.csv, metrics.json, tables.md. With them comes the
trivial detector, which sees only format, size, aspect and bytes.
"""

from typing import Annotated

import typer

from sare_core.engine.manifest import read_index
from sare_core.engine.ranks import Rank
from sare_core.engine.runner import run
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from sare_core.evaluation.results import metric_names, write_tables
from sare_core.graph import Graph, scoring
from sare_core.images.grids import expand_views
from stages import options
from stages.exits import finish
from stages.options import run_command
from stages.views import evaluate_views

Metrics = Annotated[
    str | None, typer.Option("--metrics", help="What is printed: all, or names as auc,eer,cllr. Files hold all.")
]

ViewList = Annotated[
    str | None,
    typer.Option(
        "--views",
        callback=options.filled,
        help="Many views in turn, for curves: jpeg:95..50,webp,blur:1, or usual for all usual places.",
    ),
]
MakeMaps = Annotated[
    bool, typer.Option("--make-maps", help="With --views: caption and reconstruct what the views still lack.")
]


def evaluate(
    dataset: options.Dataset,
    preset: options.OtherPreset = None,
    set_: options.Set = None,
    shard: options.Shard = None,
    work: options.Work = "work",
    manifests: options.Manifests = "manifests",
    trained_on: options.TrainedOn = None,
    detector: options.Detector = None,
    view: options.View = None,
    run_name: options.RunName = None,
    metrics: Metrics = None,
    views: ViewList = None,
    make_maps: MakeMaps = False,
) -> None:
    """Predict the test split and print ACC and AUC of each generator; all metrics go to files."""
    shown = metric_names(metrics)
    if views is not None and (view, shard, metrics) != (None, None, None):
        raise ConfigError("--views goes without --view, --shard and --metrics: it takes all test images in each view.")
    index = read_index(manifests, dataset)
    settings, found, source = scored = scoring(index, manifests, trained_on, preset, set_, detector, view, work)
    origin = options.origin(preset, detector)
    preset_name = ((detector and found.about.runs) or [options.source_name(preset, detector)])[-1]
    if views is not None:
        evaluate_views(index, scored, expand_views(views), work, origin, preset_name, run_name, make_maps)
        return
    graph = Graph(settings, dataset, work)
    graph.check(found)
    stage = graph.predict(index, found)
    folder, shards, wanted = stage.folder, graph.tested_shards(index), graph.tested_shards(index, shard)
    subsets = settings.train_subsets
    name = folder.describe(
        run_name, preset=preset_name, detector=found.store.url, train_subsets=subsets, splits=["test"]
    )
    outcome = run(stage, index, wanted, console)
    # No rank waits for the others: whichever finds all shards done writes the tables, and the bytes are the same.
    if not folder.undone(index, shards) and (Rank().first or outcome.done):
        write_tables(settings, index, source, folder, shards, origin, name, found.threshold, shown)
    finish(outcome, folder.stage, f"{folder.store.url} ({name})")


if __name__ == "__main__":
    run_command(evaluate)
