"""What the report reads from reconstructions: the mean of each image's SARE map, and its LPIPS where it was measured.

Maps are read from the tars by their offset. Decoding them takes long on large images, so the numbers are kept in one
parquet; a tar's name holds the digest of its bytes, so what is kept for it stays true.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.shardfiles import TarReader
from sare_core.store.storage import Store

KEPT = "measures.parquet"
MEASURES = pl.Schema(
    {
        "file": pl.String,  # the tar that holds the map
        "image_id": pl.String,
        "subset": pl.String,
        "label": pl.Int8,
        "sare": pl.Float64,  # mean |x − x̂| over pixels and channels, in 8-bit levels
        "lpips": pl.Float64,  # null where the reconstructions were made without
    }
)


def measure_maps(folder: Folder, shards: list[int], kept: pl.DataFrame, advance: Callable[[int], None]) -> pl.DataFrame:
    """MEASURES of every image in some done shards, sorted by subset and image_id. `kept`: what is known already."""
    records = {record.output.name: record for record in folder.records(shards).values() if record.output}
    parts = [kept.filter(pl.col("file").is_in(list(records)))]
    advance(len(parts[0]))
    for name in sorted(records.keys() - set(parts[0]["file"])):
        parts.append(_measure_tar(folder.output(records[name])))
        advance(len(parts[-1]))
    return pl.concat(parts).sort("subset", "image_id", "label")


def read_kept(store: Store) -> pl.DataFrame:
    """Measures that an earlier report kept, or none."""
    return pl.read_parquet(io.BytesIO(store.read(KEPT))) if store.exists(KEPT) else pl.DataFrame(schema=MEASURES)


def keep(store: Store, measures: pl.DataFrame) -> None:
    out = io.BytesIO()
    measures.write_parquet(out)
    store.write(KEPT, out.getvalue())


def _measure_tar(path: Path) -> pl.DataFrame:
    reader, rows = TarReader(path), []
    for key in reader:
        about = json.loads(reader.read(key, "json"))
        sare = np.asarray(Image.open(io.BytesIO(reader.read(key, "sare.png"))).convert("RGB"))
        rows.append(
            {
                "file": path.name,
                "image_id": key,
                "subset": about["subset"],
                "label": about["label"],
                "sare": float(sare.mean()),
                "lpips": about.get("lpips"),
            }
        )
    return pl.DataFrame(rows, schema=MEASURES)


def without_captions(folder: Folder, index: Index, shards: list[int]) -> tuple[Folder | None, str]:
    """The folder of the same reconstructions made with empty captions; or None, and the reason in words."""
    if not _captioned(folder):
        return None, "This run itself reconstructs without captions: there is nothing to compare it with."
    cure = "To compare, run caption and reconstruct with --set caption.captioner=none --set caption.model=null."
    wanted, reason = _without_text(folder), f"No reconstructions without captions lie in this work folder. {cure}"
    for name in Store(folder.work).folders(f"{folder.dataset}/{folder.stage}"):
        if not Store(folder.work).exists(f"{folder.dataset}/{folder.stage}/{name}/about.json"):
            continue
        other = Folder.open(folder.work, folder.dataset, folder.stage, name)
        if _captioned(other) or _without_text(other) != wanted:
            continue
        if not (unfinished := other.undone(index, shards)):
            return other, ""
        reason = f"Without captions, {len(unfinished)} of {len(shards)} test shards are not reconstructed yet. {cure}"
    return None, reason


def _captioned(folder: Folder) -> bool:
    captions = folder.upstream.get("captions")
    return captions is not None and captions.made_by["settings"]["captioner"] != "none"


def _without_text(folder: Folder) -> dict[str, object]:
    """What made reconstructions, but for their captions; the view and the seed are among it."""
    return {key: value for key, value in folder.made_by.items() if key != "captions"}
