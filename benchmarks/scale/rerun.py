"""What a rerun of a finished stage costs: it has nothing to do, and should say so at once."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from moto.server import ThreadedMotoServer

from benchmarks.bars import Row
from benchmarks.scale.command import IMPORT, SARE, Standins, median_seconds, standins
from benchmarks.scale.made_up import DATASET, make_index, make_records, make_shards
from sare_core.config import load_settings
from sare_core.engine import ledger
from sare_core.store.storage import Store


def rows(folder: Path, shards: int = 430, per_shard: int = 1000, many: int = 100_000) -> Iterator[Row]:
    settings = standins(folder)
    bare = median_seconds(IMPORT)
    local = _beyond(settings, folder / "local", bare, shards, per_shard)
    yield Row(
        "rerun of a finished stage, beyond the bare import",
        f"{shards * per_shard:,} images in {shards} shards, on disk",
        f"{local:.2f} s (import {bare:.1f} s)",
        "≤ 3 s",
        local <= 3,
    )
    on_s3 = _on_s3(settings, folder / "many", bare, many)
    yield Row(
        "the same on an object store, ratio to the local one",
        f"{many:,} records, compacted, on moto",
        f"{on_s3 / local:.1f} × ({on_s3:.2f} s)",
        "≤ 10 ×",
        on_s3 <= 10 * local,
    )


@contextmanager
def _moto() -> Iterator[dict[str, str]]:
    """An S3 on loopback; the environment that leads there."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    try:
        keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing")
        yield keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    finally:
        server.stop()


def _beyond(settings: Standins, folder: Path, bare: float, shards: int, per_shard: int) -> float:
    manifests, work = str(folder / "manifests"), str(folder / "work")
    if not (folder / "made").exists():
        make_index(manifests, shards, per_shard)
        make_records(load_settings(settings.preset, settings.sets), settings.preset, manifests, work)
        (folder / "made").touch()
    return median_seconds([*SARE, "reconstruct", *settings.options(DATASET, work, manifests)]) - bare


def _on_s3(settings: Standins, folder: Path, bare: float, shards: int) -> float:
    """Records are made and compacted on disk, and copied up; the outputs are not, since nobody asks for them."""
    manifests, work = str(folder / "manifests"), str(folder / "work")
    if not (folder / "made").exists():
        index = make_shards(manifests, shards)
        for made in make_records(load_settings(settings.preset, settings.sets), settings.preset, manifests, work):
            assert made.ledger.compact(index.digests), f"fewer than {ledger.COMPACT_FROM} records"
        (folder / "made").touch()
    with _moto() as environment:
        os.environ.update(environment)
        fsspec.filesystem("s3").mkdir("bench")
        for top in ("manifests", "work"):
            target = Store(f"s3://bench/{top}")
            for path in sorted((folder / top).rglob("*")):
                if path.is_file() and path.stat().st_size:
                    target.put(path, path.relative_to(folder / top).as_posix())
        command = [*SARE, "reconstruct", *settings.options(DATASET, "s3://bench/work", "s3://bench/manifests")]
        spool = str(folder / "spool")
        median_seconds(command, 1, SARE_SPOOL=spool, **environment)  # fetches the copies that are kept
        return median_seconds(command, SARE_SPOOL=spool, **environment) - bare
