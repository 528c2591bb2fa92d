"""Indexes and records of images that do not exist, to measure what only reads those."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sare_core.config import Settings
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import INDEX_SCHEMA, SHARD_SCHEMA, Index, read_index, write_index
from sare_core.engine.record import Output, Record
from sare_core.graph import Graph

DATASET = "made-up"


def make_index(manifests: str, shards: int, per_shard: int) -> Index:
    """`shards` shards of the subset sdv1.4's train split, with random digests and a few image sizes."""
    n, rng = shards * per_shard, np.random.default_rng(0)
    hexes = pl.Series(rng.integers(0, 2**63, n)).cast(pl.String).str.zfill(20)
    frame = pl.DataFrame({"image_id": hexes, "shard": np.repeat(np.arange(shards), per_shard)}).with_columns(
        pl.format("train/ai/{}.png", "image_id").alias("path"),
        pl.concat_str([pl.col("image_id")] * 3).str.zfill(64).alias("sha256"),
        bytes=pl.lit(500_000),
        mtime_ns=pl.lit(1_700_000_000_000_000_000),
        dataset=pl.lit(DATASET),
        subset=pl.lit("sdv1.4"),
        split=pl.lit("train"),
        label=pl.int_range(n) % 2,
        width=pl.lit(512),
        height=pl.Series(rng.choice([512, 384, 344], n)),
        format=pl.lit("PNG"),
        extension=pl.lit("png"),
        mode=pl.lit("RGB"),
    )
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in INDEX_SCHEMA.items() if name not in frame.columns]
    frame = frame.with_columns(missing).with_columns(duplicates=pl.lit([], pl.List(pl.String)))
    about = {"dataset": DATASET, "root": "/nowhere", "layout": "genimage", "shard_size": per_shard, "holdout": 0.0}
    about |= {"next_shard": shards, "images": n, "errors": 0}
    return write_index(manifests, DATASET, frame.sort("shard", "image_id"), about)


def make_shards(manifests: str, shards: int) -> Index:
    """An index of so many shards of 1,000 images, without the rows of the images, which a rerun does not read."""
    index = make_index(manifests, 1, 1)
    digest = pl.format("{}", pl.int_range(shards)).str.zfill(16)
    frame = pl.select(shard=pl.int_range(shards, dtype=pl.Int32), digest=digest).with_columns(
        subset=pl.lit("sdv1.4"), split=pl.lit("train"), images=pl.lit(1000, pl.Int64)
    )
    out = io.BytesIO()
    frame.select(SHARD_SCHEMA.names()).write_parquet(out)
    name = f"shards-{hashlib.sha256(out.getvalue()).hexdigest()[:12]}.parquet"
    index.store.write(name, out.getvalue())
    switch = {"about": index.about, "images": index.images, "shards": name, "rows": shards * 1000}
    index.store.write("index.json", json.dumps(switch).encode())
    return read_index(manifests, DATASET)


def make_records(settings: Settings, preset: str, manifests: str, work: str) -> list[Folder]:
    """Captions and reconstructions as a finished run leaves them: descriptions, records, and on disk empty outputs."""
    index = read_index(manifests, DATASET)
    graph = Graph(settings, DATASET, work)
    folders = [graph.captions, graph.reconstructions]
    for folder in folders:
        folder.describe(preset=preset, train_subsets=None)
        kind = ".parquet" if not folder.upstream else ".tar"
        records = Path(folder.store.url, "records")
        records.mkdir(parents=True, exist_ok=True)
        for shard, images in index.shards.select("shard", "images").iter_rows():
            record = _record(folder, index, shard, images, kind)
            (records / f"{shard:05d}.json").write_text(record.model_dump_json(indent=1))  # without commit's fsync
            assert record.output is not None
            Path(folder.store.url, record.output.name).touch()
    return folders


def _record(folder: Folder, index: Index, shard: int, images: int, kind: str) -> Record:
    digest = f"{shard:064x}"
    inputs: dict[str, str] = {"index": index.digests[shard]}
    for role in folder.upstream:
        inputs[role] = digest
    facts: dict[str, Any] = {"stage": folder.stage, "fingerprint": folder.fingerprint, "dataset": folder.dataset}
    return Record(
        **facts,
        shard=shard,
        subset="sdv1.4",
        split="train",
        status="done",
        settings=folder.made_by,
        inputs=inputs,
        output=Output(name=f"{shard:05d}-{digest[:12]}{kind}", bytes=10**9, sha256=digest),
        fields=["json", "reconstruction.png", "sare.png"],
        images=images,
        ok=images,
        failures=[],
        started="2026-01-01T00:00:00+00:00",
        seconds=150.0,
        host="node001",
        device="cuda:0",
        libraries=dict.fromkeys(("torch", "diffusers", "transformers", "timm", "numpy", "pillow"), "1.2.3"),
    )
