"""Images and captions to SARE maps: one webdataset tar a shard (sare_core/reconstruction).

sare plan --dataset genimage --preset paper                    # what would be done, and what it takes
sare reconstruct --dataset genimage --preset paper --shard 3
accelerate launch --num_processes 8 --multi_gpu -m stages.reconstruct --dataset genimage --preset paper
"""

from sare_core.config import load_settings
from sare_core.engine.manifest import read_index
from sare_core.engine.runner import run
from sare_core.engine.selection import chosen_shards
from sare_core.graph import ALL_SPLITS, Graph
from sare_core.miniature.foreign import refuse_foreign_images
from stages.options import Dataset, Manifests, Preset, RunName, Set, Shard, Work, console, finish, run_command


def reconstruct(
    dataset: Dataset,
    preset: Preset = "mini",
    set_: Set = None,
    shard: Shard = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    run_name: RunName = None,
) -> None:
    """Reconstruct images under their captions: one tar of SARE maps a shard."""
    index = read_index(manifests, dataset)
    settings = load_settings(preset, set_, index.about["layout"])
    refuse_foreign_images([settings.reconstruct.model], index)
    graph = Graph(settings, dataset, work)
    folder = graph.reconstructions
    shards = chosen_shards(index, ALL_SPLITS, settings.train_subsets, shard)
    name = folder.describe(
        run_name, preset=preset, model=settings.reconstruct.model, train_subsets=settings.train_subsets
    )
    finish(run(graph.reconstruct(index), index, shards, console), folder.stage, f"{folder.store.url} ({name})")


if __name__ == "__main__":
    run_command(reconstruct)
