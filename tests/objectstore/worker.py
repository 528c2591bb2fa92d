"""Stages in processes that can be killed, on an object store: as tests.faults.worker, but with an environment."""

import os
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess

import stamina

from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index, read_index
from sare_core.index.indexing import build_index
from sare_core.store.storage import Store
from sare_core.training.loop import train_detector
from tests.faults import worker
from tests.forked import context
from tests.pipeline import Pipeline


@dataclass
class Remote(Pipeline):
    """A pipeline whose images, indexes and work lie on an object store."""

    environment: dict[str, str] = field(default_factory=dict)

    def index(self, root: str, layout: str = "genimage", shard_size: int = 20) -> Index:  # type: ignore[override]
        return build_index(self.dataset, layout, root, self.manifests, shard_size, workers=1).index

    def detector(self) -> Folder:
        index = read_index(self.manifests, self.dataset)
        graph = self.graph
        parts, folder = graph.training_data(index), graph.detector_of(index)
        folder.describe(preset="test")
        train_detector(
            self.settings, graph.encoders, *parts, folder, os.environ["SARE_SPOOL"]
        )  # its curves are for a disk
        return folder

    def outputs(self) -> dict[str, bytes]:
        """As tests.pipeline.outputs; without the gathered records, which hold times."""
        store = Store(self.work)
        names = [name.removeprefix(f"{store._root}/") for name in store._fs.find(store._root)]
        kinds = (".tar", ".parquet", ".safetensors")
        return store.read_many(sorted(n for n in names if n.endswith(kinds) and "/records-" not in n))

    def start(self, stage: str, points: tuple[str, ...] = ()) -> ForkServerProcess:
        """Start a stage; it is killed at the first of the points."""
        process = context.Process(target=_work, args=(self, stage, points))
        process.start()
        return process

    def finish(self, stage: str, points: tuple[str, ...] = ()) -> int | None:
        """Run a stage to its end; its exit code, negative when a signal ended it."""
        process = self.start(stage, points)
        process.join()
        return process.exitcode


def _work(pipeline: Remote, stage: str, points: tuple[str, ...]) -> None:
    os.environ.update(pipeline.environment)
    with stamina.set_testing(True, attempts=100, cap=True):  # as many attempts, without the pauses
        worker._work(pipeline, stage, points, 1, 9)


def holds_what_it_names(folder: Folder) -> bool:
    """No record names an output that is not there."""
    records = folder.records().values()
    return all(record.output is None or folder.store.exists(record.output.name) for record in records)
