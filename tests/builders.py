"""Rows of an index and records of shards, made up, for tests that need no image."""

from typing import Any

import polars as pl

from sare_core.engine.folders import Folder, Output, Record
from sare_core.engine.manifest import INDEX_SCHEMA

ABOUT = {"dataset": "it", "root": "/data", "layout": "folder", "shard_size": 3, "holdout": 0.1, "next_shard": 3}


def index_row(number: int, shard: int | None, **changes: Any) -> dict[str, Any]:
    """A row of subset `gen`, split `test`; real and fake take turns."""
    row = {
        "image_id": f"{number:020x}",
        "path": f"pictures/{number:04}.png",
        "sha256": f"{number:064x}",
        "bytes": 100 + number,
        "mtime_ns": 1_700_000_000_000_000_000 + number,
        "dataset": "it",
        "subset": "gen",
        "split": "test",
        "label": number % 2,
        "class": "dog",
        "width": 64,
        "height": 48,
        "format": "PNG",
        "extension": "png",
        "mode": "RGB",
        "quality": None,
        "shard": shard,
        "error": None,
        "duplicates": [],
    }
    return row | changes


def index_frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=INDEX_SCHEMA)


def shard_record(folder: Folder, shard: int, inputs: dict[str, str], **changes: Any) -> Record:
    """A record of two images that are done, with an output named after its shard."""
    facts: dict[str, Any] = {
        "stage": folder.stage,
        "fingerprint": folder.fingerprint,
        "dataset": folder.dataset,
        "shard": shard,
        "subset": "gen",
        "split": "test",
        "status": "done",
        "settings": folder.made_by,
        "inputs": inputs,
        "output": Output(name=f"{shard:05d}-abc.tar", bytes=3, sha256="5" * 64),
        "fields": ["json"],
        "images": 2,
        "ok": 2,
        "failures": [],
        "started": "2030-01-01T00:00:00+00:00",
        "seconds": 4.0,
        "host": "here",
        "device": "cpu",
        "libraries": {},
    }
    return Record(**facts | changes)
