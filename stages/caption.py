"""Images to captions: one parquet a shard (sare_core/captioning).

sare caption --dataset genimage --preset paper                 # all shards that are not done
sare caption --dataset genimage --preset paper --shard 3
sare caption --dataset photos --detector /shared/my-detector   # as that detector has it, the test split only
accelerate launch --num_processes 8 --multi_gpu -m stages.caption --dataset genimage --preset paper
"""

from sare_core.engine.manifest import read_index
from sare_core.engine.runner import run
from sare_core.engine.selection import chosen_shards
from sare_core.engine.terminal import console
from sare_core.graph import ALL_SPLITS, Graph, run_settings
from sare_core.miniature.foreign import refuse_foreign_images
from stages.exits import finish
from stages.options import (
    Dataset,
    Detector,
    Manifests,
    OtherPreset,
    RunName,
    Set,
    Shard,
    View,
    Work,
    run_command,
    source_name,
)


def caption(
    dataset: Dataset,
    preset: OtherPreset = None,
    set_: Set = None,
    shard: Shard = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    detector: Detector = None,
    view: View = None,
    run_name: RunName = None,
) -> None:
    """Caption images: one parquet a shard."""
    index = read_index(manifests, dataset)
    settings = run_settings(index, preset, set_, detector, view, work)
    refuse_foreign_images([settings.caption.model], index)
    graph = Graph(settings, dataset, work)
    folder = graph.captions
    splits = ["test"] if detector else list(ALL_SPLITS)
    shards = chosen_shards(index, splits, settings.train_subsets, shard)
    name = folder.describe(
        run_name,
        preset=source_name(preset, detector),
        splits=splits,
        train_subsets=settings.train_subsets,
    )
    finish(run(graph.caption(index), index, shards, console), folder.stage, f"{folder.store.url} ({name})")


if __name__ == "__main__":
    run_command(caption)
