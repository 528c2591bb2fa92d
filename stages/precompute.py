"""What `sare caption` and `sare reconstruct` do alike."""

from sare_core.engine.manifest import Index
from sare_core.engine.runner import run
from sare_core.engine.stage import Stage
from sare_core.engine.terminal import console
from sare_core.graph import ALL_SPLITS, Graph
from stages.exits import finish
from stages.options import source_name


def precompute(
    stage: Stage,
    graph: Graph,
    index: Index,
    shard: str | None,
    preset: str | None,
    detector: str | None,
    run_name: str | None,
) -> None:
    """Bring a stage's shards up to date: all, or those of --shard; for a detector only those of the test split."""
    folder, splits = stage.folder, ["test"] if detector else list(ALL_SPLITS)
    shards = graph.shards(index, splits, shard)
    subsets = graph.settings.train_subsets
    name = folder.describe(run_name, preset=source_name(preset, detector), splits=splits, train_subsets=subsets)
    finish(run(stage, index, shards, console), folder.stage, f"{folder.store.url} ({name})")
