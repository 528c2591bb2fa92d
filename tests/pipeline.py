"""A pipeline in one process: the stages' own functions on a small dataset, for tests that look at what they leave."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from sare_core.config import Settings
from sare_core.detectors.folder import open_detector
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index, read_index
from sare_core.engine.runner import run
from sare_core.engine.stage import Outcome
from sare_core.graph import Graph
from sare_core.index.indexing import build_index
from sare_core.training.loop import train_detector

QUIET = Console(quiet=True)


@dataclass
class Pipeline:
    """One dataset, its indexes and its work folder."""

    settings: Settings
    manifests: str
    work: str
    dataset: str = "tree"
    compact_from: int = 1000  # records on a disk that are gathered in one file; for processes of tests.faults.worker

    def index(self, root: Path, layout: str = "genimage", shard_size: int = 8) -> Index:
        return build_index(self.dataset, layout, str(root), self.manifests, shard_size, workers=1).index

    def shards(self) -> list[int]:
        return read_index(self.manifests, self.dataset).shards["shard"].to_list()

    def captions(self, shards: list[int] | None = None) -> Outcome:
        return self._precompute(self.graph.caption, shards)

    def reconstructions(self, shards: list[int] | None = None) -> Outcome:
        return self._precompute(self.graph.reconstruct, shards)

    @property
    def graph(self) -> Graph:
        return Graph(self.settings, self.dataset, self.work)

    def _precompute(self, stage_of: Any, shards: list[int] | None) -> Outcome:
        index = read_index(self.manifests, self.dataset)
        stage = stage_of(index)
        stage.folder.describe(preset="test", train_subsets=self.settings.train_subsets)
        return run(stage, index, self.shards() if shards is None else shards, QUIET)

    def detector(self) -> Folder:
        index = read_index(self.manifests, self.dataset)
        graph = self.graph
        parts, folder = graph.training_data(index), graph.detector_of(index)
        folder.describe(preset="test")
        train_detector(self.settings, graph.encoders, *parts, folder, folder.store.url)
        return folder

    def predictions(self, detector: Folder) -> Outcome:
        index = read_index(self.manifests, self.dataset)
        stage = self.graph.predict(index, open_detector(detector.store.url, self.work))
        folder = stage.folder
        folder.describe(preset="test", train_subsets=self.settings.train_subsets, splits=["test"])
        return run(stage, index, index.select(["test"])["shard"].to_list(), QUIET)


def outputs(work: str | Path) -> dict[str, bytes]:
    """Every tar, parquet and safetensors that stages made below a work folder, by its path there."""
    kinds = {".tar", ".parquet", ".safetensors"}
    return {
        str(p.relative_to(work)): p.read_bytes()
        for p in sorted(Path(work).rglob("*"))
        if p.suffix in kinds and not p.name.startswith("records-")
    }
