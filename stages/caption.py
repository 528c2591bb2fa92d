"""Images to captions: one parquet a shard.

    sare caption --dataset genimage --preset paper                 # all shards that are not done
    sare caption --dataset genimage --preset paper --shard 3
    accelerate launch --num_processes 8 --multi_gpu -m stages.caption --dataset genimage --preset paper

Paper 3.2, "Image Captioning". A row: image_id, caption, captioner, revision (of its weights), n_tokens (of the uncut
caption, with begin and end), truncated (cut to what the CLIP text encoder takes).
"""

from pathlib import Path
from typing import Any

import pyarrow as pa

from sare_core.captioning import check_captioner, load_captioner
from sare_core.captioning.cut import cut_caption
from sare_core.config import Settings, load_settings
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index, read_index
from sare_core.engine.runner import run
from sare_core.engine.shardfiles import ParquetWriter
from sare_core.errors import ConfigError, ImageError
from sare_core.images.sources import read_source, view_image
from sare_core.miniature.foreign import refuse_foreign_images
from sare_core.models.weights import Weights, fetch, require_tokenizer, require_whole, resolve
from sare_core.store.storage import sha256_file
from stages.options import (
    Dataset,
    Manifests,
    Preset,
    RunName,
    Set,
    Shard,
    Work,
    chosen_shards,
    console,
    finish,
    run_command,
)

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


def weights_of(settings: Settings, work: str) -> dict[str, Weights]:
    """What the captions are made with, by role. Raises ConfigError: not to be found."""
    caption = settings.caption
    check_captioner(caption)
    weights = {"text_tokenizer": resolve(caption.text_tokenizer, caption.text_tokenizer_revision, work)}
    if caption.model is not None:
        weights["model"] = resolve(caption.model, caption.revision, work)
    if caption.table is not None:
        if not Path(caption.table).is_file():
            raise ConfigError(f"caption.table={caption.table}: no such file.")
        weights["table"] = Weights(caption.table, f"sha256:{sha256_file(Path(caption.table))}", caption.table, False)
    return weights


def folder_of(settings: Settings, dataset: str, work: str) -> Folder:
    """The folder of these captions: view, caption settings and weights decide, nothing else."""
    made_by = {
        "stage": NAME,
        "version": VERSION,
        "view": settings.view,
        "settings": settings.caption.fingerprint_fields(),
        "weights": {role: weights.digest for role, weights in weights_of(settings, work).items()},
    }
    return Folder(work, dataset, NAME, made_by, upstream=None)


class CaptionStage:
    suffix, fields = ".parquet", tuple(SCHEMA.names)

    def __init__(self, settings: Settings, index: Index, folder: Folder) -> None:
        self.settings, self.root, self.folder = settings, index.about["root"], folder

    def load(self, device: str) -> None:
        from transformers import CLIPTokenizer

        weights = weights_of(self.settings, self.folder.work)
        model = fetch(weights["model"]) if "model" in weights else None
        self.captioner = load_captioner(self.settings.caption, model, device)
        folder = Path(weights["text_tokenizer"].folder)
        require_whole(folder)
        require_tokenizer(folder)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        made_with = weights.get("model") or weights.get("table")
        self.revision = made_with.revision if made_with else ""

    def begin(self, shard: int, source: Path | None) -> None:
        pass

    def open(self, path: Path) -> ParquetWriter:
        return ParquetWriter(path, SCHEMA)

    def keeps(self, row: dict[str, Any], sample: dict[str, Any]) -> bool:
        return True

    def batches(self, rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        size = self.settings.caption.batch_size
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def read(self, row: dict[str, Any]) -> Any:
        return row, view_image(read_source(self.root, row), row, self.settings.view)

    def process(self, items: list[Any]) -> list[Any]:
        rows, images = zip(*items, strict=True)
        captions = self.captioner.caption(list(images), list(rows))
        return [ImageError("there is no caption for it") if caption is None else caption for caption in captions]

    def encode(self, row: dict[str, Any], item: Any, result: str) -> dict[str, Any]:
        caption, n_tokens, truncated = cut_caption(self.tokenizer, result)
        return {
            "image_id": row["image_id"],
            "caption": caption,
            "captioner": self.settings.caption.captioner,
            "revision": self.revision,
            "n_tokens": n_tokens,
            "truncated": truncated,
        }


def caption(
    dataset: Dataset,
    preset: Preset = "mini",
    set_: Set = None,
    shard: Shard = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    run_name: RunName = None,
) -> None:
    """Caption images: one parquet a shard."""
    index = read_index(manifests, dataset)
    settings = load_settings(preset, set_, index.about["layout"])
    refuse_foreign_images([settings.caption.model], index)
    folder = folder_of(settings, dataset, work)
    shards = chosen_shards(index, ["train", "val", "test"], settings.train_subsets, shard)
    name = folder.describe(
        run_name, preset=preset, model=settings.caption.model, shards=len(shards), train_subsets=settings.train_subsets
    )
    finish(run(CaptionStage(settings, index, folder), index, shards, console), NAME, f"{folder.store.url} ({name})")


if __name__ == "__main__":
    run_command(caption)
