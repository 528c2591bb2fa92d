"""A detector to predictions and to tables of metrics (sare_core/evaluation; docs/evaluation.md).

    sare evaluate --dataset genimage --preset paper
    sare evaluate --dataset forensynths --preset paper --trained-on genimage       # Tables 3 and 4
    sare evaluate --dataset forensynths --detector /shared/detectors/0123456789ab --view jpeg:70
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
from sare_core.evaluation.results import metric_names, write_tables
from sare_core.graph import Graph, scoring
from stages import options
from stages.exits import finish
from stages.options import run_command

Metrics = Annotated[
    str | None, typer.Option("--metrics", help="What is printed: all, or names as auc,eer,cllr. Files hold all.")
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
) -> None:
    """Predict the test split and print ACC and AUC of each generator; all metrics go to files."""
    shown = metric_names(metrics)
    index = read_index(manifests, dataset)
    settings, found, source = scoring(index, manifests, trained_on, preset, set_, detector, view, work)
    graph = Graph(settings, dataset, work)
    graph.check(found)
    stage = graph.predict(index, found)
    folder, shards, wanted = stage.folder, graph.tested_shards(index), graph.tested_shards(index, shard)
    name = folder.describe(
        run_name,
        preset=((detector and found.about.runs) or [options.source_name(preset, detector)])[-1],
        detector=found.store.url,
        train_subsets=settings.train_subsets,
        splits=["test"],
    )
    outcome = run(stage, index, wanted, console)
    # No rank waits for the others: whichever finds all shards done writes the tables, and the bytes are the same.
    if not folder.undone(index, shards) and (Rank().first or outcome.done):
        origin, threshold = options.origin(preset, detector), found.threshold
        write_tables(settings, index, source, folder, shards, origin, name, threshold, shown)
    finish(outcome, folder.stage, f"{folder.store.url} ({name})")


if __name__ == "__main__":
    run_command(evaluate)
