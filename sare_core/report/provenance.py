"""Where the numbers come from: what each stage did, with which weights and libraries, and what failed."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from sare_core.engine.folders import Folder


class StageRow(NamedTuple):
    """One stage over all of its shards. rate: images a second of one process; started: of its first shard, UTC."""

    stage: str
    fingerprint: str
    runs: str  # names of the runs that use it
    weights: dict[str, str]  # role: digest or commit, shortened
    shards: int
    images: int
    failed: int
    seconds: float
    rate: float | None
    devices: str
    started: str


def stage_row(folder: Folder) -> StageRow:
    records = folder.records().values()
    images, seconds = sum(record.images for record in records), sum(record.seconds for record in records)
    weights = {role: _short(digest) for role, digest in folder.made_by.get("weights", {}).items()}
    if "checkpoint" in folder.made_by:
        weights["checkpoint"] = f"sha256:{folder.made_by['checkpoint'][:12]}"
    return StageRow(
        folder.stage,
        folder.fingerprint,
        ", ".join(folder.runs()),
        weights,
        len(records),
        images,
        sum(len(record.failures) for record in records),
        seconds,
        images / seconds if seconds else None,
        ", ".join(sorted({record.device for record in records})),
        min((record.started for record in records), default=""),
    )


def failures(folders: Iterable[Folder]) -> list[tuple[str, str, int]]:
    """Stage, reason and how many images, the most frequent first."""
    counts = Counter(
        (folder.stage, failure.reason) for folder in folders for failure in folder.failures(folder.ledger.entries()[0])
    )
    return [(stage, reason, count) for (stage, reason), count in sorted(counts.items(), key=lambda it: (-it[1], it[0]))]


def libraries(folders: Iterable[Folder]) -> dict[str, str]:
    """Every library that a record names, with its version; several where stages ran with several."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for of_shards, _ in folder.ledger.libraries():
            for library, version in of_shards.items():
                found.setdefault(library, set()).add(version)
    return {library: ", ".join(sorted(versions)) for library, versions in sorted(found.items())}


def _short(digest: str) -> str:
    kind, _, value = digest.partition(":")
    return f"{kind}:{value[:12]}"
