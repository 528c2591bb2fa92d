"""The stage from a detector to predictions, one parquet a shard of the test split.

A prediction: image_id, subset, label, logit, score = sigmoid(logit).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from sare_core.config import Settings
from sare_core.detectors.folder import DetectorFolder
from sare_core.detectors.parts import read_parts
from sare_core.engine.checkpoints import load_tensors
from sare_core.engine.flow import Row, in_batches
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.shardfiles import ParquetWriter, TarReader
from sare_core.models.weights import Weights, fetch

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("subset", pa.string()),
        ("label", pa.int8()),
        ("logit", pa.float32()),
        ("score", pa.float32()),
    ]
)


class PredictStage:
    suffix, fields, shards_together = ".parquet", tuple(SCHEMA.names), 1

    def __init__(
        self,
        settings: Settings,
        index: Index,
        folder: Folder,
        encoders: dict[str, Weights],
        detector: DetectorFolder,
    ) -> None:
        self.settings, self.index, self.folder = settings, index, folder
        self.encoders, self.detector = encoders, detector
        self.readers = dict[int, dict[str, TarReader]]()  # by shard and role

    def load(self, device: str) -> None:
        from sare_core.detectors.trained import TrainedDetector

        encoders = {role: fetch(encoder) for role, encoder in self.encoders.items()}
        tensors = load_tensors(self.detector.store, self.detector.best)
        self.trained = TrainedDetector(self.settings.detector, encoders, tensors, device, self.settings.evaluate.dtype)

    def begin(self, sources: dict[int, dict[str, Path]]) -> None:
        for shard, files in sources.items():
            self.readers[shard] = {role: TarReader(path) for role, path in files.items()}

    def end(self, shards: list[int]) -> None:
        for shard in shards:
            self.readers.pop(shard, None)

    def ran(self) -> dict[str, int]:
        return {}

    def open(self, path: Path) -> ParquetWriter:
        return ParquetWriter(path, SCHEMA)

    def keeps(self, row: dict[str, Any], sample: dict[str, Any]) -> bool:
        return False  # the map may be another

    def batches(self, rows: list[Row]) -> Sequence[Sequence[Row]]:
        return in_batches(rows, self.settings.evaluate.batch_size)

    def read(self, row: dict[str, Any]) -> Any:
        kind, root = type(self.trained.model), self.index.about["root"]
        return self.trained.prepare(
            read_parts(kind, self.readers[row["shard"]], root, row, self.settings.view, scoring=True)
        )

    def collate(self, items: list[Any]) -> Any:
        return self.trained.collate(items)

    def process(self, batch: Any) -> list[Any]:
        logits = self.trained.logits_of(batch)
        return list(zip(logits.tolist(), logits.sigmoid().tolist(), strict=True))

    def encode(self, row: dict[str, Any], item: Any, result: tuple[float, float]) -> dict[str, Any]:
        logit, score = result
        about = {key: row[key] for key in ("image_id", "subset", "label")}
        return about | {"logit": logit, "score": score}
