"""An index of ten million rows: time and memory of status, plan, and a rerun that finds nothing to do."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.bars import Row
from benchmarks.scale.command import IMPORT, SARE, measure, standins
from benchmarks.scale.made_up import DATASET, make_index, make_records
from sare_core.config import load_settings


def rows(folder: Path, shards: int = 10_000) -> Iterator[Row]:
    settings = standins(folder)
    manifests, work = str(folder / "manifests"), str(folder / "work")
    if not (folder / "made").exists():
        index = make_index(manifests, shards, 1000)
        for made in make_records(load_settings(settings.preset, settings.sets), settings.preset, manifests, work):
            made.ledger.compact(index.digests)
        (folder / "made").touch()
    bare = min((measure(IMPORT) for _ in range(3)), key=lambda one: one.seconds)  # the first is cold
    options = settings.options(DATASET, work, manifests)
    commands = {
        "status": ["status", "--work", work, "--manifests", manifests],
        "plan": ["plan", *options],
        "caption, nothing to do": ["caption", *options],
        "reconstruct, nothing to do": ["reconstruct", *options],
    }
    for name, command in commands.items():
        took = min((measure([*SARE, *command]) for _ in range(2)), key=lambda one: one.seconds)
        yield Row(
            name,
            f"{shards * 1000:,} images in {shards:,} shards, on disk",
            f"{took.seconds - bare.seconds:.1f} s and {took.peak_mb - bare.peak_mb:.0f} MB beyond the import",
            "–",
            True,
        )
