"""Once more, the images that failed, in shards that are done: a disk that was away, a file that was mended.

    sare retry-failed --dataset genimage --preset paper
    sare retry-failed --dataset genimage --preset paper --shard 3
    sare retry-failed --dataset photos --detector /shared/my-detector

The captions and maps of all other images stay as they are, word for word and byte for byte. An image that gets its
caption now gets its map now, too. Files that `sare index` could not read: run `sare index` again.
"""

import typer

from sare_core.engine.manifest import read_index
from sare_core.engine.runner import run
from sare_core.engine.stage import Stage
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from sare_core.graph import Graph, run_settings
from stages.exits import tell_failed
from stages.options import Dataset, Detector, Manifests, OtherPreset, Set, Shard, View, Work, run_command


def retry_failed(
    dataset: Dataset,
    preset: OtherPreset = None,
    set_: Set = None,
    shard: Shard = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    detector: Detector = None,
    view: View = None,
) -> None:
    """Do the failed images of finished shards once more, and nothing else. Exits with 1 when some fail again."""
    index = read_index(manifests, dataset)
    graph = Graph(run_settings(index, preset, set_, detector, view, work), dataset, work)
    shards = graph.shards(index, wanted=shard)
    maps = graph.reconstruct_stages(index)
    read = {folder.fingerprint for stage in maps for folder in stage.folder.upstream.values()}
    stages: list[Stage] = [*(stage for stage in graph.caption_stages(index) if stage.folder.fingerprint in read), *maps]
    if not any(stage.folder.ledger.entries(shards)[0] for stage in stages):
        raise ConfigError(
            f"{work}: nothing was captioned or reconstructed of {dataset!r} with these settings. `sare ls` shows what "
            "was; give the --preset, --set, --detector and --view of that run."
        )
    left = changed = 0
    for stage in stages:
        folder = stage.folder
        before = folder.failures(shards)
        outcome = run(stage, index, shards, console, retry=True)
        after = folder.failures(shards)
        console.print(
            f"{folder.stage}: {len(outcome.done)} shards lacked images; {len(before)} images had failed, "
            f"{len(after)} still do. {folder.store.url}",
            soft_wrap=True,
        )
        for failure in sorted(after, key=lambda failure: failure.path)[:5]:
            console.print(f"  {failure.path}: {failure.reason}", soft_wrap=True)
        tell_failed(outcome)
        left, changed = left + len(after) + len(outcome.failed), changed + len(outcome.done)
    if changed:
        console.print("Detectors and predictions that were made from these shards: run train and evaluate again.")
    if left:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(retry_failed)
