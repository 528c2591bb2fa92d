"""Images to captions: one parquet a shard (sare_core/captioning).

sare caption --dataset genimage --preset paper                 # all shards that are not done
sare caption --dataset genimage --preset paper --shard 3
sare caption --dataset photos --detector /shared/my-detector   # as that detector has it, the test split only
accelerate launch --num_processes 8 --multi_gpu -m stages.caption --dataset genimage --preset paper
"""

from sare_core.detectors.folder import open_detector
from sare_core.engine.manifest import read_index
from sare_core.graph import Graph, run_settings
from sare_core.miniature.foreign import refuse_foreign_images
from stages import options
from stages.precompute import precompute


def caption(
    dataset: options.Dataset,
    preset: options.OtherPreset = None,
    set_: options.Set = None,
    shard: options.Shard = None,
    work: options.Work = "work",
    manifests: options.Manifests = "manifests",
    detector: options.Detector = None,
    view: options.View = None,
    run_name: options.RunName = None,
) -> None:
    """Caption images: one parquet a shard."""
    index = read_index(manifests, dataset)
    settings = run_settings(index, preset, set_, detector, view, work)
    refuse_foreign_images([settings.caption.model], index)
    graph = Graph(settings, dataset, work)
    if detector is not None:
        graph.check(open_detector(detector, work))
    precompute(graph.caption_stages(index), graph, index, shard, preset, detector, run_name)


if __name__ == "__main__":
    options.run_command(caption)
