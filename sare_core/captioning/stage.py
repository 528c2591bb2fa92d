"""The stage from images to captions, one parquet a shard (paper 3.2, "Image Captioning").

A row: image_id, caption, captioner, revision (of its weights), n_tokens (of the uncut caption, with begin and end),
truncated (cut to what the CLIP text encoder takes).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from sare_core.captioning.captions import Captions, weights_of
from sare_core.config.captioning import CaptionSettings
from sare_core.engine.flow import Row, in_batches
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.shardfiles import ParquetWriter
from sare_core.images.sources import read_source, view_image

NAME, VERSION = "captions", 1  # raise the version when the same settings come to give other captions
SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("caption", pa.string()),
        ("captioner", pa.string()),
        ("revision", pa.string()),
        ("n_tokens", pa.int32()),
        ("truncated", pa.bool_()),
    ]
)


class CaptionStage:
    suffix, fields, shards_together = ".parquet", tuple(SCHEMA.names), 1

    def __init__(self, settings: CaptionSettings, view: str, index: Index, folder: Folder) -> None:
        self.settings, self.view, self.root, self.folder = settings, view, index.about["root"], folder

    def load(self, device: str) -> None:
        weights = weights_of(self.settings, self.folder.work)
        self.captions = Captions(self.settings, weights, device)
        made_with = weights.get("model") or weights.get("table")
        self.revision = made_with.revision if made_with else ""

    def begin(self, sources: dict[int, dict[str, Path]]) -> None:
        pass

    def end(self, shards: list[int]) -> None:
        pass

    def ran(self) -> dict[str, int]:
        return {}

    def open(self, path: Path) -> ParquetWriter:
        return ParquetWriter(path, SCHEMA)

    def keeps(self, row: dict[str, Any], sample: dict[str, Any]) -> bool:
        return True

    def batches(self, rows: list[Row]) -> Sequence[Sequence[Row]]:
        return in_batches(rows, self.settings.batch_size)

    def read(self, row: dict[str, Any]) -> Any:
        return row, view_image(read_source(self.root, row), row, self.view)

    def collate(self, items: list[Any]) -> Any:
        rows, images = zip(*items, strict=True)
        return self.captions.prepare(list(images), list(rows))

    def process(self, batch: Any) -> list[Any]:
        return self.captions.say(batch)

    def encode(self, row: dict[str, Any], item: Any, result: str) -> dict[str, Any]:
        caption, n_tokens, truncated = self.captions.cut(result)
        return {
            "image_id": row["image_id"],
            "caption": caption,
            "captioner": self.settings.captioner,
            "revision": self.revision,
            "n_tokens": n_tokens,
            "truncated": truncated,
        }
