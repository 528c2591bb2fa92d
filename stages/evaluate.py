"""A detector to predictions and to tables of ACC and AUC (sare_core/evaluation).

    sare evaluate --dataset genimage --preset paper
    sare evaluate --dataset forensynths --preset paper --trained-on genimage       # Tables 3 and 4
    accelerate launch --num_processes 8 --multi_gpu -m stages.evaluate --dataset genimage --preset paper

Once all shards of the test split are predicted, beside them: metrics.csv, tables.md. With them comes the trivial
detector, which sees only format, size, aspect and bytes.
"""

from sare_core.config import load_settings
from sare_core.engine.manifest import read_index
from sare_core.engine.ranks import Rank
from sare_core.engine.runner import run
from sare_core.evaluation.predict import PredictStage
from sare_core.evaluation.results import write_tables
from sare_core.graph import Graph
from stages.options import (
    Dataset,
    Manifests,
    Preset,
    RunName,
    Set,
    Shard,
    TrainedOn,
    Work,
    console,
    finish,
    run_command,
)


def evaluate(
    dataset: Dataset,
    preset: Preset = "mini",
    set_: Set = None,
    shard: Shard = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    trained_on: TrainedOn = None,
    run_name: RunName = None,
) -> None:
    """Predict the test split and print ACC and AUC; beside the paper's where the images are the paper's."""
    index, source = read_index(manifests, dataset), read_index(manifests, trained_on or dataset)
    settings = load_settings(preset, set_, source.about["layout"])
    graph = Graph(settings, dataset, work)
    detector, best = Graph(settings, trained_on or dataset, work).trained_detector(source, preset)
    folder = graph.predictions(best)
    shards, wanted = graph.tested_shards(index), graph.tested_shards(index, shard)
    name = folder.describe(
        run_name,
        preset=preset,
        detector=detector.store.url,
        train_subsets=settings.train_subsets,
        splits=["test"],
    )
    outcome = run(PredictStage(settings, index, folder, graph.encoders, detector, best), index, wanted, console)
    states = folder.states({shard: index.digests[shard] for shard in shards})
    # No rank waits for the others: whichever finds all shards done writes the tables, and the bytes are the same.
    if all(state.kind == "done" for state in states.values()) and (Rank().first or outcome.done):
        write_tables(settings, index, source, folder, shards, preset, name)
    finish(outcome, folder.stage, f"{folder.store.url} ({name})")


if __name__ == "__main__":
    run_command(evaluate)
