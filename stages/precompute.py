"""What `sare caption` and `sare reconstruct` do alike."""

from collections.abc import Sequence

import typer

from sare_core.engine.manifest import Index
from sare_core.engine.runner import run
from sare_core.engine.stage import Stage
from sare_core.engine.terminal import console
from sare_core.graph import ALL_SPLITS, Graph
from stages.exits import tell_outcome
from stages.options import source_name


def precompute(
    stages: Sequence[Stage],
    graph: Graph,
    index: Index,
    shard: str | None,
    preset: str | None,
    detector: str | None,
    run_name: str | None,
) -> None:
    """Bring the shards of a stage up to date: all, or those of --shard; for a detector only those of the test split.

    stages: of the captions or maps that the detector of these settings reads; of most detectors one.
    """
    splits = ["test"] if detector else list(ALL_SPLITS)
    shards = graph.shards(index, splits, shard)
    subsets = graph.settings.train_subsets
    complete = True
    for stage in stages:
        folder = stage.folder
        name = folder.describe(run_name, preset=source_name(preset, detector), splits=splits, train_subsets=subsets)
        outcome = run(stage, index, shards, console)
        tell_outcome(outcome, folder.stage, f"{folder.store.url} ({name})")
        complete = complete and outcome.complete
    if not complete:
        raise typer.Exit(1)
