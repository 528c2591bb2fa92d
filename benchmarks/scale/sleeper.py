"""A stage whose model sleeps: what is left of the time is the pipeline's own."""

import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from sare_core.engine.folders import Folder
from sare_core.engine.shardfiles import ParquetWriter

SCHEMA = pa.schema([("image_id", pa.string()), ("slept", pa.float64())])
DATASET = "made-up"


def folder_of(work: str) -> Folder:
    return Folder(work, DATASET, "captions", {"stage": "captions", "version": "sleeper"})


class SleepStage:
    """`seconds` a batch of 4 images. log: a line a shard in computed.txt, when its computing begins."""

    suffix, fields, shards_together = ".parquet", tuple(SCHEMA.names), 1

    def __init__(self, folder: Folder, seconds: float, log: bool = False) -> None:
        self.folder, self.seconds, self.log, self.slept = folder, seconds, log, 0.0

    def load(self, device: str) -> None:
        pass

    def begin(self, sources: dict[int, dict[str, Path]]) -> None:
        if self.log:
            file = os.open(Path(self.folder.store.url) / "computed.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, "".join(f"{shard}\n" for shard in sources).encode())
            os.close(file)

    def end(self, shards: list[int]) -> None:
        pass

    def ran(self) -> dict[str, int]:
        return {}

    def open(self, path: Path) -> ParquetWriter:
        return ParquetWriter(path, SCHEMA)

    def keeps(self, row: dict[str, Any], sample: dict[str, Any]) -> bool:
        return True

    def batches(self, rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        return [rows[start : start + 4] for start in range(0, len(rows), 4)]

    def read(self, row: dict[str, Any]) -> str:
        return row["image_id"]

    def collate(self, items: list[Any]) -> list[Any]:
        return items

    def process(self, items: list[Any]) -> list[Any]:
        time.sleep(self.seconds)
        self.slept += self.seconds
        return [self.seconds for _ in items]

    def encode(self, row: dict[str, Any], item: Any, result: float) -> dict[str, Any]:
        return {"image_id": item, "slept": result}
