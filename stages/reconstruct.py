"""Images and captions to SARE maps: one webdataset tar a shard (sare_core/reconstruction).

sare reconstruct --dataset genimage --preset paper --shard 3
sare reconstruct --dataset genimage --preset paper --set reconstruct.method=autoencoder     # needs no captions
sare reconstruct --dataset photos --detector /shared/my-detector     # as that detector has it, the test split only
accelerate launch --num_processes 8 --multi_gpu -m stages.reconstruct --dataset genimage --preset paper
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


def reconstruct(
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
    """Reconstruct images under their captions: one tar of SARE maps a shard."""
    index = read_index(manifests, dataset)
    settings = run_settings(index, preset, set_, detector, view, work)
    refuse_foreign_images([settings.reconstruct.model], index)
    graph = Graph(settings, dataset, work)
    folder = graph.reconstructions
    splits = ["test"] if detector else list(ALL_SPLITS)
    shards = chosen_shards(index, splits, settings.train_subsets, shard)
    name = folder.describe(
        run_name,
        preset=source_name(preset, detector),
        splits=splits,
        train_subsets=settings.train_subsets,
    )
    finish(run(graph.reconstruct(index), index, shards, console), folder.stage, f"{folder.store.url} ({name})")


if __name__ == "__main__":
    run_command(reconstruct)
